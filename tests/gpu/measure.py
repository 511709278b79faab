"""Checks and measures the operator on a GPU. See `run_on_gpu`."""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import onnxruntime

# The status of a process whose device has failed for good.
FAILED = 75
# The most processes, one after the other, in which times are measured, and the seconds below which none is begun.
PROCESSES = 8
LEAST = 10
# What measuring adds to the results, beside the device's ceilings.
MEASURED = {"measurements": [], "begun": [], "no_time": [], "not_measured": []}

PACKAGES = {"PyTorch": "torch", "cuBLAS": "nvidia-cublas", "NumPy": "numpy", "onnx": "onnx"}


def main() -> None:
    args = arguments()
    if args.part == "timing" and not args.worker:
        raise SystemExit(supervise(args))
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
    if not results.get("begun"):
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
        part = "clusters" if os.environ.get("ISQRT_COV_CLUSTERS") == "1" else "correctness"
        results[part] = correctness.run(device, left, seed)
    elif not timing.run(device, left, seed, wanted, results, lambda: report.save(results, args.output)):
        # The libraries would only fail again when they clean up.
        sys.stdout.flush()
        os._exit(FAILED)
    report.save(results, args.output)
    if args.part == "correctness" and results[part]["failed"]:
        raise SystemExit(1)


def supervise(args: argparse.Namespace) -> int:
    """Measures times in another process, and in a new one where that has failed: the case that it was at is then left out."""
    import report

    end = time.monotonic() + args.seconds
    file = args.output / "results.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    results.pop("ceilings", None)
    results.update(MEASURED)
    report.save(results, args.output)
    status, begun = 1, 0
    for _ in range(PROCESSES):
        left = end - time.monotonic()
        if left < LEAST:
            break
        # Of an option that is given twice, the last one counts.
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", "--seconds", f"{left:.0f}"]
        try:
            status = subprocess.run(command, check=False, timeout=left + 20).returncode
        except subprocess.TimeoutExpired:
            print("    the process hangs", flush=True)
        results = json.loads(file.read_text(encoding="utf-8"))
        if status == 0 or len(results["begun"]) == begun:
            break
        begun = len(results["begun"])
        print(f"    status {status}: another process goes on", flush=True)
    done = {f"{case['channels']}/{case['positions']} batch {case['batch']}" for case in results["measurements"]}
    results["not_measured"] = [label for label in results.pop("begun") if label not in done]
    report.save(results, args.output)
    if results["measurements"]:
        print(report.heading(results))
        print(report.table(results, report.BRIEF), flush=True)
    for name in ("not_measured", "no_time"):
        if results[name]:
            print(f"{name.replace('_', ' ')}: {'; '.join(results[name])}", flush=True)
    nodes = [subject for case in results["measurements"] for name, subject in case["subjects"].items() if name.startswith(("converted", "clusters"))]
    holds = bool(nodes) and all(subject["complete"] and subject["same_bits"] is not False for subject in nodes)
    return int(status != 0 or bool(results["not_measured"]) or not holds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="measure.py", description=__doc__)
    parser.add_argument("part", choices=["correctness", "timing"])
    parser.add_argument("--seconds", type=float, default=120, metavar="S", help="what is less important is left out [default: 120]")
    parser.add_argument("--size", type=size, action="append", metavar="C/M", help="time this size; may be repeated")
    parser.add_argument("--batch", type=int, action="append", metavar="N", help="with this batch; may be repeated")
    parser.add_argument("--seed", type=int, metavar="N", help="of the inputs [default: another one each time]")
    parser.add_argument("--output", type=Path, default=Path("results"), metavar="FOLDER", help="for results.json and table.md")
    parser.add_argument("--rehearse", action="store_true", help="on the host, without a GPU and without PyTorch")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
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
