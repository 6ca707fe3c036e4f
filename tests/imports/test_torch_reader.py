"""PyTorch files: weights are read, code is run only where that was allowed."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from idl_audit import from_torch
from idl_audit.graph.reader import sniff
from idl_audit.graph.torch_options import TorchOptions
from idl_audit.graph.torch_reader import network_of, read_torch
from idl_audit.implicit.build import build_implicit
from idl_audit.values.errors import ModelFileError, OptionError, UnsupportedModelError

FACTORY = """
from torch.nn import Linear, ReLU, Sequential

def make():
    return Sequential(Linear(4, 5), ReLU(), Linear(5, 3))
"""


@pytest.fixture
def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval()


@pytest.fixture
def factory(tmp_path, monkeypatch):
    """A module with a factory in the current folder."""
    (tmp_path / "my_networks.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    return TorchOptions("my_networks:make", (1, 4), True)


def same(network, module) -> bool:
    u = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    theirs = module(torch.from_numpy(u)).detach().numpy()
    ours = build_implicit(network.graph)(u)
    return bool(np.allclose(ours, theirs, atol=1e-5) and np.allclose(network.original(u), theirs, atol=1e-6))


def read(path, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_torch(path, sniff(path), options)


@pytest.mark.slow
@pytest.mark.parametrize("wrap", ["plain", "state_dict", "prefix", "safetensors"])
def test_weights_with_an_architecture_are_a_network(tmp_path, module, factory, wrap):
    state = module.state_dict()
    path = tmp_path / "weights.file"
    if wrap == "safetensors":
        save_file(state, path)
    elif wrap == "prefix":
        torch.save({f"module.{name}": value for name, value in state.items()}, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if wrap == "state_dict" else state, path)
    assert same(read(path, factory), module)


@pytest.mark.slow
def test_a_pickled_module_loads_where_that_is_allowed(tmp_path, module):
    path = tmp_path / "whole.pt"
    torch.save(module, path)
    assert same(read(path, TorchOptions(None, (1, 4), True)), module)


@pytest.mark.slow
def test_an_exported_program_knows_its_input(tmp_path, module):
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(module, (torch.zeros(1, 4),)), path)
    assert same(read(path, TorchOptions(None, None, True)), module)


class Named(nn.Module):
    """Scores by name, as large libraries return them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> dict[str, tuple[torch.Tensor]]:
        return {"scores": (self.inner(x),)}


@pytest.mark.slow
def test_modules_may_return_tensors_by_name(module):
    assert same(network_of(Named(module), torch.zeros(1, 4)), module)


def test_nothing_runs_without_the_switch(tmp_path, module):
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self):
            return open, (str(marker), "w")

    path = tmp_path / "evil.pt"
    torch.save({"a": Evil()}, path)
    with pytest.raises(ModelFileError, match=r"would run code: it imports .*open.*ONNX"):
        read(path, TorchOptions())
    with pytest.raises(OptionError, match="--allow-code-execution"):
        read(path, TorchOptions("my_networks:make", (1, 4)))
    assert not marker.exists()


@pytest.mark.usefixtures("factory")
def test_an_architecture_never_unpickles(tmp_path):
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self):
            return open, (str(marker), "w")

    path = tmp_path / "evil.pt"
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(ModelFileError, match="cannot be read as weights"):
        read(path, TorchOptions("my_networks:make", (1, 4), True))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (TorchOptions(), ModelFileError, "holds weights without the network; give --arch"),
        (TorchOptions("my_networks:make", None, True), OptionError, "--input-shape"),
        (TorchOptions("no_such_module_here:make", (1, 4), True), OptionError, "No module named"),
        (TorchOptions("my_networks", (1, 4), True), OptionError, "package.module:factory"),
        (TorchOptions("my_networks:absent", (1, 4), True), OptionError, "absent"),
        (TorchOptions("os:getcwd", (1, 4), True), OptionError, "must return a torch.nn.Module"),
    ],
)
@pytest.mark.usefixtures("factory")
def test_what_is_missing_is_said(tmp_path, module, options, error, words):
    path = tmp_path / "weights.pt"
    torch.save(module.state_dict(), path)
    with pytest.raises(error, match=words):
        read(path, options)


@pytest.mark.usefixtures("factory")
def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(ModelFileError, match="do not fit the architecture"):
        read(path, TorchOptions("my_networks:make", (1, 4), True))


def test_what_no_exporter_takes_is_refused():
    class Odd(nn.Module):
        def forward(self, x):
            raise RuntimeError("no such luck")

    with pytest.raises(UnsupportedModelError, match=r"torch\.onnx\.export fails"):
        from_torch(Odd(), torch.zeros(1, 4))
