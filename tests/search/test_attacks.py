"""Attacks: points of the exact set, judged by the network alone, the same for the same seed; sparse and targeted."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.graph.reader import read_graph
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.model import ImplicitModel
from idl_audit.search.attacks import (
    ATTACKS,
    AttackOptions,
    Target,
    run_attack,
)
from idl_audit.search.judge import Found
from idl_audit.values.box import Box, SparseBall, largest_entries
from idl_audit.values.errors import OptionError
from idl_audit.values.margins import margin_functionals, margins, rivals
from idl_audit.values.query import Query
from tests.shared.small_networks import layered, pooled_network, random_network

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"

OPTIONS = AttackOptions(steps=5, restarts=2, samples=10)


class Recorder:
    """A network that remembers what it was asked."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked: list[np.ndarray] = []

    def __call__(self, points: np.ndarray) -> np.ndarray:
        self.asked.append(points.copy())
        return np.asarray(self.answer(points.astype(np.float64)))  # type: ignore[operator]


def target(
    model: ImplicitModel,
    network: object,
    *,
    centre: np.ndarray,
    eps: float,
    label: int,
    goal: int | None = None,
    **clip: float,
) -> Target:
    query = Query.misclassification(Box.around(centre, eps, **clip), model.n_outputs, label, goal)
    return Target.of(model, network, centre, query)  # type: ignore[arg-type]


def attacked(name: str, aim: Target, options: AttackOptions, rng: np.random.Generator) -> Found | None:
    """Run an attack and return the best point that the judge knows."""
    assert run_attack(name, aim, options, rng) is (aim.judge.found is not None)
    return aim.judge.best


def proposed(aim: Target, points: np.ndarray) -> Found | None:
    """Return the best point that the judge knows now."""
    assert aim.judge.propose(points) is (aim.judge.found is not None)
    return aim.judge.best


def test_success_is_what_the_network_says_of_a_point_alone() -> None:
    """Some networks round otherwise in a batch: whoever replays the point asks about it alone."""
    model = layered([([[1.0]], [0.0])], ([[1.0], [-1.0]], [0.0, 0.0]))

    def by_batch(points: np.ndarray) -> np.ndarray:
        alone = np.stack([np.ones(len(points)), points[:, 0]], axis=1)
        return alone + np.array([0.0, 0.0 if len(points) == 1 else 5.0])

    aim = target(model, Recorder(by_batch), centre=np.array([0.0]), eps=2.0, label=0)
    found = proposed(aim, np.array([[1.5], [0.5], [-1.0]]))
    assert found is not None
    assert (found.predicted, found.point[0], found.margin) == (1, 1.5, -0.5)
    aim = target(model, Recorder(by_batch), centre=np.array([0.0]), eps=2.0, label=0)
    harmless = proposed(aim, np.array([[0.5], [-1.0], [0.75]]))
    assert harmless is not None
    assert (harmless.predicted, harmless.point[0], harmless.margin) == (0, 0.75, 0.25)


def in_exact_set(points: np.ndarray, centre: np.ndarray, eps: float, lo: float, hi: float) -> bool:
    c = [Fraction(float(v)) for v in centre]
    return all(
        abs(Fraction(float(v)) - c[j]) <= Fraction(eps) and Fraction(lo) <= Fraction(float(v)) <= Fraction(hi)
        for point in points
        for j, v in enumerate(point)
    )


MODELS = {
    "dense": lambda: random_network(np.random.default_rng(0), p=6, widths=(8, 8), activations=["relu", "tanh"]),
    "pooled": lambda: pooled_network(np.random.default_rng(1), size=3),
}


@pytest.mark.parametrize("name", sorted(ATTACKS))
@pytest.mark.parametrize("kind", sorted(MODELS))
@pytest.mark.parametrize("eps", [0.1, 8 / 255, 1e-3, 1e-7, 3.0])
def test_every_point_that_the_network_sees_is_a_float32_point_of_the_exact_set(
    name: str, kind: str, eps: float
) -> None:
    model = MODELS[kind]()
    rng = np.random.default_rng(3)
    centre = rng.random(model.n_inputs)
    if eps == 1e-7:
        centre = centre.astype(np.float32).astype(np.float64)
    network = Recorder(model)
    aim = target(model, network, centre=centre, eps=eps, label=0, valid_lo=0.0, valid_hi=1.0)
    found = attacked(name, aim, OPTIONS, np.random.default_rng(0))
    assert found is not None
    assert found.point.dtype == np.float32
    for points in [*network.asked, found.point[None]]:
        assert points.dtype == np.float32
        assert in_exact_set(points, centre, eps, 0.0, 1.0)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_the_network_decides_and_not_the_model(name: str) -> None:
    """The model errs nowhere, the network everywhere, and the other way round."""
    right = layered([(np.eye(2), np.zeros(2))], (np.zeros((2, 2)), [1.0, 0.0]))
    wrong = layered([(np.eye(2), np.zeros(2))], (np.zeros((2, 2)), [0.0, 1.0]))
    for model, network, success in ((right, wrong, True), (wrong, right, False)):
        aim = target(model, network, centre=np.full(2, 0.5), eps=0.1, label=0)
        found = attacked(name, aim, OPTIONS, np.random.default_rng(0))
        assert found is not None
        assert found.holds is success
        assert found.predicted == int(success)
        assert found.margin == (-1.0 if success else 1.0)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_attacks_repeat_themselves_for_the_same_seed(name: str) -> None:
    model = MODELS["dense"]()
    first, second = (
        attacked(
            name, target(model, model, centre=np.full(6, 0.5), eps=0.3, label=1), OPTIONS, np.random.default_rng(9)
        )
        for _ in range(2)
    )
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.point, second.point)
    assert first.margin == second.margin


