"""Images of many sizes that do not fit in memory: TFDS sets such as ImageNet, by tf.data."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from common.images import Split, tfds_builder

AREA = (0.08, 1.0)  # of an image that a training crop has
ASPECT = (3 / 4, 4 / 3)
CENTRAL = 0.875  # of the shorter side that a test crop has
_BUFFER = 10_000  # encoded images that are shuffled together
_READ = 500  # images in a part


def has_many_sizes(name: str) -> bool:
    """Whether a TFDS set has images of many sizes.

    Raises:
        ValueError: See `tfds_builder`.
    """
    return None in tfds_builder(name).info.features["image"].shape


@dataclass(frozen=True)
class Stream:
    """A TFDS set whose images are decoded when they are needed.

    Training images are random crops, resized and flipped (Szegedy et al. 2014,
    https://arxiv.org/abs/1409.4842); test images are central crops. Only the crop of a JPEG is
    decoded. Random numbers and order depend only on seed and epoch.

    Args:
        name: Name of the set.
        size: Height and width of the images.
        samples: At most so many training images, or `None` for all.
    """

    name: str
    size: int
    samples: int | None = None

    # What `Batches` keeps on the device.
    kept = None

    @functools.cached_property
    def _builder(self) -> Any:
        import tensorflow as tf

        if keras.backend.backend() != "tensorflow":
            tf.config.set_visible_devices([], "GPU")  # It only reads.
        return tfds_builder(self.name)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self._builder.info.features["label"].num_classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.size, self.size, 3

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return int(self._encoded("train").cardinality())

    def batches(self, batch_size: int, seed: int, epochs: range) -> Any:
        """The batches of some epochs: uint8 images `(batch_size, size, size, 3)`, and labels."""
        import tensorflow as tf

        count = self.num_train // batch_size * batch_size
        parts = [self._epoch(seed, epoch).take(count) for epoch in epochs]
        dataset = functools.reduce(lambda one, other: one.concatenate(other), parts)
        change = functools.partial(_training_image, self.size, seed)
        dataset = dataset.enumerate(epochs.start * count).map(
            change, tf.data.AUTOTUNE, deterministic=True
        )
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        dataset = dataset.batch(batch_size, drop_remainder=True).with_options(options)
        return dataset.prefetch(tf.data.AUTOTUNE)

    def parts(self, split: str, count: int | None = None) -> Iterator[Split]:
        """Central crops of the first images of a split, in parts: uint8 images and labels.

        Args:
            split: "train" or "test".
            count: How many images; all by default.
        """
        import tensorflow as tf

        change = functools.partial(_test_image, self.size)
        dataset = self._encoded(split).take(-1 if count is None else count)
        dataset = dataset.map(change, tf.data.AUTOTUNE, deterministic=True).batch(_READ)
        yield from dataset.prefetch(1).as_numpy_iterator()

    def first(self, split: str, count: int) -> Split:
        """The first images of a split as arrays."""
        images, labels = zip(*self.parts(split, count), strict=True)
        return np.concatenate(images), np.concatenate(labels)

    def validation(self) -> Any:
        """The test images as floats in [0, 1] with one-hot labels, as `fit` takes them."""
        import tensorflow as tf

        def change(example: Any) -> Any:
            image, label = _test_image(self.size, example)
            return tf.cast(image, tf.float32) / 255.0, tf.one_hot(label, self.classes)

        dataset = self._encoded("test").map(change, tf.data.AUTOTUNE, deterministic=True)
        return dataset.batch(_READ).prefetch(1)

    def _epoch(self, seed: int, epoch: int) -> Any:
        import tensorflow_datasets as tfds

        own = int(np.random.default_rng((seed, epoch)).integers(2**31))
        config = tfds.ReadConfig(shuffle_seed=own, shuffle_reshuffle_each_iteration=False)
        dataset = self._encoded("train", shuffle_files=True, read_config=config)
        return dataset.shuffle(_BUFFER, own, reshuffle_each_iteration=False)

    def _encoded(self, split: str, **how: Any) -> Any:
        import tensorflow_datasets as tfds

        splits = self._builder.info.splits
        if split == "test":
            split = "test" if "test" in splits and "validation" not in splits else "validation"
        elif self.samples:
            split = f"train[:{self.samples}]"
        decoders = {"image": tfds.decode.SkipDecoding()}
        dataset = self._builder.as_dataset(split=split, decoders=decoders, **how)
        return dataset.map(lambda each: {name: each[name] for name in ("image", "label")})


def _training_image(size: int, seed: int, index: Any, example: Any) -> Any:
    """A random crop, resized and flipped, and the label; `index` counts over all epochs."""
    import tensorflow as tf

    drawn = tf.random.experimental.stateless_split(tf.stack([tf.cast(seed, tf.int64), index]), 2)
    begin, shape, _ = tf.image.stateless_sample_distorted_bounding_box(
        _shape(example["image"]),
        tf.zeros((1, 0, 4)),
        drawn[0],
        min_object_covered=0.0,
        aspect_ratio_range=ASPECT,
        area_range=AREA,
        use_image_if_no_bounding_boxes=True,
    )
    image = _resized(_crop(example["image"], begin[0], begin[1], shape[0], shape[1]), size)
    return tf.image.stateless_random_flip_left_right(image, drawn[1]), _label(example)


def _test_image(size: int, example: Any) -> Any:
    """The square in the middle, resized, and the label."""
    import tensorflow as tf

    height, width, _ = tf.unstack(_shape(example["image"]))
    shorter = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.maximum(tf.cast(tf.round(CENTRAL * shorter), tf.int32), 1)
    crop = _crop(example["image"], (height - side) // 2, (width - side) // 2, side, side)
    return _resized(crop, size), _label(example)


def _shape(encoded: Any) -> Any:
    """Height, width and channels of an encoded image."""
    import tensorflow as tf

    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded),
        lambda: tf.shape(_decoded(encoded)),
    )


def _crop(encoded: Any, top: Any, left: Any, height: Any, width: Any) -> Any:
    """The crop of an encoded image; of a JPEG only that part is decoded."""
    import tensorflow as tf

    def jpeg() -> Any:
        # The colours of a column are interpolated from those of the columns beside it.
        begin = tf.maximum(left - 1, 0)
        end = tf.minimum(left + width + 1, tf.io.extract_jpeg_shape(encoded)[1])
        window = tf.stack([top, begin, height, end - begin])
        pixels = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
        return pixels[:, left - begin : left - begin + width]

    return tf.cond(
        tf.io.is_jpeg(encoded),
        jpeg,
        lambda: _decoded(encoded)[top : top + height, left : left + width],
    )


def _decoded(encoded: Any) -> Any:
    import tensorflow as tf

    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _resized(image: Any, size: int) -> Any:
    import tensorflow as tf

    image = tf.image.resize(image, (size, size), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def _label(example: Any) -> Any:
    import tensorflow as tf

    return tf.cast(example["label"], tf.int32)
