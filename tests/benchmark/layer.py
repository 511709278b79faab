"""The layer in ONNX Runtime: two decomposed graphs and the converted one, at many sizes, batches and threads."""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import onnx

import artefacts
import graphs
import machine
import reference
import report
from measure import Subject, interleave, session_options

# C and M: those that the design names, then large ones.
SIZES = [(256, 196), (256, 49), (128, 196), (64, 784), (512, 196), (2048, 49), (2048, 196), (64, 3136)]
THREADS = [1, 2]
BATCHES = [1, 8]
# A batch of training's size is measured at the published size only.
LARGE_BATCH = ((256, 196), 64)

# From this many channels on, the exporter takes ten minutes or more: it decomposes covariances and iterates in float64.
LARGE = 2048
# The float64 reference of a sample takes many seconds there.
REFERENCE_SAMPLES = {False: 8, True: 1}


def main() -> None:
    args = arguments()
    quiet = machine.is_quiet()
    sizes = args.size or SIZES
    kernels = machine.kernels(sizes)
    results = {
        "machine": machine.description(),
        "quiet": quiet,
        "date": time.strftime("%Y-%m-%d"),
        "instructions": kernels["instructions"],
        "peak_gflops": kernels["peak"],
        "measurements": [],
    }
    print(report.heading(results), flush=True)
    for channels, positions in sizes:
        by_exporter = channels < LARGE or args.convert_large
        models = prepare(channels, positions, by_exporter)
        for batch in batches(args, channels, positions):
            for threads in args.threads or THREADS:
                show(f"{channels}/{positions}, batch {batch}, threads {threads}: measuring")
                found = measure(models, channels, positions, batch, threads, args.budget)
                found["gflops"] = kernels["operations"][channels, positions] / found["converted"]["min_ms"] / 1e6
                found["by_exporter"] = by_exporter
                found["share_of_peak"] = found["gflops"] / kernels["peak"] / threads
                results["measurements"].append(found)
                if args.output:
                    report.save(results, args.output)
    show("")
    print(report.table(results))
    if args.output:
        report.write(results, args.output)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/benchmark/run", description=__doc__)
    parser.add_argument("--size", type=size, action="append", metavar="C/M", help="measure this size; may be repeated")
    parser.add_argument("--batch", type=int, action="append", metavar="N", help="with this batch; may be repeated")
    parser.add_argument("--threads", type=int, action="append", metavar="N", help="on this many threads; may be repeated")
    parser.add_argument("--budget", type=float, metavar="S", help="seconds for each measurement [default: 5]")
    parser.add_argument("--quick", action="store_true", help="a look: a second each, at the sizes with few channels")
    parser.add_argument(
        "--convert-large",
        action="store_true",
        help=f"convert from {LARGE} channels on too, for ten minutes or more each, instead of writing the node",
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write results.json, table.md and ratio.svg there")
    args = parser.parse_args()
    if args.quick and not args.size:
        args.size = [size for size in SIZES if size[0] < LARGE]
    args.budget = args.budget or (1.0 if args.quick else 5.0)
    return args


def size(text: str) -> tuple[int, int]:
    channels, positions = text.split("/")
    return int(channels), int(positions)


def batches(args: argparse.Namespace, channels: int, positions: int) -> list[int]:
    large = [LARGE_BATCH[1]] if (channels, positions) == LARGE_BATCH[0] and not args.quick else []
    return args.batch or BATCHES + large


def prepare(channels: int, positions: int, by_exporter: bool) -> dict[str, Path]:
    """The files of the decomposed graphs, and of the first of them converted, or what it would become."""
    models = {
        centering: save(f"{channels}-{positions}-{centering}", graphs.layer_model(channels, positions, centering))
        for centering in graphs.CENTERINGS
    }
    if not by_exporter:
        models["converted"] = save(f"{channels}-{positions}-operator", graphs.operator_model(channels, positions))
        return models
    show(f"{channels}/{positions}: converting")
    models["converted"] = artefacts.converted(models[graphs.CENTERINGS[0]])
    # A Reshape in front may stay.
    kinds = {node.op_type for node in onnx.load(models["converted"]).graph.node}
    assert "IsqrtCov" in kinds <= {"IsqrtCov", "Reshape"}, f"{models['converted']}: it became {', '.join(kinds)}"
    return models


def save(name: str, model: onnx.ModelProto) -> Path:
    """The model's file; one that is there already and the same keeps its time, so that it is not converted again."""
    path = artefacts.CACHE / "layer" / f"{name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    made = model.SerializeToString()
    if not path.exists() or path.read_bytes() != made:
        path.write_bytes(made)
    return path


def measure(
    models: dict[str, Path], channels: int, positions: int, batch: int, threads: int, budget: float
) -> dict:
    """The times of a sample and the errors of the models, side by side."""
    # What a network's last ReLU gives.
    shape = (batch, channels, *graphs.extent(positions))
    x = np.maximum(np.random.default_rng(0).standard_normal(shape), 0).astype(np.float32)
    subjects = {
        name: Subject.load(path, x, session_options(threads, artefacts.LIBRARY if name == "converted" else None))
        for name, path in models.items()
    }
    interleave(list(subjects.values()), threads, budget)
    expected = reference.evaluate("IsqrtCov", x[: REFERENCE_SAMPLES[channels >= LARGE]])
    found: dict = {"channels": channels, "positions": positions, "batch": batch, "threads": threads}
    for name, subject in subjects.items():
        per_sample = 1e3 / batch * np.array(subject.times)
        error = np.abs(subject.output.numpy()[: len(expected)] - expected).max() / np.abs(expected).max()
        found[name] = {
            "median_ms": float(np.median(per_sample)),
            "min_ms": float(per_sample.min()),
            "runs": len(per_sample),
            "error": float(error),
        }
    for kind in ("median", "min"):
        best = min(found[centering][f"{kind}_ms"] for centering in graphs.CENTERINGS)
        found[f"ratio_{kind}"] = best / found["converted"][f"{kind}_ms"]
    return found


def show(text: str) -> None:
    """What is being done, on a line that the next replaces."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
