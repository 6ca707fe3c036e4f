"""inspect tells shapes and sizes without reading weights, and estimates come before allocation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl_audit.commands.inspect import inspect
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.subject import open_subject
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.graph.reader import read_graph
from idl_audit.implicit.build import build_implicit
from idl_audit.values.errors import MemoryLimitError, ModelFileError, UnsupportedModelError
from tests.shared.command_line import run

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """Two convolutions 64 -> 64, 3x3, on 56x56 pixels: 116 million nonzeros each."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.normal(size=(64, 64, 3, 3)).astype(np.float32), f"w{k}") for k in range(2)]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], name="one", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["c"], name="two", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 56, 56]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64, 1, 1]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    path = tmp_path_factory.mktemp("wide") / "wide.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_wide_convolution_is_estimated_and_refused_with_the_figure(wide):
    assert inspect(wide, ModelOptions()).conversion.nnz.A == 64 * 64 * (3 * 56 - 2) ** 2
    with pytest.raises(MemoryLimitError, match=r"Conv node 'one' has about 112,\d{3},\d{3} nonzeros \(1\.35 GB\)"):
        build_implicit(read_graph(wide), max_bytes=10**9)
    assert "above the limit of 1.00 GB" in inspect(wide, ModelOptions(max_bytes=10**9)).model.unsupported[0]


@pytest.mark.parametrize("name", ["digits_mlp", "digits_conv", "digits_resnet"])
def test_inspect_and_import_tell_the_same_story(name):
    path = SAMPLES / f"{name}.onnx"
    looked, opened = inspect(path, ModelOptions()), open_subject(path)
    assert looked.model == opened.info
    assert looked.conversion.n_states == opened.model.n_states
    assert [b.size for b in looked.conversion.blocks] == [b.size for b in opened.model.blocks[::-1]]
    assert looked.conversion.check is None


def test_an_outline_checks_the_weights_it_does_not_read(tmp_path):
    weights = numpy_helper.from_array(np.ones((100, 100), np.float32), "w")
    weights.dims[0] = 200
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, s]) for n, s in (("x", 200), ("y", 100))]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], [weights]), ir_version=8)
    path = tmp_path / "short.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="needs 80000 bytes and has 40000"):
        read_onnx(path, outline=True)


def test_all_that_is_unsupported_is_listed_at_once(tmp_path):
    nodes = [
        helper.make_node("Hardmax", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Det", ["b"], ["c"]),
        helper.make_node("Bernoulli", ["x"], ["y"], name="last"),
        helper.make_node("Add", ["y", "c"], ["z"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "z")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    path = tmp_path / "odd.onnx"
    path.write_bytes(model.SerializeToString())
    found = inspect(path, ModelOptions())
    assert found.conversion is None
    assert [text.split()[:3] for text in found.model.unsupported] == [
        ["Hardmax", "node", "'first'"],
        ["Det", "node", "'c'"],
        ["Bernoulli", "node", "'last'"],
    ]


def test_nothing_hides_behind_a_node_that_is_not_read(tmp_path):
    """Whatever finds it: another domain, ONNX's own description, types, an open branch, an operator, a use of one."""
    empty = helper.make_graph([], "g", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])])
    nodes = [
        helper.make_node("Gelu", ["x"], ["a"], name="foreign", domain="com.microsoft"),
        helper.make_node("Relu", ["a"], ["b"], name="strange", alpha=0.1),
        helper.make_node("Add", ["b", "double"], ["c"], name="types"),
        helper.make_node("Hardmax", ["c"], ["d"], name="jump"),
        helper.make_node("ReduceSum", ["d"], ["e"], keepdims=0),
        helper.make_node("Cast", ["e"], ["f"], to=TensorProto.BOOL, name="truth"),
        helper.make_node("If", ["f"], ["g"], name="open", then_branch=empty, else_branch=empty),
        helper.make_node("Hardmax", ["g"], ["h"], name="behind"),
        helper.make_node("TopK", ["h", "two"], ["i", "j"], name="places"),
        helper.make_node("Cast", ["j"], ["k"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["i", "k"], ["z"], axis=1),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "z")]
    between = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in "abcg"]
    constants = {"double": np.ones(4), "two": np.array([2])}
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors, value_info=between)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path / "bad.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    told = inspect(path, ModelOptions()).model.unsupported
    for name in ("foreign", "strange", "types", "jump", "open", "behind", "places"):
        assert any(f"'{name}'" in text or text.startswith(f"{name}:") for text in told), (name, told)
    with pytest.raises(UnsupportedModelError) as caught:
        open_subject(path)
    assert len(caught.value.problems) == len(told)


@pytest.mark.parametrize(
    ("kind", "words"), [(TensorProto.BOOL, "holds bool"), (TensorProto.UINT8, None), (TensorProto.INT64, None)]
)
def test_inspect_refuses_the_inputs_that_certify_refuses(tmp_path, kind, words):
    """What no sample can move in is unsupported, and told in the same words; whole numbers are read."""
    weights = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", kind, [1, 4]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3]),
    ]
    path = tmp_path / "whole.onnx"
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    found = inspect(path, ModelOptions()).model.unsupported
    if words is None:
        assert found == ()
        assert open_subject(path).model.n_inputs == 4
        return
    (told,) = found
    assert words in told
    with pytest.raises(UnsupportedModelError) as refused:
        open_subject(path)
    assert refused.value.problems == (told,)


def test_check_exits_with_1_where_something_is_unsupported(tmp_path):
    nodes = [helper.make_node("Bernoulli", ["x"], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "y")]
    path = tmp_path / "random.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]), ir_version=8), path)
    assert run("inspect", path).code == 0
    found = run("inspect", path, "--check")
    assert (found.code, found.err) == (1, "")
    assert "Bernoulli" in found.out
    assert run("inspect", SAMPLES / "digits_mlp.onnx", "--check").code == 0
