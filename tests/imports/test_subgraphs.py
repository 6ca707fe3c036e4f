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
from idl_audit.implicit.build import build_implicit
from idl_audit.values.errors import ModelFileError, UnsupportedModelError

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
RNG = np.random.default_rng(0)
W = RNG.normal(size=(4, 4)).astype(np.float32)
B = RNG.normal(size=4).astype(np.float32)
POOL = ("x", "c", "w", "h", "y", "p", "q", "r", "f", "a", "t")
"""Names that the random graphs use again and again: of values outside, and of those in `fork`."""
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
    return str(caught.value)


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


class Scope:
    """A random graph of numbered values, with a graph inside each If; `spelled` gives its values names.

    Values 0 and 1 are the input and a weight; every other stands for the node or the constant that makes it.
    """

    def __init__(self, rng: np.random.Generator, outer: list[int], count: list[int], depth: int) -> None:
        self.constants: dict[int, float] = {}
        self.steps: list[tuple[str, int, Any]] = []
        visible = list(outer)

        def new() -> int:
            count[0] += 1
            visible.append(count[0])
            return count[0]

        for _ in range(rng.integers(0, 3)):
            self.constants[new()] = float(rng.integers(1, 9)) / 4
        for _ in range(rng.integers(2, 5)):
            kind = str(rng.choice(["Add", "Relu", "If", "Call"] if depth else ["Add", "Relu", "Call"]))
            a, b = (int(value) for value in rng.choice(visible, 2))
            if kind == "If":
                given: Any = (bool(rng.integers(2)), *(Scope(rng, list(visible), count, depth - 1) for _ in range(2)))
            else:
                given = (a, b)
            self.steps.append((kind, new(), given))
        self.output = visible[-1]

    @property
    def own(self) -> list[int]:
        return [*self.constants, *(made for _, made, _ in self.steps)]

    def reads(self) -> set[int]:
        found = {self.output}
        for kind, _, given in self.steps:
            found |= given[1].reads() | given[2].reads() if kind == "If" else set(given)
        return found - set(self.own)

    def spelled(self, names: dict[int, str], rng: np.random.Generator | None) -> GraphProto:
        """Write the graph, with names that hide as many others as they may where `rng` is given.

        Without it every name is new, and an outer value goes through an Identity: so onnxruntime takes it.
        """
        names = dict(names)
        taken = {names[value] for value in self.reads()}
        for value in self.own:
            free = [name for name in POOL if name not in taken]
            names[value] = f"v{value}" if rng is None or not free else str(rng.choice(free))
            taken.add(names[value])
        nodes = [self.node(kind, names[made], given, names, rng) for kind, made, given in self.steps]
        output = names[self.output]
        if rng is None and self.output not in self.own:
            nodes.append(node("Identity", [output], [f"out{id(self)}"]))
            output = f"out{id(self)}"
        constants = {names[value]: np.full((1, 4), number, np.float32) for value, number in self.constants.items()}
        return body(nodes, [], [info(output)], constants)

    @staticmethod
    def node(kind: str, made: str, given: Any, names: dict[int, str], rng: np.random.Generator | None) -> NodeProto:
        if kind == "If":
            condition, *scopes = given
            then, other = (scope.spelled(names, rng) for scope in scopes)
            return node("If", ["yes" if condition else "no"], [made], then_branch=then, else_branch=other)
        inputs = [names[value] for value in given]
        if kind == "Call":
            return node("Fork", [*inputs, "yes"], [made], domain="mine")
        return node(kind, inputs[: 2 if kind == "Add" else 1], [made])


def fork() -> onnx.FunctionProto:
    """Fork(a, t, c): relu(a) - t where c holds, else a + t; its names are those that calls hand to it, too."""
    then = body([node("Relu", ["a"], ["p"]), node("Sub", ["p", "t"], ["q"])], [], [info("q")])
    other = body([node("Add", ["a", "t"], ["r"])], [], [info("r")])
    chosen = node("If", ["c"], ["f"], then_branch=then, else_branch=other)
    return helper.make_function("mine", "Fork", ["a", "t", "c"], ["f"], [chosen], [helper.make_opsetid("", 17)])


