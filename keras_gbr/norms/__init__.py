"""Norms of a kernel: pure functions, kernel -> number."""

from keras_gbr.norms.convolution import squared_convolution_bound
from keras_gbr.norms.matrix import METHODS, frobenius_norm, squared_spectral_norm

__all__ = ["METHODS", "frobenius_norm", "squared_convolution_bound", "squared_spectral_norm"]
