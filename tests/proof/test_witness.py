"""Witnesses: accepted as they were made, never above the truth, and refused once an entry that matters was altered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.plain import DeclaredBlock, plain_model
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.proof import sensitivity_witness as module
from idl_audit.proof.sensitivity_witness import ProofWitness, Witness, check_witness, make_witness
from idl_audit.values.errors import UnsupportedModelError
from tests.shared.small_networks import random_network

seeds = st.integers(0, 2**32)
KINDS = ("relu", "leaky_relu", "tanh", "sigmoid", "abs", "silu")


def cyclic(seed: int, *, n: int = 5, scale: float = 0.7, kinds: tuple[str, ...] = KINDS) -> ImplicitModel:
    """Return a model with loops, well-posed by one proof or another."""
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        a = rng.normal(size=(n, n)) * (rng.random((n, n)) < 0.5) * scale
        parts = [DeclaredBlock(str(kind), 1, {}) for kind in rng.choice(kinds, n)]
        model = plain_model(
            a,
            rng.normal(size=(n, 3)),
            rng.normal(size=(2, n)),
            rng.normal(size=(2, 3)),
            rng.normal(size=n),
            rng.normal(size=2),
            parts,
        )
        if model.loops and model.is_well_posed:
            return model
    raise AssertionError("no well-posed model among 1000")


@given(seed=seeds)
@settings(deadline=None, max_examples=40)
def test_what_is_made_is_accepted_and_is_the_best_matrix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = cyclic(seed) if seed % 2 else random_network(rng)
    found = make_witness(model)
    outcome = check_witness(model, found)
    assert outcome.accepted, outcome.refused
    assert outcome.checked == len(model.loops) + model.n_outputs
    best = sensitivity_matrix(model, "best")
    assert (best * (1 - 1e-9) <= found.S).all()
    coupled = any(block.activation.coupled for block in model.blocks)
    assert coupled or (best * (1 + 1e-6) + 1e-12 >= found.S).all()


@given(seed=seeds)
@settings(deadline=None, max_examples=40)
def test_a_claim_that_is_a_little_smaller_is_refused(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = cyclic(seed) if seed % 2 else random_network(rng)
    found = make_witness(model)
    i, j = int(rng.integers(found.S.shape[0])), int(rng.integers(found.S.shape[1]))
    if found.S[i, j] < 1e-6:
        return
    altered = found.S.copy()
    altered[i, j] *= 1 - 1e-6
    outcome = check_witness(model, replace(found, S=altered))
    assert not outcome.accepted
    assert f"S[{i}, {j}]" in outcome.refused[0]


def altered(part: ProofWitness, name: str, place: tuple[int, ...], factor: float) -> ProofWitness:
    array = part.arrays[name].copy()
    array[place] = array[place] * factor if array[place] else factor
    return ProofWitness(part.kind, {**part.arrays, name: array}, part.middle)


@pytest.mark.parametrize("name", ["Y", "v", "r", "alpha"])
@given(seed=seeds)
@settings(deadline=None, max_examples=15)
def test_no_altered_entry_makes_a_false_claim_true(name: str, seed: int) -> None:
    """An altered witness may still be one, for a larger S; what it proves is never below the truth."""
    rng = np.random.default_rng(seed)
    model = cyclic(seed, kinds=("relu",))
    try:
        found = make_witness(model)
    except UnsupportedModelError:  # a monotone loop between other states has no flat witness
        return
    u = rng.normal(size=(2000, 3)) * 10 ** rng.uniform(-1, 1, (2000, 1))
    w = u + rng.normal(size=u.shape) * 10 ** rng.uniform(-3, 1, (2000, 1))
    change, size = np.abs(model(u) - model(w)), np.abs(u - w)
    if not found.flat:  # a monotone model without a contraction
        return
    (part, rows), factor = found.flat[0], float(rng.choice([0.0, 0.5, 0.99, 1.01, 2.0, -1.0]))
    if name == "r":
        rows = rows.copy()
        place = tuple(int(rng.integers(n)) for n in rows.shape)
        rows[place] *= factor
    else:
        place = tuple(int(rng.integers(n)) for n in part.arrays[name].shape)
        part = altered(part, name, place, factor)
    one = Witness(np.zeros_like(found.S), found.loops, None, ((part, rows),))
    proved, _ = module._proved(model, one)
    if proved is not None:
        assert (change <= size @ proved.T + 1e-9).all()


def test_smaller_rows_are_refused() -> None:
    model = cyclic(3, kinds=("relu",))
    found = make_witness(model)
    part, rows = found.flat[0]
    outcome = check_witness(model, replace(found, flat=((part, rows * (1 - 1e-6)),), monotone=None))
    assert not outcome.accepted
    assert any("r >= Q^T r + H" in reason for reason in outcome.refused)


def test_a_loop_without_its_proof_is_refused() -> None:
    model = cyclic(5)
    found = make_witness(model)
    assert any("has no proof" in reason for reason in check_witness(model, replace(found, loops={})).refused)


def test_a_proof_whose_weight_is_turned_round_is_refused() -> None:
    model = cyclic(7, kinds=("relu",))
    found = make_witness(model)
    loops = {k: altered(part, "v", (0,), -1.0) for k, part in found.loops.items() if part.kind == "contraction"}
    assert loops
    assert any("does not hold" in reason for reason in check_witness(model, replace(found, loops=loops)).refused)


def test_arrays_of_another_model_are_refused() -> None:
    found = make_witness(cyclic(1, n=4))
    outcome = check_witness(cyclic(2, n=5), found)
    assert not outcome.accepted


def test_a_file_that_proves_nothing_is_refused() -> None:
    model = cyclic(1)
    found = replace(make_witness(model), flat=(), monotone=None)
    assert any("nothing in the file" in reason for reason in check_witness(model, found).refused)


def test_zero_is_no_primal_witness_of_an_ill_posed_model() -> None:
    """relu(2x - 1) has two solutions; with B = 0 every product holds trivially, but no weight proves uniqueness."""
    model = plain_model(
        np.array([[2.0]]),
        np.zeros((1, 1)),
        np.ones((1, 1)),
        np.zeros((1, 1)),
        -np.ones(1),
        np.zeros(1),
        [DeclaredBlock("relu", 1, {})],
    )
    with pytest.raises(UnsupportedModelError, match="no proof"):
        make_witness(model)
    claim = np.zeros((1, 1))
    part = ProofWitness("contraction", {"alpha": np.ones(1), "Y": np.ones((1, 1)), "v": np.ones(1)}, middle=False)
    forged = Witness(claim, {0: part}, None, ((part, np.zeros((1, 1))),))
    assert not check_witness(model, forged).accepted
    assert not check_witness(model, Witness(claim, {0: part}, {0: np.zeros((1, 1))})).accepted


@given(seed=seeds)
@settings(deadline=None, max_examples=25)
def test_adjoint_rows_prove_the_papers_matrix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng)
    rows = module._adjoint_rows(model)
    proved, why = module._adjoint_bound(model, rows)
    assert proved is not None, why
    paper = sensitivity_matrix(model)
    np.testing.assert_allclose(proved, paper, rtol=1e-6, atol=1e-12)
    k = int(rng.integers(len(model.blocks)))
    positive = np.argwhere(rows[k] > 1e-9)
    if positive.size:
        i, j = positive[int(rng.integers(len(positive)))]
        rows[k] = rows[k].copy()
        rows[k][i, j] *= 1 - 1e-6
        assert module._adjoint_bound(model, rows)[0] is None
