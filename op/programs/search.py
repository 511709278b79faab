"""Searches programs of a given form from random coefficients.

A form says of each product after A² whether it is a square `s` or a product `p` of two factors: "sssp" has five products.
Many starts are wanted, as most end in poor minima, and each good one is worth shaking: from an island's best program the
coefficients are moved at random and the descent repeated, until that has failed to help a number of times.

For many steps few starts end well. There it is better to let a program for one step less grow.

The descent is Levenberg and Marquardt's on the normal equations, fast rather than exact, with a weak pull of all
coefficients toward zero, which keeps them small where the polynomial does not need them large. It works on I, 2A − I and
8A² − 8A + I, or for an iterate on A and 4A − 4A²: random combinations of these look like polynomials that are of use.
"""

import time

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from programs import Program, Residual

BASES = {
    "factor": np.array([[1, 0, 0], [-1, 2, 0], [1, -8, 8]], dtype=float),
    "iterate": np.array([[1, 0, 0], [0, 1, 0], [0, 4, -4]], dtype=float),
}


def form(iterations, target, kinds):
    """A program with every term that the form allows, all coefficients 1."""
    first = 1 if target == "iterate" else 0

    def full(places, first=0):
        return (np.arange(places) >= first).astype(float)

    products = [
        (full(3 + index, first), None if kind == "s" else full(3 + index)) for index, kind in enumerate(kinds)
    ]
    return Program(iterations, target, products, full(3 + len(kinds)) if target == "factor" else None)


def plain(program):
    """A program in I, A and A² from one in the search's basis."""
    basis = BASES[program.target]

    def change(factor):
        return None if factor is None else np.concatenate([factor[:3] @ basis, factor[3:]])

    products = [(change(left), change(right)) for left, right in program.products]
    return Program(program.iterations, program.target, products, change(program.result))


def descend(residual, vector, steps, pull, gain, window):
    """Steps until a window of them gains too little. Returns the coefficients and the root mean square error."""
    damping, values = 1e-2, []
    error, jacobian = residual(vector)
    square = error @ error
    for _ in range(steps):
        mean = np.sqrt(square / len(error))
        pull = max(min(pull, 0.02 * mean * np.sqrt(len(error) / len(vector))), 1e-11)
        normal = jacobian @ jacobian.T
        normal[np.diag_indices(len(vector))] += pull**2
        slope = jacobian @ error + pull**2 * vector
        value = square + pull**2 * (vector @ vector)
        for _ in range(12):
            damped = normal.copy()
            damped[np.diag_indices(len(vector))] *= 1 + damping
            try:
                candidate = vector - cho_solve(cho_factor(damped, check_finite=False), slope, check_finite=False)
            except LinAlgError:
                damping *= 10
                continue
            error = residual(candidate, derivatives=False)
            found = error @ error + pull**2 * (candidate @ candidate)
            if found < value:
                break
            damping *= 4
        else:
            break
        damping = max(damping / 5, 1e-15)
        vector = candidate
        error, jacobian = residual(vector)
        square = error @ error
        values.append(found)
        if len(values) > window and values[-1] > values[-1 - window] * (1 - gain):
            break
    return vector, np.sqrt(square / residual.x.size)


def search(iterations, target, kinds, seconds, seed):
    """The best program of the form that is found in the time."""
    outline = form(iterations, target, kinds)
    residual = Residual(outline, 5 * len(outline.coefficients()), BASES[target])
    return plain(outline.with_coefficients(explore(residual, seconds, seed)))


def explore(residual, seconds, seed, home=None, greatest=8.0, patience=30, report=print):
    """The best coefficients that are found in the time, at random or near `home`."""
    random = np.random.default_rng(seed)
    best, home_error, failures = home, np.inf, 0
    if home is not None:
        best, home_error = home, np.sqrt(np.mean(residual(home, derivatives=False) ** 2))
        greatest = max(greatest, np.abs(home).max())
    best_error = home_error
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if home is None:
            vector = random.normal(size=residual.size) * random.uniform(0.2, 0.7)
        else:
            shift = random.normal(size=residual.size) * 10 ** random.uniform(-2.8, -0.3)
            vector = home + shift * (random.random(residual.size) < random.choice([0.3, 1.0]))
        with np.errstate(all="ignore"):
            vector, error = descend(residual, vector, 150 if home is None else 80, 1e-3, 0.3, 30)
            if error < 10 * home_error:
                vector, error = descend(residual, vector, 600, 1e-6, 0.2, 60)
        if np.isfinite(error) and np.abs(vector).max() < greatest and error < 0.99 * home_error:
            home, home_error, failures = vector, error, 0
        else:
            failures += 1
        if home_error < best_error:
            best, best_error = home, home_error
            report(f"{end - time.monotonic():6.0f} s left: {best_error:.2e}")
        close = home_error < 3 * best_error
        if failures > (4 if close else 1) * patience or (failures > 5 and home_error > 300 * best_error):
            home, home_error, failures = None, np.inf, 0
    return best


def grow(program, seconds, seed):
    """A program of one step and one product more.

    The step comes in before the others, little by little, and the coefficients follow.
    """
    random = np.random.default_rng(seed)
    count = len(program.products) + 3
    full = form(program.iterations + 1, program.target, "p")
    products = list(program.products)
    if program.target == "iterate":
        # The last product so far times I is where the new last product starts.
        left, right, result = np.zeros(count), np.zeros(count), None
        left[-1] = right[0] = 1
        products.append((left, right))
    else:
        products.append((random.normal(size=count) * 0.3, random.normal(size=count) * 0.3))
        result = np.append(program.result, 0)
    grown = type(full)(full.iterations, full.target, products, result)
    basis = np.linalg.inv(BASES[program.target])

    def shaken(factor, first):
        if factor is None:
            return None
        factor = np.concatenate([factor[:3] @ basis, factor[3:]]) + random.normal(size=len(factor)) * 0.01
        factor[:first] = 0
        return factor

    left_first = 1 if program.target == "iterate" else 0
    grown.products = [(shaken(left, left_first), shaken(right, 0)) for left, right in products]
    grown.result = shaken(result, 0)
    vector = grown.coefficients()
    for first in np.linspace(0, 1, 21):
        residual = Residual(grown, 5 * len(vector), BASES[program.target], first)
        vector, error = descend(residual, vector, 300, 1e-4, 0.05, 40)
        print(f"{first:4.2f} of the step: {error:.2e}")
    return plain(grown.with_coefficients(explore(residual, seconds, seed, vector)))
