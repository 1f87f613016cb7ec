# Needs Python 3.11 to 3.13 and nothing else. The environment is set up on first use, and each
# backend is added to it when it is first asked for.

PYTHON ?= python3
VENV ?= .venv
UV ?= uv

BACKENDS := tensorflow jax torch
FAST := $(or $(KERAS_BACKEND),torch)
ifeq ($(KERAS_BACKEND),)
TESTED := $(BACKENDS)
override KERAS_BACKEND := tensorflow
else ifeq ($(filter $(BACKENDS),$(KERAS_BACKEND)),)
$(error KERAS_BACKEND must be tensorflow, jax or torch. Received: $(KERAS_BACKEND))
else
TESTED := $(KERAS_BACKEND)
endif

PYTHONS := 3.11 3.12 3.13
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
COMMON := $(VENV)/.installed-$(VERSION)
INSTALLED := $(COMMON)-$(KERAS_BACKEND)
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet

# In the targets test-BACKEND. A test whose process crashes runs again, and the last lines say so:
# tests/conftest.py.
PYTEST = KERAS_BACKEND=$(@:test-%=%) \
	$(PY) -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal $(WHOLE)

export KERAS_BACKEND
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-all $(BACKENDS:%=test-%) lint format differential bench lock clean
.NOTPARALLEL:

help:  ## show this list
	@echo 'Targets:'
	@sed -n 's/^\([a-z -]*\):.*  ## /  \1\t/p' Makefile | expand -t 23
	@echo 'Variables: KERAS_BACKEND=jax chooses the backend (tensorflow, jax or torch; by default test'
	@echo 'takes all three and the others tensorflow), PYTHON=python3.12 the interpreter, VENV=.venv'
	@echo 'the environment; ARGS="..." goes to the script or to pytest: make demo ARGS="--smoke".'

demo: $(INSTALLED)  ## compare the methods on a small problem
	$(PY) examples/compare_methods.py $(ARGS)

test: lint $(TESTED:%=$(COMMON)-%)  ## lint and run the tests
	@$(MAKE) --no-print-directory --keep-going $(TESTED:%=test-%)

test-fast: lint test-$(FAST)  ## lint and run the tests on one backend, by default torch

test-all:  ## every test on every backend and the whole of every table; takes hours
	@$(MAKE) --no-print-directory test WHOLE=--whole-tables

test-tensorflow: $(COMMON)-tensorflow  ## only the tests of this backend
	@# The matrix has processes of its own: TensorFlow keeps every XLA program until its process
	@# ends. 5: ARGS select no test.
	@part() { echo "Tests on tensorflow, $$1"; $(PYTEST) -m "$$1" $(ARGS); }; \
		part 'not matrix'; rest=$$?; part matrix; \
		case "$$rest $$?" in '0 0'|'0 5'|'5 0') ;; *) exit 1;; esac

# JAX compiles what each test calls, and that takes long: there it is what is marked.
test-jax: MARKED = $(if $(WHOLE),,-m jax)

test-jax test-torch: test-%: $(COMMON)-%  ## likewise
	@echo 'Tests on $*'
	@$(PYTEST) $(MARKED) $(ARGS) || [ $$? = 5 ]

lint: $(COMMON)  ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy keras_gbr

format: $(COMMON)  ## fix style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

differential: $(BACKENDS:%=$(COMMON)-%)  ## compare the backends on random programs
	PYTHONPATH=tests $(PY) tests/differential/compare.py $(or $(ARGS),--seeds 0:30)

bench: $(INSTALLED)  ## measure step times
	$(PY) benchmarks/step_time.py $(ARGS)
	$(PY) benchmarks/penalties.py $(ARGS)

lock:  ## renew the locked versions, needs uv; ARGS="--upgrade" takes newer ones
	@# Everything in one resolution, so that all backends fit in one environment.
	$(COMPILE) pyproject.toml requirements/build.in requirements/torch.in --extra tensorflow-cpu \
		--extra jax --extra examples --extra dev --output-file requirements/versions.txt $(ARGS)
	$(LOCK) requirements/build.in --output-file requirements/build.txt
	$(LOCK) pyproject.toml --extra examples --extra dev --output-file requirements/common.txt
	$(LOCK) pyproject.toml --extra tensorflow-cpu --output-file requirements/tensorflow.txt
	$(LOCK) pyproject.toml --extra jax --output-file requirements/jax.txt
	$(LOCK) requirements/torch.in --output-file requirements/torch.txt
	$(LOCK) --no-deps requirements/keras-hub.in --output-file requirements/keras-hub.txt $(ARGS)

COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'
LOCK = $(COMPILE) --generate-hashes --constraint requirements/versions.txt

clean:  ## remove the environment and everything generated
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# What every backend needs. The file is written last, so that an interrupted installation starts
# again, and those of the backends go first, because their versions may have changed with these.
$(COMMON): pyproject.toml requirements/build.txt requirements/common.txt requirements/keras-hub.txt
	@case ' $(PYTHONS) ' in *' $(or $(VERSION),none) '*) ;; *) \
		echo 'Python 3.11 to 3.13 is needed; $(PYTHON) is $(or $(VERSION),not there).' \
			'Name another one: make PYTHON=python3.12 ...' >&2; exit 1;; esac
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '$(PYTHON) cannot make environments: its venv or ensurepip module is missing.' \
			'On Debian and Ubuntu: apt install python$(VERSION)-venv' >&2; exit 1; }
	@rm -f $(VENV)/.installed-*
	@$(VENV)/bin/python$(VERSION) -m pip --version >/dev/null 2>&1 || \
		$(PYTHON) -m venv --clear $(VENV)
	@echo 'Installing into $(VENV), this takes a few minutes ...'
	@$(PIP) --requirement requirements/build.txt
	@$(PIP) --no-build-isolation --requirement requirements/common.txt
	@$(PIP) --no-deps --requirement requirements/keras-hub.txt
	@$(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

$(COMMON)-tensorflow: $(COMMON) requirements/tensorflow.txt
	@if [ "$$(uname -sm)" = 'Linux x86_64' ] && \
		$(PY) -m pip show --quiet tensorflow >/dev/null 2>&1; then \
		echo '$(VENV) holds tensorflow, which excludes the locked tensorflow-cpu.' \
			'Name another environment: make VENV=.venv-cpu ...' >&2; exit 1; fi
	@echo 'Installing TensorFlow into $(VENV) ...'
	@$(PIP) --requirement requirements/tensorflow.txt
	@touch $@

$(COMMON)-jax: $(COMMON) requirements/jax.txt
	@echo 'Installing JAX into $(VENV) ...'
	@$(PIP) --requirement requirements/jax.txt
	@touch $@

$(COMMON)-torch: $(COMMON) requirements/torch.txt requirements/torch-wheel.txt
	@echo 'Installing PyTorch into $(VENV) ...'
	@$(PIP) --requirement requirements/torch.txt
	@$(PIP) --constraint requirements/versions.txt --requirement requirements/torch-wheel.txt
	@touch $@
