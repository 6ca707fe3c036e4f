"""Witnesses: what lets anyone check S and well-posedness in a few products, without a solver.

See docs/mathematics.md, sections 3 and 5.7.

A claim is a matrix S, |F (y - y0)| <= S |u - u0| for the rows F. It is accepted where S is entrywise at least the least
of what its parts prove:

    adjoint   r >= 0 with r >= |A|^T Gamma^T r + |C|^T |F|^T e_i, one row r for each output, proves
              S_i <= |B|^T Gamma^T r + |D|^T |F|^T e_i. It is checked block by block: convolutions stay convolutions.
    flat      Y, v and r of a contraction of the whole model (`implicit.wellposed.contraction`).
    norms     v of a contraction of the norms of groups of states (`implicit.wellposed.groups`).
    monotone  a factor L of a monotone model, and its weights (`implicit.wellposed.monotone`).

Each loop has its own proof of well-posedness beside it. Centres and radii of slopes are not part of a witness: they
follow from the model. Everything is rounded against the claim.

Elsewhere: Lipschitz certificate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.upward import pulled, spread
from idl_audit.implicit.wellposed import (
    Coefficients,
    Contraction,
    Coupling,
    GroupContraction,
    Monotone,
    Proof,
    group_contractions,
)
from idl_audit.implicit.wellposed.contraction import centre_of, slopes_in_t, zero_centre
from idl_audit.implicit.wellposed.groups import drafted
from idl_audit.proof.flat import (
    LARGEST,
    coupling,
    flat_bytes,
    flat_contractions,
    flat_model,
    flat_monotone,
    state_vector,
)
from idl_audit.proof.restricted import everywhere
from idl_audit.values.arrays import FloatArray
from idl_audit.values.check import allow
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.rounding import gamma

LARGEST_FLAT = 1536
"""States up to which a witness holds dense matrices."""
LARGEST_ALPHA, LARGEST_Y = 2.0**200, 2.0**60
"""Of a change of variable, and of a row of Y: beyond them, what underflows in a product could matter."""
ALLOWANCE = 1e-9
"""What a claim is above its proof, relative, so that another machine's order of summation accepts it too."""


@dataclass(frozen=True)
class ProofWitness:
    """The arrays of a contraction (alpha, middle, Y, v), of one of norms (norm, v) or of a monotone proof (m, factor).

    A monotone proof may have `weights` beside them, one number a group of coupled states.
    """

    kind: str
    """"contraction", "norms" or "monotone"."""
    arrays: Mapping[str, FloatArray]
    middle: bool = True
    """Of a contraction: whether the centre is the middle of the slopes, or 0."""


@dataclass(frozen=True)
class Witness:
    """A claimed S, shape (r, q) functionals of y by p inputs, and what proves it."""

    S: FloatArray
    loops: Mapping[int, ProofWitness] = field(default_factory=dict)
    """Block number -> the proof that its loop is well-posed."""
    adjoint: Mapping[int, FloatArray] | None = None
    """Block number -> r, shape (number of outputs, n_k)."""
    flat: tuple[tuple[ProofWitness, FloatArray], ...] = ()
    """Contractions of the whole model, each with its rows r, shape (number of outputs, n)."""
    norms: tuple[ProofWitness, ...] = ()
    """Contractions of the norms of groups, of the whole model."""
    monotone: ProofWitness | None = None


@dataclass(frozen=True)
class Checked:
    """The outcome of a check."""

    checked: int
    """Claims that were looked at: one a loop, one an output."""
    refused: tuple[str, ...]
    """Those that do not hold, and why."""

    @property
    def accepted(self) -> bool:
        """Whether every claim holds."""
        return not self.refused


