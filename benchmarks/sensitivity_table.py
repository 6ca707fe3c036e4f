"""Write reports/sensitivity.md: how sharp the sensitivity matrix is, how long it takes, and how large a network may be.

    [IDL_AUDIT_DATA=...] python -m benchmarks.sensitivity_table [--out DIR] [--threads N]

Small networks against other bounds; ResNet-20 and a network of ResNet-50's size against a backward pass of the original
network. Each part is a process of its own. What needs the data folder or eclipse-nn says so where it is missing;
`pip install -c constraints.txt -e '.[bench]'` brings eclipse-nn.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import idl_audit
from benchmarks.architectures import load_resnet20, mnist_mlp, resnet50
from benchmarks.measuring import ROOT, least_seconds, machine, peak_megabytes, run_part
from benchmarks.peers import DenseModel, Eclipse, chain_of_weights, product_of_norms, sampled_lower_bounds
from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import UnsupportedModelError

PACKAGES = ("idl-audit", "numpy", "scipy", "torch", "eclipse-nn", "cvxpy", "scs")
METHODS = ("best", "centre-radius", "half-step", "paper")
ECLIPSE_METHODS = ("ECLipsE", "ECLipsE_Fast")

MNIST = {"mnist_mlp_d3": 2, "mnist_mlp_d10": 9}
"""Networks of the data folder and how many hidden layers of 40 they have."""
SAMPLES = ("digits_mlp", "digits_conv", "digits_resnet")
NONNEGATIVE = "random nonnegative"

LOWER, ENTRYWISE = "lower bound of the gain, sampled", "lower bound of any S, sampled"
TEXTBOOK = "\\|C\\|(I - \\|A\\|)^-1\\|B\\| + \\|D\\| by numpy, dense"
PRODUCT = "product of the layers' norms"
FAST_BY_OUTPUTS = "eclipse-nn ECLipsE-Fast, output by output"


def ours_name(method: str) -> str:
    """Return the row of one of our methods."""
    return f"\\|\\|S\\|\\|_inf, {method}"


def eclipse_name(method: str) -> str:
    """Return the row of one of eclipse-nn's methods."""
    return f"eclipse-nn {method.replace('_', '-')}"


ECLIPSE_ROWS = (*map(eclipse_name, ECLIPSE_METHODS), FAST_BY_OUTPUTS)
UPPER = (*map(ours_name, METHODS), TEXTBOOK, PRODUCT, *ECLIPSE_ROWS)
ROWS = (LOWER, ENTRYWISE, *UPPER)


@dataclass(frozen=True)
class Cell:
    """One bound of one network; `note` says why there is no value, or what came with it."""

    value: float | None
    seconds: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Network:
    """A small network with points to sample at."""

    model: ImplicitModel
    points: FloatArray


# --- small networks ---------------------------------------------------------------------------------------------------


def mnist_network(data: Path, name: str) -> Network:
    """Return a trained MNIST network; its inputs are the normalised ones, its points 1,000 training images."""
    module = mnist_mlp(MNIST[name])
    module.load_state_dict(torch.load(data / f"models/{name}.pt", map_location="cpu", weights_only=True))
    with np.load(data / "mnist.npz") as archive:
        images = archive["train_images"][:1000].reshape(1000, -1) / 255
    return Network(idl_audit.from_torch(module, torch.zeros(1, 1, 28, 28)), (images - 0.1307) / 0.3081)


def sample_network(name: str) -> Network:
    """Return one of the sample networks with 200 of its images."""
    path = ROOT / "sample_models" / f"{name}.onnx"
    with np.load(path.with_suffix(".npz")) as archive:
        return Network(idl_audit.load(path), archive["inputs"][:200].reshape(200, -1).astype(np.float64))


