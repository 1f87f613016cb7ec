"""Float64 NumPy references, written from the formulas and not from the implementation.

A kernel is an array `(..., filters)`, as Keras lays out those of dense layers and convolutions.
"""

import itertools

import numpy as np


def as_matrix(kernel):
    """The kernel in float64 as `(fan_in, filters)`."""
    kernel = np.asarray(kernel, dtype="float64")
    return kernel.reshape(-1, kernel.shape[-1])


def _divide(a, b):
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def equal_norm(kernel, alpha=1.0, per_filter=True, center=True):
    """Equations 20 to 23 of the ENC paper; filters without a direction become zero."""
    w = np.asarray(kernel, dtype="float64")
    axes = tuple(range(w.ndim - 1)) if per_filter else None
    parts = w.shape[-1] if per_filter else 1
    if center:
        w = w - np.mean(w, axis=axes, keepdims=True)
    length = np.sqrt(np.sum(w**2, axis=axes, keepdims=True))
    return np.sqrt(alpha / parts) * _divide(w, np.broadcast_to(length, w.shape))


def weight_norm(kernel, gain):
    """Every filter at the length that its gain names."""
    w = as_matrix(kernel)
    return (gain * _divide(w, np.ones_like(w) * np.linalg.norm(w, axis=0))).reshape(kernel.shape)


def weight_standardization(kernel):
    """Every filter with mean 0 and population variance 1."""
    w = as_matrix(kernel)
    return _divide(w - w.mean(axis=0), np.ones_like(w) * w.std(axis=0)).reshape(kernel.shape)


def sigma(kernel):
    """The largest singular value of the reshaped kernel."""
    return np.linalg.svd(as_matrix(kernel), compute_uv=False)[0]


def squared_sigma_gradient(kernel):
    """The gradient 2 sigma u v^T of sigma^2."""
    u, s, vt = np.linalg.svd(as_matrix(kernel), full_matrices=False)
    return (2 * s[0] * np.outer(u[:, 0], vt[0])).reshape(np.shape(kernel))


def convolution_bound(kernel):
    """Singla & Feizi's bound: root of the taps times the least norm of the reshapings."""
    w = np.asarray(kernel, dtype="float64")
    *spatial, _, filters = w.shape
    norms = []
    for size in range(len(spatial) + 1):
        for chosen in itertools.combinations(range(len(spatial)), size):
            moved = np.moveaxis(w, chosen, range(w.ndim - 1 - size, w.ndim - 1))
            columns = filters * int(np.prod([spatial[axis] for axis in chosen]))
            norms.append(np.linalg.norm(moved.reshape(-1, columns), 2))
    return np.sqrt(np.prod(spatial)) * min(norms)


def circular_convolution_norm(kernel, size):
    """Sedghi et al. 2019: the exact norm for circular padding on a square grid of side `size`."""
    w = np.asarray(kernel, dtype="float64")
    spatial = tuple(range(w.ndim - 2))
    spectrum = np.fft.fftn(w, s=[size] * len(spatial), axes=spatial)
    return np.linalg.svd(spectrum, compute_uv=False).max()


def operator_norm(convolution, input_shape):
    """The norm of a linear map, from its dense matrix: the images of all basis vectors."""
    basis = np.eye(int(np.prod(input_shape)))
    images = np.asarray(convolution(basis.reshape(-1, *input_shape)))
    return np.linalg.norm(images.reshape(len(basis), -1), 2)


def weissi(kernel, log_factor, l1_factor, epsilon):
    """The logarithm of the norm and the ratio of the norms, with epsilon in the square."""
    w = np.asarray(kernel, dtype="float64")
    norm = np.sqrt(np.sum(w**2) + epsilon)
    return log_factor * np.log(norm) + l1_factor * np.sum(np.abs(w)) / norm


def shifted_l2(kernel, factor, epsilon):
    """The sum over filters of (n-1) (s - epsilon)^2 + n mu^2; one entry has no deviation."""
    w = as_matrix(kernel)
    n = len(w)
    deviation = w.std(axis=0, ddof=1) if n > 1 else np.zeros(w.shape[1])
    return factor * np.sum((n - 1) * (deviation - epsilon) ** 2 + n * w.mean(axis=0) ** 2)


def shifted_l2_gradient(kernel, factor, epsilon):
    """The rule that the authors ship: 2 factor [(1 - epsilon / s)(w - mu) + mu]."""
    w = as_matrix(kernel)
    mean, deviation = w.mean(axis=0), w.std(axis=0, ddof=1)
    gradient = 2 * factor * ((1 - epsilon / deviation) * (w - mean) + mean)
    return gradient.reshape(np.shape(kernel))


def central_differences(function, x, step=1e-5):
    """The gradient of a scalar function, entry by entry.

    The error is step^2 f'''/6 + 1e-16 f/step: about 1e-10 for functions of order 1.
    """
    x = np.array(x, dtype="float64")
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        sides = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            sides.append(function(moved))
        gradient[index] = (sides[0] - sides[1]) / (2 * step)
    return gradient
