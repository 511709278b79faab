"""The machine that the numbers come from, and what the library's own kernels can do on it."""

import json
import os
import platform
import subprocess
import sys
import time

import onnxruntime

from artefacts import ROOT


def processor() -> str:
    """The CPU's name as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except FileNotFoundError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def kernels(sizes: list[tuple[int, int]]) -> dict:
    """What the kernels' own benchmark says: `instructions`, the `peak` in GFLOP/s, and the `operations` of each size.

    The peak is that of the innermost kernel on one thread; the operations are those that a sample needs at least.
    """
    # All members at once, as they were built: alone, this one would be built again in their place.
    command = ["cargo", "bench", "--quiet", "--workspace", "--bench", "cpu", "--", "--json"]
    command += [f"{channels}/{positions}" for channels, positions in sizes]
    answer = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    said = json.loads(answer.stdout)
    operations = {(size["channels"], size["positions"]): size["operations"] for size in said["sizes"]}
    return {"instructions": said["instructions"], "peak": said["peak"], "operations": operations}


def is_quiet() -> bool:
    """Whether nothing else computes, and a warning if not: two threads on two cores then measure the scheduler."""
    before = busy_seconds()
    time.sleep(1)
    quiet = before is None or busy_seconds() - before < 0.2
    if not quiet:
        print("warning: something else is running on this machine; the times will not be worth much", file=sys.stderr)
    return quiet


def busy_seconds() -> float | None:
    """The seconds that all cores together have computed since the start, where the system tells."""
    try:
        with open("/proc/stat", encoding="utf-8") as file:
            user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    except FileNotFoundError:
        return None
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def description() -> dict:
    """The machine and what runs on it, for the results."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }
