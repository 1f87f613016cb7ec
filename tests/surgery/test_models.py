"""Surgery on the architectures of keras.applications and KerasHub, with random weights."""

import keras
import keras_hub
import numpy as np
import pytest
from keras import applications, layers

import keras_gbr as gbr
from support.calls import BACKEND, assert_close, assert_equal, number, to_numpy
from support.catalogue import thinned
from support.wrapped import batch

ALPHA = 64.0  # large enough for the smallest variance to matter beside the epsilon of 1e-3
SIDE = {"Xception": 71}  # the smallest that it takes; 32 for the others
APPLICATIONS = [
    "ResNet50",
    "ResNet101",
    "DenseNet201",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "EfficientNetV2B0",
    "ConvNeXtTiny",
    "Xception",
]
if BACKEND == "tensorflow":  # Keras does not offer it under PyTorch.
    APPLICATIONS.append("NASNetMobile")
if BACKEND == "jax":  # It compiles every layer of every size; what surgery does is the same.
    APPLICATIONS = ["MobileNetV3Small"]


def application(name):
    shape = (SIDE.get(name, 32),) * 2 + (3,)
    model = getattr(applications, name)(
        weights=None, input_shape=shape, classes=3, classifier_activation=None
    )
    return model, 60 * batch((2, *shape)) + 128


def resnet():
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 2],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(32, 32, 3),
    )
    model = keras_hub.models.ResNetImageClassifier(backbone=backbone, num_classes=3)
    return model, batch((2, 32, 32, 3))


SIZES = {
    "vocabulary_size": 20,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "max_sequence_length": 6,
}
TOKENS = {
    "token_ids": np.arange(12).reshape(2, 6),
    "segment_ids": np.array([[0, 0, 0, 1, 1, 1]] * 2),
    "padding_mask": np.array([[1] * 6, [1] * 4 + [0] * 2]),
}


def bert():
    backbone = keras_hub.models.BertBackbone(**SIZES)
    model = keras_hub.models.BertTextClassifier(backbone, num_classes=3, preprocessor=None)
    return model, TOKENS


def distil_bert():
    backbone = keras_hub.models.DistilBertBackbone(**SIZES)
    model = keras_hub.models.DistilBertTextClassifier(backbone, num_classes=3, preprocessor=None)
    return model, {name: TOKENS[name] for name in ("token_ids", "padding_mask")}


MODELS = {name: lambda name=name: application(name) for name in APPLICATIONS} | {
    "KerasHub ResNet": resnet,
    "KerasHub BERT": bert,
    "KerasHub DistilBERT": distil_bert,
}


def names(model):
    """The names of all layers, including those of models inside."""
    found = []
    for layer in model.layers:
        found.append(layer.name)
        if isinstance(layer, keras.Model):
            found.append(names(layer))
    return found


def kernels(model):
    """The kernels, by the paths of variables; tables of positions are not kernels."""
    endings = "kernel", "embedding/embeddings"
    found = [w for w in model.weights if w.path.endswith(endings)]
    return [w for w in found if "position_embedding/embeddings" not in w.path]


@pytest.mark.parametrize("name", thinned([(name,) for name in MODELS], step=2))
def test_a_known_architecture_is_wrapped_and_stripped(name):
    model, x = MODELS[name]()
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            # One batch sets the averages: signals of the trained size at every depth.
            layer.momentum = 0.0
    before = [variable.numpy() for variable in model.variables]
    listed = gbr.list_kernels(model)
    wrapped = gbr.apply_enc(model, alpha=ALPHA)
    wrapped(x, training=True)
    plain = gbr.strip(wrapped)
    assert names(wrapped) == names(model) == names(plain)
    assert wrapped.name == model.name == plain.name
    for old, new in zip(before, model.variables, strict=True):
        assert_equal(old, new)
    expected = kernels(model)
    changed = [each for each in listed if not each.left_alone]
    shapes = [shape for each in changed for _, shape in each.kernels]
    assert sorted(shapes) == sorted(tuple(kernel.shape) for kernel in expected)
    in_use = kernels(plain)
    assert len(in_use) == len(expected)
    for kernel in in_use:
        squared_norm = np.sum(kernel.numpy().astype("float64") ** 2)
        assert_close(squared_norm, ALPHA, rtol=1e-5)
    result, reference = to_numpy(plain(x)), to_numpy(wrapped(x))
    assert np.ptp(reference) > 1e-4
    assert_close(result, reference, rtol=0, atol=1e-6 * np.abs(reference).max())


@pytest.mark.parametrize(
    "name",
    [name for name in MODELS if name in ("ConvNeXtTiny", "KerasHub ResNet", "KerasHub BERT")],
)
def test_a_regularized_architecture_computes_the_same(name):
    model, x = MODELS[name]()
    regularized = gbr.apply_regularizer(model, keras.regularizers.L2(1.0))
    squares = sum(np.sum(kernel.numpy().astype("float64") ** 2) for kernel in kernels(model))
    assert_close(number(sum(regularized.losses)), squares, rtol=1e-5)
    assert_equal(gbr.strip(regularized)(x), model(x))


def test_a_tie_between_layers_is_refused():
    backbone = keras_hub.models.BertBackbone(**SIZES)
    model = keras_hub.models.BertMaskedLM(backbone, preprocessor=None)
    with pytest.raises(ValueError, match="'token_embedding' and 'mlm_head' must not hold the same"):
        gbr.apply_enc(model)
