"""Networks of all operators of the table, drawn at random: no point contradicts what is proved of them."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idl_audit.decide.ladder import Options, decide_sample
from idl_audit.decide.proofs import proof_of
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.lowering import LOWERINGS
from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.local_sensitivity import local_sensitivity
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.check import check
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.budget import UNLIMITED
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.query import Query
from idl_audit.values.verdicts import Verdict
from tests.shared.drawn_networks import BY_NAME, N_OUTPUTS, fitting, network_of
from tests.shared.implicit_models import read
from tests.shared.small_networks import all_corners

SLACK = 1e-9
"""Of values in float64, relative to the largest."""
NAMES = st.lists(st.sampled_from(sorted(BY_NAME)), min_size=1, max_size=3)
SEEDS = st.integers(0, 2**32 - 1)
RADII = (1e-3, 1e-2, 0.1, 0.3, 1.0)


def points_of(rng: np.random.Generator, box: Box, count: int) -> FloatArray:
    """Return corners and points, some of whose entries are ends or middles."""
    shape = (count, box.lo.size)
    shares = np.where(rng.random(shape) < 0.3, rng.choice([0.0, 0.5, 1.0], size=shape), rng.random(shape))
    inside = np.clip(box.lo + shares * (box.hi - box.lo), box.lo, box.hi)
    return np.vstack([all_corners(box), inside])


def holds(values: FloatArray, lo: FloatArray, hi: FloatArray) -> bool:
    """Whether values, those that are numbers, lie within bounds."""
    known = np.isfinite(values)
    slack = SLACK * (1 + np.abs(values[known]).max(initial=0.0))
    return bool((((values >= lo - slack) & (values <= hi + slack)) | ~known).all())


def check_bounds(model: ImplicitModel, box: Box, rng: np.random.Generator, count: int) -> None:
    """Bounds of states, of outputs and of S against points of a box."""
    points, inputs = points_of(rng, box, count), Interval.of_boxes(box)
    rows = np.vstack([np.eye(N_OUTPUTS), -np.eye(N_OUTPUTS), rng.normal(size=(2, N_OUTPUTS))])
    with np.errstate(all="ignore"):  # outside of a curve's domain there are no numbers
        found, y = model.solve(points), model(points)
    known = np.isfinite(y).all(axis=1)

    def check_states(bounds: StateBounds) -> None:
        for k, (z, x) in enumerate(zip(found.pre_activations, found.states, strict=True)):
            assert holds(z, bounds.z[k].lo, bounds.z[k].hi), model.blocks[k].name
            assert holds(x, bounds.x[k].lo, bounds.x[k].hi), model.blocks[k].name

    for bound in (interval_bounds, backward_state_bounds):
        with suppress(UnsupportedModelError):  # a box that leaves a domain
            bounds = bound(model, inputs)
            check_states(bounds)
            lowers = output_lower_bounds(model, inputs, bounds, rows)[0]
            assert holds((y @ rows.T)[known], lowers, np.full_like(lowers, np.inf))
    other = rng.permutation(len(points))
    apart, moved = np.abs(points - points[other]), np.abs(y - y[other])
    both = known & known[other]
    for matrix in (lambda: local_sensitivity(model, box, state_bounds="linear"), lambda: sensitivity_matrix(model)):
        with suppress(UnsupportedModelError):  # no number bounds the slopes
            most = apart[both] @ matrix().T
            assert holds(moved[both], np.zeros_like(most), most)


def check_verdict(model: ImplicitModel, centre: FloatArray, box: Box, rng: np.random.Generator) -> None:
    """A verdict, and the proof that it leaves, against points of its box."""

    def network(points: FloatArray) -> FloatArray:
        return model(points.astype(np.float64))

    with np.errstate(all="ignore"):
        scores = network(centre[None])[0]
        if not np.isfinite(scores).all():
            return
        label, options = int(scores.argmax()), Options(max_nodes=60, record=True)
        found = decide_sample(model, network, centre, label, box, options)
        points = points_of(rng, box, 20_000)
        margins = network(points)
    margins = margins[:, [label]] - np.delete(margins, label, axis=1)
    if found.verdict is Verdict.FALSIFIED:
        assert found.found is not None
        point = found.found.point.astype(np.float64)
        assert ((point >= box.lo) & (point <= box.hi)).all()
        assert network(point[None])[0].argmax() != label
    if found.verdict is Verdict.CERTIFIED:
        assert (margins > -SLACK * (1 + np.abs(margins).max())).all()
        query = Query.misclassification(box, N_OUTPUTS, label)
        proof = proof_of(model, network, query, found.recorded, budget=UNLIMITED)
        assert proof is not None
        assert check(model, query, proof) == []


def drawn(names: list[str], seed: int) -> tuple[ImplicitModel, FloatArray, Box, np.random.Generator]:
    rng = np.random.default_rng(seed)
    n_inputs = int(rng.integers(2, 6))
    model = build_implicit(read(network_of(fitting([BY_NAME[name] for name in names]), rng, n_inputs)))
    centre = rng.normal(size=n_inputs).astype(np.float32).astype(np.float64)
    return model, centre, Box.around(centre, float(rng.choice(RADII))), rng


def test_every_operator_may_be_drawn() -> None:
    assert {case.op for case in BY_NAME.values()} == set(LOWERINGS)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(names=NAMES, seed=SEEDS)
def test_no_point_contradicts_bounds_of_drawn_operators(names: list[str], seed: int) -> None:
    model, _, box, rng = drawn(names, seed)
    check_bounds(model, box, rng, 500)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(names=NAMES, seed=SEEDS)
def test_no_point_contradicts_verdicts_about_drawn_operators(names: list[str], seed: int) -> None:
    model, centre, box, rng = drawn(names, seed)
    check_bounds(model, box, rng, 5000)
    check_verdict(model, centre, box, rng)


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_no_point_contradicts_bounds_of_any_operator(name: str) -> None:
    model, _, box, rng = drawn([name], 0)
    check_bounds(model, box, rng, 2000)
