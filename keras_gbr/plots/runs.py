"""The values by epoch that `fit` recorded, of one run or of several."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import keras
import numpy as np

from keras_gbr import _checks as check

# A run: the lists of `History.history`, or the columns of a file by `CSVLogger`.
Run = Mapping[str, Any]

_EXPECTED = (
    "`runs` must be what `model.fit` returns, or the dict of its lists, or a dict of such runs "
    "by their labels."
)
# What `CSVLogger` writes where an epoch has no value.
_MISSING = ("", "NA")


def as_runs(runs: Any) -> dict[str, Run]:
    """Runs by label.

    Args:
        runs: A run, that is a `keras.callbacks.History` or a dict of lists; it gets an empty
            label. Or a dict of runs, by labels that are strings or numbers.

    Raises:
        ValueError: `runs` is something else, or empty.
    """
    if _is_run(runs):
        table = {"": runs}
    elif isinstance(runs, Mapping) and runs:
        table = {_label(key): run for key, run in runs.items()}
    else:
        raise check.error(_EXPECTED, "runs", runs)
    for label, run in table.items():
        if not _is_run(run):
            raise check.error(_EXPECTED, f"runs[{label!r}]", run)
    return {
        label: {"epoch": run.epoch, **run.history} if _is_history(run) else run
        for label, run in table.items()
    }


def values_by_epoch(label: str, run: Run, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The finite values of a metric and their epochs, counted from 1.

    Args:
        label: The label of the run, for errors.
        run: See `as_runs`. Its "epoch", if it has one, counts from 0.
        metric: The name in the logs.

    Returns:
        Two arrays of the same length.

    Raises:
        ValueError: The run lacks the metric, or does not have one number per epoch.
    """
    name = f"runs[{label!r}]" if label else "runs"
    if metric not in run:
        there = ", ".join(repr(key) for key in run if key != "epoch") or "nothing"
        raise check.error(f"`{name}` has no {metric!r}. It has {there}.", "metric", metric)
    values = _numbers(name, metric, run[metric])
    epochs = _numbers(name, "epoch", run["epoch"]) if "epoch" in run else np.arange(len(values))
    if len(epochs) != len(values):
        raise check.error(
            f"`{name}[{metric!r}]` must have a value for each epoch; nan where there is none.",
            "values, epochs",
            (len(values), len(epochs)),
        )
    finite = np.isfinite(values)
    return epochs[finite] + 1, values[finite]


def _is_history(run: Any) -> bool:
    return isinstance(run, keras.callbacks.History)


def _is_run(run: Any) -> bool:
    if isinstance(run, Mapping):
        # A dict of runs holds no sequences.
        return bool(run) and not any(isinstance(v, Mapping) or _is_history(v) for v in run.values())
    return _is_history(run)


def _label(key: Any) -> str:
    if isinstance(key, Real) and not isinstance(key, bool):
        return str(key)
    if isinstance(key, str) and key:
        return key
    raise check.error("The labels of `runs` must be strings or numbers.", "label", key)


def _numbers(name: str, metric: str, values: Any) -> np.ndarray:
    try:
        array = np.array(
            [np.nan if isinstance(v, str) and v in _MISSING else v for v in values], "float64"
        )
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 1 or not len(array):
        raise check.error(
            f"`{name}[{metric!r}]` must be a number for each epoch.", metric, values
        ) from None
    return array
