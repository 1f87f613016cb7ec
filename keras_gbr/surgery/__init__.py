"""Model -> new model. The given model is never touched."""

from keras_gbr.surgery.apply import apply_enc, apply_regularizer
from keras_gbr.surgery.selection import LayerChange
from keras_gbr.surgery.strip import strip

__all__ = ["LayerChange", "apply_enc", "apply_regularizer", "strip"]
