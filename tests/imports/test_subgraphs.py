"""Branches, loops and functions whose course is fixed are read as the plain nodes that they come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from idl_audit import load
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.values.errors import ModelFileError, UnsupportedModelError

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
RNG = np.random.default_rng(0)
W = RNG.normal(size=(4, 4)).astype(np.float32)
B = RNG.normal(size=4).astype(np.float32)
node = helper.make_node


def info(name: str, kind: int = FLOAT, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def body(
    nodes: list[NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, Any] | None = None,
) -> GraphProto:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    return helper.make_graph(nodes, "body", inputs, outputs, tensors)


def saved(
    folder: Path,
    nodes: list[NodeProto],
    constants: dict[str, Any] | None = None,
    *,
    opset: int = 17,
    shape: Any = ("n", 4),
    functions: Any = (),
    domains: tuple[str, ...] = (),
    inputs: Any = (),
) -> Path:
    tensors = [
        numpy_helper.from_array(np.asarray(v), name) for name, v in {"w": W, "b": B, **(constants or {})}.items()
    ]
    graph = helper.make_graph(nodes, "g", [info("x", FLOAT, shape), *inputs], [info("y")], tensors)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def assert_read(path: Path) -> list[str]:
    """Check the implicit model against onnxruntime; return the operators that it was read from."""
    model = load(path)
    inputs = RNG.normal(size=(8, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path))
    shape = [size if isinstance(size, int) else 1 for size in session.get_inputs()[0].shape]
    theirs = [session.run(["y"], {"x": row.reshape(shape)})[0].reshape(-1) for row in inputs]
    np.testing.assert_allclose(model(inputs.astype(np.float64)), theirs, rtol=1e-4, atol=1e-5)
    return [entry.op for entry in read_onnx(path).nodes]


def problem(path: Path) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        load(path)
    (one,) = caught.value.problems
    return one


def branches() -> dict[str, GraphProto]:
    """Two branches that read values around them; names of one hide those outside."""
    linear = body([node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["out"])], [], [info("out")])
    other = body([node("Mul", ["x", "w2"], ["out"])], [], [info("out")], {"w2": np.float32(3)})
    return {"then_branch": linear, "else_branch": other}


class TestIf:
    @pytest.mark.parametrize("condition", [True, False])
    def test_the_branch_that_a_constant_chooses_is_taken(self, tmp_path: Path, condition: bool) -> None:
        nodes = [node("If", ["c"], ["h2"], **branches()), node("Relu", ["h2"], ["y"])]
        ops = assert_read(saved(tmp_path, nodes, {"c": np.array(condition)}))
        assert ops[:-2] == (["MatMul", "Add"] if condition else ["Mul"])

    @pytest.mark.parametrize("opset", [11, 13, 17, 21])
    def test_a_condition_on_the_shape_is_known(self, tmp_path: Path, opset: int) -> None:
        """As exporters write a squeeze: if the axis has length 1."""
        nodes = [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "one"], ["width"], axis=0),
            node("Equal", ["width", "four"], ["c"]),
            node("If", ["c"], ["y"], **branches()),
        ]
        path = saved(tmp_path, nodes, {"one": np.array(1), "four": np.array(4)}, opset=opset)
        assert assert_read(path)[0] == "MatMul"

    def test_a_branch_inside_a_branch(self, tmp_path: Path) -> None:
        inner = node("If", ["d"], ["inner"], **branches())
        outer = body([inner, node("Add", ["inner", "x"], ["out"])], [], [info("out")], {"d": np.array(False)})
        nodes = [node("If", ["c"], ["y"], then_branch=outer, else_branch=branches()["else_branch"])]
        assert assert_read(saved(tmp_path, nodes, {"c": np.array(True)}))[:2] == ["Mul", "Identity"]

    def test_a_branch_that_hands_on_what_is_outside(self, tmp_path: Path) -> None:
        same = body([], [], [info("x")])
        nodes = [
            node("If", ["c"], ["h"], then_branch=same, else_branch=branches()["else_branch"]),
            node("Relu", ["h"], ["y"]),
        ]
        path = saved(tmp_path, nodes, {"c": np.array([True])})
        assert [entry.op for entry in read_onnx(path).nodes] == ["Identity", "Relu"]

    def test_a_branch_that_depends_on_the_input_is_refused_by_name(self, tmp_path: Path) -> None:
        nodes = [
            node("ReduceSum", ["x"], ["total"], keepdims=0),
            node("Greater", ["total", "zero"], ["c"]),
            node("If", ["c"], ["y"], name="fork", **branches()),
        ]
        found = problem(saved(tmp_path, nodes, {"zero": np.float32(0)}))
        assert "If node 'fork' chooses between subgraphs as the network's input says" in found
        assert "torch.onnx.export" in found

    def test_a_branch_that_no_output_needs_is_left_out(self, tmp_path: Path) -> None:
        fork = node("If", ["c"], ["nowhere"], **branches())
        nodes = [node("Cast", ["x"], ["all"], to=BOOL), node("ReduceMax", ["x"], ["m"], keepdims=0)]
        nodes += [node("Cast", ["m"], ["c"], to=BOOL), fork, node("Gemm", ["x", "w", "b"], ["y"])]
        assert [entry.op for entry in read_onnx(saved(tmp_path, nodes)).nodes] == ["Gemm"]

    def test_the_branch_that_is_not_taken_is_checked_all_the_same(self, tmp_path: Path) -> None:
        """onnxruntime reads it, too."""
        chosen = branches()
        chosen["else_branch"] = body(
            [
                node("ConstantOfShape", ["huge"], ["z"]),
                node("ReduceSum", ["z"], ["t"]),
                node("Add", ["x", "t"], ["out"]),
            ],
            [],
            [info("out")],
            {"huge": np.array([2**40])},
        )
        found = problem(saved(tmp_path, [node("If", ["c"], ["y"], **chosen)], {"c": np.array(True)}))
        assert "ConstantOfShape node" in found
        assert "GiB" in found


def loop_body(condition: str = "go") -> GraphProto:
    nodes = [
        node("MatMul", ["h", "w"], ["a"]),
        node("Cast", ["step"], ["s"], to=FLOAT),
        node("Add", ["a", "s"], ["next"]),
        node("Identity", [condition], ["again"]),
    ]
    inputs = [info("step", INT64, []), info("go", BOOL, []), info("h")]
    return body(nodes, inputs, [info("again", BOOL, []), info("next"), info("a")])


class TestLoop:
    @pytest.mark.parametrize("opset", [11, 13, 17, 21])
    @pytest.mark.parametrize("rounds", [1, 3])
    def test_a_fixed_trip_count_is_unrolled(self, tmp_path: Path, opset: int, rounds: int) -> None:
        nodes = [node("Loop", ["count", "", "x"], ["y", "all"], body=loop_body())]
        ops = assert_read(saved(tmp_path, nodes, {"count": np.array(rounds)}, opset=opset))
        assert ops.count("MatMul") == rounds

    def test_results_of_all_rounds_are_stacked(self, tmp_path: Path) -> None:
        nodes = [
            node("Loop", ["count", "yes", "x"], ["last", "all"], body=loop_body()),
            node("ReduceSum", ["all", "first"], ["y"], keepdims=0),
        ]
        constants = {"count": np.array(3), "yes": np.array(True), "first": np.array([0])}
        assert assert_read(saved(tmp_path, nodes, constants, shape=(1, 4))).count("Unsqueeze") == 3

    def test_a_condition_that_is_known_in_every_round_ends_it(self, tmp_path: Path) -> None:
        stop = loop_body()
        stop.node.pop()
        stop.node.extend([node("Less", ["step", "two"], ["again"])])
        nodes = [node("Loop", ["", "yes", "x"], ["y", "all"], body=stop)]
        path = saved(tmp_path, nodes, {"yes": np.array(True), "two": np.array(2)})
        assert assert_read(path).count("MatMul") == 3

    @pytest.mark.parametrize("kind", ["count", "condition"])
    def test_a_course_that_depends_on_the_input_is_refused(self, tmp_path: Path, kind: str) -> None:
        inner = loop_body()
        first = [node("ReduceMax", ["x"], ["m"], keepdims=0), node("Cast", ["m"], ["n"], to=INT64)]
        if kind == "condition":
            inner.node.pop()
            inner.node.extend(
                [node("ReduceMax", ["a"], ["peak"], keepdims=0), node("Less", ["peak", "ten"], ["again"])]
            )
        nodes = [*first, node("Loop", ["n" if kind == "count" else "", "", "x"], ["y", "all"], name="turn", body=inner)]
        found = problem(saved(tmp_path, nodes, {"ten": np.float32(10)}))
        assert "Loop node 'turn' runs its subgraph as often as the network's input says" in found

    def test_a_loop_that_never_ends_is_refused(self, tmp_path: Path) -> None:
        nodes = [node("Loop", ["count", "", "x"], ["y", "all"], name="turn", body=loop_body())]
        assert "more than 1000 times" in problem(saved(tmp_path, nodes, {"count": np.array(2**62)}))


@pytest.mark.parametrize("backward", [0, 1])
@pytest.mark.parametrize("opset", [9, 11, 17])
def test_a_scan_over_a_fixed_length_is_unrolled(tmp_path: Path, opset: int, backward: int) -> None:
    """h' = tanh(h + part), over the parts of the input; all h are an output as well."""
    step = body(
        [node("Add", ["h", "part"], ["sum"]), node("Tanh", ["sum"], ["next"]), node("Identity", ["next"], ["seen"])],
        [info("h", FLOAT, [1]), info("part", FLOAT, [1])],
        [info("next", FLOAT, [1]), info("seen", FLOAT, [1])],
    )
    directions = {"scan_input_directions": [backward], "scan_output_directions": [1 - backward]}
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0]),
        node("Scan", ["h0", "t"], ["last", "all"], body=step, num_scan_inputs=1, **directions),
        node("Transpose", ["all"], ["y"], perm=[1, 0]),
    ]
    path = saved(tmp_path, nodes, {"h0": np.zeros(1, np.float32)}, opset=opset, shape=(1, 4))
    assert assert_read(path).count("Tanh") == 4


