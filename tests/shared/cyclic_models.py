"""Cyclic models with known truth: exact uniqueness tests, plain fixed-point solves, random loops of every kind."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.optimize
from scipy import special
from scipy.optimize import linprog

from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.plain import DeclaredBlock, plain_model
from idl_audit.values.arrays import FloatArray

Exact = list[list[Fraction]]
Kind = tuple[str, int]
"""(activation, number of states)."""

PHI: dict[str, Any] = {
    "identity": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "abs": np.abs,
    "tanh": np.tanh,
    "sigmoid": lambda z: (1 + np.tanh(z / 2)) / 2,
    "gelu": lambda z: z * (1 + special.erf(z / np.sqrt(2))) / 2,
    "silu": lambda z: z * (1 + np.tanh(z / 2)) / 2,
    "hard_swish": lambda z: z * np.clip(z / 6 + 0.5, 0, 1),
    "softplus": lambda z: np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "softmax": special.softmax,
}
"""The activations once more, written down apart from the package; softmax is over one group."""

STEEPEST = {"gelu": 1.12892, "silu": 1.09985, "hard_swish": 1.5, "sigmoid": 0.25}


def plain(
    A: Any,
    B: Any,
    C: Any,
    kinds: str | Sequence[Kind] = "relu",
    *,
    D: Any = None,
    b: Any = None,
    d: Any = None,
) -> ImplicitModel:
    """Return the model of these arrays, as a user's own file would give it; a softmax is one group."""
    a, b_matrix, c = (np.asarray(matrix, np.float64) for matrix in (A, B, C))
    parts = [(kinds, len(a))] if isinstance(kinds, str) else kinds
    blocks = [DeclaredBlock(name, size, {"width": float(size)} if name == "softmax" else {}) for name, size in parts]
    return plain_model(
        a,
        b_matrix,
        c,
        np.zeros((len(c), b_matrix.shape[1])) if D is None else np.asarray(D, np.float64),
        np.zeros(len(a)) if b is None else np.asarray(b, np.float64),
        np.zeros(len(c)) if d is None else np.asarray(d, np.float64),
        blocks,
    )


def phi_of(kinds: str | Sequence[Kind], z: FloatArray) -> FloatArray:
    """Return phi(z) of one sample, from the table above."""
    if isinstance(kinds, str):
        return np.asarray(PHI[kinds](z))
    edges = np.cumsum([size for _, size in kinds])[:-1]
    return np.concatenate([PHI[name](part) for (name, _), part in zip(kinds, np.split(z, edges), strict=True)])


def fixed_point(A: FloatArray, drive: FloatArray, kinds: str | Sequence[Kind]) -> FloatArray:
    """Return x = phi(A x + i) of one sample, found apart from the package: iteration, damped, then a root finder."""
    for damping in (1.0, 0.5, 0.1, 0.02):
        x = np.zeros(len(A))
        for _ in range(3000):
            if np.abs(x).max(initial=0.0) > 1e12:  # it diverges
                break
            new = (1 - damping) * x + damping * phi_of(kinds, A @ x + drive)
            if np.abs(new - x).max(initial=0.0) <= 1e-15 * damping * (1 + np.abs(x).max(initial=0.0)):
                return new
            x = new
        if np.abs(x - phi_of(kinds, A @ x + drive)).max(initial=0.0) < 1e-10:
            return x
    found = scipy.optimize.root(lambda x: x - phi_of(kinds, A @ x + drive), np.zeros(len(A)), tol=1e-13)
    assert np.abs(found.fun).max() < 1e-8, "the oracle found no fixed point"
    return np.asarray(found.x)


# ---------------------------------------------------------------------------------------------- exact arithmetic


def exact(matrix: Any) -> Exact:
    """Return the floats of a matrix as fractions."""
    return [[Fraction(float(value)) for value in row] for row in np.atleast_2d(np.asarray(matrix))]


