"""What large files cost the exporter: time and memory of `inspect` and `convert`, by nodes and by gigabytes of weights.

The networks have the layer at their end. Many nodes are a trunk of small residual blocks; many weights are wide blocks of
squeeze and excitation, whose input is a single vector, so that running the network stays cheap: what is measured is the
exporter's own work. Weights are written as they are made, a matrix at a time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto

import artefacts
import graphs
import machine

CHANNELS, SIDE = 8, 8
# A wide block's matrix is WIDTH×WIDTH: 64 MiB.
WIDTH = 4096
# The layer's nodes, and those of a residual block.
LAYER_NODES, BLOCK_NODES = 34, 6
MATRIX_BYTES = 4 * WIDTH**2
# The child is started from a small process: a child's peak counts from the size of the process that it was forked from.
MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
try:
    status = subprocess.run(sys.argv[2:], timeout=float(sys.argv[1]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    code, said = status.returncode, status.stdout.decode(errors="replace")[-300:]
except subprocess.TimeoutExpired:
    code, said = None, "stopped: it took too long"
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
import json
print(json.dumps({"seconds": seconds, "peak_kib": peak, "status": code, "said": said}))
"""


@dataclass(frozen=True)
class Size:
    """A network's size: about so many nodes, and so many matrices of wide blocks, beside the graph or in it."""

    nodes: int
    matrices: int = 0
    inline: bool = False

    def name(self) -> str:
        weights = f", {self.matrices * MATRIX_BYTES / 1e9:.1f} GB {'inline' if self.inline else 'external'}"
        return f"{self.nodes} nodes" + (weights if self.matrices else "")


def main() -> None:
    args = arguments()
    sizes = [Size(nodes) for nodes in (args.nodes or ([] if args.external or args.inline else [1000, 10_000, 100_000]))]
    chosen = [(size, False) for size in args.external or []] + [(size, True) for size in args.inline or []]
    if not (args.nodes or chosen):
        chosen = [(0.1, False), (1.0, False), (3.0, False), (1.5, True)]
    sizes += [Size(200, max(1, round(size * 1e9 / MATRIX_BYTES)), inline) for size, inline in chosen]
    results = {
        "machine": machine.description(),
        "quiet": machine.is_quiet(),
        "limit_s": args.limit,
        "options": args.options,
        "measurements": [],
    }
    print(f"{'network':28} {'file':>9}  {'command':8} {'time':>9} {'per node':>10} {'memory':>9} {'of file':>8}")
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            model = Path(folder) / "model.onnx"
            nodes = write(size, model)
            stored = sum(path.stat().st_size for path in Path(folder).iterdir())
            found = {"nodes": nodes, "bytes": stored, "weights": kind(size)}
            for command in ("inspect", "convert"):
                options = ["-o", str(model.with_name("converted.onnx"))] if command == "convert" else []
                run = [str(args.exporter), command, str(model), "--json", *options, *args.options]
                found[command] = measured(run, args.limit)
                print(line(size, found, command), flush=True)
            results["measurements"].append(found)
        if args.output:
            args.output.mkdir(parents=True, exist_ok=True)
            (args.output / "large.json").write_text(json.dumps(results, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/benchmark/run large", description=__doc__, epilog="Without a size, all of the usual ones are measured."
    )
    size = {"action": "append", "type": float, "metavar": "GB"}
    parser.add_argument("--nodes", action="append", type=int, metavar="N", help="a network of about N nodes; may be repeated")
    parser.add_argument("--external", help="a network with so many gigabytes beside it; may be repeated", **size)
    parser.add_argument("--inline", help="the same with its weights in the file, at most 2 GB; may be repeated", **size)
    parser.add_argument("--limit", type=float, default=600.0, metavar="S", help="seconds for each run [default: 600]")
    parser.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="where the networks are written [default: temporary files]"
    )
    parser.add_argument(
        "--exporter", type=Path, default=artefacts.EXPORTER, metavar="FILE", help="another build of the exporter"
    )
    parser.add_argument("options", nargs="*", metavar="-- OPTION", help="passed on to the exporter, such as --runtime")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write large.json there")
    return parser.parse_args()


def kind(size: Size) -> str:
    return "none" if not size.matrices else "inline" if size.inline else "external"


def measured(command: list[str], limit: float) -> dict:
    """Wall time and peak resident memory of a command."""
    wrapper = [sys.executable, "-S", "-E", "-c", MEASURE, str(limit), *command]
    found = json.loads(subprocess.run(wrapper, check=True, stdout=subprocess.PIPE).stdout)
    said = found.pop("said")
    return {**found, **({"said": said} if found["status"] != 0 else {})}


def line(size: Size, found: dict, command: str) -> str:
    run = found[command]
    peak = 1024 * run["peak_kib"]
    text = f"{size.name():28} {found['bytes'] / 1e6:6.1f} MB  {command:8} {run['seconds']:7.2f} s "
    text += f"{1e6 * run['seconds'] / found['nodes']:7.0f} µs {peak / 1e6:6.0f} MB {peak / found['bytes']:7.1f}×"
    return text + (f"  {run['said'][-160:].strip()}" if run["status"] != 0 else "")


