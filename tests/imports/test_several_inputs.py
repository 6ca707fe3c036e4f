"""Networks with several inputs: one vector for the analysis, data by name, some held fixed, whoever exported them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from idl_audit import certify, from_torch, load
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.points import random_inputs
from idl_audit.commands.shared.subject import check_agreement, open_subject
from idl_audit.data.samples import read_samples
from idl_audit.graph.inputs import InputChoice, taken_apart, with_one_input
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.graph.original import onnx2torch_network, onnxruntime_network, precise_network
from idl_audit.graph.torch_options import TorchOptions
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.model import InputPart
from idl_audit.implicit.storage import load_model
from idl_audit.values.errors import DataError, OptionError, UnsupportedModelError
from tests.shared.command_line import run

RNG = np.random.default_rng(17)
FLOAT, DOUBLE, HALF, INT64, BOOL = (
    getattr(TensorProto, name) for name in ("FLOAT", "DOUBLE", "FLOAT16", "INT64", "BOOL")
)


def saved(
    folder: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Any],
    constants: dict[str, Any] | None = None,
    *,
    opset: int = 17,
) -> Path:
    """Write a network; an input is a shape of floats, or (type, shape)."""
    infos = [
        helper.make_tensor_value_info(name, *(given if isinstance(given, tuple) else (FLOAT, given)))
        for name, given in inputs.items()
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_tensor_value_info("y", FLOAT, None)], tensors)
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def two(folder: Path, first: Any = ("n", 2, 3), second: Any = ("n", 4), *, opset: int = 17) -> Path:
    """y = relu(a W + b V) U, where a is flattened."""
    nodes = [
        helper.make_node("Flatten", ["a"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["p"]),
        helper.make_node("MatMul", ["b", "v"], ["q"]),
        helper.make_node("Add", ["p", "q"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("MatMul", ["r", "u"], ["y"]),
    ]
    constants = {"w": floats(6, 5), "v": floats(4, 5), "u": floats(5, 3)}
    return saved(folder, nodes, {"a": list(first), "b": list(second)}, constants, opset=opset)


@pytest.mark.parametrize("opset", [7, 11, 13, 18, 21])
@pytest.mark.parametrize(("first", "second"), [(("n", 2, 3), ("n", 4)), ((1, 2, 3), (1, 4)), (("n", 2, 3), (1, 4))])
def test_the_model_of_the_vector_is_the_network_of_its_parts(tmp_path, first, second, opset):
    path = two(tmp_path, first, second, opset=opset)
    graph = read_onnx(path)
    model = build_implicit(graph)
    assert model.input_parts == (InputPart("a", (1, 2, 3)), InputPart("b", (1, 4)))
    assert model.input_shape == (1, 10)
    rows = floats(5, 10)
    expected = onnxruntime_network(path, graph)(rows)
    runtimes = (onnx2torch_network(path, graph), precise_network(path, graph, double=True))
    for found in (model(rows.astype(np.float64)), *(network(rows) for network in runtimes)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_vector_lists_the_inputs_as_the_file_does_or_as_the_user_says(tmp_path):
    path = two(tmp_path)
    rows = floats(3, 10)
    models = [build_implicit(read_onnx(path, chosen=InputChoice(names))) for names in ((), ("a", "b"), ("b", "a"))]
    np.testing.assert_array_equal(models[0](rows), models[1](rows))
    np.testing.assert_allclose(models[2](np.hstack([rows[:, 6:], rows[:, :6]])), models[0](rows), atol=1e-9)
    hashes = [read_onnx(path, chosen=InputChoice(names)).provenance.sha256 for names in ((), ("a", "b"), ("b", "a"))]
    assert hashes[0] == hashes[1] != hashes[2]


def test_an_input_that_is_held_fixed_is_a_constant_of_the_model(tmp_path):
    path = two(tmp_path)
    rows = floats(4, 10)
    rows[:, 6:] = rows[0, 6:]
    whole = onnxruntime_network(path, read_onnx(path))(rows)
    graph = read_onnx(path, chosen=InputChoice(fixed={"b": rows[0, 6:]}))
    model = build_implicit(graph)
    assert (model.input_shape, model.input_parts) == ((1, 2, 3), ())
    for found in (model(rows[:, :6]), onnxruntime_network(path, graph)(rows[:, :6])):
        np.testing.assert_allclose(found, whole, atol=1e-5)
    assert graph.n_parameters == read_onnx(path).n_parameters
    other = read_onnx(path, chosen=InputChoice(fixed={"b": rows[0, 6:] + 1}))
    assert len({one.provenance.sha256 for one in (graph, other, read_onnx(path))}) == 3


@pytest.mark.parametrize("wide", ["a", "b"])
def test_parts_of_two_widths_are_one_vector_of_float32(tmp_path, wide):
    kinds = {name: (DOUBLE if name == wide else FLOAT, ["n", 2]) for name in "ab"}
    nodes = [helper.make_node("Cast", [wide], ["c"], to=FLOAT)]
    nodes.append(helper.make_node("Concat", ["c", "b" if wide == "a" else "a"], ["h"], axis=1))
    path = saved(tmp_path, [*nodes, helper.make_node("MatMul", ["h", "w"], ["y"])], kinds, {"w": floats(4, 3)})
    subject = open_subject(path)
    check_agreement(subject, random_inputs(4))
    assert subject.point_type == np.float32


def test_what_cannot_move_is_refused_by_name(tmp_path):
    gather = [helper.make_node("Gather", ["a", "k"], ["h"], axis=1), helper.make_node("Relu", ["h"], ["y"])]
    path = saved(tmp_path, gather, {"a": [1, 4], "k": (INT64, [2])})
    with pytest.raises(UnsupportedModelError, match=r"the input 'k' holds int64, .*--fix k=FILE"):
        open_subject(path)
    np.save(tmp_path / "k.npy", np.array([2, 0]))
    subject = open_subject(path, ModelOptions(fix=(f"k={tmp_path / 'k.npy'}",)))
    np.testing.assert_array_equal(subject.model(np.array([[1.0, 2, 3, 4]])), [[3, 1]])
    check_agreement(subject, random_inputs(4))
    for wrong, words in ((np.array([0.5, 1]), "numbers that no int64 is"), (np.array([1, 2, 3]), "shape")):
        np.save(tmp_path / "k.npy", wrong)
        with pytest.raises(OptionError, match=words):
            open_subject(path, ModelOptions(fix=(f"k={tmp_path / 'k.npy'}",)))


def test_a_fixed_condition_chooses_a_branch(tmp_path):
    branches = {
        key: helper.make_graph(
            [helper.make_node(op, ["a"], [key])], key, [], [helper.make_tensor_value_info(key, FLOAT, None)]
        )
        for key, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    path = saved(tmp_path, [helper.make_node("If", ["c"], ["y"], **branches)], {"a": [1, 3], "c": (BOOL, [])})
    for value, expected in ((True, [[0, 2, 0]]), (False, [[1, -2, 0]])):
        np.save(tmp_path / "c.npy", np.array(value))
        subject = open_subject(path, ModelOptions(fix=(f"c={tmp_path / 'c.npy'}",)))
        np.testing.assert_array_equal(subject.model(np.array([[-1.0, 2, 0]])), expected)
        check_agreement(subject, random_inputs(3))


def test_a_fixed_size_stands_for_an_open_one(tmp_path):
    path = saved(tmp_path, [helper.make_node("Add", ["a", "b"], ["y"])], {"a": [1, 3], "b": ["m", "n"]})
    with pytest.raises(UnsupportedModelError, match="the input 'b' has the shape"):
        open_subject(path)
    np.save(tmp_path / "b.npy", np.ones((1, 3)))
    assert open_subject(path, ModelOptions(fix=(f"b={tmp_path / 'b.npy'}",))).model.n_inputs == 3


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=2, max_size=4), st.booleans())
@settings(max_examples=25, deadline=None)
def test_taking_a_vector_apart_and_joining_it_are_inverse(shapes, batched):
    from tests.shared.implicit_models import read

    names = [f"i{k}" for k in range(len(shapes))]
    infos = [
        helper.make_tensor_value_info(name, FLOAT, ["n" if batched else 1, *shape])
        for name, shape in zip(names, shapes, strict=True)
    ]
    nodes = [helper.make_node("Flatten", [name], [f"f{name}"]) for name in names]
    nodes.append(helper.make_node("Concat", [f"f{name}" for name in names], ["y"], axis=1))
    graph = helper.make_graph(nodes, "g", infos, [helper.make_tensor_value_info("y", FLOAT, None)])
    found = read(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    model = build_implicit(found)
    rows = RNG.normal(size=(1, model.n_inputs))
    np.testing.assert_array_equal(model(rows), rows)
    parts = taken_apart(rows, with_one_input(found, "y").parts)
    np.testing.assert_array_equal(np.hstack([parts[name].reshape(1, -1) for name in names]), rows.astype(np.float32))


class TestSamples:
    PARTS = (("a", (1, 2, 3)), ("b", (1, 4)))

    def read(self, path: Path, **options: Any):
        return read_samples(path, input_shape=(1, 10), n_classes=3, parts=self.PARTS, **options)

    def test_arrays_by_name_are_put_side_by_side(self, tmp_path):
        a, b = floats(5, 2, 3), floats(5, 4)
        np.savez(tmp_path / "d.npz", b=b, a=a, y=np.arange(5) % 3)
        np.savez(tmp_path / "whole.npz", inputs=np.hstack([a.reshape(5, 6), b]), labels=np.arange(5) % 3)
        torch.save({"b": torch.tensor(b), "a": torch.tensor(a), "labels": torch.arange(5) % 3}, tmp_path / "d.pt")
        found = [self.read(tmp_path / name, index=[3, 1]) for name in ("d.npz", "whole.npz", "d.pt")]
        for one in found:
            np.testing.assert_array_equal(one.inputs, np.hstack([a.reshape(5, 6), b])[[3, 1]])
            np.testing.assert_array_equal(one.labels, [0, 1])

    def test_columns_are_found_by_their_headings(self, tmp_path):
        (tmp_path / "d.csv").write_text("b,label,a\n1,0,2\n3,1,4\n")
        parts = (("a", (1, 1)), ("b", (1, 1)))
        found = read_samples(tmp_path / "d.csv", input_shape=(1, 2), n_classes=2, parts=parts)
        np.testing.assert_array_equal(found.inputs, [[2, 1], [4, 3]])
        np.testing.assert_array_equal(found.labels, [0, 1])

    def test_an_input_may_be_called_as_labels_are(self, tmp_path):
        np.savez(tmp_path / "d.npz", x=floats(2, 2), y=floats(2, 1), labels=np.arange(2))
        found = read_samples(tmp_path / "d.npz", input_shape=(1, 3), n_classes=2, parts=(("x", (1, 2)), ("y", (1, 1))))
        assert found.inputs.shape == (2, 3)
        np.testing.assert_array_equal(found.labels, [0, 1])

    def test_one_input_may_have_its_own_name(self, tmp_path):
        np.savez(tmp_path / "d.npz", pixels=floats(2, 4), labels=np.arange(2))
        found = read_samples(tmp_path / "d.npz", input_shape=(1, 4), n_classes=2, parts=(("pixels", (1, 4)),))
        assert found.inputs.shape == (2, 4)

    def test_a_number_that_is_none_is_told_with_its_array(self, tmp_path):
        b = floats(2, 4)
        b[1, 2] = np.nan
        np.savez(tmp_path / "d.npz", a=floats(2, 6), b=b)
        with pytest.raises(DataError, match=r"array 'b': sample 1 has NaN at input 2"):
            self.read(tmp_path / "d.npz")


class Two(nn.Module):
    """Two arguments, the second of which is added to the first behind a layer each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.second, self.last = nn.Linear(6, 5), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, image: torch.Tensor, side: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(image.flatten(1)) + self.second(side)))