@pytest.mark.parametrize("name", ["lp", "", "PGD", "foo"])
def test_unknown_attacks_are_refused_by_name(name: str) -> None:
    aim = target(MODELS["dense"](), MODELS["dense"](), centre=np.zeros(6), eps=0.1, label=0)
    with pytest.raises(OptionError, match="there is no attack"):
        run_attack(name, aim, OPTIONS, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["sign", "pgd"])
def test_gradient_attacks_find_the_corner_of_a_linear_margin(name: str) -> None:
    """margin = 1 + u1 - 2 u2 with the ReLUs active: least at (lo, hi)."""
    model = layered([(np.eye(2), np.full(2, 10.0))], ([[1.0, 0.0], [0.0, 2.0]], [11.0, 0.0]))
    aim = target(model, model, centre=np.zeros(2), eps=0.5, label=0)
    found = attacked(name, aim, OPTIONS, np.random.default_rng(0))
    assert found is not None
    np.testing.assert_array_equal(found.point, np.array([-0.5, 0.5], np.float32))


@pytest.mark.parametrize("name", ["sensitivity", "gradient"])
def test_ranking_attacks_change_only_a_share_of_the_inputs(name: str) -> None:
    model = random_network(np.random.default_rng(2), p=20, widths=(8,), activations=["relu"])
    centre = np.full(20, 0.5)
    network = Recorder(model)
    run_attack(name, target(model, network, centre=centre, eps=0.25, label=0), OPTIONS, np.random.default_rng(0))
    changed = {tuple(np.flatnonzero(point != 0.5)) for points in network.asked for point in points}
    assert len({index for group in changed for index in group}) <= 2


def test_points_outside_any_float32_set_are_not_asked() -> None:
    model = layered([([[1.0]], [0.0])], ([[1.0], [0.0]], [0.0, 0.0]))
    network = Recorder(model)
    aim = target(model, network, centre=np.array([0.1]), eps=1e-12, label=0)
    assert proposed(aim, np.array([[0.1]])) is None
    assert network.asked == []


def test_points_with_nan_are_not_asked() -> None:
    model = layered([(np.eye(2), np.zeros(2))], (np.eye(2), np.zeros(2)))
    network = Recorder(model)
    aim = target(model, network, centre=np.zeros(2), eps=1.0, label=0)
    found = proposed(aim, np.array([[np.nan, 0.0], [0.25, 0.5]]))
    assert found is not None
    np.testing.assert_array_equal(found.point, [0.25, 0.5])
    assert [len(points) for points in network.asked] == [1]
    assert aim.judge.best is found


def test_replay_takes_a_wrong_prediction_before_a_smaller_margin() -> None:
    """At a tie argmax names the first class: label 1 is missed at margin 0, label 0 is not."""
    model = layered([([[1.0]], [0.0])], ([[1.0], [1.0]], [0.0, 0.0]))
    points = np.array([[0.25], [0.5]])
    for label, success in ((0, False), (1, True)):
        found = proposed(target(model, model, centre=np.zeros(1), eps=1.0, label=label), points)
        assert found is not None
        assert found.margin == 0.0
        assert found.holds is success


@pytest.mark.parametrize("label", [0, 1, 2])
def test_margins_are_the_label_minus_the_best_rival(label: int) -> None:
    outputs = np.array([[3.0, 1.0, 2.0], [0.0, 0.0, -1.0]])
    functionals = margin_functionals(3, label)
    assert functionals.shape == (2, 3)
    np.testing.assert_array_equal((outputs @ functionals.T).min(axis=1), margins(outputs, label))
    assert rivals(3, label).tolist() == [j for j in range(3) if j != label]
    assert (functionals[:, label] == 1).all()
    assert (functionals.sum(axis=1) == 0).all()


