"""Trains one GBRModel on several workers, and goes on when one of them is killed.

    python examples/multi_worker.py                          # two local workers
    python examples/multi_worker.py --workers 4 --kill-worker

Started by hand, the script starts the workers itself, as processes on the loopback address, and
watches them: if one dies it starts all of them again, as the engine of a cluster does, and they
resume from the chief's last backup. With --kill-worker it first trains undisturbed, then once
more with a worker killed by SIGKILL in the middle, and compares the weights.

Started by an engine that sets TF_CONFIG (Kubeflow's training operator) or by srun (SLURM), the
same script is one worker. The folder --output must then be shared by all.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# `tf.distribute` needs TensorFlow, whatever backend Keras is configured for.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

BATCH = 64  # over all workers together
RESTARTS = 2
GRACE = 20.0  # seconds in which the other workers may end by themselves after one has died
TOLERANCE = 1e-6


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="local workers to start")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument(
        "--kill-worker", action="store_true", help="kill one in the middle, and compare"
    )
    parser.add_argument("--output", type=Path, default=Path("results/multi_worker"))
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for a training")
    parser.add_argument("--smoke", action="store_true", help="four epochs on a few images")
    options = parser.parse_args(argv)
    if os.environ["KERAS_BACKEND"] != "tensorflow":
        parser.error(
            "needs the TensorFlow backend, for tf.distribute.MultiWorkerMirroredStrategy. "
            f"Received: KERAS_BACKEND={os.environ['KERAS_BACKEND']}"
        )
    if options.smoke:
        options.epochs = 4
    for name in ("workers", "epochs", "timeout"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} must be positive; received {getattr(options, name)}")
    if BATCH % options.workers:
        parser.error(f"--workers must divide the batch of {BATCH}; received {options.workers}")
    if options.kill_worker and options.epochs < 2:
        parser.error("--kill-worker needs at least two --epochs to resume from one of them")
    return options


# One worker.


def work(options: argparse.Namespace) -> None:
    """Trains as one of the workers that the environment names."""
    import tensorflow as tf

    # Made before anything else in TensorFlow, because it connects the workers.
    strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster())
    index = strategy.cluster_resolver.task_id or 0
    folder = options.output / f"worker-{index}"
    restore_chiefs_backup(options.output, folder)

    import keras
    from common.images import load

    keras.utils.set_random_seed(0)
    data = load(samples=4 * BATCH if options.smoke else None)
    with strategy.scope():
        model = network(data.train[0].shape[1:], data.classes)
    model.fit(
        batches(*data.train),
        epochs=options.epochs,
        verbose=2,
        callbacks=[
            keras.callbacks.BackupAndRestore(folder / "backup", double_checkpoint=True),
            keras.callbacks.TerminateOnNaN(),
        ],
    )
    logs = model.evaluate(batches(*data.test), verbose=0, return_dict=True)
    # Every worker has the same weights, and saves them to a folder of its own.
    model.save(folder / "model.keras")
    print(f"worker {index}: test accuracy {100 * logs['accuracy']:.1f} %", flush=True)


def cluster():
    """The cluster that TF_CONFIG or, without it, SLURM describes."""
    import tensorflow as tf

    if "TF_CONFIG" in os.environ:
        return tf.distribute.cluster_resolver.TFConfigClusterResolver()
    slurm = tf.distribute.cluster_resolver.SlurmClusterResolver
    try:
        return slurm()
    except (OSError, subprocess.CalledProcessError):  # No `nvidia-smi`, hence no GPU.
        tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
        return slurm(gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False)


def network(shape, classes):
    """Two convolutions under ENC with synchronised batch normalisation, and a penalty."""
    import keras
    from keras import layers

    import keras_gbr as gbr

    inputs = x = keras.Input(shape)
    for filters in (16, 32):
        x = gbr.ENCConv(layers.Conv2D(filters, 3, padding="same", use_bias=False))(x)
        # A smooth activation, in which rounding differences between workers do not grow.
        x = layers.Activation("silu")(layers.BatchNormalization(momentum=0.9, synchronized=True)(x))
    x = layers.GlobalAveragePooling2D()(x)
    model = gbr.GBRModel(inputs, layers.Dense(classes)(x))
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        penalties=[gbr.InputGradient(0.05)],
    )
    return model


def batches(x, y):
    """The same batches in every epoch, so that an epoch that is repeated is the same.

    Incomplete batches are left out: Keras would weight their samples by worker.
    """
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH, drop_remainder=True)
    options = tf.data.Options()
    # Each worker takes its part of each batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def restore_chiefs_backup(output: Path, folder: Path) -> None:
    """Copies the chief's backup to this worker, so that all resume from the same epoch."""
    source, target = output / "worker-0" / "backup", folder / "backup"
    if source != target:
        shutil.rmtree(target, ignore_errors=True)
        if source.exists():
            shutil.copytree(source, target)


