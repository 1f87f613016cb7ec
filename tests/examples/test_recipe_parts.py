"""The parts of train.py: weight decay and schedules, settings, checkpoints, data."""

import argparse
import dataclasses
import errno
import json

import keras
import numpy as np
import pytest

import keras_gbr as gbr
from support.calls import assert_close, assert_equal, to_numpy, variable_gradients

yaml = pytest.importorskip("yaml")

CLASSES = 4  # those of the fixture `images`


def rates(optimizer, steps):
    schedule = optimizer._learning_rate
    return np.array([float(to_numpy(schedule(step))) for step in range(steps)])


def test_the_learning_rate_falls_as_in_the_paper(recipe):
    config = recipe("config").Config(epochs=100, learning_rate=0.1)
    found = rates(recipe("optimization").optimizer(config, 1), 100)
    epochs = np.arange(100)
    # The step of a milestone is the last one of its rate.
    expected = 0.1 * 0.1 ** sum((epochs > milestone) for milestone in (30, 60, 90))
    assert_close(found, expected, rtol=1e-5)


@pytest.mark.parametrize("schedule", ["steps", "cosine"])
def test_the_learning_rate_rises_first(recipe, schedule):
    config = recipe("config").Config(epochs=20, schedule=schedule, warmup=2.0)
    found = rates(recipe("optimization").optimizer(config, 5), 100)
    assert (np.diff(found[:10]) > 0).all()
    assert found.max() == pytest.approx(0.1, rel=1e-4)
    assert found[-1] < 0.01


@pytest.mark.jax
@pytest.mark.parametrize(
    ("method", "shifted"), [("plain", True), ("enc", True), ("enc", False), ("weight-norm", True)]
)
def test_the_gradient_of_decay_is_that_of_the_paper(recipe, method, shifted):
    """W on plain kernels; (1 - eps / s) (W - mu) + mu on normalised ones; 0 on all others."""
    (part,) = recipe("methods").combined([method], [])
    network = recipe("networks").build("resnet8", (8, 8, 1), 3)
    network = part.change(network) if part.change else network
    model = recipe("optimization").with_decay(network, decay := 0.01, shifted)
    weights, shift = model.trainable_weights, 1e-3
    found = variable_gradients(lambda: sum(model.losses), weights)
    kinds = set()
    for weight, gradient in zip(weights, found, strict=True):
        is_kernel = weight.path.split("/")[-1] == "kernel"
        is_shifted = is_kernel and shifted and method != "plain" and "logits" not in weight.path
        expected = to_numpy(weight) if is_kernel else np.zeros(weight.shape)
        if is_shifted:
            axes = tuple(range(expected.ndim - 1))
            mean, deviation = expected.mean(axes), expected.std(axes, ddof=1)
            expected = (1 - shift / deviation) * (expected - mean) + mean
        assert_close(gradient, decay * expected, rtol=1e-4, atol=1e-8)
        kinds.add((is_kernel, is_shifted))
    with_shift = {(True, True)} if method != "plain" and shifted else set()
    assert kinds == {(True, False), (False, False)} | with_shift


