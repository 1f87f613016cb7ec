"""One training from its settings to its result."""

import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from common.tools import write_whole

import keras_gbr as gbr
from recipes import checkpoint, datasets, evaluation, methods, networks, optimization
from recipes import config as settings
from recipes.batches import Batches
from recipes.callbacks import EndOnNaN, Progress, Records
from recipes.config import Config
from recipes.devices import Devices, hardware, peak_memory, versions
from recipes.training import Trainee

# The GBR of each epoch is measured on so many images.
MONITORED = 500


class Run:
    """A training in a folder. If the folder has a checkpoint, the training resumes from it.

    Args:
        config: The settings.
        folder: The folder, which exists.
        options: Options of the command line that are not settings: `quiet` and `tensorboard`.

    Raises:
        ValueError: The settings do not fit the data or the machine.
    """

    def __init__(self, config: Config, folder: Path, options: Any) -> None:
        self.config, self.folder, self.options = config, folder, options
        keras.utils.set_random_seed(config.seed)
        keras.config.set_dtype_policy(config.precision)
        self.devices = Devices(config.distribution)
        self.devices.check_batch(config.batch_size)
        self.images = datasets.load(config.data, config.samples, config.image_size)
        self.steps = self.images.num_train // config.batch_size
        if not self.steps:
            raise ValueError(
                f"batch_size must be at most the {self.images.num_train} training images. "
                f"Received: {config.batch_size}"
            )
        self.parts = methods.combined(config.methods, config.penalties)
        with self.devices.scope():
            self.model = self._model()
        self.notes = checkpoint.notes(folder) or {
            "history": [],
            "seconds": 0.0,
            "images": 0,
            "compilation": 0.0,
        }

    def _model(self) -> Trainee:
        config, parts = self.config, self.parts
        network_settings = networks.Settings(
            **{name: v for part in parts for name, v in part.network.items() if v}
        )
        network = networks.build(
            config.network, self.images.shape, self.images.classes, network_settings
        )
        for part in parts:
            network = part.change(network) if part.change else network
        network = optimization.with_decay(network, config.weight_decay, config.shifted_l2)
        # Images of many sizes are cropped and flipped when they are read.
        usual = config.data != "digits" and self.images.kept is not None
        pad_crop = config.augment == "pad-crop" or (config.augment == "auto" and usual)
        model = Trainee(network, Batches(self.images.classes, self.images.kept, parts, pad_crop))
        smoothing = max((part.label_smoothing for part in parts), default=0.0)
        model.compile(
            optimization.optimizer(config, self.steps),
            keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing),
            metrics=["accuracy"],
            jit_compile={"auto": "auto", "on": True, "off": False}[config.xla],
            penalties=[penalty for part in parts for penalty in part.penalties],
        )
        model.optimizer.build(model.trainable_variables)
        return model

    def result(self) -> dict[str, Any]:
        """Trains, saves the network and measures it.

        Raises:
            DivergedError: The loss is not finite.
            OSError: A file cannot be written.
            ValueError: The checkpoint in the folder is damaged.
        """
        begin = time.perf_counter()
        if self.devices.is_chief:
            self.folder.mkdir(parents=True, exist_ok=True)
            settings.write(self.config, self.folder / "config.yaml")
        self._train()
        network = evaluation.plain_network(self.model)
        memory, of = peak_memory()
        if self.devices.is_chief:
            network_of_keras = keras.Model(network.inputs, network.outputs)
            write_whole(self.folder / "model.keras", network_of_keras.save)
        speed = self.notes["images"] / self.notes["seconds"] if self.notes["seconds"] else 0.0
        return {
            "status": "finished",
            "message": "",
            "config": self.config.as_dict(),
            **evaluation.measured(network, self.images, self.config),
            "parameters": sum(int(np.prod(w.shape)) for w in network.trainable_weights),
            "images_per_second": speed,
            "compilation_seconds": self.notes["compilation"],
            "training_seconds": self.notes["seconds"] + self.notes["compilation"],
            "wall_seconds": time.perf_counter() - begin,
            "peak_memory_bytes": memory,
            "peak_memory_of": of,
            "hardware": hardware(),
            "backend": keras.backend.backend(),
            "versions": versions(),
            "history": self.notes["history"],
        }

    def _train(self) -> None:
        config, done = self.config, len(self.notes["history"])
        # Builds metrics and loss, from images: `fit` is given indices.
        first = datasets.one_hot(self.images.first("test", config.batch_size), self.images.classes)
        self.model.evaluate(*first, batch_size=config.batch_size, verbose=0)
        if done:
            checkpoint.restore(self.model, self.folder)
        if done == config.epochs:
            return
        self.model.fit(
            self.images.batches(config.batch_size, config.seed, range(done, config.epochs)),
            shuffle=False,  # the batches are in a new order already
            steps_per_epoch=self.steps,
            initial_epoch=done,
            epochs=config.epochs,
            validation_data=self.images.validation(),
            validation_batch_size=evaluation.BATCH_SIZE if self.images.kept else None,
            validation_freq=config.validate_every,
            verbose=0,
            callbacks=self._callbacks(),
        )

    def _callbacks(self) -> list[keras.callbacks.Callback]:
        config, before = self.config, dict(self.notes)
        show = not self.options.quiet and self.devices.is_chief
        progress = Progress(config.epochs, self.steps, config.batch_size, show)

        def times() -> dict[str, float]:
            return {
                "seconds": before["seconds"] + progress.seconds,
                "images": before["images"] + progress.images,
                "compilation": before["compilation"] or progress.compilation,
            }

        callbacks: list[keras.callbacks.Callback] = []
        if config.monitor_gbr:
            parts = [
                datasets.one_hot(self.images.first(split, MONITORED), self.images.classes)
                for split in ("train", "test")
            ]
            callbacks.append(
                gbr.GBRMonitor(*parts[0], parts[1], ["gbr"], verbose=0, batch_size=250)
            )
        callbacks += [progress, EndOnNaN()]
        if self.options.tensorboard:
            callbacks.append(keras.callbacks.TensorBoard(self.folder / "tensorboard"))
        if self.devices.is_chief:
            callbacks.append(Records(self.folder, self.notes, times))
        return callbacks
