"""Trains rows in processes of their own, several at once on one accelerator."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.tools import Progress

from recipes import config as settings
from recipes.rows import RESULT, Training, note, read_json

TRAIN = (sys.executable, str(Path(__file__).parents[1] / "train.py"))
_CHILD = Path(__file__).with_name("child.py")
_POLL = 0.05  # seconds
_GRACE = 10.0  # seconds that a process has to end


@dataclass
class _Process:
    """A training that runs."""

    training: Training
    popen: "subprocess.Popen[bytes]"
    started: float


class Pool:
    """Trains rows, and keeps what they come to in their folders.

    Args:
        output: The folder that has the cache.
        jobs: Trainings at once.
        deadline: When to stop, on the clock of `time.monotonic`; `None` for never.
        program: The command that trains.
    """

    def __init__(
        self, output: Path, jobs: int, deadline: float | None, program: Sequence[str] = TRAIN
    ) -> None:
        self.output, self.jobs, self.deadline, self.program = output, jobs, deadline, program
        self._environment = environment(output, jobs)
        self._running: list[_Process] = []
        self._longest = 0.0

    def train(self, trainings: Iterable[Training]) -> list[Training]:
        """Trains what is not done.

        No training starts if the time left is shorter than the longest one so far. Those that
        run at the deadline are stopped, and go on from their checkpoints the next time.

        Returns:
            Those that did not end.
        """
        waiting = deque(each for each in trainings if not each.is_done)
        left: list[Training] = []
        progress = Progress(len(waiting))
        progress.on_terminal = False  # a line that a failed row leaves must stay
        try:
            while waiting or self._running:
                if self._time_left() <= self._longest:
                    left += waiting
                    waiting.clear()
                if self._time_left() <= 0:
                    return [*(each.training for each in self._running), *left]
                while waiting and len(self._running) < self.jobs:
                    self._running.append(self._start(waiting.popleft()))
                time.sleep(_POLL)
                for process in [each for each in self._running if each.popen.poll() is not None]:
                    self._running.remove(process)
                    progress.advance(self._ended(process))
        finally:
            self._stop()
        return left

    def _time_left(self) -> float:
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()

    def _start(self, training: Training) -> _Process:
        folder = training.folder
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "config.yaml"
        if not file.exists():
            settings.write(training.config, file)
        note(training, self.jobs)
        command = [sys.executable, _CHILD, os.getpid(), *self.program]
        command += ["--config", file, "--output", folder, "--resume", "--quiet"]
        with open(folder / "output.txt", "w") as out, open(folder / "errors.txt", "w") as err:
            popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=self._environment,
                start_new_session=True,
            )
        return _Process(training, popen, time.time())

    def _ended(self, process: _Process) -> str:
        """Notes what became of a training; returns a line about it."""
        training = process.training
        failure = None if training.is_done else _failure(process)
        self._note(process, failure)
        seconds = time.time() - process.started
        self._longest = max(self._longest, seconds)
        result = read_json(training.folder / RESULT) or {}
        if failure:
            return f"{training.label}, failed: {failure}"
        if result.get("status") == "diverged":
            return f"{training.label}, diverged: {result.get('message')}"
        return f"{training.label}, {100 * result['test_accuracy']:.2f} % in {seconds:.0f} s"

    def _note(self, process: _Process, failure: str | None = None) -> None:
        note(process.training, self.jobs, (process.started, time.time()), failure)

    def _stop(self) -> None:
        """Ends the processes that run, with those that they have started."""
        for process in self._running:
            _signal(process, signal.SIGTERM)
        limit = time.monotonic() + _GRACE
        for process in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(max(0.0, limit - time.monotonic()))
            _signal(process, signal.SIGKILL)
            process.popen.wait()
            self._note(process)
        self._running = []


def environment(output: Path, jobs: int) -> dict[str, str]:
    """The variables of the processes; those that are set already stay.

    Memory of a GPU is taken as it is needed. JAX keeps compiled programs in a folder that all
    share. Several processes divide the cores among themselves.
    """
    ours = {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str((output / "jax").resolve()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    if jobs > 1:
        cores = str(max(1, (os.cpu_count() or 1) // jobs))
        names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        ours |= dict.fromkeys(names, cores)
    return ours | dict(os.environ)


@contextlib.contextmanager
def only_one(output: Path) -> Iterator[None]:
    """Holds the folder, so that two programs do not train the same rows.

    Raises:
        ValueError: Another program holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(output / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"another paper_tables.py trains in {output}. Wait, or give another --output"
            ) from None
        yield


def _signal(process: _Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.popen.pid, number)


def _failure(process: _Process) -> str:
    """The last line that a process wrote to its standard error, or how it ended."""
    errors = process.training.folder / "errors.txt"
    lines = errors.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    status = process.popen.returncode
    if status == -signal.SIGKILL:
        return "killed by SIGKILL, which the system sends when memory is short"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    if said and status:
        return said[-1]
    return f"ended with status {status} and no {RESULT}"
