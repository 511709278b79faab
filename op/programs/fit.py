"""Makes `op/src/cpu/program/fitted.rs` from `programs.json`.

    python3 fit.py             bounds the errors of the programs in programs.json, and writes the Rust file
    python3 fit.py --polish    polishes the programs first

Needs numpy, scipy and mpmath, and rustfmt.
"""

import argparse
from pathlib import Path

import programs
import rust
from polish import polish
from proof import bound

PROGRAMS = Path(__file__).parent / "programs.json"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--polish", action="store_true")
    arguments = parser.parse_args()
    fitted = programs.read(PROGRAMS)
    if arguments.polish:
        fitted = [polish(program) for program in fitted]
    errors = [bound(program) for program in fitted]
    for program, error in zip(fitted, errors):
        print(f"K = {program.iterations:2} {program.target:8} {program.product_count} products, "
              f"{program.combination_count():2} combinations, {program.term_count():2} terms, error {error:.2e}")
    programs.write(PROGRAMS, fitted)
    rust.write(fitted, errors)


if __name__ == "__main__":
    main()