@pytest.mark.parametrize("method", ["plain", "enc", "enc:head=normalized", "weight-norm"])
def test_decay_is_that_of_the_paper(recipe, method):
    """What it adds to the loss, in NumPy: half of W^2, or shifted L2 of what is normalised."""
    (part,) = recipe("methods").combined([method], [])
    networks, decay, shift = recipe("networks"), 0.01, 1e-3
    settings = networks.Settings(**part.network)
    network = networks.build("resnet8", (8, 8, 1), 3, settings)
    network = part.change(network) if part.change else network
    model = recipe("optimization").with_decay(network, decay, shifted=True)
    value = to_numpy(sum(model.losses))
    expected = 0.0
    for weight in model.trainable_weights:
        if weight.path.split("/")[-1] != "kernel":
            continue
        filters = to_numpy(weight).reshape(-1, weight.shape[-1])
        is_normalised = method != "plain" and not (
            "logits" in weight.path and method != "enc:head=normalized"
        )
        count, mean, deviation = len(filters), filters.mean(0), filters.std(0, ddof=1)
        kept = shift if is_normalised else 0.0
        squares = (count - 1) * (deviation - kept) ** 2 + count * mean**2
        expected += decay / 2 * squares.sum()
    assert value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("method", "holds"),
    [
        ("enc:alpha=0.5", lambda kernel: (kernel**2).sum() - 0.5),
        ("enc:per_filter=false,center=false", lambda kernel: (kernel**2).sum() - 1),
        ("equal-norm:alpha=2.0", lambda kernel: (kernel**2).sum() - 2),
        ("weight-standardization", lambda kernel: kernel.mean((0, 1, 2))),
    ],
)
def test_a_method_holds_what_it_promises_after_an_update(recipe, method, holds):
    (part,) = recipe("methods").combined([method], [])
    network = part.change(recipe("networks").build("resnet8", (8, 8, 1), 3))
    model = recipe("optimization").with_decay(network, 1e-2, shifted=True)
    model.compile("sgd", "mse", run_eagerly=True)
    rng = np.random.default_rng(0)
    model.train_on_batch(rng.random((4, 8, 8, 1)), rng.random((4, 3)))
    plain = gbr.strip(model)
    kernels = [layer.kernel for layer in plain.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(kernels) == 9
    for kernel in kernels:
        assert_close(holds(to_numpy(kernel)), 0, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "regularizer"),
    [
        ("spectral:factor=0.1", gbr.Spectral(0.1)),
        ("weissi:log_factor=0.1,l1_factor=0.01", gbr.WEISSI(0.1, 0.01)),
        ("shifted-l2:factor=0.1,epsilon=0.01", gbr.ShiftedL2(0.1, 0.01)),
        ("l2:factor=0.1", keras.regularizers.L2(0.1)),
    ],
)
def test_a_regularizer_is_on_every_kernel_beside_the_decay(recipe, method, regularizer):
    (part,) = recipe("methods").combined([method], [])
    network = part.change(recipe("networks").build("resnet8", (8, 8, 1), 3))
    model = recipe("optimization").with_decay(network, 1e-2, shifted=True)
    kernels = [w for w in model.trainable_weights if w.path.endswith("kernel")]
    assert len(kernels) == 10
    decay = keras.regularizers.L2(5e-3)
    expected = sum(to_numpy(regularizer(w) + decay(w)) for w in kernels)
    assert to_numpy(sum(model.losses)) == pytest.approx(expected, rel=1e-4)


def options(recipe, *arguments):
    parser = argparse.ArgumentParser()
    recipe("config").add_options(parser)
    return parser.parse_args(list(arguments))


def test_settings_of_the_command_line(recipe, tmp_path):
    config = recipe("config")
    given = options(
        recipe, "--epochs", "3", "--no-shifted-l2", "--method", "enc", "--set", "per_filter=false",
        "--set", "alpha=0.5", "--method", "cutmix", "--penalty", "jacobian:0.01,interval=8",
    )  # fmt: skip
    found = config.from_options(given, None)
    assert found.methods == ("enc:per_filter=false,alpha=0.5", "cutmix")
    assert found.penalties == ("jacobian:0.01,interval=8",)
    assert (found.epochs, found.shifted_l2, found.batch_size) == (3, False, 256)
    config.write(found, tmp_path / "config.yaml")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == found.as_dict()
    changed = config.from_options(options(recipe, "--epochs", "9"), tmp_path / "config.yaml")
    assert changed == dataclasses.replace(found, epochs=9)
    # What reads YAML reads the file that is written without PyYAML.
    config.yaml = None
    config.write(found, tmp_path / "json.yaml")
    config.yaml = yaml
    assert config.read(tmp_path / "json.yaml") == found.as_dict()
    assert json.loads((tmp_path / "json.yaml").read_text()) == found.as_dict()
    (tmp_path / "small.yaml").write_text("weight_decay: 1e-6\nseed: 3")
    assert config.read(tmp_path / "small.yaml") == {"weight_decay": 1e-6, "seed": 3}