def exported(folder: Path, how: str) -> Path:
    """Write the module as each of torch's exporters does, with a dynamic batch."""
    module, example = Two().eval(), (torch.randn(3, 2, 3), torch.randn(3, 4))
    names = ["image", "side"]
    if how == "pt2":
        batch = torch.export.Dim("n")
        program = torch.export.export(module, example, dynamic_shapes={name: {0: batch} for name in names})
        torch.export.save(program, folder / "m.pt2")
        return folder / "m.pt2"
    axes = (
        {"dynamic_shapes": ({0: "n"}, {0: "n"})}
        if how == "new"
        else {"dynamic_axes": {name: {0: "n"} for name in names}}
    )
    path = folder / "m.onnx"
    torch.onnx.export(module, example, str(path), dynamo=how == "new", input_names=names, verbose=False, **axes)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["new", "old", "pt2"])
def test_what_torch_exports_goes_through_the_commands(tmp_path, monkeypatch, how):
    path = exported(tmp_path, how)
    monkeypatch.chdir(tmp_path)
    trust = ["--allow-code-execution"] if how == "pt2" else []
    image, side = floats(6, 2, 3), floats(6, 4)
    labels = Two().eval()(torch.tensor(image), torch.tensor(side)).argmax(1).numpy()
    np.savez("d.npz", side=side, image=image, labels=labels)
    predicted = run("predict", path, "-d", "d.npz", "-f", "json", *trust).report
    assert [one.predicted for one in predicted.predictions] == labels.tolist()
    assert [(one.name, one.shape) for one in predicted.model.inputs] == [("image", (1, 2, 3)), ("side", (1, 4))]
    assert predicted.model.input_shape == (1, 10)
    if how != "new":
        return
    assert "inputs      image (1 x 2 x 3), side (1 x 4)" in run("inspect", path).out
    audited = run("certify", path, "-d", "d.npz", "-e", "0.01", "--certificates", "c", "-f", "json").report
    assert audited.summary.per_eps[0].certified >= 5
    certificate = next(Path("c").iterdir())
    assert run("verify", certificate, path).code == 0
    assert run("verify", certificate, path, "--input-name", "side,image").code == 1
    for line in ("attack -d d.npz -e 0.3 --method pgd", "bounds -d d.npz -e 0.01 --method interval", "sensitivity"):
        command, *more = line.split()
        assert run(command, path, *more, "-f", "json").code == 0
    assert run("convert", path, "-o", "c.npz", "-f", "json").report.model.inputs == predicted.model.inputs
    converted = run("predict", "c.npz", "-d", "d.npz", "-f", "json").report
    assert [one.predicted for one in converted.predictions] == labels.tolist()
    assert load_model(Path("c.npz")).model.input_parts == (InputPart("image", (1, 2, 3)), InputPart("side", (1, 4)))
    bounds = "\n".join(
        [*(f"(declare-const X_{i} Real)\n(assert (>= X_{i} 0))\n(assert (<= X_{i} 1))" for i in range(10))]
        + [f"(declare-const Y_{j} Real)" for j in range(3)]
        + ["(assert (>= Y_0 1000))"]
    )
    Path("rule.vnnlib").write_text(bounds)
    assert run("certify", path, "rule.vnnlib", "-f", "json").report.properties[0].result == "unsat"