def nonnegative_network() -> Network:
    """Return 100-80-80-80-10 with nonnegative weights and biases: on u > 0 it is linear, so S is the exact gain."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for n_in, n_out in ((100, 80), (80, 80), (80, 80), (80, 10)):
        layer = nn.Linear(n_in, n_out)
        nn.init.uniform_(layer.weight, 0, 2 / n_in)
        nn.init.uniform_(layer.bias, 0, 1)
        layers += [layer, nn.ReLU()]
    model = idl_audit.from_torch(nn.Sequential(*layers[:-1]), torch.zeros(1, 100))
    return Network(model, np.random.default_rng(0).random((200, 100)))


def compare(network: Network, *, rounds: int = 20, steps: int = 40, eclipse: bool = True) -> dict[str, Cell]:
    """Return every bound of one network with its time, all measured in turn; with no rounds none is timed.

    `steps` is how long the climb for lower bounds lasts.
    """
    model = network.model
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((len(network.points), model.n_inputs))
    lower = sampled_lower_bounds(model, np.vstack([network.points, noise]), rng, steps=steps)
    dense = DenseModel.of(model)
    runs: dict[str, Callable[[], float]] = {PRODUCT: lambda: product_of_norms(model)}
    for method in METHODS:
        runs[ours_name(method)] = lambda method=method: _norm(sensitivity_matrix(model, method))
    runs[TEXTBOOK] = lambda: _norm(dense.sensitivity())
    cells = {LOWER: Cell(lower.gain), ENTRYWISE: Cell(lower.entrywise)}
    values: dict[str, float] = {}
    for name, run in runs.items():
        try:
            values[name] = run()
        except UnsupportedModelError:
            cells[name] = Cell(None, note="does not apply")
    notes: dict[str, str] = {}
    weights = chain_of_weights(model) if eclipse else None
    if weights is None or not Eclipse.is_installed():
        why = "takes fully connected ReLU networks only" if weights is None else "not installed"
        cells |= {name: Cell(None, note=why) for name in ECLIPSE_ROWS}
    else:
        peer = Eclipse(weights)
        for name, run in _eclipse_runs(peer).items():
            runs[name], values[name] = run, run()
            if "Falling back" in peer.said:
                notes[name] = "its SDP ended at a boundary; this is its fallback, ECLipsE-Fast"
    seconds = least_seconds({name: runs[name] for name in values}, rounds=rounds, budget=10.0) if rounds else {}
    for name, value in values.items():
        cells[name] = Cell(value, seconds.get(name), notes.get(name, ""))
    return checked(cells)


def _eclipse_runs(peer: Eclipse) -> dict[str, Callable[[], float]]:
    whole = {eclipse_name(method): lambda method=method: peer.bound(method) for method in ECLIPSE_METHODS}
    return {**whole, FAST_BY_OUTPUTS: lambda: peer.bound_by_outputs("ECLipsE_Fast")}


def _norm(matrix: FloatArray) -> float:
    return float(matrix.sum(axis=1).max())


def checked(cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """Return the cells; a number of eclipse-nn that is no bound is marked as such, one of ours raises AssertionError.

    A matrix bounds every entry, and is held against the second lower bound; a single number against the first.
    """
    result = dict(cells)
    for name in UPPER:
        value = cells[name].value
        if value is None:
            continue
        least = cells[ENTRYWISE if name.startswith("\\|") else LOWER].value
        if least is not None and value >= least * (1 - 1e-9):
            continue
        if name not in ECLIPSE_ROWS:
            raise AssertionError(f"{name} gives {value}, below the sampled lower bound {least}")
        what = "no bound: below the sampled lower bound" if math.isfinite(value) else "no number"
        result[name] = Cell(None, note=what)
    return result


def small_part() -> dict[str, Any]:
    """Compare all small networks that are there."""
    found: dict[str, Any] = {}
    data = os.environ.get("IDL_AUDIT_DATA")
    for name in MNIST:
        found[name] = _described(mnist_network(Path(data), name)) if data else {"missing": NO_DATA}
    for name in SAMPLES:
        found[name] = _described(sample_network(name))
    found[NONNEGATIVE] = _described(nonnegative_network())
    return found


NO_DATA = "needs the data folder: set IDL_AUDIT_DATA"


def _described(network: Network) -> dict[str, Any]:
    model = network.model
    cells = {name: asdict(cell) for name, cell in compare(network).items()}
    return {"inputs": model.n_inputs, "states": model.n_states, "outputs": model.n_outputs, "cells": cells}


# --- deep networks ----------------------------------------------------------------------------------------------------


def deep_part(module: nn.Module, shape: tuple[int, ...], *, rounds: int) -> dict[str, Any]:
    """Measure ten rows of the paper's S against a float64 pass of the original network on a batch of 10.

    Row i of the batch's backward pass is the gradient of output i: both sides give ten rows over all inputs.
    """
    parameters = sum(parameter.numel() for parameter in module.parameters())
    before = peak_megabytes()
    start = time.perf_counter()
    model = idl_audit.from_torch(module, torch.zeros(1, *shape))
    import_seconds = time.perf_counter() - start
    after_import = peak_megabytes()
    functionals = None if model.n_outputs == 10 else np.eye(10, model.n_outputs)

    def ours() -> FloatArray:
        return sensitivity_matrix(model, "paper", functionals=functionals)

    start = time.perf_counter()
    matrix = ours()
    first = time.perf_counter() - start
    after_rows = peak_megabytes()
    double = module.double()
    for parameter in double.parameters():
        parameter.requires_grad_(False)
    inputs = torch.rand(10, *shape, dtype=torch.float64).requires_grad_()
    chosen = torch.eye(10, model.n_outputs, dtype=torch.float64)
    outputs: list[Tensor] = []

    def forward() -> None:
        outputs[:] = [double(inputs)]

    def backward() -> None:
        torch.autograd.grad(outputs[0], inputs, chosen)

    both: list[float] = []
    seconds: dict[str, list[float]] = {"rows": [], "forward": [], "backward": []}
    for _ in range(rounds):
        for name, run in (("rows", ours), ("forward", forward), ("backward", backward)):
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
        outputs.clear()
        both.append(seconds["forward"][-1] + seconds["backward"][-1])
    return {
        "parameters": parameters,
        "states": model.n_states,
        "blocks": len(model.blocks),
        "inputs": model.n_inputs,
        "outputs": model.n_outputs,
        "norm_inf": _norm(matrix),
        "import_seconds": import_seconds,
        "first_seconds": first,
        "rows_seconds": min(seconds["rows"]),
        "forward_seconds": min(seconds["forward"]),
        "backward_seconds": min(seconds["backward"]),
        "both_seconds": min(both),
        "rounds": rounds,
        "before_mb": before,
        "import_mb": after_import,
        "rows_mb": after_rows,
        "assembled": "matrices" in vars(model),
    }


def resnet20_part() -> dict[str, Any]:
    """Measure ResNet-20 with its trained weights."""
    data = os.environ.get("IDL_AUDIT_DATA")
    if not data:
        return {"missing": NO_DATA}
    module = load_resnet20(str(Path(data) / "models/resnet20_cifar10.th"))
    return deep_part(module, (3, 32, 32), rounds=15)


def resnet50_part() -> dict[str, Any]:
    """Measure a network of ResNet-50's size with random weights."""
    return deep_part(resnet50(), (3, 224, 224), rounds=4)