def test_parts_are_what_the_texts_say(recipe):
    combined = recipe("methods").combined
    (part,) = combined([], ["jacobian:0.01,interval=8,num_projections=2"])
    (penalty,) = part.penalties
    assert isinstance(penalty, gbr.Jacobian)
    assert (penalty.weight, penalty.interval, penalty.num_projections) == (0.01, 8, 2)
    assert combined(["label-smoothing:0.2"], [])[0].label_smoothing == 0.2
    assert combined(["drop-block:size=3"], [])[0].network == {"drop_block": (0.1, 3)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1. Received: 0"),
        ({"epochs": 2.5}, "epochs must be a whole number >= 1. Received: 2.5"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"learning_rate": 0.0}, "learning_rate must be a number > 0. Received: 0.0"),
        ({"weight_decay": float("nan")}, "weight_decay must be a number >= 0"),
        ({"schedule": "linear"}, "schedule must be one of steps, cosine. Received: 'linear'"),
        ({"shifted_l2": "yes"}, "shifted_l2 must be true or false. Received: 'yes'"),
        ({"methods": "enc"}, "methods must be a list of texts. Received: 'enc'"),
        ({"methods": [3]}, r"methods must be a list of texts. Received: \(3,\)"),
        ({"data": 3}, "data must be a text. Received: 3"),
    ],
)
def test_a_wrong_setting_is_refused(recipe, values, message):
    with pytest.raises(ValueError, match=message):
        recipe("config").Config(**values)


