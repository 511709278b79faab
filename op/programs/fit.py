"""Makes `op/src/program/fitted.rs`: see README.md.

    python3 fit.py                            polishes the programs of starts.json, bounds their errors, and writes
                                              programs.json and the Rust file; minutes
    python3 fit.py --search K target kinds    searches a program of K steps for `factor` or `iterate` first, in the
                                              form that `kinds` says (search.py), and puts it into starts.json
    python3 fit.py --grow K target            likewise, from the program of K - 1 steps in starts.json

Needs numpy, scipy and mpmath, and rustfmt. On one thread (OPENBLAS_NUM_THREADS=1) it is fastest and repeats itself.
"""

import argparse
from pathlib import Path

import numpy as np

import programs
import rust
from polish import polish
from proof import bound
from search import grow, search
from sparse import sparse

HERE = Path(__file__).parent
STARTS, PROGRAMS = HERE / "starts.json", HERE / "programs.json"

# The root mean square error up to which terms are taken out. The greatest error becomes two times as much.
TOLERANCE = 3.5e-8


def key(program):
    return program.iterations, program.target


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", nargs=3, metavar=("K", "TARGET", "KINDS"))
    parser.add_argument("--grow", nargs=2, metavar=("K", "TARGET"))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--dense", action="store_true", help="keep all terms")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    starts = {key(program): program for program in programs.read(STARTS)}
    found = None
    if arguments.search:
        iterations, target, kinds = arguments.search
        found = search(int(iterations), target, kinds, arguments.seconds, arguments.seed)
    if arguments.grow:
        iterations, target = arguments.grow
        found = grow(starts[int(iterations) - 1, target], arguments.seconds, arguments.seed)
    if found:
        if not arguments.dense:
            found = sparse(found, TOLERANCE)
        starts[key(found)] = found
        starts = dict(sorted(starts.items()))
        programs.write(STARTS, starts.values())
    fitted, errors = [], []
    for start in starts.values():
        program = polish(start)
        error = bound(program)
        print(
            f"K = {program.iterations:2} {program.target:8} {program.product_count} products, "
            f"{program.combination_count():2} combinations, {program.term_count():2} terms, "
            f"coefficients to {np.abs(program.coefficients()).max():4.1f}, error {error:.2e}",
            flush=True,
        )
        fitted.append(program)
        errors.append(error)
    programs.write(PROGRAMS, fitted)
    rust.write(fitted, errors)


if __name__ == "__main__":
    main()
