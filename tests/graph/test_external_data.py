"""Weights beside the model: read where they should be, refused everywhere else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from idl_audit.graph import files
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.values.errors import ModelFileError
from tests.shared import graph_models as make

WEIGHTS = make.weights()
BYTES = WEIGHTS["w"].tobytes() + WEIGHTS["b"].tobytes()


def model_with(folder: Path, *, location: str = "w.data", **entries: object) -> Path:
    """Save a model whose tensor w lies outside; b stays inside."""
    tensor = make.external("w", (4, 3), location=location, **entries)
    return make.saved(folder, make.model(constants={"w": tensor, "b": WEIGHTS["b"]}))


def refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        read_onnx(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("location", ["w.data", "./w.data", "sub/deeper/w.data"])
@pytest.mark.parametrize("entries", [{}, {"offset": 0}, {"length": 48}, {"offset": 0, "length": 48}])
def test_data_below_the_folder_is_read(tmp_path: Path, location: str, entries: dict[str, int]) -> None:
    (tmp_path / location).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / location).write_bytes(BYTES)
    graph = read_onnx(model_with(tmp_path, location=location, **entries))
    np.testing.assert_array_equal(graph.constants["w"], WEIGHTS["w"], strict=True)
    assert not graph.constants["w"].flags.writeable
    assert graph.provenance.external_files == (location.removeprefix("./"),)


def test_a_model_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.data").write_bytes(BYTES)
    model_with(tmp_path)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read_onnx(Path("model.onnx")).constants["w"], WEIGHTS["w"])


def test_what_onnx_saves_is_read_back(tmp_path: Path) -> None:
    onnx.save_model(
        make.model(), tmp_path / "model.onnx", save_as_external_data=True, location="all.data", size_threshold=0
    )
    graph = read_onnx(tmp_path / "model.onnx")
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(graph.constants[name], array, strict=True)


def test_tied_weights_may_share_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(BYTES)
    tensors = {name: make.external(name, (4, 3), location="w.data", offset=0) for name in ("w", "v")}
    proto = make.model(constants={**tensors, "b": WEIGHTS["b"]})
    proto.graph.output.add(name="v")
    graph = read_onnx(make.saved(tmp_path, proto))
    np.testing.assert_array_equal(graph.constants["w"], graph.constants["v"])


def test_overlapping_claims_cannot_multiply_memory(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(bytes(1000))
    tensors = {f"t{index}": make.external(f"t{index}", (200,), location="w.data", offset=index) for index in range(3)}
    assert "overlaps" in refusal(make.saved(tmp_path, make.model(constants={**WEIGHTS, **tensors})))


@pytest.mark.parametrize(
    "location",
    [
        "../w.data",
        "sub/../../w.data",
        "/etc/passwd",
        "C:\\w.data",
        "C:w.data",
        "..\\w.data",
        "sub//w.data",
        "sub/",
        "",
        "a\nb",
        "w\x00.data",
        "*/_ORT_MEM_ADDR_/*",
        "x" * 5000,
    ],
)
def test_other_locations_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.data").write_bytes(BYTES)
    assert "plain relative name" in refusal(model_with(folder, location=location))


def test_no_location_and_two_locations(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(BYTES)
    tensor = make.external("w", (4, 3), offset=0)
    assert "plain relative name" in refusal(make.saved(tmp_path, make.model(constants={**WEIGHTS, "w": tensor})))
    tensor = make.external("w", (4, 3), location="w.data")
    tensor.external_data.add(key="location", value="other.data")
    assert "twice" in refusal(make.saved(tmp_path, make.model(constants={**WEIGHTS, "w": tensor})))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"offset": 13}, "which has 60"),
        ({"offset": 10**18}, "which has 60"),
        ({"offset": -1}, "whole number"),
        ({"offset": "1e3"}, "whole number"),
        ({"offset": "9" * 30}, "whole number"),
        ({"offset": "٣"}, "whole number"),
        ({"length": 47}, "its shape needs 48"),
        ({"length": 0}, "its shape needs 48"),
        ({"length": -48}, "whole number"),
    ],
)
def test_offsets_and_lengths_are_checked(tmp_path: Path, entries: dict[str, object], reason: str) -> None:
    (tmp_path / "w.data").write_bytes(BYTES)
    assert reason in refusal(model_with(tmp_path, **entries))


def test_truncated_and_missing_data(tmp_path: Path) -> None:
    assert "no such file" in refusal(model_with(tmp_path))
    (tmp_path / "w.data").write_bytes(BYTES[:40])
    assert "truncated" in refusal(model_with(tmp_path))


@pytest.mark.parametrize("dims", [(2**40, 2**40), (2**63 - 1,), (2**31, 2**31, 4)])
def test_huge_shapes_cost_nothing(tmp_path: Path, dims: tuple[int, ...]) -> None:
    (tmp_path / "w.data").write_bytes(BYTES)
    tensor = make.external("w", dims, location="w.data")
    assert "which has 60" in refusal(make.saved(tmp_path, make.model(constants={**WEIGHTS, "w": tensor})))


@pytest.fixture(params=[True, False], ids=["step by step", "look first"])
def _both_ways_to_open(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_CAN_WALK", request.param)


@pytest.mark.usefixtures("_both_ways_to_open")
def test_links_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "w.data").write_bytes(BYTES)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "file.data").symlink_to(outside / "w.data")
    (folder / "folder").symlink_to(outside)
    (folder / "dangling").symlink_to(folder / "nowhere")
    os.link(outside / "w.data", folder / "hard.data")
    for location in ("file.data", "folder/w.data", "dangling"):
        assert "symbolic link" in refusal(model_with(folder, location=location))
    assert "hard link" in refusal(model_with(folder, location="hard.data"))


@pytest.mark.usefixtures("_both_ways_to_open")
def test_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for location in ("folder", "pipe"):
        assert "regular file" in refusal(model_with(tmp_path, location=location))
    assert "cannot be opened" in refusal(model_with(tmp_path, location="model.onnx/w.data"))


def test_a_link_above_the_model_is_the_users_own(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "w.data").write_bytes(BYTES)
    model_with(real)
    (tmp_path / "link").symlink_to(real)
    assert read_onnx(tmp_path / "link" / "model.onnx").nodes


def test_attributes_may_lie_outside_too(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(BYTES)
    node = onnx.helper.make_node("Constant", [], ["w"])
    tensor = make.external("", (4, 3), location="../w.data")
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=tensor)
    path = make.saved(tmp_path, make.model([node, *make.affine_relu()], {"b": WEIGHTS["b"]}))
    assert "w.value lies at" in refusal(path)
    node.attribute[0].t.external_data[0].value = "w.data"
    path = make.saved(tmp_path, make.model([node, *make.affine_relu()], {"b": WEIGHTS["b"]}))
    np.testing.assert_array_equal(read_onnx(path).constants["w"], WEIGHTS["w"])


def test_booleans_and_sixteen_bits_outside(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(np.array([1.5, 2.5], "<f2").tobytes())
    tensor = make.external("c", (2,), TensorProto.FLOAT16, location="w.data")
    graph = read_onnx(make.saved(tmp_path, make.model([], {"c": tensor}, outputs=[("c", TensorProto.FLOAT16, None)])))
    np.testing.assert_array_equal(graph.constants["c"], np.array([1.5, 2.5], np.float32), strict=True)
