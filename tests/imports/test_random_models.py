"""What onnxruntime runs and is made of readable operators is read; nothing valid is told to be a fault of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from idl_audit import load
from idl_audit.commands.inspect import inspect
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.graph.ir import live_nodes
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.values.errors import UnsupportedModelError
from tests.shared.random_models import RandomModel, random_model


def runs(made: RandomModel, path: Path) -> bool:
    """Whether onnxruntime runs the model; it has no kernels for some operators in float64."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options)
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return False
    feeds = {}
    for value in session.get_inputs():
        if value.name == "idle":
            feeds["idle"] = np.zeros(
                (1, 2), {"tensor(float)": "f4", "tensor(int64)": "i8", "tensor(bool)": "?"}[value.type]
            )
        else:
            feeds[value.name] = np.random.default_rng(0).normal(size=made.shape).astype(made.dtype)
    session.run(None, feeds)
    return True


@pytest.mark.parametrize("seed", range(80))
def test_valid_models_of_readable_operators_are_read(tmp_path: Path, seed: int) -> None:
    made = random_model(seed)
    path = tmp_path / "m.onnx"
    path.write_bytes(made.proto.SerializeToString())
    works = runs(made, path)
    graph = read_onnx(path)
    for name in made.outputs:
        chosen = name if len(made.outputs) > 1 else None
        report = inspect(path, ModelOptions(output_name=chosen))
        entry = next(value.name for value in graph.inputs if value.name != "idle")
        depends = name == entry or any(entry in node.inputs for node in live_nodes(graph.nodes, [name]))
        if not depends:
            assert any("does not depend on the input" in problem for problem in report.model.unsupported)
            continue
        assert report.model.unsupported == ()
        if works:
            load(path, output_name=chosen)  # and compared with onnxruntime
        else:
            with pytest.raises(UnsupportedModelError, match="find an implementation"):
                load(path, output_name=chosen)


def test_random_models_cover_what_they_should() -> None:
    made = [random_model(seed) for seed in range(80)]
    assert {one.proto.opset_import[0].version for one in made} >= {7, 9, 11, 13, 17, 18, 20, 23, 26}
    assert {np.dtype(one.dtype).name for one in made} == {"float16", "float32", "float64"}
    assert {len(one.shape) for one in made} >= {0, 1, 2, 3, 4}
    ops = {node.op_type for one in made for node in one.proto.graph.node}
    assert len(ops) >= 40
    assert any(not one.proto.graph.node for one in made)