PARTS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "small": small_part,
    "resnet20": resnet20_part,
    "resnet50": resnet50_part,
}


# --- the report -------------------------------------------------------------------------------------------------------


def shown(value: float) -> str:
    """Return four digits, in the form that reads best."""
    if value >= 1e6 or (value and value < 1e-3):
        return f"{value:.3e}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _cell_text(cell: Cell) -> str:
    if cell.value is None:
        return cell.note
    parts = [shown(cell.value)]
    if cell.seconds is not None:
        parts.append(f"{cell.seconds:.2g} s")
    return "; ".join(parts) + (" \\*" if cell.note else "")


def small_section(found: Mapping[str, Any]) -> list[str]:
    """Return the table of the small networks."""
    if "missing" in found:
        return ["## Small networks", "", found["missing"] + "."]
    there = {name: part for name, part in found.items() if "missing" not in part}
    columns = {name: {row: Cell(**cell) for row, cell in part["cells"].items()} for name, part in there.items()}
    lines = [
        "## Small networks: how sharp, how fast",
        "",
        "Upper bounds of max over i of |y_i - y'_i| / ||u - u'||_inf, and seconds. An S bounds every entry by itself, "
        "|y - y'| <= S |u - u'|; the product of norms and eclipse-nn give one number for the whole network. eclipse-nn "
        "bounds the l2 gain; its number here is multiplied by sqrt(p), what that bound says about the infinity norm. "
        "Its numbers are those of floating point (an SDP solver, eigenvalues), ours are rounded upward. "
        "Lower bounds: Jacobians and pairs at data and random points, then a random climb; the gain may not be below "
        "the first, the norm of no valid S below the second. The dense solve gets A, B, C, D for nothing. On the "
        "nonnegative network S is the exact gain.",
        "",
        "| bound | " + " | ".join(there) + " |",
        "|---|" + "---:|" * len(there),
        "| inputs, states, outputs | "
        + " | ".join(f"{part['inputs']:,}, {part['states']:,}, {part['outputs']}" for part in there.values())
        + " |",
    ]
    lines += [f"| {row} | " + " | ".join(_cell_text(cells[row]) for cells in columns.values()) + " |" for row in ROWS]
    notes = sorted({cell.note for cells in columns.values() for cell in cells.values() if cell.note and cell.value})
    lines += ["", *(f"\\* {note}." for note in notes), ""] if notes else [""]
    lines += [f"{name}: {part['missing']}." for name, part in found.items() if "missing" in part]
    return lines + _verdict(columns)


