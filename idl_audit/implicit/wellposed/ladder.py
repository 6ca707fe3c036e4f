"""The ladder of proofs that a loop x = phi(A x + i) has exactly one x for every i, cheap ones first.

See docs/mathematics.md, section 3.3.

1. one state: the closed form; 2. PF: lambda_PF(Gamma |A|) < 1 (paper Thm 2.2); 3. loop(diag), alpha = 1 / (1 - A_ii);
4. loop(1), the centre-radius form; 5. loop(alpha) for other alpha > 0; 6. monotone (paper 8.1). Each is found by
floating-point search and believed only after its witness has been checked with outward rounding.

Elsewhere: existence and uniqueness of the equilibrium.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from idl_audit.implicit.wellposed.contraction import Coefficients, Contraction, contraction
from idl_audit.implicit.wellposed.monotone import Monotone, monotone
from idl_audit.values.arrays import FloatArray

Proof: TypeAlias = Contraction | Monotone

_STEPS = tuple(2.0**k for k in (-1, 1, -2, 2, -3, 3, -4, 4))
"""Factors on 1 / (1 - A_ii), and values of a constant alpha, that the search tries."""


def contractions(
    A: Coefficients, least: FloatArray, most: FloatArray, coupled: FloatArray | None = None, *, search: bool = True
) -> Iterator[Contraction]:
    """Yield the contractions that hold, in the ladder's order; those of the `search` only where no other did.

    Args:
        A: the loop, (n, n).
        least, most: bounds of phi's slopes, (n,).
        coupled: Gamma, (n, n), with |dx| <= Gamma |dz|, where states are coupled.
    """
    n = len(least)
    found = contraction(A, least, most, middle=False, coupled=coupled, name="one state" if n == 1 else "PF")
    if found is not None:
        yield found
    if coupled is not None:
        return
    any_found = found is not None
    diagonal = np.diagonal(A.matrix)
    eliminates = bool((diagonal < 1).all()) and bool((least >= 0).all() and (most <= 1 + 1e-9).all())
    candidates: list[tuple[str, FloatArray]] = []
    if eliminates:
        candidates.append(("one state" if n == 1 else "loop(diag)", 1 / (1 - diagonal)))
    unit = bool(((least == 0) & (most <= 1 + 1e-9)).all())
    candidates.append(("loop(1)" if unit else "centre-radius", np.ones(n)))
    for name, alpha in candidates:
        found = contraction(A, least, most, alpha=alpha, name=name)
        if found is not None:
            any_found = True
            yield found
    if any_found or not search or not eliminates:
        return
    for step in _STEPS:
        for alpha in (step / (1 - diagonal), np.full(n, step)):
            found = contraction(A, least, most, alpha=alpha, name="loop(alpha)")
            if found is not None:
                yield found
                return


def prove(
    A: Coefficients,
    least: FloatArray,
    most: FloatArray,
    coupled: FloatArray | None = None,
    weights: FloatArray | None = None,
) -> Proof | None:
    """Return the first proof of the ladder that holds, or None: then nothing is known of the loop."""
    for found in contractions(A, least, most, coupled):
        return found
    return monotone(A, least, most, weights) if coupled is None else None


def gain(
    A: Coefficients,
    least: FloatArray,
    most: FloatArray,
    coupled: FloatArray | None = None,
    *,
    search: bool = True,
    weights: FloatArray | None = None,
) -> FloatArray | None:
    """Return N, (n, n), with |dx| <= N |di| for x = phi(A x + i): the entrywise least of what holds, or None."""
    n = len(least)
    one, zero = Coefficients(np.eye(n)), Coefficients(np.zeros((n, n)))
    found = [proof.response(one, one, zero) for proof in contractions(A, least, most, coupled, search=search)]
    ellipsoid = monotone(A, least, most, weights) if coupled is None else None
    if ellipsoid is not None:
        found.append(ellipsoid.response(one, one, zero))
    matrices = [matrix for matrix in found if matrix is not None]
    return np.asarray(np.minimum.reduce(matrices)) if matrices else None
