"""A second model's states in the units of a first one's, by powers of two (docs/mathematics.md, section 9.6).

    x' = diag(s) x'',   A'' = diag(1/s) A' diag(s),   B'' = diag(1/s) B',   b'' = diag(1/s) b',   C'' = C' diag(s)

is the same function for positively homogeneous phi and s > 0; other blocks give up the scale that they keep. A network
and what `convert` made of it have equal coefficients then. Which s is taken is a guess, by the sums of the rows: any
power of two is exact, and one that fits nothing makes bounds looser, never wrong.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.implicit.scaling import LARGEST_EXPONENT, Scale, scaled_by
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.errors import UnsupportedModelError

LIKENESS: Final = 2.0**-6
"""How far the logarithm of a ratio of sums may be from a whole number: rows that were changed otherwise stay."""


def aligned(first: ImplicitModel, second: ImplicitModel) -> tuple[ImplicitModel, ImplicitModel]:
    """Return equal models whose blocks have no kept scale, and the states of the second the units of the first's.

    Models that are in one unit already, or whose numbers leave the range of float64 in another, come back as they are.

    Args:
        first: a feed-forward model.
        second: another with as many blocks.
    """
    plain = tuple(_changed(model, {k: _kept(model, k) for k in model.evaluation_order}) for model in (first, second))
    return plain[0], _changed(plain[1], _exponents(*plain))


def _kept(model: ImplicitModel, k: int) -> IntArray:
    """Return e by which x = 2^-exponent phi(2^exponent z) becomes phi, as an exponent of s: its negative."""
    return -np.broadcast_to(np.asarray(model.blocks[k].exponent, np.int64), model.blocks[k].size)


def _changed(model: ImplicitModel, exponents: dict[int, IntArray]) -> ImplicitModel:
    """Return the model with x = diag(2^exponents) x''; as it is where nothing changes, or something would be lost."""
    if not any(own.any() for own in exponents.values()):
        return model
    for k, own in exponents.items():
        constant = model.rows[k].constant
        with np.errstate(over="ignore", under="ignore"):
            there = np.ldexp(constant, -own)
            back = np.ldexp(there, own)
        if np.abs(own).max(initial=0) > LARGEST_EXPONENT or not np.array_equal(back, constant):
            return model
    try:
        return scaled_by(model, Scale(exponents))
    except UnsupportedModelError:  # beyond the range of float64
        return model


def _exponents(first: ImplicitModel, second: ImplicitModel) -> dict[int, IntArray]:
    """Return e with 2^e about the ratio of the second's sum of |coefficients| of each state to the first's."""
    found: dict[int, IntArray] = {}
    ones = {k: np.zeros(block.size, np.int64) for k, block in enumerate(first.blocks)}
    for k in first.evaluation_order:
        mine, theirs = first.blocks[k], second.blocks[k]
        found[k] = np.zeros(theirs.size, np.int64)
        if mine.size != theirs.size or not theirs.activation.positively_homogeneous:
            continue
        if first.rows[k].states.keys() != second.rows[k].states.keys():
            continue
        with np.errstate(all="ignore"):
            ratio = np.log2(_sums(second.rows[k], found)) - np.log2(_sums(first.rows[k], ones))
            nearest = np.rint(ratio)
            fits = np.isfinite(ratio) & (np.abs(ratio - nearest) <= LIKENESS)
        found[k] = np.where(fits, nearest, 0.0).astype(np.int64)
    return found


def _sums(row: Affine, exponents: dict[int, IntArray]) -> FloatArray:
    """Return the sum of |coefficients| and |constant| of each state, the columns of states times 2^exponents."""
    total = np.abs(row.constant)
    for source, linear_map in row.states.items():
        total = total + linear_map.magnitude.apply(np.ldexp(1.0, exponents[source])[None])[0]
    return total if row.input is None else total + row.input.row_sums
