"""Takes terms out of a program for as long as it stays good.

A term that reads no matrix, a factor's in I, costs nothing and stays. Another one is led to zero in steps, while the other
coefficients make up for it; the one that does the least harm goes, and so on. A factor that is down to one term of one
matrix becomes this matrix itself: its coefficient goes over to the product's other factor, or to where the product is read.
"""

import numpy as np

from polish import descend
from programs import Residual


def without(program, place):
    """The program whose coefficient at `place`, (factor, term), is led to zero, and its error."""
    factors = program.factors()
    at = sum(np.count_nonzero(factor) for factor in factors[: place[0]])
    at += np.count_nonzero(factors[place[0]][: place[1]])
    vector = program.coefficients()
    residual = Residual(program, max(120, 4 * len(vector)))
    free = np.arange(len(vector)) != at
    start = vector[at]
    for share in (0.6, 0.3, 0.1, 0.0):
        vector[at] = share * start
        vector = descend(residual, vector, steps=40, gain=0.05, free=free)
    vector = descend(residual, vector, steps=60, gain=0.02, free=free)
    error = np.sqrt(np.mean(residual(vector, derivatives=False) ** 2))
    # `with_coefficients` finds a coefficient's place by its not being zero.
    found = program.with_coefficients(vector)
    return found, error


def unscaled(program):
    """The same polynomial, with the one coefficient of every factor of one matrix made 1."""
    products = [[None if f is None else f.copy() for f in product] for product in program.products]
    result = None if program.result is None else program.result.copy()
    for index, (left, right) in enumerate(products):
        for one, other in ((left, right), (right, left)):
            if one is None or one[0] != 0 or np.count_nonzero(one) != 1 or one.sum() == 1:
                continue
            scale = one.sum()
            one[one != 0] = 1
            if other is not None:
                other *= scale
            else:
                scale *= scale
                later = [f for product in products[index + 1 :] for f in product if f is not None]
                for factor in [*later, *([] if result is None else [result])]:
                    factor[3 + index] *= scale
    return type(program)(program.iterations, program.target, [tuple(p) for p in products], result)


def sparse(program, tolerance, greatest=10.0, report=print):
    """The program with as few terms as it can have with a root mean square error up to `tolerance`."""
    kept, again = set(), False
    while True:
        best = None
        for f, factor in enumerate(program.factors()):
            for term in np.flatnonzero(factor):
                if term == 0 or (f, term) in kept or np.count_nonzero(factor) == 1:
                    continue
                found, error = without(program, (f, term))
                if not error < tolerance or np.abs(found.coefficients()).max() > greatest:
                    kept.add((f, term))
                    continue
                cost = found.combination_count(), error
                if best is None or cost < best[0]:
                    best = cost, found
        if best is None and again:
            # What could not go earlier may go now.
            kept, again = set(), False
            continue
        if best is None:
            return unscaled(program)
        program, again = best[1], True
        report(f"{program.term_count()} terms, error {best[0][1]:.1e}")
