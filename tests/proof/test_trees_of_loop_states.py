"""Trees of hidden states over a block that reads its own states: what it reads of them counts."""

from __future__ import annotations

import numpy as np
import pytest

from idl_audit.proof.bounds import Interval
from idl_audit.proof.chain import Chain, Leaves, StateTrees
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.leaves import prove_leaves
from idl_audit.values.box import Box
from idl_audit.values.query import Conjunction, Query
from tests.shared.cyclic_models import plain
from tests.shared.format_1 import refused as refused_chain

BOX = Box.between(np.array([1.0]), np.array([2.0]))


def halves():
    """x = relu(x / 2 + u) = 2 u in [2, 4], y = x."""
    return plain([[0.5]], [[1.0]], [[1.0]])


def test_a_forged_tree_of_a_loop_is_refused():
    tree = StateTrees(0, np.array([0]), np.array([-1.0]), np.array([0]), {}, {}, {})
    leaf = Leaves(
        0, [{}], [{}], [{0: np.array([[-1.0]], np.float32)}], [1], [{}], after=1
    )  # lam = 0: y >= -(bound of z)
    at_least = Query(BOX, (Conjunction(np.array([[-1.0]]), np.array([2.5])),))  # y >= 2.5, as at u = 2
    assert refused_chain(halves(), at_least, Chain(rounds=[[tree]], trees={0: leaf}))


def test_leaves_of_a_loops_own_z_hold():
    model, inputs = halves(), Interval.of_boxes(BOX)
    bounds = interval_bounds(model, inputs)
    for sign, truth in ((1.0, 2.0), (-1.0, -4.0)):
        for multiplier in (-3.0, -1.0, 0.0, 1.0):
            splits = {0: np.array([[multiplier]], np.float32)}
            assert prove_leaves(model, inputs, bounds, np.array([[sign]]), {}, splits, block=0)[0] <= truth


def test_a_pass_that_would_leave_a_block_out_is_refused():
    model, inputs = halves(), Interval.of_boxes(BOX)
    wrong = Functionals(model.rows[0], np.ones((1, 1)), 1)
    with pytest.raises(ValueError, match="older ones"):
        lower_bound(model, inputs, interval_bounds(model, inputs), wrong, lambda k, v: v)
