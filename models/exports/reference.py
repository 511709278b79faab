"""The operators in float64, as far as the cases need them: what the marks in `cases.json` are checked against."""

import itertools

import numpy as np

DEFAULTS = {
    "iterations": 5,
    "centered": 1,
    "correction": 0,
    "epsilon": 0.0,
    "normalization": "trace",
    "compensated": 1,
    "vectorization": "upper",
    "off_diagonal_scale": 1.0,
    "layout": "channels_first",
}


def evaluate(operator, attributes, x):
    """The operator's output for a feature map (or, for MatrixSqrt, for matrices)."""
    if operator == "CovariancePooling":
        attributes = {"vectorization": "none", **attributes}
    a = {**DEFAULTS, **attributes}
    x = np.asarray(x, dtype=np.float64)
    if operator == "MatrixSqrt":
        return root(x + a["epsilon"] * np.eye(x.shape[-1]), a)
    if a["layout"] == "channels_last":
        x = np.moveaxis(x, -1, 1)
    x = x.reshape(x.shape[0], x.shape[1], -1)
    m = x.shape[2]
    if a["centered"]:
        x = x - x.mean(axis=2, keepdims=True)
    sigma = x @ x.transpose(0, 2, 1) / (m - a["correction"]) + a["epsilon"] * np.eye(x.shape[1])
    return vectorize(root(sigma, a) if operator == "IsqrtCov" else sigma, a)


def root(sigma, a):
    """Pre-normalisation, K coupled steps, post-compensation."""
    if a["normalization"] == "trace":
        t = np.trace(sigma, axis1=1, axis2=2)[:, None, None]
    else:
        t = np.linalg.norm(sigma, axis=(1, 2), keepdims=True)
    y, z = sigma / t, np.broadcast_to(np.eye(sigma.shape[-1]), sigma.shape)
    for _ in range(a["iterations"]):
        step = 0.5 * (3.0 * np.eye(sigma.shape[-1]) - z @ y)
        y, z = y @ step, step @ z
    return y * np.sqrt(t) if a["compensated"] else y


def vectorize(s, a):
    """The entries written, in their order."""
    c = s.shape[-1]
    s = s * np.where(np.eye(c) > 0, 1.0, a["off_diagonal_scale"])
    if a["vectorization"] == "none":
        return s
    rows, columns = np.triu_indices(c)
    if a["vectorization"] == "upper_column_major":
        columns, rows = np.tril_indices(c)
    return s[:, rows, columns]


def distance(found, expected):
    """max |found − expected| relative to max |expected|; the shapes may differ in trailing ones or a flattening."""
    expected = np.asarray(expected, dtype=np.float64)
    if found.size != expected.size:
        return np.inf
    difference = np.abs(np.asarray(found, dtype=np.float64).reshape(expected.shape) - expected)
    return float(difference.max() / np.abs(expected).max())


def nearest(x, output):
    """How near the nearest IsqrtCov comes to `output`, over every attribute but ε."""
    best = (np.inf, None)
    for iterations, centered, correction, normalization, compensated, vectorization, scale, layout in itertools.product(
        range(1, 9),
        (0, 1),
        (0, 1),
        ("trace", "frobenius"),
        (0, 1),
        ("upper", "upper_column_major", "none"),
        (1.0, 2.0**0.5),
        ("channels_first", "channels_last"),
    ):
        attributes = {
            "iterations": iterations,
            "centered": centered,
            "correction": correction,
            "normalization": normalization,
            "compensated": compensated,
            "vectorization": vectorization,
            "off_diagonal_scale": scale,
            "layout": layout,
        }
        c = x.shape[-1 if layout == "channels_last" else 1]
        if output[0].size != (c * c if vectorization == "none" else c * (c + 1) // 2):
            continue
        best = min(best, (distance(output, evaluate("IsqrtCov", attributes, x)), attributes), key=lambda pair: pair[0])
    return best
