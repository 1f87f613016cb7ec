"""TensorFlow."""

from keras_gbr.backend.tensorflow.autodiff import compiled, normal, switch, vjp
from keras_gbr.backend.tensorflow.distribution import num_replicas, replica_mean
from keras_gbr.backend.tensorflow.training import Trainer

__all__ = ["Trainer", "compiled", "normal", "num_replicas", "replica_mean", "switch", "vjp"]
