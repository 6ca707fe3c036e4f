"""The rung of exact arithmetic: borders of small queries are decided, and everything else is left to other rungs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.decide.ladder import Options, Result, climbed, decide_query
from idl_audit.decide.proofs import proof_of
from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.check import check
from idl_audit.proof.exact import phases
from idl_audit.proof.exact.point import INTERVALS, RATIONALS, ExactNetwork, Opinion, exact_outputs
from idl_audit.proof.exact.refutation import ExactQuery
from idl_audit.search.judge import Confirm
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.query import Conjunction, Query, plain
from idl_audit.values.rounding import LEAST
from idl_audit.values.verdicts import Verdict
from tests.proof.test_exact_phases import is_satisfiable, rows
from tests.shared.small_networks import layered

IDENTITY = layered([([[1.0], [-1.0]], [0.0, 0.0])], ([[1.0, -1.0]], [0.0]))
"""y = relu(u) - relu(-u) = u."""
UNIT = Box.between(np.zeros(1), np.ones(1))
THIRD = Fraction(1, 3)


def decide(model: ImplicitModel, query: Query, confirm: Confirm | None = None, *, nodes: int = 3000) -> Result:
    confirm = confirm or ExactNetwork(model, lambda: model)
    return decide_query(
        model,
        lambda u: model(u.astype(np.float64)),
        query,
        Options(time_limit=600.0, max_nodes=nodes, confirm=confirm),
    )


@pytest.mark.parametrize(
    ("alternatives", "verdict"),
    [
        ([rows([[-1.0]], [1], [True])], Verdict.CERTIFIED),  # y > 1
        ([rows([[-1.0]], [1])], Verdict.FALSIFIED),  # y >= 1
        ([rows([[1.0]], [0], [True])], Verdict.CERTIFIED),  # y < 0
        ([rows([[1.0], [-1.0]], [-THIRD, THIRD])], Verdict.FALSIFIED),  # y = 1/3
        ([rows([[1.0], [-1.0]], [-THIRD, THIRD], [False, True])], Verdict.CERTIFIED),
        ([rows([[1.0]], [-THIRD], [True]), rows([[-1.0]], [THIRD], [True])], Verdict.FALSIFIED),  # y != 1/3
        ([rows([[1.0]], [0], [True]), rows([[-1.0]], [1], [True])], Verdict.CERTIFIED),
    ],
)
def test_borders_are_decided(alternatives: list[Conjunction], verdict: Verdict) -> None:
    found = decide(IDENTITY, Query(UNIT, tuple(alternatives)))
    assert found.verdict is verdict
    if verdict is Verdict.CERTIFIED:
        assert found.method == "rational"
        assert min(found.lowers) == LEAST


def test_a_point_that_no_float_is_is_told_exactly() -> None:
    found = decide(IDENTITY, Query(UNIT, (rows([[1.0], [-1.0]], [-THIRD, THIRD]),))).found
    assert found is not None
    assert (found.pinned, found.confirmed_by, found.replays) == ((THIRD,), RATIONALS, False)
    assert found.point[0] == np.float32(1 / 3)


def test_without_exact_arithmetic_nothing_is_said_at_a_border() -> None:
    query = Query(UNIT, (rows([[-1.0]], [1], [True]),))
    for confirm in (lambda query, point: Opinion(None), ExactNetwork(IDENTITY)):
        assert decide(IDENTITY, query, confirm, nodes=20).verdict is Verdict.UNKNOWN


def test_large_queries_are_left_to_other_rungs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "MOST_BENDING", 0)
    straddling = Box.between(-np.ones(1), np.ones(1))
    query = Query(straddling, (rows([[-1.0]], [1], [True]),))
    assert decide(IDENTITY, query, nodes=20).verdict is Verdict.UNKNOWN


def test_it_is_for_kinked_states_and_for_properties() -> None:
    query = Query(UNIT, (rows([[1.0]], [0]),))
    assert {"first rational", "rational"} < set(climbed(IDENTITY, query))
    smooth = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]), ACTIVATIONS["tanh"]())
    classes = layered([([[1.0]], [0.0])], ([[1.0], [0.0]], [0.0, 0.0]))
    assert "rational" not in climbed(smooth, query)
    assert "rational" not in climbed(classes, Query.misclassification(UNIT, 2, 0))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_verdicts_of_the_whole_ladder_are_those_of_all_phases(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 4))
    layer = rng.integers(-2, 3, (width, 2)).astype(float), rng.integers(-1, 2, width).astype(float)
    model = layered([layer], (rng.integers(-2, 3, (1, width)).astype(float), rng.integers(-1, 2, 1).astype(float)))
    box = Box.between(-np.ones(2), np.ones(2))
    corner = [Fraction(int(v)) for v in rng.integers(-1, 2, 2)]
    (value,) = exact_outputs(model, corner)
    sign, strict = float(rng.choice([-1, 1])), bool(rng.integers(2))
    alternative = rows([[sign]], [-int(sign) * value], [strict])
    found = decide(model, Query(box, (alternative,)))
    truth = is_satisfiable(model, box, alternative)
    assert found.verdict is (Verdict.FALSIFIED if truth else Verdict.CERTIFIED)
    if truth:
        assert found.found is not None
        assert found.found.confirmed_by in (INTERVALS, RATIONALS)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_whatever_is_certified_at_a_border_has_a_proof(seed: int) -> None:
    """Two alternatives, one that is met with equality at a corner and one that is not near: strictly, or not."""
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 4))
    layer = rng.integers(-2, 3, (width, 2)).astype(float), rng.integers(-1, 2, width).astype(float)
    model = layered([layer], (rng.integers(-2, 3, (1, width)).astype(float), rng.integers(-1, 2, 1).astype(float)))
    box = Box.between(-np.ones(2), np.ones(2))
    (value,) = exact_outputs(model, [Fraction(int(v)) for v in rng.integers(-1, 2, 2)])
    sign, far = float(rng.choice([-1, 1])), Fraction(int(rng.integers(1, 40)), 8)
    border = rows([[sign]], [-int(sign) * value], [True])
    query = Query(box, (border, rows([[sign]], [-int(sign) * value + far], [False])))
    exact = ExactNetwork(model, lambda: model)

    def network(u: np.ndarray) -> np.ndarray:
        return model(u.astype(np.float64))

    options = Options(time_limit=60.0, max_nodes=3000, confirm=exact, record=True)
    found = decide_query(model, network, query, options)
    if found.verdict is Verdict.CERTIFIED:
        proof = proof_of(model, network, query, found.recorded, budget=Budget.of(nodes=3000), exact=exact)
        assert proof is not None
        assert check(model, plain(query), proof, exact=ExactQuery(query, exact)) == []
        if proof.exact:
            assert check(model, plain(query), proof) != []
