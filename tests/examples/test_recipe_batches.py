"""The batches of train.py: which images come when, and what becomes of them."""

import numpy as np
import pytest

from support.calls import assert_close, assert_equal, to_numpy

COUNT = 40


@pytest.fixture
def numbered(recipe):
    """Images that are each a class of its own, so that a label tells which images it mixes."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 12, 3), dtype="uint8")
    split = pixels, np.arange(COUNT, dtype="int32")
    return recipe("datasets").Images("numbered", COUNT, split, split)


@pytest.fixture
def batch_of(recipe):
    """A function: images, methods -> the batch of all images in their order."""

    def batch(images, methods, pad_crop=False, training=True):
        parts = recipe("methods").combined(methods, [])
        batches = recipe("batches").Batches(images.classes, images.train, parts, pad_crop)
        indices = np.arange(images.num_train, dtype="int32")
        return [to_numpy(part) for part in batches((indices,), training=training)]

    return batch


def box_of(mask):
    """Height and width of the rectangle that a mask is."""
    rows, columns = mask.any(1), mask.any(0)
    assert_equal(mask, np.outer(rows, columns))
    for side in (rows, columns):
        assert np.count_nonzero(np.diff(np.flatnonzero(side)) > 1) == 0
    return np.array([rows.sum(), columns.sum()])


def test_crops_are_windows_of_the_padded_images(recipe):
    x = np.random.default_rng(1).random((200, 4, 4, 2)).astype("float32") + 1
    layer = recipe("batches").PadCrop(1)
    cropped = to_numpy(layer(x, training=True))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    found = set()
    for before, after in zip(padded, cropped, strict=True):
        places = [
            (i, j)
            for i in range(3)
            for j in range(3)
            if np.array_equal(before[i : i + 4, j : j + 4], after)
        ]
        assert len(places) == 1
        found.update(places)
    assert len(found) == 9
    assert_equal(layer(x), x)


def test_a_batch_is_made_of_indices(recipe, images):
    batches = recipe("batches").Batches(images.classes, images.train, [], pad_crop=False)
    indices = np.array([7, 0, 7, 39], "int32")
    x, y = (to_numpy(part) for part in batches((indices,), training=True))
    assert_close(x, images.train[0][indices] / 255, atol=1e-7)
    assert_equal(y, np.eye(images.classes)[images.train[1][indices]])


def test_images_change_in_training_only(numbered, batch_of):
    methods = ["cutout", "cutmix", "mixup"]
    x, y = batch_of(numbered, methods, pad_crop=True, training=False)
    assert_close(x, numbered.train[0] / 255, atol=1e-7)
    assert_equal(y, np.eye(COUNT))
    changed, _ = batch_of(numbered, methods, pad_crop=True)
    assert (changed != x).any((1, 2, 3)).all()


def test_mixup_mixes_pixels_by_the_weights_of_the_labels(numbered, batch_of):
    x, y = batch_of(numbered, ["mixup:alpha=1.0"])
    assert_close(y.sum(1), np.ones(COUNT), atol=1e-6)
    assert (y.max(1) < 0.95).sum() > COUNT / 2
    assert_close(x, np.tensordot(y, numbered.train[0] / 255, 1), atol=1e-5)


def test_cutmix_weighs_labels_by_the_area_of_the_box(numbered, batch_of):
    x, y = batch_of(numbered, ["cutmix"])
    assert_close(y.sum(1), np.ones(COUNT), atol=1e-6)
    pixels, mixed = numbered.train[0] / 255, 0
    for index, (image, label) in enumerate(zip(x, y, strict=True)):
        partners = [number for number in np.flatnonzero(label) if number != index]
        assert len(partners) <= 1
        taken = np.abs(image - pixels[index]).max(-1) > 1e-6
        if not partners:
            assert not taken.any()
            continue
        assert_close(image[taken], pixels[partners[0]][taken], atol=1e-6)
        # The sides of Keras' box are no whole pixels: each has less than one more or less.
        sides = np.sqrt(label[partners[0]]) * np.array(taken.shape)
        assert (np.abs(box_of(taken) - sides) < 1.001).all() or sides.min() < 1
        mixed += taken.any()
    assert mixed > COUNT / 2


def test_cutout_hides_a_box_of_its_share(numbered, batch_of):
    x, y = batch_of(numbered, ["cutout:share=0.3"])
    places = set()
    for image, before in zip(x, numbered.train[0] / 255, strict=True):
        hidden = (image == 0.5).all(-1)
        assert_close(image[~hidden], before[~hidden], atol=1e-7)
        assert (np.abs(box_of(hidden) - np.sqrt(0.3) * np.array(hidden.shape)) < 1.001).all()
        places.add(tuple(np.argwhere(hidden)[0]))
    assert len(places) > COUNT / 4
    assert_equal(y, np.eye(COUNT))


def test_the_order_is_of_seed_and_epoch(recipe):
    order = recipe("order").order
    first = order(10, 4, seed=3, epoch=5)
    assert first.shape == (2, 4)
    assert len(set(first.ravel().tolist())) == 8
    assert_equal(order(10, 4, 3, 5), first)
    assert (order(10, 4, 3, 6) != first).any()
    assert (order(10, 4, 4, 5) != first).any()


def test_later_epochs_are_those_of_the_whole_training(recipe):
    batches = recipe("order")
    wanted = [batches.order(10, 4, 0, epoch) for epoch in (2, 3)]
    found = [to_numpy(part[0]) for part in batches.index_batches(10, 4, 0, range(2, 4))]
    assert_equal(np.stack(found), np.concatenate(wanted))
