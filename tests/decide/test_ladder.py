"""One ladder: the same set asked both ways, as a sample and as a property, gets one verdict by one rung."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from idl_audit.decide import rungs
from idl_audit.decide.ladder import METHODS, Options, Result, climbed, decide_query, decide_sample
from idl_audit.decide.proofs import FEW_INPUTS, proof_of
from idl_audit.decide.rungs import PROOFS, RUNGS
from idl_audit.graph.reader import read_graph
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.storage import load_model
from idl_audit.implicit.threshold import with_threshold
from idl_audit.proof.check import check
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.errors import OptionError
from idl_audit.values.input_sets import InputSet
from idl_audit.values.margins import margin_functionals
from idl_audit.values.query import Conjunction, Misclassification, Query
from idl_audit.values.verdicts import Reason, Verdict
from tests.shared.budgets import enough, no_time
from tests.shared.cyclic_models import monotone_loop, plain
from tests.shared.small_networks import layered, random_network

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
NODES = 3000
"""Enough for most of these sets; none of them is given seconds."""


Case: TypeAlias = tuple[ImplicitModel, np.ndarray, InputSet]


def asked(**options: object) -> Options:
    return Options(**{"time_limit": math.inf, "max_nodes": NODES, **options})  # type: ignore[arg-type]


def own(model: ImplicitModel) -> Callable[[np.ndarray], np.ndarray]:
    return lambda points: model(points.astype(np.float64))


def digits(model: ImplicitModel, eps: float, count: int) -> list[Case]:
    with np.load(SAMPLES / "digits_mlp.npz") as arrays:
        rows = arrays["inputs"].reshape(-1, 64)[:count].astype(np.float64)
    return [(model, x, Box.around(x, eps, valid_lo=0.0, valid_hi=1.0)) for x in rows]


def random_sets(p: int, make: Callable[[int], ImplicitModel], seeds: int = 5) -> list[Case]:
    """Return boxes a little beyond what linear bounds prove, and others far beyond and well within."""
    cases: list[Case] = []
    for seed in range(seeds):
        model, x = make(seed), np.random.default_rng(seed).normal(size=p).astype(np.float32).astype(np.float64)
        label, low, high = int(model(x[None])[0].argmax()), 2.0**-12, 4.0
        while high - low > 0.02 * low:
            radius = (low + high) / 2
            found = decide_sample(model, own(model), x, label, Box.around(x, radius), asked(methods=("linear",)))
            low, high = (radius, high) if found.verdict is Verdict.CERTIFIED else (low, radius)
        cases += [(model, x, Box.around(x, low * share)) for share in (0.95, 1.3, 6.0)]
    return cases


def wide(seed: int) -> ImplicitModel:
    return random_network(np.random.default_rng(seed), p=24, widths=(12, 12), activations=["relu"])


def narrow(seed: int) -> ImplicitModel:
    return random_network(np.random.default_rng(seed), p=3, widths=(12, 12), activations=["relu"])


def one_output(seed: int) -> ImplicitModel:
    model = random_network(np.random.default_rng(seed), p=3, q=1, widths=(8, 8), activations=["relu"])
    return with_threshold(model, float(model(np.zeros((1, 3)))[0, 0]))[0]


def looped(seed: int) -> ImplicitModel:
    rng = np.random.default_rng(seed)
    return plain(monotone_loop(rng, 8), rng.normal(size=(8, 3)), rng.normal(size=(3, 8)), b=rng.normal(size=8))


@dataclass(frozen=True)
class Kind:
    """Sets of one kind, and rungs that must be among those that decide them."""

    cases: Callable[[], list[Case]]
    rungs: tuple[str, ...]


KINDS: Mapping[str, Kind] = {
    "feed-forward": Kind(
        lambda: digits(build_implicit(read_graph(SAMPLES / "digits_mlp.onnx")), 0.1, 4), ("linear", "quick")
    ),
    "many inputs": Kind(lambda: random_sets(24, wide), ("linear", "quick", "branch")),
    "few inputs": Kind(lambda: random_sets(3, narrow), ("linear", "quick", "split")),
    "one output": Kind(lambda: random_sets(3, one_output), ("linear", "quick", "split")),
    "loop": Kind(lambda: random_sets(3, looped), ("linear", "exact")),
    "mondeq": Kind(lambda: digits(load_model(SAMPLES / "digits_mondeq.npz").model, 0.1, 3), ("exact",)),
}


def both_ways(model: ImplicitModel, sample: np.ndarray, inputs: InputSet, **options: object) -> tuple[Result, Result]:
    label = int(model(sample[None])[0].argmax())
    one = decide_sample(model, own(model), sample, label, inputs, asked(**options))
    rows = margin_functionals(model.n_outputs, label)
    query = Query(inputs, tuple(Conjunction(row[None], np.zeros(1)) for row in rows))
    return one, decide_query(model, own(model), query, asked(**options))


@pytest.mark.parametrize("name", KINDS)
def test_the_same_set_asked_both_ways_gets_one_verdict_by_one_rung(name: str) -> None:
    kind = KINDS[name]
    found = []
    for model, sample, inputs in kind.cases():
        one, other = both_ways(model, sample, inputs)
        assert (one.verdict, one.method) == (other.verdict, other.method)
        assert one.verdict in (Verdict.CERTIFIED, Verdict.FALSIFIED)
        if one.verdict is Verdict.CERTIFIED:
            assert one.lower is not None
            assert one.lower > 0
        found.append(one.method)
    assert set(kind.rungs) <= set(found)


def test_a_sparse_set_asked_both_ways_is_proved_by_one_rung() -> None:
    found = []
    for seed in range(8):
        model = wide(seed)
        x = np.random.default_rng(seed).normal(size=24).astype(np.float32).astype(np.float64)
        one, other = both_ways(model, x, SparseBall.around(x, (0.05, 0.1, 0.2, 0.4)[seed % 4], 2))
        if one.verdict is Verdict.CERTIFIED:
            assert (one.verdict, one.method) == (other.verdict, other.method)
            found.append(one.method)
        else:
            assert other.verdict is not Verdict.CERTIFIED
    assert len(found) >= 3


@pytest.mark.parametrize("name", ["few inputs", "many inputs", "loop"])
def test_what_was_recorded_proves_the_query(name: str) -> None:
    """Alternatives are numbered as in the query, whoever asked."""
    checked = 0
    for model, sample, inputs in KINDS[name].cases():
        label = int(model(sample[None])[0].argmax())
        query = Query.misclassification(inputs, model.n_outputs, label)
        found = decide_sample(model, own(model), sample, label, inputs, asked(record=True))
        if found.verdict is not Verdict.CERTIFIED or found.method not in ("split", "branch", "exact"):
            continue
        # what boxes prove, lines over the whole set may have proved: the tree grows for those
        budget = enough() if found.method == "split" else no_time()
        assert found.recorded is not None
        proof = proof_of(model, own(model), query, found.recorded, budget=budget)
        assert proof is not None
        assert check(model, query, proof) == []
        checked += 1
    assert checked


def test_trees_of_programs_refute_rows_with_offsets_and_sums_of_rows() -> None:
    """|u| as a loop-free model: u <= -0.1 and -u <= -0.1 contradict each other, y <= c fails above its minimum."""
    model = layered([([[1.0], [-1.0]], [0.0, 0.0])], ([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0]))
    box = Box.between(-np.ones(1), np.ones(1))
    apart = Query(box, (Conjunction(np.eye(2), np.array([0.1, 0.1])),))
    found = decide_query(model, own(model), apart, asked(methods=("exact",), record=True))
    assert (found.verdict, found.method) == (Verdict.CERTIFIED, "exact")
    assert 0 < found.lowers[0] <= 0.2
    assert found.recorded is not None
    assert found.recorded.lp is not None
    assert found.recorded.lp.trees[0].row == 2
    touching = Query(box, (Conjunction(np.eye(2), np.array([0.0, 0.0])),))
    assert decide_query(model, own(model), touching, asked(methods=("exact",))).verdict is not Verdict.CERTIFIED


@pytest.mark.parametrize("seed", range(6))
def test_trees_of_programs_find_the_least_value_of_a_loop_up_to_an_offset(seed: int) -> None:
    model = looped(seed)
    box = Box.between(-0.5 * np.ones(3), 0.5 * np.ones(3))
    row = np.random.default_rng(seed).normal(size=3)
    y = model(box.lo + np.random.default_rng(seed).random((4000, 3)))
    least = float((y @ row).min())
    for shift, verdict in ((0.3, Verdict.CERTIFIED), (-0.05, Verdict.FALSIFIED)):
        query = Query(box, (Conjunction(row[None], np.array([shift - least])),))
        found = decide_query(model, own(model), query, asked())
        if found.verdict is not verdict:  # the sampled least value is not the least
            assert shift > 0
            assert found.found is not None
            assert found.found.outputs @ row < least
    tight = Query(box, (Conjunction(row[None], np.array([0.05 - least])),))
    assert decide_query(model, own(model), tight, asked(methods=("exact",))).verdict is not Verdict.UNKNOWN


# ---- the table -------------------------------------------------------------------------------------------------------


def kinds_of_queries() -> list[tuple[ImplicitModel, Query]]:
    few, many = Box.between(-np.ones(3), np.ones(3)), Box.between(-np.ones(24), np.ones(24))
    sparse = SparseBall.around(np.zeros(24), 0.5, 2)
    row = (Conjunction(np.ones((1, 3)), np.zeros(1)),)
    sets = [(narrow(0), few), (wide(0), many), (wide(0), sparse), (looped(0), few)]
    return [(model, kind(inputs)) for model, inputs in sets for kind in (
        lambda inputs: Query(inputs, row), lambda inputs: Query.misclassification(inputs, 3, 0)
    )]  # fmt: skip


def test_what_is_usual_fits_and_can_prove() -> None:
    for model, query in kinds_of_queries():
        names = climbed(model, query)
        assert all(RUNGS[name].fits(model, query) for name in names)
        assert PROOFS.intersection(names) >= {"linear"}
        classes = isinstance(query, Misclassification)
        assert climbed(model, query, names if classes else [n for n in names if n != "persist"])[:3] == names[:3]


def test_both_kinds_of_questions_about_a_box_climb_the_same_rungs() -> None:
    for box in (Box.between(-np.ones(3), np.ones(3)), Box.between(-np.ones(24), np.ones(24))):
        for model in (narrow(0), wide(0), looped(0)):
            if model.n_inputs == box.size:
                plain_query = Query(box, (Conjunction(np.ones((1, 3)), np.zeros(1)),))
                names = climbed(model, plain_query)
                assert names[-1] == "persist"
                shared = tuple(name for name in names[:-1] if (RUNGS[name].begins or name) != "rational")
                assert shared == climbed(model, Query.misclassification(box, 3, 0))


def test_rungs_say_for_which_models_and_sets_they_are() -> None:
    few, many = Box.between(-np.ones(3), np.ones(3)), Box.between(-np.ones(24), np.ones(24))
    sparse = SparseBall.around(np.zeros(24), 0.5, 2)
    assert FEW_INPUTS == 20
    usual = {
        "few": climbed(narrow(0), Query.misclassification(few, 3, 0)),
        "many": climbed(wide(0), Query.misclassification(many, 3, 0)),
        "sparse": climbed(wide(0), Query.misclassification(sparse, 3, 0)),
        "loop": climbed(looped(0), Query.misclassification(few, 3, 0)),
    }
    first = ("first split", "first attack", "next split")
    assert usual["few"] == ("interval", "quick", "linear", *first, "attack", "split", "branch")
    assert usual["many"] == ("interval", "quick", "linear", "attack", "branch")
    assert usual["sparse"] == ("interval", "sign", "pgd", "linear", "lp")
    assert usual["loop"] == ("linear", "exact", "split", "quick", "first attack", "attack")


def test_a_linear_program_that_would_fill_the_memory_is_climbed_only_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = Query.misclassification(SparseBall.around(np.zeros(24), 0.5, 2), 3, 0)
    monkeypatch.setattr(rungs, "LARGEST_PROGRAM", 1000)
    assert "lp" not in climbed(wide(0), sparse)
    assert "lp" in climbed(wide(0), sparse, ("interval", "lp"))


def test_methods_keep_the_order_in_which_they_were_asked_for() -> None:
    box = Box.between(-np.ones(24), np.ones(24))
    query = Query.misclassification(box, 3, 0)
    assert climbed(wide(0), query, ("linear", "pgd", "interval")) == ("linear", "pgd", "interval")
    loop = Query.misclassification(Box.between(-np.ones(3), np.ones(3)), 3, 0)
    assert climbed(looped(0), loop, ("interval", "sign", "pgd", "linear", "branch")) == (
        "linear", "exact", "sign", "pgd",
    )  # fmt: skip
    sparse = Query.misclassification(SparseBall.around(np.zeros(24), 0.5, 2), 3, 0)
    assert climbed(wide(0), sparse, ("pgd", "branch")) == ("pgd", "lp")
    with pytest.raises(OptionError, match="the method split is not for sets in which few inputs change"):
        climbed(wide(0), sparse, ("split",))
    begun = {"first attack", "first apgd-t", "late attack", "first rational", "first split", "next split", "long split"}
    assert set(METHODS) == set(RUNGS) - {"persist", "rational", "joint", "first joint", "next joint"} - begun
    assert {rung.begins for rung in RUNGS.values() if rung.begins} == {"apgd-t", "attack", "joint", "rational", "split"}


def test_a_limit_of_nodes_is_told_and_makes_runs_repeat_themselves() -> None:
    model, sample, inputs = KINDS["few inputs"].cases()[5]
    first, second = (both_ways(model, sample, inputs, max_nodes=3) for _ in range(2))
    assert [one.lowers for one in first] == [one.lowers for one in second]
    undecided = [one for one in first if one.verdict is Verdict.UNKNOWN]
    assert all(one.reason is Reason.NODE_LIMIT for one in undecided)
