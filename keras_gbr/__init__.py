"""Regularizers, constraints, layers and penalties that bound how a network reacts to its input."""

from keras_gbr import measures, plots
from keras_gbr.backend.errors import MissingDerivativeError, MissingSecondDerivativeError
from keras_gbr.callbacks import GBRMonitor
from keras_gbr.constraints import EqualNorm
from keras_gbr.layers.equal_norm import ENC, ENCConv, ENCDense
from keras_gbr.layers.regularized import Regularized
from keras_gbr.layers.reparametrized import Reparametrized
from keras_gbr.layers.weight_norm import WeightNorm
from keras_gbr.layers.weight_standardization import WeightStandardization
from keras_gbr.penalties import ForwardPass, Penalty
from keras_gbr.penalties.adversarial import Adversarial
from keras_gbr.penalties.input_gradient import InputGradient
from keras_gbr.penalties.jacobian import Jacobian
from keras_gbr.penalties.parameter_gradient import ParameterGradient
from keras_gbr.regularizers import WEISSI, ShiftedL2, Spectral, Sum
from keras_gbr.surgery import LayerKernels, apply_enc, apply_regularizer, list_kernels, strip
from keras_gbr.training import GBRMixin, GBRModel

__version__ = "0.1.0"

__all__ = [
    "ENC",
    "WEISSI",
    "Adversarial",
    "ENCConv",
    "ENCDense",
    "EqualNorm",
    "ForwardPass",
    "GBRMixin",
    "GBRModel",
    "GBRMonitor",
    "InputGradient",
    "Jacobian",
    "LayerKernels",
    "MissingDerivativeError",
    "MissingSecondDerivativeError",
    "ParameterGradient",
    "Penalty",
    "Regularized",
    "Reparametrized",
    "ShiftedL2",
    "Spectral",
    "Sum",
    "WeightNorm",
    "WeightStandardization",
    "apply_enc",
    "apply_regularizer",
    "list_kernels",
    "measures",
    "plots",
    "strip",
]