def sparse_target(
    model: ImplicitModel, network: object, *, centre: np.ndarray, eps: float, k: int, label: int = 0, **given: object
) -> Target:
    query = Query.misclassification(SparseBall.around(centre, eps, k, **given), model.n_outputs, label)  # type: ignore[arg-type]
    return Target.of(model, network, centre, query)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(ATTACKS))
@pytest.mark.parametrize("kind", sorted(MODELS))
@pytest.mark.parametrize("k", [1, 2, 5, 100])
def test_sparse_attacks_ask_only_about_points_with_at_most_k_changes(name: str, kind: str, k: int) -> None:
    model = MODELS[kind]()
    rng = np.random.default_rng(3)
    centre = rng.random(model.n_inputs).astype(np.float32).astype(np.float64)
    network = Recorder(model)
    aim = sparse_target(model, network, centre=centre, eps=8 / 255, k=k, valid_lo=0.0, valid_hi=1.0)
    found = attacked(name, aim, OPTIONS, np.random.default_rng(0))
    assert found is not None
    for points in [*network.asked, found.point[None]]:
        assert points.dtype == np.float32
        assert in_exact_set(points, centre, 8 / 255, 0.0, 1.0)
        assert ((points.astype(np.float64) != centre).sum(axis=1) <= k).all()


@pytest.mark.parametrize("name", ["sign", "pgd"])
@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_sparse_attacks_on_a_linear_margin_are_exact(name: str, k: int) -> None:
    """margin = 1 - m.u with all ReLUs active: least where the k largest |m_i| sigma_i move."""
    rng = np.random.default_rng(k)
    m, sigma = rng.normal(size=7), rng.integers(0, 5, 7) / 4.0
    sigma[:3] = 1.0
    first, last = np.eye(7), np.vstack([-m, np.zeros(7)])
    model = layered([(first, np.full(7, 10.0))], (last, [1.0 + 10 * m.sum(), 0.0]))
    aim = sparse_target(model, model, centre=np.zeros(7), eps=0.25, k=k, sigma=sigma)
    found = attacked(name, aim, OPTIONS, np.random.default_rng(0))
    assert found is not None
    gains = np.sort(np.abs(m) * sigma * 0.25)[::-1]
    assert found.margin == pytest.approx(1.0 - gains[:k].sum(), abs=1e-6)


def test_sparse_pgd_solves_again_on_what_it_keeps() -> None:
    """y_0 - y_1 = 1.4 - relu(u_0 + u_1 - 0.5) - 0.3 relu(u_2): two inputs are worth it only together."""
    weights = [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    model = layered([(weights, [-0.5, 0.0])], ([[-1.0, -0.3], [0.0, 0.0]], [1.4, 0.0]))
    aim = sparse_target(model, model, centre=np.zeros(3), eps=1.0, k=2)
    found = attacked("pgd", aim, AttackOptions(), np.random.default_rng(0))
    assert found is not None
    assert found.holds
    np.testing.assert_array_equal(found.point, np.array([1.0, 1.0, 0.0], np.float32))


def runtime(name: str) -> object:
    session = onnxruntime.InferenceSession(SAMPLES / f"{name}.onnx")
    entry = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in entry.shape]
    shape[0] = 1
    return lambda points: np.stack([session.run(None, {entry.name: u.reshape(shape)})[0].ravel() for u in points])


def samples(name: str, count: int) -> list[tuple[np.ndarray, int]]:
    with np.load(SAMPLES / f"{name}.npz") as arrays:
        inputs, labels = arrays["inputs"], arrays["labels"]
    rows = inputs.reshape(len(inputs), -1)[:count].astype(np.float64)
    return [(x, int(label)) for x, label in zip(rows, labels[:count], strict=True)]


@pytest.mark.parametrize("name", ["digits_mlp", "digits_conv", "digits_resnet"])
def test_sparse_successes_are_confirmed_by_onnxruntime(name: str) -> None:
    model, network = build_implicit(read_graph(SAMPLES / f"{name}.onnx")), runtime(name)
    hits = 0
    for x, label in samples(name, 8):
        aim = sparse_target(model, network, centre=x, eps=0.75, k=6, label=label, valid_lo=0.0, valid_hi=1.0)
        found = attacked("pgd", aim, AttackOptions(), np.random.default_rng(0))
        assert found is not None
        if found.holds:
            assert int(network(found.point[None])[0].argmax()) == found.predicted != label  # type: ignore[operator]
            assert in_exact_set(found.point[None], x, 0.75, 0.0, 1.0)
            assert (found.point.astype(np.float64) != x).sum() <= 6
            hits += 1
    assert hits >= 6


