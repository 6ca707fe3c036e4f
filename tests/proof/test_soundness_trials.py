"""1e5 sampled points per activation: none violates a proved bound of a state or an output."""

from __future__ import annotations

import numpy as np
import pytest

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.proof.bounds import Interval
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.values.box import Box
from tests.shared.exact_activations import EXAMPLES
from tests.shared.small_networks import random_network

TRIALS = 100_000
NETWORKS = 5


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_no_point_of_1e5_violates_a_proved_bound(name: str) -> None:
    rng = np.random.default_rng(sorted(ACTIVATIONS).index(name))
    for _ in range(NETWORKS):
        model = random_network(rng, p=3, widths=(7, 6), q=2, activations=[name], skips=True)
        box = Box.around(rng.normal(size=3), float(rng.choice([1e-3, 0.1, 1.0])))
        inputs = Interval.of_boxes(box)
        bounds = backward_state_bounds(model, inputs)
        rows = rng.normal(size=(4, 2))
        lowers = output_lower_bounds(model, inputs, bounds, rows)[0]
        shape = (TRIALS // NETWORKS, 3)
        points = np.where(rng.random(shape) < 0.3, rng.choice([0.0, 1.0], size=shape), rng.random(shape))
        points = np.clip(box.lo + points * (box.hi - box.lo), box.lo, box.hi)
        found = model.solve(points)
        for k, (z, x) in enumerate(zip(found.pre_activations, found.states, strict=True)):
            slack = 1e-12 * (1 + np.abs(z).max())  # of the evaluation in float64
            assert (z >= bounds.z[k].lo - slack).all()
            assert (z <= bounds.z[k].hi + slack).all()
            slack = 1e-12 * (1 + np.abs(x).max())
            assert (x >= bounds.x[k].lo - slack).all()
            assert (x <= bounds.x[k].hi + slack).all()
        y = model(points) @ rows.T
        assert (y >= lowers - 1e-12 * (1 + np.abs(y).max())).all()
