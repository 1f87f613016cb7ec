"""What the examples share: quiet imports, checked options, progress, tables and safe writes."""

import argparse
import csv
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def quiet_imports(script: str) -> Iterator[None]:
    """Drops what C++ code and libraries write to the standard error while they are imported.

    Args:
        script: The file of the example, for its name.

    Raises:
        SystemExit: A package is missing, and the message says how to install it, or the backend
            of Keras is one that keras_gbr does not run on.
    """
    name = Path(script).name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as null, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(null.fileno(), 2)
            yield
    except ModuleNotFoundError as error:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        raise SystemExit(
            f"{name}: error: the package {error.name!r} is missing. "
            f'Install what the examples need: pip install -e ".[{backend},examples]", or set '
            "KERAS_BACKEND to the backend that is installed: tensorflow, jax or torch"
        ) from None
    except ImportError as error:
        raise SystemExit(f"{name}: error: {error}") from None
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def at_least(minimum: int) -> Callable[[str], int]:
    """The type of an option that takes whole numbers from `minimum`."""

    def number(text: str) -> int:
        try:
            if int(text) >= minimum:
                return int(text)
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"must be a whole number >= {minimum}. Received: {text}")

    return number


def positive(text: str) -> float:
    """The type of an option that takes numbers above 0."""
    try:
        if 0 < float(text) < math.inf:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a number > 0. Received: {text}")


class Progress:
    """One line with what is done, the time that has passed and an estimate of the time left."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.start = total, 0, time.monotonic()
        self.on_terminal = sys.stdout.isatty()

    def advance(self, text: str) -> None:
        """Counts one more of the `total` pieces of work as done."""
        self.done += 1
        passed = time.monotonic() - self.start
        left = passed / self.done * (self.total - self.done)
        line = f"[{self.done}/{self.total}] {text}: {passed:.0f} s, about {left:.0f} s left"
        if not self.on_terminal:
            print(line, flush=True)
            return
        end = "\n" if self.done == self.total else ""
        print(f"\r\033[K{line}", end=end, flush=True)


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its first line the headings."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [cells[0], ["-" * width for width in widths], *cells[1:]]
    return "\n".join(
        "| " + " | ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes rows that have the same keys, one line per row."""

    def write(temporary: str) -> None:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    write_whole(path, write)


def write_whole(path: Path, write: Callable[[str], Any]) -> None:
    """Writes beside `path` and renames, so that the file is never half written.

    Raises:
        OSError: The disk is full, say; it names `path`.
    """
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=temporary_prefix(path), suffix=path.suffix
    )
    os.close(handle)
    try:
        write(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError) and error.errno and not error.filename:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def temporary_prefix(path: Path) -> str:
    """How the names begin that `path` has while it is written, and after a kill meanwhile."""
    return f".{path.name}."
