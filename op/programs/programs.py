"""Programs of matrix products as functions of one eigenvalue.

A program computes, from I, A and A²,

    B_3 = L_3 R_3,  B_4 = L_4 R_4,  …

where each factor L_j, R_j is a combination of I, A, A² and the products before it, and R_j is L_j in a square. On an
eigenvalue x of A everything is a polynomial in x. There are two targets:

    factor    q(x), as a combination of I, A, A² and all products
    iterate   y(x) = x q(x), as the last product

In an iterate's program no left factor has a term in I, and neither has a square's: then every B_j is x times a
polynomial, and small eigenvalues keep their relative accuracy. `values` therefore divides by x throughout, so that both
targets are compared with q.
"""

import json
from dataclasses import dataclass

import numpy as np


def newton_schulz(x, iterations, first=1):
    """q(x), where `iterations` coupled steps from Y = A, Z = I give Y = A q(A).

    With a `first` below 1 the first step goes only part of the way, none of it with 0.
    """
    m, q = x, x * 0 + 1
    for _ in range(iterations):
        t = 1 + (1 - m) * first / 2
        q, m, first = q * t, m * t * t, 1
    return q


def nodes(count):
    """The Chebyshev points of [0, 1]."""
    return np.sin((np.arange(count) + 0.5) / count * np.pi / 2) ** 2


@dataclass
class Program:
    """Coefficients, factor by factor, of the places I, A, A², B_3, …. Exact zeros are no terms."""

    iterations: int
    target: str
    products: list  # pairs of arrays; the second one is None in a square
    result: object  # an array, or None for an iterate

    @property
    def product_count(self):
        """Matrix products, A² included."""
        return len(self.products) + 1

    def factors(self):
        """All coefficient arrays, in order."""
        pairs = [factor for product in self.products for factor in product]
        return [factor for factor in [*pairs, self.result] if factor is not None]

    def combination_count(self):
        """Factors that have to be made: all but those that are one of the matrices itself."""
        return sum(1 for factor in self.factors() if not is_matrix(factor))

    def term_count(self):
        """Matrices read to make the factors."""
        return sum(np.count_nonzero(factor[1:]) for factor in self.factors() if not is_matrix(factor))

    def coefficients(self):
        """The coefficients that are not zero, as one vector."""
        return np.concatenate([factor[factor != 0] for factor in self.factors()])

    def with_coefficients(self, vector):
        """The same program with other coefficients in the same places."""
        vector = iter(np.asarray(vector))

        def fill(factor):
            if factor is None:
                return None
            return np.array([next(vector) if c != 0 else c * 0 for c in factor])

        products = [(fill(left), fill(right)) for left, right in self.products]
        return Program(self.iterations, self.target, products, fill(self.result))

    def start(self, x):
        """The places I, A and A² at the eigenvalues x, the last two divided by x in an iterate's program."""
        one = x * 0 + 1
        return [one, one, x] if self.target == "iterate" else [one, x, x * x]

    def values(self, x):
        """What is to be q(x), in the arithmetic of x."""
        places = self.start(x)
        iterate = self.target == "iterate"
        for left, right in self.products:
            l = total(left, places)
            if right is None:
                r = l * x if iterate else l
            elif iterate:
                r = total(right[1:], places[1:]) * x + number(right[0], x)
            else:
                r = total(right, places)
            places.append(l * r)
        return places[-1] if iterate else total(self.result, places)


def number(value, x):
    """A coefficient in the arithmetic of x, without loss."""
    return x.dtype.type(value) if x.dtype != object else x.flat[0] * 0 + float(value)


def total(factor, places):
    """Σ factor_i places_i."""
    terms = [number(c, place) * place for c, place in zip(factor, places) if c != 0]
    return sum(terms[1:], terms[0]) if terms else places[0] * 0


def is_matrix(factor):
    """Whether a factor is one of the matrices, to be read where it lies."""
    return factor[0] == 0 and np.count_nonzero(factor) == 1 and factor.sum() == 1


