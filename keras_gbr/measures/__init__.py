"""What a model is like: measures that read it and leave it as it was."""

from keras_gbr.measures.bounds import WeightBound, weight_bound
from keras_gbr.measures.check_report import Comparison, PenaltyCheck
from keras_gbr.measures.jacobian import Estimate, gbr
from keras_gbr.measures.norms import kernel_norms
from keras_gbr.measures.penalty_check import check_penalty
from keras_gbr.measures.transfer import GradientTransfer, gradient_transfer

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
