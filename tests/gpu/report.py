"""The results as a table and as JSON."""

import json
from pathlib import Path

NOTES = """\
Microseconds a run of the whole batch, float32: medians of rounds in turns, by the device's clock over runs that follow each other unwaited. \
`graph` is the decomposed graph in ONNX Runtime's CUDA provider, the faster of two (centered by a matrix or by subtracting the mean), as it comes: \
there cuBLAS rounds to TF32; `graph fp32` is the latter with `use_tf32` off. `node` is the converted model there, `node captured` the same with \
`enable_cuda_graph`, `graph captured` the fp32 graph likewise, and `graph captured TF32` the faster of the two as they come; `clusters` and `clusters captured` \
are the converted model with ISQRT_COV_CLUSTERS=1. \
`eager` is the authors' code in PyTorch, `cuBLAS captured` the same mathematics with \
baddbmm in a CUDA graph; both with TF32 off. `waited` is how long a caller waits for one run of `node` and of `graph`. TFLOP/s are the operations \
that the layer needs at least, bytes those of its input and output, both over the shorter time of `node` and `node captured`; their shares are of \
what a product of 8192×8192 matrices (fp32) and a copy reach in the same run. A run of one node has one number to change the sign of: that much of every \
other time in ONNX Runtime is its own. Errors are the greatest difference from float64, relative to the greatest \
entry."""

COLUMNS = ["C/M", "batch", "graph", "graph fp32", "graph captured", "graph captured TF32", "node", "node captured", "clusters", "clusters captured"]
COLUMNS += ["eager", "cuBLAS captured"]
COLUMNS += ["graph / node", "fp32 / node", "cuBLAS / node, captured", "graph TF32 / node, captured", "eager / node", "TFLOP/s", "of fp32", "GB/s", "of copy"]
COLUMNS += ["waited: node, graph", "error graph, fp32", "error node"]
# Those that fit on a screen.
BRIEF = ["C/M", "batch", "graph", "graph fp32", "graph captured TF32", "node", "node captured", "clusters", "clusters captured", "cuBLAS captured"]
BRIEF += ["graph / node", "fp32 / node", "cuBLAS / node, captured", "graph TF32 / node, captured", "TFLOP/s", "error node"]


def heading(results: dict) -> str:
    machine, ceilings = results["machine"], results.get("ceilings", {})
    rates = [
        f"{name} {ceilings[key] / unit:.3g} {word}"
        for key, name, unit, word in (
            ("fp32_flops", "fp32", 1e12, "TFLOP/s"),
            ("tf32_flops", "TF32", 1e12, "TFLOP/s"),
            ("copy_bytes_per_s", "copy", 1e12, "TB/s"),
            ("run_s", "a run of one node", 1e-6, "µs"),
            ("captured_run_s", "captured", 1e-6, "µs"),
        )
        if key in ceilings
    ]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    measured = f" Measured: {', '.join(rates)}." if rates else ""
    return f"{machine['gpu']}, driver {machine['driver']}; {versions}; {results['date']}.{measured}"


def rows(results: dict) -> list[list[str]]:
    ceilings = results["ceilings"]
    made = []
    for case in sorted(results["measurements"], key=lambda case: (case["batch"], -case["channels"], -case["positions"])):
        subjects = case["subjects"]

        def time(*names: str, key: str = "median_us", subjects=subjects) -> float | None:
            return min((subjects[name][key] for name in names if name in subjects), default=None)

        def error(*names: str, subjects=subjects) -> str:
            return ", ".join(f"{subjects[name]['error']:.1e}" for name in names if name in subjects)

        tf32 = time("matrix captured TF32", "mean captured TF32")
        graph, node, best = time("matrix", "mean"), time("converted"), time("converted", "converted captured")
        flops, moved = (case[key] / best * 1e6 if best else None for key in ("operations", "bytes"))
        waited = time("converted", key="waited_us"), time("matrix", "mean", key="waited_us")
        made.append(
            [
                f"{case['channels']}/{case['positions']}",
                str(case["batch"]),
                *map(digits, (graph, time("mean fp32"), time("mean captured"), tf32, node, time("converted captured"))),
                *map(digits, (time("clusters"), time("clusters captured"), time("eager"))),
                digits(time("cuBLAS captured")),
                ratio(graph, node),
                ratio(time("mean fp32"), node),
                ratio(time("cuBLAS captured"), time("converted captured") or node),
                ratio(tf32, time("converted captured") or node),
                ratio(time("eager"), node),
                digits(flops and flops / 1e12),
                share(flops, ceilings["fp32_flops"]),
                digits(moved and moved / 1e9),
                share(moved, ceilings["copy_bytes_per_s"]),
                ", ".join(map(digits, waited)),
                error("mean", "mean fp32"),
                error("converted"),
            ]
        )
    return made


def digits(number: float | None) -> str:
    """Three digits, or all before the point."""
    if number is None:
        return "–"
    return f"{number:.3g}" if number < 1000 else f"{number:.0f}"


def ratio(slow: float | None, fast: float | None) -> str:
    return f"**{digits(slow / fast)}**" if slow and fast else "–"


def share(reached: float | None, ceiling: float) -> str:
    return f"{100 * reached / ceiling:.0f} %" if reached else "–"


def table(results: dict, columns: list[str] | None = None) -> str:
    """The measurements, with all columns or with some, as a Markdown table that is aligned for the terminal."""
    chosen = [COLUMNS.index(name) for name in columns or COLUMNS]
    cells = [[row[i] for i in chosen] for row in [COLUMNS, *rows(results)]]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)


def save(results: dict, folder: Path) -> None:
    """Writes what there is so far."""
    folder.mkdir(parents=True, exist_ok=True)
    # By renaming: the process may be ended here.
    new = folder / "results.json.new"
    new.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    new.replace(folder / "results.json")
    if results.get("measurements"):
        text = f"{heading(results)}\n\n{table(results)}\n\n{NOTES}\n"
        (folder / "table.md").write_text(text, encoding="utf-8")
