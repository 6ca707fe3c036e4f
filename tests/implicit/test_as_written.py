"""Networks operator by operator: the same function as the implicit model, and the roundings of every operator."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from idl_audit.graph.ir import Graph
from idl_audit.implicit import as_written as module
from idl_audit.implicit.as_written import AsWritten, as_written, of_implicit_model
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.kernels import FLOAT16, FLOAT32, FLOAT64, kernel_of
from idl_audit.implicit.lowering import LOWERINGS
from idl_audit.implicit.lowering.choice import PLAIN_CHOICE
from idl_audit.implicit.lowering.sequences import SEQUENCES
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.plain import DeclaredBlock, plain_model
from idl_audit.proof.bounds import Interval
from idl_audit.proof.float_errors import FloatErrors
from idl_audit.proof.intervals import interval_bounds
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import UnsupportedModelError
from tests.implicit.test_operators import CASES, Case, network
from tests.shared.implicit_models import built, node, proto, read
from tests.shared.random_networks import FAMILIES

LEVELS = (
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
)
UNKNOWN = {
    "Mean: of itself": "what is added several times may be reordered",
    "Sum: of one shape": "likewise",
    **dict.fromkeys(
        (
            *("Sum: three with broadcasting", "Sum: constants first", "Mean: three with broadcasting"),
            *("Gemm: the input is added", "Gemm: the input is added, scaled"),
        ),
        "constants are worked out beforehand, and what cancels in them is rounded",
    ),
    "Pow: of two tensors": "runtimes compute a power in a way of their own",
    "Pow: of tensors that broadcast": "likewise",
    "Resize": "weights that are no short binary fractions",
    "Upsample": "likewise",
    "Einsum": "of three factors, runtimes choose which they multiply first",
    "ScatterElements": "updates that are added or compete",
    "ScatterND": "likewise",
    **dict.fromkeys(
        (
            *("Where: absolute value", "Where: two slopes", "Where: bent away from 0", "Where: a multiple is compared"),
            *("Where: differences are compared", "Where: a jump and a bend", "Where: a jump and a bend, above"),
        ),
        "what is compared, or chosen, is rounded on the way",
    ),
}
"""Operators, or cases of them, of which some have no bound, and why."""
INFINITE = ("Acosh: above 1",)
"""Cases that rounding may take out of the domain."""


def runs(model: onnx.ModelProto, rows: np.ndarray[Any, Any]) -> list[FloatArray]:
    found = []
    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.intra_op_num_threads, options.log_severity_level = level, 1, 4
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        except Fail:  # onnxruntime 1.31 makes int8 of a uint8 grid, and refuses it
            assert level != LEVELS[0]
            continue
        (entry,) = session.get_inputs()
        shape = [size if isinstance(size, int) else 1 for size in entry.shape]
        outputs = [session.run(None, {entry.name: row.reshape(shape)})[0] for row in rows]
        found.append(np.stack([np.asarray(output, np.float64).reshape(-1) for output in outputs]))
    return found


@dataclass(frozen=True)
class Network:
    """A network, as a file and read."""

    model: onnx.ModelProto

    @cached_property
    def graph(self) -> Graph:
        return read(self.model)

    @cached_property
    def implicit(self) -> ImplicitModel:
        return build_implicit(self.graph)

    @cached_property
    def written(self) -> AsWritten:
        return as_written(self.graph)


def check(network: Network, rng: np.random.Generator, *, scale: float = 1.0, n: int = 8, finite: bool = True) -> None:
    """Compare a bound over a random box with what runtimes do at points of it."""
    implicit, written = network.implicit, network.written
    points = (scale * (rng.normal(size=implicit.n_inputs) + rng.uniform(-0.3, 0.3, (n, implicit.n_inputs)))).astype("f")
    inputs = Interval(points.min(axis=0)[None].astype(float), points.max(axis=0)[None].astype(float))
    exact = implicit(points.astype(float))
    np.testing.assert_allclose(written.model(points.astype(float)), exact, rtol=1e-9, atol=1e-9 * np.abs(exact).max())
    q = implicit.n_outputs
    rows = np.vstack([np.eye(q), rng.normal(size=(3, q))])
    z = interval_bounds(implicit, inputs).z
    places, found = written.places_in(implicit), runs(network.model, points)
    for known in ({}, {k: z[own] for k, own in places.items()}):
        bound = FloatErrors(written, inputs, np.zeros_like(inputs.lo), known).of_outputs(rows)[0]
        assert np.isfinite(bound).all() == finite
        for outputs in found:
            assert (np.abs((outputs - exact) @ rows.T) <= bound + 1e-13 * np.abs(exact).max()).all()


def built_of(model: onnx.ModelProto) -> ImplicitModel:
    return build_implicit(read(model))


def is_unknown(case: Case) -> bool:
    return case.op in UNKNOWN or f"{case.op}: {case.what}" in UNKNOWN


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{c.op}: {c.what}") for c in CASES if not c.twin])
def test_no_operator_is_further_off_than_its_bound(case: Case) -> None:
    read_once = Network(network(case, case.opsets[-1], "hidden"))
    if has_bound(read_once, case):
        check(read_once, np.random.default_rng(2), finite=f"{case.op}: {case.what}" not in INFINITE)


def has_bound(network: Network, case: Case) -> bool:
    """Return whether the case has a bound; the refusal names its operator."""
    kernels = all(kernel_of(block.activation) is not None for block in network.implicit.blocks)
    if kernels and case.op in module._RULES and not is_unknown(case):
        return True
    try:
        _ = network.written
    except UnsupportedModelError as error:
        return case.op not in str(error)  # another operator's name: `check` shows it
    return True


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_no_network_is_further_off_than_its_bound(family: str, seed: int) -> None:
    read_once = Network(FAMILIES[family](seed).proto())
    if not read_once.implicit.stripped_output:
        check(read_once, np.random.default_rng(seed), scale=10.0 ** (seed - 1))


def test_rules_are_of_operators_that_are_read() -> None:
    assert set(module._RULES) <= {*LOWERINGS, *SEQUENCES, PLAIN_CHOICE}


def test_the_page_of_operators_lists_what_has_no_bound() -> None:
    text = (Path(__file__).parents[2] / "docs/operators.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"<!-- without bounds: [^>]* -->\n(.*)\n<!-- end of operators without bounds -->", text)
    assert listed.split(", ") == sorted(set(LOWERINGS) - set(module._RULES))


def test_what_has_no_rule_has_no_bound_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RULES", {name: rule for name, rule in module._RULES.items() if name != "Relu"})
    with pytest.raises(UnsupportedModelError, match="Relu node 'y'"):
        as_written(read(proto([node("Relu", "x")], (1, 3))))


def test_states_are_found_in_the_implicit_model_by_their_place() -> None:
    model = FAMILIES["convolutional"](5).proto()
    implicit, written = built_of(model), as_written(read(model))
    places = written.places_in(implicit)
    assert len(places) >= 3
    points = np.random.default_rng(0).normal(size=(3, implicit.n_inputs))
    ours, theirs = written.model.pre_activations(points), implicit.pre_activations(points)
    for k, own in places.items():
        np.testing.assert_allclose(ours[k], theirs[own], rtol=1e-9, atol=1e-12)
    assert written.places_in(built_of(FAMILIES["dense"](0).proto())) == {}


def test_every_operator_that_rounds_is_a_block_of_its_own() -> None:
    nodes = [node("Mul", "x a", "h"), node("Add", "h b", "k"), node("Relu", "k", "r"), node("Mul", "r a", "y")]
    constants = {"a": np.float32([2]), "b": np.float32([3])}
    assert len(built(nodes, (1, 2), constants).blocks) == 1
    written = as_written(read(proto(nodes, (1, 2), constants)))
    assert [block.op for block in written.model.blocks] == ["Mul", "Relu", "Add", "Mul"]
    assert [rounding.is_state for rounding in written.roundings] == [False, True, False, False]


@pytest.mark.parametrize(
    ("dtype", "cast", "arithmetic"),
    [("float32", None, FLOAT32), ("float64", None, FLOAT64), ("float64", TensorProto.FLOAT, FLOAT32)],
)
def test_the_arithmetic_is_the_narrowest_of_the_file(dtype: str, cast: int | None, arithmetic: object) -> None:
    nodes = [node("Identity", "x")] if cast is None else [node("Cast", "x", to=cast)]
    kind = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}[dtype]
    assert as_written(read(proto(nodes, (1, 2), dtype=kind))).arithmetic == arithmetic


def test_a_cast_to_half_precision_makes_it_the_network_s_arithmetic() -> None:
    nodes = [node("Cast", "x", "h", to=TensorProto.FLOAT16), node("Cast", "h", to=TensorProto.FLOAT)]
    assert as_written(read(proto(nodes, (1, 2)))).arithmetic == FLOAT16


def test_constants_that_runtimes_compute_each_in_their_way_have_no_bound() -> None:
    nodes = [node("Exp", "c", "e"), node("Mul", "x e")]
    with pytest.raises(UnsupportedModelError, match="Exp node 'e' computes a constant"):
        as_written(read(proto(nodes, (1, 2), {"c": np.float32([1, 2])})))
    moved = [node("Sqrt", "c", "e"), node("Mul", "x e")]
    as_written(read(proto(moved, (1, 2), {"c": np.float32([1, 2])})))


def test_loops_have_no_bound() -> None:
    A, B, C = np.array([[0.5]]), np.ones((1, 1)), np.ones((1, 1))
    model = plain_model(A, B, C, np.zeros((1, 1)), np.zeros(1), np.zeros(1), (DeclaredBlock("relu", 1, {}),))
    with pytest.raises(UnsupportedModelError, match="loop"):
        of_implicit_model(model)
