"""What the parts of keras_gbr cost: step times relative to plain Keras, measured side by side.

    python benchmarks/step_time.py                    # all tables, several minutes
    python benchmarks/step_time.py --tables methods-resnet20 methods-resnet50 --precision bfloat16
    KERAS_BACKEND=jax python benchmarks/step_time.py --tables penalties --rounds 30

Each table times its variants in turn, A B C A B C ..., in one process, and prints the ratio of
the minima and of the medians to the first variant. Absolute times depend on the machine and on
what else it does; the ratios much less. Where Keras finds a GPU, the steps run on it.
"""

import keras
from side_by_side import batch_for, compiled, groups, run, small_resnet, steps

import keras_gbr as gbr


def resnet50():
    """ResNet-50 at 64 x 64, with logits."""
    return keras.applications.ResNet50(
        weights=None, input_shape=(64, 64, 3), classifier_activation=None
    )


def methods(network):
    """The methods on a network: `network()` is a new plain model."""

    def penalized(penalty):
        model = network()
        return compiled(gbr.GBRModel(model.inputs, model.outputs), penalties=[penalty])

    return {
        "plain keras.Model": compiled(network()),
        "ENC": compiled(gbr.apply_enc(network())),
        "Spectral": compiled(gbr.apply_regularizer(network(), gbr.Spectral(1e-4))),
        "InputGradient": penalized(gbr.InputGradient(0.01)),
        "Jacobian(num_projections=1)": penalized(gbr.Jacobian(0.01)),
        "InputGradient, interval=8": penalized(gbr.InputGradient(0.01, interval=8)),
    }


def methods_resnet20():
    """Methods on ResNet-20, 32 x 32 x 3, batch 128, eight steps a call."""
    return groups(methods(lambda: keras.Model(*small_resnet())), 128, 10)


def methods_resnet50():
    """Methods on ResNet-50, 64 x 64 x 3, batch 32, eight steps a call."""
    return groups(methods(resnet50), 32, 1000)


def penalties():
    """Penalties and ENC on ResNet-20, 32 x 32 x 3, batch 128."""

    def penalized(*parts):
        return compiled(gbr.GBRModel(*small_resnet()), penalties=list(parts))

    models = {
        "plain keras.Model": compiled(keras.Model(*small_resnet())),
        "InputGradient": penalized(gbr.InputGradient(0.01)),
        "Jacobian(num_projections=1)": penalized(gbr.Jacobian(0.01)),
        "both": penalized(gbr.InputGradient(0.01), gbr.Jacobian(0.01)),
        "ParameterGradient": penalized(gbr.ParameterGradient(0.01)),
        "GBRModel, no penalty": penalized(),
        "ENC": compiled(gbr.apply_enc(keras.Model(*small_resnet()))),
    }
    return steps(models, 128, 10)


def enc():
    """ENC on ResNet-50, 64 x 64 x 3, batch 32."""
    whole = gbr.apply_enc(resnet50(), per_filter=False, center=False)
    models = {
        "plain keras.Model": compiled(resnet50()),
        "ENC (22, the default)": compiled(gbr.apply_enc(resnet50())),
        "ENC (20, whole kernel)": compiled(whole),
    }
    return steps(models, 32, 1000)


def spectral():
    """Spectral on ResNet-50, 64 x 64 x 3, batch 16."""
    regularizers = {"keras.regularizers.L2": keras.regularizers.L2, "Spectral": gbr.Spectral}
    models = {
        name: compiled(gbr.apply_regularizer(resnet50(), regularizer(1e-4)))
        for name, regularizer in regularizers.items()
    }
    models["no regularizer"] = compiled(resnet50())
    return steps(models, 16, 1000)


def strip():
    """Inference of ResNet-50, 64 x 64 x 3, batch 32, with ENC and after `strip`."""
    with_enc = gbr.apply_enc(resnet50())
    models = {
        "plain keras.Model": resnet50(),
        "strip(ENC model)": gbr.strip(with_enc),
        "ENC model": with_enc,
    }
    x, _ = batch_for(with_enc, 32, 1000)
    return {name: (lambda m=model: m.predict_on_batch(x)) for name, model in models.items()}


TABLES = {
    "methods-resnet20": (methods_resnet20, 5),
    "methods-resnet50": (methods_resnet50, 5),
    "penalties": (penalties, 20),
    "enc": (enc, 20),
    "spectral": (spectral, 20),
    "strip": (strip, 20),
}


if __name__ == "__main__":
    run(__doc__.splitlines()[0], TABLES)
