"""Attacks: points of the exact set, judged by the network alone, the same for the same seed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from small_networks import layered, pooled_network, random_network

from idl_audit.analysis.attacks import ATTACKS, AttackOptions, Found, Target, is_success, run_attack
from idl_audit.analysis.margins import margin_functionals, margins, rivals
from idl_audit.box import Box
from idl_audit.errors import OptionError
from idl_audit.implicit.model import ImplicitModel

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
    model: ImplicitModel, network: object, *, centre: np.ndarray, eps: float, label: int, **clip: float
) -> Target:
    return Target(model, Box.around(centre, eps, **clip), centre, label, network)  # type: ignore[arg-type]


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
    found = run_attack(name, aim, OPTIONS, np.random.default_rng(0))
    assert found is not None
    assert found.method == name
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
        found = run_attack(name, aim, OPTIONS, np.random.default_rng(0))
        assert is_success(found, 0) is success
        assert found is not None
        assert found.predicted == int(success)
        assert found.margin == (-1.0 if success else 1.0)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_attacks_repeat_themselves_for_the_same_seed(name: str) -> None:
    model = MODELS["dense"]()
    aim = target(model, model, centre=np.full(6, 0.5), eps=0.3, label=1)
    first, second = (run_attack(name, aim, OPTIONS, np.random.default_rng(9)) for _ in range(2))
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
    found = run_attack(name, aim, OPTIONS, np.random.default_rng(0))
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
    aim = Target(model, Box.around(np.array([0.1]), 1e-12), np.array([0.1]), 0, network)
    assert aim.replay(np.array([[0.1]]), "x") is None
    assert network.asked == []
    assert not is_success(None, 0)


def test_points_with_nan_are_not_asked() -> None:
    model = layered([(np.eye(2), np.zeros(2))], (np.eye(2), np.zeros(2)))
    network = Recorder(model)
    aim = target(model, network, centre=np.zeros(2), eps=1.0, label=0)
    found = aim.replay(np.array([[np.nan, 0.0], [0.25, 0.5]]), "x")
    assert found is not None
    np.testing.assert_array_equal(found.point, [0.25, 0.5])
    assert [len(points) for points in network.asked] == [1]
    assert aim.replay(np.full((2, 2), np.nan), "x") is None


def test_replay_takes_a_wrong_prediction_before_a_smaller_margin() -> None:
    """At a tie argmax names the first class: label 1 is missed at margin 0, label 0 is not."""
    model = layered([([[1.0]], [0.0])], ([[1.0], [1.0]], [0.0, 0.0]))
    points = np.array([[0.25], [0.5]])
    for label, success in ((0, False), (1, True)):
        found = target(model, model, centre=np.zeros(1), eps=1.0, label=label).replay(points, "x")
        assert found is not None
        assert found.margin == 0.0
        assert is_success(found, label) is success


def test_success_is_another_class() -> None:
    found = Found(np.zeros(1, np.float32), 2, -1.0, "x")
    assert is_success(found, 1)
    assert not is_success(found, 2)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_margins_are_the_label_minus_the_best_rival(label: int) -> None:
    outputs = np.array([[3.0, 1.0, 2.0], [0.0, 0.0, -1.0]])
    functionals = margin_functionals(3, label)
    assert functionals.shape == (2, 3)
    np.testing.assert_array_equal((outputs @ functionals.T).min(axis=1), margins(outputs, label))
    assert rivals(3, label).tolist() == [j for j in range(3) if j != label]
    assert (functionals[:, label] == 1).all()
    assert (functionals.sum(axis=1) == 0).all()