@pytest.mark.filterwarnings("ignore")
def test_a_module_with_several_arguments_is_one_function_of_all(tmp_path):
    module = Two().eval()
    model = from_torch(module, (torch.zeros(1, 2, 3), torch.zeros(1, 4)))
    assert [part.name for part in model.input_parts] == ["image", "side"]
    image, side = floats(4, 2, 3), floats(4, 4)
    expected = module(torch.tensor(image), torch.tensor(side)).detach().numpy()
    np.testing.assert_allclose(model(np.hstack([image.reshape(4, 6), side])), expected, atol=1e-5)
    labels = expected.argmax(1)
    found = certify(module, (image, side), labels, eps=0.001)
    by_name = certify(model, {"side": side, "image": image}, labels, eps=0.001)
    assert found.certified == by_name.certified == 4
    for wrong, words in (((image,), "does not"), ({"image": image, "sid": side}, "not those of image, sid")):
        with pytest.raises((DataError, UnsupportedModelError), match=words if len(wrong) > 1 else ""):
            certify(module, wrong, labels, eps=0.001)
    with pytest.raises(DataError, match="4 samples of one input and 3 of side"):
        certify(model, (image, side[:3]), labels, eps=0.001)


@pytest.mark.filterwarnings("ignore")
def test_weights_of_a_module_with_several_arguments_need_their_shapes(tmp_path, monkeypatch):
    torch.save(Two().state_dict(), tmp_path / "m.pt")
    monkeypatch.chdir(tmp_path)
    np.save("side.npy", floats(4))
    line = ["m.pt", "--arch", f"{__name__}:Two", "--allow-code-execution"]
    report = run("convert", *line, "--input-shape", "1,2,3/1,4", "-o", "c.npz", "-f", "json").report
    assert [one.name for one in report.model.inputs] == ["image", "side"]
    fixed = run(
        "convert", *line, "--input-shape", "1,2,3/1,4", "--fix", "side=side.npy", "-o", "f.npz", "-f", "json"
    ).report
    assert ([one.name for one in fixed.model.fixed_inputs], fixed.model.input_shape) == (["side"], (1, 2, 3))
    assert "1,3,32,32/1,5" in run("convert", *line, "-o", "d.npz").err


