"""Whatever decided a query, there is a proof file of it, and `verify` accepts it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.decide.ladder import Options, decide_query
from idl_audit.decide.proofs import Recorded, proof_of
from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.state_bounds import bound_set, prepare
from idl_audit.proof.bounds import Interval
from idl_audit.proof.check import check
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.files.claims import About, Ball, PropertyClaim, SampleClaim
from idl_audit.proof.files.file import ProofFile, read_meta, read_proof, write_proof
from idl_audit.proof.linear_bounds import line_multipliers
from idl_audit.proof.proof import trivial
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.budget import Budget
from idl_audit.values.npz import NpzFile
from idl_audit.values.query import Conjunction, Query, plain
from idl_audit.values.verdicts import Verdict
from tests.shared.cyclic_models import plain as cyclic
from tests.shared.joint_properties import of_network
from tests.shared.small_networks import layered, minimum_by_patterns, random_network

ABOUT = About("0" * 64)


def network(model: ImplicitModel):
    return lambda u: model(u.astype(float))


def proved(model: ImplicitModel, query: Query, recorded: Recorded | None = None, nodes: int = 4000):
    found = proof_of(model, network(model), query, recorded, budget=Budget.of(nodes=nodes))
    assert found is None or check(model, plain(query), found) == []
    return found


def reread(path: Path, model: ImplicitModel, found: ProofFile) -> ProofFile:
    write_proof(path, found, tool="a test", force=True)
    with NpzFile(path) as file:
        return read_proof(file, read_meta(file), model)


def nearly(model: ImplicitModel, rng: np.random.Generator, share: float = 0.02) -> Query:
    """A query without counterexamples that bounds without splits hardly prove."""
    p, q = model.n_inputs, model.n_outputs
    box, row = Box.between(np.full(p, -1.0), np.ones(p)), rng.normal(size=q)
    least = minimum_by_patterns(model, row, box)
    return Query(box, (Conjunction(row[None], np.array([-least + share * (1 + abs(least))])),))


@pytest.mark.parametrize("seed", range(6))
def test_nothing_needs_to_be_recorded(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(5, 5), q=2, activations=("relu", "leaky_relu"))
    query = nearly(model, rng)
    found = proved(model, query)
    assert found is not None
    file = ProofFile(ABOUT, PropertyClaim("p", "1" * 64, (plain(query),)), (found,))
    assert reread(tmp_path / "p.npz", model, file).checked(model).refused == ()
    false = replace(plain(query), alternatives=(Conjunction(query.alternatives[0].rows, np.array([-9.0])),))
    assert check(model, false, found) != []


def test_what_only_intervals_prove() -> None:
    """y = relu(u) - relu(u - 3) + ..., where the usual line below is worse than the interval."""
    hidden = (np.array([[1.0]]), np.array([0.2]))
    model = layered([hidden], ([[1.0]], [0.01]))
    query = Query(Box.between(np.array([-1.0]), np.array([1.0])), (Conjunction(np.array([[1.0]]), np.zeros(1)),))
    assert check(model, query, trivial(1)) != []
    assert proved(model, query) is not None


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_a_proof_over_u_card_proves_what_holds_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=4, widths=(5, 4), q=3, activations=("relu",))
    centre, k = rng.normal(size=4).astype(np.float32).astype(float), int(rng.integers(1, 4))
    label = int(model(centre[None]).argmax())
    eps = float(10 ** rng.uniform(-2, -0.3))
    clip = (float(centre.min() - 0.2), float(centre.max() + 0.1)) if rng.random() < 0.5 else None
    claim = SampleClaim(Ball(centre, eps, None, clip, k), label, 0)
    (query,) = claim.queries(model)
    points = np.repeat(centre[None], 4000, axis=0)
    lo, hi = query.box.lo, query.box.hi
    for row in points:
        chosen = rng.choice(4, size=k, replace=False)
        ends = np.where(rng.random(k) < 0.5, lo[chosen], hi[chosen])
        row[chosen] = np.where(rng.random(k) < 0.5, rng.uniform(lo[chosen], hi[chosen]), ends)
    wrong = bool((model(points).argmax(axis=1) != label).any())
    found = proved(model, query, nodes=300)
    assert not (wrong and found is not None)
    if found is not None:
        assert ProofFile(ABOUT, claim, (found,)).checked(model).refused == ()


def test_u_card_is_proved_where_its_box_is_not(tmp_path: Path) -> None:
    """y = (2.5, u0 + u1 + u2): one input within 1 moves the sum by 1, all of them move it by 3."""
    hidden = (np.vstack([np.ones((1, 3)), -np.ones((1, 3))]), np.zeros(2))
    model = layered([hidden], ([[0.0, 0.0], [1.0, -1.0]], [2.5, 0.0]))
    for k, holds in ((1, True), (2, True), (3, False), (None, False)):
        claim = SampleClaim(Ball(np.zeros(3), 1.0, None, None, k), 0, 7)
        found = proved(model, claim.queries(model)[0])
        assert (found is not None) == holds, k
        if found is not None:
            back = reread(tmp_path / "s.npz", model, ProofFile(ABOUT, claim, (found,)))
            assert back.checked(model).refused == ()
            assert back.claim.ball.cardinality == k
            wider = replace(back, claim=replace(back.claim, ball=replace(back.claim.ball, cardinality=3)))
            assert wider.checked(model).refused != ()


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_sparse_bound_is_that_of_the_corners(k: int) -> None:
    """A linear network: the least of w . u over U_card is that of its corners, and no input beyond p counts."""
    rng = np.random.default_rng(k)
    w = rng.normal(size=(3, 4))
    model = layered([(np.eye(4), np.full(4, 100.0))], (w, -100 * w.sum(axis=1)))
    ball = SparseBall.around(rng.normal(size=4), 0.5, k)
    inputs = Interval.of_set(ball)
    bounds = bound_set(prepare(model, ("interval",), sparse=True), ball).states
    found = lower_bound(
        model, inputs, bounds, Functionals.of_outputs(model, np.eye(3)), line_multipliers(model, bounds)
    )
    gains = np.sort(np.abs(w) * 0.5, axis=1)[:, ::-1][:, :k].sum(axis=1)
    exact = w @ ball.centre - gains
    assert (found[0] <= exact).all()
    assert found[0] == pytest.approx(exact, abs=1e-9)


def test_a_property_of_a_loop_has_a_proof() -> None:
    """x = relu(x / 2 + u), u in [1, 2]: y = 2 u lies above 1.9, by an offset that the tree must prove."""
    model = cyclic([[0.5]], [[1.0]], [[1.0]])
    box = Box.between(np.array([1.0]), np.array([2.0]))
    query = Query(box, (Conjunction(np.array([[1.0]]), np.array([-1.9])),))
    assert proved(model, query) is not None
    false = Query(box, (Conjunction(np.array([[1.0]]), np.array([-2.1])),))
    assert proved(model, false) is None


def test_which_rows_are_strict_is_kept_in_the_file(tmp_path: Path) -> None:
    model = layered([(np.array([[1.0]]), np.array([0.2]))], ([[1.0], [2.0]], [0.01, 0.5]))
    box, offsets = Box.between(np.array([-1.0]), np.array([1.0])), np.zeros(2)
    for strict in ([False, False], [True, False], [True, True]):
        query = Query(box, (Conjunction(np.eye(2), offsets, (), np.array(strict)),))
        found = proved(model, query)
        assert found is not None
        file = ProofFile(ABOUT, PropertyClaim("p", "1" * 64, (plain(query),)), (found,))
        again = reread(tmp_path / "p.npz", model, file)
        assert again.checked(model).refused == ()
        assert isinstance(again.claim, PropertyClaim)
        assert again.claim.asked[0].alternatives[0].strict.tolist() == strict
        with NpzFile(tmp_path / "p.npz") as archive:
            assert ("part.0.alternative.0.strict" in archive.headers) == any(strict)


def joint_query(seed: int, sizes: tuple[int, ...]) -> tuple[ImplicitModel, Query]:
    """Rows over a box that are infeasible together, and none of them alone."""
    made = of_network(np.random.default_rng(seed), sizes, "unsat", name="n")
    weights = [(w.T, b) for w, b in zip(made.weights, made.biases, strict=True)]
    box = Box.between(np.full(sizes[0], made.lo), np.full(sizes[0], made.hi))
    return layered(weights[:-1], weights[-1]), Query(box, (Conjunction(np.eye(sizes[-1]), -made.limits),))


def test_rows_together_come_before_boxes() -> None:
    model, query = joint_query(0, (3, 10, 10, 3))
    found = proved(model, query)
    assert found is not None
    assert found.n_leaves < 100
    assert any(goals.own is not None for goals in found.goals)


def test_a_large_tree_of_boxes_is_left_for_a_small_one_of_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idl_audit.decide.proofs.MANY_LEAVES", 16)
    model, query = joint_query(5, (4, 10, 10, 6))
    options = Options(methods=("split",), record=True, max_nodes=20_000)
    result = decide_query(model, network(model), query, options)
    assert result.verdict is Verdict.CERTIFIED
    assert result.recorded is not None
    assert result.recorded.splits is not None
    boxes = len(result.recorded.splits.inputs) // 2
    found = proved(model, query, result.recorded)
    assert found is not None
    assert found.n_leaves * 8 <= boxes
