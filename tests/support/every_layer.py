"""Every public layer and activation of Keras, with a small network around each."""

import inspect

import keras
import numpy as np
from keras import layers

import keras_gbr as gbr

FLAT, LINE, IMAGE, VOLUME, FRAMES = (6,), (6, 4), (6, 6, 3), (4, 4, 4, 2), (3, 4, 4, 2)


def classes():
    """The layers of `keras.layers`, each under the last of its names."""
    public = {name: getattr(layers, name) for name in sorted(dir(layers))}
    return {
        cls.__name__: cls
        for cls in public.values()
        if inspect.isclass(cls) and issubclass(cls, layers.Layer)
    }


def activations():
    """The functions of `keras.activations`."""
    others = {"get", "serialize", "deserialize"}
    public = {name: getattr(keras.activations, name) for name in dir(keras.activations)}
    return {
        f.__name__ for name, f in public.items() if inspect.isfunction(f) and name not in others
    }


def plainly(shape, *args, **kwargs):
    """A layer of one tensor of this shape, with its arguments."""
    return lambda cls: lambda x: cls(*args, **kwargs)(x), shape


def merging(cls):
    return lambda x: cls()([x, layers.Dense(4, "tanh")(x)])


def attending(*args):
    return lambda cls: lambda x: cls(*args)(x, layers.Dense(4, "tanh")(x))


def in_an_rnn(*args):
    return lambda cls: lambda x: layers.RNN(cls(*args))(x)


# How a layer is called, and the shape of a sample.
CALLS = {
    "Activation": plainly(FLAT, "gelu"),
    "ActivityRegularization": plainly(FLAT, 0.1, 0.1),
    "AdditiveAttention": (lambda cls: lambda x: cls()([x, layers.Dense(4)(x)]), LINE),
    "Attention": (lambda cls: lambda x: cls()([x, layers.Dense(4)(x)]), LINE),
    "BatchNormalization": plainly(IMAGE),
    "Bidirectional": (lambda cls: lambda x: cls(layers.GRU(2))(x), LINE),
    "ConvLSTM1D": plainly((3, 4, 2), 2, 2),
    "ConvLSTM2D": plainly(FRAMES, 2, 2),
    "ConvLSTM3D": plainly((2, 3, 3, 3, 1), 2, 2),
    "Dense": plainly(FLAT, 3, "tanh"),
    "Dot": (lambda cls: lambda x: cls(1)([x, layers.Dense(4, "tanh")(x)]), LINE),
    "ELU": plainly(FLAT),
    "EinsumDense": plainly(LINE, "abc,cd->abd", (6, 3), activation="tanh"),
    "Embedding": (lambda cls: lambda x: layers.Add()([x, _embedded(cls, x)]), FLAT),
    "Flatten": plainly(IMAGE),
    "GRU": plainly(LINE, 3),
    "GRUCell": (in_an_rnn(3), LINE),
    "GroupNormalization": plainly(LINE, 2),
    "GroupedQueryAttention": (attending(2, 4, 2), LINE),
    "Identity": plainly(FLAT),
    "LSTM": plainly(LINE, 3),
    "LSTMCell": (in_an_rnn(3), LINE),
    "Lambda": plainly(FLAT, keras.ops.sin),
    "LayerNormalization": plainly(FLAT),
    "LeakyReLU": plainly(FLAT),
    "Masking": (lambda cls: lambda x: layers.GlobalAveragePooling1D()(cls()(x)), LINE),
    "MultiHeadAttention": (attending(2, 2), LINE),
    "Normalization": plainly(FLAT, mean=[0.1] * 6, variance=[2.0] * 6),
    "PReLU": plainly(FLAT, "ones"),
    "Permute": plainly(LINE, (2, 1)),
    "Pipeline": (lambda cls: lambda x: cls([layers.Dense(3, "tanh"), layers.ELU()])(x), FLAT),
    "RMSNormalization": plainly(FLAT),
    "RNN": (lambda cls: lambda x: cls([layers.LSTMCell(2), layers.GRUCell(2)])(x), LINE),
    "ReLU": plainly(FLAT),
    "RepeatVector": plainly(FLAT, 2),
    "Rescaling": plainly(FLAT, 2.0, 0.1),
    "Reshape": plainly(FLAT, (2, 3)),
    "Resizing": plainly(IMAGE, 4, 4, name="refused"),
    "ReversibleEmbedding": (lambda cls: lambda x: layers.Add()([x, _embedded(cls, x)]), FLAT),
    "STFTSpectrogram": plainly((32, 1), "magnitude", 8, 4, 8),
    "MelSpectrogram": plainly((40,), 16, 8, sampling_rate=64, num_mel_bins=4, max_freq=32),
    "SimpleRNN": plainly(LINE, 3),
    "SimpleRNNCell": (in_an_rnn(3), LINE),
    "Softmax": plainly(FLAT),
    "SpectralNormalization": (lambda cls: lambda x: cls(layers.Dense(3))(x), FLAT),
    "StackedRNNCells": (
        lambda cls: lambda x: layers.RNN(cls([layers.GRUCell(2), layers.GRUCell(3)]))(x),
        LINE,
    ),
    "TimeDistributed": (lambda cls: lambda x: cls(layers.Dense(3, "tanh"))(x), LINE),
    "UnitNormalization": plainly(FLAT),
    **dict.fromkeys(("Add", "Average", "Concatenate", "Maximum", "Minimum"), (merging, LINE)),
    **dict.fromkeys(("Multiply", "Subtract"), (merging, LINE)),
    **{name: plainly(LINE, 0.3, seed=1) for name in ("AlphaDropout", "Dropout", "GaussianDropout")},
    "GaussianNoise": plainly(LINE, 0.3, seed=1),
}
for rank, shape in ((1, LINE), (2, IMAGE), (3, VOLUME)):
    CALLS |= {
        f"AdaptiveAveragePooling{rank}D": plainly(shape, 2),
        f"AdaptiveMaxPooling{rank}D": plainly(shape, 2),
        f"AveragePooling{rank}D": plainly(shape, 2),
        f"Conv{rank}D": plainly(shape, 2, 2, strides=2, activation="tanh"),
        f"Conv{rank}DTranspose": plainly(shape, 2, 2, strides=2, activation="tanh"),
        f"Cropping{rank}D": plainly(shape, 1),
        f"GlobalAveragePooling{rank}D": plainly(shape),
        f"GlobalMaxPooling{rank}D": plainly(shape),
        f"MaxPooling{rank}D": plainly(shape, 3, 1, padding="same"),
        f"SpatialDropout{rank}D": plainly(shape, 0.3, seed=1),
        f"UpSampling{rank}D": plainly(shape, 2),
        f"ZeroPadding{rank}D": plainly(shape, 1),
    }
    if rank < 3:
        CALLS |= {
            f"DepthwiseConv{rank}D": plainly(shape, 2, activation="tanh"),
            f"SeparableConv{rank}D": plainly(shape, 2, 2, activation="tanh"),
        }
