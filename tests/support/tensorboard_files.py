"""What TensorBoard finds in a folder."""


def tags(folder):
    """The names of what was written."""
    import tensorflow as tf

    found = set()
    for path in folder.iterdir():
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            found |= {value.tag for value in event.summary.value}
    return found
