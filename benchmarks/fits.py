"""Times whole calls of `fit` side by side, on data that are on the device already.

Nothing waits for the logs of a step: a call of `fit` reads them once, at its end.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from side_by_side import measure


@dataclass
class Fits:
    """Variants of a network: functions that make a compiled model for a size of images."""

    variants: dict[str, Callable[[int], keras.Model]]
    batch: int
    size: int
    classes: int


def add_arguments(parser):
    """The options of a command line that times `fit`."""
    parser.add_argument("--batch", type=int, help="images a step")
    parser.add_argument("--size", type=int, help="height and width of the images")
    parser.add_argument("--steps", type=int, default=8, help="steps a call, a multiple of 8")
    parser.add_argument("--budget", type=float, help="seconds after which no variant is added")


def timed(fits, rounds, options):
    """Prints the table of the variants, timed in turn."""
    batch, size = options.batch or fits.batch, options.size or fits.size
    print(f"Batches of {batch} images, {size} x {size}; {options.steps} steps a call.\n")
    first, rest = data(batch, size, fits.classes, options.steps)
    calls, seconds, peaks, begin = {}, {}, {}, time.perf_counter()
    for name, build in fits.variants.items():
        if options.budget and calls and time.perf_counter() - begin > options.budget:
            left = ", ".join(list(fits.variants)[len(calls) :])
            print(f"Not added after {options.budget:g} s: {left}\n")
            break
        model = build(size)
        reset_peak()
        start = time.perf_counter()
        model.fit(**first, verbose=0)
        seconds[name] = time.perf_counter() - start
        peaks[name] = peak()
        calls[name] = lambda m=model: m.fit(**rest, verbose=0)
    times = measure(calls, rounds)
    print_table(times, batch * options.steps, seconds, peaks)


def data(batch, size, classes, steps):
    """The arguments of `fit` for a single step, and for a timed call."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, size, size, 3), dtype="float32")
    y = rng.integers(0, classes, batch)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # `fit` would cut tensors into batches on the host.
        batches = tf.data.Dataset.from_tensors((x, y)).cache().repeat()
        if tf.config.list_logical_devices("GPU"):
            batches = batches.apply(tf.data.experimental.prefetch_to_device("/GPU:0", 2))
        call = {"x": batches, "shuffle": False}
        return call | {"steps_per_epoch": 1}, call | {"steps_per_epoch": steps}
    x, y = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)
    settings = {"batch_size": batch, "shuffle": False}
    many = keras.ops.tile(x, (steps, 1, 1, 1)), keras.ops.tile(y, (steps,))
    return {"x": x, "y": y, **settings}, {"x": many[0], "y": many[1], **settings}


def on_cpu():
    """Whether the steps run on a CPU."""
    return "cpu" in str(keras.ops.ones(()).device).lower()


def reset_peak():
    """Resets the peak of memory of the device, if the backend can."""
    if on_cpu():
        return
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.reset_memory_stats("GPU:0")
    elif keras.backend.backend() == "torch":
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak():
    """The peak of memory in bytes: of the device, or else of the process since its start."""
    if on_cpu():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.max_memory_allocated()
    import jax

    return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]


def print_table(times, images, seconds, peaks):
    """Prints images per second, ratios to the first variant, the first step and the memory."""
    where = "peak memory, GiB (device)"
    if on_cpu():
        where = "peak memory so far, GiB (process)"
    elif keras.backend.backend() == "jax":  # JAX cannot reset the peak.
        where = "peak memory so far, GiB (device)"
    print(
        "| variant | median, ms a call | ratio of minima | ratio of medians | images a second "
        f"| first step, s | {where} |"
    )
    print("|---|---|---|---|---|---|---|")
    first = next(iter(times.values()))
    for name, values in times.items():
        middle = statistics.median(values)
        print(
            f"| {name} | {middle * 1e3:.0f} | {min(values) / min(first):.2f} "
            f"| {middle / statistics.median(first):.2f} | {images / middle:.0f} "
            f"| {seconds[name]:.1f} | {peaks[name] / 2**30:.2f} |",
            flush=True,
        )
