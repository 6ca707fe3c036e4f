"""Every entry of LOWERINGS against onnxruntime, alone, behind an affine map, and behind a hidden layer."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto

from idl_audit.graph.ir import Node
from idl_audit.implicit.build import build_implicit, without_unread_positions
from idl_audit.implicit.lowering import CONSTANT, LOWERINGS
from idl_audit.implicit.lowering.fixed_batch import RULES, one_row
from idl_audit.implicit.lowering.refusals import REFUSED as NOT_READ
from idl_audit.implicit.lowering.refusals import refuse_operator
from idl_audit.implicit.lowering.sequences import SEQUENCES
from idl_audit.values.errors import UnsupportedModelError
from tests.shared.implicit_models import NEWEST, Network, built, floats, ints, node, proto, read
from tests.shared.jump_cases import JUMP_CASES
from tests.shared.map_cases import MAP_CASES
from tests.shared.operator_cases import BN, OPERATOR_CASES, ROW, Case, f, kernel, scalar

CASES = [*OPERATOR_CASES, *MAP_CASES, *JUMP_CASES]
EVERY_CASE = pytest.mark.parametrize("case", [pytest.param(c, id=f"{c.op}: {c.what}") for c in CASES])


def test_every_operator_has_a_case() -> None:
    assert {case.op for case in CASES} == set(LOWERINGS)


def test_every_case_has_an_operator_set_and_a_name_of_its_own() -> None:
    assert all(case.opsets for case in CASES)
    assert len({(case.op, case.what) for case in CASES}) == len(CASES)


def prefixes(shape: tuple[int, ...]) -> dict[str, tuple[list[NodeProto], dict[str, Any]]]:
    """Return what may stand before the operator: an affine map with a constant, and a hidden layer beside the input."""
    rng = np.random.default_rng(1)
    constants = {"pre.w": floats(rng, *shape), "pre.b": floats(rng, *shape)}
    affine = [node("Mul", "u pre.w", "pre.h"), node("Add", "pre.h pre.b", "x")]
    hidden = [
        node("Mul", "u pre.w", "pre.h"),
        node("Add", "pre.h pre.b", "pre.z"),
        node("Relu", "pre.z", "pre.r"),
        node("Sub", "pre.r u", "x"),
    ]
    return {"affine": (affine, constants), "hidden": (hidden, constants)}


def network(case: Case, opset: int, prefix: str, *, twin: bool = False, flat: bool = True) -> onnx.ModelProto:
    """Return the case as a network; several rows are laid end to end (`flat`), so that they are no batch."""
    if twin:
        case = replace(case, nodes=case.twin)
    nodes, constants, source = list(case.nodes), dict(case.constants), "x"
    if prefix != "bare":
        before, weights = prefixes(case.shape if flat else (1, *case.shape[1:]))[prefix]
        nodes, constants, source = [*before, *nodes], {**weights, **constants}, "u"
    if len(case.shape) < 2 or case.shape[0] == 1 or not flat:
        return proto(nodes, case.shape, constants, opset=opset, source=source)
    nodes.append(node("Reshape", "y one.row", "flat"))
    return proto(nodes, case.shape, {**constants, "one.row": ints(1, -1)}, opset=opset, source=source, outputs=["flat"])


def check(case: Case, opset: int, prefix: str = "bare") -> None:
    seed = len(prefix)
    if not case.twin:
        Network(network(case, opset, prefix)).check(tolerance=case.tolerance, seed=seed)
        return
    other = Network(network(case, min(opset, NEWEST), prefix, twin=True))
    rows = other.samples(seed=seed)
    found = build_implicit(read(network(case, opset, prefix)))(rows)
    np.testing.assert_allclose(found, other.original(rows), rtol=0, atol=case.tolerance)


@EVERY_CASE
def test_the_lowering_is_the_operator_in_its_oldest_and_newest_form(case: Case) -> None:
    for opset in sorted({case.opsets[0], case.opsets[-1]}):
        check(case, opset)


@EVERY_CASE
def test_the_lowering_is_the_operator_behind_other_layers(case: Case) -> None:
    check(case, case.opsets[-1], "hidden")


@pytest.mark.slow
@EVERY_CASE
def test_the_lowering_is_the_operator_from_the_first_operator_set_to_the_last(case: Case) -> None:
    """Some of what the two tests above leave out."""
    first, middle, last = case.opsets[0], case.opsets[len(case.opsets) // 2], case.opsets[-1]
    for opset, prefix in {(first, "hidden"), (middle, "bare"), (last, "affine")} - {(last, "hidden"), (last, "bare")}:
        check(case, opset, prefix)


BATCHES = {
    f"{c.op}: {c.what}": replace(c, shape=(3, *c.shape[1:])) if c.shape[0] == 1 else c
    for c in CASES
    if len(c.shape) > 1 and not c.twin
}


@functools.cache
def read_as_a_batch(name: str) -> bool:
    graph = read(network(BATCHES[name], BATCHES[name].opsets[-1], "bare", flat=False))
    return one_row(without_unread_positions(graph, "y"), "y") is not None


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_is_read_row_by_row_or_as_a_whole(name: str) -> None:
    """Where it is read row by row, onnxruntime gives each row what the model gives, whatever the others are."""
    if not read_as_a_batch(name):
        return
    case = BATCHES[name]
    batch = Network(network(case, case.opsets[-1], "hidden", flat=False))
    rows = np.random.default_rng(0).normal(size=(5, math.prod(case.shape[1:]))).astype(np.float32)
    found, expected = batch.implicit(rows.astype(float)), batch.original(rows)
    np.testing.assert_allclose(found, expected, rtol=0, atol=case.tolerance * max(1e-6, np.abs(expected).max()))


def test_every_operator_is_read_row_by_row_in_some_case() -> None:
    # tests/imports/test_fixed_batch.py: their rows are not on the first axis, or their constants are for each row
    elsewhere = {"GRU", "GatherElements", "GridSample", "LSTM", "RNN", "ReverseSequence", "RotaryEmbedding", "Scatter"}
    elsewhere |= {"ScatterElements", "TensorScatter", "Transpose"}
    # these name rows or count them, or onnxruntime runs a twin
    elsewhere |= {"AffineGrid", "GatherND", "MaxUnpool", "OneHot", "ScatterND", "Swish"}
    elsewhere |= {"EyeLike", "LinearAttention", "NegativeLogLikelihoodLoss", "QLinearMatMul", "SoftmaxCrossEntropyLoss"}
    elsewhere |= {"SwiGLU"}
    assert set(LOWERINGS) - {case.op for name, case in BATCHES.items() if read_as_a_batch(name)} == elsewhere


def test_what_every_operator_does_to_rows_is_told() -> None:
    assert set(RULES) == {*LOWERINGS, *SEQUENCES} - CONSTANT


OF_ONNX = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}


def test_every_operator_of_onnx_is_read_or_told_what_would_work() -> None:
    assert set(LOWERINGS) | set(SEQUENCES) | set(NOT_READ) == {*OF_ONNX, "Silu"}  # what fusion calls x * Sigmoid(x)
    assert not set(NOT_READ) & {*LOWERINGS, *SEQUENCES}


@pytest.mark.parametrize("op", sorted(NOT_READ))
def test_a_refusal_names_the_node_and_what_would_work(op: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        refuse_operator(Node(op, "the.node", ("x",), ("y",)))
    (problem,) = caught.value.problems
    assert problem.startswith(f"{op} node 'the.node' {NOT_READ[op].what}; this version of idl-audit has no lowering")
    named = set(re.findall(r"\b[A-Z][A-Za-z0-9]+\b", NOT_READ[op].instead)) & OF_ONNX
    readable = {*LOWERINGS, *SEQUENCES, *WITHIN_CHAINS}
    assert named <= readable, f"{named - readable} is no advice"
    assert len(NOT_READ[op].instead) > 20


WITHIN_CHAINS: set[str] = set()
"""Operators that advice names only as parts of chains that are read."""


KNOWN_TO_ONNX_ONLY = range(NEWEST + 1, onnx.defs.onnx_opset_version() + 1)


@pytest.mark.slow
def test_operator_sets_that_onnxruntime_does_not_run_yet_mean_the_same() -> None:
    for case in CASES:
        if case.last == NEWEST:
            old = built(case.nodes, case.shape, case.constants, opset=NEWEST)
            rows = np.random.default_rng(0).normal(size=(2, old.n_inputs))
            expected = old(rows)
            for opset in KNOWN_TO_ONNX_ONLY:
                new = built(case.nodes, case.shape, case.constants, opset=opset)
                np.testing.assert_array_equal(new(rows), expected, err_msg=f"{case.op}: {case.what} in {opset}")


# Files that no runtime accepts, or that mean something else: (nodes, shape, constants, options, a part of the refusal).
REFUSED: dict[str, tuple[list[NodeProto], tuple[int, ...], dict[str, Any], str]] = {
    "division by zero": ([node("Div", "x c")], ROW, {"c": np.float32([1, 0, 1, 1, 1, 1])}, "divides by zero"),
    "shapes that do not fit": ([node("Add", "x c")], ROW, {"c": f(5)}, "do not fit"),
    "matrices that do not fit": ([node("MatMul", "x c")], ROW, {"c": f(5, 2)}, "do not fit"),
    "two images at a time": (
        [node("Conv", "x w", "h"), node("ReduceSum", "h zero")],
        (2, 1, 3, 3),
        {**kernel(1, 1, 2, 2), "zero": ints(0)},
        "2 images at a time",
    ),
    "a kernel that does not fit": ([node("Conv", "x w")], (1, 1, 3, 3), kernel(1, 1, 4, 2), "makes an empty tensor"),
    "channels that do not fit": ([node("Conv", "x w")], (1, 2, 3, 3), kernel(1, 1, 2, 2), "kernel of shape"),
    "a kernel that depends on the input": ([node("Conv", "c x")], (1, 1, 2, 2), {"c": f(1, 1, 3, 3)}, "Conv"),
    "training mode": ([node("BatchNormalization", "x s b m v", "y r q", training_mode=1)], (1, 3), BN, "training mode"),
    "a negative variance": (
        [node("BatchNormalization", "x s b m v")],
        (1, 3),
        {**BN, "v": np.float32([1, -1, 1])},
        "variance",
    ),
    "positions of maxima": (
        [node("MaxPool", "x", "h i", kernel_shape=[2]), node("Cast", "i", "k", to=1), node("Add", "h k")],
        (1, 1, 4),
        {},
        "positions of the maxima",
    ),
    "positions as numbers": ([node("ArgMax", "x", "i"), node("Cast", "i", to=1)], ROW, {}, "change places"),
    "indices that depend on the input": (
        [node("Cast", "x", "i", to=7), node("Gather", "c i")],
        ROW,
        {"c": f(9)},
        "looks entries up at places that depend on the network's input",
    ),
    "a slope that depends on the input": ([node("PRelu", "x x")], ROW, {}, "slope"),
    "dropout in training": ([node("Dropout", "x r t")], ROW, {"r": scalar(0.5), "t": np.array(True)}, "training mode"),
    "axes out of range": ([node("ReduceMax", "x", axes=[5])], ROW, {}, "reduces over axes"),
    "an average of nothing": (
        [node("AveragePool", "x", kernel_shape=[2], pads=[1, 1], dilations=[2])],
        (1, 1, 1),
        {},
        "wholly in the padding",
    ),
    "an unknown operator": ([node("Foo", "x")], ROW, {}, "operator set 17 has no Foo"),
    "an empty interval": ([node("Clip", "x", min=1.0, max=0.0)], ROW, {}, "empty interval"),
    "bounds that nothing reaches": ([node("Clip", "x lo")], ROW, {"lo": scalar(np.inf)}, "no number of a network lies"),
    "a vector of bounds": ([node("Clip", "x lo")], ROW, {"lo": f(6)}, "not one number"),
    "a large power": ([node("Pow", "x e")], ROW, {"e": scalar(100)}, "to the power 100; powers up to 64"),
    "a power of a constant below 0": ([node("Pow", "c x")], ROW, {"c": scalar(-2)}, "a constant that is not above 0"),
    "the rest of a division by a tensor": ([node("Mod", "x x", fmod=1)], ROW, {}, "by what depends on the input"),
    "the rest of a division by zero": ([node("Mod", "x c", fmod=1)], ROW, {"c": scalar(0)}, "divides by 0"),
    "scores of attention": (
        [node("Attention", "x x x", "h - - s", q_num_heads=1, kv_num_heads=1), node("Add", "h h")],
        (1, 2, 3),
        {},
        "also gives its scores",
    ),
    "a group of nothing but minus infinity": (
        [node("Where", "c x z", "h"), node("Softmax", "h", "s"), node("Neg", "s")],
        ROW,
        {"c": np.zeros(6, np.bool_), "z": scalar(-np.inf)},
        "all minus infinity",
    ),
    "a determinant of large matrices": ([node("Det", "x")], (5, 5), {}, "with 1 to 4 rows"),
    "an activation without parameters": (
        [node("RNN", "x w r", hidden_size=2, activations=["Affine"])],
        (3, 1, 2),
        {"w": f(1, 2, 2), "r": f(1, 2, 2)},
        "without its alpha and beta",
    ),
    "a sequence that is too long": (
        [node("GRU", "x w r - l", hidden_size=2)],
        (3, 1, 2),
        {"w": f(1, 6, 2), "r": f(1, 6, 2), "l": np.array([4], np.int32)},
        "must have 1 to 3 steps",
    ),
    "an equation that does not fit": ([node("Einsum", "x", equation="ijk->i")], ROW, {}, "a tensor with 2 axes"),
    "an equation of something else": ([node("Einsum", "x", equation="i1->i")], ROW, {}, "not made of letters"),
    "labels of two lengths": ([node("Einsum", "x w", equation="bi,i->b")], ROW, {"w": f(5)}, "lengths 6 and 5"),
    "an output from nowhere": ([node("Einsum", "x", equation="bi->bz")], ROW, {}, "one that no input has"),
    "a weight that is infinite": ([node("Mul", "x c")], ROW, {"c": scalar(np.inf)}, "holds infinity"),
    "an infinite fill": (
        [node("Where", "c x z")],
        ROW,
        {"c": np.array([True, False] * 3), "z": scalar(np.inf)},
        "puts",
    ),
    "minus infinity behind a mask": (
        [node("Where", "c x z", "h"), node("Neg", "h")],
        ROW,
        {"c": np.array([True, False] * 3), "z": scalar(-np.inf)},
        "reads entries that are minus infinity",
    ),
    "minus infinity as an output": (
        [node("Where", "c x z")],
        ROW,
        {"c": np.array([True, False] * 3), "z": scalar(-np.inf)},
        "holds minus infinity",
    ),
    "two writes to one place": (
        [node("ScatterElements", "x i v", axis=1)],
        ROW,
        {"i": ints(1, 1).reshape(1, 2), "v": f(1, 2)},
        "ONNX leaves open",
    ),
    "products of what is scattered": (
        [node("ScatterElements", "x i x", axis=1, reduction="mul")],
        ROW,
        {"i": ints(1, 1, 0, 0, 0, 0).reshape(1, 6)},
        "only one factor may",
    ),
    "scattered places that depend on the input": (
        [node("Cast", "x", "i", to=7), node("ScatterElements", "c i c")],
        ROW,
        {"c": f(1, 6)},
        "computes with int64 that depend on the input",
    ),
    "positions of the largest": (
        [node("TopK", "x k", "h i"), node("Cast", "i", "j", to=1), node("Add", "h j")],
        ROW,
        {"k": ints(2)},
        "positions of the largest entries",
    ),
    "an open order": ([node("TopK", "x k", "y i", sorted=0)], ROW, {"k": ints(2)}, "ONNX leaves open"),
    "a shrinkage from both sides": ([node("Shrink", "x", lambd=-0.5)], ROW, {}, "both its sides hold at once"),
    "cubic pooling": ([node("LpPool", "x", kernel_shape=[2], p=3)], (1, 1, 4), {}, "p = 1 and p = 2 can be read"),
    "a crop to its own shape": (
        [node("Resize", "x r - z", coordinate_transformation_mode="tf_crop_and_resize")],
        (1, 4),
        {"r": np.float32([0, 0.2, 1, 0.8]), "z": ints(1, 4)},
        "gives it its old length",
    ),
    "a cast that wraps around": ([node("Cast", "x", "h", to=3), node("Cast", "h", to=1)], ROW, {}, "beyond its range"),
    "a quotient of whole numbers": (
        [node("Cast", "x", "h", to=7), node("Div", "h n", "k"), node("Cast", "k", to=1)],
        ROW,
        {"n": np.int64(2)},
        "Div node .* computes with int64",
    ),
    "a quotient of chosen whole numbers": (
        [node("Greater", "x a", "c"), node("Where", "c p n", "h"), node("Div", "h n", "k"), node("Cast", "k", to=1)],
        ROW,
        {"a": scalar(0.3), "p": np.int64(5), "n": np.int64(2)},
        "Div node .* computes with int64",
    ),
    "a quotient of moved whole numbers": (
        [node("Cast", "x", "i", to=7), node("Where", "m i n", "h"), node("Div", "h n", "k"), node("Cast", "k", to=1)],
        ROW,
        {"m": np.array([True, False] * 3), "n": np.int64(2)},
        "Div node .* computes with int64",
    ),
    "a list of whole numbers": (
        [node("Cast", "x", "i", to=7), node("SequenceConstruct", "i i", "s"), node("SequenceAt", "s z", "y")],
        ROW,
        {"z": np.int64(0)},
        "into a list",
    ),
    "a sum of int8": (
        [node("QuantizeLinear", "x s z", "q"), node("Add", "q q", "r"), node("DequantizeLinear", "r s z")],
        ROW,
        {"s": scalar(0.1), "z": np.int8(0)},
        "Add node .* computes with int8",
    ),
    "a scale of 0": (
        [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z")],
        ROW,
        {"s": scalar(0), "z": np.int8(0)},
        "is no positive number",
    ),
    "a scale from the input": (
        [node("DynamicQuantizeLinear", "x", "q s z"), node("DequantizeLinear", "q s z")],
        ROW,
        {},
        "takes its scale from the numbers of each input",
    ),
    "a product of whole numbers": (
        [node("QuantizeLinear", "x s z", "q"), node("MatMulInteger", "q w", "r"), node("Cast", "r", to=1)],
        ROW,
        {"s": scalar(0.1), "z": np.int8(0), "w": np.ones((6, 2), np.int8)},
        "MatMulInteger node .* whose scales",
    ),
    "a list that is added": (
        [node("SplitToSequence", "x", "h", axis=1), node("Add", "h x")],
        ROW,
        {},
        "has a list of tensors as its input 0",
    ),
}


OLDER_OR_NEWER = {
    "an average of nothing": 19,
    "an empty interval": 10,
    "scores of attention": 23,
}


@pytest.mark.parametrize("what", sorted(REFUSED))
def test_what_has_no_implicit_form_is_refused_by_name(what: str) -> None:
    nodes, shape, constants, reason = REFUSED[what]
    with pytest.raises(UnsupportedModelError, match=reason) as caught:
        built(nodes, shape, constants, opset=OLDER_OR_NEWER.get(what, 17))
    assert all("\n" not in problem for problem in caught.value.problems)


MALFORMED: dict[str, tuple[list[NodeProto], tuple[int, ...], dict[str, Any]]] = {
    "Conv, strides of 0": ([node("Conv", "x w", strides=[0, 0])], (1, 1, 3, 3), kernel(1, 1, 2, 2)),
    "Conv, too few strides": ([node("Conv", "x w", strides=[1])], (1, 1, 3, 3), kernel(1, 1, 2, 2)),
    "Conv, too few dilations": ([node("Conv", "x w", dilations=[1])], (1, 1, 3, 3), kernel(1, 1, 2, 2)),
    "ConvTranspose, too few strides": ([node("ConvTranspose", "x w", strides=[1])], (1, 1, 3, 3), kernel(1, 1, 2, 2)),
    "ConvTranspose, too few pads": ([node("ConvTranspose", "x w", pads=[1])], (1, 1, 3, 3), kernel(1, 1, 2, 2)),
    "MaxPool, too few strides": ([node("MaxPool", "x", kernel_shape=[2, 2], strides=[1])], (1, 1, 3, 3), {}),
    "Max, shapes that do not fit": ([node("Max", "x c")], ROW, {"c": f(5)}),
    "MatMul of one": ([node("MatMul", "x")], ROW, {}),
    "Mul of one": ([node("Mul", "x")], ROW, {}),
    "Gemm of one": ([node("Gemm", "x")], ROW, {}),
    "Concat without an axis": ([node("Concat", "x x")], ROW, {}),
    "Pad without pads": ([node("Pad", "x")], ROW, {}),
    "Reshape to another size": ([node("Reshape", "x s")], ROW, {"s": ints(4, 4)}),
    "Slice without an end": ([node("Slice", "x s")], ROW, {"s": ints(1)}),
    "Transpose, perm of another rank": ([node("Transpose", "x", perm=[0])], ROW, {}),
    "Gather out of range": ([node("Gather", "x i")], ROW, {"i": ints(9)}),
    "Conv, group of 0": ([node("Conv", "x w", group=0)], (1, 1, 3, 3), kernel(1, 1, 2, 2)),
    "Conv, negative dilations": ([node("Conv", "x w", dilations=[-1, 1])], (1, 1, 3, 3), kernel(1, 1, 2, 2)),
    "Conv, negative strides": ([node("Conv", "x w", strides=[-1, 1])], (1, 1, 3, 3), kernel(1, 1, 2, 2)),
    "LeakyRelu, alpha as text": ([node("LeakyRelu", "x", alpha="a")], ROW, {}),
    "Relu, nothing": ([node("Relu", "")], ROW, {}),
    "BatchNormalization of a vector": ([node("BatchNormalization", "x s b m v")], (3,), BN),
    "BatchNormalization without a variance": ([node("BatchNormalization", "x s b m")], (1, 3), BN),
    "MaxPool, negative kernel": ([node("MaxPool", "x", kernel_shape=[-2])], (1, 1, 3), {}),
    "AveragePool, kernel of 0": ([node("AveragePool", "x", kernel_shape=[0])], (1, 1, 3), {}),
    "Resize without scales": ([node("Resize", "x")], (1, 1, 3), {}),
}


@pytest.mark.parametrize(
    "what",
    MALFORMED,
)
def test_malformed_nodes_are_refused_in_a_sentence(what: str) -> None:
    nodes, shape, constants = MALFORMED[what]
    with pytest.raises(UnsupportedModelError):
        built(nodes, shape, constants)
