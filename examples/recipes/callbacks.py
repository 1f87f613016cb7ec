"""What happens during `fit`: progress, the log, the checkpoint."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from common.tools import write_csv

from recipes import checkpoint

_REDRAWN = 0.2  # seconds between two updates of the bar


class Progress(keras.callbacks.Callback):
    """A bar for each epoch with images a second, and the times of the training.

    Args:
        epochs: Epochs of the whole training.
        steps: Steps of an epoch.
        batch_size: Images in a step.
        show: Whether to print.

    Attributes:
        compilation: Seconds of the first step, which compiles.
        seconds: Seconds in the other steps.
        images: Images in the other steps.
    """

    def __init__(self, epochs: int, steps: int, batch_size: int, show: bool) -> None:
        super().__init__()
        self.epochs, self.steps, self.batch_size, self.show = epochs, steps, batch_size, show
        self.compilation, self.seconds, self.images = 0.0, 0.0, 0
        self._is_first = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.show:
            print(f"Epoch {epoch + 1}/{self.epochs}", flush=True)
            self._bar = keras.utils.Progbar(self.steps, stateful_metrics=["images/s"])
        self._begin = self._end = self._drawn = time.perf_counter()
        self._counted = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        is_last = batch + 1 == self.steps
        if self._is_first or is_last:
            float(logs["loss"])  # waits for the step, on every backend
        self._end = time.perf_counter()
        if self._is_first:
            self._is_first = False
            self.compilation = self._end - self._begin
            self._begin = self._end
            return
        self._counted += 1
        if self.show and self._end - self._drawn > _REDRAWN and not is_last:
            self._drawn = self._end
            self._bar.update(batch + 1, [("images/s", self._speed())], finalize=False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds += self._end - self._begin
        self.images += self._counted * self.batch_size
        if self.show:
            values = [("images/s", self._speed()), *(logs or {}).items()]
            self._bar.update(self.steps, values, finalize=True)

    def _speed(self) -> float:
        return self._counted * self.batch_size / max(self._end - self._begin, 1e-9)


class Records(keras.callbacks.Callback):
    """Writes the log and the checkpoint after each epoch.

    Args:
        folder: The folder of the run.
        notes: What the checkpoint holds beside the weights; "history" has one entry per epoch.
        added: Function that returns further values for the notes.
    """

    def __init__(self, folder: Path, notes: dict[str, Any], added: Callable[[], dict]) -> None:
        super().__init__()
        self.folder, self.notes, self.added = folder, notes, added

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        entry = {"epoch": epoch + 1}
        for name, value in (logs or {}).items():
            entry[name.replace("val_", "test_", 1)] = float(value)
        self.notes["history"].append(entry)
        self.notes.update(self.added())
        keys = dict.fromkeys(key for row in self.notes["history"] for key in row)
        rows = [{key: row.get(key, "") for key in keys} for row in self.notes["history"]]
        # The log goes first: a training that resumes does not repeat an epoch that was saved.
        write_csv(rows, self.folder / "log.csv")
        checkpoint.save(self.model, self.notes, self.folder)


class EndOnNaN(keras.callbacks.Callback):
    """Ends the training after an epoch whose loss is not finite; its state is not saved."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not math.isfinite(float(logs["loss"])):
            raise DivergedError(epoch + 1)


class DivergedError(Exception):
    """The loss of an epoch was not finite."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"the loss was not finite in epoch {epoch}")
