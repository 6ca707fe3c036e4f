"""The ONNX reader: what a good file becomes, and what is refused with a reason."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl_audit.graph.external_data import ExternalData
from idl_audit.graph.onnx_contents import Source, read_contents
from idl_audit.graph.onnx_reader import OLDEST_OPSET, read_onnx
from idl_audit.values.errors import ModelFileError, UnsupportedModelError
from tests.shared import graph_models as make

NEWEST = onnx.defs.onnx_opset_version()


def problems(path: Path) -> tuple[str, ...]:
    with pytest.raises(UnsupportedModelError) as caught:
        read_onnx(path)
    return caught.value.problems


def refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        read_onnx(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestGoodFiles:
    def test_nodes_weights_and_provenance_are_those_of_the_file(self, tmp_path: Path) -> None:
        path = make.saved(tmp_path, make.model())
        graph = read_onnx(path)
        assert [node.op for node in graph.nodes] == ["Gemm", "Relu"]
        assert graph.nodes[0].inputs == ("x", "w", "b")
        assert graph.inputs[0].shape == (1, 4)
        assert (graph.inputs[0].dtype, graph.opset, graph.n_parameters) == ("float32", 17, 15)
        assert graph.provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert graph.provenance.producer == "tests"
        for name, array in make.weights().items():
            np.testing.assert_array_equal(graph.constants[name], array)
            with pytest.raises(ValueError, match="read-only"):
                graph.constants[name][0] = 0

    @pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"])
    @pytest.mark.parametrize("raw", [True, False])
    @pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
    def test_every_element_type_is_read(self, tmp_path: Path, dtype: str, raw: bool, shape: tuple[int, ...]) -> None:
        array = (np.arange(np.prod(shape)) - (2 if np.dtype(dtype).kind in "fi" else 0)).reshape(shape).astype(dtype)
        tensor = numpy_helper.from_array(array, "c")
        if not raw:
            values = array.reshape(-1).tolist()
            tensor = helper.make_tensor("c", tensor.data_type, shape, values)
        path = make.saved(tmp_path, constant_output(tensor))
        read = read_onnx(path).constants["c"]
        np.testing.assert_array_equal(read, array, strict=True)
        assert not read.flags.writeable

    @pytest.mark.parametrize("data_type", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
    @pytest.mark.parametrize("raw", [True, False])
    def test_sixteen_bit_floats_become_float32(self, tmp_path: Path, data_type: int, raw: bool) -> None:
        values = np.array([1.5, -0.25, 0, 96], dtype=np.float32)
        bits = values.view(np.uint32) >> 16 if data_type == TensorProto.BFLOAT16 else values.astype("f2").view("u2")
        bits = bits.astype("<u2")
        tensor = TensorProto(name="c", dims=[4], data_type=data_type)
        if raw:
            tensor.raw_data = bits.tobytes()
        else:
            tensor.int32_data.extend(bits.tolist())
        read = read_onnx(make.saved(tmp_path, constant_output(tensor))).constants["c"]
        np.testing.assert_array_equal(read, values, strict=True)

    def test_constant_nodes_are_constants(self, tmp_path: Path) -> None:
        values = {"value_float": 2.5, "value_int": 3, "value_floats": [1.0, 2.0], "value_ints": [4, 5]}
        nodes = [helper.make_node("Constant", [], [key], **{key: value}) for key, value in values.items()]
        nodes.append(helper.make_node("Constant", [], ["value"], value=numpy_helper.from_array(np.ones((2, 2)))))
        outputs = [(key, TensorProto.UNDEFINED, None) for key in [*values, "value"]]
        graph = read_onnx(make.saved(tmp_path, make.model(nodes, {}, outputs=outputs)))
        assert not graph.nodes
        assert graph.constants["value_float"].dtype == np.float32
        assert graph.constants["value_int"].dtype == np.int64
        for key, value in values.items():
            np.testing.assert_array_equal(graph.constants[key], value)
        assert graph.constants["value"].shape == (2, 2)
        assert graph.outputs[0].dtype == "undefined"

    def test_attributes_are_plain_values(self, tmp_path: Path) -> None:
        attributes = {"i": 3, "f": 0.5, "s": "same", "ints": [1, 2], "floats": [0.5, 1.5], "strings": ["a", "b"]}
        tensor = numpy_helper.from_array(np.arange(3))
        node = helper.make_node("Foo", ["x"], ["y"], name="n", t=tensor, **attributes)
        source = Source(tmp_path / "m.onnx", ExternalData(tmp_path / "m.onnx"), outline=False)
        read = read_contents(make.model([node], {}), source).body.nodes[0].attributes
        assert {key: read[key] for key in ("i", "f", "s")} == {"i": 3, "f": 0.5, "s": "same"}
        assert (read["ints"], read["floats"], read["strings"]) == ((1, 2), (0.5, 1.5), ("a", "b"))
        np.testing.assert_array_equal(read["t"], np.arange(3))

    def test_symbols_unknown_sizes_and_unknown_ranks_are_kept(self, tmp_path: Path) -> None:
        proto = make.model(
            [helper.make_node("Relu", ["x"], ["y"])],
            inputs=[("x", make.FLOAT, ("batch", None, -1, 4)), ("z", TensorProto.DOUBLE, None)],
        )
        graph = read_onnx(make.saved(tmp_path, proto))
        assert graph.inputs[0].shape == ("batch", None, None, 4)
        assert graph.inputs[1].shape is None

    def test_weights_declared_as_inputs_are_no_inputs(self, tmp_path: Path) -> None:
        inputs = [("x", make.FLOAT, (1, 4)), ("w", make.FLOAT, (4, 3)), ("b", make.FLOAT, (3,))]
        graph = read_onnx(make.saved(tmp_path, make.model(inputs=inputs, ir_version=3)))
        assert [value.name for value in graph.inputs] == ["x"]

    def test_what_no_output_needs_is_dropped(self, tmp_path: Path) -> None:
        nodes = [*make.affine_relu(), helper.make_node("Mul", ["h", "unused"], ["nowhere"])]
        graph = read_onnx(make.saved(tmp_path, make.model(nodes, {**make.weights(), "unused": np.float32(2)})))
        assert [node.op for node in graph.nodes] == ["Gemm", "Relu"]
        assert set(graph.constants) == {"w", "b"}

    @pytest.mark.parametrize("opset", [OLDEST_OPSET, 13, NEWEST])
    def test_operator_sets_in_range_are_read(self, tmp_path: Path, opset: int) -> None:
        assert read_onnx(make.saved(tmp_path, make.model(opset=opset))).opset == opset

    @pytest.mark.parametrize("imports", [[("", 17)], [("ai.onnx", 17)], [("ai.onnx.ml", 2)]])
    def test_repeated_and_unused_imports_do_no_harm(self, tmp_path: Path, imports: list[tuple[str, int]]) -> None:
        assert read_onnx(make.saved(tmp_path, make.model(imports=imports))).opset == 17

    def test_a_link_to_the_model_itself_is_followed(self, tmp_path: Path) -> None:
        link = tmp_path / "link.onnx"
        link.symlink_to(make.saved(tmp_path, make.model()))
        assert read_onnx(link).nodes

    @pytest.mark.slow
    def test_an_export_of_today_is_read_with_its_external_data(self, tmp_path: Path) -> None:
        import torch

        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))
        path = tmp_path / "mlp.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(net.eval(), (torch.zeros(1, 4, 4),), str(path), dynamo=True, verbose=False)
        graph = read_onnx(path)
        assert graph.provenance.external_files == ("mlp.onnx.data",)
        data = (tmp_path / "mlp.onnx.data").read_bytes()
        assert graph.provenance.external_sha256 == (hashlib.sha256(data).hexdigest(),)
        assert graph.n_parameters == sum(parameter.numel() for parameter in net.parameters())
        for name, parameter in net.named_parameters():
            np.testing.assert_array_equal(graph.constants[name], parameter.detach().numpy())


def constant_output(tensor: TensorProto) -> onnx.ModelProto:
    """A model that returns the tensor `c`."""
    return make.model([], {"c": tensor}, outputs=[("c", tensor.data_type, None)])


class TestDamagedFiles:
    def test_missing_empty_folder_and_pipe(self, tmp_path: Path) -> None:
        assert "no such file" in refusal(tmp_path / "none.onnx")
        assert "folder" in refusal(tmp_path)
        (tmp_path / "empty.onnx").touch()
        assert "empty" in refusal(tmp_path / "empty.onnx")
        os.mkfifo(tmp_path / "pipe.onnx")
        assert "regular file" in refusal(tmp_path / "pipe.onnx")

    def test_more_than_protobuf_can_hold(self, tmp_path: Path) -> None:
        with (tmp_path / "huge.onnx").open("wb") as file:
            file.truncate(2**40)  # sparse: it takes no space on the disk
        assert "2 GiB" in refusal(tmp_path / "huge.onnx")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_unreadable(self, tmp_path: Path) -> None:
        path = make.saved(tmp_path, make.model())
        path.chmod(0)
        assert "may not be read" in refusal(path)

    def test_truncated_at_any_byte(self, tmp_path: Path) -> None:
        data = make.model().SerializeToString()
        path = tmp_path / "cut.onnx"
        for end in range(len(data)):
            path.write_bytes(data[:end])
            refusal(path)

    @pytest.mark.parametrize("data", [b"hello, world", bytes(1000), b"\xff" * 50, b"\x08\x08"])
    def test_no_onnx_at_all(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "other.onnx"
        path.write_bytes(data)
        assert "again" in refusal(path)

    def test_a_file_format_of_the_future(self, tmp_path: Path) -> None:
        assert "newer" in refusal(make.saved(tmp_path, make.model(ir_version=onnx.IR_VERSION + 1)))

    def test_a_value_that_nobody_makes(self, tmp_path: Path) -> None:
        assert "'w', which is made nowhere" in refusal(make.saved(tmp_path, make.model(constants={})))

    def test_nodes_out_of_order(self, tmp_path: Path) -> None:
        assert "only made later" in refusal(make.saved(tmp_path, make.model(make.affine_relu()[::-1])))

    @pytest.mark.parametrize("name", ["h", "x", "w"])
    def test_two_values_of_one_name(self, tmp_path: Path, name: str) -> None:
        nodes = [*make.affine_relu(), helper.make_node("Relu", ["h"], [name])]
        assert f"two values are called {name!r}" in refusal(make.saved(tmp_path, make.model(nodes)))

    def test_two_inputs_of_one_name(self, tmp_path: Path) -> None:
        inputs = [("x", make.FLOAT, (1, 4))] * 2
        assert "two values" in refusal(make.saved(tmp_path, make.model(inputs=inputs)))

    def test_no_inputs_no_outputs_unknown_output(self, tmp_path: Path) -> None:
        assert "no input" in refusal(make.saved(tmp_path, make.model([], {"y": np.ones(3)}, inputs=[])))
        assert "no output" in refusal(make.saved(tmp_path, make.model(outputs=[])))
        assert "output 'q'" in refusal(make.saved(tmp_path, make.model(outputs=[("q", make.FLOAT, None)])))

    @pytest.mark.parametrize(
        ("dims", "raw"),
        [
            ([2, 2], bytes(12)),
            ([2, 2], bytes(20)),
            ([2**62, 4, 16], b""),  # 2**68 elements: 0 in 64 bits
            ([2**40], bytes(16)),
            ([-1, -4], bytes(16)),
            ([-4], bytes(16)),
            ([1] * 65, bytes(4)),
        ],
    )
    def test_shapes_that_do_not_fit_their_bytes(self, tmp_path: Path, dims: list[int], raw: bytes) -> None:
        assert "tensor c" in refusal(make.saved(tmp_path, constant_output(make.claiming("c", dims, raw))))

    def test_values_in_two_places(self, tmp_path: Path) -> None:
        tensor = make.claiming("c", [1], bytes(4))
        tensor.float_data.append(1)
        assert "two places" in refusal(make.saved(tmp_path, constant_output(tensor)))

    def test_values_out_of_the_range_of_their_type(self, tmp_path: Path) -> None:
        tensor = TensorProto(name="c", dims=[1], data_type=TensorProto.INT8, int32_data=[300])
        assert "range of int8" in refusal(make.saved(tmp_path, constant_output(tensor)))
        tensor = make.claiming("c", [1], b"\x02", TensorProto.BOOL)
        assert "bool" in refusal(make.saved(tmp_path, constant_output(tensor)))


class TestUnsupported:
    @pytest.mark.parametrize("opset", [1, OLDEST_OPSET - 1, NEWEST + 1])
    def test_other_operator_sets(self, tmp_path: Path, opset: int) -> None:
        (problem,) = problems(make.saved(tmp_path, make.model(opset=opset)))
        assert f"operator set {opset}" in problem
        assert "opset_version" in problem

    def test_two_different_versions(self, tmp_path: Path) -> None:
        assert "13 and 17" in refusal(make.saved(tmp_path, make.model(imports=[("", 13)])))

    def test_a_node_of_another_domain_is_named(self, tmp_path: Path) -> None:
        node = helper.make_node("Gelu", ["x"], ["y"], name="fast", domain="com.microsoft")
        (problem,) = problems(make.saved(tmp_path, make.model([node], {}, imports=[("com.microsoft", 1)])))
        assert problem.startswith("fast: operator Gelu of domain com.microsoft")

    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
    def test_weights_that_are_no_numbers(self, tmp_path: Path, dtype: str) -> None:
        array = np.array([1, np.nan, 2], dtype=dtype)
        (problem,) = problems(make.saved(tmp_path, constant_output(numpy_helper.from_array(array, "c"))))
        assert problem.startswith("tensor c contains NaN")

    @pytest.mark.parametrize("data_type", [TensorProto.COMPLEX64, TensorProto.FLOAT6E2M3, 99])
    def test_other_element_types(self, tmp_path: Path, data_type: int) -> None:
        tensor = TensorProto(name="odd", dims=[1], data_type=data_type)
        (problem,) = problems(make.saved(tmp_path, make.model(constants={**make.weights(), "odd": tensor})))
        assert problem.startswith("tensor odd holds")

    @pytest.mark.parametrize("kind", ["value_string", "value_strings", "initializer"])
    def test_text_is_refused_where_an_output_needs_it(self, tmp_path: Path, kind: str) -> None:
        node = helper.make_node(
            "Constant", [], ["c"], **{kind: {"value_string": "1", "value_strings": ["1"]}.get(kind)}
        )
        text = helper.make_tensor("c", TensorProto.STRING, [1], [b"1"])
        nodes, constants = ([], {"c": text}) if kind == "initializer" else ([node], {})
        used = [*nodes, helper.make_node("Cast", ["c"], ["n"], to=1), helper.make_node("Add", ["x", "n"], ["y"])]
        (problem,) = problems(make.saved(tmp_path, make.model(used, constants)))
        assert problem.startswith("tensor c holds text")
        unused = make.model([*make.affine_relu(), *nodes], {**make.weights(), **constants})
        assert read_onnx(make.saved(tmp_path, unused)).nodes

    def test_a_constant_without_a_value(self, tmp_path: Path) -> None:
        node = helper.make_node("Constant", [], ["c"], name="empty")
        assert problems(make.saved(tmp_path, make.model([*make.affine_relu(), node])))[0].startswith("empty: ")

    def test_inputs_that_are_no_tensors_are_refused_where_they_are_read(self, tmp_path: Path) -> None:
        proto = make.model()
        tensor = helper.make_tensor_type_proto(make.FLOAT, None)
        proto.graph.input.append(helper.make_value_info("list", helper.make_sequence_type_proto(tensor)))
        proto.graph.input.append(helper.make_tensor_value_info("text", TensorProto.STRING, None))
        assert [value.dtype for value in read_onnx(make.saved(tmp_path, proto)).inputs] == [
            "float32",
            "sequence",
            "string",
        ]
        proto.graph.output.append(helper.make_tensor_value_info("z", make.FLOAT, None))
        proto.graph.node.append(helper.make_node("ConcatFromSequence", ["list"], ["z"], axis=0))
        (problem,) = problems(make.saved(tmp_path, proto))
        assert problem.startswith("list: an input that holds sequence is not read")

    def test_all_problems_are_told_at_once(self, tmp_path: Path) -> None:
        nodes = [helper.make_node("Foo", ["x"], [f"o{index}"], name=f"n{index}", domain="d") for index in range(3)]
        proto = make.model([*make.affine_relu(), *nodes])
        assert len(problems(make.saved(tmp_path, proto))) == 3
        bad = {name: array * np.float32(np.nan) for name, array in make.weights().items()}
        assert len(problems(make.saved(tmp_path, make.model(constants=bad)))) == 2

    def test_hostile_names_stay_on_one_line(self, tmp_path: Path) -> None:
        node = helper.make_node("Foo", ["x"], ["y"], name="a\nb\x1b[31m" + "c" * 10_000, domain="d")
        (problem,) = problems(make.saved(tmp_path, make.model([node], {})))
        assert problem.isprintable()
        assert len(problem) < 500


DATA = os.environ.get("IDL_AUDIT_DATA")


@pytest.mark.skipif(DATA is None, reason="IDL_AUDIT_DATA is not set")
@pytest.mark.parametrize("folder", ["vnncomp", "onnx_import"])
def test_public_networks_are_read(folder: str) -> None:
    paths = sorted(Path(DATA or "", folder).rglob("*.onnx"))
    assert paths
    for path in paths:
        graph = read_onnx(path)
        assert graph.nodes, path
        assert graph.n_parameters, path