def test_the_python_interface_knows_the_inputs(tmp_path):
    path = two(tmp_path)
    np.save(tmp_path / "b.npy", floats(4))
    assert load(path, input_name=["b", "a"]).input_parts[0].name == "b"
    assert load(path, fix={"b": tmp_path / "b.npy"}).n_inputs == 6


@pytest.mark.filterwarnings("ignore")
def test_a_configuration_holds_inputs_fixed(tmp_path, monkeypatch):
    two(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    np.save(tmp_path / "b.npy", floats(4))
    np.savez(tmp_path / "d.npz", inputs=floats(3, 2, 3))
    lines = ["[defaults]", 'model = "m.onnx"', 'data = "d.npz"', 'eps = "0.01"', 'fix = "b=b.npy"']
    (tmp_path / "a.toml").write_text("\n".join([*lines, "[run]", 'steps = "bounds"']))
    monkeypatch.chdir(tmp_path / "elsewhere")
    report = run("run", "-c", "../a.toml", "-f", "json").report
    assert [one.name for one in report.model.fixed_inputs] == ["b"]


@pytest.mark.filterwarnings("ignore")
def test_sensitivity_names_the_inputs_that_move_an_output(tmp_path):
    shown = run("sensitivity", two(tmp_path)).out
    assert "a[" in shown
    assert "b[" in shown


class Pair(nn.Module):
    """Two outputs, of which one is no float."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        total = a + b
        return total, total.argmax(1), torch.relu(total)


@pytest.mark.filterwarnings("ignore")
def test_a_module_with_several_outputs_gives_the_one_that_is_named(tmp_path, monkeypatch):
    batch = torch.export.Dim("n")
    example = (torch.randn(3, 4), torch.randn(3, 4))
    program = torch.export.export(Pair(), example, dynamic_shapes={"a": {0: batch}, "b": {0: batch}})
    torch.export.save(program, tmp_path / "m.pt2")
    monkeypatch.chdir(tmp_path)
    refused = run("convert", "m.pt2", "--allow-code-execution", "-o", "x.npz")
    assert refused.code == 2
    names = refused.err.rsplit("choose one of ", 1)[1].split()
    assert len(names) >= 2
    outputs = [name.strip(",.") for name in names]
    np.savez("d.npz", a=-np.ones((1, 4)), b=np.zeros((1, 4)))
    predict = ["predict", "m.pt2", "--allow-code-execution", "-d", "d.npz", "-f", "json"]
    found = [run(*predict, "--output-name", name).report.predictions[0].output for name in outputs]
    assert found == [(-1.0,) * 4, (0.0,) * 4]


@pytest.mark.filterwarnings("ignore")
def test_a_program_of_one_batch_size_is_read_as_its_example_says(tmp_path):
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    torch.export.save(torch.export.export(module, (torch.randn(3, 4),)), tmp_path / "m.pt2")
    subject = open_subject(tmp_path / "m.pt2", ModelOptions(torch=TorchOptions(allow_code_execution=True)))
    assert subject.model.n_inputs == 4  # each of the three rows goes its own way
    check_agreement(subject, random_inputs(4))