def write(size: Size, path: Path) -> int:
    """Writes the network and returns how many nodes it has."""
    network = Network()
    model = network.model(size)
    wide = [f"wide/{number}" for number in range(size.matrices)]
    if size.inline:
        write_inline(model, wide, path)
    else:
        if wide:
            write_external(model, wide, path)
        path.write_bytes(model.SerializeToString())
    return len(model.graph.node)


class Network:
    """[batch, 8, 8, 8] → [batch, 36]: residual blocks, wide blocks, the layer."""

    def __init__(self) -> None:
        self.graph = graphs.Graph("trunk/")
        self.random = np.random.default_rng(0)

    def model(self, size: Size) -> ModelProto:
        x = "x"
        for number in range(size.matrices):
            x = self.wide(x, f"wide/{number}")
        blocks = max(1, (size.nodes - LAYER_NODES - len(self.graph.nodes)) // BLOCK_NODES)
        for _ in range(blocks):
            x = self.residual(x, blocks)
        self.graph.prefix = "layer/"
        graphs.layer(self.graph, x, CHANNELS, SIDE**2, "matrix", output="y")
        return self.graph.model(["batch", CHANNELS, SIDE, SIDE], ["batch", CHANNELS * (CHANNELS + 1) // 2])

    def residual(self, x: str, blocks: int) -> str:
        """1×1, 3×3 by channel, 1×1 and the input added, as in an inverted bottleneck.

        All blocks together add about as much as comes in: the layer's input must not be a large mean with small deviations.
        """
        y = self.relu(self.convolution(x, (CHANNELS, CHANNELS, 1, 1), 1))
        y = self.graph.add("Clip", self.convolution(y, (CHANNELS, 1, 3, 3), CHANNELS), "", self.six())
        y = self.convolution(y, (CHANNELS, CHANNELS, 1, 1), 1, gain=1 / blocks)
        return self.graph.add("Add", y, x)

    def wide(self, x: str, weight: str) -> str:
        """Squeeze and excitation with far too wide a middle."""
        graph = self.graph
        y = graph.add("Flatten", graph.add("GlobalAveragePool", x), axis=1)
        y = graph.add("Gemm", y, self.weight((CHANNELS, WIDTH), 0.1), self.weight((WIDTH,), 0.01))
        y = graph.add("MatMul", self.relu(y), weight)
        # The gates stand open, or many of them would leave nothing.
        y = graph.add("Gemm", y, self.weight((WIDTH, CHANNELS), 1e-6), graph.constant(np.full(CHANNELS, 6, np.float32)))
        y = graph.add("Sigmoid", y)
        y = graph.add("Reshape", y, graph.constant(np.array([-1, CHANNELS, 1, 1])))
        return graph.add("Mul", x, y)

    def convolution(self, x: str, shape: tuple, groups: int, gain: float = 1.0) -> str:
        weight = self.weight(shape, gain / np.prod(shape[1:]))
        side = shape[2]
        bias = self.weight((shape[0],), 0.01 * gain)
        return self.graph.add("Conv", x, weight, bias, group=groups, kernel_shape=[side] * 2, pads=[side // 2] * 4)

    def relu(self, x: str) -> str:
        return self.graph.add("Relu", x)

    def six(self) -> str:
        return self.graph.constant(np.float32(6.0))

    def weight(self, shape: tuple, variance: float) -> str:
        return self.graph.constant(self.random.standard_normal(shape, np.float32) * np.float32(variance**0.5))


def matrices(names: list[str]):
    """Each wide block's matrix as bytes, no two alike."""
    base = np.random.default_rng(1).standard_normal((WIDTH, WIDTH), np.float32) * np.float32(1 / WIDTH)
    for number, name in enumerate(names):
        yield name, np.roll(base, number, axis=1).tobytes()


def described(name: str) -> TensorProto:
    """The matrix without its numbers."""
    return TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])


def write_external(model: ModelProto, names: list[str], path: Path) -> None:
    """Writes the matrices beside the model, and says in it where they are."""
    with open(path.with_suffix(".onnx.data"), "wb") as file:
        for name, data in matrices(names):
            tensor = described(name)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in {"location": f"{path.name}.data", "offset": file.tell(), "length": len(data)}.items():
                tensor.external_data.add(key=key, value=str(value))
            model.graph.initializer.append(tensor)
            file.write(data)


def write_inline(model: ModelProto, names: list[str], path: Path) -> None:
    """Writes the model with the matrices in it, in Protocol Buffers' own encoding, a matrix at a time."""

    def head(field: int, length: int) -> bytes:
        return bytes([field << 3 | 2]) + varint(length)

    graph = model.graph.SerializeToString()
    rest = ModelProto()
    rest.CopyFrom(model)
    rest.ClearField("graph")
    tensors = []
    for name in names:
        # Field 9 of a tensor is its raw data, field 5 of a graph an initializer, field 7 of a model its graph.
        start = described(name).SerializeToString() + head(9, MATRIX_BYTES)
        tensors.append(head(5, len(start) + MATRIX_BYTES) + start)
    length = len(graph) + sum(len(start) + MATRIX_BYTES for start in tensors)
    with open(path, "wb") as file:
        file.write(rest.SerializeToString() + head(7, length) + graph)
        for start, (_, data) in zip(tensors, matrices(names), strict=True):
            file.write(start)
            file.write(data)


def varint(number: int) -> bytes:
    """A number in groups of seven bits, the last group without the high bit."""
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


if __name__ == "__main__":
    main()