def make_witness(model: ImplicitModel, max_bytes: int | None = None) -> Witness:
    """Return a witness for the least S that this model's proofs give, found and then checked.

    Args:
        model: the model.
        max_bytes: what its arrays may take.

    Raises:
        MemoryLimitError: where they would take more.
        UnsupportedModelError: where nothing bounds S.
    """
    model.refuse_jumps("there is no witness of it")
    model = everywhere(model)
    model.refuse_unbounded()
    loops = loop_witnesses(model)
    if len(loops) < len(model.loops):
        raise UnsupportedModelError(("a loop of the model has no proof of well-posedness, so there is no witness",))
    coupled = _is_coupled(model)
    adjoint = None
    flat: list[tuple[ProofWitness, FloatArray]] = []
    norms: tuple[ProofWitness, ...] = ()
    ellipsoid = None
    limit = LARGEST if max_bytes is None else max_bytes
    if not _is_dense(model) or (model.is_feed_forward and flat_bytes(model) > limit):
        numbers = 3 * model.n_outputs * (model.n_states + model.n_inputs)
        allow(8 * numbers, max_bytes, "a witness of S")
        adjoint = _adjoint_rows(model)
    else:
        dense = flat_model(model, limit=limit)
        slopes = {k: block.everywhere for k, block in enumerate(model.blocks)}
        for proof in flat_contractions(model, dense, slopes):
            rows = proof.adjoint_rows(proof.output_rows(dense.C)) * (1 + ALLOWANCE)
            if proof.accepts(proof.output_rows(dense.C), rows):
                flat.append((_packed(proof, middle=not coupled), rows))
        if model.is_feed_forward and not flat:  # numbers that no dense system holds
            adjoint = _adjoint_rows(model)
        if not model.is_feed_forward:
            groups = coupling(model)
            norms = () if groups is None else tuple(_packed(proof) for proof in group_contractions(dense.A, groups))
            found = flat_monotone(model, dense, slopes)
            ellipsoid = None if found is None else _packed(found)
    draft = Witness(np.zeros((model.n_outputs, model.n_inputs)), loops, adjoint, tuple(flat), norms, ellipsoid)
    proved, _ = _proved(model, draft)
    if proved is None:
        raise UnsupportedModelError(("the proofs of the loops give no bound entry by entry for this model",))
    claim = proved * (1 + ALLOWANCE)
    return replace(draft, S=claim)


def _is_coupled(model: ImplicitModel) -> bool:
    return any(block.activation.coupled for block in model.blocks)


def _is_dense(model: ImplicitModel) -> bool:
    """Return whether proofs of S are dense matrices over all states: else they go block by block."""
    return not model.is_feed_forward or not (_is_coupled(model) or model.n_states > LARGEST_FLAT)


def loop_witnesses(model: ImplicitModel) -> dict[int, ProofWitness]:
    """Return block number -> the proof that its loop has one state for every input, for the loops that have one."""
    return {k: _packed(loop.proof) for k, loop in model.loops.items() if loop.proof is not None}


def check_witness(model: ImplicitModel, witness: Witness) -> Checked:
    """Check every claim of a witness against the model, in float64 with outward rounding.

    The model is to be in the units that S is claimed in.
    """
    model = everywhere(model)
    refused = [
        f"loop '{loop.block.name}': {why}"
        for k, loop in model.loops.items()
        if (why := why_not_well_posed(model, k, witness.loops.get(k)))
    ]
    checked = len(model.loops) + model.n_outputs
    if witness.loops.keys() - model.loops.keys() or (witness.adjoint or {}).keys() - set(range(len(model.blocks))):
        refused.append("it has proofs for blocks or loops that the model does not have")
    if model.unbounded:
        return Checked(checked, (*refused, model.unbounded))
    wanted = (model.n_outputs, model.n_inputs)
    if witness.S.shape != wanted or not np.isfinite(witness.S).all():
        refused.append(f"S has the shape {witness.S.shape} or holds no numbers, and the model needs {wanted}")
        return Checked(checked, tuple(refused))
    proved, reasons = _proved(model, witness)
    refused += reasons
    if proved is None:
        refused.append("nothing in the file proves any bound of S")
        return Checked(checked, tuple(refused))
    lacking = ~(proved <= witness.S)  # NaN proves nothing
    for i in np.flatnonzero(lacking.any(axis=1)):
        excess = np.where(np.isnan(proved[i]), np.inf, proved[i]) - witness.S[i]
        j = int(np.argmax(np.where(lacking[i], excess, -np.inf)))
        refused.append(
            f"output {i}: S[{i}, {j}] = {witness.S[i, j]:.9g} is claimed and {proved[i, j]:.9g} is what was proved"
        )
    return Checked(checked, tuple(refused))


def _packed(proof: Proof | None, *, middle: bool | None = None) -> ProofWitness:
    if isinstance(proof, Monotone):
        own = {"m": np.asarray([proof.m]), "factor": proof.factor}
        return ProofWitness("monotone", own if proof.weights is None else {**own, "weights": proof.weights})
    if isinstance(proof, GroupContraction):
        norm = np.asarray([0.0 if proof.norm == np.inf else proof.norm])
        return ProofWitness("norms", {"norm": norm, "v": np.repeat(proof.v, proof.sizes)})
    assert isinstance(proof, Contraction)
    arrays = {"alpha": proof.alpha, "Y": proof.Y, "v": proof.v}
    return ProofWitness("contraction", arrays, bool(proof.centre.any()) if middle is None else middle)


