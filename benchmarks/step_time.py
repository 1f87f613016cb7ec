"""What the parts of keras_gbr cost: step times relative to plain Keras, measured side by side.

    python benchmarks/step_time.py                    # all tables, several minutes
    python benchmarks/step_time.py --tables methods-resnet20 methods-resnet50 --precision bfloat16
    python benchmarks/step_time.py --tables methods-resnet50 --batch 128 --size 224 --budget 300
    KERAS_BACKEND=jax python benchmarks/step_time.py --tables penalties --rounds 30

Each table times its variants in turn, A B C A B C ..., in one process, by whole calls of `fit`
on data that are on the device already, and prints the ratios of the minima and of the medians to
the first variant. Absolute times depend on the machine and on what else it does, ratios much less.
If Keras finds a GPU, the steps run on it; with `--steps 100` the cost of a call itself is then
negligible.
"""

import keras
from fits import Fits, add_arguments, timed
from side_by_side import batch_for, compiled, run, small_resnet

import keras_gbr as gbr


def resnet20(size):
    """ResNet-20 with logits."""
    return keras.Model(*small_resnet(size))


def resnet50(size):
    """ResNet-50 with logits."""
    return keras.applications.ResNet50(
        weights=None, input_shape=(size, size, 3), classifier_activation=None
    )


def changed(network, change):
    """A compiled network with a change, as a function of the size of the images."""
    return lambda size: compiled(change(network(size)))


def plain(network):
    """The compiled network without a change."""
    return changed(network, lambda model: model)


def regularized(network, regularizer):
    """With a regularizer on every kernel."""
    return changed(network, lambda model: gbr.apply_regularizer(model, regularizer))


def penalized(network, *penalties):
    """With penalties."""

    def build(size):
        model = network(size)
        return compiled(gbr.GBRModel(model.inputs, model.outputs), penalties=list(penalties))

    return build


def methods(network):
    """The methods on a network: `network(size)` is a new plain model."""
    return {
        "plain keras.Model": plain(network),
        "ENC": changed(network, gbr.apply_enc),
        "Spectral": regularized(network, gbr.Spectral(1e-4)),
        "InputGradient": penalized(network, gbr.InputGradient(0.01)),
        "Jacobian(num_projections=1)": penalized(network, gbr.Jacobian(0.01)),
        "InputGradient, interval=8": penalized(network, gbr.InputGradient(0.01, interval=8)),
    }


def methods_resnet20():
    """Methods on ResNet-20."""
    return Fits(methods(resnet20), batch=128, size=32, classes=10)


def methods_resnet50():
    """Methods on ResNet-50."""
    return Fits(methods(resnet50), batch=32, size=64, classes=1000)


def penalties():
    """Penalties and ENC on ResNet-20."""
    variants = {
        "plain keras.Model": plain(resnet20),
        "InputGradient": penalized(resnet20, gbr.InputGradient(0.01)),
        "Jacobian(num_projections=1)": penalized(resnet20, gbr.Jacobian(0.01)),
        "both": penalized(resnet20, gbr.InputGradient(0.01), gbr.Jacobian(0.01)),
        "ParameterGradient": penalized(resnet20, gbr.ParameterGradient(0.01)),
        "GBRModel, no penalty": penalized(resnet20),
        "ENC": changed(resnet20, gbr.apply_enc),
    }
    return Fits(variants, batch=128, size=32, classes=10)


def enc():
    """ENC on ResNet-50."""

    def whole(model):
        return gbr.apply_enc(model, per_filter=False, center=False)

    variants = {
        "plain keras.Model": plain(resnet50),
        "ENC (22, the default)": changed(resnet50, gbr.apply_enc),
        "ENC (20, whole kernel)": changed(resnet50, whole),
    }
    return Fits(variants, batch=32, size=64, classes=1000)


def spectral():
    """Spectral on ResNet-50."""
    variants = {
        "keras.regularizers.L2": regularized(resnet50, keras.regularizers.L2(1e-4)),
        "Spectral": regularized(resnet50, gbr.Spectral(1e-4)),
        "no regularizer": plain(resnet50),
    }
    return Fits(variants, batch=16, size=64, classes=1000)


def strip():
    """Inference of ResNet-50, 64 x 64 x 3, batch 32, with ENC and after `strip`."""
    with_enc = gbr.apply_enc(resnet50(64))
    models = {
        "plain keras.Model": resnet50(64),
        "strip(ENC model)": gbr.strip(with_enc),
        "ENC model": with_enc,
    }
    x, _ = batch_for(with_enc, 32, 1000)
    return {name: (lambda m=model: m.predict_on_batch(x)) for name, model in models.items()}


TABLES = {
    "methods-resnet20": (methods_resnet20, 5),
    "methods-resnet50": (methods_resnet50, 5),
    "penalties": (penalties, 5),
    "enc": (enc, 5),
    "spectral": (spectral, 5),
    "strip": (strip, 20),
}


if __name__ == "__main__":
    run(__doc__.splitlines()[0], TABLES, add_arguments, timed)