def determinant(matrix: Exact) -> Fraction:
    """Return the determinant by elimination."""
    rows = [list(row) for row in matrix]
    n, result = len(rows), Fraction(1)
    for k in range(n):
        pivot = next((i for i in range(k, n) if rows[i][k]), None)
        if pivot is None:
            return Fraction(0)
        if pivot != k:
            rows[k], rows[pivot] = rows[pivot], rows[k]
            result = -result
        result *= rows[k][k]
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            if factor:
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
    return result


def times(left: Exact, right: Exact) -> Exact:
    columns = list(zip(*right, strict=True))
    return [[sum((a * b for a, b in zip(row, column, strict=True)), Fraction(0)) for column in columns] for row in left]


def magnitude(matrix: Exact) -> Exact:
    return [[abs(value) for value in row] for row in matrix]


def plus(left: Exact, right: Exact, factor: int = 1) -> Exact:
    return [[a + factor * b for a, b in zip(x, y, strict=True)] for x, y in zip(left, right, strict=True)]


def columns_times(matrix: Exact, weights: Sequence[Fraction]) -> Exact:
    return [[a * w for a, w in zip(row, weights, strict=True)] for row in matrix]


def rows_times(weights: Sequence[Fraction], matrix: Exact) -> Exact:
    return [[w * a for a in row] for w, row in zip(weights, matrix, strict=True)]


def identity(n: int) -> Exact:
    return [[Fraction(int(i == j)) for j in range(n)] for i in range(n)]


def inverse(matrix: Exact) -> Exact:
    """Return the inverse by Gauss-Jordan elimination; the matrix is regular."""
    n = len(matrix)
    rows = [list(row) + unit for row, unit in zip(matrix, identity(n), strict=True)]
    for k in range(n):
        pivot = next(i for i in range(k, n) if rows[i][k])
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [value / rows[k][k] for value in rows[k]]
        for i in range(n):
            if i != k and rows[i][k]:
                factor = rows[i][k]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
    return [row[n:] for row in rows]


def vector(values: Any) -> list[Fraction]:
    return [Fraction(float(value)) for value in values]


def is_unique(A: Any, below: Sequence[float], above: Sequence[float]) -> bool:
    """Return whether x = phi(A x + i) has exactly one x for every i, phi with the slopes below and above at its kink 0.

    z - A phi(z) is linear on every orthant. It is one-to-one and onto exactly when the determinants of I - A diag(s)
    over all choices of slopes s have one sign (Samelson, Thrall and Wesler 1958 for relu; Willson 1971). Exact.
    """
    a = exact(A)
    n = len(a)
    signs = set()
    for choice in itertools.product((0, 1), repeat=n):
        slopes = [Fraction(float((below, above)[pick][j])) for j, pick in enumerate(choice)]
        value = determinant(plus(identity(n), columns_times(a, slopes), -1))
        signs.add((value > 0) - (value < 0))
        if 0 in signs or len(signs) > 1:
            return False
    return True


def relu_solutions(A: FloatArray, drive: FloatArray) -> list[FloatArray]:
    """Return every x with x = relu(A x + i), by trying all activation patterns."""
    n = len(A)
    found: list[FloatArray] = []
    for choice in itertools.product((0.0, 1.0), repeat=n):
        on = np.asarray(choice)
        system = np.eye(n) - on[:, None] * A
        if abs(np.linalg.det(system)) < 1e-12:
            continue
        x = np.linalg.solve(system, on * drive)
        z = A @ x + drive
        scale = 1e-9 * (1 + np.abs(x).max())
        fits = bool((z[on == 1] >= -scale).all() and (z[on == 0] <= scale).all())
        if fits and not any(np.abs(x - other).max() <= 100 * scale for other in found):
            found.append(x)
    return found


