"""Bounds that overflow float64 prove nothing: above all not that a state is dead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from idl_audit.decide.ladder import METHODS, Options, decide_sample
from idl_audit.decide.rungs import PROOFS
from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.model import ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.proof.restriction import living_states
from idl_audit.search.branching import branch
from idl_audit.search.judge import Judge
from idl_audit.values.box import Box
from idl_audit.values.query import Query
from idl_audit.values.verdicts import Verdict
from tests.shared.budgets import few
from tests.shared.small_networks import dense, layered

BOX = Box.between(np.array([-1.0]), np.array([1.0]))
BIG = 1e60


def overflowing() -> ImplicitModel:
    """y = (relu(u + 2), 1e360 relu(u - .9)): class 0 up to u = .9, and class 1 above it, in real arithmetic."""
    layers = [([[BIG]], [-0.9 * BIG]), *[([[BIG]], [0.0])] * 4, ([[0.0], [BIG]], [2.0, 0.0])]
    model = layered(layers, (np.eye(2), np.zeros(2)))
    return replace(model, rows=(replace(model.rows[0], input=dense([[1.0], [0.0]])), *model.rows[1:]))


def network(points):
    return np.stack([points[:, 0] + 2.0, np.where(points[:, 0] > 0.9, np.inf, 0.0)], axis=1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_states_whose_bounds_overflow_are_not_dropped() -> None:
    model, inputs = overflowing(), Interval.of_boxes(BOX)
    bounds = backward_state_bounds(model, inputs)
    assert 0 not in living_states(model, bounds)
    nothing = StateBounds(z={**bounds.z, 0: Interval(np.full((1, 2), np.nan), np.full((1, 2), np.nan))})
    assert 0 not in living_states(model, nothing)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_branching_proves_nothing_of_a_model_that_overflows() -> None:
    query = Query.misclassification(BOX, 2, 0)
    assert not branch(
        overflowing(), query, budget=few(), judge=Judge.of(overflowing(), lambda u: network(u * 0), query)
    ).proved


@pytest.mark.parametrize("method", sorted(PROOFS.intersection(METHODS)))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_method_certifies_a_model_that_overflows(method: str) -> None:
    options = Options(methods=(method,), max_nodes=300)
    result = decide_sample(overflowing(), network, np.zeros(1), 0, BOX, options)
    assert result.verdict in (Verdict.UNKNOWN, Verdict.FALSIFIED)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs", "tanh", "identity", "gelu"])
def test_bounds_of_a_block_never_hold_nan(name: str) -> None:
    block = StateBlock(name, name, ACTIVATIONS[name](), (3,))
    z = Interval(np.array([[-np.inf, np.nan, -1.0]]), np.array([[np.inf, np.nan, np.nan]]))
    for within in (None, Interval(np.full((1, 3), np.nan), np.full((1, 3), np.nan))):
        found = StateBounds().with_block(0, block, z, within)
        for side in (found.z[0].lo, found.z[0].hi, found.x[0].lo, found.x[0].hi):
            assert not np.isnan(side).any()
        assert found.unstable(0, block)[0, :2].all() or name == "identity"
