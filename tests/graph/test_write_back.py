"""Trained weights in their own file: nothing but the numbers of initializers differs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl_audit.graph.original import onnxruntime_network
from idl_audit.graph.reader import read_graph
from idl_audit.graph.write_back import initializers, write_back
from idl_audit.values.errors import ModelFileError, OptionError
from tests.shared.implicit_models import floats, node, proto

SAMPLES = Path(__file__).parents[2] / "sample_models"
RNG = np.random.default_rng(0)


def small(folder: Path, kind: Any = np.float32, **more: Any) -> Path:
    weights = {"w": floats(RNG, 3, 4).astype(kind), "b": floats(RNG, 4).astype(kind)}
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    made = proto([node("MatMul", "x w", "h"), node("Add", "h b")], ("N", 3), weights, dtype=dtype, **more)
    made.metadata_props.add(key="trained", value="yesterday")
    made.graph.doc_string = "a small one"
    path = folder / "small.onnx"
    onnx.save(made, path)
    return path


def without_numbers(path: Path) -> onnx.ModelProto:
    model = copy.deepcopy(onnx.load(path, load_external_data=False))
    for tensor in model.graph.initializer:
        for field in ("raw_data", "float_data", "double_data", "int32_data", "external_data"):
            tensor.ClearField(field)
    return model


def numbers(path: Path) -> dict[str, Any]:
    model = onnx.load(path)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_only_the_numbers_differ(tmp_path: Path, kind: Any) -> None:
    path, out = small(tmp_path, kind), tmp_path / "new.onnx"
    assert initializers(path) == {"w", "b"}
    new = floats(RNG, 3, 4)
    written = write_back(path, out, {"w": new})
    assert (written.model, written.data) == (out, None)
    assert without_numbers(path) == without_numbers(out)
    found, before = numbers(out), numbers(path)
    assert found["w"].dtype == kind
    assert np.array_equal(found["w"], new.astype(kind))
    assert np.array_equal(found["b"], before["b"])


def test_numbers_in_typed_fields_become_bytes(tmp_path: Path) -> None:
    path, out = small(tmp_path), tmp_path / "new.onnx"
    model = onnx.load(path)
    values = numpy_helper.to_array(model.graph.initializer[1])
    model.graph.initializer[1].CopyFrom(helper.make_tensor("b", TensorProto.FLOAT, values.shape, values.tolist()))
    onnx.save(model, path)
    write_back(path, out, {"b": values + 1})
    assert np.array_equal(numbers(out)["b"], values + 1)


@pytest.mark.parametrize("name", ["digits_mlp", "digits_conv", "digits_resnet"])
def test_weights_beside_the_model_stay_beside_it(tmp_path: Path, name: str) -> None:
    path, out = SAMPLES / f"{name}.onnx", tmp_path / "new.onnx"
    before = numbers(path)
    same = write_back(path, out, {})
    assert same.data == tmp_path / "new.onnx.data"
    assert all(np.array_equal(numbers(out)[name], before[name]) for name in before)
    changed = {name: value * 1.5 for name, value in before.items() if value.dtype == np.float32 and value.ndim > 1}
    write_back(path, out, changed)
    after = numbers(out)
    assert without_numbers(path) == without_numbers(out)
    assert all(np.array_equal(after[name], changed.get(name, before[name])) for name in before)
    graph = read_graph(out)
    rows = RNG.random((4, 64)).astype(np.float32)
    theirs = onnxruntime_network(out, graph)(rows)
    assert not np.allclose(theirs, onnxruntime_network(path, read_graph(path))(rows))


def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path, out = small(tmp_path, np.float16), tmp_path / "new.onnx"
    with pytest.raises(ModelFileError, match="no initializer 'other'"):
        write_back(path, out, {"other": np.zeros(3)})
    with pytest.raises(ModelFileError, match="'w' was changed meanwhile"):
        write_back(path, out, {"w": np.zeros((4, 3))})
    with pytest.raises(OptionError, match="does not fit its type float16"):
        write_back(path, out, {"w": np.full((3, 4), 1e6)})
    with pytest.raises(OptionError, match="does not fit"):
        write_back(path, out, {"w": np.full((3, 4), np.nan)})
    assert not out.exists()
