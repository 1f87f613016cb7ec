"""Datasets of other packages, which Keras and the measures take under every backend."""

import pytest


def tf_data(*arrays, size, is_length_known=True):
    """A `tf.data.Dataset` of batches of the arrays, of one alone or of tuples."""
    tf = pytest.importorskip("tensorflow")
    arrays = arrays[0] if len(arrays) == 1 else arrays
    dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(size)
    return dataset if is_length_known else dataset.filter(lambda *_: True)


def data_loader(*arrays, size, is_length_known=True):
    """A `DataLoader` of batches of the arrays, as lists."""
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(*map(torch.as_tensor, arrays))
    if not is_length_known:

        class Stream(torch.utils.data.IterableDataset):
            def __iter__(self, rows=dataset):
                return iter(rows)

        dataset = Stream()
    return torch.utils.data.DataLoader(dataset, batch_size=size)


def grain_data(*arrays, size, is_length_known=True):
    """A dataset of `grain`, of batches of the arrays, of one alone or of tuples."""
    grain = pytest.importorskip("grain")

    class Source:
        def __len__(self):
            return len(arrays[0])

        def __getitem__(self, index):
            row = tuple(array[index] for array in arrays)
            return row[0] if len(row) == 1 else row

    dataset = grain.MapDataset.source(Source()).batch(size)
    return dataset if is_length_known else dataset.to_iter_dataset()


MAKERS = {"tf.data": tf_data, "DataLoader": data_loader, "grain": grain_data}
