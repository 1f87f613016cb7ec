"""Model -> new model. The given model is never touched."""

from keras_gbr.surgery.apply import apply_enc, apply_regularizer
from keras_gbr.surgery.plain import strip
from keras_gbr.surgery.selection import LayerChange

__all__ = ["LayerChange", "apply_enc", "apply_regularizer", "strip"]
