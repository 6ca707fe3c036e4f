"""Every operator that can be trained through: what torch computes is what onnxruntime does, and spans hold it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from idl_audit.graph.ir import Node
from idl_audit.graph.original import chosen_output
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import affine_interval, interval_bounds
from idl_audit.training.network import Twin
from idl_audit.training.operators import TWINS
from idl_audit.training.spans import Span
from idl_audit.values.errors import OptionError, UnsupportedModelError
from tests.implicit.test_operators import CASES, network
from tests.shared.implicit_models import Network, ints, node, proto
from tests.shared.operator_cases import Case, case, f

BATCHES = [
    case("Flatten", "behind the batch", (1, 3, 4)),
    case("Gather", "behind the batch", (1, 3, 4), "x i", {"i": ints(2, 0)}, axis=1),
    case("Slice", "behind the batch", (1, 3, 4), "x a b c", {"a": ints(1), "b": ints(3), "c": ints(2)}, first=10),
    case("Split", "behind the batch", (1, 3, 4), "x n", {"n": ints(1, 3)}, outputs="y z", axis=2, first=13),
    case("Transpose", "behind the batch", (1, 3, 4), perm=[0, 2, 1]),
    case("Unsqueeze", "behind the batch", (1, 3, 4), "x a", {"a": ints(1)}, first=13),
    case("Squeeze", "behind the batch", (1, 1, 4), "x a", {"a": ints(1)}, first=13),
    case("Pad", "behind the batch", (1, 3, 4), "x p", {"p": ints(0, 1, 0, 0, 0, 2)}, first=11),
    case("PRelu", "slopes above 0", (1, 3, 4), "x s", {"s": np.abs(f(4))}),
    case("Reshape", "behind the batch", (1, 3, 4), "x s", {"s": ints(-1, 6, 2)}),
]
"""Movements that leave the batch axis alone; most of the cases for the importer move all axes."""
TRAINED = [case for case in [*CASES, *BATCHES] if case.op in TWINS and not case.twin]


def twin_of(case: Case) -> tuple[Twin, Network] | None:
    """Return the twin of a case behind an affine map; None where it is refused."""
    original = Network(network(case, case.opsets[-1], "affine"))
    graph = original.graph
    output = chosen_output(Path("model.onnx"), graph, None)
    try:
        return Twin.of(graph, output, original.implicit.input_shape), original
    except (OptionError, UnsupportedModelError):
        return None


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{c.op}: {c.what}") for c in TRAINED])
def test_twins_compute_what_onnxruntime_does_and_spans_hold_it(case: Case) -> None:
    """Spans hold the outputs of points, and the intervals of the proofs, which multiply affine maps out first."""
    found = twin_of(case)
    if found is None:
        return
    twin, original = found
    rows = original.samples(seed=3)
    try:
        outputs = twin(torch.from_numpy(rows[:1].astype(np.float32).reshape(1, *twin.shape)))
    except UnsupportedModelError:
        return
    expected = original.original(rows[:1]).reshape(1, -1)
    np.testing.assert_allclose(outputs.detach().numpy(), expected, rtol=1e-4, atol=max(1e-5, case.tolerance))
    rng = np.random.default_rng(4)
    centre = torch.from_numpy(rows[:1].astype(np.float32).reshape(1, *twin.shape))
    radius = torch.full_like(centre, 0.3)
    with torch.no_grad():
        try:
            span = twin.span(Span(centre, radius))
        except UnsupportedModelError:
            return
        for _ in range(20):
            move = torch.from_numpy(rng.uniform(-1, 1, centre.shape).astype(np.float32))
            y = twin(centre + radius * (move.sign() if rng.random() < 0.5 else move))
            room = 1e-4 * (1 + y.abs())
            assert (y >= span.lo - room).all()
            assert (y <= span.hi + room).all()
            assert (span.radius >= -room).all()
    if case.op in ("Max", "Min"):  # the model has sums with relu for them: the same function, wider intervals
        return
    x = Interval(*((centre + sign * radius).numpy().reshape(1, -1).astype(np.float64) for sign in (-1, 1)))
    try:
        proved = affine_interval(original.implicit.output, interval_bounds(original.implicit, x).x, x)
    except UnsupportedModelError:
        return
    lo, hi = span.lo.numpy().reshape(1, -1), span.hi.numpy().reshape(1, -1)
    room = 1e-4 * (1 + np.abs(lo) + np.abs(hi))
    assert (lo <= proved.lo + room).all()
    assert (hi >= proved.hi - room).all()


def is_computed(case: Case) -> bool:
    """Whether the operator of a case is trained through, and not refused."""
    found = twin_of(case)
    if found is None:
        return False
    twin, original = found
    try:
        twin(torch.from_numpy(original.samples()[:1].reshape(1, *twin.shape)))
    except UnsupportedModelError:
        return False
    return True


@pytest.mark.parametrize("op", sorted(set(TWINS) - {"Swish", "Shape"}))  # neither has a case of its own: see below
def test_every_twin_has_a_case_that_is_not_refused(op: str) -> None:
    assert any(is_computed(case) for case in TRAINED if case.op == op)


def test_swish_is_x_times_its_sigmoid() -> None:
    x = torch.linspace(-6, 6, 25)
    (found,) = TWINS["Swish"](Node("Swish", "s", ("x",), ("y",)), [x], 24)
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, x * torch.sigmoid(x))


@pytest.mark.parametrize("case", [pytest.param(c, id=c.op) for c in BATCHES])
def test_several_samples_at_once_are_each_of_them_alone(case: Case) -> None:
    found = twin_of(case)
    assert found is not None
    twin, original = found
    rows = original.samples(5, seed=1).astype(np.float64)
    assert twin.distance(rows, original.implicit(rows)) < 1e-6


def test_what_mixes_samples_is_told_by_its_distance() -> None:
    found = twin_of(case("Concat", "along the batch", (1, 4), "x x", axis=0))
    assert found is not None
    twin, original = found
    rows = original.samples(5, seed=1).astype(np.float64)
    assert twin.distance(rows, original.implicit(rows)) > 0.1


def test_shapes_are_those_of_the_batch_and_constants_grow_to_them() -> None:
    """As the exporter writes a batch norm: a constant is made as long as an axis of the input."""
    weights = {"c": np.array([-1.0], np.float32), "w": np.array([1.0, 2.0, 3.0], np.float32)}
    nodes = [
        node("Shape", "x", "s", start=1),
        node("Expand", "c s", "e"),
        node("CastLike", "e x", "k"),
        node("Mul", "x k", "m"),
        node("Add", "m w"),
    ]
    original = Network(proto(nodes, ("N", 3), weights))
    twin = Twin.of(original.graph, "y", (1, 3))
    rows = original.samples(5, seed=1).astype(np.float64)
    assert twin.distance(rows, original.implicit(rows)) < 1e-6
    (sizes,) = TWINS["Shape"](Node("Shape", "s", ("x",), ("y",), {"start": 1, "end": -1}), [torch.zeros(5, 3, 2)], 20)
    assert isinstance(sizes, torch.Tensor)
    assert sizes.tolist() == [3]
