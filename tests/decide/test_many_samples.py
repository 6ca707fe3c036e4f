"""Many samples at once: what the first rungs say of each is what they say of it alone, whoever else is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from idl_audit.decide import ladder
from idl_audit.decide.ladder import Options, Result, Sample, decide_sample, decide_together, samples_at_once
from idl_audit.graph.reader import read_graph
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.storage import load_model
from idl_audit.implicit.threshold import with_threshold
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.verdicts import Verdict
from tests.shared.small_networks import random_network

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def options(**given: object) -> Options:
    return Options(**{"time_limit": math.inf, "max_nodes": 3000, **given})  # type: ignore[arg-type]


def own(model: ImplicitModel) -> Callable[[np.ndarray], np.ndarray]:
    return lambda points: model(points.astype(np.float64))


def alone(model: ImplicitModel, sample: Sample, chosen: Options) -> Result:
    return decide_sample(model, own(model), sample.point, sample.label, sample.inputs, chosen)


def assert_same(found: Result, expected: Result) -> None:
    assert (found.verdict, found.method, found.predicted) == (expected.verdict, expected.method, expected.predicted)
    np.testing.assert_allclose(found.lowers, expected.lowers, rtol=1e-9, atol=1e-9)
    assert (found.found is None) == (expected.found is None)
    if found.found is not None and expected.found is not None:
        np.testing.assert_array_equal(found.found.point, expected.found.point)
        assert found.found.holds == expected.found.holds


def digits(count: int = 24) -> tuple[ImplicitModel, list[Sample]]:
    """Digits of the sample network with three radii by turns; some labels are wrong."""
    model = build_implicit(read_graph(SAMPLES / "digits_mlp.onnx"))
    with np.load(SAMPLES / "digits_mlp.npz") as arrays:
        rows, labels = arrays["inputs"].reshape(-1, 64)[:count].astype(np.float64), arrays["labels"][:count]
    radii = (0.02, 0.05, 0.15)
    boxes = [Box.around(x, radii[i % 3], valid_lo=0.0, valid_hi=1.0) for i, x in enumerate(rows)]
    return model, [Sample(x, int(y), box) for x, y, box in zip(rows, labels, boxes, strict=True)]


def drawn(seed: int, p: int, *, one_output: bool = False) -> tuple[ImplicitModel, list[Sample]]:
    rng = np.random.default_rng(seed)
    activations = [["relu"], ["relu", "tanh"], ["leaky_relu", "sigmoid"]][seed % 3]
    model = random_network(rng, p=p, q=1 if one_output else 3, widths=(9, 8), activations=activations)
    if one_output:
        model = with_threshold(model, float(model(np.zeros((1, p)))[0, 0]))[0]
    points = rng.normal(size=(12, p)).astype(np.float32).astype(np.float64)
    labels = model(points).argmax(axis=1)
    radii = 10.0 ** rng.uniform(-3, 0, 12)
    return model, [Sample(x, int(y), Box.around(x, r)) for x, y, r in zip(points, labels, radii, strict=True)]


CASES: dict[str, Callable[[], tuple[ImplicitModel, list[Sample]]]] = {
    "digits": digits,
    **{f"many inputs {seed}": lambda seed=seed: drawn(seed, 40) for seed in range(3)},  # type: ignore[misc]
    **{f"few inputs {seed}": lambda seed=seed: drawn(seed, 4) for seed in range(3)},  # type: ignore[misc]
    "one output": lambda: drawn(3, 6, one_output=True),
}


@pytest.mark.parametrize("name", CASES)
def test_what_many_are_told_is_what_each_is_told_alone(name: str) -> None:
    model, samples = CASES[name]()
    found = decide_together(model, own(model), samples, options())
    expected = [alone(model, sample, options()) for sample in samples]
    for one, other in zip(found, expected, strict=True):
        if one is not None:
            assert_same(one, other)
    cheap = sum(other.method in ("interval", "linear", "quick") for other in expected)
    assert sum(one is not None for one in found) >= cheap - 3  # one that is the last before a rung climbs it alone


@pytest.mark.parametrize("name", ["digits", "many inputs 0", "few inputs 1"])
def test_no_sample_depends_on_the_others(name: str) -> None:
    model, samples = CASES[name]()
    whole = decide_together(model, own(model), samples, options())
    rng = np.random.default_rng(5)
    for _ in range(4):
        chosen = rng.permutation(len(samples))[: len(samples) // 2]
        part = decide_together(model, own(model), [samples[i] for i in chosen], options())
        for i, one in zip(chosen, part, strict=True):
            other = whole[i]
            if one is not None and other is not None:
                assert_same(one, other)


@pytest.mark.parametrize(
    "methods", [("interval",), ("linear",), ("quick", "interval"), ("interval", "quick", "linear")]
)
def test_named_methods_are_climbed_in_their_order(methods: tuple[str, ...]) -> None:
    model, samples = digits()
    chosen = options(methods=methods)
    for one, sample in zip(decide_together(model, own(model), samples, chosen), samples, strict=True):
        if one is not None:
            assert_same(one, alone(model, sample, chosen))


@pytest.mark.parametrize("is_safe", [True, False])
def test_the_order_that_slopes_choose_changes_no_verdict(is_safe: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = digits()
    expected = [alone(model, sample, options()).verdict for sample in samples]
    monkeypatch.setattr(ladder, "looks_safe", lambda cases, budget: [is_safe] * len(cases))
    assert [alone(model, sample, options()).verdict for sample in samples] == expected


def test_slopes_tell_what_is_proved_from_what_is_attacked() -> None:
    model, samples = digits()
    seen: list[bool] = []
    looks = ladder.looks_safe

    def looking(cases: Sequence[ladder.Case], budget: ladder.Budget) -> list[bool]:
        found = looks(cases, budget)
        seen.extend(found)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "looks_safe", looking)
        found = [alone(model, sample, options()) for sample in samples]
    asked = [one for one in found if one.method not in (None, "interval")]
    assert len(seen) == len(asked)
    right = [is_safe == (one.verdict is Verdict.CERTIFIED) for is_safe, one in zip(seen, asked, strict=True)]
    assert np.mean(right) > 0.8


def test_a_batch_that_has_no_time_leaves_its_samples_to_themselves() -> None:
    model, samples = digits()
    found = decide_together(model, own(model), samples, options(time_limit=1e-9))
    assert {one.verdict for one in found if one is not None} <= {Verdict.CLEAN_WRONG}


def test_a_target_is_a_target_in_a_batch() -> None:
    model, samples = digits()
    chosen = options(attack=ladder.AttackOptions(target=3))
    others = [sample for sample in samples if sample.label != 3]
    for one, sample in zip(decide_together(model, own(model), others, chosen), others, strict=True):
        if one is not None:
            assert_same(one, alone(model, sample, chosen))
            assert len(one.lowers) <= 1


def test_sets_that_are_no_boxes_are_decided_alone() -> None:
    model, samples = digits(6)
    sparse = [Sample(s.point, s.label, SparseBall.around(s.point, 0.1, 3, valid_lo=0.0, valid_hi=1.0)) for s in samples]
    found = decide_together(model, own(model), sparse, options())
    assert {one.verdict for one in found if one is not None} <= {Verdict.CLEAN_WRONG}


def test_large_models_and_loops_are_decided_one_by_one() -> None:
    model, _ = digits()
    assert samples_at_once(model) == ladder.MOST_AT_ONCE
    assert samples_at_once(load_model(SAMPLES / "digits_mondeq.npz").model) == 1
    wide = random_network(
        np.random.default_rng(0), p=400, q=400, widths=(1500, 1500), activations=["relu"], skips=False
    )
    assert samples_at_once(wide) == 1
