"""Every public class of the package, once, with what the tests make of it.

A new class is one row in one of these tables, and every test that goes over all of its kind takes
it from here. test_contract.py fails where a public name has no row. The layers of Keras are in
kinds.py (those with kernels) and every_layer.py (all), its losses in loss_references.py.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import keras
import pytest
from keras import layers

import keras_gbr as gbr
from support.calls import BACKEND

BACKENDS = ("tensorflow", "jax", "torch")
SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)


@dataclass(frozen=True)
class PenaltyRow:
    """A penalty class.

    Attributes:
        smooth: `at -> Penalty` without signs and random numbers, which differ between precisions.
        full: Makes one with as many arguments other than the defaults as go together.
        variants: What is trained on every backend and compared: name -> maker.
        required: The arguments besides the weight that have no default.
        single_output: Whether `smooth` is for models of one output.
    """

    smooth: Callable
    full: Callable
    variants: Mapping[str, Callable]
    required: Mapping = field(default_factory=dict)
    single_output: bool = False


PENALTIES = {
    "Jacobian": PenaltyRow(
        smooth=lambda at: gbr.Jacobian(0.1, num_projections=None, at=at),
        single_output=True,
        full=lambda: gbr.Jacobian(SCHEDULE, 2, "probabilities", seed=4, name="j"),
        variants={
            "one projection": lambda: gbr.Jacobian(0.1, seed=3),
            "two projections": lambda: gbr.Jacobian(0.1, 2, seed=2**40),
            "exact": lambda: gbr.Jacobian(SCHEDULE, None),
            "probabilities": lambda: gbr.Jacobian(0.5, None, "probabilities"),
            "inside": lambda: gbr.Jacobian(0.1, seed=3, at="inner"),
        },
    ),
    "InputGradient": PenaltyRow(
        smooth=lambda at: gbr.InputGradient(0.1, at=at),
        full=lambda: gbr.InputGradient(
            0.1, 1, 0.5, "label_probability", "finite_difference", 0.02, fraction=0.5
        ),
        variants={
            "norm 2": lambda: gbr.InputGradient(0.5),
            "norm 1": lambda: gbr.InputGradient(0.1, norm=1, target=1.0),
            "norm inf": lambda: gbr.InputGradient(2.0, norm="inf"),
            "probability": lambda: gbr.InputGradient(0.5, of="label_probability"),
            "differences": lambda: gbr.InputGradient(0.5, method="finite_difference", step=0.1),
            "fraction": lambda: gbr.InputGradient(0.5, fraction=0.5, interval=2),
        },
    ),
    "ParameterGradient": PenaltyRow(
        smooth=lambda at: gbr.ParameterGradient(0.1),
        full=lambda: gbr.ParameterGradient(0.2, interval=2, name="p"),
        variants={"alone": lambda: gbr.ParameterGradient(0.1)},
    ),
    "Adversarial": PenaltyRow(
        smooth=lambda at: gbr.Adversarial(0.1, 0.1, norm=2, at=at),
        full=lambda: gbr.Adversarial(0.1, 0.2, 2, (-3.0, 3), at="hidden"),
        variants={
            "norm inf": lambda: gbr.Adversarial(0.5, 0.1),
            "norm 2": lambda: gbr.Adversarial(0.5, 0.1, norm=2, data_range=(-2, 2)),
            "norm 1": lambda: gbr.Adversarial(0.5, 0.1, norm=1, at="inner"),
            "gradient": lambda: gbr.Adversarial(0.5, 0.1, norm=None),
        },
        required={"epsilon": 0.1},
    ),
}


@dataclass(frozen=True)
class WrapperRow:
    """A wrapper of layers.

    Attributes:
        arguments: The arguments to wrap any layer with.
        full: Makes one with arguments other than the defaults, of it and of the layer.
        variants: `layer -> wrapper`, what is trained on every backend and compared.
        parameters: How many weights of its own a wrapper has for each kernel.
    """

    arguments: Mapping
    full: Callable
    variants: Mapping[str, Callable]
    parameters: int = 0


WRAPPERS = {
    "ENC": WrapperRow(
        arguments={"alpha": 2.0, "learnable_alpha": True},
        full=lambda: gbr.ENC(layers.Conv2D(3, 2), 2.0, False, True, learnable_alpha=True),
        variants={
            "learnable": lambda layer: gbr.ENC(layer, 2.0, learnable_alpha=True),
            "whole kernel": lambda layer: gbr.ENC(layer, per_filter=False, center=False),
        },
        parameters=1,
    ),
    "ENCConv": WrapperRow(
        arguments={"per_filter": False},
        full=lambda: gbr.ENCConv(
            layers.Conv2D(3, 2, activation="relu", kernel_regularizer=gbr.WEISSI(0.2)), alpha=0.5
        ),
        variants={"default": gbr.ENCConv},
    ),
    "ENCDense": WrapperRow(
        arguments={"center": False},
        full=lambda: gbr.ENCDense(layers.Dense(3, use_bias=False), center=False, name="a"),
        variants={},  # The trained networks have only convolutions.
    ),
    "WeightNorm": WrapperRow(
        arguments={},
        full=lambda: gbr.WeightNorm(layers.Conv2D(3, 2, padding="same")),
        variants={"default": gbr.WeightNorm},
        parameters=1,
    ),
    "WeightStandardization": WrapperRow(
        arguments={},
        full=lambda: gbr.WeightStandardization(layers.Dense(3, dtype="mixed_bfloat16")),
        variants={"default": gbr.WeightStandardization},
    ),
    "Regularized": WrapperRow(
        arguments={"regularizer": gbr.Spectral(0.1)},
        full=lambda: gbr.Regularized(layers.Conv2D(3, 2), gbr.Spectral(0.1) + gbr.WEISSI()),
        variants={"Spectral": lambda layer: gbr.Regularized(layer, gbr.Spectral(0.1))},
    ),
}


@dataclass(frozen=True)
class KernelRow:
    """A regularizer or a constraint of kernels.

    Attributes:
        along: `axes of the filters -> regularizer`.
        full: Makes one with arguments other than the defaults.
        variants: What is trained on every backend and compared.
    """

    along: Callable
    full: Callable
    variants: Mapping[str, Callable]


REGULARIZERS = {
    "Spectral": KernelRow(
        along=lambda axes: gbr.Spectral(0.1, filter_axis=axes),
        full=lambda: gbr.Spectral(0.02, "power", 3, "convolution"),
        variants={
            "default": lambda: gbr.Spectral(0.1),
            "power": lambda: gbr.Spectral(0.1, method="power", num_iterations=3),
            "convolution": lambda: gbr.Spectral(0.1, operator="convolution"),
        },
    ),
    "WEISSI": KernelRow(
        along=lambda axes: gbr.WEISSI(0.1, 0.01),
        full=lambda: gbr.WEISSI(1e-3, 1e-2, 1e-9),
        variants={"both": lambda: gbr.WEISSI(0.1, 0.01)},
    ),
    "ShiftedL2": KernelRow(
        along=lambda axes: gbr.ShiftedL2(0.1, filter_axis=axes),
        full=lambda: gbr.ShiftedL2(1e-3, 1e-2),
        variants={"default": lambda: gbr.ShiftedL2(0.1)},
    ),
    "Sum": KernelRow(
        along=lambda axes: gbr.ShiftedL2(0.1, filter_axis=axes) + keras.regularizers.L1(0.01),
        full=lambda: gbr.Spectral(0.1) + keras.regularizers.L1(0.01) + gbr.WEISSI(),
        variants={"of two": lambda: gbr.Spectral(0.1) + gbr.ShiftedL2(0.1)},
    ),
}
CONSTRAINTS = {
    "EqualNorm": KernelRow(
        along=lambda axes: gbr.EqualNorm(2.0, filter_axis=axes),
        full=lambda: gbr.EqualNorm(2.0, per_filter=False, center=False),
        variants={
            "default": lambda: gbr.EqualNorm(2.0),
            "whole kernel": lambda: gbr.EqualNorm(per_filter=False, center=False),
        },
    ),
}
TABLES = {
    "penalty": PENALTIES,
    "wrapper": WRAPPERS,
    "regularizer": REGULARIZERS,
    "constraint": CONSTRAINTS,
}
CLASSES = [name for table in TABLES.values() for name in table]
ROWS = {name: row for table in TABLES.values() for name, row in table.items()}
MODELS = ("GBRModel", "GBRMixin")
BASES = ("Penalty", "Reparametrized")
# Functions, modules and classes that have tests of their own.
OTHERS = {
    *("apply_enc", "apply_regularizer", "list_kernels", "strip", "LayerKernels"),
    *("ForwardPass", "MissingDerivativeError", "MissingSecondDerivativeError"),
    *("GBRMonitor", "measures", "plots"),
}


def wrapped(name, layer):
    """The layer in the wrapper class of this name."""
    return getattr(gbr, name)(layer, **WRAPPERS[name].arguments)


def variants(part):
    """The variants of this kind that are trained on every backend: name -> maker."""
    return {
        f"{name}, {variant}": make
        for name, row in TABLES[part].items()
        for variant, make in row.variants.items()
    }


def by_turns(rows, *ways):
    """Parameters: each row in one combination of the ways, and in all of them in the whole table.

    Rows that follow each other differ in each of the ways. The whole table is `make test-all`.

    Args:
        rows: Tuples of parameters.
        *ways: For each further parameter its values. The turns meet every combination if the
            numbers of values have no common divisor.
    """
    ways = [list(values) for values in ways]
    return [
        _case(*row, *values, later=values != tuple(way[turn % len(way)] for way in ways))
        for turn, row in enumerate(rows)
        for values in itertools.product(*ways)
    ]


def thinned(rows, step):
    """Every `step`-th row; all on PyTorch, which is fast, and in the whole table."""
    return [
        _case(*row, later=turn % step != 0 and BACKEND != "torch") for turn, row in enumerate(rows)
    ]


def _case(*values, later):
    return pytest.param(*values, marks=[pytest.mark.whole_table] * later)
