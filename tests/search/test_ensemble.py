"""The attacks of `auto`: points of the exact set that the network itself misclassifies, within a budget of queries."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.commands.options import common
from idl_audit.decide.ladder import Options, Sample, decide_sample, decide_together, samples_at_once
from idl_audit.graph.reader import read_graph
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.model import ImplicitModel
from idl_audit.search.attacks import AttackOptions, Target
from idl_audit.search.ensemble import MEMBERS
from idl_audit.search.pack import Quarry
from idl_audit.search.regions import Regions
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError, OptionError
from idl_audit.values.input_sets import InputSet, NormBall
from idl_audit.values.margins import predictions
from idl_audit.values.query import Query
from idl_audit.values.verdicts import Reason, Verdict
from tests.shared.small_networks import layered, random_network

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
NORMS = ("linf", "l2", "l1")
EPS = {"linf": 0.1, "l2": 0.5, "l1": 2.0}


def around(centre: np.ndarray, eps: float, norm: str) -> InputSet:
    if norm == "linf":
        return Box.around(centre, eps, valid_lo=0.0, valid_hi=1.0)
    return NormBall.around(centre, eps, norm, valid_lo=0.0, valid_hi=1.0)  # type: ignore[arg-type]


def is_member(point: np.ndarray, centre: np.ndarray, eps: float, norm: str) -> bool:
    """Whether a point lies in the set, in rational arithmetic."""
    change = [abs(Fraction(float(u)) - Fraction(float(c))) for u, c in zip(point, centre, strict=True)]
    size = {"linf": max(change), "l2": sum(d * d for d in change), "l1": sum(change)}[norm]
    return bool(size <= Fraction(eps) ** (2 if norm == "l2" else 1)) and all(0 <= float(u) <= 1 for u in point)


def linear(weights: np.ndarray, bias: np.ndarray) -> ImplicitModel:
    """Return y = W u + b for u >= -10."""
    p = weights.shape[1]
    return layered([(np.eye(p), np.full(p, 10.0))], (weights, bias - 10.0 * weights.sum(axis=1)))


def hunted(
    model: ImplicitModel, network: object, centre: np.ndarray, label: int, inputs: InputSet, **more: int
) -> Target:
    query = Query.misclassification(inputs, model.n_outputs, label, more.get("goal"))
    return Target.of(model, network, centre, query)  # type: ignore[arg-type]


def own(model: ImplicitModel) -> object:
    return lambda points: model(points.astype(np.float64))


def digits() -> tuple[ImplicitModel, np.ndarray, np.ndarray]:
    model = build_implicit(read_graph(SAMPLES / "digits_mlp.onnx"))
    with np.load(SAMPLES / "digits_mlp.npz") as arrays:
        return model, arrays["inputs"].reshape(-1, 64).astype(np.float64), arrays["labels"]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", MEMBERS)
def test_what_is_found_lies_in_the_exact_set_and_is_misclassified(name: str, norm: str) -> None:
    model, rows, labels = digits()
    targets = [
        hunted(model, own(model), x, int(y), around(x, 2 * EPS[norm], norm))
        for x, y in zip(rows[:12], labels[:12], strict=True)
    ]
    MEMBERS[name]([Quarry(one, np.random.default_rng(0)) for one in targets], 300)
    found = [(one, one.judge.found) for one in targets if one.judge.found is not None]
    assert len(found) >= 4
    for one, point in found:
        assert point.point.dtype == np.float32
        assert is_member(point.point, one.centre, 2 * EPS[norm], norm)
        assert predictions(model(point.point[None].astype(np.float64)))[0] != one.label


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", MEMBERS)
@settings(deadline=None, max_examples=3)
@given(seed=st.integers(0, 1000))
def test_the_boundary_of_a_half_space_is_found_and_nothing_before_it(name: str, norm: str, seed: int) -> None:
    """Two classes whose difference is g . u + c: the distance of the boundary is known."""
    rng = np.random.default_rng(seed)
    g = rng.normal(size=5) * np.exp(rng.normal(size=5))
    centre = rng.uniform(0.4, 0.6, 5)
    dual = {"linf": np.abs(g).sum(), "l2": np.linalg.norm(g), "l1": np.abs(g).max()}[norm]
    eps = 0.1
    for share, expected in ((0.7, True), (1.01, False)):
        model = linear(np.stack([g, np.zeros(5)]), np.array([share * eps * dual - g @ centre, 0.0]))
        one = hunted(model, own(model), centre, 0, around(centre, eps, norm))
        MEMBERS[name]([Quarry(one, np.random.default_rng(0))], 400)
        assert one.judge.has_won is expected


def test_a_goal_is_the_only_class_that_counts() -> None:
    model, rows, labels = digits()
    for name, member in MEMBERS.items():
        goal = (int(labels[0]) + 1) % 10
        one = hunted(model, own(model), rows[0], int(labels[0]), around(rows[0], 0.9, "linf"), goal=goal)
        member([Quarry(one, np.random.default_rng(0))], 300)
        assert one.judge.found is not None, name
        assert one.judge.found.predicted == goal


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("queries", [1, 7, 250])
def test_no_attack_evaluates_more_points_than_it_may(name: str, queries: int) -> None:
    model, rows, labels = digits()
    seen: list[int] = []

    def asked(points: np.ndarray) -> np.ndarray:
        seen.append(len(points))
        return np.asarray(model(points.astype(np.float64)))

    targets = [hunted(model, asked, x, int(y), around(x, 1e-4, "linf")) for x, y in zip(rows[:3], labels, strict=False)]
    MEMBERS[name]([Quarry(one, np.random.default_rng(0)) for one in targets], queries)
    # the classes that are aimed at are found with a query; so small a set holds nothing that is shown to a judge
    assert all(0 < one.judge.queries <= queries + 1 for one in targets)
    assert sum(seen) == (3 * queries if name == "square" else 0)


def test_squares_see_the_network_alone() -> None:
    """Where the network is not its implicit form, slopes mislead, and what is asked of the network itself finds."""
    flat = linear(np.zeros((2, 4)), np.array([1.0, 0.0]))
    bent = linear(np.array([[0.0] * 4, [1.0, -1.0, 0.0, 0.0]]), np.array([0.15, 0.0]))
    centre = np.full(4, 0.5)
    found = {}
    for name, member in MEMBERS.items():
        one = hunted(flat, own(bent), centre, 0, around(centre, 0.1, "linf"))
        member([Quarry(one, np.random.default_rng(0))], 100)
        found[name] = one.judge.has_won
    assert found == {"apgd-ce": False, "apgd-t": False, "fmn": False, "square": True}


def test_squares_are_squares_of_pixels() -> None:
    """Every move of a picture changes a square in each of its channels, and what is no picture has none."""
    model = build_implicit(read_graph(SAMPLES / "digits_conv.onnx"))
    seen: list[np.ndarray] = []

    def asked(points: np.ndarray) -> np.ndarray:
        seen.append(points[0].astype(np.float64))
        return np.array([[1.0, 0.0] + [0.0] * 8]) - (len(seen) == 1)  # nothing is better than the first

    centre = np.full(64, 0.5)
    one = hunted(model, asked, centre, 0, around(centre, 0.25, "linf"))
    assert one.picture == (1, 8, 8)
    MEMBERS["square"]([Quarry(one, np.random.default_rng(0))], 30)
    first = seen[0].reshape(8, 8)
    assert (first == first[:1]).all()  # columns
    for point in seen[1:]:
        rows, columns = np.nonzero(point.reshape(8, 8) != first)
        if rows.size:
            window = point.reshape(8, 8)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert len(np.unique(window)) == 1
    digit = digits()[0]
    assert hunted(digit, own(digit), centre, 0, around(centre, 0.25, "linf")).picture == ()


def test_an_output_that_is_no_number_ends_no_attack() -> None:
    """A network whose outputs overflow: no warning, no error; what is found is another class, or none."""
    model = linear(np.array([[1e200] * 3, [-1e200] * 3]), np.zeros(2))
    centre = np.full(3, 0.5)
    for member in MEMBERS.values():
        one = hunted(model, own(model), centre, 0, around(centre, 0.4, "linf"))
        member([Quarry(one, np.random.default_rng(0))], 60)
        assert one.judge.found is None or one.judge.found.predicted != 0


def test_the_clock_ends_an_attack() -> None:
    model, rows, labels = digits()
    one = hunted(model, own(model), rows[0], int(labels[0]), around(rows[0], 1e-4, "linf"))
    late = Target(model, one.centre, one.query, one.judge.within(Budget.of(0.0)))
    for member in MEMBERS.values():
        with pytest.raises(BudgetError):
            member([Quarry(late, np.random.default_rng(0))], 100)


# --- sets of many samples ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(norm=st.sampled_from(NORMS), seed=st.integers(0, 10_000))
def test_points_are_put_into_their_sets_and_in_two_norms_as_near_as_possible(norm: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, p = 3, 6
    centres = rng.random((m, p))
    eps = 10.0 ** rng.uniform(-2, 0.5, m)
    regions = Regions.of([around(c, float(e), norm) for c, e in zip(centres, eps, strict=True)], list(centres))
    points = centres + rng.normal(size=(m, p)) * 3
    near = regions.onto(points)
    assert (regions.distance(near) <= regions.radius * (1 + 1e-9)).all()
    assert ((near >= regions.lo - 1e-12) & (near <= regions.hi + 1e-12)).all()
    assert (regions.distance(regions.drawn(rng)) <= regions.radius * (1 + 1e-9)).all()
    if norm != "l2":  # (u - Pu) . (z - Pu) <= 0 for every z of the set
        for _ in range(20):
            others = regions.onto(centres + rng.normal(size=(m, p)))
            assert ((points - near) * (others - near)).sum(axis=1).max() <= 1e-5


@settings(deadline=None, max_examples=20)
@given(norm=st.sampled_from(NORMS), seed=st.integers(0, 10_000))
def test_a_step_goes_downhill_by_its_size_and_corners_are_lowest(norm: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0.3, 0.7, (2, 5))
    regions = Regions.of([around(c, 0.2, norm) for c in centres], list(centres))
    slopes = rng.normal(size=(2, 5))
    size = np.full(2, 0.1 if norm != "linf" else 0.5)
    ahead = regions.ahead(centres, slopes, size, np.full(2, 1.0))
    np.testing.assert_allclose(regions.distance(ahead), size)
    np.testing.assert_allclose(((centres - ahead) * slopes).sum(axis=1), size * regions.dual(slopes), rtol=1e-5)
    lowest = (regions.corner(slopes) * slopes).sum(axis=1)
    for _ in range(20):
        assert (lowest <= (regions.drawn(rng) * slopes).sum(axis=1) + 1e-6).all()


def test_sets_of_another_kind_are_no_regions() -> None:
    with pytest.raises(ValueError, match="boxes or balls of one norm"):
        Regions.of([SparseBall.around(np.zeros(3), 0.1, 1)], [np.zeros(3)])
    mixed = [around(np.full(3, 0.5), 0.1, norm) for norm in ("l1", "l2")]
    with pytest.raises(ValueError, match="boxes or balls of one norm"):
        Regions.of(mixed, [np.full(3, 0.5)] * 2)


# --- as methods -------------------------------------------------------------------------------------------------------


def test_auto_is_spelt_out() -> None:
    assert tuple(MEMBERS) == common.AUTO == Options(("auto",)).methods
    assert Options(("auto", "lp", "fmn")).methods == (*MEMBERS, "lp")


def test_sets_that_they_do_not_know_are_refused_by_name() -> None:
    model, rows, labels = digits()
    sparse = SparseBall.around(rows[0], 0.1, 3)
    with pytest.raises(OptionError, match="the method apgd-ce is not for sets in which few inputs change"):
        decide_sample(model, own(model), rows[0], int(labels[0]), sparse, Options(("auto",)))  # type: ignore[arg-type]
    ball = around(rows[0], 0.5, "l2")
    with pytest.raises(OptionError, match="the method quick is not for balls of the norm l2"):
        decide_sample(model, own(model), rows[0], int(labels[0]), ball, Options(("quick",)))  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", NORMS)
def test_a_batch_is_told_what_each_sample_is_told_alone(norm: str) -> None:
    model, rows, labels = digits()
    options = Options(("auto",), time_limit=600.0, attack=AttackOptions(max_queries=60))
    samples = [Sample(x, int(y), around(x, EPS[norm], norm)) for x, y in zip(rows[:10], labels[:10], strict=True)]
    found = decide_together(model, own(model), samples, options)  # type: ignore[arg-type]
    verdicts = set()
    for sample, result in zip(samples, found, strict=True):
        alone = decide_sample(model, own(model), sample.point, sample.label, sample.inputs, options)  # type: ignore[arg-type]
        assert result is not None
        assert (result.verdict, result.method) == (alone.verdict, alone.method)
        assert result.queries > 0
        if result.verdict is Verdict.UNKNOWN:
            assert (result.reason, result.lower) == (Reason.ATTACKS_FAILED, None)
        verdicts.add(result.verdict)
    assert verdicts == {Verdict.FALSIFIED, Verdict.UNKNOWN}


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_attacked_in_a_set_is_attacked_in_larger_ones(norm: str) -> None:
    model, rows, labels = digits()
    options = Options(("auto",), time_limit=600.0, attack=AttackOptions(max_queries=100))
    radii = [EPS[norm] * share for share in (0.5, 1.0, 2.0)]
    found = []
    for eps in radii:
        samples = [Sample(x, int(y), around(x, eps, norm)) for x, y in zip(rows[:16], labels[:16], strict=True)]
        results = decide_together(model, own(model), samples, options)  # type: ignore[arg-type]
        found.append({k for k, one in enumerate(results) if one is not None and one.verdict is Verdict.FALSIFIED})
    assert found[0] <= found[1] <= found[2]
    assert found[0] < found[2]


def test_attacks_need_no_bounds_and_take_larger_batches() -> None:
    wide = random_network(np.random.default_rng(0), p=200, widths=(2000, 2000))
    assert samples_at_once(wide) < samples_at_once(wide, ("apgd-ce", "square")) == 64
    assert samples_at_once(wide, ("apgd-ce", "linear")) == samples_at_once(wide)