# The launcher, in place of a cluster's engine.


class Workers:
    """Local workers, each with the log of what it prints."""

    def __init__(self, options: argparse.Namespace, output: Path) -> None:
        addresses = [f"127.0.0.1:{port}" for port in free_ports(options.workers)]
        self.logs = [output / f"worker-{index}.log" for index in range(options.workers)]
        command = [sys.executable, "-u", __file__, "--output", str(output)]
        command += ["--workers", str(options.workers), "--epochs", str(options.epochs)]
        command += ["--smoke"] if options.smoke else []
        self.processes = []
        for index, log in enumerate(self.logs):
            cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            with open(log, "a") as file:
                self.processes.append(
                    subprocess.Popen(
                        command,
                        env={**os.environ, "TF_CONFIG": json.dumps(cluster)},
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    def codes(self) -> list[int | None]:
        return [process.poll() for process in self.processes]

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def train(options: argparse.Namespace, output: Path, kill: bool = False) -> list[Path]:
    """Trains on local workers and returns what they saved.

    Args:
        options: The options of the command line.
        output: The folder for logs, backups and models. It is emptied.
        kill: Whether to kill the last worker in the middle.
    """
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    deadline = time.monotonic() + options.timeout
    for attempt in range(1 + RESTARTS):
        workers = Workers(options, output)
        try:
            ended_well = watch(workers, options, deadline, kill and attempt == 0)
        finally:
            workers.stop()
        if ended_well:
            return [output / f"worker-{i}" / "model.keras" for i in range(options.workers)]
        print(f"Starting all {options.workers} workers again.", flush=True)
    raise SystemExit(
        f"multi_worker.py: error: a worker failed {1 + RESTARTS} times. The end of its log:\n"
        f"{tail(workers.logs[0])}"
    )


def watch(workers: Workers, options: argparse.Namespace, deadline: float, kill: bool) -> bool:
    """Waits for the workers and returns whether all ended well. Kills the last one if asked."""
    middle = f"Epoch {options.epochs // 2 + 1}/"
    while time.monotonic() < deadline:
        codes = workers.codes()
        if all(code == 0 for code in codes):
            return True
        failed = [index for index, code in enumerate(codes) if code]
        if failed:
            print(f"Worker {failed[0]} died with exit status {codes[failed[0]]}.", flush=True)
            end = time.monotonic() + GRACE
            while None in workers.codes() and time.monotonic() < end:
                time.sleep(0.1)
            return False
        if kill and middle in workers.logs[-1].read_text(errors="replace"):
            print(f"Killing worker {len(codes) - 1} in epoch {middle[6:-1]}.", flush=True)
            workers.processes[-1].send_signal(signal.SIGKILL)
            kill = False
        time.sleep(0.05)
    raise SystemExit(
        f"multi_worker.py: error: no end after {options.timeout:g} seconds (--timeout)."
        f"\n{tail(workers.logs[0])}"
    )


def tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def largest_difference(one: Path, other: Path) -> float:
    """The largest difference between the weights of two saved models."""
    import keras
    import numpy as np

    import keras_gbr  # noqa: F401, its classes are in the files

    pairs = zip(
        *(keras.models.load_model(path).get_weights() for path in (one, other)), strict=True
    )
    return max(float(np.max(np.abs(a - b))) for a, b in pairs)


def launch(options: argparse.Namespace) -> None:
    """Trains on local workers, with --kill-worker twice, and reports."""
    # Raises SystemExit, so that the workers end with the launcher.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    models = train(options, options.output / "undisturbed")
    print(tail(options.output / "undisturbed" / "worker-0.log", 1))
    for model in models[1:]:
        print(f"Workers differ by at most {largest_difference(models[0], model):.1e}.")
    if options.kill_worker:
        killed = train(options, options.output / "killed", kill=True)
        print(tail(options.output / "killed" / "worker-0.log", 1))
        difference = largest_difference(models[0], killed[0])
        print(f"The killed and the undisturbed run differ by at most {difference:.1e}.")
        if not difference <= TOLERANCE:
            raise SystemExit("multi_worker.py: error: the killed run ended differently.")
    print(f"Saved: {models[0]}")


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    is_worker = "TF_CONFIG" in os.environ or "SLURM_STEP_NODELIST" in os.environ
    (work if is_worker else launch)(options)


if __name__ == "__main__":
    main()
