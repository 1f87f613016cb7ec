"""Penalties on gradients, for `GBRModel.compile(penalties=[...])`."""

from keras_gbr.penalties.adversarial import Adversarial
from keras_gbr.penalties.base import InputPenalty, Penalty
from keras_gbr.penalties.forward_pass import ForwardPass
from keras_gbr.penalties.input_gradient import InputGradient
from keras_gbr.penalties.jacobian import Jacobian, jacobian_squared_norms
from keras_gbr.penalties.parameter_gradient import ParameterGradient

__all__ = [
    "Adversarial",
    "ForwardPass",
    "InputGradient",
    "InputPenalty",
    "Jacobian",
    "ParameterGradient",
    "Penalty",
    "jacobian_squared_norms",
]
