"""Runs the programs on float32 matrices as the kernels do, beside the plain coupled iteration in float32.

    python3 trial.py [K…]

The error is max|Δ|/max|Y| against the coupled iteration in float64. Printed are the median and the greatest over spectra
from flat to rank one and over matrices of 16 to 256 rows, normalized by trace and by Frobenius norm.
"""

import sys
from pathlib import Path

import numpy as np

import programs

SIDES = (16, 64, 256)


def symmetric(matrix):
    """The matrix whose lower triangle is the upper one's mirror image."""
    return np.triu(matrix) + np.triu(matrix, 1).T


def combination(factor, places):
    """Σ factor_i places_i in float32, where place 0 is I."""
    matrix = np.zeros_like(places[1])
    for coefficient, place in zip(factor[1:], places[1:]):
        if coefficient != 0:
            matrix += np.float32(coefficient) * place
    matrix[np.diag_indices(len(matrix))] += np.float32(factor[0])
    return matrix


def evaluate(program, a):
    """Y = A q(A) by a program in float32."""
    places = [None, a, symmetric(a @ a)]
    for left, right in program.products:
        left = combination(left, places)
        places.append(symmetric(left @ (left if right is None else combination(right, places))))
    return places[-1] if program.target == "iterate" else symmetric(a @ combination(program.result, places))


def coupled(a, iterations, number):
    """Y of the plain iteration."""
    y, z = a.astype(number), np.eye(len(a), dtype=number)
    for _ in range(iterations):
        t = number(-0.5) * (z @ y)
        t[np.diag_indices(len(a))] += number(1.5)
        y, z = y @ t, t @ z
    return y


def spectra(n):
    """Eigenvalues by name, before they are normalized."""
    yield "flat", np.ones(n)
    yield "rank 1", np.eye(n)[0]
    yield "rank 1 above 0.001", np.maximum(np.eye(n)[0], 1e-3)
    yield "rank 2", np.repeat([1.0, 0.0], [2, n - 2])
    yield "rank n/2", np.repeat([1.0, 0.0], [n // 2, n - n // 2])
    for ratio in (0.99, 0.95, 0.9, 0.7, 0.5, 0.2):
        yield f"geometric {ratio}", ratio ** np.arange(n)
    yield "1/i", 1 / np.arange(1.0, n + 1)
    yield "1/i^2", 1 / np.arange(1.0, n + 1) ** 2


def matrices():
    """Matrices by name."""
    random = np.random.default_rng(0)
    for n in SIDES:
        turn = np.linalg.qr(random.normal(size=(n, n)))[0]
        for name, values in spectra(n):
            for norm, divisor in (("trace", values.sum()), ("Frobenius", np.linalg.norm(values))):
                yield f"{n} {name}, {norm}", symmetric(((turn * (values / divisor)) @ turn.T).astype(np.float32))
        for name, sample in (
            ("half as many positions", random.normal(size=(n, n // 2))),
            ("rectified", np.maximum(random.normal(size=(n, 4 * n)), 0)),
        ):
            gram = sample @ sample.T
            yield f"{n} {name}", symmetric((gram / np.trace(gram)).astype(np.float32))


def trial(iterations, fitted):
    """The errors of the plain iteration and of the programs, a row for each matrix."""
    rows = []
    for name, a in matrices():
        reference = coupled(a, iterations, np.float64)
        found = [coupled(a, iterations, np.float32), *(evaluate(program, a) for program in fitted)]
        rows.append([np.abs(y - reference).max() / np.abs(reference).max() for y in found])
    return np.array(rows)


def main():
    fitted = programs.read(Path(__file__).parent / "programs.json")
    asked = [int(k) for k in sys.argv[1:]] or sorted({program.iterations for program in fitted})
    for iterations in asked:
        ours = [program for program in fitted if program.iterations == iterations]
        rows = trial(iterations, ours)
        for index, name in enumerate(["plain", *(program.target for program in ours)]):
            print(f"K = {iterations:2} {name:8} median {np.median(rows[:, index]):.1e}, "
                  f"greatest {rows[:, index].max():.1e}")


if __name__ == "__main__":
    main()