def affine(domain: str = "mine", opset: int = 17) -> onnx.FunctionProto:
    """affine(x, w; scale) = scale x w, with an attribute that has a default inside a LeakyRelu."""
    leaky = node("LeakyRelu", ["h"], ["out"])
    leaky.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    scale = node("Constant", [], ["s"])
    scale.attribute.add(name="value_float", type=onnx.AttributeProto.FLOAT, ref_attr_name="scale")
    nodes = [scale, node("MatMul", ["a", "m"], ["p"]), node("Mul", ["p", "s"], ["h"]), leaky]
    return helper.make_function(
        domain,
        "Affine",
        ["a", "m"],
        ["out"],
        nodes,
        [helper.make_opsetid("", opset)],
        ["scale"],
        [helper.make_attribute("slope", 0.25)],
    )


def twice(domain: str = "mine") -> onnx.FunctionProto:
    nodes = [
        node("Affine", ["a", "m"], ["h"], domain=domain, scale=2.0),
        node("Affine", ["h", "m"], ["out"], domain=domain, scale=0.5, slope=0.5),
    ]
    return helper.make_function(domain, "Twice", ["a", "m"], ["out"], nodes, [helper.make_opsetid(domain, 1)])


class TestFunctions:
    def test_a_function_stands_in_the_place_of_its_calls(self, tmp_path: Path) -> None:
        nodes = [
            node("Affine", ["x", "w"], ["h"], domain="mine", scale=1.5, slope=0.1),
            node("Affine", ["h", "w"], ["k"], domain="mine", scale=-1.0),
            node("Add", ["k", "b"], ["y"]),
        ]
        path = saved(tmp_path, nodes, functions=[affine()], domains=("mine",))
        assert assert_read(path).count("LeakyRelu") == 2
        slopes = [entry.attributes.get("alpha") for entry in read_onnx(path).nodes if entry.op == "LeakyRelu"]
        assert slopes == pytest.approx([0.1, 0.25])

    def test_a_function_that_calls_a_function(self, tmp_path: Path) -> None:
        path = saved(
            tmp_path,
            [node("Twice", ["x", "w"], ["y"], domain="mine", name="both")],
            functions=[affine(), twice()],
            domains=("mine",),
        )
        assert assert_read(path).count("MatMul") == 2

    def test_a_function_inside_a_branch(self, tmp_path: Path) -> None:
        then = body([node("Affine", ["x", "w"], ["out"], domain="mine", scale=1.0)], [], [info("out")])
        nodes = [node("If", ["c"], ["y"], then_branch=then, else_branch=branches()["else_branch"])]
        path = saved(tmp_path, nodes, {"c": np.array(True)}, functions=[affine()], domains=("mine",))
        assert "LeakyRelu" in assert_read(path)

    def test_a_branch_inside_a_function(self, tmp_path: Path) -> None:
        inner = node(
            "If",
            ["c"],
            ["out"],
            then_branch=body([node("Relu", ["a"], ["r"])], [], [info("r")]),
            else_branch=body([node("Neg", ["a"], ["r"])], [], [info("r")]),
        )
        function = helper.make_function("mine", "Fork", ["a", "c"], ["out"], [inner], [helper.make_opsetid("", 17)])
        nodes = [node("Fork", ["x", "yes"], ["h"], domain="mine"), node("Fork", ["h", "no"], ["y"], domain="mine")]
        constants = {"yes": np.array(True), "no": np.array(False)}
        path = saved(tmp_path, nodes, constants, functions=[function], domains=("mine",))
        assert [op for op in assert_read(path) if op != "Identity"] == ["Relu", "Neg"]

    def test_an_operator_that_means_the_same_in_both_versions_is_read(self, tmp_path: Path) -> None:
        function = affine(opset=16)
        nodes = [node("Affine", ["x", "w"], ["y"], domain="mine", scale=1.5)]
        ops = [n.op for n in read_onnx(saved(tmp_path, nodes, functions=[function], domains=("mine",))).nodes]
        assert "LeakyRelu" in ops
        path = saved(tmp_path, nodes, functions=[affine(opset=12)], domains=("mine",))
        assert "operator set 12" in problem(path)

    def test_a_function_that_calls_itself_is_refused(self, tmp_path: Path) -> None:
        loop = helper.make_function(
            "f", "F", ["a"], ["b"], [node("F", ["a"], ["b"], domain="f")], [helper.make_opsetid("f", 1)]
        )
        path = saved(tmp_path, [node("F", ["x"], ["y"], domain="f")], functions=[loop], domains=("f",))
        assert "calls itself" in problem(path)

    def test_functions_that_multiply_beyond_measure_are_refused(self, tmp_path: Path) -> None:
        functions, domain = [], helper.make_opsetid("f", 1)
        for k in range(25):
            calls = [node(f"F{k + 1}", ["a"], ["h"], domain="f"), node(f"F{k + 1}", ["h"], ["b"], domain="f")]
            functions.append(helper.make_function("f", f"F{k}", ["a"], ["b"], calls, [domain]))
        last = [node("Relu", ["a"], ["b"])]
        functions.append(helper.make_function("f", "F25", ["a"], ["b"], last, [helper.make_opsetid("", 17)]))
        path = saved(tmp_path, [node("F0", ["x"], ["y"], domain="f")], functions=functions, domains=("f",))
        with pytest.raises(UnsupportedModelError, match="over 200,000 nodes"):
            read_onnx(path)

    def test_a_function_that_reads_what_is_not_its_own_is_damaged(self, tmp_path: Path) -> None:
        function = helper.make_function(
            "f", "F", ["a"], ["b"], [node("Add", ["a", "w"], ["b"])], [helper.make_opsetid("", 17)]
        )
        path = saved(tmp_path, [node("F", ["x"], ["y"], domain="f")], functions=[function], domains=("f",))
        with pytest.raises(ModelFileError, match="reads 'w', which is made nowhere"):
            read_onnx(path)