def least_over_patterns(
    arrays: Mapping[str, FloatArray], functional: FloatArray, lo: FloatArray, hi: FloatArray
) -> float:
    """Return the minimum of functional . y over a box and all equilibria of ReLU states: one LP a pattern."""
    A, B, C, b = (arrays[name] for name in "ABCb")
    n, p = B.shape
    limits = [*zip(lo, hi, strict=True), *[(None, None)] * n]
    cost = np.concatenate([np.zeros(p) if "D" not in arrays else functional @ arrays["D"], functional @ C])
    best = np.inf
    for choice in itertools.product((0.0, 1.0), repeat=n):
        on = np.asarray(choice)
        equal = np.hstack([-on[:, None] * B, np.eye(n) - on[:, None] * A])  # x = s (A x + B u + b)
        sign = 1 - 2 * on  # s = 1: -z <= 0; s = 0: z <= 0
        answer = linprog(
            cost,
            A_ub=sign[:, None] * np.hstack([B, A]),
            b_ub=-sign * b,
            A_eq=equal,
            b_eq=on * b,
            bounds=limits,
        )
        if answer.status == 0:
            best = min(best, float(answer.fun))
    return best


# ---------------------------------------------------------------------------------------------- random models


def monotone_loop(rng: np.random.Generator, n: int, m: float = 1.0, size: float = 1.0) -> FloatArray:
    """Return W = (1 - m) I - A^T A + B - B^T, the form of monotone equilibrium networks."""
    a, skew = size * rng.normal(size=(n, n)) / np.sqrt(n), size * rng.normal(size=(n, n))
    return np.asarray((1 - m) * np.eye(n) - a.T @ a + skew - skew.T)


def random_loop(rng: np.random.Generator, n: int) -> FloatArray:
    """Return a loop of one of many shapes: weak, strongly negative, monotone, skewed, sparse, badly scaled."""
    shape = int(rng.integers(0, 7))
    a = rng.normal(size=(n, n)) / np.sqrt(n)
    if shape == 1:
        a -= np.diag(rng.exponential(3.0, n))
    elif shape == 2:
        m = float(rng.choice([0.05, 0.5, 5.0]))
        skew = rng.normal(size=(n, n))
        a = (1 - m) * np.eye(n) - a.T @ a + skew - skew.T
    elif shape == 3:
        a = 3 * np.triu(a, 1) + 0.1 * np.tril(a)
    elif shape == 4:
        a[rng.random((n, n)) < 0.6] = 0.0
    elif shape == 5:
        scale = 10.0 ** rng.uniform(-6, 6, n)
        a = a * scale[:, None] / scale[None, :]
    elif shape == 6:
        a = -np.abs(a)
    return np.asarray(a * rng.choice([0.3, 0.6, 1.0, 1.5]))


def contracting(rng: np.random.Generator, kinds: Sequence[Kind], root: float = 0.8) -> FloatArray:
    """Return a loop with lambda_PF(Gamma |A|) = root."""
    n = sum(size for _, size in kinds)
    a = rng.normal(size=(n, n))
    weight = np.zeros((n, n))
    start = 0
    for name, size in kinds:
        part = slice(start, start + size)
        weight[part, part] = np.full((size, size), 0.25) if name == "softmax" else np.eye(size) * STEEPEST.get(name, 1)
        start += size
    return np.asarray(a * root / np.abs(np.linalg.eigvals(weight @ np.abs(a))).max())


def around_a_loop(
    rng: np.random.Generator, loops: Sequence[tuple[FloatArray, Sequence[Kind]]], *, before: int = 2, after: int = 2
) -> tuple[dict[str, FloatArray], list[Kind]]:
    """Return A, B, b and the kinds of: feed-forward states, one loop after the other, feed-forward states again."""
    outer = ("relu", "tanh", "leaky_relu", "abs", "gelu")
    first: list[Kind] = [(str(rng.choice(outer)), 1) for _ in range(before)]
    last: list[Kind] = [(str(rng.choice(outer)), 1) for _ in range(after)]
    kinds = [*first, *(kind for _, own in loops for kind in own), *last]
    n = sum(size for _, size in kinds)
    a = np.tril(rng.normal(size=(n, n)) * 0.7, -1)
    start = before
    a[:before, :before] = np.tril(a[:before, :before], -1)
    for loop, _ in loops:
        own = slice(start, start + len(loop))
        a[own, own] = loop
        start += len(loop)
    return {"A": a, "B": rng.normal(size=(n, 3)), "b": rng.normal(size=n) * 0.5}, kinds
