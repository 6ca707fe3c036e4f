"""Attacks on queries: every answer replayed in exact arithmetic, by onnxruntime; known corners, ridges and spikes."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from idl_audit.graph.reader import read_graph
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.model import ImplicitModel
from idl_audit.search.judge import Judge
from idl_audit.search.query_attacks import attack_query
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.errors import OptionError
from idl_audit.values.query import Conjunction, Query
from tests.shared.small_networks import layered, random_network

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
DATA = os.environ.get("IDL_AUDIT_DATA")


def as_network(model: ImplicitModel) -> Callable[[np.ndarray], FloatArray]:
    return lambda points: model(points.astype(np.float64))


def attack(model: ImplicitModel, query: Query, *, seconds: float = 20.0, seed: int = 0, **given: object) -> object:
    judge = Judge.of(model, given.pop("network", as_network(model)), query)  # type: ignore[arg-type]
    budget, rng = Budget.of(seconds), np.random.default_rng(seed)
    won = attack_query(model, query, judge, budget=budget, rng=rng, **given)  # type: ignore[arg-type]
    return judge.found.point if won and judge.found is not None else None


def below(row: list[float], limit: float) -> Conjunction:
    """row y <= limit."""
    return Conjunction(np.array([row]), np.array([-limit]))


def check(found: object, query: Query, network: Callable[[np.ndarray], FloatArray]) -> None:
    """The point is float32, lies in the exact box, and the network's outputs satisfy one alternative exactly."""
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    assert found.shape == (query.box.size,)
    for value, lo, hi in zip(found, query.box.inner_lo, query.box.inner_hi, strict=True):
        assert Fraction(float(lo)) <= Fraction(float(value)) <= Fraction(float(hi))
    y = [Fraction(float(v)) for v in network(found[None])[0]]
    assert any(
        all(
            sum((Fraction(float(g)) * v for g, v in zip(row, y, strict=True)), Fraction(float(c))) <= 0
            for row, c in zip(one.rows, one.offsets, strict=True)
        )
        for one in query.alternatives
    )


@pytest.mark.parametrize("name", ["digits_mlp", "digits_conv", "digits_resnet"])
def test_misclassifications_are_confirmed_by_onnxruntime(name: str) -> None:
    model = build_implicit(read_graph(SAMPLES / f"{name}.onnx"))
    session = onnxruntime.InferenceSession(SAMPLES / f"{name}.onnx")
    entry = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in entry.shape]
    shape[0] = 1

    def network(points: np.ndarray) -> FloatArray:
        return np.stack(
            [session.run(None, {entry.name: u.reshape(shape)})[0].ravel() for u in points]  # type: ignore[union-attr]
        ).astype(np.float64)

    with np.load(SAMPLES / f"{name}.npz") as arrays:
        inputs, labels = arrays["inputs"], arrays["labels"]
    hits = 0
    for x, label in zip(inputs.reshape(len(inputs), -1)[:8].astype(np.float64), labels[:8], strict=True):
        query = Query.misclassification(Box.around(x, 0.2, valid_lo=0.0, valid_hi=1.0), 10, int(label))
        found = attack(model, query, network=network)
        if found is not None:
            check(found, query, network)
            hits += 1
    assert hits >= 6


def corner_model(p: int) -> ImplicitModel:
    """y = sum of relu(1 - u_i) and u_0: 0 only at the corner of ones."""
    return layered([(-np.eye(p), np.ones(p))], (np.vstack([np.ones((1, p)), np.zeros((1, p))]), [0.0, 1.0]))


@pytest.mark.parametrize("p", [1, 3, 30, 31, 200])
def test_a_corner_is_found_in_few_and_many_dimensions(p: int) -> None:
    model = corner_model(p)
    query = Query(Box.between(np.zeros(p), np.ones(p)), (below([1.0, 0.0], 1e-4 * p),))
    check(attack(model, query), query, as_network(model))


