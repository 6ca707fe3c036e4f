"""Verdicts: certified is never contradicted, falsified is always confirmed, and everything else says why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.decide import rungs
from idl_audit.decide.ladder import METHODS, Options, Result, decide_sample
from idl_audit.decide.rungs import PROOFS, REASONS, RUNGS
from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.implicit.scaling import rescale
from idl_audit.search.attacks import ATTACKS, AttackOptions
from idl_audit.search.ensemble import MEMBERS
from idl_audit.search.linprog import LinearProgram, Outcome, Solution
from idl_audit.values.box import Box
from idl_audit.values.errors import OptionError, SolverError
from idl_audit.values.margins import margin_functionals
from idl_audit.values.verdicts import Reason, Verdict
from tests.proof.test_linear_bounds import vanishing
from tests.search.test_relaxation import LIES, lie
from tests.shared.small_networks import (
    KINKED,
    SMOOTH,
    ExactModel,
    dense,
    layered,
    long_double,
    minimum_by_patterns,
    pooled_network,
    random_network,
    some_points,
)

seeds = st.integers(0, 2**32 - 1)
QUICK = AttackOptions(steps=8, restarts=2, samples=20)
ALL = tuple(METHODS)


def run(
    model: ImplicitModel,
    sample: np.ndarray,
    label: int,
    eps: float,
    *,
    network: Callable[[np.ndarray], np.ndarray] | None = None,
    **options: object,
) -> Result:
    box = Box.around(np.asarray(sample, np.float64), eps)
    given_options = Options(**{"attack": QUICK, **options})  # type: ignore[arg-type]
    return decide_sample(model, network or evaluated(model), np.asarray(sample, np.float64), label, box, given_options)


def evaluated(model: ImplicitModel) -> Callable[[np.ndarray], np.ndarray]:
    return lambda points: model(points.astype(np.float64))


def clean_label(model: ImplicitModel, sample: np.ndarray) -> int:
    return int(model(sample[None])[0].argmax())


def contradiction(model: ImplicitModel, result: Result, label: int, box: Box, rng: np.random.Generator) -> str:
    """Return what is wrong with a verdict, or nothing: by exact minima for two inputs, by 1e4 points for more."""
    functionals = margin_functionals(model.n_outputs, label)
    if result.verdict is Verdict.CERTIFIED:
        if box.size <= 2 and all(block.activation.piecewise_linear for block in model.blocks):
            exact = ExactModel(model)
            least = min(exact.minimum(row, box) for row in functionals)
        else:
            y = long_double(model, some_points(rng, box, 3000))[2]
            least = (y @ functionals.T.astype(np.longdouble)).min()
        if not least > 0:
            return f"certified although a margin is {float(least)}"
        if result.lower is None or not 0 < result.lower <= least:
            return f"certified with the bound {result.lower}, but a margin is {float(least)}"
    if result.verdict is Verdict.FALSIFIED:
        if result.found is None or not box.contains(result.found.point):
            return "falsified without a point of the set"
        if int(model(result.found.point[None].astype(np.float64))[0].argmax()) == label:
            return "falsified by a point that the network classifies correctly"
    return ""


@settings(deadline=None, max_examples=16)
@given(seed=seeds, methods=st.permutations(ALL), cut=st.integers(1, len(ALL)))
def test_verdicts_of_random_networks_are_true(seed: int, methods: list[str], cut: int) -> None:
    rng = np.random.default_rng(seed)
    p = int(rng.integers(1, 3))
    model = random_network(rng, p=p, widths=(4, 3), activations=list(KINKED))
    sample = rng.normal(size=p).astype(np.float32).astype(np.float64)
    label = clean_label(model, sample)
    eps = float(rng.choice([0.01, 0.1, 0.5, 1.0]))
    result = run(model, sample, label, eps, methods=tuple(methods[:cut]))
    assert contradiction(model, result, label, Box.around(sample, eps), rng) == ""
    assert (result.verdict is Verdict.UNKNOWN) == (result.reason is not None)


@settings(deadline=None, max_examples=15)
@given(seed=seeds, scaled=st.booleans())
def test_verdicts_of_smooth_networks_are_not_contradicted_by_ten_thousand_points(seed: int, scaled: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=4, widths=(6, 5), activations=[*SMOOTH, *KINKED])
    sample = rng.normal(size=4).astype(np.float32).astype(np.float64)
    label = clean_label(model, sample)
    eps = float(rng.choice([0.01, 0.05, 0.2]))
    result = run(rescale(model) if scaled else model, sample, label, eps, network=evaluated(model))
    assert contradiction(model, result, label, Box.around(sample, eps), rng) == ""


def test_verdicts_of_pooled_networks_are_not_contradicted_by_ten_thousand_points() -> None:
    found = Counter()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        model = pooled_network(rng)
        sample = rng.random(16).astype(np.float32).astype(np.float64)
        label = clean_label(model, sample)
        eps = (0.005, 0.02, 0.3)[seed % 3]
        result = run(model, sample, label, eps)
        assert contradiction(model, result, label, Box.around(sample, eps), rng) == ""
        found[result.verdict] += 1
    assert found[Verdict.CERTIFIED]
    assert found[Verdict.FALSIFIED]


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(seed=seeds)
def test_verdicts_of_three_inputs_agree_with_all_activation_patterns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 4), activations=["relu", "abs"])
    sample = rng.normal(size=3).astype(np.float32).astype(np.float64)
    label = clean_label(model, sample)
    eps = float(rng.choice([0.05, 0.3, 1.0]))
    box = Box.around(sample, eps)
    result = run(model, sample, label, eps)
    least = min(minimum_by_patterns(model, row, box) for row in margin_functionals(3, label))
    if result.verdict is Verdict.CERTIFIED:
        assert least > -1e-7
    if result.verdict is Verdict.FALSIFIED:
        assert least < 1e-6
    assert contradiction(model, result, label, box, rng) == ""


def two_class(weight: float = 1.0, bias: float = 1.0) -> ImplicitModel:
    """margin of class 0 = bias + weight relu(u + 10) - weight 10, for u > -10: bias + weight u."""
    return layered([([[1.0]], [10.0])], ([[weight], [0.0]], [bias - 10 * weight, 0.0]))


def test_all_four_verdicts_occur_and_count() -> None:
    cases = [
        (two_class(), 0, 0.5, Verdict.CERTIFIED),
        (two_class(), 0, 1.5, Verdict.FALSIFIED),
        (two_class(), 1, 0.5, Verdict.CLEAN_WRONG),
        (two_class(), 0, 1.0, Verdict.UNKNOWN),  # the smallest margin is exactly 0: class 0 still wins the tie
    ]
    results = [run(model, np.zeros(1), label, eps) for model, label, eps, _ in cases]
    assert [result.verdict for result in results] == [verdict for *_, verdict in cases]
    assert sum(Counter(result.verdict for result in results).values()) == len(cases)
    assert all((result.reason is None) == (result.verdict is not Verdict.UNKNOWN) for result in results)


@pytest.mark.parametrize("methods", [("interval",), ("linear",), ("lp",), ALL])
def test_a_margin_of_exactly_zero_is_not_certified(methods: tuple[str, ...]) -> None:
    """For class 0 the tie is won, for class 1 it is lost; neither is robust by a positive margin."""
    constant = layered([([[1.0]], [10.0])], ([[1.0], [1.0]], [0.0, 0.0]))
    assert run(constant, np.zeros(1), 0, 0.5, methods=methods).verdict is Verdict.UNKNOWN
    assert run(constant, np.zeros(1), 1, 0.5, methods=methods).verdict is Verdict.CLEAN_WRONG
    assert run(two_class(), np.zeros(1), 0, 1.0, methods=methods).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("methods", [("interval",), ("linear",), ("lp",)])
def test_a_margin_that_is_zero_but_for_rounding_is_not_certified(methods: tuple[str, ...]) -> None:
    """y_0 - y_1 = .1 + .2 - .3 summed from weights: 2.8e-17 exactly, but 5.6e-17 or 0 in float64."""
    model = layered(
        [([[0.0], [0.0], [0.0]], [0.1, 0.2, 0.3])], ([[1.0, 1.0, -1.0], [0.0, 0.0, 0.0]], [-(2.0**-54), 0.0])
    )
    result = run(model, np.zeros(1), 0, 0.5, methods=methods, network=lambda u: np.tile([1.0, 0.0], (len(u), 1)))
    assert ExactModel(model).minimum([1.0, -1.0], Box.around(np.zeros(1), 0.5)) <= 0
    assert result.verdict is Verdict.UNKNOWN


def test_samples_that_are_misclassified_are_clean_wrong_whatever_the_methods() -> None:
    for methods in (("interval",), ("pgd",), ALL):
        result = run(two_class(), np.full(1, -2.0), 0, 0.1, methods=methods)
        assert result.verdict is Verdict.CLEAN_WRONG
        assert result.predicted == 1
        assert result.lower is result.found is result.reason is result.method is None


@pytest.mark.parametrize("label", [-1, 2, 100])
def test_labels_that_are_no_class_are_never_certified(label: int) -> None:
    assert run(two_class(), np.zeros(1), label, 0.1).verdict is Verdict.CLEAN_WRONG


def test_the_network_decides_what_is_clean_wrong_and_what_is_falsified() -> None:
    """The model is certain of class 0; the network says class 1 away from the sample."""

    def network(points: np.ndarray) -> np.ndarray:
        far = np.abs(points[:, 0]) > 0.25
        return np.stack([np.where(far, 0.0, 1.0), np.where(far, 1.0, 0.0)], axis=1)

    for methods in (("sign", "interval"), ("pgd", "interval"), ("random", "lp")):
        result = run(two_class(), np.zeros(1), 0, 0.5, network=network, methods=methods)
        assert result.verdict is Verdict.FALSIFIED
        assert result.found is not None
        assert abs(float(result.found.point[0])) > 0.25
    assert run(two_class(), np.zeros(1), 1, 0.5, network=network).verdict is Verdict.CLEAN_WRONG


@pytest.mark.parametrize("methods", [(name,) for name in METHODS])
def test_every_method_alone_gives_a_true_verdict(methods: tuple[str, ...]) -> None:
    for eps, impossible in ((0.5, Verdict.FALSIFIED), (1.5, Verdict.CERTIFIED)):
        result = run(two_class(), np.zeros(1), 0, eps, methods=methods)
        assert result.verdict is not impossible
        if not PROOFS.intersection(methods):
            assert result.verdict is not Verdict.CERTIFIED
            why = Reason.SOLVER_ONLY if methods == ("mip",) else Reason.ATTACKS_FAILED
            assert result.verdict is Verdict.FALSIFIED or result.reason is why
        if result.verdict in (Verdict.CERTIFIED, Verdict.FALSIFIED):
            assert result.method == methods[0]


def test_no_methods_give_no_verdict() -> None:
    result = run(two_class(), np.zeros(1), 0, 0.5, methods=())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.ATTACKS_FAILED)


@pytest.mark.parametrize("methods", [("simplex",), ("interval", "LP"), ("",)])
def test_unknown_methods_are_refused_by_name(methods: tuple[str, ...]) -> None:
    with pytest.raises(OptionError, match="there is no method"):
        Options(methods=methods)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, -math.inf])
def test_time_limits_that_are_no_time_are_refused(limit: float) -> None:
    with pytest.raises(OptionError, match="time-limit"):
        Options(time_limit=limit)


def test_every_method_is_an_attack_or_a_proof() -> None:
    of_properties = {"rational", "joint"}
    begun = {name for name, rung in RUNGS.items() if rung.begins}
    assert (
        set(METHODS)
        == PROOFS - begun - of_properties | {*ATTACKS, *MEMBERS} | {"quick", "attack", "mip"}
        == set(RUNGS) - begun - of_properties - {"persist"}
    )
    assert not PROOFS & {*ATTACKS, *MEMBERS, "quick", "attack", "mip", "persist"}
    assert set(REASONS) == set(Outcome) - {Outcome.OPTIMAL}


def test_a_spent_time_limit_leaves_the_sample_unknown() -> None:
    result = run(two_class(), np.zeros(1), 0, 0.5, time_limit=1e-300)
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIME_LIMIT)


def hard_network() -> tuple[ImplicitModel, np.ndarray, int]:
    """The example of docs/mathematics.md, section 7.1, plus 6.5: the least margin is .5, the LP's bound -.5."""
    model = layered(
        [([[1.0, 1.0]], [0.0])], ([[-1.0], [0.0]], [6.5, 0.0]), skip=[[-3.0, 3.0], [0.0, 0.0]]
    )  # without the 6.5: LP -7, truth -6
    return model, np.zeros(2), 0


