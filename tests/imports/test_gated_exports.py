"""What PyTorch's exporters write for recurrent layers, attention and gates is read, and agrees with onnxruntime."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from idl_audit.commands.shared.points import random_inputs
from idl_audit.commands.shared.subject import check_agreement, open_subject


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.layer(x)[0][:, -1])


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(4, 5), nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.head(state[0])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(12, 3)
        self.register_buffer("mask", torch.triu(torch.full((3, 3), float("-inf")), 1))

    def forward(self, x: Any) -> Any:
        return self.head(self.layer(x, x, x, need_weights=False, attn_mask=self.mask)[0].flatten(1))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.gate, self.head = nn.Linear(12, 8), nn.GLU(), nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.gate(self.inner(x.flatten(1))))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "an LSTM of two layers": lambda: Recurrent(nn.LSTM(4, 5, num_layers=2, batch_first=True), 5),
    "a GRU both ways": lambda: Recurrent(nn.GRU(4, 5, batch_first=True, bidirectional=True), 10),
    "cells in a loop": Cells,
    "causal attention": Attention,
    "a gated unit": Gated,
}


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("what", sorted(MODULES))
def test_exported_modules_are_read(tmp_path: Path, what: str, dynamo: bool) -> None:
    torch.manual_seed(0)
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = MODULES[what]().eval()
        torch.onnx.export(module, (torch.zeros(1, 3, 4),), str(path), dynamo=dynamo, verbose=False)
    subject = open_subject(path)
    assert check_agreement(subject, random_inputs(subject.model.n_inputs)).max_rel_error < 1e-5
