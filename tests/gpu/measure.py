"""Checks and measures the operator on a GPU. See `run_on_gpu`."""

import argparse
import hashlib
import json
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

import onnxruntime

PACKAGES = {"PyTorch": "torch", "cuBLAS": "nvidia-cublas", "NumPy": "numpy", "onnx": "onnx"}


def main() -> None:
    args = arguments()
    start = time.monotonic()
    if not args.rehearse:
        onnxruntime.preload_dlls()
    import correctness
    import report
    import runtime
    import sizes
    import timing
    from device import Device, Host

    device = Host() if args.rehearse else Device()
    # Where the provider is not there at all, say so once.
    runtime.session(device, runtime.node_model("IsqrtCov", "float32", 3, {}))
    file = args.output / "results.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    results.update(date=time.strftime("%Y-%m-%d"), machine=machine(device, runtime.LIBRARY))
    print(report.heading(results), flush=True)
    wanted = sizes.CASES
    if args.size:
        wanted = [(size, batch) for size in args.size for batch in args.batch or sizes.BATCHES]
    elif args.batch:
        wanted = [(size, batch) for size, batch in wanted if batch in args.batch]
    seed = args.seed if args.seed is not None else time.time_ns() % 2**32
    results["seed"] = seed
    left = args.seconds - (time.monotonic() - start)
    if args.part == "correctness":
        results["correctness"] = correctness.run(device, left, seed)
    else:
        timing.run(device, left, seed, wanted, results, lambda: report.save(results, args.output))
    report.save(results, args.output)
    if args.part == "timing" and results["measurements"]:
        print(report.heading(results))
        print(report.table(results, report.BRIEF), flush=True)
    if args.part == "correctness" and results["correctness"]["failed"]:
        raise SystemExit(1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="measure.py", description=__doc__)
    parser.add_argument("part", choices=["correctness", "timing"])
    parser.add_argument("--seconds", type=float, default=120, metavar="S", help="what is less important is left out [default: 120]")
    parser.add_argument("--size", type=size, action="append", metavar="C/M", help="time this size; may be repeated")
    parser.add_argument("--batch", type=int, action="append", metavar="N", help="with this batch; may be repeated")
    parser.add_argument("--seed", type=int, metavar="N", help="of the inputs [default: another one each time]")
    parser.add_argument("--output", type=Path, default=Path("results"), metavar="FOLDER", help="for results.json and table.md")
    parser.add_argument("--rehearse", action="store_true", help="on the host, without a GPU and without PyTorch")
    return parser.parse_args()


def size(text: str) -> tuple[int, int]:
    channels, positions = text.split("/")
    return int(channels), int(positions)


def machine(device, library: Path) -> dict:
    """The machine and what runs on it, for the results."""
    versions = {"ONNX Runtime": onnxruntime.__version__}
    for name, package in PACKAGES.items():
        try:
            versions[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    gpu, driver = "no GPU", "none"
    if device.torch:
        asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
        try:
            answer = subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout
            gpu, driver = (word.strip() for word in answer.strip().split(",")[:2])
        except (OSError, ValueError, subprocess.SubprocessError):
            gpu, driver = device.torch.cuda.get_device_name(0), "unknown"
        versions["CUDA"] = device.torch.version.cuda
    revision = Path(__file__).with_name("revision")
    return {
        "gpu": gpu,
        "driver": driver,
        "versions": versions,
        "python": platform.python_version(),
        "system": platform.platform(),
        "revision": revision.read_text(encoding="utf-8").strip() if revision.exists() else "unknown",
        "library_sha256": hashlib.sha256(library.read_bytes()).hexdigest(),
    }


if __name__ == "__main__":
    main()
