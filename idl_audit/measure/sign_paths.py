"""The half-step for slopes in any intervals: sensitivity from the signs of paths, at four passes through the network.

A pair of inputs has one slope s_i for each state, and dy = J du, J = sum over the paths from u to y of w_path times the
slopes along it. Where the sign of s_i is known, |s_i| lies between a weak and a strong value, so that the sum of the
positive terms lies between (S_weak + J_weak) / 2 and (S_strong + J_strong) / 2, and that of the negative ones likewise
with -J. Paths through a state whose slope may have either sign add at most S - S_strong (these states count as 0 in
weak and strong). Hence

    |J| <= S - (S_strong + S_weak - |J_strong + J_weak|) / 2,

where S(g) = |C| (I - diag(|g|) |A|)^-1 diag(|g|) |B| + |D| and J(g) = C (I - diag(g) A)^-1 diag(g) B + D. It is at most
S, and |J| where every slope is known. For slopes in [0, g] without D it is the half-step (S + |J|) / 2.
See docs/mathematics.md, section 5.3.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.sensitivity import combined, paper_matrix, roundings, signed_matrix
from idl_audit.values.arrays import FloatArray
from idl_audit.values.rounding import gamma


def sign_path_matrix(
    model: ImplicitModel, slopes: Mapping[int, tuple[FloatArray, FloatArray]], functionals: FloatArray | None = None
) -> FloatArray:
    """Return S - (S_strong + S_weak - |J_strong + J_weak|) / 2, shape (q, p), rounded upward.

    Args:
        model: a feed-forward model; its activations have no steeper slopes than `slopes` says.
        slopes: bounds of every state's slope; block -> (least, greatest). Those of coupled blocks are not read.
        functionals: rows F, shape (r, q), to bound F y in place of y.
    """
    weak, strong = {}, {}
    for k, (least, most) in slopes.items():
        known = ((least >= 0) | (most <= 0)) & (not model.blocks[k].activation.coupled)
        falling = np.abs(least) > np.abs(most)
        strong[k] = np.where(known, np.where(falling, least, most), 0.0)
        weak[k] = np.where(known, np.where(falling, most, least), 0.0)
    whole = paper_matrix(model, functionals)
    taken = np.zeros_like(whole)
    signed = np.zeros_like(whole)
    for chosen in (strong, weak):
        sizes = {k: np.abs(slope) for k, slope in chosen.items()}
        taken += paper_matrix(model, functionals, sizes, uncertain=False)
        signed += signed_matrix(model, chosen, functionals)
    loss = _loss(model, functionals)
    found = whole - np.maximum(taken - np.abs(signed) - 4 * loss, 0.0) / 2
    return np.asarray(np.maximum(found, 0.0) + gamma(8) * whole)


def _loss(model: ImplicitModel, functionals: FloatArray | None) -> FloatArray:
    """Return how far each of the four sums may be from its true value, by rounding here and in the coefficients.

    Of every output and then |F|: differences of outputs cancel, their errors do not.
    """
    worst, certain = paper_matrix(model), paper_matrix(model, uncertain=False)
    rounding = gamma(4 * roundings(model) + 128)
    loss = np.maximum(worst - certain, 0.0) * (1 + rounding) + rounding * worst
    if functionals is None:
        return loss
    own = combined(functionals, loss) * (1 + gamma(model.n_outputs + 8))
    return own + rounding * combined(functionals, worst)