def ridge_model(p: int) -> ImplicitModel:
    """y_0 = sum_i |u_i - u_0 / 2 - 0.1|, y_1 = u_0: small only near a slanted line."""
    weights = np.zeros((2 * (p - 1) + 1, p))
    bias = np.zeros(len(weights))
    for i in range(1, p):
        for sign, row in ((1.0, 2 * i - 2), (-1.0, 2 * i - 1)):
            weights[row, i], weights[row, 0], bias[row] = sign, -sign / 2, -sign * 0.1
    weights[-1, 0] = 1.0
    out = np.zeros((2, len(weights)))
    out[0, :-1], out[1, -1] = 1.0, 1.0
    return layered([(weights, bias)], (out, [0.0, 0.0]))


@pytest.mark.parametrize("p", [4, 40])
def test_all_rows_of_an_alternative_hold_at_once(p: int) -> None:
    """On the line, and u_0 between two limits: none of the three rows alone is enough."""
    model = ridge_model(p)
    rows, offsets = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), np.array([-0.02 * p, -0.7, 0.65])
    query = Query(Box.between(np.zeros(p), np.ones(p)), (Conjunction(rows, offsets),))
    assert not query.holds(model(np.random.default_rng(0).random((5_000, p)))).any()
    check(attack(model, query), query, as_network(model))


@pytest.mark.parametrize("p", [3, 40])
def test_one_possible_alternative_among_impossible_ones_is_found(p: int) -> None:
    model = corner_model(p)
    impossible = tuple(below([1.0, 0.0], -1.0 - k) for k in range(6))
    query = Query(Box.between(np.zeros(p), np.ones(p)), (*impossible, below([1.0, 0.0], 1e-3 * p)))
    check(attack(model, query), query, as_network(model))


@pytest.mark.parametrize("p", [2, 40])
def test_nothing_is_claimed_where_there_is_nothing(p: int) -> None:
    query = Query(Box.between(np.zeros(p), np.ones(p)), (below([1.0, 0.0], -1e-9),))
    for effort in (1, 2):
        assert attack(corner_model(p), query, effort=effort) is None


@pytest.mark.parametrize("p", [2, 40])
def test_the_network_decides_and_not_the_model(p: int) -> None:
    model = corner_model(p)
    box = Box.between(np.zeros(p), np.ones(p))
    never = lambda points: np.full((len(points), 2), 500.0)  # noqa: E731
    always = lambda points: np.full((len(points), 2), -5.0)  # noqa: E731
    nowhere = lambda points: np.full((len(points), 2), np.nan)  # noqa: E731
    easy, hard = Query(box, (below([1.0, 0.0], float(p)),)), Query(box, (below([1.0, 0.0], -1.0),))
    assert attack(model, easy, network=never) is None
    assert attack(model, easy, network=nowhere) is None
    check(attack(model, hard, network=always), hard, always)


@pytest.mark.parametrize("p", [3, 40])
def test_the_network_is_asked_about_points_of_the_exact_box_only(p: int) -> None:
    rng = np.random.default_rng(4)
    model = random_network(rng, p=p, widths=(8, 8))
    centre = rng.random(p)
    query = Query(Box.around(centre, 0.1, sigma=rng.integers(0, 3, p) / 2 + 0.01), (below([1.0, 0.0, 0.0], -1e9),))
    asked: list[np.ndarray] = []

    def network(points: np.ndarray) -> FloatArray:
        asked.append(points)
        return model(points.astype(np.float64))

    assert attack(model, query, network=network) is None
    assert asked
    for points in asked:
        assert points.dtype == np.float32
        assert query.box.contains(points).all()


def test_inputs_that_may_not_move_stay() -> None:
    p = 50
    lo, hi = np.zeros(p), np.ones(p)
    lo[10:] = hi[10:] = 0.75
    model = corner_model(p)
    query = Query(Box.between(lo, hi), (below([1.0, 0.0], 40 * 0.25 + 1e-3),))
    found = attack(model, query)
    check(found, query, as_network(model))
    assert (np.asarray(found)[10:] == 0.75).all()


