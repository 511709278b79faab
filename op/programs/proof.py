"""Bounds a program's relative error on the whole of [0, 1].

Let r be the difference of the program's polynomial and q, of degree D, and x = (1 − cos φ)/2. Then r is a trigonometric
polynomial in φ of degree D, and Bernstein's inequality says |r''| ≤ D² M for its greatest value M. Between two
neighbours of a grid of spacing h = π/(oversampling · D), |r| therefore exceeds the greater of its values there by
h²/8 · D² M at most, where M is bounded by the same argument: M ≤ (greatest value on the grid) / (1 − h²/8 · D²). And q falls
from 0 to 1: m t² rises with m on [0, 1], so that every m_k rises with x and every t_k falls.

r is evaluated in extended precision, and compared with 40 digits at some points to see that this is enough.
"""

import mpmath
import numpy as np

from programs import newton_schulz

OVERSAMPLING = 64
# What the evaluation in extended precision may be off by, as a part of q.
ROUNDING = 1e-14


def degree(program):
    """The degree of program − q at most."""
    degrees = [0, 0, 1] if program.target == "iterate" else [0, 1, 2]
    reach = lambda factor: max(d for d, c in zip(degrees, factor) if c != 0)
    for left, right in program.products:
        if program.target == "factor":
            degrees.append(reach(left) + reach(left if right is None else right))
        else:
            # Degrees of the places divided by x.
            right = left if right is None else right
            raised = max((d + (i > 0) for i, (d, c) in enumerate(zip(degrees, right)) if c != 0), default=0)
            degrees.append(reach(left) + raised)
    own = degrees[-1] if program.target == "iterate" else reach(program.result)
    return max(own, (3**program.iterations - 1) // 2)


def bound(program):
    """A bound of |program/q − 1| over [0, 1]."""
    d = degree(program)
    count = OVERSAMPLING * d
    excess = (np.pi / OVERSAMPLING) ** 2 / 8
    greatest_r, greatest, previous = 0.0, [], None
    for start in range(0, count + 1, 1 << 18):
        index = np.arange(start, min(start + (1 << 18), count + 1)).astype(np.longdouble)
        x = np.sin(index / count * (np.longdouble("3.14159265358979323846") / 2)) ** 2
        q = newton_schulz(x, program.iterations)
        r = np.abs(program.values(x) - q)
        greatest_r = max(greatest_r, float(r.max()))
        if previous is not None:
            r, q = np.append(previous[0], r), np.append(previous[1], q)
        greatest.append((np.maximum(r[:-1], r[1:]), q[1:]))
        previous = r[-1:], q[-1:]
    between = excess * greatest_r / (1 - excess)
    error = max(float(np.max((r + between) / q)) for r, q in greatest)
    assert evaluation_error(program) < ROUNDING, "extended precision is not enough"
    return error + ROUNDING


def evaluation_error(program, count=97):
    """How far the evaluation of program − q in extended precision is from one in 40 digits, as a part of q."""
    x = np.sin(np.linspace(0, np.pi / 2, count).astype(np.longdouble)) ** 2
    with mpmath.workdps(40):
        exactly = np.array([mpmath.mpf(float(v)) for v in x], dtype=object)
        x = np.array([np.longdouble(float(v)) for v in x])
        q = newton_schulz(x, program.iterations)
        r = program.values(x) - q
        exact = program.values(exactly) - newton_schulz(exactly, program.iterations)
        split = [mpmath.mpf(float(v)) + mpmath.mpf(float(v - np.longdouble(float(v)))) for v in r]
        return max(float(abs(a - b) / float(c)) for a, b, c in zip(split, exact, q))