def why_not_well_posed(model: ImplicitModel, k: int, proof: ProofWitness | None) -> str:
    """Return why a loop's proof does not hold; nothing where it does."""
    loop = model.loops[k]
    if proof is None:
        return "the file has no proof that it has one state for every input"
    unpacked = _unpacked(proof, loop.A, *loop.block.everywhere, loop.coupling)
    if unpacked is None:
        return "the arrays of its proof do not fit the model"
    return "" if unpacked.holds else f"its {proof.kind} proof does not hold"


def _unpacked(
    proof: ProofWitness, A: Coefficients, least: FloatArray, most: FloatArray, coupled: Coupling | None
) -> Proof | None:
    """Return the proof with everything that follows from the model taken from the model; None where it cannot fit."""
    n = len(least)
    shapes: dict[str, tuple[int, ...]] | None = _shapes(n).get(proof.kind)
    if shapes is not None and "weights" in proof.arrays:
        shapes = {**shapes, "weights": (n,)}
    if shapes is None or any(name not in proof.arrays or proof.arrays[name].shape != s for name, s in shapes.items()):
        return None
    if not all(np.isfinite(proof.arrays[name]).all() for name in shapes):
        return None
    if proof.kind == "norms":
        return _unpacked_norms(proof, A, coupled)
    if proof.kind == "monotone":
        return _unpacked_monotone(proof, A, least, most, coupled)
    alpha = proof.arrays["alpha"]
    if not ((alpha >= 1 / LARGEST_ALPHA) & (alpha <= LARGEST_ALPHA)).all():
        return None
    if not (np.abs(proof.arrays["Y"]).sum(axis=1) <= LARGEST_Y).all() or (
        coupled is not None and (proof.middle or not (alpha == 1).all())
    ):
        return None
    ends = slopes_in_t(least, most, alpha)
    if ends is None:
        return None
    centre, radius = centre_of(*ends) if proof.middle else zero_centre(*ends)
    radius = radius if coupled is None else coupled.matrix
    return Contraction(A, alpha, centre, radius, proof.arrays["Y"], proof.arrays["v"], "witness")