def test_a_box_without_float32_points_has_no_answer_and_asks_nothing() -> None:
    model = corner_model(2)
    tenth = np.nextafter(0.1, 1.0)
    box = Box(np.array([0.0, 0.1]), np.array([1.0, tenth]), np.array([0.0, 0.1]), np.array([1.0, tenth]))

    def network(points: np.ndarray) -> FloatArray:
        raise AssertionError("there is nothing to ask")

    assert attack(model, Query(box, (below([1.0, 0.0], 100.0),)), network=network) is None


@pytest.mark.parametrize("p", [3, 40])
def test_the_same_seed_finds_the_same_point(p: int) -> None:
    model = random_network(np.random.default_rng(5), p=p, widths=(8, 8))
    box = Box.between(np.full(p, -1.0), np.ones(p))
    middle = float(model(np.zeros((1, p)))[0, 0])
    query = Query(box, (below([1.0, 0.0, 0.0], middle - 0.2),))
    first, again = (attack(model, query, seed=3) for _ in range(2))
    check(first, query, as_network(model))
    np.testing.assert_array_equal(np.asarray(first), np.asarray(again))


@pytest.mark.parametrize("p", [3, 40])
def test_the_deadline_ends_the_search(p: int) -> None:
    model = random_network(np.random.default_rng(5), p=p, widths=(64, 64))
    query = Query(Box.between(np.full(p, -1.0), np.ones(p)), (below([1.0, 0.0, 0.0], -1e9),))
    start = time.monotonic()
    assert attack(model, query, seconds=-1.0, effort=20) is None
    assert attack(model, query, seconds=0.2, effort=20) is None
    assert time.monotonic() - start < 2.5


def test_effort_starts_at_one() -> None:
    query = Query(Box.between(np.zeros(2), np.ones(2)), (below([1.0, 0.0], 1.0),))
    with pytest.raises(OptionError, match="effort"):
        attack(corner_model(2), query, effort=0)


@pytest.mark.parametrize("p", [3, 40])
def test_points_that_are_given_are_tried(p: int) -> None:
    """y = 1 - relu(1e-4 - |u - c|_1) 1e5, flat but for a spike that chance does not meet."""
    c = np.full(p, 0.3125)
    inner = np.vstack([np.eye(p), -np.eye(p)])
    first = (inner, np.concatenate([-c, c]))
    second = (-np.ones((1, 2 * p)), [1e-4])
    model = layered([first, second], ([[-1e5], [0.0]], [1.0, 0.0]))
    query = Query(Box.between(np.zeros(p), np.ones(p)), (below([1.0, 0.0], 0.0),))
    assert attack(model, query, seconds=2.0) is None
    check(attack(model, query, starts=np.vstack([c + 0.25, c])), query, as_network(model))
    near = attack(model, query, starts=(c + 5e-5 / p)[None])
    check(near, query, as_network(model))


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="IDL_AUDIT_DATA is not set")
@pytest.mark.parametrize(
    "family",
    ["acasxu", "marabou_cifar10", "mnist_fc", "tllverifybench"],
)
def test_every_violated_property_of_the_competition_is_violated(family: str) -> None:
    """And none that holds is."""
    from idl_audit.commands.shared.questions import read_property
    from idl_audit.commands.shared.subject import open_subject

    folder = Path(str(DATA)) / "vnncomp" / family
    with (folder / "instances.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["truth"] in ("sat", "unsat")]
    missed = []
    for row in rows:
        subject = open_subject(folder / row["onnx"])
        found = None
        for query in read_property(subject, folder / row["vnnlib"]).queries:
            for effort in (1, 2, 3) if row["truth"] == "sat" else (1,):
                found = attack(subject.model, query, network=subject.original, effort=effort, seed=effort)
                if found is not None:
                    check(found, query, subject.original)
                    break
            if found is not None:
                break
        assert found is None or row["truth"] == "sat"
        if found is None and row["truth"] == "sat":
            missed.append((row["onnx"], row["vnnlib"]))
    assert missed == []