class Residual:
    """values(x)/q(x) − 1 at fixed points, and its derivatives by the coefficients.

    `basis` says what stands in the places of I, A and A²: their combinations, row by row. `first` is `newton_schulz`'s.
    """

    def __init__(self, program, count, basis=None, first=1):
        self.x = nodes(count)
        self.iterate = program.target == "iterate"
        self.start = np.array(program.start(self.x))
        if basis is not None:
            # An iterate's places are divided by x, but for I.
            self.start = np.vstack([self.start[:1], basis[1:, 1:] @ self.start[1:] + basis[1:, :1]])
        self.weight = 1 / newton_schulz(self.x, program.iterations, first)
        self.terms = [
            (None if left is None else np.flatnonzero(left), None if right is None else np.flatnonzero(right))
            for left, right in program.products
        ]
        self.result = None if program.result is None else np.flatnonzero(program.result)
        self.size = len(program.coefficients())

    def __call__(self, vector, derivatives=True):
        """The residual, and with `derivatives` its Jacobian, a row for each coefficient. By reverse differentiation."""
        x, iterate = self.x, self.iterate
        places = np.empty((3 + len(self.terms), len(x)))
        places[:3] = self.start
        # What a right factor's terms are: the places, in an iterate's program times x again.
        right_places = places
        if iterate:
            right_places = places * x
            right_places[0] = 1
        tape, at = [], 0
        for index, (left, right) in enumerate(self.terms):
            left_at, at = at, at + len(left)
            l = vector[left_at:at] @ places[left]
            right_at = at
            if right is None:
                r = l * x if iterate else l
            else:
                at += len(right)
                r = vector[right_at:at] @ right_places[right]
            places[3 + index] = l * r
            if iterate:
                right_places[3 + index] = l * r * x
            tape.append((left, left_at, l, right, right_at, r))
        output = places[-1] if iterate else vector[at:] @ places[self.result]
        residual = output * self.weight - 1
        if not derivatives:
            return residual
        jacobian = np.empty((len(vector), len(x)))
        slopes = np.zeros_like(places)
        if iterate:
            slopes[-1] = self.weight
        else:
            jacobian[at:] = places[self.result] * self.weight
            slopes[self.result] = np.outer(vector[at:], self.weight)
        for index in reversed(range(len(tape))):
            left, left_at, l, right, right_at, r = tape[index]
            by_left = slopes[3 + index] * r * (2 if right is None else 1)
            jacobian[left_at : left_at + len(left)] = places[left] * by_left
            slopes[left] += np.outer(vector[left_at : left_at + len(left)], by_left)
            if right is not None:
                by_right = slopes[3 + index] * l
                jacobian[right_at : right_at + len(right)] = right_places[right] * by_right
                if iterate:
                    by_right = by_right * x
                matrices = right != 0
                factors = vector[right_at : right_at + len(right)]
                slopes[right[matrices]] += np.outer(factors[matrices], by_right)
        return residual, jacobian


def read(path):
    """The programs of a JSON file."""

    def array(factor):
        return None if factor is None else np.array(factor, dtype=float)

    return [
        Program(
            entry["iterations"],
            entry["target"],
            [(array(left), array(right)) for left, right in entry["products"]],
            array(entry["result"]),
        )
        for entry in json.loads(path.read_text())
    ]


def write(path, programs):
    """Programs as a JSON file, a factor to a line."""

    def text(factor):
        return "null" if factor is None else json.dumps([float(c) for c in factor])

    entries = []
    for program in programs:
        products = ",\n".join(f"   [{text(left)},\n    {text(right)}]" for left, right in program.products)
        entries.append(
            f' {{"iterations": {program.iterations}, "target": "{program.target}", "products": [\n{products}],\n'
            f'  "result": {text(program.result)}}}'
        )
    path.write_text("[\n" + ",\n".join(entries) + "\n]\n")
