"""A progress bar for work that may take long."""

import time

import keras

from keras_gbr import _checks as check

# Seconds after which a progress bar appears.
_PATIENCE = 2.0


class Progress:
    """A progress bar that counts batches, or several steps for each batch.

    Args:
        total: The number of batches, or `None` if it is unknown.
        verbose: 0 for silence, 1 for a progress bar from the start, `"auto"` for one that appears
            after two seconds.
    """

    def __init__(self, total: int | None, verbose: str | int) -> None:
        self.total, self.done, self.steps = total, 0.0, 1
        self.bar = None if verbose == 0 else keras.utils.Progbar(total, unit_name="step")
        self.visible_from = time.monotonic() + (_PATIENCE if verbose == "auto" else 0.0)
        self.shown = False

    def refine(self, steps: int) -> None:
        """Counts each batch as several steps, if nothing has been shown yet."""
        if self.bar and not self.shown:
            self.steps = steps
            self.bar.target = self._last

    def advance(self, share: float = 1.0) -> None:
        """Notes that a batch, or a share of one, is done."""
        self.done += share
        ends_unseen = self._steps_done == self._last and not self.shown
        if self.bar and not ends_unseen and time.monotonic() >= self.visible_from:
            self.shown = True
            self.bar.update(self._steps_done)

    def finish(self) -> None:
        """Ends the line of a bar that does not know its end."""
        if self.bar and self.shown and self.total is None:
            self.bar.update(self._steps_done, finalize=True)

    @property
    def _steps_done(self) -> int:
        # Shares add up to whole numbers except for rounding.
        return int(self.done * self.steps + 1e-6)

    @property
    def _last(self) -> int | None:
        return None if self.total is None else self.total * self.steps


def check_verbose(verbose: str | int) -> None:
    """Refuses a `verbose` that `Progress` does not know.

    Raises:
        ValueError: `verbose` is not "auto", 0 or 1.
    """
    if verbose not in ("auto", 0, 1):
        raise check.error("`verbose` must be 'auto', 0 or 1.", "verbose", verbose)