@pytest.mark.parametrize("name", ["digits_mlp", "digits_conv", "digits_resnet"])
def test_targeted_successes_are_confirmed_by_onnxruntime(name: str) -> None:
    model, network = build_implicit(read_graph(SAMPLES / f"{name}.onnx")), runtime(name)
    hits = tries = 0
    for x, label in samples(name, 6):
        for goal in {3, 8} - {label}:
            aim = target(model, network, centre=x, eps=0.25, label=label, goal=goal, valid_lo=0.0, valid_hi=1.0)
            found = attacked("pgd", aim, AttackOptions(), np.random.default_rng(0))
            assert found is not None
            outputs = network(found.point[None])[0]  # type: ignore[operator]
            assert found.holds is (int(outputs.argmax()) == goal)
            assert found.margin == pytest.approx(np.delete(outputs, goal).max() - outputs[goal], abs=1e-5)
            tries += 1
            hits += found.holds
    assert tries >= 8
    assert hits >= tries / 2


def test_a_targeted_attack_passes_over_other_classes() -> None:
    """Class 1 wins everywhere near the sample, class 2 only where u is large."""
    model = layered([([[1.0]], [0.0])], ([[0.0], [2.0], [3.0]], [0.4, 0.0, -0.5]))
    aim = target(model, model, centre=np.array([0.1]), eps=0.7, label=0, goal=2)
    found = attacked("pgd", aim, AttackOptions(), np.random.default_rng(0))
    assert found is not None
    assert found.predicted == 2
    assert found.point[0] >= 0.5
    near = target(model, model, centre=np.array([0.1]), eps=0.3, label=0, goal=2)
    found = attacked("pgd", near, AttackOptions(), np.random.default_rng(0))
    assert found is not None
    assert found.predicted == 1
    assert not found.holds


@pytest.mark.parametrize("goal", [-1, 0, 3])
def test_targets_that_are_no_other_class_are_refused(goal: int) -> None:
    with pytest.raises(OptionError, match="class"):
        Query.misclassification(Box.around(np.zeros(6), 0.1), 3, 0, goal)


def test_replay_makes_dense_points_sparse_by_their_largest_changes() -> None:
    model = layered([(np.eye(3), np.full(3, 5.0))], ([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], [0.0, 0.0]))
    aim = sparse_target(model, model, centre=np.full(3, 0.5), eps=0.25, k=1, sigma=np.array([1.0, 0.5, 1.0]))
    found = proposed(aim, np.array([0.375, 0.4375, 0.5]))  # half its way, half its way, none
    assert found is not None
    np.testing.assert_array_equal(found.point, np.array([0.375, 0.5, 0.5], np.float32))
    aim = sparse_target(model, model, centre=np.full(3, 0.5), eps=0.25, k=1, sigma=np.array([1.0, 0.5, 1.0]))
    found = proposed(aim, np.array([0.4375, 0.40625, 0.5]))  # a quarter, three quarters
    assert found is not None
    np.testing.assert_array_equal(found.point, np.array([0.5, 0.40625, 0.5], np.float32))


def test_an_attack_stops_at_its_first_success() -> None:
    model = layered([(np.eye(2), np.full(2, 10.0))], ([[1.0, 0.0], [0.0, 2.0]], [11.0, 0.0]))
    options = AttackOptions(restarts=3)
    for eps, asked in ((0.25, 3), (0.5, 1)):  # margin 1 + u1 - 2 u2: at least 0.25 in the smaller box
        network = Recorder(model)
        aim = target(model, network, centre=np.zeros(2), eps=eps, label=0)
        found = attacked("pgd", aim, options, np.random.default_rng(0))
        assert found is not None
        assert found.holds is (asked == 1)
        assert len(network.asked) == asked


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 12))
def test_the_largest_entries_are_k_and_none_left_out_is_larger(seed: int, k: int) -> None:
    values = np.random.default_rng(seed).integers(-3, 3, (4, 9)).astype(np.float64)
    mask = largest_entries(values, k)
    assert (mask.sum(axis=1) == min(k, 9)).all()
    for row, kept in zip(values, mask, strict=True):
        assert kept.all() or row[kept].min() >= row[~kept].max()


def test_a_success_is_better_than_any_failure_and_no_number_the_worst_of_either() -> None:
    def rank(margin: float, *, holds: bool) -> tuple[bool, float]:
        return Found(np.zeros(1, np.float32), np.zeros(2), margin, holds).rank

    better = [rank(0.5, holds=True), rank(math.nan, holds=True), rank(-1.0, holds=False), rank(math.nan, holds=False)]
    assert better == sorted(better)
    assert rank(-math.inf, holds=True) == rank(math.nan, holds=True)
