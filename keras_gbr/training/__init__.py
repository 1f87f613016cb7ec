"""Models that train with penalties."""

from keras_gbr.training.model import GBRMixin, GBRModel

__all__ = ["GBRMixin", "GBRModel"]
