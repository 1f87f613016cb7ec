"""What the penalties cost by method, interval, fraction and pullbacks, side by side.

    python benchmarks/penalties.py                          # about ten minutes
    python benchmarks/penalties.py --tables interval --rounds 10

One call of `fit` has eight training steps, so that each call has one step with a penalty of
`interval=8`. The options are those of step_time.py. The variants take turns, A B C A B C ..., in
one process; the ratios of the minima and of the medians are to the first variant.
"""

import functools

import keras
from fits import Fits, add_arguments, timed
from side_by_side import compiled, run, small_resnet

import keras_gbr as gbr


def penalized(variants):
    """ResNet-20 with the penalties of each variant, a list; `None` is plain Keras."""

    def build(size, penalties):
        if penalties is None:
            return compiled(keras.Model(*small_resnet(size)))
        return compiled(gbr.GBRModel(*small_resnet(size)), penalties=penalties)

    builders = {
        name: functools.partial(build, penalties=penalties) for name, penalties in variants.items()
    }
    return Fits(builders, batch=64, size=32, classes=10)


def interval():
    """Intervals: ResNet-20."""
    return penalized(
        {
            "plain keras.Model": None,
            "InputGradient": [gbr.InputGradient(0.01)],
            "InputGradient, interval=2": [gbr.InputGradient(0.01, interval=2)],
            "InputGradient, interval=8": [gbr.InputGradient(0.01, interval=8)],
            "Jacobian, interval=8": [gbr.Jacobian(0.01, interval=8)],
        }
    )


def fraction():
    """Fractions: ResNet-20."""
    return penalized(
        {
            "plain keras.Model": None,
            "InputGradient": [gbr.InputGradient(0.01)],
            "InputGradient, fraction=1/2": [gbr.InputGradient(0.01, fraction=1 / 2)],
            "InputGradient, fraction=1/4": [gbr.InputGradient(0.01, fraction=1 / 4)],
            "InputGradient, fraction=1/8": [gbr.InputGradient(0.01, fraction=1 / 8)],
        }
    )


def pullbacks():
    """Pullbacks: ResNet-20."""
    return penalized(
        {
            "plain keras.Model": None,
            "InputGradient": [gbr.InputGradient(0.01)],
            "InputGradient in norms 2 and inf (one pullback)": [
                gbr.InputGradient(0.01),
                gbr.InputGradient(0.01, norm="inf", name="other"),
            ],
            "InputGradient and Jacobian (two)": [gbr.InputGradient(0.01), gbr.Jacobian(0.01)],
            "InputGradient, finite difference": [
                gbr.InputGradient(0.01, method="finite_difference")
            ],
            "Adversarial": [gbr.Adversarial(1.0, 0.01)],
            "InputGradient and Adversarial (one pullback)": [
                gbr.InputGradient(0.01),
                gbr.Adversarial(1.0, 0.01),
            ],
        }
    )


TABLES = {"interval": (interval, 5), "fraction": (fraction, 5), "pullbacks": (pullbacks, 5)}

if __name__ == "__main__":
    run(__doc__.splitlines()[0], TABLES, add_arguments, timed)
