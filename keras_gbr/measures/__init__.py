"""Measures of a model. They read it and leave it as it was."""

from keras_gbr.measures.dense_chains.gradient_transfer import GradientTransfer, gradient_transfer
from keras_gbr.measures.dense_chains.weight_bound import WeightBound, weight_bound
from keras_gbr.measures.gbr import Estimate, gbr
from keras_gbr.measures.kernel_norms import kernel_norms
from keras_gbr.measures.penalty_check.check import check_penalty
from keras_gbr.measures.penalty_check.report import Comparison, PenaltyCheck

__all__ = [
    "Comparison",
    "Estimate",
    "GradientTransfer",
    "PenaltyCheck",
    "WeightBound",
    "check_penalty",
    "gbr",
    "gradient_transfer",
    "kernel_norms",
    "weight_bound",
]