class TestNames:
    """A name inside a subgraph or a function means nothing outside, whatever else is called so."""

    @pytest.mark.parametrize("seed", range(40))
    def test_names_that_hide_others_change_nothing(self, tmp_path: Path, seed: int) -> None:
        """onnxruntime is shown the graph with a name for each value: it allows constants to hide others, not more."""
        scope = Scope(np.random.default_rng(seed), [0, 1], [1], depth=3)
        other = body([node("Neg", ["x"], ["out"])], [], [info("out")])
        constants = {"yes": np.array(True), "no": np.array(False), "c": W[:1]}
        paths = []
        for name, rng in (("plain", None), ("hiding", np.random.default_rng(seed))):
            chosen = node("If", ["yes"], ["h"], then_branch=scope.spelled({0: "x", 1: "c"}, rng), else_branch=other)
            nodes = [chosen, node("MatMul", ["h", "w"], ["p"]), node("Add", ["p", "x"], ["y"])]
            (tmp_path / name).mkdir()
            paths.append(saved(tmp_path / name, nodes, constants, functions=[fork()], domains=("mine",)))
        rows = RNG.normal(size=(5, 4)).astype(np.float32)
        options = onnxruntime.SessionOptions()  # its optimiser trips over some nested branches
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        theirs = onnxruntime.InferenceSession(str(paths[0]), options).run(["y"], {"x": rows})[0]
        for path in paths:
            ours = build_implicit(read_onnx(path))(rows.astype(np.float64))
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)

    def test_a_constant_in_a_branch_may_be_called_as_one_outside(self, tmp_path: Path) -> None:
        then = body([node("MatMul", ["x", "w"], ["out"])], [], [info("out")], {"w": 2 * W})
        nodes = [
            node("If", ["c"], ["h"], then_branch=then, else_branch=branches()["else_branch"]),
            node("If", ["no"], ["g"], then_branch=branches()["else_branch"], else_branch=then),
            node("MatMul", ["h", "w"], ["k"]),
            node("Add", ["k", "g"], ["y"]),
        ]
        assert_read(saved(tmp_path, nodes, {"c": np.array(True), "no": np.array(False)}))

    def test_a_branch_in_a_function_has_names_of_its_own(self, tmp_path: Path) -> None:
        """One is called as what the call hands over, and one as what names of the function become."""
        then = body([node("Relu", ["a"], ["r"]), node("Add", ["r", "z"], ["f/z"])], [], [info("f/z")])
        other = body([node("Identity", ["a"], ["s"])], [], [info("s")])
        chosen = node("If", ["c"], ["out"], then_branch=then, else_branch=other)
        function = helper.make_function(
            "mine", "F", ["a", "c"], ["out"], [node("Neg", ["a"], ["z"]), chosen], [helper.make_opsetid("", 17)]
        )
        nodes = [node("MatMul", ["x", "w"], ["r"]), node("F", ["r", "yes"], ["y"], domain="mine", name="f")]
        path = saved(tmp_path, nodes, {"yes": np.array(True)}, functions=[function], domains=("mine",))
        assert [op for op in assert_read(path) if op != "Identity"] == ["MatMul", "Neg", "Relu", "Add"]

    def test_a_branch_in_a_loop_may_call_its_values_as_the_state_outside(self, tmp_path: Path) -> None:
        then = body([node("Relu", ["h"], ["s"]), node("Add", ["h", "s"], ["out"])], [], [info("out")])
        chosen = node("If", ["go"], ["next"], then_branch=then, else_branch=branches()["else_branch"])
        turn = body(
            [chosen, node("Identity", ["go"], ["again"])],
            [info("step", INT64, []), info("go", BOOL, []), info("h")],
            [info("again", BOOL, []), info("next")],
        )
        nodes = [node("MatMul", ["x", "w"], ["s"]), node("Loop", ["n", "", "s"], ["y"], body=turn)]
        model = build_implicit(read_onnx(saved(tmp_path, nodes, {"n": np.array(2)})))
        rows = RNG.normal(size=(5, 4))
        expected = rows @ W
        for _ in range(2):
            expected = expected + np.maximum(expected, 0)
        np.testing.assert_allclose(model(rows), expected, rtol=1e-6)

    def test_a_branch_that_is_not_taken_leaves_what_is_outside(self, tmp_path: Path) -> None:
        """Its names hide a constant, and a size that would be beyond all memory."""
        inner = node(
            "If", ["c"], ["size"], then_branch=body([], [], [info("s")]), else_branch=body([], [], [info("s")])
        )
        asks = [node("OptionalHasElement", ["x"], ["c2"]), inner, node("Expand", ["x", "size"], ["out"])]
        then = body(asks, [], [info("out")], {"s": np.array([1, 4])})
        nodes = [
            node("If", ["no"], ["h"], then_branch=then, else_branch=branches()["else_branch"]),
            node("Where", ["c2", "x", "h"], ["y"]),
        ]
        constants = {"c": np.array(True), "no": np.array(False), "c2": np.array(False), "size": np.array([2**40, 4])}
        model = build_implicit(read_onnx(saved(tmp_path, nodes, constants, opset=18)))
        rows = RNG.normal(size=(5, 4))
        np.testing.assert_allclose(model(rows), 3 * rows)

    @pytest.mark.parametrize("deep", [False, True])
    def test_a_name_is_hidden_before_its_own_value_is_made(self, tmp_path: Path, deep: bool) -> None:
        """It must not mean the value outside up to some node, and another from there on."""
        reads = node("Neg", ["v"], ["q"])
        if deep:
            inner = body([node("Neg", ["v"], ["out"])], [], [info("out")])
            reads = node("If", ["c"], ["q"], then_branch=inner, else_branch=branches()["else_branch"])
        then = body([reads, node("Relu", ["x"], ["v"]), node("Add", ["q", "v"], ["out"])], [], [info("out")])
        chosen = node("If", ["c"], ["y"], then_branch=then, else_branch=branches()["else_branch"])
        path = saved(tmp_path, [node("MatMul", ["x", "w"], ["v"]), chosen], {"c": np.array(True)})
        with pytest.raises(ModelFileError, match=r"reads 'v', which is (only made later|made nowhere)"):
            read_onnx(path)


