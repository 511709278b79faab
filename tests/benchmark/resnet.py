"""A whole network in ONNX Runtime before and after conversion: its time, and the layer's share of it.

A ResNet-50 as the layer's authors have it: the last stage keeps its 14×14 positions, a 1×1 convolution reduces 2048
channels to 256, and the layer's 32896 numbers are classified. The weights are random: the time does not depend on them.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx

import artefacts
import graphs
import machine
from measure import Subject, interleave, session_options

# Width, blocks and stride of each stage.
STAGES = [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 1)]
EXPANSION = 4
REDUCED = 256
POSITIONS = 14 * 14
CLASSES = 1000
# The names of the layer's nodes begin with this, and so do those that the runtime's optimizer and the exporter make of them.
LAYER = "layer/"


def main() -> None:
    args = arguments()
    quiet = machine.is_quiet()
    batch_shape = (args.batch, 3, 224, 224)
    x = np.random.default_rng(1).standard_normal(batch_shape).astype(np.float32)
    before = model_file()
    print("converting", flush=True)
    after = artefacts.converted(before)
    results = {"machine": machine.description(), "quiet": quiet, "batch": args.batch, "measurements": []}
    print(f"{results['machine']['processor']}, ONNX Runtime {results['machine']['onnxruntime']}, batch {args.batch}")
    for threads in args.threads or [1, 2]:
        found = measure({"decomposed": before, "converted": after}, x, threads, args.budget)
        results["measurements"].append(found)
        print(line(found), flush=True)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "resnet.json").write_text(json.dumps(results, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/benchmark/run resnet", description=__doc__)
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images in a run [default: 1]")
    parser.add_argument("--threads", type=int, action="append", metavar="N", help="on this many threads; may be repeated")
    parser.add_argument("--budget", type=float, default=20.0, metavar="S", help="seconds for each measurement [default: 20]")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write resnet.json there")
    return parser.parse_args()


def model_file() -> Path:
    """The network's file, made once."""
    path = artefacts.CACHE / "resnet50.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        onnx.save(Network().model(), unfinished)
        unfinished.rename(path)
    return path


class Network:
    """The network as a graph, its batch norms folded into the convolutions."""

    def __init__(self) -> None:
        self.graph = graphs.Graph("trunk/")
        self.random = np.random.default_rng(0)

    def model(self) -> onnx.ModelProto:
        graph = self.graph
        x = self.relu(self.convolution("x", 3, 64, 7, stride=2))
        x = graph.add("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
        channels = 64
        for width, blocks, stride in STAGES:
            for block in range(blocks):
                x = self.bottleneck(x, channels, width, stride if block == 0 else 1)
                channels = width * EXPANSION
        x = self.relu(self.convolution(x, channels, REDUCED, 1))
        graph.prefix = LAYER
        features = graphs.layer(graph, x, REDUCED, POSITIONS, "matrix")
        graph.prefix = "classifier/"
        inputs = REDUCED * (REDUCED + 1) // 2
        weight, bias = self.weight((inputs, CLASSES), 1 / inputs), self.weight((CLASSES,), 0.01)
        graph.add("Gemm", features, weight, bias, output="y")
        return graph.model(["batch", 3, 224, 224], ["batch", CLASSES])

    def bottleneck(self, x: str, channels: int, width: int, stride: int) -> str:
        """torchvision's: 1×1, 3×3 with the stride, 1×1, and the input added, itself convolved where its size changes."""
        out = width * EXPANSION
        y = self.relu(self.convolution(x, channels, width, 1))
        y = self.relu(self.convolution(y, width, width, 3, stride))
        # A small residual keeps the numbers in range without training.
        y = self.convolution(y, width, out, 1, gain=0.1)
        if channels != out:
            x = self.convolution(x, channels, out, 1, stride)
        return self.relu(self.graph.add("Add", y, x))

    def convolution(self, x: str, channels: int, out: int, side: int, stride: int = 1, gain: float = 1.0) -> str:
        weight = self.weight((out, channels, side, side), gain * 2 / (channels * side**2))
        bias = self.weight((out,), 0.01)
        return self.graph.add("Conv", x, weight, bias, kernel_shape=[side] * 2, pads=[side // 2] * 4, strides=[stride] * 2)

    def relu(self, x: str) -> str:
        return self.graph.add("Relu", x)

    def weight(self, shape: tuple, variance: float) -> str:
        return self.graph.constant(self.random.standard_normal(shape, np.float32) * np.float32(variance**0.5))


def measure(models: dict[str, Path], x: np.ndarray, threads: int, budget: float) -> dict:
    """The times of a run without a profile, and the layer's share from profiled runs."""

    def options(name: str):
        return session_options(threads, artefacts.LIBRARY if name == "converted" else None)

    subjects = {name: Subject.load(path, x, options(name)) for name, path in models.items()}
    interleave(list(subjects.values()), threads, budget)
    outputs = [subject.output.numpy() for subject in subjects.values()]
    found = {"threads": threads, "difference": float(np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[0]).max())}
    for name, subject in subjects.items():
        times = 1e3 * np.array(subject.times)
        found[name] = {"median_ms": float(np.median(times)), "min_ms": float(times.min()), "runs": len(times)}
    del subjects
    with tempfile.TemporaryDirectory() as folder:
        profiled = {}
        for name, path in models.items():
            chosen = options(name)
            chosen.enable_profiling = True
            chosen.profile_file_prefix = f"{folder}/{name}"
            profiled[name] = Subject.load(path, x, chosen)
        interleave(list(profiled.values()), threads, budget / 2)
        for name, subject in profiled.items():
            found[name].update(shares(Path(subject.session.end_profiling())))
    return found


def shares(profile: Path) -> dict:
    """The layer's milliseconds in a run, and its share of the whole run, by the runtime's own profile."""
    of_layer, runs = [], []
    for event in json.loads(profile.read_text(encoding="utf-8")):
        if event["cat"] == "Session" and event["name"] == "model_run":
            runs.append(event["dur"])
        elif event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            if event["name"].startswith(LAYER):
                of_layer.append(event["dur"])
    return {
        "layer_ms": sum(of_layer) / len(runs) / 1e3,
        "layer_share": sum(of_layer) / sum(runs),
    }


def line(found: dict) -> str:
    before, after = found["decomposed"], found["converted"]

    def timed(run: dict) -> str:
        share = f"the layer {run['layer_ms']:.2f} ms, {100 * run['layer_share']:.2f} %"
        return f"{run['median_ms']:.1f} ms a run (least {run['min_ms']:.1f}), {share}"

    threads = f"{found['threads']} thread{'s' * (found['threads'] > 1)}"
    return f"{threads}: {timed(before)}; converted {timed(after)}; outputs differ by {found['difference']:.1e}"


if __name__ == "__main__":
    main()