def test_a_gap_of_the_relaxation_leaves_the_sample_unknown() -> None:
    model, sample, label = hard_network()
    result = run(model, sample, label, 1.0, methods=("interval", "sign", "pgd", "linear", "lp"))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.RELAXATION_GAP)
    assert result.lower == pytest.approx(-0.5, abs=1e-9)
    assert result.found is not None
    assert result.found.margin >= 0.5


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.OPTIMAL])
def test_a_solver_without_an_answer_leaves_the_sample_unknown_with_its_reason(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LinearProgram, "minimise", lambda self, cost, *, time_limit=None: Solution(outcome))
    model, sample, label = hard_network()
    result = run(model, sample, label, 1.0, methods=("lp",))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, REASONS[outcome])


@pytest.mark.parametrize(
    ("error", "reason"), [(SolverError("no"), Reason.SOLVER_FAILED), (MemoryError(), Reason.MEMORY_LIMIT)]
)
def test_a_solver_that_fails_leaves_the_sample_unknown(
    error: Exception, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: LinearProgram, cost: np.ndarray, *, time_limit: float | None = None) -> Solution:
        raise error

    monkeypatch.setattr(LinearProgram, "minimise", fail)
    model, sample, label = hard_network()
    result = run(model, sample, label, 1.0, methods=("interval", "linear", "lp"))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, reason)
    assert result.lower is not None


