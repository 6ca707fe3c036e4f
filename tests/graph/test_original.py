"""The original network: rows in, rows out, the same in batches as alone, by two independent programs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl_audit.graph.ir import Graph
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.graph.original import BatchedNetwork, InputForm, OriginalNetwork, onnx2torch_network, onnxruntime_network
from idl_audit.values.errors import DataError, OptionError, UnsupportedModelError
from tests.shared import graph_models as make

W, B = make.weights()["w"], make.weights()["b"]
BOTH = pytest.mark.parametrize("run", [onnxruntime_network, onnx2torch_network])
Runner = Callable[..., OriginalNetwork]


def affine_relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x.astype(np.float64) @ W + B, 0)


def samples(n: int, p: int = 4) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, p)).astype(np.float32)


def read(folder: Path, proto: onnx.ModelProto) -> tuple[Path, Graph]:
    path = make.saved(folder, proto)
    return path, read_onnx(path)


@BOTH
@pytest.mark.parametrize("leading", [1, "n", None])
@pytest.mark.parametrize("n", [0, 1, 2, 300])
def test_rows_in_rows_out(tmp_path: Path, run: Runner, leading: int | str | None, n: int) -> None:
    proto = make.model(inputs=[("x", make.FLOAT, (leading, 4))], outputs=[("y", make.FLOAT, (leading, 3))])
    network = run(*read(tmp_path, proto))
    outputs = network(samples(n))
    assert outputs.shape == (n, 3)
    assert outputs.dtype == np.float64
    np.testing.assert_allclose(outputs, affine_relu(samples(n)), rtol=1e-5, atol=1e-6)
    assert network.name.split()[0] in ("onnxruntime", "onnx2torch")


@BOTH
def test_rank_one_and_images(tmp_path: Path, run: Runner) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    for shape in [(5,), (1, 1, 2, 3), ("n", 2, "channels", 2)]:
        proto = make.model([node], {}, inputs=[("x", make.FLOAT, shape)], outputs=[("y", make.FLOAT, shape)])
        rows = samples(3, int(np.prod([size for size in shape if isinstance(size, int)])))
        np.testing.assert_array_equal(run(*read(tmp_path, proto))(rows), np.maximum(rows, 0))


@BOTH
@pytest.mark.parametrize("data_type", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_other_float_types_are_cast(tmp_path: Path, run: Runner, data_type: int) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(data_type)
    constants = {"w": W.astype(dtype), "b": B.astype(dtype)}
    proto = make.model(constants=constants, inputs=[("x", data_type, (1, 4))], outputs=[("y", data_type, (1, 3))])
    network = run(*read(tmp_path, proto))
    np.testing.assert_allclose(network(samples(3)), affine_relu(samples(3)), rtol=1e-2, atol=1e-2)


@BOTH
def test_external_data_is_found(tmp_path: Path, run: Runner) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(make.model(), path, save_as_external_data=True, location="w.data", size_threshold=0)
    np.testing.assert_allclose(run(path, read_onnx(path))(samples(2)), affine_relu(samples(2)), rtol=1e-5, atol=1e-6)


@BOTH
def test_a_batch_size_in_a_reshape_is_met_sample_by_sample(tmp_path: Path, run: Runner) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["h"]), helper.make_node("Gemm", ["h", "w", "b"], ["y"])]
    constants = {**make.weights(), "shape": np.array([1, 4])}
    proto = make.model(nodes, constants, inputs=[("x", make.FLOAT, ("n", 2, 2))], outputs=[("y", make.FLOAT, None)])
    outputs = run(*read(tmp_path, proto))(samples(3))
    np.testing.assert_allclose(outputs, samples(3).astype(np.float64) @ W + B, rtol=1e-5, atol=1e-6)


@BOTH
def test_samples_that_are_mixed_are_run_alone(tmp_path: Path, run: Runner) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Add", ["x", "mean"], ["y"]),
    ]
    proto = make.model(nodes, {}, inputs=[("x", make.FLOAT, ("n", 4))], outputs=[("y", make.FLOAT, None)])
    network = run(*read(tmp_path, proto))
    equal = np.ones((3, 4), np.float32)  # a mean over equal samples gives nothing away
    np.testing.assert_allclose(network(equal), 2 * equal)
    np.testing.assert_allclose(network(samples(3)), 2 * samples(3))


def test_a_sound_network_is_run_in_batches_once_it_is_believed() -> None:
    sizes = []

    def run(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        return 2 * batch

    network = BatchedNetwork("counting", Path("m"), InputForm((1, 4), np.float32, True), run)
    for _ in range(2):
        np.testing.assert_array_equal(network(samples(10)), 2 * samples(10))
    assert sizes == [10, 1, 1, 10]


def test_the_output_is_chosen(tmp_path: Path) -> None:
    for run in (onnxruntime_network, onnx2torch_network):
        path, graph = read(tmp_path, make.model(outputs=[("y", make.FLOAT, None), ("h", make.FLOAT, None)]))
        hidden = samples(2).astype(np.float64) @ W + B
        np.testing.assert_allclose(run(path, graph, output="h")(samples(2)), hidden, rtol=1e-5, atol=1e-6)
        with pytest.raises(OptionError, match="choose one of y, h"):
            run(path, graph)
        with pytest.raises(OptionError, match="no output 'q'"):
            run(path, graph, output="q")


@BOTH
def test_an_output_that_is_the_second_of_its_node(tmp_path: Path, run: Runner) -> None:
    node = helper.make_node("Split", ["x", "sizes"], ["left", "y"], axis=1)
    path, graph = read(tmp_path, make.model([node], {"sizes": np.array([1, 3])}))
    np.testing.assert_array_equal(run(path, graph)(samples(2)), samples(2)[:, 1:])


@BOTH
def test_inputs_that_do_not_fit(tmp_path: Path, run: Runner) -> None:
    path, graph = read(tmp_path, make.model())
    for wrong in (samples(2, 5), samples(2)[0]):
        with pytest.raises(DataError, match="rows of 4 numbers"):
            run(path, graph)(wrong)
    two = [("x", make.FLOAT, (1, 4)), ("z", TensorProto.FLOAT16, (1, 4))]
    both = [helper.make_node("Cast", ["z"], ["w"], to=1), helper.make_node("Add", ["x", "w"], ["y"])]
    with pytest.raises(UnsupportedModelError, match="inputs x, z hold float16 and float32"):
        run(*read(tmp_path, make.model(both, {}, inputs=two)))
    relu = [helper.make_node("Abs", ["x"], ["y"])]
    with pytest.raises(UnsupportedModelError, match="the input x has no shape"):
        run(*read(tmp_path, make.model(relu, inputs=[("x", make.FLOAT, None)], outputs=[("y", make.FLOAT, None)])))
    truth = [("x", TensorProto.BOOL, (1, 4))]
    cast = [helper.make_node("Cast", ["x"], ["y"], to=1)]
    with pytest.raises(UnsupportedModelError, match="the input x holds bool"):
        run(*read(tmp_path, make.model(cast, inputs=truth, outputs=[("y", make.FLOAT, None)])))


@pytest.mark.parametrize("data_type", [make.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING])
@pytest.mark.parametrize("first", [True, False])
def test_an_input_that_nothing_reads_is_filled(tmp_path: Path, data_type: int, first: bool) -> None:
    entries = [("x", make.FLOAT, ("n", 4)), ("idle", data_type, ("n", 2))]
    proto = make.model(inputs=entries[:: -1 if first else 1], outputs=[("y", make.FLOAT, ("n", 3))])
    path, graph = read(tmp_path, proto)
    for run in (onnxruntime_network, onnx2torch_network):
        np.testing.assert_allclose(run(path, graph)(samples(3)), affine_relu(samples(3)), rtol=1e-5, atol=1e-6)


def test_what_onnxruntime_refuses(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    inputs = [("x", TensorProto.DOUBLE, (1, 1, 4))]
    proto = make.model([node], {"w": np.ones((1, 1, 2))}, inputs=inputs, outputs=[("y", TensorProto.DOUBLE, None)])
    with pytest.raises(UnsupportedModelError, match=r"onnxruntime .* refuses the model: .*Conv.*float32") as caught:
        onnxruntime_network(*read(tmp_path, proto))
    assert str(caught.value).isprintable()


@BOTH
def test_a_run_that_fails(tmp_path: Path, run: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    proto = make.model(nodes, {"shape": np.array([5, 1])}, inputs=[("x", make.FLOAT, ("n", "m"))])
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    network = run(*read(tmp_path, proto))
    with pytest.raises(UnsupportedModelError, match=r"cannot run one sample of shape \(1, 1\)"):
        network(samples(1, 1))
    assert not capfd.readouterr().err


def test_what_onnx2torch_cannot_convert(tmp_path: Path) -> None:
    node = helper.make_node("Hardmax", ["x"], ["y"])
    path, graph = read(tmp_path, make.model([node], {}))
    with pytest.raises(UnsupportedModelError, match="onnx2torch cannot convert"):
        onnx2torch_network(path, graph)


# A node's name becomes `getattr(self, "NAME")(input_1)` in the Python source that onnx2torch has torch.fx write.
CRAFTED = [
    "\" if open({marker!r}, 'w') else \"",
    "x'); open({marker!r}, 'w'); ('",
    "a = 1\n    open({marker!r}, 'w')\n    b",
]


@pytest.mark.parametrize("crafted", CRAFTED)
def test_names_in_the_file_run_no_code(tmp_path: Path, crafted: str) -> None:
    marker = tmp_path / "marker"
    name = crafted.format(marker=str(marker))
    nodes = [
        helper.make_node("Gemm", [name + "x", name + "w", name + "b"], [name + "h"], name=name),
        helper.make_node("Relu", [name + "h"], [name + "y"], name=name, doc_string=name),
    ]
    proto = make.model(
        nodes,
        {name + "w": W, name + "b": B},
        inputs=[(name + "x", make.FLOAT, (name, 4))],
        outputs=[(name + "y", make.FLOAT, (name, 3))],
    )
    proto.graph.name = proto.doc_string = proto.graph.doc_string = name
    proto.metadata_props.add(key=name, value=name)
    network = onnx2torch_network(*read(tmp_path, proto))
    np.testing.assert_allclose(network(samples(2)), affine_relu(samples(2)), rtol=1e-5, atol=1e-6)
    assert not marker.exists()


def test_the_danger_of_names_is_real(tmp_path: Path) -> None:
    """Should this fail one day, onnx2torch has become safe; until then it shows that the test above can fail."""
    import torch

    from idl_audit.graph.torch_copy import _import_onnx2torch

    marker = tmp_path / "marker"
    node = helper.make_node("Relu", ["x"], ["y"], name=CRAFTED[0].format(marker=str(marker)))
    with warnings.catch_warnings(), contextlib.suppress(AttributeError):
        warnings.simplefilter("ignore")
        _import_onnx2torch().convert(make.model([node], {}))(torch.zeros(1, 4))
    assert marker.exists()


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 20, 23])
def test_exports_of_today_run_twice_the_same(tmp_path: Path, opset: int) -> None:
    import torch

    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 3),
    ).eval()
    path = tmp_path / "net.onnx"
    shapes = ({0: torch.export.Dim("n")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (torch.zeros(2, 1, 8, 8),), str(path), dynamo=True, opset_version=opset, dynamic_shapes=shapes
        )
    graph = read_onnx(path)
    with torch.no_grad():
        expected = net(torch.from_numpy(samples(5, 64).reshape(5, 1, 8, 8))).numpy()
    for run in (onnxruntime_network, onnx2torch_network):
        np.testing.assert_allclose(run(path, graph)(samples(5, 64)), expected, rtol=1e-4, atol=1e-6)


def in_a_new_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torch_and_onnxruntime_are_imported_late() -> None:
    code = "import sys, idl_audit.graph.reader, idl_audit.graph.original as o; print({names} & set(sys.modules))"
    heavy = "{'torch', 'onnxruntime', 'onnx2torch', 'torchvision', 'onnx.reference'}"
    assert in_a_new_python(code.replace("{names}", heavy)) == "set()"


BROKEN = {
    "the library": {"__init__.py": "raise RuntimeError('operator torchvision::nms does not exist')"},
    "a library of C": {"__init__.py": "raise OSError('libcudart.so.13: cannot open shared object file')"},
    "its operators": {"__init__.py": "", "ops.py": "raise RuntimeError('operator torchvision::nms does not exist')"},
    "a name": {"__init__.py": "", "ops.py": "nms = roi_align = print"},
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_torchvision_is_no_obstacle(tmp_path: Path, what: str) -> None:
    (tmp_path / "torchvision").mkdir()
    for name, text in BROKEN[what].items():
        (tmp_path / "torchvision" / name).write_text(text)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from idl_audit.graph.torch_copy import _import_onnx2torch
assert _import_onnx2torch() is _import_onnx2torch()
ops = sys.modules.get("torchvision.ops")
print(ops is None or "_absent" not in str(vars(ops)))
"""
    assert in_a_new_python(code) == "True"


DATA = os.environ.get("IDL_AUDIT_DATA")


@pytest.mark.skipif(DATA is None, reason="IDL_AUDIT_DATA is not set")
@pytest.mark.parametrize(
    "name",
    [
        "vnncomp/acasxu/ACASXU_run2a_1_1_batch_2000.onnx",
        "vnncomp/cifar10_resnet/resnet_2b.onnx",
        "vnncomp/marabou_cifar10/cifar10_small.onnx",
        "onnx_import/oval2020_cifar_base_kw.onnx",
    ],
)
def test_two_programs_agree_on_public_networks(name: str) -> None:
    path = Path(DATA or "", name)
    graph = read_onnx(path)
    p = int(np.prod([size for size in graph.inputs[0].shape or () if isinstance(size, int)]))
    first, second = (run(path, graph)(samples(3, p)) for run in (onnxruntime_network, onnx2torch_network))
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-4 * np.abs(first).max())


def test_weights_that_are_an_output_still_give_rows(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(W, "w")
    path, graph = read(tmp_path, make.model([], {"w": tensor}, outputs=[("w", make.FLOAT, (4, 3))]))
    np.testing.assert_array_equal(onnxruntime_network(path, graph)(samples(2)), np.stack([W.reshape(-1)] * 2))
