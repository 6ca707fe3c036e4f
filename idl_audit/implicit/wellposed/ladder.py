"""The ladder of proofs that a loop x = phi(A x + i) has exactly one x for every i, cheap ones first.

See docs/mathematics.md, section 3.3.

1. one state: the closed form; 2. PF: lambda_PF(Gamma |A|) < 1 (paper Thm 2.2); 3. loop(diag), alpha = 1 / (1 - A_ii);
4. loop(1), the centre-radius form; 5. loop(alpha) for other alpha > 0; 6. monotone (paper 8.1). Coupled states have 2.,
then Theorem 2.2 with one norm a group (`groups`), and 6. where phi is the gradient of a convex function. Each is found
by floating-point search and believed only after its witness has been checked with outward rounding.

Elsewhere: existence and uniqueness of the equilibrium.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from idl_audit.implicit.wellposed.contraction import Coefficients, Contraction, contraction
from idl_audit.implicit.wellposed.groups import Coupling, GroupContraction, group_contractions
from idl_audit.implicit.wellposed.monotone import Monotone, balanced, monotone
from idl_audit.values.arrays import FloatArray
from idl_audit.values.rounding import gamma

Proof: TypeAlias = Contraction | GroupContraction | Monotone

_STEPS = tuple(2.0**k for k in (-1, 1, -2, 2, -3, 3, -4, 4))
"""Factors on 1 / (1 - A_ii), and values of a constant alpha, that the search tries."""


def contractions(
    A: Coefficients, least: FloatArray, most: FloatArray, coupled: Coupling | None = None, *, search: bool = True
) -> Iterator[Contraction]:
    """Yield the contractions that hold, in the ladder's order; those of the `search` only where no other did.

    Args:
        A: the loop, (n, n).
        least, most: bounds of phi's slopes, (n,).
        coupled: how states move together, where some are coupled.
    """
    n = len(least)
    entries = None if coupled is None else coupled.matrix
    found = contraction(A, least, most, middle=False, coupled=entries, name="one state" if n == 1 else "PF")
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
    coupled: Coupling | None = None,
    weights: FloatArray | None = None,
) -> Proof | None:
    """Return the first proof of the ladder that holds, or None: then nothing is known of the loop."""
    for found in contractions(A, least, most, coupled):
        return found
    if coupled is not None:
        for by_groups in group_contractions(A, coupled):
            return by_groups
    return monotone_loop(A, least, most, coupled, weights)


def monotone_loop(
    A: Coefficients,
    least: FloatArray,
    most: FloatArray,
    coupled: Coupling | None = None,
    weights: FloatArray | None = None,
    *,
    search: bool = True,
) -> Monotone | None:
    """Return a monotone proof with the weights given, ones where left out, or with others that the search finds."""
    if coupled is not None:
        if coupled.steepest is None:
            return None
        least, most = np.zeros_like(least), coupled.steepest
    found = monotone(A, least, most, weights)
    if found is None and search and bool((least >= 0).all()):
        group = np.arange(len(least)) if coupled is None else coupled.group
        others = balanced(A.matrix, most, group, weights)
        found = None if others is None else monotone(A, least, most, others)
    return found


def gain(
    A: Coefficients,
    least: FloatArray,
    most: FloatArray,
    coupled: Coupling | None = None,
    *,
    search: bool = True,
    weights: FloatArray | None = None,
) -> FloatArray | None:
    """Return N, (n, n), with |dx| <= N |di| for x = phi(A x + i): the entrywise least of what holds, or None."""
    n = len(least)
    one, zero = Coefficients(np.eye(n)), Coefficients(np.zeros((n, n)))
    proofs: list[Proof] = list(contractions(A, least, most, coupled, search=search))
    if coupled is not None:
        proofs += group_contractions(A, coupled)
    ellipsoid = monotone_loop(A, least, most, coupled, weights, search=search and not proofs)
    found = [proof.response(one, one, zero) for proof in (*proofs, *([] if ellipsoid is None else [ellipsoid]))]
    matrices = [matrix for matrix in found if matrix is not None]
    if not matrices:
        return None
    least_gain = np.asarray(np.minimum.reduce(matrices))
    if coupled is not None:  # |dx| <= Gamma (|A| |dx| + |di|) once more
        size = A.magnitude if A.error is None else A.magnitude + A.error
        again = coupled.matrix @ (size @ least_gain + np.eye(n)) * (1 + gamma(4 * n + 16))
        least_gain = np.minimum(least_gain, again)
    return least_gain
