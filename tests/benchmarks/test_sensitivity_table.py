"""The benchmark of the sensitivity matrix: what it compares with is right, and its report says what it measured."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import idl_audit
from benchmarks import measuring, sensitivity_table
from benchmarks.architectures import BottleneckNet, random_batch_norms
from benchmarks.measuring import least_seconds, run_part
from benchmarks.peers import (
    DenseModel,
    Eclipse,
    chain_of_weights,
    jacobians,
    product_of_norms,
    sampled_lower_bounds,
)
from benchmarks.sensitivity_table import (
    ENTRYWISE,
    LOWER,
    MNIST,
    PRODUCT,
    SAMPLES,
    TEXTBOOK,
    UPPER,
    Cell,
    Network,
    checked,
    compare,
    deep_section,
    mnist_network,
    nonnegative_network,
    ours_name,
    sample_network,
)
from idl_audit.measure.sensitivity import sensitivity_matrix

REPORT = Path(__file__).resolve().parents[2] / "reports/sensitivity.md"

needs_data = pytest.mark.skipif("IDL_AUDIT_DATA" not in os.environ, reason="IDL_AUDIT_DATA is not set")


def reported():
    """Read the first table of the report: network -> row -> text."""
    lines = [line for line in REPORT.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    table = [[cell.strip() for cell in line.strip("|").replace("\\|", "\0").split("|")] for line in lines]
    end = next(k for k, row in enumerate(table) if k and len(row) != len(table[0]))
    header, *rows = table[:end]
    return {name: {row[0].replace("\0", "\\|"): row[k] for row in rows if row[0]} for k, name in enumerate(header) if k}


def number(text):
    return float(text.partition(";")[0].replace(",", ""))


def quick(network):
    """Compare without times, without eclipse-nn, sampling at five points only."""
    return compare(Network(network.model, network.points[:5]), rounds=0, steps=0, eclipse=False)


def assert_reported(name, network):
    """What does not depend on chance or machine is in the report as it is computed now."""
    cells = quick(network)
    for row in (*(row for row in UPPER if row.startswith("\\|")), PRODUCT):
        text = reported()[name][row]
        if cells[row].value is None:
            assert text == cells[row].note, row
        else:
            assert number(text) == pytest.approx(cells[row].value, rel=2e-3), row


@pytest.mark.parametrize("name", SAMPLES)
def test_the_report_has_the_bounds_of_the_sample_networks(name):
    assert_reported(name, sample_network(name))


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("name", MNIST)
def test_the_report_has_the_bounds_of_the_mnist_networks(name):
    assert_reported(name, mnist_network(Path(os.environ["IDL_AUDIT_DATA"]), name))


def test_the_report_meets_what_was_asked_for():
    text = REPORT.read_text(encoding="utf-8")
    assert text.count("Asked for: ") == 2
    assert "not met" not in text
    assert "A was not assembled" in text


def test_on_a_nonnegative_network_every_way_gives_the_exact_gain():
    network = nonnegative_network()
    cells = quick(network)
    for row in (ENTRYWISE, *(row for row in UPPER if row.startswith("\\|"))):
        assert cells[row].value == pytest.approx(cells[LOWER].value, rel=1e-9), row
    assert cells[PRODUCT].value > cells[LOWER].value


def test_the_product_of_norms_of_a_chain_is_the_product():
    torch.manual_seed(0)
    first, second = nn.Linear(5, 4), nn.Linear(4, 3)
    model = idl_audit.from_torch(nn.Sequential(first, nn.ReLU(), second), torch.zeros(1, 5))
    norms = [float(layer.weight.detach().double().abs().sum(dim=1).max()) for layer in (first, second)]
    assert product_of_norms(model) == pytest.approx(norms[0] * norms[1], rel=1e-12)


def test_a_shortcut_adds_its_norm():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return torch.relu(self.second(torch.relu(self.first(x))) + x)

    module = Residual()
    model = idl_audit.from_torch(module, torch.zeros(1, 4))
    norms = [float(layer.weight.detach().double().abs().sum(dim=1).max()) for layer in (module.first, module.second)]
    assert product_of_norms(model) == pytest.approx(1 + norms[0] * norms[1], rel=1e-12)


def test_jacobians_are_those_of_torch():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    model = idl_audit.from_torch(module, torch.zeros(1, 6))
    point = torch.randn(6, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(module.double(), point)
    np.testing.assert_allclose(jacobians(model, point.numpy()[None])[0], expected.numpy(), rtol=1e-12)


def test_the_climb_finds_more_than_the_points_alone():
    model = sample_network("digits_mlp").model
    points = np.random.default_rng(1).random((20, 64))
    start = sampled_lower_bounds(model, points, np.random.default_rng(0), steps=0)
    climbed = sampled_lower_bounds(model, points, np.random.default_rng(0), steps=5)
    assert climbed.gain > start.gain
    assert climbed.entrywise > start.entrywise
    assert start.entrywise >= start.gain


def test_only_chains_of_dense_relu_layers_have_weights_for_eclipse():
    weights = chain_of_weights(sample_network("digits_mlp").model)
    assert [matrix.shape for matrix in weights] == [(48, 64), (32, 48), (10, 32)]
    assert chain_of_weights(sample_network("digits_conv").model) is None
    assert chain_of_weights(sample_network("digits_resnet").model) is None
    smooth = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))
    assert chain_of_weights(idl_audit.from_torch(smooth, torch.zeros(1, 3))) is None


@pytest.mark.slow
def test_a_bottleneck_network_has_the_textbook_matrix():
    torch.manual_seed(0)
    module = BottleneckNet((1, 1), width=2, n_outputs=12)
    random_batch_norms(module)
    model = idl_audit.from_torch(module, torch.zeros(1, 3, 16, 16))
    expected = DenseModel.of(model).sensitivity()
    np.testing.assert_allclose(sensitivity_matrix(model), expected, rtol=1e-10)
    rows = sensitivity_matrix(model, functionals=np.eye(10, 12))
    np.testing.assert_allclose(rows, expected[:10], rtol=1e-10)
    points = np.random.default_rng(0).standard_normal((5, 768))
    assert (np.abs(jacobians(model, points)) <= expected * (1 + 1e-9)).all()


def upper_cells(value):
    return {row: Cell(value) for row in UPPER}


@pytest.mark.parametrize("row", [ours_name("paper"), TEXTBOOK, PRODUCT])
def test_a_bound_of_ours_below_the_sampled_one_stops_the_table(row):
    cells = {LOWER: Cell(1.0), ENTRYWISE: Cell(2.0), **upper_cells(2.0)}
    assert checked(cells) == cells
    with pytest.raises(AssertionError, match="below the sampled lower bound"):
        checked({**cells, row: Cell(0.99)})


@pytest.mark.parametrize(("value", "why"), [(0.5, "no bound"), (float("nan"), "no number")])
def test_a_number_of_eclipse_that_is_no_bound_is_told(value, why):
    row = "eclipse-nn ECLipsE"
    cells = {LOWER: Cell(1.0), ENTRYWISE: Cell(2.0), **upper_cells(2.0), row: Cell(value)}
    found = checked(cells)[row]
    assert found.value is None
    assert why in found.note


def test_a_missing_peer_is_told(monkeypatch):
    monkeypatch.setattr(Eclipse, "is_installed", staticmethod(lambda: False))
    cells = compare(sample_network("digits_mlp"), rounds=0, steps=0)
    assert cells["eclipse-nn ECLipsE"] == Cell(None, note="not installed")


def test_missing_data_is_told(monkeypatch):
    monkeypatch.delenv("IDL_AUDIT_DATA", raising=False)
    found = sensitivity_table.resnet20_part()
    assert "IDL_AUDIT_DATA" in "\n".join(deep_section("ResNet-20", "", found, {"gigabytes": 1}))


def test_contestants_run_in_turn_until_their_budget_is_used():
    runs = []
    seconds = least_seconds({"a": lambda: runs.append("a"), "b": lambda: runs.append("b")}, rounds=3)
    assert runs == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"}
    runs.clear()
    least_seconds({"a": lambda: runs.append("a")}, rounds=5, budget=0.0)
    assert runs == ["a"] * 2


def test_a_part_that_the_system_ends_is_told_in_words(monkeypatch):
    killed = subprocess.CompletedProcess([], -signal.SIGKILL, stdout="")
    monkeypatch.setattr(measuring.subprocess, "run", lambda *args, **options: killed)
    assert "too little memory" in run_part("module", "part", 1)["missing"]
    broken = subprocess.CompletedProcess([], 1, stdout="")
    monkeypatch.setattr(measuring.subprocess, "run", lambda *args, **options: broken)
    with pytest.raises(RuntimeError, match="part failed"):
        run_part("module", "part", 1)