def _shapes(n: int) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the arrays that each kind of proof has, for n states."""
    return {
        "monotone": {"m": (1,), "factor": (n, n)},
        "contraction": {"alpha": (n,), "Y": (n, n), "v": (n,)},
        "norms": {"norm": (1,), "v": (n,)},
    }


def _unpacked_norms(proof: ProofWitness, A: Coefficients, coupled: Coupling | None) -> GroupContraction | None:
    """Return the contraction of the norms of groups: the weight of a group is that of its first state."""
    norm = float(proof.arrays["norm"][0])
    if coupled is None or norm not in (0.0, 1.0, 2.0):
        return None
    return drafted(A, coupled, norm or np.inf, proof.arrays["v"][coupled.starts])


def _unpacked_monotone(
    proof: ProofWitness, A: Coefficients, least: FloatArray, most: FloatArray, coupled: Coupling | None
) -> Monotone | None:
    """Return the monotone proof; None for slopes below 0, activations that are no gradients, or weights in a group."""
    weights = proof.arrays.get("weights")
    if weights is not None and not ((weights >= 1 / LARGEST_ALPHA) & (weights <= LARGEST_ALPHA)).all():
        return None
    if coupled is None:
        if not (least >= 0).all():
            return None
    elif coupled.steepest is None or (
        weights is not None and not (weights == weights[coupled.starts][coupled.group]).all()
    ):
        return None
    else:
        most = coupled.steepest
    m, factor = float(proof.arrays["m"][0]), proof.arrays["factor"]
    return Monotone(A, np.maximum(most, 1e-300), m, factor, weights=weights)


def _proved(model: ImplicitModel, witness: Witness) -> tuple[FloatArray | None, list[str]]:
    """Return the entrywise least of what the parts prove, and why some prove nothing."""
    found: list[FloatArray] = []
    refused: list[str] = []
    if witness.adjoint is not None:
        matrix, why = _adjoint_bound(model, witness.adjoint)
        if matrix is None:
            refused.append(f"adjoint rows: {why}")
        else:
            found.append(matrix)
    whole = (*witness.norms, *(() if witness.monotone is None else (witness.monotone,)))
    if (witness.flat or whole) and not _is_dense(model):
        refused.append(f"dense matrices over {model.n_states:,} states: such a model has adjoint rows")
    elif witness.flat or whole:
        dense = flat_model(model)
        slopes = {k: block.everywhere for k, block in enumerate(model.blocks)}
        least, most = (state_vector(model, {k: pair[end] for k, pair in slopes.items()}) for end in (0, 1))
        groups = coupling(model)
        parts: list[tuple[ProofWitness, FloatArray | None]] = [*witness.flat, *((part, None) for part in whole)]
        for part, rows in parts:
            proof = _unpacked(part, dense.A, least, most, groups)
            if proof is None or not proof.holds:
                refused.append(f"{part.kind} of the whole model: its arrays do not fit, or prove no contraction")
                continue
            bound = (
                proof.response(dense.B, dense.C, dense.D)
                if isinstance(proof, Monotone)
                else proof.response(dense.B, dense.C, dense.D, rows)
            )
            if bound is None:
                refused.append(f"{part.kind} of the whole model: r >= Q^T r + H does not hold")
            else:
                found.append(bound)
    return (np.asarray(np.minimum.reduce(found)) if found else None), refused


def _adjoint_rows(model: ImplicitModel) -> dict[int, FloatArray]:
    """Return r of each block for a feed-forward model, newest first: what arrives, a little more."""
    rows: dict[int, FloatArray] = {}
    for k in range(len(model.blocks)):
        rows[k] = _arriving(model, k, rows) * (1 + ALLOWANCE)
    return rows


def _adjoint_bound(model: ImplicitModel, rows: Mapping[int, FloatArray]) -> tuple[FloatArray | None, str]:
    """Return S from rows r that satisfy r >= |A|^T Gamma^T r + |C|^T, or why they do not."""
    q = model.n_outputs
    for k, block in enumerate(model.blocks):
        own = rows.get(k)
        if own is None or own.shape != (q, block.size) or not np.isfinite(own).all() or not (own >= 0).all():
            return None, f"block '{block.name}' has no rows that fit"
    for k, block in enumerate(model.blocks):
        short = ~(rows[k] >= _arriving(model, k, rows))  # NaN is short of everything
        if short.any():
            i, j = (int(x[0]) for x in np.nonzero(short))
            return None, f"r >= |A|^T r + |C|^T fails in block '{block.name}', output {i}, state {j}"
    total = np.zeros((q, model.n_inputs))
    if model.output.input is not None:
        total = total + _pulled(model.output.input, np.eye(q))
    for k, row in enumerate(model.rows):
        if row.input is not None:
            total = total + _pulled(row.input, _behind(model, k, rows))
    return np.asarray(total * (1 + gamma(len(model.blocks) + 8))), ""


def _arriving(model: ImplicitModel, k: int, rows: Mapping[int, FloatArray]) -> FloatArray:
    """Return |C_k|^T + sum over the blocks i that read k of |A_ik|^T Gamma_i^T r_i, rounded upward."""
    total = np.zeros((model.n_outputs, model.blocks[k].size))
    terms = 2
    for linear_map, r in _readers(model, k, rows):
        total = total + _pulled(linear_map, r)
        terms += 1
    return np.asarray(total * (1 + gamma(terms + 4)))


def _readers(model: ImplicitModel, k: int, rows: Mapping[int, FloatArray]) -> list[tuple[LinearMap, FloatArray]]:
    found: list[tuple[LinearMap, FloatArray]] = []
    if k in model.output.states:
        found.append((model.output.states[k], np.eye(model.n_outputs)))
    found += [(row.states[k], _behind(model, i, rows)) for i, row in enumerate(model.rows) if k in row.states]
    return found


def _behind(model: ImplicitModel, i: int, rows: Mapping[int, FloatArray]) -> FloatArray:
    """Return Gamma_i^T r_i, rounded upward."""
    return np.asarray(spread(model.blocks[i].activation, rows[i]) * (1 + gamma(4)))


def _pulled(linear_map: LinearMap, r: FloatArray) -> FloatArray:
    """Return |W_true|^T r, rounded upward."""
    return np.asarray(pulled(linear_map, r) * (1 + gamma(linear_map.column_terms + 8)))
