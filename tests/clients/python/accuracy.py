"""How far the operator and the decomposed graphs are from float64 in this interpreter's ONNX Runtime.

Takes the operator library, and prints a JSON list with an object for each size and kind of features: the greatest deviation,
relative to the greatest entry, of the graphs that center by a `matrix` and by a `mean`, and of the `operator`.
"""

import json
import sys

import numpy as np
import onnxruntime

import graphs
import reference

# C and M: few and many channels, and for each of them both sides of the point where the Gram matrix becomes cheaper.
CHANNELS = [1, 2, 3, 7, 16, 33, 64, 100, 128, 200, 256, 300]
POSITIONS = [2, 9, 49, 100, 196, 300]


def features(channels, positions, random):
    """Feature maps C×M by kind, with spectra from flat to a single eigenvalue."""

    def normal(*shape):
        return random.standard_normal(shape or (channels, positions))

    def falling(least):
        rotation = np.linalg.qr(normal(channels, channels))[0]
        return rotation @ (np.geomspace(1, least, channels)[:, None] * normal())

    def relu(x):
        return np.maximum(x, 0)

    column, row = normal(channels, 1), normal(1, positions)
    return {
        "flat": normal(),
        "ReLU": relu(normal()),
        "sparse ReLU": relu(normal() - 1.5),
        "small ReLU": 1e-3 * relu(normal()),
        "far from zero": normal() + 10,
        "falling to 1e-2": falling(1e-2),
        "falling to 1e-4": falling(1e-4),
        "rank three": normal(channels, 3) @ normal(3, positions),
        "nearly rank one": column @ row + 1e-3 * normal(),
        "rank one": column @ row,
        "rank one ReLU": relu(column) @ relu(row),
    }


def session(model, library=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if library:
        options.register_custom_ops_library(library)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def errors(channels, positions, library):
    """An object for each kind of features of one size."""
    kinds = features(channels, positions, np.random.default_rng([channels, positions]))
    # The graphs divide by the trace: of a map that is constant in every channel they make NaN.
    kinds = {kind: x for kind, x in kinds.items() if np.ptp(x, axis=1).any()}
    x = np.stack(list(kinds.values())).astype(np.float32).reshape(-1, channels, *graphs.extent(positions))
    sessions = {name: session(graphs.layer_model(channels, positions, name)) for name in graphs.CENTERINGS}
    sessions["operator"] = session(graphs.operator_model(channels, positions), library)
    expected = reference.evaluate("IsqrtCov", x)
    found = [{"channels": channels, "positions": positions, "features": kind} for kind in kinds]
    for name, one in sessions.items():
        deviations = np.abs(one.run(None, {"x": x})[0] - expected).max(axis=1) / np.abs(expected).max(axis=1)
        for entry, deviation in zip(found, deviations):
            entry[name] = float(deviation)
    return found


def main():
    (library,) = sys.argv[1:]
    found = [errors(channels, positions, library) for channels in CHANNELS for positions in POSITIONS]
    print(json.dumps([entry for entries in found for entry in entries]))


if __name__ == "__main__":
    main()
