"""Every node is checked against its operator's description before a library sees it; here on our own values."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper, numpy_helper

from idl_audit.graph.ir import Body, Node, Reference
from idl_audit.graph.schemas import RANKS, means_the_same, node_faults, operator, rank_faults, type_faults

NEWEST = defs.onnx_opset_version()


def made(op: str, inputs: tuple[str, ...] = ("a",), outputs: tuple[str, ...] = ("b",), **attributes: Any) -> Node:
    return Node(op, "the node", inputs, outputs, MappingProxyType(attributes))


GOOD = [
    (made("Relu"), 7),
    (made("Clip", ("a", "", "c")), 13),
    (made("Clip", ("a",), min=0.0), 7),
    (made("Concat", ("a", "b", "c"), axis=1), 13),
    (made("Split", ("a",), ("x", "", "z"), axis=1), 11),
    (made("LSTM", ("a", "w", "r", "", "", "h"), ("", "", "c"), hidden_size=3), 14),
    (made("Constant", (), value=np.ones(2)), 13),
    (made("Constant", (), value_strings=("a", "b")), 13),
    (made("Transpose", perm=()), 13),
    (made("Cast", to=int(TensorProto.FLOAT)), 13),
    (made("Relu", __note="kept by a tool"), 14),
    (made("LeakyRelu", alpha=Reference("slope")), 14),
    (made("If", ("c",), then_branch=Body((), ("x",), (), {}), else_branch=Body((), ("x",), (), {})), 13),
]

FAULTY = [
    (made("Relu", ()), 14, "has 0 inputs where 1 are needed"),
    (made("Relu", ("a", "b")), 14, "has 2 inputs where 1 are needed"),
    (made("Relu", ("",)), 14, "lacks its input 0 (X)"),
    (made("Add", ("a",)), 14, "has 1 inputs where 2 are needed"),
    (made("Add", ("a", "")), 14, "lacks its input 1 (B)"),
    (made("Concat", (), axis=0), 13, "has 0 inputs where 1 or more are needed"),
    (made("Concat", ("a", "", "c"), axis=0), 13, "lacks its input 1"),
    (made("Sum", ()), 13, "has 0 inputs where 1 or more"),
    (made("Max", ("", "")), 13, "lacks its input 0"),
    (made("Einsum", (), equation="i"), 12, "has 0 inputs"),
    (made("Loop", ("m",), body=Body((), (), (), {})), 16, "has 1 inputs where 2 or more"),
    (made("Relu", outputs=()), 14, "has 0 outputs"),
    (made("Relu", outputs=("b", "c")), 14, "has 2 outputs where 1"),
    (made("Relu", outputs=("",)), 14, "lacks its output 0 (Y)"),
    (made("Concat", ("a", "b")), 13, "lacks its attribute axis"),
    (made("Cast"), 13, "lacks its attribute to"),
    (made("Cast", to=99), 13, "an element type 99 that there is not"),
    (made("Relu", alpha=1.0), 14, "has the attribute alpha, which it has no place for"),
    (made("LeakyRelu", alpha=1), 16, "as something other than FLOAT"),
    (made("LeakyRelu", alpha="1"), 16, "as something other than FLOAT"),
    (made("Transpose", perm=(0.0, 1.0)), 13, "as something other than INTS"),
    (made("Transpose", perm=3), 13, "as something other than INTS"),
    (made("Constant", (), value=1.0), 13, "as something other than TENSOR"),
    (made("If", ("c",), then_branch=1, else_branch=2), 13, "as something other than GRAPH"),
    (made("Conv", ("a", "w"), strides=(1, 0)), 11, "has strides below 1"),
    (made("Conv", ("a", "w"), dilations=(-1, 1)), 11, "has dilations below 1"),
    (made("Conv", ("a", "w"), group=0), 11, "has group below 1"),
    (made("MaxPool", kernel_shape=(0, 2)), 12, "has kernel_shape below 1"),
    (made("DepthToSpace", blocksize=0), 13, "has blocksize below 1"),
    (made("Split", num_outputs=0), 18, "has num_outputs below 1"),
    (made("Gelu"), 17, "operator set 17 has no Gelu"),
    (made("Upsample", ("a", "s")), 11, "operator set 11 has no Upsample"),
    (made("Nonsense"), 17, "has no Nonsense"),
]


@pytest.mark.parametrize(("node", "opset"), GOOD)
def test_nothing_is_found_in_a_sound_node(node: Node, opset: int) -> None:
    assert list(node_faults(node, opset)) == []


@pytest.mark.parametrize(("node", "opset", "expected"), FAULTY)
def test_every_fault_is_told_in_one_sentence(node: Node, opset: int, expected: str) -> None:
    found = list(node_faults(node, opset))
    assert any(expected in sentence for sentence in found), found
    for sentence in found:
        assert sentence.startswith(f"{node.op} node 'the node'")
        assert sentence.isprintable()


SAMPLES: dict[str, Any] = {"INT": 1, "FLOAT": 1.0, "STRING": "s", "TENSOR": np.ones(1), "INTS": (1,), "FLOATS": (1.0,)}
SAMPLES |= {"STRINGS": ("s",), "GRAPH": Body((), (), (), {})}
PROTOS = {"TENSOR": numpy_helper.from_array(np.ones(1)), "GRAPH": helper.make_graph([], "g", [], [])}


def schemas() -> list[Any]:
    return [entry for entry in defs.get_all_schemas() if entry.domain == "" and not entry.deprecated]


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.name)
def test_no_operator_passes_with_an_input_or_an_attribute_too_few_or_too_many(schema: Any) -> None:
    known = operator(schema.name, NEWEST)
    assert known is not None
    needed = {key: SAMPLES[kind] for key, (kind, required) in known.attributes.items() if required}
    n_in, n_out = known.n_inputs[0], max(known.n_outputs[0], 1)
    inputs, outputs = tuple(f"i{k}" for k in range(n_in)), tuple(f"o{k}" for k in range(n_out))
    assert list(node_faults(Node(schema.name, "n", inputs, outputs, needed), NEWEST)) == []
    is_variadic = known.n_inputs[1] > 1000
    more = (*inputs, "") if is_variadic else tuple(f"i{k}" for k in range(known.n_inputs[1] + 1))
    worse = [Node(schema.name, "n", more, outputs, needed)]
    if n_in:
        worse.append(Node(schema.name, "n", inputs[:-1], outputs, needed))
    worse.append(Node(schema.name, "n", inputs, outputs, {**needed, "no_such_attribute": 1}))
    worse.extend(
        Node(schema.name, "n", inputs, outputs, {k: v for k, v in needed.items() if k != key}) for key in needed
    )
    for node in worse:
        assert list(node_faults(node, NEWEST)), node


def histories() -> list[Any]:
    return [entry for entry in defs.get_all_schemas_with_history() if entry.domain == "" and not entry.deprecated]


@pytest.mark.parametrize("schema", histories(), ids=lambda schema: f"{schema.name}-{schema.since_version}")
def test_counts_of_inputs_and_outputs_are_those_of_onnxs_own_checker(schema: Any) -> None:
    known = operator(schema.name, max(7, schema.since_version))
    assert known is not None
    if known.since != schema.since_version:
        return  # a meaning from before the oldest version that is read
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = 10, {"": max(7, schema.since_version)}
    names = {key: (kind, SAMPLES[kind]) for key, (kind, required) in known.attributes.items() if required}
    for n_in in range(min(known.n_inputs[1], 9) + 2):
        for n_out in range(min(known.n_outputs[1], 6) + 2):
            inputs, outputs = [f"i{k}" for k in range(n_in)], [f"o{k}" for k in range(n_out)]
            proto = helper.make_node(
                schema.name, inputs, outputs, **{key: PROTOS.get(k, v) for key, (k, v) in names.items()}
            )
            scope = onnx.checker.C.LexicalScopeContext()
            try:
                onnx.checker.C.check_node(proto.SerializeToString(), context, scope)
                sound = True
            except onnx.checker.ValidationError:
                sound = False
            node = Node(schema.name, "n", tuple(inputs), tuple(outputs), {key: v for key, (_, v) in names.items()})
            assert (not list(node_faults(node, max(7, schema.since_version)))) == sound, node


TYPES = [
    (made("Add", ("a", "b")), ("tensor(float)", "tensor(float)"), 14, ""),
    (made("Add", ("a", "b")), ("tensor(float)", ""), 14, ""),
    (made("Add", ("a", "b")), ("tensor(float)", "tensor(double)"), 14, "mixes float32 with float64"),
    (made("Gemm", ("a", "b", "c")), ("tensor(float16)", "tensor(float16)", "tensor(float)"), 13, "mixes float16"),
    (made("Relu"), ("tensor(string)",), 14, "has string as its input 0"),
    (made("Relu"), ("seq(tensor(float))",), 14, "as its input 0"),
    (made("Relu"), ("tensor(int64)",), 13, "has int64 as its input 0"),
    (made("Relu"), ("tensor(int64)",), 14, ""),
    (made("Reshape", ("a", "s")), ("tensor(float)", "tensor(int32)"), 13, "has int32 as its input 1"),
    (made("Gather", ("a", "i")), ("tensor(float)", "tensor(int32)"), 13, ""),
    (made("Where", ("c", "a", "b")), ("tensor(bool)", "tensor(float)", "tensor(int64)"), 9, "mixes"),
    (made("Concat", ("a", "b"), axis=0), ("tensor(float)", "tensor(int64)"), 13, "mixes"),
    (made("Clip", ("a", "", "c")), ("tensor(float)", "", "tensor(double)"), 13, "mixes"),
    (made("Resize", ("a", "", "s")), ("tensor(double)", "", "tensor(double)"), 13, "as its input 2"),
    (made("Pow", ("a", "b")), ("tensor(float)", "tensor(int64)"), 12, ""),
    (made("Pow", ("a", "b")), ("tensor(float)", "tensor(int64)"), 7, "as its input 1"),
]


@pytest.mark.parametrize(("node", "types", "opset", "expected"), TYPES)
def test_types_are_those_that_the_operator_takes(node: Node, types: tuple[str, ...], opset: int, expected: str) -> None:
    found = list(type_faults(node, types, opset))
    assert bool(found) == bool(expected)
    assert all(expected in sentence for sentence in found), found


RANK_CASES = [
    (made("Conv", ("a", "w")), (4, 4), ""),
    (made("Conv", ("a", "w")), (3, 3), ""),
    (made("Conv", ("a", "w")), (2, 2), "of rank 2 where 3 or more"),
    (made("Conv", ("a", "w")), (4, 3), "weights of rank 3"),
    (made("Conv", ("a", "w", "b")), (4, 4, 2), "input 2 of rank 2 where 1"),
    (made("Conv", ("a", "w"), pads=(1, 1)), (4, 4), "2 numbers as pads where its input of rank 4 needs 4"),
    (made("MaxPool", kernel_shape=(2,)), (4,), "1 numbers as kernel_shape"),
    (made("Gemm", ("a", "b")), (3, 2), "input 0 of rank 3 where 2"),
    (made("Gemm", ("a", "b")), (None, 2), ""),
    (made("MatMul", ("a", "b")), (0, 2), "of rank 0"),
    (made("Reshape", ("a", "s")), (3, 2), "input 1 of rank 2 where 1"),
    (made("Concat", ("a", "b", "c"), axis=0), (1, 1, 0), "input 2 of rank 0"),
    (made("Concat", ("a", "b"), axis=2), (2, 2), "along axis 2 of an input of rank 2"),
    (made("Gather", ("a", "i"), axis=-3), (2, 0), "along axis -3"),
    (made("Flatten", axis=2), (2,), ""),
    (made("Flatten", axis=3), (2,), "along axis 3"),
    (made("Softmax", axis=1), (1,), "along axis 1"),
    (made("Transpose", perm=(0, 0)), (2,), "no order of the 2 axes"),
    (made("Transpose", perm=(1, 0)), (2,), ""),
    (made("DepthToSpace", blocksize=2), (3,), "of rank 3 where 4"),
    (made("LSTM", ("a", "w", "r")), (2, 3, 3), "of rank 2 where 3"),
]


@pytest.mark.parametrize(("node", "ranks", "expected"), RANK_CASES)
def test_ranks_are_those_that_the_operator_takes(node: Node, ranks: tuple[int | None, ...], expected: str) -> None:
    found = list(rank_faults(node, ranks))
    assert bool(found) == bool(expected)
    assert all(expected in sentence for sentence in found), found


def test_every_operator_with_ranks_exists() -> None:
    names = {schema.name for schema in defs.get_all_schemas() if schema.domain == ""}
    assert set(RANKS) <= names


def test_versions_with_one_meaning() -> None:
    assert means_the_same("Relu", 7, 12)
    assert not means_the_same("Softmax", 12, 13)
    assert not means_the_same("Gelu", 17, 20)