OTHER_DOMAINS = {
    "com.microsoft": "optimiser",
    "ai.onnx.ml": "plain operators",
    "ai.onnx.preview.training": "inference",
    "org.pytorch.aten": "PyTorch",
    "pkg.torch.2.9": "PyTorch",
    "somebody": "ONNX's own operators only",
}


@pytest.mark.parametrize("domain", OTHER_DOMAINS)
def test_operators_of_other_domains_are_refused_by_name_with_what_would_work(tmp_path: Path, domain: str) -> None:
    nodes = [node("FusedMatMul", ["x", "w"], ["y"], domain=domain, name="fused")]
    found = problem(saved(tmp_path, nodes, domains=(domain,)))
    assert f"fused: operator FusedMatMul of domain {domain} is not read" in found
    assert OTHER_DOMAINS[domain] in found


def test_optional_values_are_read_as_what_is_in_them(tmp_path: Path) -> None:
    nodes = [
        node("Optional", ["x"], ["o"]),
        node("OptionalHasElement", ["o"], ["there"]),
        node("OptionalGetElement", ["o"], ["h"]),
        node(
            "If",
            ["there"],
            ["y"],
            then_branch=body([node("MatMul", ["h", "w"], ["out"])], [], [info("out")]),
            else_branch=body([node("Identity", ["h"], ["out"])], [], [info("out")]),
        ),
    ]
    assert "MatMul" in assert_read(saved(tmp_path, nodes, opset=18))