def _verdict(columns: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """Say in words where one number of eclipse-nn is smaller than the norm of the best S, and where it is larger."""
    smaller, larger = [], []
    for name, cells in columns.items():
        values = [cells[row].value for row in ECLIPSE_ROWS]
        known = [value for value in values if value is not None]
        best = cells[ours_name("best")].value
        if not known or best is None:
            continue
        ratio = best / min(known)
        (smaller if ratio > 1 else larger).append(f"{name} ({shown(max(ratio, 1 / ratio))} times)")
    lines = []
    if smaller:
        lines.append(f"eclipse-nn's number is smaller than the norm of the best S on {', '.join(smaller)}.")
    if larger:
        lines.append(f"The norm of the best S is smaller than eclipse-nn's number on {', '.join(larger)}.")
    return lines


def deep_section(title: str, what: str, found: Mapping[str, Any], limits: Mapping[str, float]) -> list[str]:
    """Return the section of one deep network; limits: largest ratio to a backward pass, largest memory in GB."""
    if "missing" in found:
        return [f"## {title}", "", f"{found['missing']}."]
    ratio, whole = (found["rows_seconds"] / found[key] for key in ("backward_seconds", "both_seconds"))
    dense = found["states"] ** 2 * 8 / 1e9
    lines = [
        f"## {title}",
        "",
        f"{what} {found['parameters']:,} parameters, {found['states']:,} states in {found['blocks']} blocks. "
        f"A {'was' if found['assembled'] else 'was not'} assembled (dense it would be {dense:,.0f} GB). "
        f"||S||_inf of these rows: {shown(found['norm_inf'])}. Least of {found['rounds']} runs in turn; the passes are "
        "the original torch network's, in float64, on a batch of 10, gradients of the input alone.",
        "",
        "| measured | seconds | of a backward pass | of forward and backward |",
        "|---|---:|---:|---:|",
        f"| ten rows of S, {found['inputs']:,} inputs each | {found['rows_seconds']:.3g} | {ratio:.2f} | {whole:.2f} |",
        f"| the same, first time (makes \\|W\\|) | {found['first_seconds']:.3g} | "
        f"{found['first_seconds'] / found['backward_seconds']:.2f} | "
        f"{found['first_seconds'] / found['both_seconds']:.2f} |",
        f"| backward pass | {found['backward_seconds']:.3g} | 1 | |",
        f"| forward pass | {found['forward_seconds']:.3g} | | |",
        f"| forward and backward pass | {found['both_seconds']:.3g} | | 1 |",
        f"| `from_torch` (export, conversion, check on 20 inputs) | {found['import_seconds']:.3g} | | |",
        "",
        "| peak memory of the process | MB |",
        "|---|---:|",
        f"| before the import: interpreter, torch and the network | {found['before_mb']:,.0f} |",
        f"| after `from_torch` | {found['import_mb']:,.0f} |",
        f"| after the ten rows of S | {found['rows_mb']:,.0f} |",
        "",
    ]
    checks = []
    if "ratio" in limits:
        checks.append(f"at most {limits['ratio']:g} backward passes: {_met(ratio <= limits['ratio'])}")
    checks.append(f"within {limits['gigabytes']:g} GB: {_met(found['rows_mb'] <= 1000 * limits['gigabytes'])}")
    return [*lines, f"Asked for: {'; '.join(checks)}."]


def _met(fulfilled: bool) -> str:
    return "met" if fulfilled else "not met"


def report(found: Mapping[str, Mapping[str, Any]], threads: int) -> str:
    """Return the report as markdown."""
    lines = [
        "# Sensitivity",
        "",
        f"Made by `python -m benchmarks.sensitivity_table` on {machine(threads, PACKAGES)}. "
        "Times are the least of several runs, ours and the others' in turn, same process, same threads.",
        "",
        *small_section(found["small"]),
        "",
        *deep_section(
            "ResNet-20: all of S, 10 x 3,072",
            "Trained on CIFAR-10, from its state dict.",
            found["resnet20"],
            {"ratio": 4, "gigabytes": 1},
        ),
        "",
        *deep_section(
            "ResNet-50's size: ten rows of S, 10 x 150,528",
            "Random weights, 224x224 images, 1,000 outputs, max-pool at the stem.",
            found["resnet50"],
            {"gigabytes": 24},
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the report, or run one part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--part", choices=sorted(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part](), allow_nan=False))
        return
    found = {part: run_part("benchmarks.sensitivity_table", part, options.threads) for part in PARTS}
    (options.out / "sensitivity.md").write_text(report(found, options.threads), encoding="utf-8")


if __name__ == "__main__":
    main()
