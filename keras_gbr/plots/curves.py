"""Figures of runs over their epochs."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np

from keras_gbr.plots import canvas
from keras_gbr.plots.runs import as_runs, values_by_epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Runs: TypeAlias = keras.callbacks.History | Mapping[Any, Any]
Curve = tuple[np.ndarray, np.ndarray]

_WORDS = {
    "gbr": r"GBR: mean $\|\partial f/\partial x\|_F^2$",
    "val_gbr": r"GBR on validation inputs: mean $\|\partial f/\partial x\|_F^2$",
}
# Values that span this factor are drawn on a logarithmic axis.
_DECADE = 10.0
# Curves of fewer points have markers.
_FEW = 15


def gbr_curves(
    runs: Runs, metric: str = "gbr", accuracy: str | None = "auto", ax: "Axes | None" = None
) -> "Axes":
    """Draws the GBR of several runs over epochs, with the final accuracies in the legend.

    The axis is logarithmic if the values span a decade. Labels that are numbers, such as weight
    decays, get ordered colours.

    Args:
        runs: A dict of runs by label, a string or a number; or a single run. A run is what
            `model.fit` returned with a `GBRMonitor`, the dict of lists in it, or such a dict read
            from a file of `CSVLogger`.
        metric: The metric to draw, by its name in the logs: `"gbr"`, `"val_gbr"`, or another.
        accuracy: The metric whose final value stands beside each label. `"auto"` takes
            `"val_accuracy"` or `"accuracy"`, if all runs have it; `None` takes none.
        ax: The `matplotlib.axes.Axes` to draw on, or `None` for a new figure.

    Returns:
        The `Axes`.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: `runs` is empty or holds something else, a run lacks a metric or a value, or
            `ax` is not an `Axes`.

    Example:

    ```python
    monitor = keras_gbr.GBRMonitor(x_train[:8])
    history = model.fit(x_train, y_train, epochs=3, callbacks=[monitor], verbose=0)
    ax = keras_gbr.plots.gbr_curves({"plain": history})
    ax.figure.savefig("gbr.png")
    ```

    Reference:
        Li, Chen & Yang 2021, "Generalization Bound Regularizer: A Unified Perspective for
        Understanding Weight Decay", Chinese Journal of Computers, figures 1
        and 3.
    """
    canvas.check_axes(ax)
    table = as_runs(runs)
    curves = {label: values_by_epoch(label, run, metric) for label, run in table.items()}
    if accuracy == "auto":
        shared = [m for m in ("val_accuracy", "accuracy") if all(m in r for r in table.values())]
        accuracy = next(iter(shared), None)
    texts = dict.fromkeys(table, "")
    if accuracy is not None:
        for label, run in table.items():
            texts[label] = _final(accuracy, values_by_epoch(label, run, accuracy)[1])
    ax = canvas.axes_or_new(ax, 7.5, 4.5)
    hues = canvas.colors(table)
    for label, curve in curves.items():
        text = ": ".join(filter(None, [label, texts[label]]))
        _draw(ax, curve, color=hues[label], label=text or None)
    _finish(ax, metric, curves.values())
    if any(table) or accuracy is not None:
        canvas.legend(ax, title=accuracy and f"final {accuracy}")
    return ax


def learning_curves(runs: Runs, metric: str = "accuracy", ax: "Axes | None" = None) -> "Axes":
    """Draws a metric over epochs on the training data, dashed, and on the validation data.

    Args:
        runs: What `model.fit` returned, or several runs by label; see `gbr_curves`.
        metric: A name in the logs, such as `"accuracy"` or `"loss"`. A run that also has the name
            with `val_` in front has two curves.
        ax: See `gbr_curves`.

    Returns:
        The `Axes`.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: See `gbr_curves`.

    Example:

    ```python
    history = model.fit(
        x_train, y_train, validation_data=(x_val, y_val), epochs=2, verbose=0
    )
    ax = keras_gbr.plots.learning_curves(history, "loss")
    ```

    Reference:
        Li, Chen & Yang 2021, "Generalization Bound Regularizer: A Unified Perspective for
        Understanding Weight Decay", Chinese Journal of Computers, figure 2.
    """
    canvas.check_axes(ax)
    table = as_runs(runs)
    of_validation = f"val_{metric}"
    curves = {
        (label, name): values_by_epoch(label, run, name)
        for label, run in table.items()
        for name in (metric, of_validation)
        if name == metric or name in run
    }
    has_validation = any(name == of_validation for _, name in curves)
    ax = canvas.axes_or_new(ax, 7.5, 4.5)
    hues = canvas.colors(table)
    for (label, name), curve in curves.items():
        style = "--" if has_validation and name == metric else "-"
        _draw(ax, curve, color=hues[label], linestyle=style, label=f"{label} {name}".strip())
    _finish(ax, metric, curves.values())
    _runs_and_styles(ax, hues, has_validation)
    return ax


def _runs_and_styles(ax: "Axes", hues: dict[str, Any], has_validation: bool) -> None:
    """Draws a legend of the colours of the runs, and of the line styles if there are two."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=hue, label=label) for label, hue in hues.items() if label]
    if has_validation:
        color = "0.4" if handles else hues[""]
        handles.append(Line2D([], [], color=color, linestyle="--", label="training"))
        handles.append(Line2D([], [], color=color, linestyle="-", label="validation"))
    if handles:
        canvas.legend(ax, handles=handles)


def _draw(ax: "Axes", curve: Curve, **options: Any) -> None:
    ax.plot(*curve, marker="o" if len(curve[0]) < _FEW else "", markersize=3, **options)


def _finish(ax: "Axes", metric: str, curves: Iterable[Curve]) -> None:
    """Sets names, scale and ticks of the axes of a figure over epochs."""
    from matplotlib import ticker

    values = np.concatenate([values for _, values in curves])
    if _is_share(metric):
        ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g} %")
    elif len(values) and values.min() > 0 and values.max() >= _DECADE * values.min():
        ax.set_yscale("log")
        if values.max() < _DECADE**3 * values.min():
            # Powers of ten would give only one or two ticks.
            ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(ticker.NullFormatter())
    ax.xaxis.set_major_locator(ticker.MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel(_WORDS.get(metric, metric))
    canvas.quiet_frame(ax, "both")


def _final(metric: str, values: np.ndarray) -> str:
    if not len(values):
        return "none"
    return f"{100 * values[-1]:.1f} %" if _is_share(metric) else f"{values[-1]:.3g}"


def _is_share(metric: str) -> bool:
    return "acc" in metric
