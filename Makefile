# Needs Python 3.11 to 3.13 and nothing else. The environment is set up on first use.

PYTHON ?= python3
VENV ?= .venv
UV ?= uv

PYTHONS := 3.11 3.12 3.13
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
INSTALLED := $(VENV)/.installed-$(VERSION)
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet

PYTEST = $(PY) -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench lock clean

help:  ## show this list
	@echo 'Targets:'
	@sed -n 's/^\([a-z]*\):.*  ## /  \1\t/p' Makefile | expand -t 12
	@echo 'Variables: PYTHON=python3.12 chooses the interpreter, VENV=.venv the environment,'
	@echo 'ARGS="..." goes to the script or to pytest: make demo ARGS="--smoke".'

demo: $(INSTALLED)  ## compare the methods on a small problem
	$(PY) examples/compare_methods.py $(ARGS)

test: lint  ## lint and run the tests
	@# The matrix has processes of its own: TensorFlow keeps every XLA program until its process
	@# ends. What failed runs once more, in new processes: in long ones, with several strategies
	@# and many programs, TensorFlow's runtime crashes now and then. 5: ARGS select no test.
	@part() { $(PYTEST) -m "$$1" $(ARGS); code=$$?; \
		if [ $$code = 1 ]; then $(PYTEST) -m "$$1" --last-failed $(ARGS); code=$$?; fi; \
		return $$code; }; \
		part 'not matrix'; rest=$$?; part matrix; \
		case "$$rest $$?" in '0 0'|'0 5'|'5 0') ;; *) exit 1;; esac

lint: $(INSTALLED)  ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy keras_gbr

format: $(INSTALLED)  ## fix style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(INSTALLED)  ## measure step times
	$(PY) benchmarks/step_time.py $(ARGS)
	$(PY) benchmarks/penalties.py $(ARGS)

lock:  ## renew the locked versions, needs uv; ARGS="--upgrade" takes newer ones
	$(LOCK) requirements/build.in --output-file requirements/build.txt
	$(LOCK) pyproject.toml --extra tensorflow-cpu --extra examples --extra dev \
		--constraint requirements/build.txt --output-file requirements/lock.txt
	$(LOCK) --no-deps requirements/keras-hub.in --output-file requirements/keras-hub.txt

LOCK = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(ARGS)

clean:  ## remove the environment and everything generated
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# Written last, so that an interrupted installation starts again.
$(INSTALLED): pyproject.toml requirements/build.txt requirements/lock.txt requirements/keras-hub.txt
	@case ' $(PYTHONS) ' in *' $(or $(VERSION),none) '*) ;; *) \
		echo 'Python 3.11 to 3.13 is needed; $(PYTHON) is $(or $(VERSION),not there).' \
			'Name another one: make PYTHON=python3.12 ...' >&2; exit 1;; esac
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '$(PYTHON) cannot make environments: its venv or ensurepip module is missing.' \
			'On Debian and Ubuntu: apt install python$(VERSION)-venv' >&2; exit 1; }
	@rm -f $(VENV)/.installed-*
	@$(VENV)/bin/python$(VERSION) -m pip --version >/dev/null 2>&1 || \
		$(PYTHON) -m venv --clear $(VENV)
	@if [ "$$(uname -sm)" = 'Linux x86_64' ] && \
		$(PY) -m pip show --quiet tensorflow >/dev/null 2>&1; then \
		echo '$(VENV) holds tensorflow, which excludes the locked tensorflow-cpu.' \
			'Name another environment: make VENV=.venv-cpu ...' >&2; exit 1; fi
	@echo 'Installing into $(VENV), this takes a few minutes ...'
	@$(PIP) --requirement requirements/build.txt
	@$(PIP) --no-build-isolation --requirement requirements/lock.txt
	@$(PIP) --no-deps --requirement requirements/keras-hub.txt
	@$(PIP) --no-build-isolation --no-deps --editable .
	@touch $@
