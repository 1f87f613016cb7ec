"""The parts of the package and of Keras that programs are put together from, as text."""

# `{}` stands for the layer. The first of each is what a user writes first.
WRAPPERS = {
    "ENC": (
        "gbr.ENC({})",
        "gbr.ENC({}, 2.0, learnable_alpha=True)",
        "gbr.ENC({}, per_filter=False, center=False)",
        "gbr.ENC({}, center=False)",
        "gbr.ENC({}, 0.5, per_filter=False)",
    ),
    "ENCConv": ("gbr.ENCConv({})", "gbr.ENCConv({}, center=False)"),
    "ENCDense": ("gbr.ENCDense({})", "gbr.ENCDense({}, learnable_alpha=True)"),
    "WeightNorm": ("gbr.WeightNorm({})",),
    "WeightStandardization": ("gbr.WeightStandardization({})",),
    "Regularized": (
        "gbr.Regularized({}, gbr.Spectral(0.01))",
        "gbr.Regularized({}, gbr.ShiftedL2(0.01))",
        "gbr.Regularized(gbr.ENC({}), 'l2')",
    ),
}
REGULARIZERS = {
    "Spectral": (
        "gbr.Spectral(0.01)",
        "gbr.Spectral(0.01, method='power', num_iterations=3)",
        "gbr.Spectral(0.01, method='svd')",
    ),
    "WEISSI": ("gbr.WEISSI(0.01, 0.001)",),
    "ShiftedL2": ("gbr.ShiftedL2(0.01)",),
    "Sum": ("gbr.Spectral(0.01) + gbr.ShiftedL2(0.01)", "gbr.Sum([gbr.WEISSI(0.01), 'l1'])"),
}
CONSTRAINTS = {
    "EqualNorm": ("gbr.EqualNorm()", "gbr.EqualNorm(2.0, per_filter=False, center=False)"),
}
# The gradient of a bias in front of a normalisation is only rounding. Three optimizers amplify it
# and are left out: Lion takes its sign, Lamb divides it by its norm, and Ftrl forgets the initial
# weights and leaves only rounding in kernels.
OPTIMIZERS = (
    "'sgd'",
    "keras.optimizers.SGD(0.02, momentum=0.9, nesterov=True)",
    "keras.optimizers.SGD(0.02, clipnorm=1.0, weight_decay=0.01)",
    "keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.05, 1, 0.5))",
    "'adam'",
    "keras.optimizers.AdamW(0.01, global_clipnorm=1.0)",
    "keras.optimizers.RMSprop(0.01, use_ema=True)",
    "keras.optimizers.Adagrad(0.05)",
    "keras.optimizers.Nadam(0.01)",
    "keras.optimizers.Adamax(0.01)",
    "keras.optimizers.Adadelta(0.5)",
)
# Some are smooth, some have kinks, which the weights do not meet. All have second derivatives on
# all backends, as softsign (TensorFlow) and the hard sigmoid (PyTorch) have not.
ACTIVATIONS = (
    *("tanh", "relu", "gelu", "silu", "elu", "softplus", "leaky_relu", "sigmoid", "selu", "mish"),
    *("relu6", "celu", "log_sigmoid", "tanh_shrink", "squareplus"),
)
# By whether they may be used on masked inputs.
NORMALIZATIONS = {
    True: ("layers.BatchNormalization()", "layers.LayerNormalization()"),
    False: (
        "layers.BatchNormalization()",
        "layers.LayerNormalization()",
        "layers.GroupNormalization(2)",
        "layers.GroupNormalization(-1)",
        "layers.RMSNormalization()",
        "layers.UnitNormalization()",
        "layers.BatchNormalization(scale=False, momentum=0.5)",
    ),
}
# All keep the size of images, and have four channels.
CONVOLUTIONS = (
    "layers.Conv2D(4, 3, padding='same'{})",
    "layers.Conv2D(4, 2, groups=2, padding='same', use_bias=False{})",
    "layers.Conv2D(4, 3, dilation_rate=2, padding='same'{})",
    "layers.SeparableConv2D(4, 3, padding='same')",
    "layers.Conv2DTranspose(4, 3, padding='same')",
    "layers.DepthwiseConv2D(3, depth_multiplier=2, padding='same')",
)
SMALLER = (
    "layers.Conv2D(4, 2, strides=2{})",
    "layers.MaxPooling2D(2)",
    "layers.AveragePooling2D(2)",
    "layers.Conv2D(4, 3{})",
)
# Over the last axis of a series, without regard to the others.
STEPWISE = (
    "layers.TimeDistributed(layers.Dense(4))",
    "layers.EinsumDense('abc,cd->abd', (5, 4), bias_axes='d')",
    "layers.Dense(4{})",
)
RECURRENT = (
    "layers.LSTM(4{})",
    "layers.GRU(4{})",
    "layers.SimpleRNN(4{})",
    "layers.Bidirectional(layers.GRU(2{}))",
    "layers.GRU(4, reset_after=False, go_backwards=True{})",
    "layers.RNN(layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(4)]){})",
)
# Keras' attention is in single precision under JAX. Without a bias: the gradient of the bias of
# keys is only rounding, which Adam and similar optimizers amplify.
ATTENTION = (
    "layers.MultiHeadAttention(2, 3, use_bias=False)",
    "layers.GroupQueryAttention(2, 4, 2, use_bias=False)",
)
SERIAL_CONVOLUTIONS = (
    "layers.Conv1D(4, 3, padding='causal'{})",
    "layers.Conv1D(4, 3, padding='same'{})",
    "layers.SeparableConv1D(4, 3, padding='same')",
    "layers.DepthwiseConv1D(3, depth_multiplier=2, padding='same')",
    "layers.Conv1DTranspose(4, 3, padding='same')",
)
POOLS = {
    "image": (
        "layers.GlobalAveragePooling2D()",
        "layers.GlobalMaxPooling2D()",
        "layers.Flatten()",
    ),
    "series": (
        "layers.GlobalAveragePooling1D()",
        "layers.GlobalMaxPooling1D()",
        "layers.Flatten()",
    ),
    "masked": ("layers.GlobalAveragePooling1D()",),
}


def kind_of(layer):
    """`"conv"`, `"dense"` or `"other"`: what `ENCConv` and `ENCDense` take."""
    name = layer.removeprefix("layers.").split("(")[0]
    if "Conv" in name:
        return "conv"
    return "dense" if name in ("Dense", "EinsumDense") else "other"
