"""SavedModel and LiteRT compute what the model does, with and without its equal norm layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_gbr as gbr
from support.networks import batch, logits_loss


def image_network(kind):
    """A trained model with equal norm layers, or what `strip` makes of it, or a plain model."""
    inputs = keras.Input((6, 6, 1))
    wrap = (lambda layer: layer) if kind == "plain" else gbr.ENC
    x = layers.BatchNormalization()(wrap(layers.Conv2D(4, 3))(inputs))
    outputs = wrap(layers.Dense(3))(layers.Flatten()(layers.ReLU()(x)))
    model = (keras.Model if kind == "plain" else gbr.GBRModel)(inputs, outputs)
    settings = {} if kind == "plain" else {"penalties": [gbr.Jacobian(0.1), gbr.InputGradient(0.1)]}
    model.compile("sgd", logits_loss(), **settings)
    x, y = images()
    model.fit(x, y, verbose=0)
    return gbr.strip(model) if kind == "stripped" else model


def images():
    x, y = batch((6, 6, 1), 8)
    return x.astype("float32"), y


def by_saved_model(path, x):
    loaded = tf.saved_model.load(path)
    outputs = loaded.serve(tf.constant(x)).numpy()
    np.testing.assert_array_equal(keras.layers.TFSMLayer(path)(x), outputs)
    return outputs


def by_litert(path, x):
    # The interpreter has moved to a package of its own, but still works here.
    with pytest.warns(UserWarning, match=r"tf\.lite\.Interpreter is deprecated"):
        interpreter = tf.lite.Interpreter(path)
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(source["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(target["index"])


EXPORTS = {
    "tf_saved_model": ("model", by_saved_model),
    "litert": ("model.tflite", by_litert),
}


@pytest.mark.parametrize("kind", ["penalised", "stripped", "plain"])
def test_exports_compute_what_the_model_does(kind, tmp_path):
    model = image_network(kind)
    x, _ = images()
    expected = model.predict(x, verbose=0)
    for name, (file, run) in EXPORTS.items():
        path = str(tmp_path / file)
        model.export(path, format=name, verbose=False)
        # LiteRT may fold the statistics into the kernel and sum in another order.
        np.testing.assert_allclose(run(path, x), expected, rtol=1e-5, atol=1e-6, err_msg=name)
