"""Times the pipeline of examples/train.py beside the training step that it feeds.

python benchmarks/pipeline.py
"""

import sys
from pathlib import Path

from side_by_side import keras, np, run

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))

from recipes.batches import Batches
from recipes.networks import build
from recipes.order import index_batches, order
from recipes.training import Trainee

BATCH, SAMPLES, CLASSES = 256, 10_240, 10


def images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (SAMPLES, 32, 32, 3), dtype="uint8")
    return pixels, rng.integers(0, CLASSES, SAMPLES).astype("int32")


def trainee(network):
    model = Trainee(build(network, (32, 32, 3), CLASSES), Batches(CLASSES, images(), [], True))
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    return model


def cifar():
    """The pipeline of small images alone, and training with it: steps of 256 images, TensorFlow."""
    import tensorflow as tf

    batches = Batches(CLASSES, images(), [], True)
    made = tf.function(lambda indices: batches((indices,), training=True))
    indices = tf.constant(order(SAMPLES, BATCH, 0, 0)[0])
    variants = {"pipeline": lambda: made(indices)[0].numpy()}
    for network in ("resnet8", "resnet20"):
        model = trainee(network)
        model.evaluate(np.zeros((1, 32, 32, 3)), np.eye(CLASSES)[:1], verbose=0)
        function = model.make_train_function()
        step = iter(index_batches(SAMPLES, BATCH, 0, range(10_000)))
        variants[f"step of {network}"] = lambda f=function, s=step: f(s)["loss"].numpy()
    return variants


def epoch():
    """An epoch of `fit`, and its compiled steps called alone: ResNet-8, 40 steps, TensorFlow."""
    model = trainee("resnet8")
    model.evaluate(np.zeros((1, 32, 32, 3)), np.eye(CLASSES)[:1], verbose=0)
    function = model.make_train_function()
    ready = [(each,) for each in order(SAMPLES, BATCH, 0, 0)]

    def steps():
        import tensorflow as tf

        for batch in ready:
            logs = function(iter([tuple(map(tf.constant, batch))]))
        return logs["loss"].numpy()

    def fit():
        model.fit(
            index_batches(SAMPLES, BATCH, 0, range(2)),
            shuffle=False,
            verbose=0,
            steps_per_epoch=len(ready),
        )

    return {"compiled steps": steps, "epoch of fit": fit}


def crops():
    """Random crops of 64 JPEGs of 500 x 375 pixels: only the crop decoded, and everything."""
    import tensorflow as tf
    from recipes import streams

    smooth = np.random.default_rng(0).random((64, 12, 16, 3)).astype("float32")
    large = tf.cast(255 * tf.image.resize(smooth, (375, 500), "bicubic"), tf.uint8)
    encoded = tf.stack([tf.io.encode_jpeg(image) for image in large])
    labels = tf.zeros(64, tf.int32)
    dataset = tf.data.Dataset.from_tensor_slices({"image": encoded, "label": labels}).enumerate()

    def part(index, example):
        return streams._training_image(224, 0, index, example)

    def everything(index, example):
        pixels = tf.io.decode_jpeg(example["image"])
        drawn = tf.stack([tf.constant(0, tf.int64), index])
        begin, shape, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(pixels),
            tf.zeros((1, 0, 4)),
            drawn,
            min_object_covered=0.0,
            area_range=streams.AREA,
            use_image_if_no_bounding_boxes=True,
        )
        return streams._resized(tf.slice(pixels, begin, shape), 224)

    def reading(change):
        mapped = dataset.map(change, tf.data.AUTOTUNE).batch(64)
        return lambda: list(mapped)

    return {"only the crop": reading(part), "everything": reading(everything)}


if __name__ == "__main__":
    run(
        __doc__.splitlines()[0],
        {"cifar": (cifar, 20), "epoch": (epoch, 7), "crops": (crops, 7)},
    )
