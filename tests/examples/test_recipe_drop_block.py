"""DropBlock: what it drops, by windows in NumPy, and that it does so in every kind of step."""

import keras
import numpy as np
import pytest

import keras_gbr as gbr
from support.calls import STEPS, assert_close, to_numpy
from support.scripts import load

pytestmark = pytest.mark.jax


@pytest.fixture
def drop_block(monkeypatch):
    return load("recipes.networks.drop_block", monkeypatch).DropBlock


def share_dropped(probability, size, side):
    """The mean share, by the windows over each place and gamma of the paper's equation 1."""
    places = side - size + 1
    gamma = probability / size**2 * side**2 / places**2
    corners = np.lib.stride_tricks.sliding_window_view
    over = corners(np.pad(np.ones(places), size - 1), size).sum(-1)
    return 1 - ((1 - gamma) ** np.outer(over, over)).mean()


@pytest.mark.parametrize("size", [1, 3, 9, 12])
def test_drop_block_drops_whole_blocks_and_keeps_the_mean(drop_block, size):
    layer = drop_block(0.3, size)
    x = np.ones((64, 9, 9, 16), "float32")
    y = to_numpy(layer(x, training=True))
    assert y.mean() == pytest.approx(1, abs=1e-4)
    size = min(size, 9)
    dropped = y == 0
    # Blocks overlap, so that a little less than the probability is dropped.
    assert dropped.mean() == pytest.approx(share_dropped(0.3, size, 9), abs=0.03)
    assert 0.2 < dropped.mean() < 0.33
    assert_close(y[~dropped], np.full((~dropped).sum(), 1 / (~dropped).mean()), rtol=1e-5)
    # Every dropped activation lies in a window that is dropped as a whole.
    view = np.lib.stride_tricks.sliding_window_view
    windows = view(dropped, (size, size), axis=(1, 2)).all((-1, -2))
    covered = np.zeros_like(dropped)
    for row in range(size):
        for column in range(size):
            covered[:, row : row + 10 - size, column : column + 10 - size] |= windows
    np.testing.assert_array_equal(covered, dropped)
    # Each channel is dropped on its own.
    assert (dropped[..., 0] != dropped[..., 1]).any()
    np.testing.assert_array_equal(to_numpy(layer(x)), x)
    assert drop_block.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", STEPS)
def test_drop_block_drops_others_in_each_step(drop_block, kind, policy):
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 1, kernel_initializer="ones", use_bias=False)(inputs)
    model = gbr.GBRModel(inputs, drop_block(0.3, 2)(maps))

    def zeros(y_true, y_pred):
        return keras.ops.mean(keras.ops.cast(y_pred == 0, "float32"))

    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[zeros], **STEPS[kind])
    x, y = (np.ones((4, 8, 8, channels), "float32") for channels in (3, 4))
    found = []
    for _ in range(2):
        model.reset_metrics()
        found.append(model.train_on_batch(x, y, return_dict=True)["zeros"])
    assert found[0] != found[1]
    assert all(0.1 < share < 0.5 for share in found)
    assert model.test_on_batch(x, y, return_dict=True)["zeros"] == 0


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("drop-block:size=0", "size must be a whole number >= 1. Received: 0"),
        ("drop-block:size=1.5", "size must be a whole number >= 1. Received: 1.5"),
        ("drop-block:probability=1", r"probability must be a number in \[0, 1\). Received: 1"),
        ("drop-block:probability=some", "probability must be a number .* Received: 'some'"),
    ],
)
def test_a_wrong_setting_is_refused_by_the_network(monkeypatch, method, message):
    (part,) = load("recipes.methods", monkeypatch).combined([method], [])
    networks = load("recipes.networks", monkeypatch)
    with pytest.raises(ValueError, match=message):
        networks.build("resnet8", (8, 8, 1), 3, networks.Settings(**part.network))


def test_densenet_has_no_place_for_it(monkeypatch):
    networks = load("recipes.networks", monkeypatch)
    settings = networks.Settings(drop_block=(0.1, 7))
    with pytest.raises(ValueError, match="densenet201 has no place for drop-block"):
        networks.build("densenet201", (64, 64, 3), 10, settings)
