"""A callback that measures a model while it trains."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from keras_gbr import _checks as check
from keras_gbr import measures as measure
from keras_gbr.measures.data import Data
from keras_gbr.measures.dense_chains.chain import dense_chain
from keras_gbr.measures.gbr import check_settings
from keras_gbr.measures.penalty_check.check import require

Measure = str | Callable[[keras.Model, Any, Any], float | Mapping[str, float]]


class _Samples(NamedTuple):
    """Data to measure on, as they were given, and the prefix of their names in the logs."""

    prefix: str
    x: Any
    y: Any = None
    sample_weight: Any = None


class GBRMonitor(keras.callbacks.Callback):
    """Adds measures of the model to the logs at the end of each epoch.

    The progress bar, `History`, `CSVLogger` and `TensorBoard` then show them. Put the monitor
    before callbacks that write logs, or that watch one of these names.

    | measure | names in the logs |
    |---|---|
    | `"gbr"` | `gbr`; with `standard_error=True` also `gbr_error` |
    | `"kernel_norms"` | `kernel_norm/<layer>` |
    | `"weight_bound"` | `weight_bound/product`, `weight_bound/mean_power` |
    | `"gradient_transfer"` | `gradient_transfer/left`, `gradient_transfer/right`: means |
    | `"check_penalty"` | `check_penalty/<penalty>`: the largest error on the first batch |
    | a function | its name, or the keys of what it returns |

    Measures of data are also taken on the validation data, under names that begin with `val_`.
    `"kernel_norms"` and `"weight_bound"` depend only on the weights and are taken once.

    Args:
        x: Samples to measure on, as `measures.gbr` takes them. A few hundred are enough.
        y: Their labels, for measures that need them. A dataset has its own.
        validation_data: As in `fit`: `(x, y)`, `(x, y, sample_weight)` or a dataset; or only the
            inputs. A tuple is always inputs and labels.
        measures: A list of names from the table above, which are those of functions in
            `keras_gbr.measures`, and of your own functions `(model, x, y)` that return a float or
            a dict of floats. Your functions get the data as they are given here.
        of: See `measures.gbr`.
        num_projections: See `measures.gbr`.
        standard_error: See `measures.gbr`.
        batch_size: See `measures.gbr`.
        freq: Whole number of epochs from one measurement to the next. The first epoch is
            measured. The logs of epochs without a measurement lack these names.
        verbose: See `measures.gbr`.
        at: See `measures.gbr`. Only `"gbr"` uses it.

    Raises:
        ValueError: An argument is out of its range; or, when training begins, a measure does not
            apply to this model or to these data. Each measure, except your own functions, is tried
            on the first batch.

    Example:

    ```python
    monitor = keras_gbr.GBRMonitor(x_train[:8], validation_data=(x_val, y_val))
    history = model.fit(x_train, y_train, epochs=2, callbacks=[monitor], verbose=0)
    assert len(history.history["gbr"]) == len(history.history["val_gbr"]) == 2
    ```

    Reference:
        Li, Chen & Yang 2021, "Generalization Bound Regularizer: A Unified Perspective for
        Understanding Weight Decay", Chinese Journal of Computers, equation 2
        and figures 1 to 3.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        validation_data: Any = None,
        measures: Sequence[Measure] = ("gbr", "kernel_norms"),
        of: str = "output",
        num_projections: int | None = None,
        standard_error: bool = False,
        batch_size: int = 32,
        freq: int = 1,
        verbose: str | int = "auto",
        at: Any = None,
    ) -> None:
        super().__init__()
        check_settings(of, num_projections, 0, standard_error, verbose)
        self.batch_size = check.integer("batch_size", batch_size)
        self.freq = check.integer("freq", freq)
        self.measures = _checked(measures)
        self.of, self.num_projections, self.verbose = of, num_projections, verbose
        self.standard_error, self.at = standard_error, at
        self._tried = False
        self._samples = [_Samples("", x, y)]
        if validation_data is not None:
            self._samples.append(_Samples("val_", *_parts(validation_data)))
        for samples in self._samples:
            self._data(samples)  # refuses data that do not fit

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuses a model or data to which a measure does not apply; called by Keras."""
        self._tried = False
        self._try_measures()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Does what `on_train_begin` does, if only the first step builds the model."""
        self._try_measures()

    def _try_measures(self) -> None:
        if self._tried or not self.model.built:
            return
        self._tried = True
        for samples in self._samples:
            for name in self.measures:
                if not isinstance(name, str) or (samples.prefix and name in _OF_WEIGHTS):
                    continue
                if name in _REQUIRED:
                    _REQUIRED[name](self.model)
                if name not in _OF_WEIGHTS:
                    self._try(name, samples)

    def _try(self, name: str, samples: _Samples) -> None:
        """Takes a measure on the first batch."""
        x, y, sample_weight, _ = next(iter(self._data(samples)))
        try:
            if name == "check_penalty":
                require(self.model, x, y, sample_weight)
            else:
                _MEASURES[name](self, _Samples(samples.prefix, x, y, sample_weight))
        except Exception as error:
            where = "validation_data" if samples.prefix else "x"
            shapes = keras.tree.map_structure(lambda leaf: tuple(leaf.shape), x)
            raise check.error(
                f"GBRMonitor must be given data that the measure {name!r} can be taken on. "
                f"{type(error).__name__}: {error}",
                f"{where}, of shape",
                shapes,
            ) from error

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures and adds to `logs`; called by Keras."""
        if logs is None or epoch % self.freq:
            return
        for samples in self._samples:
            for each in self.measures:
                if samples.prefix and each in _OF_WEIGHTS:
                    continue
                values = self._measured(each, samples)
                logs.update({samples.prefix + name: float(v) for name, v in values.items()})

    def _measured(self, each: Measure, samples: _Samples) -> Mapping[str, Any]:
        if isinstance(each, str):
            return _MEASURES[each](self, samples)
        value = each(self.model, samples.x, samples.y)
        if isinstance(value, Mapping):
            return value
        return {getattr(each, "__name__", type(each).__name__): value}

    def _data(self, samples: _Samples) -> Data:
        return Data(samples.x, samples.y, samples.sample_weight, self.batch_size)

    def _gbr(self, samples: _Samples) -> dict[str, float]:
        value, error = measure.gbr(
            self.model,
            samples.x,
            self.of,
            self.num_projections,
            self.batch_size,
            standard_error=True,
            verbose=self.verbose,
            at=self.at,
        )
        return {"gbr": value, "gbr_error": error} if self.standard_error else {"gbr": value}

    def _kernel_norms(self, samples: _Samples) -> dict[str, float]:
        norms = measure.kernel_norms(self.model)
        return {f"kernel_norm/{name}": norm for name, norm in norms.items()}

    def _weight_bound(self, samples: _Samples) -> dict[str, float]:
        bound = measure.weight_bound(self.model)._asdict()
        return {f"weight_bound/{name}": value for name, value in bound.items()}

    def _gradient_transfer(self, samples: _Samples) -> dict[str, float]:
        sides = measure.gradient_transfer(self.model, samples.x, samples.y, self.batch_size)
        return {
            "gradient_transfer/left": sides.left.mean(),
            "gradient_transfer/right": sides.right.mean(),
        }

    def _check_penalty(self, samples: _Samples) -> dict[str, float]:
        x, y, sample_weight, _ = next(iter(self._data(samples)))
        found = measure.check_penalty(self.model, x, y, sample_weight, verbose=self.verbose)
        errors: dict[str, float] = {}
        for row in (*found.rows, *found.parts):
            name = f"check_penalty/{row.penalty}"
            errors[name] = max(errors.get(name, 0.0), row.error)
        return errors


_MEASURES: dict[str, Callable[[GBRMonitor, _Samples], dict[str, float]]] = {
    "gbr": GBRMonitor._gbr,
    "kernel_norms": GBRMonitor._kernel_norms,
    "weight_bound": GBRMonitor._weight_bound,
    "gradient_transfer": GBRMonitor._gradient_transfer,
    "check_penalty": GBRMonitor._check_penalty,
}
# Measures that do not depend on data.
_OF_WEIGHTS = ("kernel_norms", "weight_bound")
# Functions that refuse a model to which the measure does not apply.
_REQUIRED: dict[str, Callable[[keras.Model], Any]] = {
    "kernel_norms": measure.kernel_norms,
    "weight_bound": measure.weight_bound,
    "gradient_transfer": dense_chain,
}


def _parts(validation_data: Any) -> tuple[Any, ...]:
    """Those of inputs, labels and weights that are given."""
    if not isinstance(validation_data, tuple):
        return (validation_data,)
    if not 1 <= len(validation_data) <= 3:
        raise check.error(
            "`validation_data` must be `(x, y)`, `(x, y, sample_weight)`, a dataset or inputs.",
            "validation_data",
            f"tuple of {len(validation_data)}",
        )
    return validation_data


def _checked(measures: Any) -> list[Measure]:
    known = isinstance(measures, (list, tuple)) and all(
        callable(each) or (isinstance(each, str) and each in _MEASURES) for each in measures
    )
    if not known or not measures:
        names = ", ".join(repr(name) for name in _MEASURES)
        raise check.error(
            f"`measures` must be a list of names out of {names}, and of functions "
            "(model, x, y) that return a float or a dict of floats.",
            "measures",
            measures,
        )
    return list(measures)
