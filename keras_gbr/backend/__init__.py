"""What differs between the backends of Keras, behind one door."""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_gbr.backend.tensorflow import (
        Trainer,
        compiled,
        normal,
        num_replicas,
        replica_mean,
        switch,
        vjp,
    )
else:
    raise ImportError(
        "keras_gbr runs on the TensorFlow backend of Keras so far. Set the environment "
        'variable KERAS_BACKEND to "tensorflow" before Keras is imported. '
        f"Received: backend={keras.backend.backend()!r}"
    )

__all__ = ["Trainer", "compiled", "normal", "num_replicas", "replica_mean", "switch", "vjp"]
