"""The operators in float64, from the paper's equations and nothing of the library's own code.

Li, Xie, Wang, Gao, "Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square Root
Normalization", CVPR 2018: equations (2) to (7).
"""

import numpy as np

DEFAULTS = {
    "iterations": 5,
    "centered": 1,
    "correction": 0,
    "epsilon": 0.0,
    "normalization": "trace",
    "compensated": 1,
    "off_diagonal_scale": 1.0,
    "layout": "channels_first",
}
VECTORIZATION = {"IsqrtCov": "upper", "CovariancePooling": "none", "MatrixSqrt": "none"}


def evaluate(operator, x, **given):
    """The output of `operator` for the array `x`, with the attributes `given`."""
    attributes = {**DEFAULTS, "vectorization": VECTORIZATION[operator], **given}
    samples = [sample(operator, one, attributes) for one in np.asarray(x, np.float64)]
    return np.stack(samples)


def sample(operator, x, attributes):
    if operator == "MatrixSqrt":
        sigma = x + attributes["epsilon"] * np.eye(len(x))
    else:
        sigma = covariance(x, attributes)
    root = sigma if operator == "CovariancePooling" else square_root(sigma, attributes)
    return vectorize(root, attributes)


def covariance(x, attributes):
    if attributes["layout"] == "channels_last":
        x = np.moveaxis(x, -1, 0)
    x = x.reshape(len(x), -1)
    m = x.shape[1]
    # The centring matrix, with 1/M taken out in front as the divisor.
    j = np.eye(m) - np.ones((m, m)) / m if attributes["centered"] else np.eye(m)
    sigma = x @ j @ x.T / (m - attributes["correction"])
    return sigma + attributes["epsilon"] * np.eye(len(x))


def square_root(sigma, attributes):
    t = np.trace(sigma) if attributes["normalization"] == "trace" else np.sqrt((sigma**2).sum())
    identity = np.eye(len(sigma))
    y, z = sigma / t, identity
    for _ in range(attributes["iterations"]):
        half = 0.5 * (3 * identity - z @ y)
        y, z = y @ half, half @ z
    return y * np.sqrt(t) if attributes["compensated"] else y


def vectorize(matrix, attributes):
    scale = attributes["off_diagonal_scale"]
    scaled = matrix * (scale + (1 - scale) * np.eye(len(matrix)))
    if attributes["vectorization"] == "none":
        return scaled
    if attributes["vectorization"] == "upper":
        return scaled[np.triu_indices(len(matrix))]
    return scaled.T[np.tril_indices(len(matrix))]
