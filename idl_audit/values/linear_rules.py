"""Linear rules between the inputs of a table: total = a + b, min <= max, in exact numbers.

A rule is sum_j c_j u_j <= t; an equation is two of them. Rows satisfy it or not in rational arithmetic: their numbers
are float32, and coefficients are the decimals as they are written.

Elsewhere: linear constraints on features, domain constraints, feasible adversarial examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.rounding import float_above

SWEEPS = 3
"""Times that rows are moved towards the rules, one after the other."""


@dataclass(frozen=True)
class LinearRule:
    """sum_j coefficients_j u_columns_j <= limit."""

    columns: tuple[int, ...]
    coefficients: tuple[Fraction, ...]
    """None of them 0."""
    limit: Fraction
    text: str
    """As it is written."""

    def value(self, row: FloatArray | Float32Array) -> Fraction:
        """Return the sum less the limit, exactly: above 0 where a row breaks the rule."""
        terms = zip(self.columns, self.coefficients, strict=True)
        return sum((c * Fraction(float(row[j])) for j, c in terms), -self.limit)

    def row(self, box: Box) -> tuple[FloatArray, float]:
        """Return float64 numbers (g, t): g . u <= t wherever the rule holds in a box, rounded outward."""
        row, limit = np.zeros(box.size), self.limit
        for j, exact in zip(self.columns, self.coefficients, strict=True):
            row[j] = float(exact)
            largest = max(abs(Fraction(float(box.lo[j]))), abs(Fraction(float(box.hi[j]))))
            limit += abs(Fraction(float(row[j])) - exact) * largest
        return row, float_above(limit)


def kept(rules: Sequence[LinearRule], rows: FloatArray | Float32Array) -> BoolArray:
    """Return which rows, (m, p), satisfy every rule, exactly."""
    found = [all(rule.value(row) <= 0 for rule in rules) for row in rows]
    return np.array(found, np.bool_).reshape(len(rows))


def towards(rules: Sequence[LinearRule], rows: Float32Array, box: Box, frozen: BoolArray) -> Float32Array:
    """Return rows moved towards the rules within a box: the input that gets there alone takes up what is wrong.

    What comes of it need not satisfy them; `kept` tells.

    Args:
        rules: the rules.
        rows: (m, p).
        box: where they stay.
        frozen: inputs that do not move, (p,).
    """
    lo, hi = box.float32_bounds()
    moved = np.array(rows, np.float32)
    for _ in range(SWEEPS):
        for rule in rules:
            for row in moved:
                _moved(rule, row, lo, hi, frozen)
    return moved


def _moved(rule: LinearRule, row: Float32Array, lo: Float32Array, hi: Float32Array, frozen: BoolArray) -> None:
    """Move one row, in place, by the first input that reaches the rule; that which reaches farthest where none does."""
    over = rule.value(row)
    if over <= 0:
        return
    for j, c in zip(rule.columns, rule.coefficients, strict=True):
        if frozen[j] or lo[j] > hi[j]:
            continue
        exact = Fraction(float(row[j])) - over / c
        exact = min(max(exact, Fraction(float(lo[j]))), Fraction(float(hi[j])))  # a small c asks for more
        wanted = np.float32(exact)
        if (Fraction(float(wanted)) > exact) if c > 0 else (Fraction(float(wanted)) < exact):
            wanted = np.nextafter(wanted, np.float32(-np.inf if c > 0 else np.inf))
        row[j] = min(max(wanted, lo[j]), hi[j])
        over = rule.value(row)
        if over <= 0:
            return
