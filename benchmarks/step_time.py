"""What the parts of keras_gbr cost: step times relative to plain Keras, measured side by side.

    python benchmarks/step_time.py                    # all tables, several minutes
    python benchmarks/step_time.py --tables penalties --rounds 30

Each table times its variants in turn, A B C A B C ..., in one process, and prints the ratio of
the minima and of the medians to the first variant. Absolute times depend on the machine and on
what else it does; the ratios much less.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import layers

import keras_gbr as gbr

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def small_resnet(widths=(16, 32, 64), blocks=3):
    """The ResNet-20 of He et al. 2016 for 32 x 32 images: inputs and outputs."""

    def convolution(x, filters, strides=1):
        layer = layers.Conv2D(filters, 3, strides, "same", use_bias=False)
        return layers.BatchNormalization()(layer(x))

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(convolution(inputs, widths[0]))
    for filters in widths:
        for _ in range(blocks):
            strides = 1 if x.shape[-1] == filters else 2
            y = layers.ReLU()(convolution(x, filters, strides))
            y = convolution(y, filters)
            if strides == 2:
                shortcut = layers.Conv2D(filters, 1, 2, use_bias=False)
                x = layers.BatchNormalization()(shortcut(x))
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return inputs, layers.Dense(10)(x)


def resnet50():
    """ResNet-50 at 64 x 64, with logits."""
    return keras.applications.ResNet50(
        weights=None, input_shape=(64, 64, 3), classifier_activation=None
    )


def compiled(model, **kwargs):
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), LOSS, **kwargs)
    return model


def batch_for(model, size, classes):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((size, *model.input_shape[1:]), dtype="float32")
    return keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(
        rng.integers(0, classes, size)
    )


def steps(models, size, classes):
    """A function for each model that runs one training step on one batch."""
    x, y = batch_for(next(iter(models.values())), size, classes)
    return {name: (lambda m=model: m.train_on_batch(x, y)) for name, model in models.items()}


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


TABLES = {"penalties": penalties, "enc": enc, "spectral": spectral, "strip": strip}


def measure(variants, rounds):
    """Seconds by variant, the variants in turn, after two rounds that do not count."""
    times = {name: [] for name in variants}
    for count in range(rounds + 2):
        for name, step in variants.items():
            start = time.perf_counter()
            step()
            if count >= 2:
                times[name].append(time.perf_counter() - start)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--rounds", type=int, default=20, help="steps of each variant")
    arguments = parser.parse_args()
    for table in arguments.tables:
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        times = measure(TABLES[table](), arguments.rounds)
        print(f"\n{TABLES[table].__doc__} {arguments.rounds} interleaved steps each.\n")
        print("| variant | minimum, ms | median, ms | ratio of minima | ratio of medians |")
        print("|---|---|---|---|---|")
        first = next(iter(times.values()))
        for name, values in times.items():
            low, middle = min(values), statistics.median(values)
            print(
                f"| {name} | {low * 1e3:.0f} | {middle * 1e3:.0f} | {low / min(first):.2f} "
                f"| {middle / statistics.median(first):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
