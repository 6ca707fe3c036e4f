"""The networks of the data folder: vnncomp/ (but for transformers) and onnx_import/ import, onnx_refuse/ is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.architectures import load_resnet20
from benchmarks.import_table import Imported, Refused, export, fresh_networks, import_file
from idl_audit.graph.torch_reader import network_of
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.scaling import rescale

DATA = Path(os.environ.get("IDL_AUDIT_DATA", "/nonexistent"))
needs_data = pytest.mark.skipif("IDL_AUDIT_DATA" not in os.environ, reason="IDL_AUDIT_DATA is not set")
GOOD = sorted(
    str(p.relative_to(DATA))
    for folder in ("vnncomp/*", "onnx_import")
    for p in DATA.glob(f"{folder}/*.onnx")
    if p.parent.name != "vit"  # attention multiplies tensors that depend on the input
)
READ_NOW = ("onnx_products/*", "onnx_refuse/traffic_signs*", "onnx_refuse/lsnc*", "onnx_refuse/vit*", "vnncomp/vit/*")
GOOD += sorted(str(p.relative_to(DATA)) for name in READ_NOW for p in DATA.glob(f"{name}.onnx"))
BAD = {
    "acc_NET": r"Gemm node 'FC1'",
}


@needs_data
@pytest.mark.parametrize("name", GOOD)
def test_the_network_imports_and_agrees(name):
    found = import_file(DATA / name, name)
    assert isinstance(found, Imported), found
    assert found.max_rel_error <= 1e-4


@needs_data
@pytest.mark.parametrize("name", BAD)
def test_the_network_is_refused_by_operator_and_node(name):
    (path,) = (DATA / "onnx_refuse").glob(f"{name}*.onnx")
    found = import_file(path, name)
    assert isinstance(found, Refused)
    assert re.search(BAD[name], found.sentence)


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("name", ["MLP with softmax", "LeNet with pooling", "autoencoder", "1-D conv net"])
def test_networks_exported_today_import(tmp_path, name, dynamo):
    module, shape = fresh_networks()[name]
    export(module, shape, tmp_path / "fresh.onnx", dynamo=dynamo)
    found = import_file(tmp_path / "fresh.onnx", name)
    assert isinstance(found, Imported), found
    assert found.max_rel_error <= 1e-4


@needs_data
@pytest.mark.slow
def test_resnet20_keeps_its_kernels_its_outputs_and_its_accuracy():
    module = load_resnet20(str(DATA / "models/resnet20_cifar10.th"))
    network = network_of(module, torch.zeros(1, 3, 32, 32))
    model = build_implicit(network.graph)
    assert sum(block.size for block in model.blocks if block.activation.name == "relu") == 188_416
    scaled = rescale(model)
    assert scaled.scaling.norm_after <= 0.5
    convolutions = [m for row in scaled.rows for m in row.states.values() if isinstance(m, Convolution)]
    assert len(convolutions) == 18
    with np.load(DATA / "cifar10_test.npz") as archive:
        images = archive["images"][:1000].astype(np.float32) / 255
        labels = archive["labels"][:1000]
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    inputs = ((images - mean) / std).reshape(1000, -1)
    ours = np.vstack([model(batch.astype(np.float64)) for batch in np.split(inputs, 20)])
    theirs = network.original(inputs)
    np.testing.assert_array_equal(ours.argmax(1), theirs.argmax(1))
    assert (ours.argmax(1) == labels).mean() > 0.9
    np.testing.assert_array_equal(scaled(inputs[:5].astype(float)), model(inputs[:5].astype(float)))
