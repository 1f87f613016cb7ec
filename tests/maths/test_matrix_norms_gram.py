"""The spectral norm by squaring the Gram matrix, which accelerators use."""

import math

import keras
import numpy as np
import pytest
from keras import ops

import keras_gbr as gbr
from keras_gbr import regularizers
from keras_gbr.backend import on_accelerator
from keras_gbr.maths.convolution_bound import squared_convolution_bound
from keras_gbr.maths.matrix_norms import squared_spectral_norm
from support import oracles
from support.calls import (
    BACKEND,
    MODES,
    USUAL,
    in_double_precision,
    random_kernel,
    value_and_gradients,
)


def resnet50_kernels():
    """The shapes of the 54 kernels of ResNet-50."""
    shapes, inputs = [(7, 7, 3, 64)], 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        shapes.append((1, 1, inputs, 4 * width))
        for _ in range(blocks):
            shapes += [(1, 1, inputs, width), (3, 3, width, width), (1, 1, width, 4 * width)]
            inputs = 4 * width
    return [*shapes, (2048, 1000)]


def he_normal(shape, seed=0):
    scale = math.sqrt(2 / math.prod(shape[:-1]))
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype("float32")


def with_spectrum(rows, columns, values):
    """A matrix with given singular values along random directions."""
    u, _, vt = np.linalg.svd(random_kernel(rows, columns), full_matrices=False)
    return (u[:, : len(values)] * values) @ vt[: len(values)]


def exact(kernel):
    """The squared norm, from the eigenvalues of the Gram matrix in float64."""
    matrix = oracles.as_matrix(kernel)
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    return np.linalg.eigvalsh(tall.T @ tall)[-1]


def by_gram(matrix):
    return float(squared_spectral_norm(ops.convert_to_tensor(matrix), "gram"))


def test_the_kernels_are_those_of_keras():
    model = keras.applications.ResNet50(weights=None)
    shapes = [tuple(layer.kernel.shape) for layer in model.layers if hasattr(layer, "kernel")]
    assert sorted(shapes) == sorted(resnet50_kernels())


@pytest.mark.parametrize("shape", sorted(set(resnet50_kernels())))
def test_resnet50_kernels_are_solved(shape):
    kernel = he_normal(shape)
    value = by_gram(kernel.reshape(-1, shape[-1]))
    # The 2048th power leaves an error of 1e-6; sums in float32 round by about as much.
    assert value == pytest.approx(exact(kernel), rel=3e-6)


@in_double_precision
@pytest.mark.parametrize("shape", [(200, 150), (150, 200), (150, 150)])
@pytest.mark.parametrize("gap", [0.0, 1e-6, 1e-4, 1e-3, 1e-2, 0.1])
def test_a_cluster_of_leading_values_costs_less_than_one_in_a_thousand(shape, gap):
    matrix = with_spectrum(*shape, [1.0, *np.full(20, 1 - gap), *np.linspace(0.5, 0, 20)])
    value = by_gram(matrix)
    # Twenty times exp(-4096 * gap), times the gap, twice: at most 20 / (2048 * e).
    assert 1 - 4e-3 < value <= 1 + 1e-12
    if gap in (0.0, 1e-6, 1e-2, 0.1):
        assert value == pytest.approx(1.0, rel=3e-6)


# Rows with equal diagonal entries may be opposite: taken together, they would cancel.
SPECIAL = {
    "opposite columns": np.outer(random_kernel(50, 1), [1.0, -1.0]),
    "opposite rows": np.outer([1.0, -1.0, 1.0, -1.0], random_kernel(50, 1)),
    "signs": np.where(random_kernel(300, 200) > 0, 1.0, -1.0),
    "ones": np.ones((300, 300)),
    "equal singular values": np.eye(300),
    "one entry": np.pad([[2.0]], ((200, 100), (10, 190))),
    "rank 1": np.outer(random_kernel(500, 1), random_kernel(1, 200)),
    "one column": random_kernel(5000, 1),
}


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e14])
@pytest.mark.parametrize("name", SPECIAL)
def test_special_matrices_of_every_scale(name, scale):
    matrix = (SPECIAL[name] * scale).astype("float32")
    value = by_gram(matrix)
    expected = exact(matrix)
    if name == "signs":
        assert expected * 0.999 < value < expected * (1 + 1e-5)
    else:
        assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("matrix", [np.ones((1024, 1024)), np.eye(1024)])
