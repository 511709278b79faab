"""Polishes a program: least squares, then toward equal error, then with every coefficient a float32 number.

The residual is minimized in the norm of the exponent 2, 4, 8, … by the Levenberg–Marquardt method. The coefficients of a
program are not determined by its polynomial (factors of a product may be scaled against each other, multiples of earlier
matrices moved from one place to another), so that the Jacobian has directions without effect; the steps are made from
its singular value decomposition, which takes none along these.

A coefficient rounded to float32 is off by up to 3e-8 of itself, the same in every entry of every matrix: not noise that
averages out but another polynomial. So the coefficients are rounded one by one, the ones that matter most first, and the
others make up for it each time.
"""

import numpy as np

from programs import Residual

# The norms, one after the other: 2 is least squares, and 128 as good as the greatest error.
EXPONENTS = (2, 4, 8, 16, 32, 64, 128)


def descend(residual, vector, exponent=2, steps=300, gain=1e-5, free=None):
    """Levenberg–Marquardt steps from `vector` along the coefficients in `free`, all of them by default."""
    free = np.ones(len(vector), bool) if free is None else free
    power, damping, progress = exponent / 2, 1e-2, []
    error, jacobian = residual(vector)
    for _ in range(steps):
        greatest = np.abs(error).max()
        relative = error / greatest
        value = np.sum(np.abs(relative) ** exponent)
        weight = np.maximum(np.abs(relative), 1e-3) ** (power - 1)
        scale = np.maximum(np.abs(vector[free]), 0.05)
        slopes = jacobian[free] * (weight / greatest) * scale[:, None]
        left, singular, right = np.linalg.svd(slopes, full_matrices=False)
        target = right @ (weight * relative / power)
        for _ in range(15):
            candidate = vector.copy()
            candidate[free] -= scale * (left @ (singular / (singular**2 + damping**2) * target))
            # A step that overshoots by far is turned down before its powers overflow.
            found = np.minimum(np.abs(residual(candidate, derivatives=False)) / greatest, 2)
            found = np.sum(found**exponent)
            if found < value:
                break
            damping *= 4
        else:
            break
        damping = max(damping / 4, 1e-13)
        vector = candidate
        error, jacobian = residual(vector)
        progress.append(found / value)
        if len(progress) > 15 and np.prod(progress[-15:]) > 1 - gain:
            break
    return vector


def rounded(residual, vector):
    """`vector` with every coefficient a float32 number."""
    vector, free = vector.copy(), np.ones(len(vector), bool)
    while free.any():
        _, jacobian = residual(vector)
        effect = np.sqrt(np.mean(jacobian**2, axis=1)) * np.spacing(np.abs(vector).astype(np.float32))
        index = np.argmax(np.where(free, effect, -1))
        free[index] = False
        near = np.float32(vector[index])
        other = np.nextafter(near, np.float32(np.inf if vector[index] > near else -np.inf))
        choices = []
        for choice in {float(near), float(other)}:
            candidate = vector.copy()
            candidate[index] = choice
            if free.any():
                candidate = descend(residual, candidate, exponent=16, steps=6, free=free)
            choices.append((np.abs(residual(candidate, derivatives=False)).max(), choice, candidate))
        vector = min(choices, key=lambda choice: choice[:2])[2]
    return vector


def polish(program, count=None):
    """The program with the smallest greatest error that is found from here, its coefficients float32 numbers."""
    vector = program.coefficients()
    residual = Residual(program, count or max(200, 7 * len(vector)))
    for exponent in EXPONENTS:
        vector = descend(residual, vector, exponent)
    return program.with_coefficients(rounded(residual, vector))