# Activations that need arguments, or make another shape.
CALLS |= {
    "glu": plainly(FLAT, keras.activations.glu, output_shape=(3,)),
    "threshold": plainly(FLAT, lambda x: keras.activations.threshold(x, 0.1, 0.0)),
}
UNIT = {"value_range": (0, 1), "seed": 1}
# Layers that change images at random; their inputs are between 0 and 1.
IMAGES = {
    "AugMix": UNIT | {"num_chains": 1, "chain_depth": 1},
    "AutoContrast": {"value_range": (0, 1)},
    "CenterCrop": {"height": 4, "width": 4},
    "ContrastLimitedAdaptiveHistogramEqualization": {"value_range": (0, 1)},
    "CutMix": {"seed": 1},
    "Equalization": {"value_range": (0, 1)},
    "MixUp": {"seed": 1},
    "RandAugment": UNIT | {"num_ops": 1},
    "RandomBrightness": {"factor": 0.1} | UNIT,
    "RandomColorDegeneration": {"factor": 0.5} | UNIT,
    "RandomColorJitter": UNIT,
    "RandomContrast": {"factor": 0.1} | UNIT,
    "RandomCrop": {"height": 4, "width": 4, "seed": 1},
    "RandomElasticTransform": UNIT,
    "RandomErasing": UNIT,
    "RandomFlip": {"seed": 1},
    "RandomGaussianBlur": UNIT,
    "RandomGrayscale": {"seed": 1},
    "RandomHue": {"factor": 0.1} | UNIT,
    "RandomInvert": UNIT,
    "RandomPerspective": {"seed": 1},
    "RandomPosterization": {"factor": 4} | UNIT,
    "RandomRotation": {"factor": 0.1, "seed": 1},
    "RandomSaturation": {"factor": 0.5} | UNIT,
    "RandomSharpness": {"factor": 0.5} | UNIT,
    "RandomShear": {"x_factor": 0.2, "y_factor": 0.2, "seed": 1},
    "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2, "seed": 1},
    "RandomZoom": {"height_factor": 0.2, "seed": 1},
    "Solarization": UNIT,
}
CALLS |= {name: plainly(IMAGE, **kwargs) for name, kwargs in IMAGES.items()}
# Layers that no input gradient passes through, or that hold another kind of network.
APART = {
    "whole numbers or strings": [
        *("CategoryEncoding", "Discretization", "HashedCrossing", "Hashing", "IntegerLookup"),
        *("StringLookup", "TextVectorization"),
    ],
    "bounding boxes": ["MaxNumBoundingBoxes"],
    "bases of others": ["InputLayer", "Layer", "Wrapper"],
    "networks of one backend": ["FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"],
}


def _embedded(cls, x):
    """Embeddings of tokens that are made from a tensor; they have no gradient."""
    tokens = layers.Lambda(lambda x: keras.ops.cast(x > 0, "int32"), output_shape=x.shape[1:])(x)
    return layers.GlobalAveragePooling1D()(cls(2, x.shape[-1])(tokens))


def shape_of(name):
    """The shape of a sample of the layer or activation of this name."""
    return CALLS[name][1] if name in CALLS else FLAT


def network(names, cls=gbr.GBRModel):
    """Layers or activations side by side, each between two dense ones of its own.

    The trainable weights are listed branch by branch, see `branches`.
    """
    inputs = keras.Input(shape_of(names[0]))
    outputs = [_branch(name, inputs) for name in names]
    return cls(inputs, layers.Add()(outputs) if len(outputs) > 1 else outputs[0])


def _branch(name, inputs):
    call, _ = CALLS.get(name, (lambda cls: layers.Activation(name), None))
    first = layers.Dense(inputs.shape[-1], "sigmoid" if name in IMAGES else "tanh")
    with keras.name_scope(name):
        outputs = call(classes().get(name, layers.Lambda))(first(inputs))
    if len(outputs.shape) > 2:
        outputs = layers.Flatten()(outputs)
    # In single precision at least, so that only the layer rounds more.
    return layers.Dense(2, name=f"{name}_last", dtype=keras.config.dtype_policy().variable_dtype)(
        outputs
    )


def data(names, samples=4):
    """A batch for the network."""
    rng = np.random.default_rng(3)
    return rng.standard_normal((samples, *shape_of(names[0]))), rng.standard_normal((samples, 2))
