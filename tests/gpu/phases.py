"""Each launch of a run as Nsight Compute saw it: `phases.py TITLE CSV MARKDOWN` prints a table and adds it to a file."""

import csv
import sys
from pathlib import Path

COLUMNS = {
    "gpu__time_duration.sum": "time",
    "launch__registers_per_thread": "registers",
    "launch__shared_mem_per_block_dynamic": "shared memory",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "of the SMs",
    "dram__bytes.sum": "memory",
}


def main() -> None:
    title, source, target = sys.argv[1:]
    # Before the table come lines of the profiler and of the program.
    lines = [line for line in Path(source).read_text(encoding="utf-8").splitlines() if line.startswith('"')]
    header, units, *launches = csv.reader(lines)
    place = {name: header.index(name) for name in COLUMNS if name in header}
    rows = [["launch", "grid", "block", *(COLUMNS[name] for name in place)]]
    for launch in launches:
        cells = dict(zip(header, launch))
        measured = [f"{shortened(launch[i])} {units[i]}".strip() for i in place.values()]
        rows.append([cells.get("Kernel Name", "?"), cells.get("Grid Size", ""), cells.get("Block Size", ""), *measured])
    widths = [max(map(len, column)) for column in zip(*rows)]
    table = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    table.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    text = "\n".join([title, "", *table, "", *total(launches, header, units), ""])
    print(text, flush=True)
    with open(target, "a", encoding="utf-8") as file:
        file.write(text + "\n")


def total(launches: list[list[str]], header: list[str], units: list[str]) -> list[str]:
    """The launches' times together."""
    column = header.index("gpu__time_duration.sum")
    try:
        times = [float(launch[column].replace(",", "")) for launch in launches]
    except ValueError:
        return []
    return [f"{len(times)} launches, {sum(times):.4g} {units[column]} together", ""]


def shortened(number: str) -> str:
    try:
        return f"{float(number.replace(',', '')):.4g}"
    except ValueError:
        return number


if __name__ == "__main__":
    main()
