"""Runs programs under the backend in use and writes their results.

    KERAS_BACKEND=jax PYTHONPATH=tests python tests/differential/runner.py FOLDER 17 18 19

compare.py starts it. A result is one file per program: the logs of each step, the weights before
and after, the text that was run, or the error.
"""

import pathlib
import sys
import time
import traceback

import keras
import numpy as np
from programs import program

from support.networks import use_float64

BACKEND = keras.backend.backend()


def main(folder, replicas, seeds):
    _set_up(replicas)
    for seed in seeds:
        drawn = program(seed, bool(replicas))
        for count in (1, 2) if replicas else (0,):
            begin = time.process_time()
            result = run(drawn.source, count)
            result["seconds"] = time.process_time() - begin
            name = f"{count} replicas" if count else BACKEND
            path = pathlib.Path(folder) / f"{seed} {name}.npz"
            partial = path.with_suffix(".part.npz")
            np.savez(partial, source=drawn.source, **result)
            partial.rename(path)


def run(source, replicas=0):
    """The logs and weights of a program, or its error."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    variables = {"__name__": "program"}
    if replicas:
        variables["strategy"] = _strategy(replicas)
    try:
        exec(compile(source, "program", "exec"), variables)
    except Exception as error:
        trace = "" if isinstance(error, ValueError) else traceback.format_exc(limit=-4)
        return {"error": f"{type(error).__name__}: {error}"[:1500], "trace": trace}
    results = {f"log {name}": values for name, values in variables["logs"].items()}
    ends = variables["model"].get_weights()
    pairs = zip(variables["start"], ends, variables["model"].weights, strict=True)
    for number, (start, end, weight) in enumerate(pairs):
        results[f"weight {number} {weight.path}"] = np.stack([start, end])
    return results


def _set_up(replicas):
    """Double precision, and one thread: small tensors gain nothing from more."""
    if BACKEND == "torch":
        import torch

        torch.set_num_threads(1)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * (2 if replicas else 1),
        )
    use_float64()


def _strategy(replicas):
    import tensorflow as tf

    if replicas == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


if __name__ == "__main__":
    arguments = sys.argv[1:]
    distributed = "--replicas" in arguments
    folder, *numbers = [argument for argument in arguments if argument != "--replicas"]
    main(folder, distributed, map(int, numbers))
