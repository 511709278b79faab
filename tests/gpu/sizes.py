"""The sizes that are measured, what they need at least, and their models.

As a script, `sizes.py EXPORTER FOLDER`: converts the decomposed graphs with the command `isqrt-cov`, where they are not too large.
"""

import subprocess
import sys
from pathlib import Path

# C and M.
SIZES = [(256, 196), (256, 49), (128, 196), (64, 784), (512, 196), (2048, 49)]
BATCHES = [1, 8, 32, 128]
# In the order of their importance: where the time is over, what is left is not measured.
CASES = [
    *((size, 32) for size in SIZES[:2]),
    *((size, 1) for size in SIZES[:2]),
    *((size, 32) for size in SIZES[2:5]),
    *((size, batch) for batch in (8, 128) for size in SIZES[:2]),
    *((size, 1) for size in SIZES[2:]),
    *((size, batch) for batch in (8, 128) for size in SIZES[2:5]),
    *((SIZES[5], batch) for batch in BATCHES[1:]),
]
# From this many channels on the exporter takes minutes.
LARGE = 2048
# The products of a program of five steps (`op/src/program/fitted.rs`).
PRODUCTS = 5


def operations(channels: int, positions: int) -> float:
    """What the layer needs at least on a sample, as `op/benches/cpu.rs` counts: two for a multiplication and an addition, and half
    of a product where it is symmetric."""
    c, m = float(channels), float(positions)
    direct = c * c * m + PRODUCTS * c**3
    gram = m * m * c + PRODUCTS * m**3 + 2 * m * m * c + c * c * m
    return min(direct, gram)


def traffic(channels: int, positions: int) -> float:
    """The bytes of a sample that are read and written at least, in float32."""
    return 4.0 * (channels * positions + channels * (channels + 1) // 2)


def convert(exporter: str, folder: Path) -> None:
    import graphs
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    for channels, positions in SIZES:
        if channels >= LARGE:
            continue
        graph = folder / f"{channels}-{positions}.graph.onnx"
        onnx.save(graphs.layer_model(channels, positions, "matrix"), graph)
        output = folder / f"{channels}-{positions}.onnx"
        subprocess.run([exporter, "convert", graph, "-o", output], check=True, stdout=subprocess.DEVNULL)
        graph.unlink()


if __name__ == "__main__":
    convert(sys.argv[1], Path(sys.argv[2]))
