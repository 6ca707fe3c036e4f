"""Write reports/import.md: what is imported, how well it agrees with the original network, and what is refused.

    IDL_AUDIT_DATA=... python -m benchmarks.import_table [--out DIR]

Every network of the data folder's vnncomp/, onnx_import/, onnx_products/ and onnx_refuse/, networks freshly exported
by both of torch's exporters, and ResNet-20 from its state dict; then small classifiers of about 70 kinds
(`torch_kinds`) by both exporters at their usual and oldest operator sets, audited at a small radius.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn

import idl_audit
from benchmarks.architectures import load_resnet20
from benchmarks.torch_kinds import KINDS, Shapes, made
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.points import random_inputs
from idl_audit.commands.shared.subject import check_agreement, open_subject
from idl_audit.graph.torch_options import TorchOptions
from idl_audit.values.errors import IdlAuditError

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Imported:
    """One network that was imported."""

    name: str
    opset: int | None
    states: int
    blocks: int
    max_rel_error: float
    seconds: float


@dataclass(frozen=True)
class Refused:
    """One network that was refused, with the sentence."""

    name: str
    sentence: str


def import_file(path: Path, name: str, options: ModelOptions | None = None) -> Imported | Refused:
    """Import one file and compare it with the original on 20 random inputs."""
    start = time.monotonic()
    try:
        subject = open_subject(path, options)
        check = check_agreement(subject, random_inputs(subject.model.n_inputs))
    except IdlAuditError as error:
        return Refused(name, str(error).removeprefix(f"{path}: "))
    seconds = time.monotonic() - start
    model = subject.model
    return Imported(name, subject.info.opset, model.n_states, len(model.blocks), check.max_rel_error, seconds)


def fresh_networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Return untrained networks with an input shape each: what today's users export."""
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10), nn.Softmax(dim=1))
    lenet = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 84),
        nn.GELU(),
        nn.Linear(84, 10),
    )
    autoencoder = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1),
        nn.Hardswish(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(4, 1, 3, padding=1),
        nn.Sigmoid(),
    )
    conv1d = nn.Sequential(
        nn.Conv1d(3, 8, 5, padding=2, dilation=1),
        nn.ELU(),
        nn.Conv1d(8, 8, 3, groups=4, stride=2),
        nn.Mish(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    return {
        "MLP with softmax": (mlp, (1, 64)),
        "LeNet with pooling": (lenet, (1, 1, 28, 28)),
        "autoencoder": (autoencoder, (1, 1, 16, 16)),
        "1-D conv net": (conv1d, (1, 3, 40)),
    }


@contextlib.contextmanager
def silently() -> Iterator[None]:
    """Do without what exporters print and warn of."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def export(
    module: nn.Module, shape: tuple[int, ...] | Shapes, path: Path, *, dynamo: bool, opset: int | None = None
) -> None:
    """Export as users do, silently."""
    shapes = [shape] if all(isinstance(n, int) for n in shape) else shape
    with silently():
        zeros = tuple(torch.zeros(one) for one in shapes)
        torch.onnx.export(module.eval(), zeros, str(path), dynamo=dynamo, opset_version=opset)


EXPORTS: Final = {
    "dynamo": (True, None),
    "dynamo, opset 18": (True, 18),
    "TorchScript": (False, None),
    "TorchScript, opset 9": (False, 9),
}
"""Exporter -> (whether it is dynamo's, its operator set)."""
RADIUS: Final = 1e-3
SECONDS: Final = 60.0


@dataclass(frozen=True)
class Kind:
    """What became of one kind of network."""

    name: str
    found: dict[str, Imported | Refused | None]
    """Exporter -> what was imported; None where torch does not export it."""
    verdict: str
    """On one random sample at the radius, of the first that was imported."""
    seconds: float


def import_kind(name: str, scratch: Path) -> Kind:
    """Export a kind by every exporter, import what comes, and audit the first that is read."""
    module, shapes = made(name)
    found: dict[str, Imported | Refused | None] = {}
    verdict, seconds = "-", 0.0
    for exporter, (dynamo, opset) in EXPORTS.items():
        path = scratch / "kind.onnx"
        path.unlink(missing_ok=True)
        try:
            export(module, shapes, path, dynamo=dynamo, opset=opset)
        except Exception:  # an exporter's own errors are of many kinds, and none is ours
            found[exporter] = None
            continue
        found[exporter] = import_file(path, name)
        if verdict == "-" and isinstance(found[exporter], Imported):
            start = time.monotonic()
            verdict, seconds = audited(path), time.monotonic() - start
    return Kind(name, found, verdict, seconds)


def audited(path: Path) -> str:
    """Return the verdict on one random sample with its own class as the label."""
    try:
        subject = open_subject(path)
        x = random_inputs(subject.model.n_inputs)[:1].astype(np.float32)
        label = subject.original(x).argmax(axis=1)
        (sample,) = idl_audit.certify(path, x, label, eps=RADIUS, time_limit=SECONDS).samples
    except IdlAuditError as error:
        return str(error).removeprefix(f"{path}: ")
    return f"{sample.verdict}, {sample.method or sample.reason}"


def rows(data: Path, scratch: Path) -> Iterator[Imported | Refused]:
    """Import everything, one after the other."""
    for folder in ("vnncomp/*", "onnx_import", "onnx_products", "onnx_refuse"):
        for path in sorted(data.glob(f"{folder}/*.onnx")):
            yield import_file(path, f"{path.parent.name}/{path.stem}")
    fresh = fresh_networks()
    fresh["ResNet-20"] = (load_resnet20(str(data / "models/resnet20_cifar10.th")), (1, 3, 32, 32))
    for name, (module, shape) in fresh.items():
        for dynamo in (True, False):
            path = scratch / "fresh.onnx"
            export(module, shape, path, dynamo=dynamo)
            yield import_file(path, f"{name}, exported with dynamo={dynamo}")
    torch_options = TorchOptions("benchmarks.architectures:resnet20", (1, 3, 32, 32), True)
    state_dict = data / "models/resnet20_cifar10.th"
    yield import_file(state_dict, "ResNet-20 from its state dict", ModelOptions(torch=torch_options))


def kinds_table(kinds: list[Kind]) -> list[str]:
    """Return the lines about kinds of networks."""
    read = sum(any(isinstance(one, Imported) for one in kind.found.values()) for kind in kinds)
    certified = sum(kind.verdict.startswith("certified") for kind in kinds)
    lines = [
        "",
        "## Kinds of layers",
        "",
        f"Small classifiers with random weights (`benchmarks/torch_kinds.py`): {read} of {len(kinds)} kinds are read, "
        f"{certified} certified at {RADIUS:g} around one random sample, at most {SECONDS:g} s. A number is the largest "
        f"relative error; -: torch {torch.__version__} does not export it.",
        "",
        f"| kind | {' | '.join(EXPORTS)} | verdict | seconds |",
        f"|---|{'---:|' * len(EXPORTS)}---|---:|",
    ]
    refused = []
    for kind in kinds:
        cells = []
        for exporter in EXPORTS:
            one = kind.found.get(exporter)
            if isinstance(one, Refused):
                refused.append(f"| {kind.name}, {exporter} | {one.sentence.replace('|', ' ')} |")
            cells.append("-" if one is None else "refused" if isinstance(one, Refused) else f"{one.max_rel_error:.1e}")
        lines.append(f"| {kind.name} | {' | '.join(cells)} | {kind.verdict.replace('|', ' ')} | {kind.seconds:.2f} |")
    return [*lines, "", "| refused | the sentence |", "|---|---|", *refused] if refused else lines


def table(found: list[Imported | Refused], kinds: list[Kind]) -> str:
    """Return the report as markdown."""
    imported = [row for row in found if isinstance(row, Imported)]
    refused = [row for row in found if isinstance(row, Refused)]
    worst = max(row.max_rel_error for row in imported)
    lines = [
        "# Import",
        "",
        "Made by `python -m benchmarks.import_table`. Error: largest difference of an output relative to max|y|, "
        "on 20 random inputs, half of them normal, half even on [0, 1]. Seconds: reading, converting and comparing.",
        "",
        f"{len(imported)} networks imported, largest error {worst:.1e}; {len(refused)} refused.",
        "",
        "| network | opset | states | blocks | error | seconds |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in imported:
        figures = (row.name, str(row.opset), f"{row.states:,}", str(row.blocks))
        lines.append(f"| {' | '.join(figures)} | {row.max_rel_error:.1e} | {row.seconds:.2f} |")
    lines += ["", "| refused | the sentence |", "|---|---|"]
    lines += [f"| {row.name} | {row.sentence.replace('|', ' ')} |" for row in refused]
    return "\n".join([*lines, *kinds_table(kinds)]) + "\n"


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as scratch:
        found = list(rows(Path(os.environ["IDL_AUDIT_DATA"]), Path(scratch)))
        kinds = [import_kind(name, Path(scratch)) for name in KINDS]
    (out / "import.md").write_text(table(found, kinds), encoding="utf-8")


if __name__ == "__main__":
    main()
