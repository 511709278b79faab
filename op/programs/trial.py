"""Runs the programs on float32 matrices as the kernels do, beside the plain coupled iteration in float32.

    python3 trial.py [K…]

An iterate's program runs on the covariance A = XXᵀ/f, a factor's on the Gram matrix XᵀX/f. Both results are A q(A), and
their error is max|Δ|/max|A q(A)| against the coupled iteration in float64 from the same X. Printed are the median and the
greatest over spectra from flat to rank one, X of 16 to 256 columns and half as many rows again, and normalization by
trace and by Frobenius norm.
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
    """A q(A) or q(A), as the program's target is, in float32."""
    places = [None, a, symmetric(a @ a)]
    for left, right in program.products:
        left = combination(left, places)
        places.append(symmetric(left @ (left if right is None else combination(right, places))))
    return places[-1] if program.target == "iterate" else combination(program.result, places)


def norm(matrix, trace):
    """The trace or the Frobenius norm."""
    return np.trace(matrix) if trace else np.linalg.norm(matrix)


def result(program, x, trace):
    """A q(A) for A = XXᵀ/f in float32."""
    gram = symmetric(x @ x.T if program.target == "iterate" else x.T @ x)
    f = np.float32(norm(gram.astype(np.float64), trace))
    found = evaluate(program, gram / f)
    return found if program.target == "iterate" else symmetric(x @ (found @ x.T)) / f


def coupled(x, trace, iterations, number):
    """A q(A) by the plain iteration."""
    x = x.astype(number)
    y = symmetric(x @ x.T)
    y /= number(norm(y.astype(np.float64), trace))
    z = np.eye(len(y), dtype=number)
    for _ in range(iterations):
        t = number(-0.5) * (z @ y)
        t[np.diag_indices(len(t))] += number(1.5)
        y, z = y @ t, t @ z
    return y


def spectra(n):
    """Eigenvalues by name."""
    yield "flat", np.ones(n)
    yield "rank 1", np.eye(n)[0]
    yield "rank 1 above 0.001", np.maximum(np.eye(n)[0], 1e-3)
    yield "rank 2", np.repeat([1.0, 0.0], [2, n - 2])
    yield "rank n/2", np.repeat([1.0, 0.0], [n // 2, n - n // 2])
    for ratio in (0.99, 0.95, 0.9, 0.7, 0.5, 0.2):
        yield f"geometric {ratio}", ratio ** np.arange(n)
    yield "1/i", 1 / np.arange(1.0, n + 1)
    yield "1/i^2", 1 / np.arange(1.0, n + 1) ** 2


def samples():
    """X by name."""
    random = np.random.default_rng(0)
    for n in SIDES:
        rows = n * 3 // 2
        left = np.linalg.qr(random.normal(size=(rows, n)))[0]
        right = np.linalg.qr(random.normal(size=(n, n)))[0]
        for name, values in spectra(n):
            yield f"{n} {name}", ((left * np.sqrt(values)) @ right.T).astype(np.float32)
        noise = random.normal(size=(rows, n))
        yield f"{n} normal", noise.astype(np.float32)
        yield f"{n} rectified", np.maximum(noise, 0).astype(np.float32)


def trial(iterations, fitted):
    """The errors of the plain iteration and of the programs, a row for each matrix."""
    rows = []
    for _, x in samples():
        for trace in (True, False):
            reference = coupled(x, trace, iterations, np.float64)
            found = [coupled(x, trace, iterations, np.float32), *(result(program, x, trace) for program in fitted)]
            rows.append([np.abs(y - reference).max() / np.abs(reference).max() for y in found])
    return np.array(rows)


def main():
    fitted = programs.read(Path(__file__).parent / "programs.json")
    asked = [int(k) for k in sys.argv[1:]] or sorted({program.iterations for program in fitted})
    for iterations in asked:
        ours = [program for program in fitted if program.iterations == iterations]
        rows = trial(iterations, ours)
        for index, name in enumerate(["plain", *(program.target for program in ours)]):
            against = np.maximum(rows[:, index] / np.maximum(rows[:, 0], 2e-7), 0).max()
            print(
                f"K = {iterations:2} {name:8} median {np.median(rows[:, index]):.1e}, "
                f"greatest {rows[:, index].max():.1e}, at most {against:.1f} times the plain one's"
            )


if __name__ == "__main__":
    main()