def test_powers_of_the_largest_gram_matrices_stay_in_the_range_of_float32(matrix):
    # The leading eigenvalue is between the largest entry and 1024 times that.
    assert by_gram(matrix.astype("float32")) == pytest.approx(matrix.sum(axis=0)[0] ** 2, rel=1e-5)


def test_a_kernel_above_1024_on_both_sides_is_left_to_lanczos():
    matrix = he_normal((1100, 1025))
    value = by_gram(matrix)
    assert value == float(squared_spectral_norm(ops.convert_to_tensor(matrix), "lanczos"))


@in_double_precision
@pytest.mark.parametrize("shape", [(40, 30), (30, 40)])
def test_float64_has_the_gradient_of_the_exact_norm(shape):
    matrix = random_kernel(*shape)
    value, (slopes,) = value_and_gradients(lambda w: squared_spectral_norm(w, "gram"), matrix)
    assert value == pytest.approx(exact(matrix), rel=1e-12)
    expected = oracles.squared_sigma_gradient(matrix)
    np.testing.assert_allclose(slopes, expected, atol=1e-9 * np.abs(expected).max())


@in_double_precision
def test_gram_also_gives_the_bound_on_a_convolution():
    kernel = random_kernel(3, 3, 4, 5)
    value = float(squared_convolution_bound(ops.convert_to_tensor(kernel), "gram"))
    assert np.sqrt(value) == pytest.approx(oracles.convolution_bound(kernel), rel=1e-10)


def test_auto_is_lanczos_on_a_cpu_and_gram_on_an_accelerator(monkeypatch):
    kernel = ops.convert_to_tensor(he_normal((400, 300)))
    lanczos, gram = (float(gbr.Spectral(1.0, method)(kernel)) for method in ("lanczos", "gram"))
    assert lanczos != gram
    assert lanczos == pytest.approx(gram, rel=0.06)
    for there, expected in ((False, lanczos), (True, gram)):
        monkeypatch.setattr(regularizers, "on_accelerator", lambda x, there=there: there)
        assert float(gbr.Spectral(1.0)(kernel)) == expected


def test_a_saved_method_stays_what_it_was():
    config = gbr.Spectral(0.1).get_config()
    assert config["method"] == "auto"
    assert gbr.Spectral.from_config(config | {"method": "lanczos"}).method == "lanczos"


def test_where_tensors_and_variables_are():
    accelerated = "cpu" not in str(ops.ones(()).device).lower()
    variable = keras.Variable(np.ones((2, 3)))
    seen = []

    def function(x):
        seen.extend([on_accelerator(x), on_accelerator(variable)])
        return x

    assert on_accelerator(variable) == on_accelerator(ops.ones((2, 3))) == accelerated
    MODES[USUAL](function)(ops.ones((2, 3)))
    assert seen == [accelerated, accelerated]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Only TensorFlow has a graph to count.")
def test_the_graph_of_all_of_resnet50_is_small():
    import tensorflow as tf

    kernels = [tf.Variable(tf.zeros(shape)) for shape in resnet50_kernels()]
    regularizer = gbr.Spectral(0.01, method="gram")

    @tf.function
    def value_and_slopes():
        with tf.GradientTape() as tape:
            total = sum(regularizer(kernel) for kernel in kernels)
        return total, tape.gradient(total, kernels)

    assert len(kernels) == 54
    # Lanczos makes 24,548: the compiler takes minutes for them, and a GPU a launch for each.
    assert len(value_and_slopes.get_concrete_function().graph.get_operations()) < 4500