def nothing(name: str) -> NodeProto:
    """An optional value without an element."""
    return node("Optional", [], [name], type=helper.make_tensor_type_proto(FLOAT, [1, 4]))


class TestEmptyOptionals:
    @pytest.mark.parametrize("handed_on", [False, True])
    def test_an_empty_one_has_no_element(self, tmp_path: Path, handed_on: bool) -> None:
        """The branch that would take it out is not run; it is checked all the same."""
        then = body([node("OptionalGetElement", ["o"], ["e"]), node("Add", ["e", "x"], ["out"])], [], [info("out")])
        nodes = [nothing("n" if handed_on else "o"), *([node("Identity", ["n"], ["o"])] if handed_on else [])]
        nodes += [
            node("OptionalHasElement", ["o"], ["there"]),
            node("If", ["there"], ["y"], then_branch=then, else_branch=branches()["then_branch"]),
        ]
        assert assert_read(saved(tmp_path, nodes, opset=18))[:2] == ["MatMul", "Add"]

    @pytest.mark.parametrize("chosen", [False, True])
    def test_a_branch_may_make_one(self, tmp_path: Path, chosen: bool) -> None:
        kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [1, 4]))
        outputs = [helper.make_value_info("o", kind)]
        empty, full = body([nothing("o")], [], outputs), body([node("Optional", ["x"], ["o"])], [], outputs)
        nodes = [
            node("If", ["c"], ["one"], then_branch=empty, else_branch=full),
            node("OptionalHasElement", ["one"], ["there"]),
            node("Where", ["there", "x", "b"], ["z"]),
            node("Add", ["z", "x"], ["y"]),
        ]
        assert_read(saved(tmp_path, nodes, {"c": np.array(chosen)}, opset=18, shape=(1, 4)))

    @pytest.mark.parametrize("op", ["OptionalGetElement", "Relu"])
    def test_nothing_can_be_taken_out_of_an_empty_one(self, tmp_path: Path, op: str) -> None:
        nodes = [nothing("o"), node(op, ["o"], ["e"], name="take"), node("Add", ["e", "x"], ["y"])]
        found = problem(saved(tmp_path, nodes, opset=18))
        assert f"{op} node 'take' reads an optional value that has nothing in it" in found
