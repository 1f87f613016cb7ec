"""The work of the compiler for `Spectral` on ResNet-50, by method, without a GPU.

    KERAS_BACKEND=tensorflow python benchmarks/spectral_operations.py

Counts the operations in the traced graph of value and gradient over the 54 kernels, and measures
the time that XLA takes to compile them: that of the first call minus that of the second. Seconds of
the processor, summed over its cores, hardly depend on what else the machine does.
"""

import argparse
import time

import keras

import keras_gbr as gbr

METHODS = ("gram", "lanczos")


def value_and_slopes(kernels, method):
    """The sum of the norms and its gradient, as a function without arguments."""
    import tensorflow as tf

    regularizer = gbr.Spectral(0.01, method)

    def function():
        with tf.GradientTape() as tape:
            total = sum(regularizer(kernel) for kernel in kernels)
        return total, tape.gradient(total, [kernel.value for kernel in kernels])

    return function


def seconds(function):
    """Seconds that a call takes, and seconds of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    methods = parser.parse_args().methods
    if keras.backend.backend() != "tensorflow":
        parser.error("set KERAS_BACKEND to tensorflow.")
    import tensorflow as tf

    network = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))
    kernels = [layer.kernel for layer in network.layers if hasattr(layer, "kernel")]
    print(f"{len(kernels)} kernels\n")
    print("| method | operations | XLA, s | XLA, s of the processor |")
    print("|---|---|---|---|")
    for method in methods:
        function = value_and_slopes(kernels, method)
        graph = tf.function(function).get_concrete_function().graph
        jitted = tf.function(function, jit_compile=True)
        jitted.get_concrete_function()
        first, second = seconds(jitted), seconds(jitted)
        wall, processor = first[0] - second[0], first[1] - second[1]
        count = len(graph.get_operations())
        print(f"| {method} | {count} | {wall:.1f} | {processor:.1f} |", flush=True)


if __name__ == "__main__":
    main()