@pytest.mark.parametrize("kind", LIES)
def test_a_lying_solver_never_makes_a_wrong_verdict(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    honest = LinearProgram.minimise
    monkeypatch.setattr(
        LinearProgram, "minimise", lambda self, cost, *, time_limit=None: lie(kind, honest(self, cost), rng)
    )
    for seed in range(25):
        rng = np.random.default_rng(seed)
        model = random_network(rng, p=2, widths=(4, 3), activations=list(KINKED))
        sample = rng.normal(size=2).astype(np.float32).astype(np.float64)
        label = clean_label(model, sample)
        with np.errstate(all="ignore"):
            result = run(model, sample, label, 0.5, methods=("lp",))
        assert contradiction(model, result, label, Box.around(sample, 0.5), rng) == ""


def test_lower_is_a_bound_of_the_smallest_margin_even_where_it_decides_nothing() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        model = random_network(rng, p=2, widths=(4, 3), activations=["relu"])
        sample = rng.normal(size=2).astype(np.float32).astype(np.float64)
        label = clean_label(model, sample)
        result = run(model, sample, label, 1.0, methods=("interval", "linear", "lp"))
        box = Box.around(sample, 1.0)
        exact = ExactModel(model)
        truth = min(exact.minimum(row, box) for row in margin_functionals(3, label))
        assert result.lower is None or result.lower <= truth


def test_verdicts_repeat_themselves_for_the_same_seed() -> None:
    rng = np.random.default_rng(8)
    model = random_network(rng, p=4, widths=(6, 6), activations=["relu"])
    sample = rng.normal(size=4).astype(np.float32).astype(np.float64)
    label = clean_label(model, sample)
    first, second = (run(model, sample, label, 0.3, seed=3) for _ in range(2))
    assert (first.verdict, first.method, first.lowers) == (second.verdict, second.method, second.lowers)
    if first.found is not None and second.found is not None:
        np.testing.assert_array_equal(first.found.point, second.found.point)


def test_a_network_without_states_is_decided_exactly() -> None:
    model = ImplicitModel((), (), Affine({}, dense([[1.0], [0.0]]), np.array([1.0, 0.0])), (1,), (2,))
    for methods in (("interval",), ("linear",), ("lp",)):
        assert run(model, np.zeros(1), 0, 0.99, methods=methods).verdict is Verdict.CERTIFIED
        assert run(model, np.zeros(1), 0, 1.0, methods=methods).verdict is Verdict.UNKNOWN
    assert run(model, np.zeros(1), 0, 1.01).verdict is Verdict.FALSIFIED


def test_one_open_rival_is_enough_to_withhold_the_certificate() -> None:
    """Class 0 beats class 1 by 5 everywhere, class 2 only for u > -1."""
    model = layered([([[1.0]], [10.0])], ([[1.0], [0.0], [0.0]], [-9.0, -15.0, 0.0]))
    for methods in (("interval",), ("linear",), ("lp",), ALL):
        assert run(model, np.zeros(1), 0, 0.9, methods=methods).verdict is Verdict.CERTIFIED
        assert run(model, np.zeros(1), 0, 1.1, methods=methods).verdict is not Verdict.CERTIFIED


# ------------------------------------------------------------------------------------- known bugs and their kin


@pytest.mark.parametrize("methods", [("interval",), ("linear",)])
def test_bounds_that_overflow_to_nan_certify_nothing(methods: tuple[str, ...]) -> None:
    """Nine ReLU layers of weight 3e38 (a float32): the margin 1 - 2 relu(c u), c = 3e38^9, is negative for u > 0."""
    model = layered([([[3e38]], [0.0])] * 9, ([[-1.0], [1.0]], [1.0, 0.0]))
    with np.errstate(all="ignore"):
        result = run(model, np.zeros(1), 0, 0.1, methods=methods)
    assert result.verdict is not Verdict.CERTIFIED


def test_a_bound_that_is_no_number_certifies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("output_lower_bounds", "output_intervals"):
        monkeypatch.setattr(rungs, name, lambda *args, **kwargs: np.array([[np.nan]]))
    assert run(two_class(), np.zeros(1), 0, 0.5, methods=("interval",)).verdict is not Verdict.CERTIFIED


def test_a_rescaled_pooled_network_is_not_certified_where_an_attack_succeeds() -> None:
    rng = np.random.default_rng(382)
    model = pooled_network(rng, bias=3.0, positive=True)
    sample = np.clip(rng.random(16), 0.25, 0.75).astype(np.float32).astype(np.float64)
    label = clean_label(model, sample)
    attacked = run(model, sample, label, 0.25, methods=("sign", "pgd"), attack=AttackOptions())
    assert attacked.verdict is Verdict.FALSIFIED
    proved = run(rescale(model), sample, label, 0.25, methods=("interval",), network=evaluated(model))
    assert proved.verdict is not Verdict.CERTIFIED


@pytest.mark.parametrize("methods", [("interval",), ("linear",), ("lp",)])
def test_a_softmax_of_wide_pre_activations_is_not_certified_against_the_truth(methods: tuple[str, ...]) -> None:
    """x = softmax(1000 u, 0); y = (1/2, x_2): class 0 at u = 1, but x_2 = 1 at u = -1."""
    model = layered(
        [([[1000.0], [0.0]], [0.0, 0.0])], ([[0.0, 0.0], [0.0, 1.0]], [0.5, 0.0]), ACTIVATIONS["softmax"](2)
    )
    assert model(np.array([[-1.0]]))[0].tolist() == [0.5, 1.0]
    result = run(model, np.ones(1), 0, 2.0, methods=methods)
    assert result.verdict is not Verdict.CERTIFIED


def test_multipliers_that_underflow_certify_nothing() -> None:
    """All weights are float32 numbers; the margin is 1e-80 - 1e-76 u < 0 on [1, 2]."""
    result = run(
        vanishing(float32=True),
        np.full(1, 1.5),
        0,
        0.5,
        methods=("linear",),
        network=lambda u: np.tile([1.0, 0.0], (len(u), 1)),
    )
    assert result.verdict is not Verdict.CERTIFIED


def nan_at(where: Callable[[np.ndarray], np.ndarray], values: list[float]) -> Callable[[np.ndarray], np.ndarray]:
    """Return a network that says (1, 0) but for the points where it says `values`."""

    def network(points: np.ndarray) -> np.ndarray:
        return np.where(where(points), np.array([values]), np.array([[1.0, 0.0]]))

    return network


@pytest.mark.parametrize("values", [[math.nan, 0.0], [math.nan, math.nan]])
def test_a_sample_whose_outputs_are_no_numbers_is_not_certified(values: list[float]) -> None:
    network = nan_at(lambda points: np.ones((len(points), 1), bool), values)
    assert run(two_class(), np.zeros(1), 0, 0.5, network=network).verdict is not Verdict.CERTIFIED


@pytest.mark.parametrize("values", [[math.nan, 0.0], [math.nan, math.nan]])
def test_a_set_with_a_point_whose_outputs_are_no_numbers_is_not_certified_once_an_attack_saw_it(
    values: list[float],
) -> None:
    network = nan_at(lambda points: np.abs(points) > 0.1, values)
    result = run(two_class(), np.zeros(1), 0, 0.5, network=network, methods=("random", "interval"))
    assert result.verdict is not Verdict.CERTIFIED


def test_a_nan_of_a_rival_is_never_certified_once_seen() -> None:
    network = nan_at(lambda points: np.abs(points) > 0.1, [1.0, math.nan])
    result = run(two_class(), np.zeros(1), 0, 0.5, network=network, methods=("random", "interval"))
    assert result.verdict is not Verdict.CERTIFIED


def test_intervals_after_linear_bounds_do_not_loosen_the_lp() -> None:
    worse = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        model = random_network(rng, p=3, widths=(5, 5, 5), activations=["relu"])
        sample = rng.normal(size=3).astype(np.float32).astype(np.float64)
        label = clean_label(model, sample)
        straight, crossed = (
            run(model, sample, label, 0.5, methods=methods)
            for methods in (("interval", "linear", "lp"), ("linear", "interval", "lp"))
        )
        assert straight.lower is not None
        assert crossed.lower is not None
        worse += crossed.verdict is not straight.verdict or crossed.lower < straight.lower - 1e-6
    assert worse == 0
