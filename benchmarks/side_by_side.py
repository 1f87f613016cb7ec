"""What the benchmarks share: networks, steps, and their times side by side."""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import layers

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def small_resnet(size=32, widths=(16, 32, 64), blocks=3):
    """The ResNet-20 of He et al. 2016 for small images: inputs and outputs."""

    def convolution(x, filters, strides=1):
        layer = layers.Conv2D(filters, 3, strides, "same", use_bias=False)
        return layers.BatchNormalization()(layer(x))

    inputs = keras.Input((size, size, 3))
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


def compiled(model, **kwargs):
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), LOSS, **kwargs)
    return model


def batch_for(model, size, classes):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((size, *model.input_shape[1:]), dtype="float32")
    return keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(
        rng.integers(0, classes, size)
    )


def measure(variants, rounds):
    """Seconds by variant. The variants take turns, after two rounds that do not count."""
    times = {name: [] for name in variants}
    for count in range(rounds + 2):
        for name, step in variants.items():
            start = time.perf_counter()
            step()
            if count >= 2:
                times[name].append(time.perf_counter() - start)
    return times


def print_table(title, times):
    """Ratios of the minima and of the medians to the first variant, as a Markdown table."""
    print(f"\n{title}\n")
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


def run(description, tables, add_arguments=None, timed=None):
    """The command line of a benchmark.

    Args:
        description: What it measures.
        tables: By name, a function and how many calls of each variant count by default. The
            function returns callables by the names of the variants, or an object for `timed`. Its
            docstring is the title.
        add_arguments: A function that adds options to the parser.
        timed: A function that measures an object from a table, other than a dict, and prints its
            table. It gets the object, the number of rounds and the options.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--tables", nargs="+", choices=tables, default=list(tables))
    parser.add_argument("--rounds", type=int, help="calls of each variant")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    if add_arguments:
        add_arguments(parser)
    options = parser.parse_args()
    keras.config.set_dtype_policy(PRECISIONS[options.precision])
    print(f"Keras {keras.__version__} on {keras.backend.backend()}, {options.precision}")
    for name in options.tables:
        table, rounds = tables[name]
        rounds = options.rounds or rounds
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        title, variants = f"{table.__doc__} {rounds} interleaved calls each.", table()
        if isinstance(variants, dict):
            print_table(title, measure(variants, rounds))
        else:
            print(f"\n{title}")
            timed(variants, rounds, options)
