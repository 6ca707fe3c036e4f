"""Constants whose products leave the range of float64: refused by name, kept apart, or paid for; never silently 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import scipy.sparse as sp
from onnx import TensorProto, helper, numpy_helper

from idl_audit.commands.shared.subject import check_agreement, open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.graph.ir import Graph, Node, Provenance, Value
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.composition import compose, is_in_range
from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.input_units import in_data_units
from idl_audit.implicit.linear_maps import Dense, LinearMap, Selection, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import affine_interval, interval_bounds
from idl_audit.values.errors import AgreementError, OptionError, UnsupportedModelError

Nodes = Sequence[tuple[str, str, str, Mapping[str, Any]]]


def saved(
    folder: Path, nodes: Nodes, constants: Mapping[str, Any], shape: Sequence[int] = (1, 2), *, single: bool = False
) -> Path:
    """Write a network in float64, or float32; whole numbers stay whole."""
    dtype, kind = (np.float32, TensorProto.FLOAT) if single else (np.float64, TensorProto.DOUBLE)
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    arrays = {name: a if a.dtype.kind == "i" else a.astype(dtype) for name, a in arrays.items()}
    graph = helper.make_graph(
        [
            helper.make_node(op, inputs.split(), outputs.split(), name=f"node {i}", **attributes)
            for i, (op, inputs, outputs, attributes) in enumerate(nodes)
        ],
        "g",
        [helper.make_tensor_value_info("u", kind, list(shape))],
        [helper.make_tensor_value_info(nodes[-1][2], kind, None)],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def built(folder: Path, nodes: Nodes, constants: Mapping[str, Any], **options: Any) -> ImplicitModel:
    return build_implicit(read_onnx(saved(folder, nodes, constants, **options)))


IMAGE = (1, 1, 3, 3)
OUTSIDE: dict[str, tuple[Nodes, Mapping[str, Any], Sequence[int]]] = {
    "MatMul, small": ([("MatMul", "u w", "y", {})], {"w": [[1.0, 1e-200], [0.0, 1.0]]}, (1, 2)),
    "MatMul, large": ([("MatMul", "u w", "y", {})], {"w": [[1.0, 1e200], [0.0, 1.0]]}, (1, 2)),
    "Gemm": ([("Gemm", "u w", "y", {})], {"w": [[1e-101, 1.0], [0.0, 1.0]]}, (1, 2)),
    "Mul": ([("Mul", "u c", "y", {})], {"c": [1e-300, 1.0]}, (1, 2)),
    "Div": ([("Div", "u c", "y", {})], {"c": [1e-300, 1.0]}, (1, 2)),
    "Div, large": ([("Div", "u c", "y", {})], {"c": [1.7e308, 1.0]}, (1, 2)),
    "Div, subnormal": ([("Div", "u c", "y", {})], {"c": [1e-320, 1.0]}, (1, 2)),
    "Add": ([("Add", "u c", "y", {})], {"c": [1e200, 1.0]}, (1, 2)),
    "Sub": ([("Sub", "u c", "k", {}), ("Sub", "k d", "y", {})], {"c": [1.7e308, 1.0], "d": [1.7e308, 0.0]}, (1, 2)),
    "Conv": ([("Conv", "u k", "y", {})], {"k": np.full((1, 1, 2, 2), 1e-150)}, IMAGE),
    "Conv's bias": ([("Conv", "u k b", "y", {})], {"k": np.ones((1, 1, 2, 2)), "b": [1e300]}, IMAGE),
    "ConvTranspose": ([("ConvTranspose", "u k", "y", {})], {"k": np.full((1, 1, 2, 2), 1e150)}, IMAGE),
    "BatchNormalization": (
        [("BatchNormalization", "u s b m v", "y", {"epsilon": 0.0})],
        {"s": [1.0], "b": [0.0], "m": [0.0], "v": [1e-300]},
        IMAGE,
    ),
    "BatchNormalization's scale": (
        [("BatchNormalization", "u s b m v", "y", {})],
        {"s": [1e-310], "b": [0.0], "m": [0.0], "v": [1.0]},
        IMAGE,
    ),
    "BatchNormalization's mean": (
        [("BatchNormalization", "u s b m v", "y", {})],
        {"s": [1e90], "b": [0.0], "m": [1e250], "v": [1.0]},
        IMAGE,
    ),
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_numbers_beyond_the_range_are_refused_with_the_node(tmp_path: Path, what: str) -> None:
    nodes, constants, shape = OUTSIDE[what]
    with pytest.raises(UnsupportedModelError, match=r"node 'node \d' .*range of float64") as refused:
        built(tmp_path, nodes, constants, shape=shape)
    assert "do not fit" not in str(refused.value)


SILU: Nodes = [("Sigmoid", "u", "s", {}), ("Mul", "u s", "a", {})]


def silu_chain(*factors: float) -> tuple[Nodes, dict[str, Any]]:
    names = [f"c{i}" for i in range(len(factors))]
    nodes = [*SILU, *[("Mul", f"{'a' if i == 0 else f'h{i - 1}'} {c}", f"h{i}", {}) for i, c in enumerate(names)]]
    return nodes, dict(zip(names, map(np.array, factors), strict=True))


def test_a_chain_is_not_multiplied_out_over_constants_beyond_the_range(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="range of float64"):
        built(tmp_path, *silu_chain(1e-300, 1e-300, 1e300, 1e300))


@pytest.mark.parametrize(
    "factors",
    [(1e-60, 1e-60, 1e60, 1e60), (1e60, 1e60, 1e-60, 1e-60), (1e-90,) * 4 + (1e90,) * 4, (1e90,) * 4 + (1e-90,) * 4],
)
def test_a_chain_whose_product_leaves_the_range_on_its_way_is_what_it_is(
    tmp_path: Path, factors: tuple[float, ...]
) -> None:
    model = built(tmp_path, *silu_chain(*factors))
    u = np.array([[1.0, -2.0]])
    expected = u / (1 + np.exp(-u))
    if len(factors) == 4:
        np.testing.assert_allclose(model(u), expected, rtol=1e-12)
    assert_encloses(model, u, expected)


def assert_encloses(model: ImplicitModel, u: np.ndarray, exact: np.ndarray) -> None:
    inputs = Interval(u, u)
    y = affine_interval(model.output, interval_bounds(model, inputs).x, inputs)
    assert (y.lo <= exact + 1e-12 * np.abs(exact)).all()
    assert (exact - 1e-12 * np.abs(exact) <= y.hi).all()


@pytest.mark.parametrize("bend", [False, True])
@pytest.mark.parametrize("order", ["down", "up"])
def test_chains_of_ordinary_float32_weights_keep_every_product_in_range(tmp_path: Path, order: str, bend: bool) -> None:
    """Eight layers of 2^-126 and seven of 2^126: each is a float32 number, and their product is 2^-126."""
    exponents = [-126] * 8 + [126] * 7 if order == "down" else [126] * 7 + [-126] * 8
    nodes: list[tuple[str, str, str, Mapping[str, Any]]] = []
    constants: dict[str, Any] = {}
    source = "u"
    for k, exponent in enumerate(exponents):
        constants[f"w{k}"] = np.diag([2.0**exponent, 1.0])
        nodes.append(("MatMul", f"{source} w{k}", f"h{k}", {}))
        source = f"h{k}"
        if bend:
            nodes.append(("Relu", source, f"r{k}", {}))
            source = f"r{k}"
    model = built(tmp_path, nodes, constants, single=True)
    maps = model.maps
    assert all(is_in_range(linear_map) for linear_map in maps)
    inputs = Interval(np.ones((1, 2)), np.ones((1, 2)))
    y = affine_interval(model.output, interval_bounds(model, inputs).x, inputs)
    assert Fraction(float(y.lo[0, 0])) <= Fraction(2) ** -126
    assert y.hi[0, 0] == np.inf or Fraction(float(y.hi[0, 0])) >= Fraction(2) ** -126


def test_biases_that_vanish_on_their_way_are_paid_for() -> None:
    form = AffineForm((2,), {}, np.array([1e-200, 0.0]))
    mapped = form.mapped(Dense(matrix=np.array([[1e-150, 0.0]])), (1,))
    exact = Fraction(1e-200) * Fraction(1e-150)
    assert abs(exact - Fraction(float(mapped.constant[0]))) <= Fraction(mapped.constant_error)
    again = mapped.mapped(Dense(matrix=np.array([[1e300]])), (1,))
    assert abs(exact * Fraction(1e300) - Fraction(float(again.constant[0]))) <= Fraction(again.constant_error)


def test_offsets_of_preprocessing_that_vanish_are_paid_for() -> None:
    model = ImplicitModel((), (), Affine({}, Dense(matrix=np.array([[1e-90]])), np.zeros(1)), (1, 1), (1, 1))
    tiny = in_data_units(model, np.array([1e-90]), np.array([5e-300]))
    exact = Fraction(1e-90) * Fraction(5e-300)
    assert abs(exact - Fraction(float(tiny.output.constant[0]))) <= Fraction(tiny.output.constant_error)


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (Dense(matrix=np.full((1, 1), 1e200)), Dense(matrix=np.full((1, 1), 1e200))),
        (Dense(matrix=np.full((1, 1), 1e200)), Selection.diagonal(np.array([1e200]))),
        (Selection.diagonal(np.array([1e200])), Selection.diagonal(np.array([1e200]))),
        (Selection.diagonal(np.array([1e200])), Sparse(matrix=sp.csr_array(np.array([[1e200]])))),
        (
            Selection.diagonal(np.array([1e200])),
            Convolution(kernel=np.full((1, 1, 1), 1e200), spatial_in=(1,), strides=(1,), pads=(0, 0), dilations=(1,)),
        ),
    ],
    ids=lambda linear_map: type(linear_map).__name__,
)
def test_products_that_overflow_are_refused(outer: LinearMap, inner: LinearMap) -> None:
    with pytest.raises(UnsupportedModelError, match="beyond the range of float64"):
        compose(outer, inner)


CONSTANT_PARTS: dict[str, tuple[float, float, str]] = {
    "overflow": (1e30, 1e30, "overflow"),
    "underflow": (1e-30, 1e-30, "below the range of their type"),
}


@pytest.mark.parametrize("what", CONSTANT_PARTS)
def test_constants_that_vanish_or_overflow_in_their_own_type_are_refused(tmp_path: Path, what: str) -> None:
    first, second, words = CONSTANT_PARTS[what]
    nodes: Nodes = [("Mul", "c d", "e", {}), ("Mul", "u e", "y", {})]
    with pytest.raises(UnsupportedModelError, match=f"node 0.*{words}"):
        built(tmp_path, nodes, {"c": [first, 1.0], "d": [second, 1.0]}, single=True)
    built(tmp_path, nodes, {"c": [1e-30, 0.0], "d": [1.0, 1e-30]}, single=True)


def test_a_factor_beside_the_weights_is_kept_apart(tmp_path: Path) -> None:
    model = built(tmp_path, [("Gemm", "u w", "y", {"alpha": 1e-20})], {"w": [[1e-90, 1.0], [0.0, 1.0]]})
    assert all(is_in_range(linear_map) for linear_map in model.maps)
    assert model(np.array([[1.0, 0.0]]))[0, 0] == pytest.approx(1e-110, rel=1e-6, abs=0)


# --- roundings of constants that lowerings multiply and add -----------------------------------------------------------


def test_what_beta_does_to_a_bias_is_rounded_outward(tmp_path: Path) -> None:
    beta, c = 0.1, np.array([1 / 3, 7.7])
    model = built(tmp_path, [("Gemm", "u w c", "y", {"beta": beta})], {"w": np.eye(2), "c": c})
    for found, own in zip(model.output.constant, c, strict=True):
        exact = Fraction(float(np.float32(beta))) * Fraction(float(own))
        assert 0 < abs(exact - Fraction(float(found))) <= Fraction(model.output.constant_error)


def test_two_biases_of_a_recurrent_layer_are_added_with_their_rounding(tmp_path: Path) -> None:
    constants = {"w": np.ones((1, 1, 1)), "r": np.ones((1, 1, 1)), "b": [[1.0, 1e-20]]}
    model = built(tmp_path, [("RNN", "u w r b", "y", {"hidden_size": 1})], constants, shape=(1, 1, 1), single=True)
    (row,) = model.rows
    exact = Fraction(1) + Fraction(float(np.float32(1e-20)))
    assert 0 < abs(exact - Fraction(float(row.constant[0]))) <= Fraction(row.constant_error)


def test_the_reciprocal_of_swish_is_rounded_outward() -> None:
    node = Node("Swish", "n", ("u",), ("y",), {"alpha": 3.0})
    entry, last = Value("u", (1, 1), "float32"), Value("y", None, "float32")
    model = build_implicit(Graph((entry,), (last,), (node,), {}, Provenance(None, "onnx", "", 24, "tests")))
    (linear_map,) = model.output.states.values()
    stored = float(linear_map.to_sparse().data[0])
    assert 0 < abs(Fraction(1, 3) - Fraction(stored)) <= Fraction(linear_map.relative) * Fraction(stored)


# --- around the network -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [{"scale": 1e-200}, {"scale": 1e-80, "std": (1e80,)}, {"mean": (1e-80,), "std": (1e80,)}]
)
def test_preprocessing_that_leaves_the_range_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"divided by --std is beyond 1e\+100 or below 1e-100"):
        Preprocessing(**given).affine((1, 2))


def test_outputs_of_any_size_are_compared(tmp_path: Path) -> None:
    """1e-60 against 2e-60: as different as 1 and 2, in a network that computes in float64."""
    path = saved(tmp_path, [("Mul", "u c", "y", {})], {"c": [1e-60, 2e-60]})
    subject = open_subject(path)
    points = np.array([[1.0, 1.0], [0.5, 2.0]])
    assert check_agreement(subject, points).max_rel_error < 1e-12
    (term,) = [subject.model.output.input]
    assert term is not None
    halved = Affine({}, compose(Selection.diagonal(np.array([0.5, 1.0])), term), np.zeros(2))
    wrong = replace(subject, form=replace(subject.model, output=halved))
    with pytest.raises(AgreementError, match="differ"):
        check_agreement(wrong, points)
