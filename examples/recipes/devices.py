"""The machine: how several devices share the work, and what is there."""

import os
import platform
import resource
import sys
from contextlib import nullcontext
from importlib import metadata
from typing import Any

import keras

import keras_gbr as gbr

_PACKAGES = ("keras", "numpy", "tensorflow", "tensorflow-cpu", "jax", "torch")


class Devices:
    """How the devices share the work.

    Args:
        distribution: "none", "mirrored", "multi-worker" or "data-parallel".

    Attributes:
        count: The number of devices, or of replicas.
        is_chief: Whether this process writes the files.

    Raises:
        ValueError: The backend in use has no such distribution.
    """

    def __init__(self, distribution: str) -> None:
        backend = keras.backend.backend()
        needed = {"mirrored": "tensorflow", "multi-worker": "tensorflow", "data-parallel": "jax"}
        if needed.get(distribution, backend) != backend:
            raise ValueError(
                f"distribution {distribution} needs KERAS_BACKEND={needed[distribution]}. "
                f"Received: {backend}"
            )
        self._strategy: Any = None
        self.count, self.is_chief = 1, True
        if distribution == "data-parallel":
            parallel = keras.distribution.DataParallel()
            keras.distribution.set_distribution(parallel)
            self.count = len(parallel.device_mesh.devices.reshape(-1))
        elif distribution != "none":
            self._strategy = _strategy(distribution)
            self.count = self._strategy.num_replicas_in_sync
            resolver = getattr(self._strategy, "cluster_resolver", None)
            self.is_chief = not (resolver and resolver.task_id)

    def check_batch(self, batch_size: int) -> None:
        """Refuses batches of which the devices get unequal parts.

        Raises:
            ValueError: The number of devices does not divide the batch.
        """
        if batch_size % self.count:
            raise ValueError(
                f"batch_size must be divisible by the {self.count} devices, so that each gets as "
                f"many images. Received: {batch_size}"
            )

    def scope(self) -> Any:
        """The context in which the model is made."""
        return self._strategy.scope() if self._strategy else nullcontext()


def _strategy(distribution: str) -> Any:
    import tensorflow as tf

    if distribution == "mirrored":
        return tf.distribute.MirroredStrategy()
    if "TF_CONFIG" not in os.environ and "SLURM_STEP_NODELIST" not in os.environ:
        raise ValueError(
            "distribution multi-worker needs the addresses of the workers in TF_CONFIG, or SLURM's "
            "environment. examples/multi_worker.py shows both"
        )
    from multi_worker import cluster

    return tf.distribute.MultiWorkerMirroredStrategy(cluster())


def hardware() -> str:
    """The device in words: the name of the accelerator, or of the processor and its cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return _gpu() or f"{_processor()}, {cores} cores"


def peak_memory() -> tuple[int, str]:
    """The most bytes in use so far, and whether of the "GPU" or of the "process"."""
    functions = {"tensorflow": _tensorflow_peak, "jax": _jax_peak, "torch": _torch_peak}
    used = functions[keras.backend.backend()]() if _gpu() else 0
    if used:
        return used, "GPU"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"


def _gpu() -> str:
    """The name of the GPU that the backend trains on, or nothing."""
    functions = {"tensorflow": _tensorflow_gpu, "jax": _jax_gpu, "torch": _torch_gpu}
    return functions[keras.backend.backend()]()


def versions() -> dict[str, str]:
    """The versions of what the result depends on."""
    found = {"python": platform.python_version(), "keras_gbr": gbr.__version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _tensorflow_gpu() -> str:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    return details.get("device_name", "GPU") if gpus else ""


def _tensorflow_peak() -> int:
    import tensorflow as tf

    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


def _jax_gpu() -> str:
    import jax

    device = jax.devices()[0]
    return device.device_kind if device.platform == "gpu" else ""


def _jax_peak() -> int:
    import jax

    return int((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))


def _torch_gpu() -> str:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""


def _torch_peak() -> int:
    import torch

    return int(torch.cuda.max_memory_allocated())
