"""TFDS sets whose images have many sizes, on the mock data that TFDS makes of ImageNet."""

import io
import json
import warnings

import numpy as np
import pytest

from support.calls import BACKEND, assert_close, assert_equal
from support.scripts import check_refused, load

tf = pytest.importorskip("tensorflow")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tfds = pytest.importorskip("tensorflow_datasets")

pytestmark = [
    pytest.mark.skipif(BACKEND != "tensorflow", reason="The pipeline is that of TensorFlow."),
    pytest.mark.filterwarnings("ignore"),
]
COUNT, SIZE = 12, 16


@pytest.fixture
def stream(monkeypatch):
    with tfds.testing.mock_data(num_examples=COUNT):
        yield load("recipes.streams", monkeypatch).Stream("imagenet2012", SIZE)


def arrays(dataset):
    return [tuple(part.numpy() for part in batch) for batch in dataset]


def test_batches_depend_on_seed_and_epoch_alone(stream):
    assert (stream.classes, stream.shape, stream.num_train) == (1000, (SIZE, SIZE, 3), COUNT)
    whole = arrays(stream.batches(5, 7, range(3)))
    assert len(whole) == 6
    for x, y in whole:
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((5, SIZE, SIZE, 3), "uint8", (5,), "int32")
    for expected, actual in zip(whole[2:], arrays(stream.batches(5, 7, range(1, 3))), strict=True):
        for one, other in zip(expected, actual, strict=True):
            assert_equal(other, one)
    assert any((one[0] != other[0]).any() for one, other in zip(whole[:2], whole[2:4], strict=True))
    other = arrays(stream.batches(5, 8, range(1)))
    assert any((one[0] != two[0]).any() for one, two in zip(whole, other, strict=False))


def test_test_images_are_the_squares_in_the_middle(stream):
    from PIL import Image

    encoded = tfds.builder("imagenet2012").as_dataset(
        split="validation", decoders={"image": tfds.decode.SkipDecoding()}
    )
    examples = list(encoded.as_numpy_iterator())
    images, labels = stream.first("test", COUNT)
    assert_equal(labels, np.array([example["label"] for example in examples]))
    assert len(images) == COUNT
    for example, image in zip(examples, images, strict=True):
        decoded = Image.open(io.BytesIO(example["image"])).convert("RGB")
        side = max(round(0.875 * min(decoded.size)), 1)
        left, top = ((length - side) // 2 for length in decoded.size)
        crop = np.asarray(decoded)[top : top + side, left : left + side].astype("float32")
        expected = tf.image.resize(crop, (SIZE, SIZE), antialias=True).numpy()
        # Two decoders blow up the colours of noise differently; another crop is 80 levels off.
        assert np.abs(image - expected).mean() < 5


def test_a_crop_is_a_part_of_the_image(monkeypatch):
    streams = load("recipes.streams", monkeypatch)
    rng = np.random.default_rng(0)
    pixels = tf.constant(rng.integers(0, 256, (40, 60, 3)).astype("uint8"))
    for encode in (tf.io.encode_jpeg, tf.io.encode_png):
        encoded = encode(pixels)
        whole = tf.io.decode_image(encoded).numpy()
        for top, left, height, width in ((5, 7, 20, 30), (0, 0, 40, 60), (3, 8, 9, 11)):
            crop = streams._crop(encoded, top, left, height, width).numpy()
            expected = whole[top : top + height, left : left + width]
            assert_close(crop.astype(float), expected.astype(float), atol=1)
        assert_equal(streams._shape(encoded).numpy(), [40, 60, 3])


def test_training_crops_have_the_area_of_the_paper(monkeypatch):
    """Of an image whose pixels tell their place."""
    streams = load("recipes.streams", monkeypatch)
    rows, columns = np.mgrid[0:128, 0:128]
    pixels = np.stack([rows, columns, np.zeros_like(rows)], -1).astype("uint8")
    example = {"image": tf.io.encode_png(pixels), "label": tf.constant(3)}
    areas, flips = [], []
    for index in range(60):
        image, label = streams._training_image(32, 1, tf.constant(index, tf.int64), example)
        assert label == 3
        image = image.numpy().astype(float)
        height, width = (np.ptp(image[..., axis]) * 32 / 31 for axis in (0, 1))
        areas.append(height * width / 128**2)
        flips.append(image[0, 0, 1] > image[0, -1, 1])
    assert 0.05 < min(areas) < 0.3
    assert 0.8 < max(areas) <= 1.1
    assert 0.3 < np.mean(flips) < 0.7


def test_it_trains(monkeypatch, tmp_path):
    with tfds.testing.mock_data(num_examples=COUNT):
        train = load("train.py", monkeypatch)
        train.main(
            [
                "--data", "imagenet2012", "--image-size", "16", "--epochs", "1", "--batch-size",
                "4", "--attacked", "4", "--pgd-steps", "1", "--method", "mixup", "--quiet",
                "--output", str(tmp_path / "run"),
            ]
        )  # fmt: skip
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "finished"
    assert np.isfinite(result["history"][0]["loss"])


def test_a_set_that_is_not_there_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        tfds, "builder", lambda name: (_ for _ in ()).throw(RuntimeError("no\nnetwork"))
    )
    train = load("train.py", monkeypatch)
    message = "Cannot load the TFDS data set 'imagenet2012'. If it is prepared, set TFDS_DATA_DIR"
    check_refused(train, ["--data", "imagenet2012"], message, capsys)
    message = "TFDS has no data set 'cifar11'. The closest names are: cifar1"
    check_refused(train, ["--data", "cifar11"], message, capsys)
