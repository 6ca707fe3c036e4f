"""A chain may not leave out states of blocks beside a map that would be rounded on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from idl_audit.implicit.linear_maps import Reindexed, Selection
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.proof.restriction import is_dead_elsewhere, living_states
from idl_audit.values.box import Box
from tests.shared.small_networks import dense, layered


def two_states() -> ImplicitModel:
    """x = relu((u, -5)), y = x: the second state is dead."""
    return layered([([[1.0], [0.0]], [0.0, -5.0])], (np.eye(2), np.zeros(2)))


def test_products_of_maps_keep_their_blocks_whole() -> None:
    plain = two_states()
    inputs = Interval.of_boxes(Box.between(np.array([-1.0]), np.array([1.0])))
    bounds = backward_state_bounds(plain, inputs)
    kept = {0: np.array([0])}
    assert is_dead_elsewhere(plain, bounds, kept)
    thirds = Selection.diagonal(np.full(2, 1 / 3))
    product = Reindexed(left=thirds, core=dense(np.eye(2) * 0.1), right=thirds)
    model = replace(plain, output=replace(plain.output, states={0: product}))
    assert living_states(model, bounds) == {}
    assert not is_dead_elsewhere(model, bounds, kept)