@pytest.mark.parametrize(
    ("methods", "penalties", "message"),
    [
        (["no"], [], "method must be one of plain, enc, .*Received: 'no'"),
        (["enc:beta=1"], [], "method enc: .*beta.* It takes: alpha: float = 1.0, .*"),
        (["enc:head=lost"], [], "head must be plain, wrapped or normalized"),
        ([], ["jacobian"], "penalty jacobian: .*weight.* It takes: weight: float, .*interval"),
        ([], ["jacobian:0.1,every=2"], "penalty jacobian: .*every.*fraction: float = 1.0"),
        ([], ["l2:0.1"], "penalty must be one of jacobian, .*Received: 'l2'"),
    ],
)
def test_a_wrong_method_is_refused(recipe, methods, penalties, message):
    with pytest.raises(ValueError, match=message):
        recipe("methods").combined(methods, penalties)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", r"must have keys out of data, .*Received: \['epoch'\]"),
        ("- 3", r"must have keys out of"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_broken_file_of_settings_is_refused(recipe, tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        recipe("config").read(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match="Cannot read"):
        recipe("config").read(tmp_path / "none.yaml")


def model_of(recipe, images):
    keras.utils.set_random_seed(1)
    parts = recipe("methods").combined(["cutout", "dropout"], [])
    networks = recipe("networks")
    network = networks.build("resnet8", images.shape, CLASSES, networks.Settings(dropout=0.2))
    batches = recipe("batches").Batches(CLASSES, images.train, parts, pad_crop=True)
    model = recipe("training").Trainee(network, batches)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    return model


def test_a_checkpoint_has_everything_but_the_images(recipe, images, tmp_path, monkeypatch):
    checkpoint = recipe("checkpoint")
    model = model_of(recipe, images)
    assert checkpoint.notes(tmp_path) is None
    (tmp_path / ".checkpoint.npz.left.npz").write_bytes(b"by a process that was killed")
    checkpoint.save(model, {"history": [{"epoch": 1}]}, tmp_path)
    assert (tmp_path / "checkpoint.npz").stat().st_size < 8 * model.count_params() + 50_000
    kept = [v for v in model.variables if v.dtype != "uint8" and tuple(v.shape) != (40,)]
    kept += model.optimizer.variables
    before = [to_numpy(variable).copy() for variable in kept]
    for variable in kept:
        variable.assign(variable.value + 1)
    assert checkpoint.notes(tmp_path) == {"history": [{"epoch": 1}]}
    checkpoint.restore(model, tmp_path)
    for variable, old in zip(kept, before, strict=True):
        assert_equal(to_numpy(variable), old)

    def full(*arguments, **arrays):
        arguments[0].write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    content = (tmp_path / "checkpoint.npz").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.np, "savez", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*checkpoint.npz'"):
            checkpoint.save(model, {}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.npz"]
    assert (tmp_path / "checkpoint.npz").read_bytes() == content

    # A file of half its length, and one with a changed byte.
    middle = len(content) // 2
    changed = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    for damaged in (content[:middle], changed):
        (tmp_path / "checkpoint.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cannot be read: .* Remove it"):
            checkpoint.notes(tmp_path)


def test_a_checkpoint_of_another_network_is_refused(recipe, images, tmp_path):
    checkpoint, networks = recipe("checkpoint"), recipe("networks")
    checkpoint.save(model_of(recipe, images), {}, tmp_path)
    batches = recipe("batches").Batches(CLASSES, images.train, [], pad_crop=False)
    other = recipe("training").Trainee(networks.build("resnet8", images.shape, CLASSES), batches)
    other.compile("sgd", "categorical_crossentropy")
    other.optimizer.build(other.trainable_variables)
    with pytest.raises(ValueError, match="is of another training"):
        checkpoint.restore(other, tmp_path)


# Images without an axis of channels, and training labels with an axis that is not needed.
GREY = {
    "x_train": np.arange(80, dtype="uint8").reshape(5, 4, 4),
    "y_train": np.arange(5).reshape(5, 1),
    "x_test": np.ones((3, 4, 4), "uint8"),
    "y_test": np.arange(3),
}


def test_a_file_of_images_is_read(recipe, tmp_path):
    np.savez(tmp_path / "images.npz", **GREY)
    load = recipe("datasets").load
    whole, part = (load(str(tmp_path / "images.npz"), samples) for samples in (None, 3))
    assert (whole.classes, whole.shape, whole.num_train) == (5, (4, 4, 1), 5)
    for split, name in ((whole.train, "train"), (whole.test, "test")):
        assert_equal(split[0][..., 0], GREY[f"x_{name}"])
        assert_equal(split[1], GREY[f"y_{name}"].reshape(-1))
    # The labels are the numbers of the images. A part is drawn from all, not taken in front.
    chosen = part.train[1]
    assert len(set(chosen.tolist())) == 3
    assert chosen.max() > 2
    assert_equal(part.train[0], whole.train[0][chosen])
    assert_equal(part.test[0], whole.test[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y_test": None}, "must hold the arrays x_train, y_train, x_test, y_test. Received: "),
        ({"x_train": np.full((5, 4, 4, 1), 2.0)}, r"pixels in \[0, 1\]"),
        ({"x_train": np.zeros((5, 4, 4, 1), "int64")}, "as uint8 or floats"),
        ({"y_train": np.zeros(5)}, "a whole number >= 0 for each"),
        ({"y_train": np.zeros(4, int)}, "a whole number >= 0 for each"),
        ({"y_train": np.full(5, -1)}, "a whole number >= 0 for each"),
        ({"x_test": np.zeros((5, 3, 4), "uint8")}, "of one size. Received"),
    ],
)
def test_a_wrong_file_of_images_is_refused(recipe, tmp_path, changed, message):
    path = tmp_path / "images.npz"
    arrays = GREY
    arrays = {name: array for name, array in (arrays | changed).items() if array is not None}
    if "x_test" in changed:
        arrays["y_test"] = np.arange(5)
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message):
        recipe("datasets").load(str(path))
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="Cannot read"):
        recipe("datasets").load(str(path))
