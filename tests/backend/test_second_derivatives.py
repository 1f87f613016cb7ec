"""What TensorFlow cannot differentiate twice is refused by name; the rest trains correctly."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_gbr as gbr
from keras_gbr.backend.tensorflow import second_derivatives
from support.networks import batch, jacobians, predictions, random_directions, slope, use_float64

EAGER, GRAPH, XLA = {"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": True}


def network(body, shape, trainable=True):
    """`body`, a function of a symbolic tensor, with a linear head."""
    inputs = keras.Input(shape)
    x = body(inputs)
    x = layers.Flatten()(x) if len(x.shape) > 2 else x
    return gbr.GBRModel(inputs, layers.Dense(2, name="head", trainable=trainable)(x))


def only(cls, *args, **kwargs):
    """A new layer each time: it takes the precision of the test."""
    return lambda x: cls(*args, **kwargs)(x)


def after(first, cls, *args, **kwargs):
    """A layer after the body `first`."""
    return lambda x: cls(*args, **kwargs)(first(x))


def conv(rank, **kwargs):
    return only(getattr(layers, f"Conv{rank}D"), 2, 2, activation="tanh", **kwargs)


def dense(activation):
    return after(only(layers.Dense, 4), layers.Dense, 4, activation=activation)


def normalized(first, cls, *args):
    return after(after(first, cls, *args), layers.Activation, "tanh")


def in_a_model(x):
    up = layers.UpSampling2D(interpolation="bilinear", name="up")
    part = keras.Sequential([keras.Input((4, 4, 2)), up, layers.Conv2D(2, 2)], name="part")
    return part(conv(2)(x))


def default_names(x):
    """Two layers of one class: the scope in which one is called has the name of the other."""
    x = layers.UpSampling2D(name="up_sampling2d_1")(x)
    return layers.UpSampling2D(interpolation="bilinear", name="up_sampling2d")(x)


class SoftsignCell(layers.SimpleRNNCell):
    """A softsign in the body of a loop."""

    def call(self, sequence, states, training=False):
        output, states = super().call(sequence, states, training)
        return output, [tf.nn.softsign(state) for state in states]


class SoftsignFunction(layers.Dense):
    """A softsign in a function of its own."""

    def build(self, shape):
        self.function = tf.function(lambda x: tf.nn.softsign(x) ** 2, autograph=False)
        super().build(shape)

    def call(self, x):
        return self.function(super().call(x))


class CudnnLSTM(layers.Layer):
    """The operation of an LSTM on a GPU; it is traced and never run."""

    def build(self, shape):
        self.w = self.add_weight(shape=(4 * 3 * (2 + 3) + 8 * 3,))

    def call(self, x):
        state = tf.zeros((1, 4, 3))
        outputs = tf.raw_ops.CudnnRNNV3(
            input=x,
            input_h=state,
            input_c=state,
            params=tf.identity(self.w),
            sequence_lengths=tf.fill((4,), 4),
            rnn_mode="lstm",
            is_training=True,
            time_major=False,
        )
        return tf.ensure_shape(outputs.output, (4, 4, 3))

    def compute_output_shape(self, shape):
        return (*shape[:2], 3)


def resizing(interpolation):
    return after(conv(2), layers.Resizing, 8, 8, interpolation=interpolation, name="here")


IMAGE = (5, 5, 1)
NEAREST = r'UpSampling2D\(interpolation="nearest"\) or Conv2DTranspose'
ACTIVATION = 'an activation that has one, such as "tanh"'
FIRST = only(layers.Resizing, 8, 8, name="a")
SOFTSIGN = only(layers.Dense, 3, "softsign", name="d")
LOOP = only(layers.RNN, SoftsignCell(3, name="cell"), name="rnn")
# Body, shape, operation, layer, way out.
MISSING = {
    "bilinear": (resizing("bilinear"), IMAGE, "ResizeBilinear", "here", NEAREST),
    "bilinear first": (FIRST, IMAGE, "ResizeBilinear", "a", NEAREST),
    "bicubic": (resizing("bicubic"), IMAGE, "ResizeBicubic", "here", NEAREST),
    "lanczos": (resizing("lanczos3"), IMAGE, "ScaleAndTranslate", "here", NEAREST),
    "nearest": (resizing("nearest"), IMAGE, "ResizeNearestNeighbor", "here", NEAREST),
    "default names": (default_names, IMAGE, "ResizeBilinear", "up_sampling2d", NEAREST),
    "in a model": (in_a_model, IMAGE, "ResizeBilinear", "part/up", NEAREST),
    "softsign": (SOFTSIGN, (4,), "Softsign", "d", ACTIVATION),
    "in a loop": (LOOP, (4, 2), "Softsign", "rnn/cell", ACTIVATION),
    "in a function": (only(SoftsignFunction, 3), (4,), "Softsign", None, ACTIVATION),
    "cudnn": (only(CudnnLSTM, name="lstm"), (4, 2), "CudnnRNN", "lstm", "`use_cudnn=False`"),
}


def assert_refused(case, mode):
    body, shape, operation, layer, way_out = MISSING[case]
    model = network(body, shape)
    model.compile("sgd", "mse", penalties=[gbr.InputGradient(0.1)], **mode)
    before = model.get_weights()
    place = f"layer '{layer}'" if layer else f"model '{model.name}'"
    with pytest.raises(ValueError, match=rf"{operation} of {place}\. Replace it by .*{way_out}"):
        model.fit(np.ones((4, *shape)), np.ones((4, 2)), verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_second_derivative_is_refused_by_name(case):
    assert_refused(case, GRAPH)


@pytest.mark.parametrize("mode", [EAGER, XLA, {"steps_per_execution": 2}], ids=str)
@pytest.mark.parametrize("case", ["in a model", "softsign"])
def test_it_is_refused_however_the_step_runs(case, mode):
    assert_refused(case, mode)


def assert_gradient_is_the_slope(model, penalty, shape=None, x=None, step=1e-5):
    """One step of descent against central differences of loss and penalty, in double precision."""
    model.compile(keras.optimizers.SGD(1.0), "mse", penalties=[penalty])
    x = tf.constant(batch(shape, 3)[0]) if x is None else x
    y = tf.constant(batch((2,), 3, seed=1)[0])
    state = [(v, v.numpy()) for v in model.non_trainable_variables]

    @tf.function(autograph=False)
    def total():
        forward = model.forward_pass(x, y, training=True)
        losses = keras.ops.mean(keras.ops.square(forward.y_pred - y))
        return losses + keras.ops.mean(penalty(forward))

    def value():
        for variable, start in state:  # the same random numbers
            variable.assign(start)
        return total()

    variables = model.trainable_variables
    directions = random_directions(variables)
    numeric = slope(value, variables, directions, step)
    for variable, start in state:
        variable.assign(start)
    before = [v.numpy() for v in variables]
    model.train_on_batch(x, y)
    moves = [old - v.numpy() for old, v in zip(before, variables, strict=True)]
    analytic = sum((m * d).sum() for m, d in zip(moves, directions, strict=True))
    # With the step 1e-5, rounding and curvature leave more than five digits.
    np.testing.assert_allclose(analytic, numeric, rtol=step)


LINE, VOLUME, FLAT, SEQUENCE = (6, 2), (4, 4, 4, 1), (6,), (4, 2)
TANH = {"activation": "tanh"}
TWICE_DIFFERENTIABLE = {
    "conv1d": (conv(1), LINE),
    "conv2d strided": (conv(2, strides=2, padding="same"), IMAGE),
    "conv2d dilated": (conv(2, dilation_rate=2), IMAGE),
    "conv2d grouped": (after(conv(2), layers.Conv2D, 2, 2, groups=2, **TANH), IMAGE),
    "conv3d": (conv(3), VOLUME),
    "conv1d transposed": (only(layers.Conv1DTranspose, 2, 3, strides=2, **TANH), LINE),
    "conv2d transposed": (only(layers.Conv2DTranspose, 2, 3, strides=2, **TANH), IMAGE),
    "conv3d transposed": (only(layers.Conv3DTranspose, 2, 2, **TANH), VOLUME),
    "depthwise": (only(layers.DepthwiseConv2D, 3, depth_multiplier=2, **TANH), IMAGE),
    "separable": (only(layers.SeparableConv2D, 2, 3, **TANH), IMAGE),
    "max pooling": (after(conv(2), layers.MaxPooling2D), IMAGE),
    "average pooling": (after(conv(2), layers.AveragePooling2D, 2), IMAGE),
    "global max": (after(conv(2), layers.GlobalMaxPooling2D), IMAGE),
    "global average": (after(conv(2), layers.GlobalAveragePooling2D), IMAGE),
    "adaptive pooling": (after(conv(2), layers.AdaptiveAveragePooling2D, 3), IMAGE),
    "nearest upsampling": (after(conv(2), layers.UpSampling2D), IMAGE),
    "padding": (after(conv(2), layers.ZeroPadding2D), IMAGE),
    "batch normalisation": (normalized(dense(None), layers.BatchNormalization), FLAT),
    "fused normalisation": (normalized(conv(2), layers.BatchNormalization), IMAGE),
    "layer normalisation": (normalized(dense(None), layers.LayerNormalization), FLAT),
    "group normalisation": (normalized(conv(2), layers.GroupNormalization, 1), IMAGE),
    "attention": (lambda x: layers.MultiHeadAttention(2, 3)(x, x), SEQUENCE),
    "lstm": (only(layers.LSTM, 3), SEQUENCE),
    "gru": (only(layers.GRU, 3, return_sequences=True), SEQUENCE),
    "simple rnn": (only(layers.SimpleRNN, 3), SEQUENCE),
    "time distributed": (lambda x: layers.TimeDistributed(layers.Dense(3, "tanh"))(x), SEQUENCE),
    "dropout": (after(dense("tanh"), layers.Dropout, 0.3, seed=1), FLAT),
    "equal norm": (lambda x: gbr.ENC(layers.Conv2D(2, 2, activation="tanh"))(x), IMAGE),
    **{
        name: (dense(name), FLAT)
        for name in ["softmax", "gelu", "silu", "elu", "selu", "relu6", "leaky_relu", "softplus"]
    },
}


@pytest.mark.parametrize("case", TWICE_DIFFERENTIABLE)
def test_no_false_alarm_and_the_right_gradient(case):
    use_float64()
    body, shape = TWICE_DIFFERENTIABLE[case]
    assert_gradient_is_the_slope(network(body, shape), gbr.InputGradient(1.0), shape)


def test_embedding_beside_a_real_input():
    use_float64()
    tokens, numbers = keras.Input((3,), dtype="int32"), keras.Input((4,))
    embedded = layers.Flatten()(layers.Embedding(9, 2)(tokens))
    hidden = layers.Dense(5, "tanh")(layers.Concatenate()([numbers, embedded]))
    model = gbr.GBRModel([numbers, tokens], layers.Dense(2)(hidden))
    x = [tf.constant(batch((4,), 3)[0]), tf.constant([[1, 2, 3], [3, 0, 1], [8, 8, 4]])]
    assert_gradient_is_the_slope(model, gbr.InputGradient(1.0), x=x)


@pytest.mark.parametrize(
    ("penalty", "body", "trainable"),
    [
        (gbr.ParameterGradient(1.0), only(layers.Resizing, 8, 8), True),
        # The Jacobian pulls a constant through the resize: only its input depends on a weight.
        (gbr.Jacobian(1.0, num_projections=None), resizing("bilinear"), False),
    ],
    ids=["before all weights", "after all weights"],
)
def test_a_resize_that_the_gradient_does_not_need_trains(penalty, body, trainable):
    use_float64()
    # TensorFlow resizes in single precision: a larger step, and fewer digits.
    assert_gradient_is_the_slope(network(body, IMAGE, trainable), penalty, IMAGE, step=1e-3)


@pytest.mark.parametrize("pooling", ["Max", "Average"])
def test_pooling_of_volumes(pooling):
    """TensorFlow pools volumes only in single precision; flat volumes are compared as images."""
    steps = []
    for rank in (2, 3):
        keras.utils.set_random_seed(1)
        flat = (1,) * (rank - 2)
        body = after(
            only(getattr(layers, f"Conv{rank}D"), 2, (*flat, 2, 2), activation="tanh"),
            getattr(layers, f"{pooling}Pooling{rank}D"),
            (*flat, 2, 2),
        )
        model = network(body, (*flat, *IMAGE))
        model.compile("sgd", "mse", penalties=[gbr.InputGradient(1.0)])
        x = batch(IMAGE)[0].astype("float32").reshape(4, *flat, *IMAGE)
        model.train_on_batch(x, np.ones((4, 2)))
        steps.append([w.reshape(-1) for w in model.get_weights()])
    for image, volume in zip(*steps, strict=True):
        np.testing.assert_allclose(volume, image, rtol=1e-4, atol=1e-6)  # single precision


def test_the_measure_needs_no_second_derivative_and_weight_zero_does():
    use_float64()
    model = network(resizing("bilinear"), IMAGE)
    model.compile("sgd", "mse", penalties=[gbr.Jacobian(0.0), gbr.InputGradient(0.0)])
    x, _ = batch(IMAGE)
    with pytest.raises(ValueError, match="needs second derivatives"):  # the weight may grow
        model.train_on_batch(x, np.ones((4, 2)))
    # TensorFlow resizes in single precision: a larger step, and fewer digits.
    reference = (jacobians(lambda x: predictions(model, x), x, 1e-3) ** 2).sum((1, 2)).mean()
    np.testing.assert_allclose(gbr.measures.gbr(model, x), reference, rtol=1e-3)


@pytest.mark.parametrize("mode", [EAGER, GRAPH], ids=str)
def test_only_the_first_step_is_examined(mode, monkeypatch):
    seen = []
    require = second_derivatives.require_second_derivatives
    monkeypatch.setattr(
        second_derivatives, "require_second_derivatives", lambda *a: seen.append(require(*a))
    )
    model = network(layers.ActivityRegularization(0.1), FLAT)
    model.compile("sgd", "mse", penalties=[gbr.Jacobian(0.1)], **mode)
    for _ in range(2):
        model.fit(np.ones((6, *FLAT)), np.ones((6, 2)), batch_size=2, verbose=0)
    assert len(seen) == 1


class Peculiar(layers.Layer):
    """A layer that reads its values, which only eager tensors allow."""

    def call(self, x):
        return x * float(keras.ops.max(x).numpy() > 0)

    def compute_output_shape(self, shape):
        return shape


def test_a_model_that_only_runs_eagerly_trains_with_a_warning():
    inputs = keras.Input(FLAT)
    model = gbr.GBRModel(inputs, layers.Dense(2)(Peculiar()(inputs)))
    model.compile("sgd", "mse", penalties=[gbr.Jacobian(0.1)], **EAGER)
    before = model.get_weights()[0]
    with pytest.warns(UserWarning, match="are not checked.*AttributeError") as caught:
        model.fit(np.ones((4, *FLAT)), np.ones((4, 2)), batch_size=2, verbose=0)
    assert len(caught) == 1
    assert not np.allclose(before, model.get_weights()[0])
