"""The results as a table, as a plot, and as JSON."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402  pylint: disable=wrong-import-position

NOTES = """\
Milliseconds a sample; `matrix` and `mean` are the decomposed graphs that center by a matrix and by subtracting the mean. The
ratio is that of the faster of the two to the converted model. GFLOP/s are the operations that the layer needs at least,
over the minimum; the peak is that of the library's innermost kernel, times the threads. Errors are the greatest difference
from float64, relative to the greatest entry. The speed-up is the converted model's on one thread over its own on several, by
the medians."""
NOT_CONVERTED = "The benchmark wrote the node at {} itself: the exporter is slow on so many channels."


def heading(results: dict) -> str:
    machine = results["machine"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {results['instructions']}, "
        f"peak {results['peak_gflops']:.0f} GFLOP/s a core; ONNX Runtime {machine['onnxruntime']}, "
        f"its threads spinning as they do by default; {results['date']}"
        f"{'' if results['quiet'] else '; something else ran meanwhile'}"
    )


def notes(results: dict) -> str:
    """What the columns mean."""
    by_hand = {f"{m['channels']}/{m['positions']}": None for m in results["measurements"] if not m["by_exporter"]}
    return NOTES + ("\n" + NOT_CONVERTED.format(" and ".join(by_hand)) if by_hand else "")


def table(results: dict) -> str:
    """The measurements as a Markdown table, aligned for the terminal."""
    header = ["C/M", "batch", "threads", "matrix median (min)", "mean median (min)", "converted median (min)"]
    header += ["ratio (min)", "GFLOP/s", "of peak", "error matrix, mean", "error converted", "speed-up"]
    rows = [header]
    for found in results["measurements"]:
        models = [found[name] for name in ("matrix", "mean", "converted")]
        faster = speedup(results, found)
        rows.append(
            [
                f"{found['channels']}/{found['positions']}",
                str(found["batch"]),
                str(found["threads"]),
                *(f"{digits(model['median_ms'])} ({digits(model['min_ms'])})" for model in models),
                f"{found['ratio_median']:.3g} ({found['ratio_min']:.3g})",
                f"{found['gflops']:.0f}",
                f"{100 * found['share_of_peak']:.0f} %",
                ", ".join(f"{model['error']:.1e}" for model in models[:2]),
                f"{models[2]['error']:.1e}",
                f"{faster:.2f}" if faster else "",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)


def digits(number: float) -> str:
    """Three digits, or all before the point."""
    return f"{number:.3g}" if number < 1000 else f"{number:.0f}"


def speedup(results: dict, found: dict) -> float | None:
    """The converted model's time on one thread over that of `found`, if both were measured."""
    same = ("channels", "positions", "batch")
    for other in results["measurements"]:
        if found["threads"] > 1 == other["threads"] and all(found[key] == other[key] for key in same):
            return other["converted"]["median_ms"] / found["converted"]["median_ms"]
    return None


def plot(results: dict, path: Path) -> None:
    """The ratio against C, with M beside the points, for each number of threads."""
    # Text stays text, and the same numbers give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "isqrt-cov", "font.size": 9})
    measurements = results["measurements"]
    threads = sorted({found["threads"] for found in measurements})
    # The batch that most sizes were measured with.
    batches = [found["batch"] for found in measurements]
    batch = max(sorted(set(batches), reverse=True), key=batches.count)
    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for count, marker in zip(threads, "osD^"):
        chosen = [found for found in measurements if (found["threads"], found["batch"]) == (count, batch)]
        axes.plot(
            [found["channels"] for found in chosen],
            [found["ratio_median"] for found in chosen],
            linestyle="none",
            marker=marker,
            markersize=5,
            label=f"{count} thread{'s' * (count > 1)}",
        )
        if count == threads[0]:
            for found in chosen:
                point = (found["channels"], found["ratio_median"])
                axes.annotate(f"M = {found['positions']}", point, (6, -3), textcoords="offset points", fontsize=8)
    channels = sorted({found["channels"] for found in measurements})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(channels, [str(c) for c in channels])
    axes.set_xlim(channels[0] / 1.3, channels[-1] * 1.6)
    axes.yaxis.set_major_formatter("{x:g}×")
    axes.set_xlabel("channels C")
    axes.set_ylabel("decomposed / converted, time")
    axes.set_title(f"{results['machine']['processor']}, batch {batch}", fontsize=9)
    axes.grid(True, which="major", linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def save(results: dict, folder: Path) -> None:
    """Writes what has been measured so far."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")


def write(results: dict, folder: Path) -> None:
    """Writes all that there is to say at the end."""
    save(results, folder)
    (folder / "table.md").write_text(f"{heading(results)}\n\n{table(results)}\n\n{notes(results)}\n")
    plot(results, folder / "ratio.svg")
