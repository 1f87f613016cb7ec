"""Everything that a training needs to go on, in one file that is there whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
from common.tools import temporary_prefix, write_whole

NAME = "checkpoint.npz"
_NOTES = "notes"


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables of a model and its optimizer by number, the training images left out.

    Among them are the states of random layers, which `model.save` leaves out. Keras numbers the
    names of layers by process, so names do not identify variables.
    """
    batches = model.batches
    kept = {id(batches.images), id(batches.labels)} if batches.images is not None else set()
    every = [v for v in model.variables if id(v) not in kept] + list(model.optimizer.variables)
    return {f"variable {index}": variable for index, variable in enumerate(every)}


def save(model: keras.Model, notes: dict[str, Any], folder: Path) -> None:
    """Saves the state of a training.

    Args:
        model: The model that trains.
        notes: Plain values that `restore` returns.
        folder: Where the file goes.

    Raises:
        OSError: The file cannot be written. The one before it is still there.
    """
    arrays = {name: keras.ops.convert_to_numpy(v) for name, v in _variables(model).items()}

    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, **{_NOTES: np.array(json.dumps(notes))}, **arrays)
            file.flush()
            os.fsync(file.fileno())

    for left in folder.glob(f"{temporary_prefix(folder / NAME)}*"):
        left.unlink()  # by a training that was killed while it wrote
    write_whole(folder / NAME, write)


def notes(folder: Path) -> dict[str, Any] | None:
    """The notes of a saved state, or `None` if there is none.

    Raises:
        ValueError: The file is damaged.
    """
    return _read(folder)[0] if (folder / NAME).exists() else None


def restore(model: keras.Model, folder: Path) -> None:
    """Sets the variables of a model and its optimizer to a saved state.

    Raises:
        ValueError: The file is damaged, or is that of another network.
    """
    _, arrays = _read(folder)
    variables = _variables(model)
    wrong = sorted(set(arrays) ^ set(variables)) or [
        name for name, variable in variables.items() if arrays[name].shape != variable.shape
    ]
    if wrong:
        raise ValueError(
            f"{folder / NAME} is of another training. Give another --output, or the settings of "
            f"that training. Received: another {wrong[0]}"
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with open(folder / NAME, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return json.loads(str(arrays.pop(_NOTES))), arrays
    except Exception as error:  # A damaged archive raises errors of many classes.
        raise ValueError(f"{folder / NAME} cannot be read: {error}. Remove it.") from None
