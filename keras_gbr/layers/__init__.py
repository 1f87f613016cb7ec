"""Wrapper layers that hold the norms of kernels, or regularize them."""

from keras_gbr.layers.equal_norm import ENC, ENCConv, ENCDense
from keras_gbr.layers.regularized import Regularized
from keras_gbr.layers.reparametrized import Reparametrized
from keras_gbr.layers.weight_norm import WeightNorm
from keras_gbr.layers.weight_standardization import WeightStandardization

__all__ = [
    "ENC",
    "ENCConv",
    "ENCDense",
    "Regularized",
    "Reparametrized",
    "WeightNorm",
    "WeightStandardization",
]
