"""Model -> new model. The given model is never touched."""

from keras_gbr.surgery.apply import apply_enc, apply_regularizer
from keras_gbr.surgery.list_kernels import LayerKernels, list_kernels
from keras_gbr.surgery.strip import strip

__all__ = ["LayerKernels", "apply_enc", "apply_regularizer", "list_kernels", "strip"]
