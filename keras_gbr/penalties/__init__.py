"""Penalties on gradients, for `GBRModel.compile(penalties=[...])`. One file per method."""

from keras_gbr.penalties.base import InputPenalty, Penalty
from keras_gbr.penalties.forward_pass import ForwardPass

__all__ = ["ForwardPass", "InputPenalty", "Penalty"]
