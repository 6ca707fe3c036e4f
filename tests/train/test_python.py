"""Training from Python: the options of the commands, progress, and losses for modules in other people's loops."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch

import idl_audit
from idl_audit import losses
from idl_audit.values.errors import UnsupportedModelError
from tests.shared.blobs import blobs, distracted


def test_harden_and_train_are_the_commands(tmp_path: Path) -> None:
    points, labels = blobs(200)
    np.savez(tmp_path / "data.npz", inputs=points, labels=labels)
    distracted(tmp_path / "model.onnx")
    told: list[tuple[str, int]] = []
    report = idl_audit.harden(
        tmp_path / "model.onnx",
        tmp_path / "data.npz",
        eps=0.1,
        bounds=(0, 1),
        minutes=0.004,
        keep_clean="5%",
        output=tmp_path / "hard.onnx",
        heard=lambda name, step: told.append((name, step.step)),
    )
    assert report.hardening is not None
    assert {name for name, _ in told} == {one.name for one in report.hardening.front if "of the way" not in one.name}
    assert (tmp_path / "hard.onnx").exists() == (report.hardening.chosen is not None)
    steps: list[int] = []
    made = idl_audit.train(
        tmp_path / "data.npz",
        output=tmp_path / "made.npz",
        states=3,
        minutes=0.001,
        well_posed="monotone",
        heard=lambda step: steps.append(step.step),
    )
    assert made.training is not None
    assert made.training.well_posed == "monotone"
    assert steps == list(range(1, len(steps) + 1))
    assert idl_audit.load(tmp_path / "made.npz").is_well_posed
    with pytest.raises(TypeError, match="unexpected keyword argument 'epsilon'"):
        idl_audit.harden(tmp_path / "model.onnx", tmp_path / "data.npz", epsilon=1)


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), torch.nn.Linear(6, 3)
    return torch.nn.Sequential(*layers)


def test_losses_follow_the_parameters_of_the_module() -> None:
    module, chance = net(), torch.Generator().manual_seed(0)
    x, y = torch.rand(8, 4, generator=chance), torch.arange(8) % 3
    module.eval()
    plain = torch.nn.functional.cross_entropy(module(x), y)
    assert float(losses.ibp(module, x, y, 0.0).detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    wide = [float(losses.ibp(module, x, y, eps, bounds=(0, 1)).detach()) for eps in (0.0, 0.1, 0.3, 5.0, 9.0)]
    assert wide == sorted(wide)
    assert wide[-1] == wide[-2]  # the valid range ends the boxes
    attacked = float(losses.adversarial(module, x, y, 0.3, bounds=(0, 1)).detach())
    assert float(plain.detach()) < attacked <= wide[2] + 1e-6
    all_of_it = float(losses.mtl_ibp(module, x, y, 0.3, 1.0, bounds=(0, 1)).detach())
    assert all_of_it == pytest.approx(wide[2])
    assert float(losses.sabr(module, x, y, 0.3, 1.0, bounds=(0, 1)).detach()) == pytest.approx(wide[2], rel=1e-5)
    for _ in range(2):  # the same graph, whatever the parameters are by then
        module.zero_grad()
        (losses.mtl_ibp(module, x, y, 0.1) + losses.norm_of_S(module, x)).backward()  # type: ignore[no-untyped-call]
        before = float(losses.norm_of_S(module, x).detach())
        with torch.no_grad():
            for parameter in module.parameters():
                assert parameter.grad is not None
                parameter -= 0.01 * parameter.grad
        assert float(losses.norm_of_S(module, x).detach()) < before
    assert float(losses.rho(module, x).detach()) >= float(losses.norm_of_S(module, x).detach())


def test_what_cannot_be_followed_is_refused_and_modes_stay() -> None:
    class Sine(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sin(x)

    with pytest.raises(UnsupportedModelError):
        losses.ibp(torch.nn.Sequential(torch.nn.Linear(4, 3), Sine()), torch.rand(2, 4), torch.tensor([0, 1]), 0.1)
    module = net().train()
    losses.norm_of_S(module, torch.rand(2, 4))
    assert module.training


def test_the_example_of_the_losses_runs() -> None:
    found = doctest.testmod(losses, raise_on_error=False)
    assert found.attempted > 3
    assert found.failed == 0
