"""What differs between the backends of Keras, behind one door: `vjp`, `normal`, `train_step`."""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_gbr.backend.tensorflow import compiled, normal, train_step, vjp
else:
    raise ImportError(
        "keras_gbr runs on the TensorFlow backend of Keras so far. Set the environment "
        'variable KERAS_BACKEND to "tensorflow" before Keras is imported. '
        f"Received: backend={keras.backend.backend()!r}"
    )

__all__ = ["compiled", "normal", "train_step", "vjp"]
