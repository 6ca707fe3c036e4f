"""Verdicts for float32 arithmetic: no float32 point of a certified set is misclassified by any way of computing it.

The runtimes are onnxruntime with and without its optimisations, and float32 written out here in orders and with mergers
that some runtime may choose. The networks cancel: in real arithmetic their margins are proved, in float32 they vanish.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.commands.shared.float_margins import float_margins
from idl_audit.commands.shared.subject import Subject, open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide import many
from idl_audit.decide.ladder import Options, Result, Sample, decide_query, decide_sample, decide_together
from idl_audit.decide.many import decided_together
from idl_audit.decide.proofs import proof_of
from idl_audit.proof import float_margins as module
from idl_audit.proof.bounds import Interval
from idl_audit.proof.check import check
from idl_audit.proof.float_check import check_computed
from idl_audit.proof.float_margins import FloatMargins, Unbounded, lowered
from idl_audit.proof.float_parts import FloatParts
from idl_audit.proof.intervals import interval_bounds
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.budget import Budget
from idl_audit.values.margins import margin_functionals
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.verdicts import Reason, Verdict
from tests.commands.test_float_margins import bump, saved

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
Single = np.ndarray[Any, np.dtype[np.float32]]
METHODS = (None, ("interval", "linear"), ("split",), ("branch",), ("lp",), ("exact",))


def bounds_of(subject: Subject, preprocessing: Preprocessing | None = None) -> FloatMargins:
    found = float_margins(subject, preprocessing or Preprocessing())
    assert isinstance(found, FloatMargins)
    return found


def margin_query(centre: Sequence[float], eps: float, n_outputs: int = 2, label: int = 0) -> Query:
    return Query.misclassification(Box.around(np.asarray(centre, np.float64), eps), n_outputs, label)


# --- networks whose margins vanish in float32 -------------------------------------------------------------------------


@dataclass(frozen=True)
class Cancelling:
    """y0 = sum_k v_k (relu(s_k t + c) - s_k t) with t = relu(W x + b) w, against y1; exact y0 = sum v_k c where t >= 0.

    Large s_k lose c in float32.
    """

    W: Single
    b: Single
    w: Single
    s: Single
    c: float
    v: Single
    y1: float

    @classmethod
    def drawn(cls, seed: int, power: int) -> Cancelling:
        rng = np.random.default_rng(seed)
        n, k = int(rng.integers(2, 5)), int(rng.integers(1, 4))
        v = rng.integers(1, 4, (k, 1)).astype(np.float32)
        return cls(
            rng.normal(size=(2, n)).astype(np.float32),
            rng.normal(size=n).astype(np.float32),
            rng.uniform(0.1, 1.0, (n, 1)).astype(np.float32),
            (2.0 ** (power + rng.uniform(-2, 2, (1, k)))).astype(np.float32),
            1.0,
            v,
            float(v.sum()) * float(rng.uniform(0.3, 0.999)),
        )

    def saved(self, folder: Path) -> Path:
        nodes: Sequence[tuple[str, str, str, Mapping[str, Any]]] = [
            ("Gemm", "x W b", "g", {}),
            ("Relu", "g", "h", {}),
            ("MatMul", "h w", "t", {}),
            ("MatMul", "t s", "k", {}),
            ("Add", "k c", "kc", {}),
            ("Relu", "kc", "a", {}),
            ("Sub", "a k", "d", {}),
            ("MatMul", "d v", "y0", {}),
            ("Mul", "y0 zero", "z", {}),
            ("Add", "z half", "y1", {}),
            ("Concat", "y0 y1", "y", {"axis": 1}),
        ]
        constants = {"W": self.W, "b": self.b, "w": self.w, "s": self.s, "v": self.v}
        constants |= {"c": np.float32([self.c]), "zero": [0.0], "half": [self.y1]}
        return saved(folder / "cancelling.onnx", nodes, constants, n=2)

    def computed(self, points: Single, rng: np.random.Generator, merged: bool) -> np.ndarray:
        """Return outputs in float32, sums in a random order, the two products by t in one where they are `merged`."""
        h = np.maximum(_product(points, self.W, rng, self.b), np.float32(0))
        if merged:  # w s multiplied out beforehand
            k = _product(h, (self.w * self.s).astype(np.float32), rng)
        else:
            k = _product(_product(h, self.w, rng), self.s, rng)
        d = np.maximum(k + np.float32(self.c), np.float32(0)) - k
        y0 = _product(d, self.v, rng)
        return np.hstack([y0, np.full_like(y0, np.float32(self.y1))]).astype(np.float64)


def _product(a: Single, b: Single, rng: np.random.Generator, start: Single | None = None) -> Single:
    """Return a b + start, rounded after each step, the terms in a random order."""
    terms = [(a[:, [i]] * b[[i]]).astype(np.float32) for i in range(b.shape[0])]
    terms += [] if start is None else [np.broadcast_to(start, terms[0].shape)]
    total = np.zeros_like(terms[0])
    for i in rng.permutation(len(terms)):
        total = (total + terms[i]).astype(np.float32)
    return total


LEVELS = (
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
)


def runs(path: Path, points: Single) -> Iterator[np.ndarray]:
    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.intra_op_num_threads, options.log_severity_level = level, 1, 4
        session = onnxruntime.InferenceSession(str(path), options)
        yield session.run(None, {"x": points})[0].astype(np.float64)


def points_in(box: Box, count: int, rng: np.random.Generator) -> Single:
    lo, hi = box.float32_bounds()
    u = rng.random((count, box.size)) * (hi.astype(float) - lo) + lo
    corners = np.where(rng.integers(0, 2, (64, box.size)), hi, lo)
    return np.clip(np.vstack([u, corners, box.centre]).astype(np.float32), lo, hi)


def is_misclassified(network: Cancelling, path: Path, box: Box, count: int, rng: np.random.Generator) -> bool:
    points = points_in(box, count, rng)
    outputs = [*runs(path, points), *(network.computed(points, rng, merged) for merged in (False, True))]
    return any((y[:, 0] <= y[:, 1]).any() for y in outputs)


def hunted(folder: Path, seed: int, power: int, count: int) -> tuple[bool, bool, bool]:
    """Return whether a network is certified in real arithmetic, in float32, and misclassified at a float32 point."""
    network, rng = Cancelling.drawn(seed, power), np.random.default_rng(seed)
    path = network.saved(folder)
    subject = open_subject(path)
    query = margin_query(rng.normal(size=2), float(rng.choice([0.01, 0.1, 0.5])))
    found = []
    for arithmetic in (None, bounds_of(subject)):
        methods = ("interval", "linear", "split", "branch") if seed % 2 else ("interval", "linear", "branch")
        options = Options(methods=methods, time_limit=2, seed=seed, max_nodes=200)
        result = decide_query(subject.model, subject.original, query, options, arithmetic=arithmetic)
        found.append(result.verdict is Verdict.CERTIFIED)
    return found[0], found[1], is_misclassified(network, path, query.box, count, rng)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 30))
def test_no_float32_point_contradicts_a_verdict(
    tmp_path_factory: pytest.TempPathFactory, seed: int, power: int
) -> None:
    _, computed, misclassified = hunted(tmp_path_factory.mktemp("net"), seed, power, 500)
    assert not (computed and misclassified)


def _tally(folder: Path, networks: int, count: int) -> Counter[tuple[bool, bool, bool]]:
    return Counter(hunted(folder, seed, 8 + seed % 22, count) for seed in range(networks))


def test_the_hunt_finds_what_real_arithmetic_misses(tmp_path: Path) -> None:
    """Verdicts in real arithmetic are contradicted, those in float32 are not, and neither are all of them unknown."""
    seen = _tally(tmp_path, 40, 300)
    assert sum(n for (real, _, wrong), n in seen.items() if real and wrong) >= 5
    assert sum(n for (_, computed, _), n in seen.items() if computed) >= 10
    assert not any(computed and wrong for _, computed, wrong in seen)


@pytest.mark.slow
def test_no_point_of_a_million_contradicts_a_verdict(tmp_path: Path) -> None:
    seen = _tally(tmp_path, 100, 10_000)
    assert sum(n for (real, _, wrong), n in seen.items() if real and wrong) >= 10
    assert not any(computed and wrong for _, computed, wrong in seen)


# --- every rung -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("methods", METHODS)
def test_a_margin_that_float32_takes_away_is_not_certified(tmp_path: Path, methods: tuple[str, ...] | None) -> None:
    path, _ = bump(tmp_path)
    subject = open_subject(path)
    arithmetic = bounds_of(subject)

    def decided(eps: float, float32: bool) -> Result:
        options = Options(methods=methods, time_limit=3, record=True)
        query = margin_query([4.9], eps)
        found = arithmetic if float32 else None
        return decide_query(subject.model, subject.original, query, options, arithmetic=found)

    near = decided(0.2, True)
    if methods == ("split",):  # its boxes shrink around a point
        assert near.verdict is Verdict.FALSIFIED
        return
    assert near.verdict is (Verdict.FALSIFIED if methods is None else Verdict.UNKNOWN)
    assert methods is None or near.reason is Reason.WITHIN_ROUNDING
    if methods is not None:  # attacks find the points that real arithmetic has no word for
        assert decided(0.2, False).verdict is Verdict.CERTIFIED
    far = decided(0.05, True)
    assert far.verdict is Verdict.CERTIFIED
    assert far.lower is not None
    assert 0.499 < far.lower < 0.5 - 1e-7  # of the computed margin
    query = margin_query([4.9], 0.05)
    proof = proof_of(subject.model, subject.original, query, far.recorded, budget=Budget.of(20), arithmetic=arithmetic)
    assert proof is not None
    assert not check_computed(subject.model, query, proof, arithmetic)
    assert not check(subject.model, lowered(query, proof.slack), proof)


def test_a_property_is_refuted_by_sums_of_rows_less_what_both_may_be_off_by(tmp_path: Path) -> None:
    """x <= c and -x <= -c - d: no row is violated everywhere, their sum is by d, if that exceeds both roundings."""
    subject = open_subject(
        saved(tmp_path / "m.onnx", [("Gemm", "x w b", "y", {})], {"w": [[1.0, -1.0]], "b": [0.1, -0.1]})
    )
    arithmetic, box = bounds_of(subject), Box.between(np.zeros(1), np.ones(1))
    for d, expected in ((1e-3, Verdict.CERTIFIED), (1e-8, Verdict.UNKNOWN)):
        both = Conjunction(np.eye(2), np.array([-0.5, 0.5 + d]))
        options = Options(methods=("linear",))
        found = decide_query(subject.model, subject.original, Query(box, (both,)), options, arithmetic=arithmetic)
        assert found.verdict is expected
        real = decide_query(subject.model, subject.original, Query(box, (both,)), options)
        assert real.verdict is Verdict.CERTIFIED


@pytest.mark.parametrize("eps", [0.001, 0.02, 0.05])
def test_batches_say_what_each_sample_says(eps: float) -> None:
    subject = open_subject(SAMPLES / "digits_mlp.onnx")
    arithmetic = bounds_of(subject)
    with np.load(SAMPLES / "digits_mlp.npz") as data:
        inputs, labels = data["inputs"][:12].reshape(12, -1).astype(float), data["labels"][:12]
    samples = [Sample(x, int(y), Box.around(x, eps)) for x, y in zip(inputs, labels, strict=True)]
    options = Options(methods=("interval", "linear"), arithmetic="float32")
    together = decide_together(subject.model, subject.original, samples, options, arithmetic=arithmetic)
    assert sum(found is not None and found.verdict is Verdict.CERTIFIED for found in together) >= 6
    for sample, found in zip(samples, together, strict=True):
        alone = decide_sample(
            subject.model, subject.original, sample.point, sample.label, sample.inputs, options, arithmetic=arithmetic
        )
        if found is not None:
            assert (found.verdict, found.method) == (alone.verdict, alone.method)
            assert found.lowers == pytest.approx(alone.lowers, rel=1e-9)


def test_rows_of_their_own_for_each_box() -> None:
    subject = open_subject(SAMPLES / "digits_mlp.onnx")
    arithmetic = bounds_of(subject)
    with np.load(SAMPLES / "digits_mlp.npz") as data:
        x = data["inputs"][:5].reshape(5, -1).astype(float)
    inputs = Interval(x - 0.02, x + 0.02)
    rows = np.stack([margin_functionals(10, k) for k in range(5)])
    for sharp in (False, True):
        states = interval_bounds(arithmetic.model, inputs)
        together = arithmetic.over(inputs, states, sharp=sharp).of(rows)
        for i in range(5):
            some = np.array([i])
            alone = arithmetic.over(inputs.rows(some), states.of_boxes(some), sharp=sharp).of(rows[i])
            assert together[i] == pytest.approx(alone[0], rel=1e-9)


def test_many_boxes_of_a_property_are_decided_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "MANY", 4)
    path, _ = bump(tmp_path)
    subject = open_subject(path)
    arithmetic = bounds_of(subject)
    edges = np.linspace(4.7, 5.1, 21)
    boxes = [Box.between(np.array([lo]), np.array([hi])) for lo, hi in pairwise(edges)]
    queries = [Query(box, (Conjunction(np.array([[1.0, -1.0]]), np.zeros(1)),)) for box in boxes]
    budget = Budget.of(20, nodes=10_000)
    options = Options(record=True)
    real = decided_together(subject.model, lambda u: subject.model(u.astype(float)), queries, options, budget)
    assert [found.verdict for found in real.values()] == [Verdict.CERTIFIED] * 20
    found = decided_together(
        subject.model, subject.original, queries[:14], options, budget, arithmetic=arithmetic
    )  # up to 4.98
    assert sorted(found) == list(range(14))
    for number, result in found.items():
        assert result.verdict is Verdict.CERTIFIED
        proof = proof_of(
            subject.model, subject.original, queries[number], result.recorded, budget=budget, arithmetic=arithmetic
        )
        assert proof is not None
    near = decided_together(subject.model, subject.original, queries[14:], options, budget, arithmetic=arithmetic)
    assert not any(result.verdict is Verdict.CERTIFIED for i, result in near.items() if edges[14 + i] >= 4.999)


def test_sets_in_which_few_inputs_change() -> None:
    subject = open_subject(SAMPLES / "digits_mlp.onnx")
    with np.load(SAMPLES / "digits_mlp.npz") as data:
        x, label = data["inputs"][0].reshape(-1).astype(float), int(data["labels"][0])
    inputs = SparseBall.around(x, 0.1, 2)
    options = Options(methods=("interval", "linear"))
    arithmetic = bounds_of(subject)
    found, real = (
        decide_sample(subject.model, subject.original, x, label, inputs, options, arithmetic=one)
        for one in (arithmetic, None)
    )
    assert found.verdict is real.verdict is Verdict.CERTIFIED
    assert found.lower is not None
    assert real.lower is not None
    assert found.lower < real.lower


def test_parts_of_a_box_have_roundings_of_their_own(tmp_path: Path) -> None:
    """Over the whole box what roundings may change exceeds the margin; over parts of it, it does not."""
    nodes: Sequence[tuple[str, str, str, Mapping[str, Any]]] = [
        ("Gemm", "x w1 b1", "t", {}),
        ("Relu", "t", "h", {}),
        ("Gemm", "h w2 b2", "y", {}),
    ]
    scale = 2.0**23
    constants = {"w1": [[scale, -scale]], "b1": [0.0, 0.0], "w2": [[1.0, 0.0], [1.0, 0.0]], "b2": [0.25, 0.0]}
    subject = open_subject(saved(tmp_path / "m.onnx", nodes, constants))
    arithmetic, box = bounds_of(subject), Box.between(np.array([-1.0]), np.array([1.0]))
    query = Query(box, (Conjunction(np.array([[1.0, -1.0]]), np.zeros(1)),))
    states = interval_bounds(subject.model, Interval.of_boxes(box))
    assert arithmetic.over(Interval.of_boxes(box), states, sharp=True).of(query.alternatives[0].rows)[0, 0] > 0.25
    options = Options(methods=("linear", "branch"), record=True)
    assert (
        decide_query(subject.model, subject.original, query, options, arithmetic=arithmetic).verdict is Verdict.UNKNOWN
    )
    options = Options(methods=("split",), record=True)
    found = decide_query(subject.model, subject.original, query, options, arithmetic=arithmetic)
    assert found.verdict is Verdict.CERTIFIED
    proof = proof_of(
        subject.model, subject.original, query, found.recorded, budget=Budget.of(20), arithmetic=arithmetic
    )
    assert proof is not None
    assert check(subject.model, lowered(query, proof.slack), proof)  # not over the whole
    assert not check(subject.model, lowered(query, proof.slack), proof, FloatParts(arithmetic, query))
    assert not check_computed(subject.model, query, proof, arithmetic)
    points = np.linspace(-1, 1, 20001).astype(np.float32)[:, None]
    for y in runs(tmp_path / "m.onnx", points):
        assert (y[:, 0] > y[:, 1]).all()
    tighter = Query(box, (Conjunction(np.array([[1.0, -1.0]]), np.full(1, -0.25)),))  # a margin of 0
    found = decide_query(
        subject.model, subject.original, tighter, replace(options, max_nodes=2000), arithmetic=arithmetic
    )
    assert found.verdict is not Verdict.CERTIFIED


# --- what has no bound ------------------------------------------------------------------------------------------------


def test_a_network_without_a_bound_is_unknown_before_any_time_is_spent() -> None:
    subject = open_subject(SAMPLES / "digits_mlp.onnx")
    arithmetic = Unbounded(("Foo node 'bar'",))
    with np.load(SAMPLES / "digits_mlp.npz") as data:
        x, label = data["inputs"][0].reshape(-1).astype(float), int(data["labels"][0])

    def asked(points: Single) -> np.ndarray:
        calls.append(len(points))
        return subject.original(points)

    calls: list[int] = []
    samples = [Sample(x, label, Box.around(x, 0.3)), Sample(x, (label + 1) % 10, Box.around(x, 0.3))]
    found = decide_together(subject.model, asked, samples, Options(), arithmetic=arithmetic)
    assert [one and (one.verdict, one.reason) for one in found] == [
        (Verdict.UNKNOWN, Reason.NO_ROUNDING_BOUND),
        (Verdict.CLEAN_WRONG, None),
    ]
    assert found[0] is not None
    assert "Foo node 'bar'" in found[0].detail
    assert calls == [1, 1]
    query = margin_query(x, 0.3, 10, label)
    assert (
        decide_query(subject.model, asked, query, Options(), arithmetic=arithmetic).reason is Reason.NO_ROUNDING_BOUND
    )
    assert decided_together(subject.model, asked, [query] * 20, Options(), Budget.of(1), arithmetic=arithmetic) == {}
    assert proof_of(subject.model, asked, query, None, budget=Budget.of(1), arithmetic=arithmetic) is None
    assert calls == [1, 1]
    attacked = decide_sample(
        subject.model, asked, x, label, Box.around(x, 0.5), Options(methods=("pgd", "linear")), arithmetic=arithmetic
    )
    assert attacked.verdict is Verdict.FALSIFIED  # attacks that are asked for need no bound


def test_numbers_that_may_overflow_have_no_bound(tmp_path: Path) -> None:
    nodes: Sequence[tuple[str, str, str, Mapping[str, Any]]] = [
        ("Mul", "x big", "a", {}),
        ("Mul", "a big", "b", {}),
        ("Relu", "b", "r", {}),
        ("Mul", "r tiny", "c", {}),
        ("Mul", "c tiny", "d", {}),
        ("Gemm", "d w v", "y", {}),
    ]
    constants = {"big": [1e30], "tiny": [1e-30], "w": [[1.0, 1.0]], "v": [1.0, 0.0]}
    subject = open_subject(saved(tmp_path / "m.onnx", nodes, constants))
    query = margin_query([0.5], 0.1)
    options = Options(methods=("linear", "branch"))
    result = decide_query(subject.model, subject.original, query, options, arithmetic=bounds_of(subject))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.NO_ROUNDING_BOUND)


def test_bounds_of_another_model_are_refused(tmp_path: Path) -> None:
    subject, other = open_subject(SAMPLES / "digits_mlp.onnx"), open_subject(bump(tmp_path)[0])
    query = margin_query(np.zeros(64), 0.1, 10)
    with pytest.raises(ValueError, match="another model"):
        decide_query(subject.model, subject.original, query, Options(), arithmetic=bounds_of(other))
    with pytest.raises(ValueError, match="nothing says what its roundings change"):
        decide_query(subject.model, subject.original, query, Options(arithmetic="float32"))


# --- last operators ---------------------------------------------------------------------------------------------------


def softmax_pair(folder: Path, *last: tuple[str, str, str, Mapping[str, Any]]) -> Subject:
    nodes = [("Gemm", "x w b", "h", {}), *last]
    return open_subject(saved(folder / "s.onnx", nodes, {"w": [[1.0, 0.0, 0.0]], "b": [0.0, 0.0, 300.0]}))


def test_probabilities_that_are_flushed_tie_though_their_logits_do_not(tmp_path: Path) -> None:
    """Outputs 0 and 1 are e^-298 and e^-300 of output 2: both 0 in float32, and y0 <= y1 holds."""
    subject = softmax_pair(tmp_path, ("Softmax", "h", "y", {"axis": 1}))
    assert subject.model.stripped_output == "Softmax"
    row = Conjunction(np.array([[1.0, -1.0, 0.0]]), np.zeros(1))
    query = Query(Box.between(np.array([2.0]), np.array([3.0])), (row,))
    options = Options(methods=("linear",))
    assert decide_query(subject.model, subject.original, query, options).verdict is Verdict.CERTIFIED
    found = decide_query(subject.model, subject.original, query, options, arithmetic=bounds_of(subject))
    assert found.verdict is Verdict.UNKNOWN
    y = subject.original(np.float32([[2.5]]))
    assert y[0, 0] == y[0, 1] == 0
    near = Conjunction(np.array([[-1.0, 0.0, 1.0]]), np.zeros(1))  # output 2 beside output 0
    query = Query(query.inputs, (near,))
    assert decide_query(subject.model, subject.original, query, options, arithmetic=bounds_of(subject)).verdict is (
        Verdict.CERTIFIED
    )


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_multiples_of_probabilities_tie_as_they_do(tmp_path: Path, operator: str) -> None:
    """1e6 y0 <= 1e6 y1 is y0 <= y1: of logits 1e-9 apart it holds in float32."""
    nodes = [("Gemm", "x w b", "h", {}), (operator, "h", "y", {"axis": 1})]
    subject = open_subject(saved(tmp_path / "s.onnx", nodes, {"w": [[0.0, 0.0]], "b": [1e-9, 0.0]}))
    y = subject.original(np.float32([[0.5]]))
    assert y[0, 0] == y[0, 1]
    for multiple in (1.0, 1e6, 1e-6):
        row = Conjunction(multiple * np.array([[1.0, -1.0]]), np.zeros(1))
        query = Query(Box.between(np.zeros(1), np.ones(1)), (row,))
        options = Options(methods=("linear",))
        found = decide_query(subject.model, subject.original, query, options, arithmetic=bounds_of(subject))
        assert found.verdict is not Verdict.CERTIFIED


def test_a_last_softmax_that_is_written_with_exponentials_overflows(tmp_path: Path) -> None:
    """exp(x) / sum exp(x) of logits 90 and 100 is infinity by infinity, where a softmax names the second class."""
    nodes = [
        ("Gemm", "x w b", "h", {}),
        ("Exp", "h", "e", {}),
        ("ReduceSum", "e axes", "s", {"keepdims": 1}),
        ("Div", "e s", "y", {}),
    ]
    path = saved(tmp_path / "s.onnx", nodes, {"w": [[1.0, 1.0]], "b": [0.0, 10.0], "axes": [1.0]})
    model = onnx.load(path)
    (axes,) = (one for one in model.graph.initializer if one.name == "axes")
    axes.CopyFrom(onnx.numpy_helper.from_array(np.array([1], np.int64), "axes"))
    onnx.save(model, path)
    found = float_margins(open_subject(path), Preprocessing())
    assert isinstance(found, Unbounded)
    assert "written with exponentials" in found.told


def test_logits_must_be_further_apart_than_probabilities_tell() -> None:
    assert np.exp(-module.TIE) * (1 + 2 * 7 * 2.0**-24 + module.TIE * 2.0**-24) < 1 - 2.0**-22
    both = module.TIE + 4 * 2.0**-24 * module.SEEN
    assert np.exp(-both) * (1 + 2 * 7 * 2.0**-24 + 2 * 2.0**-24 * (module.SEEN + both)) < 1 - 2.0**-22


def test_a_last_sigmoid_saturates(tmp_path: Path) -> None:
    """Logits 18 and 30 are both 1.0 behind a sigmoid, which stays in the model."""
    nodes = [("Gemm", "x w b", "h", {}), ("Sigmoid", "h", "y", {})]
    subject = open_subject(saved(tmp_path / "s.onnx", nodes, {"w": [[1.0, 0.0]], "b": [30.0, 18.0]}))
    query = margin_query([0.0], 0.5)
    options = Options(methods=("interval", "linear", "branch"), time_limit=5)
    found = decide_query(subject.model, subject.original, query, options, arithmetic=bounds_of(subject))
    assert found.verdict is not Verdict.CERTIFIED


def test_strict_rows_need_as_much_as_others(tmp_path: Path) -> None:
    """y = relu(x) < 0: rows that are strict are lowered like the others."""
    subject = open_subject(saved(tmp_path / "m.onnx", [("Relu", "x", "y", {})], {}))
    box, arithmetic = Box.between(-np.ones(1), np.ones(1)), bounds_of(subject)
    query = Query(box, (Conjunction(np.ones((1, 1)), np.full(1, 1e-3), (), np.ones(1, np.bool_)),))
    for one in (None, arithmetic):
        found = decide_query(subject.model, subject.original, query, Options(methods=("linear",)), arithmetic=one)
        assert found.verdict is Verdict.CERTIFIED
    (lower,) = lowered(query, (np.full(1, 2e-3),)).alternatives
    assert lower.strict.all()
    assert lower.offsets[0] < -0.999e-3
