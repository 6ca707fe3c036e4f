"""Verdicts on limits, places among the first and pixels: against exact minima, enumeration and samples; and proofs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.decide.demands import Decision, decide_demand
from idl_audit.decide.ladder import Options, Result
from idl_audit.decide.proofs import proof_of
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.files.claims import About, Ball, DemandClaim
from idl_audit.proof.files.file import ProofFile
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.demand import AmongFirst, Demand, Limits, PixelClasses, within
from idl_audit.values.verdicts import Reason, Verdict
from tests.shared.small_networks import ExactModel, layered, random_network, some_points

seeds = st.integers(0, 2**32 - 1)
CERTIFIED, FALSIFIED = Verdict.CERTIFIED, Verdict.FALSIFIED


def decided(model: ImplicitModel, sample: FloatArray, box: Box, demand: Demand, **options: object) -> Result:
    chosen = Options(**({"time_limit": 20.0, "max_nodes": 2000} | options))  # type: ignore[arg-type]
    network = lambda points: model(points.astype(np.float64))  # noqa: E731
    return decide_demand(Decision(model, network, sample, box, chosen, chosen.budget), demand)


def case(seed: int, q: int = 3) -> tuple[np.random.Generator, ImplicitModel, FloatArray, Box]:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(4, 3), q=q)
    sample = rng.normal(size=2).astype(np.float32).astype(np.float64)
    return rng, model, sample, Box.around(sample, float(rng.choice([0.05, 0.4])))


@settings(deadline=None, max_examples=15)
@given(seed=seeds)
def test_each_output_within_its_limits_is_what_exact_minima_say(seed: int) -> None:
    rng, model, sample, box = case(seed)
    exact, y0 = ExactModel(model), model(sample[None])[0]
    delta = float(rng.choice([0.02, 0.2, 1.0]))
    limits = within(y0, delta, np.arange(3))
    found = decided(model, sample, box, limits, record=True)
    parts = found.parts
    assert parts is not None
    for i, verdict in enumerate(parts.verdicts):
        unit = np.eye(3)[i]
        least, most = exact.minimum(unit, box), -exact.minimum(-unit, box)
        low, high = (Fraction(limits.values[i]), Fraction(limits.values[3 + i]))
        if verdict is CERTIFIED:
            assert low <= least
            assert most <= high
        if verdict is FALSIFIED:
            assert least < low or most > high
        assert parts.least[i] <= least
        assert parts.greatest[i] >= most
        assert verdict is not Verdict.CLEAN_WRONG
        if low < least - Fraction(1, 10**6) and most < high - Fraction(1, 10**6):
            assert verdict is CERTIFIED  # these networks are small enough for a tree
    worst = {CERTIFIED} == set(parts.verdicts)
    assert (found.verdict is CERTIFIED) == worst
    if worst:
        assert found.lower is not None
        assert found.lower > 0


@settings(deadline=None, max_examples=15)
@given(seed=seeds, k=st.integers(1, 3))
def test_a_label_stays_among_the_first_at_every_sampled_point_where_that_is_certified(seed: int, k: int) -> None:
    rng, model, sample, box = case(seed, q=5)
    y0 = model(sample[None])[0]
    label = int(rng.integers(5))
    place = int(np.sum((y0 > y0[label]) | ((y0 == y0[label]) & (np.arange(5) < label))))
    found = decided(model, sample, box, AmongFirst(label, k))
    points = some_points(rng, box, 500)
    y = model(np.asarray(points, np.float64))
    places = ((y > y[:, [label]]) | ((y == y[:, [label]]) & (np.arange(5) < label))).sum(axis=1)
    assert (found.verdict is Verdict.CLEAN_WRONG) == (place >= k)
    if found.verdict is CERTIFIED:
        assert places.max() < k
    if found.verdict is FALSIFIED:
        assert found.found is not None
        assert box.contains(found.found.point)
    for j in found.beaten:
        assert ExactModel(model).minimum(np.eye(5)[label] - np.eye(5)[j], box) > 0
    if k == 1 and found.verdict in (CERTIFIED, FALSIFIED):
        margins = [ExactModel(model).minimum(np.eye(5)[label] - np.eye(5)[j], box) for j in range(5) if j != label]
        assert (min(margins) > 0) == (found.verdict is CERTIFIED)


def test_no_two_rivals_reach_a_label_that_each_of_them_reaches() -> None:
    """y = (0, u - 0.5, -u - 0.5), |u| <= 1: each rival passes 0, never both: the first two, by combinations alone."""
    model = layered([([[1.0], [-1.0]], [0.0, 0.0])], ([[0, 0], [1, -1], [-1, 1]], [0.0, -0.5, -0.5]))
    box = Box.around(np.zeros(1), 1.0)
    assert decided(model, np.zeros(1), box, AmongFirst(0, 1)).verdict is FALSIFIED
    found = decided(model, np.zeros(1), box, AmongFirst(0, 2))
    assert (found.verdict, found.beaten) == (CERTIFIED, ())


def test_where_combinations_are_too_many_nothing_is_certified_and_points_are_still_found() -> None:
    """40 rivals that all pass the label together at u = 1, or never: k = 10 has 8 * 10^8 combinations."""
    rise = np.vstack([[[0.0]], np.ones((40, 1))])
    for offset, verdict in ((-0.5, FALSIFIED), (-0.999, Verdict.UNKNOWN)):
        model = layered([([[1.0]], [2.0])], (rise, [0.0, *np.full(40, offset - 2)]))
        reach = 1.0 if verdict is FALSIFIED else 0.9995
        found = decided(model, np.zeros(1), Box.around(np.zeros(1), reach), AmongFirst(0, 10))
        assert found.verdict is (FALSIFIED if verdict is FALSIFIED else found.verdict)
        assert found.verdict is not CERTIFIED
    never = layered([([[1.0]], [2.0])], (rise, [0.0, *np.full(40, -4.0)]))
    assert decided(never, np.zeros(1), Box.around(np.zeros(1), 1.0), AmongFirst(0, 10)).verdict is CERTIFIED


def test_rivals_too_many_to_combine_are_unknown() -> None:
    """Intervals over u in [-1, 1] leave all 40 rivals open, y_j = |u| - 1.1, and none ever passes 0."""
    weights = np.vstack([[[0.0, 0.0, 0.0]], np.tile([[1.0, 1.0, -0.5]], (40, 1))])
    model = layered([([[1.0], [-1.0], [0.0]], [0.0, 0.0, 2.2])], (weights, np.zeros(41)))
    box, few = Box.around(np.zeros(1), 1.0), {"methods": ("interval", "attack"), "max_nodes": 10}
    found = decided(model, np.zeros(1), box, AmongFirst(0, 10), **few)
    assert (found.verdict, found.lowers) == (Verdict.UNKNOWN, ())
    assert found.reason is Reason.RELAXATION_GAP


@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_each_pixel_has_a_verdict_that_samples_and_exact_minima_agree_with(seed: int) -> None:
    _, model, sample, box = case(seed, q=6)
    said = model(sample[None])[0].reshape(2, 3)
    labels = said.argmax(axis=0)
    labels[0] = 1 - labels[0]  # one pixel that is wrong without any change
    found = decided(model, sample, box, PixelClasses(labels, 2, np.arange(3)))
    assert found.parts is not None
    assert found.verdict is found.parts.verdicts[0] is Verdict.CLEAN_WRONG
    for pixel in (1, 2):
        row = np.zeros(6)
        row[labels[pixel] * 3 + pixel], row[(1 - labels[pixel]) * 3 + pixel] = 1, -1
        margin = ExactModel(model).minimum(row, box)
        verdict = found.parts.verdicts[pixel]
        if verdict in (CERTIFIED, FALSIFIED):
            assert (margin > 0) == (verdict is CERTIFIED) or abs(margin) < 1e-9
        if margin > 1e-6:
            assert verdict is CERTIFIED


def limits_of(values: list[tuple[int, int, float]]) -> Limits:
    outputs, sides, ends = zip(*values, strict=True)
    return Limits(np.array(outputs), np.array(sides), np.array(ends, float), np.ones(len(values), np.bool_))


def test_parts_of_every_verdict_stand_side_by_side() -> None:
    """y = (u, 2 u, 5, u): above -2, -1, 6 and 0.5 about 1 within 1: kept, kept, wrong before, broken."""
    model = layered([([[1.0]], [4.0])], ([[1.0], [2.0], [0.0], [1.0]], [-4.0, -8.0, 5.0, -4.0]))
    demand = limits_of([(0, 1, -2.0), (1, 1, -1.0), (2, 1, 6.0), (3, 1, 0.5)])
    found = decided(model, np.ones(1), Box.around(np.ones(1), 1.0), demand, record=True)
    assert found.parts is not None
    assert found.parts.verdicts == (CERTIFIED, CERTIFIED, Verdict.CLEAN_WRONG, FALSIFIED)
    assert sorted(np.concatenate(found.parts.groups).tolist()) == [0, 1]
    assert found.parts.least[0] == pytest.approx(0.0, abs=1e-6)


def test_what_a_smaller_set_breaks_is_broken_in_a_larger_one() -> None:
    model = layered([([[1.0]], [4.0])], ([[1.0], [-1.0]], [-4.0, 4.0]))
    demand = limits_of([(0, 1, -0.5), (1, 1, -2.0)])
    small, large = (Box.around(np.zeros(1), eps) for eps in (1.0, 1.5))
    first = decided(model, np.zeros(1), small, demand)
    chosen = Options(methods=("interval",))
    network = lambda points: model(points.astype(np.float64))  # noqa: E731
    decision = Decision(model, network, np.zeros(1), large, chosen, chosen.budget)
    again = decide_demand(decision, demand, first)
    assert again.parts is not None
    assert again.parts.verdicts == (FALSIFIED, CERTIFIED)


# --- proofs ----------------------------------------------------------------------------------------------------------


def proved(model: ImplicitModel, sample: FloatArray, eps: float, demand: Demand) -> ProofFile:
    """Return a claim with its proofs, as certify writes them."""
    box = Box.around(sample, eps)
    found = decided(model, sample, box, demand, record=True)
    assert found.verdict is CERTIFIED
    network = lambda points: model(points.astype(np.float64))  # noqa: E731
    if isinstance(demand, AmongFirst):
        demand, groups, recorded = replace(demand, below=found.beaten), (), (found.recorded,)
    else:
        assert found.parts is not None
        groups, recorded = found.parts.groups, found.parts.recorded
    claim = DemandClaim(Ball(sample, eps), demand, groups, 0)
    proofs = [
        proof_of(model, network, query, own, budget=Options().budget)
        for query, own in zip(claim.queries(model), recorded, strict=True)
    ]
    assert None not in proofs
    return ProofFile(About("0" * 64), claim, tuple(one for one in proofs if one is not None))


def both() -> ImplicitModel:
    """y = (0, u - 0.5, -u - 0.5)."""
    return layered([([[1.0], [-1.0]], [0.0, 0.0])], ([[0, 0], [1, -1], [-1, 1]], [0.0, -0.5, -0.5]))


DEMANDS = {
    "top": AmongFirst(0, 2),
    "limits": limits_of([(1, 1, -1.6), (1, -1, 0.6), (2, -1, 0.6)]),
    "pixels": PixelClasses(np.array([0, 1]), 2, np.arange(2)),
}


@pytest.mark.parametrize("name", DEMANDS)
def test_proofs_hold_and_those_of_more_than_is_true_do_not(name: str) -> None:
    model = both()
    if name == "pixels":
        weights = [[0, 0], [1, -1], [0, 0], [0, 0]]
        model = layered([([[1.0], [-1.0]], [0.0, 0.0])], (weights, [1.5, 0.0, 0.0, 1.5]))
    file = proved(model, np.zeros(1), 1.0, DEMANDS[name])
    assert file.checked(model).accepted
    if name != "top":  # which holds everywhere
        assert not replace(file, claim=replace(file.claim, ball=Ball(np.zeros(1), 40.0))).checked(model).accepted
    assert not replace(file, proofs=()).checked(model).accepted


def test_a_proof_that_two_rivals_never_come_first_together_is_none_that_one_does_not() -> None:
    file = proved(both(), np.zeros(1), 1.0, AmongFirst(0, 2))
    assert isinstance(file.claim, DemandClaim)
    for k, below in itertools.product((1, 2), ((), (1,), (2,), (1, 2))):
        claim = replace(file.claim, demand=AmongFirst(0, k, below))
        accepted = replace(file, claim=claim).checked(both()).accepted
        assert accepted == ((k, below) == (2, ()))
