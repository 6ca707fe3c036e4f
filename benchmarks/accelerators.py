"""Write reports/accelerators.md: bounds, slopes and branching on an accelerator beside the CPU, in one run.

    python -m benchmarks.accelerators --device cuda [--rounds 3] [--small] [--out DIR]

The networks have random weights and are made here: five layers of 1,024 ReLUs on 784 inputs, and four convolutions of
3 x 3 on 3 x 32 x 32 inputs with a dense layer. Each is bounded by backward lines (float64, proved), its slopes are
raised by first-order ascent (float32, with proofs), it is attacked by descent, and a query is branched on within a
budget of leaves. Contestants take turns; told is the least time of each - processor time on the CPU, wall time on a
device, for which the CPU waits - and whether both came to the same verdict by a proof that the CPU accepts. Where
auto_LiRPA is installed, its bounds on the same device stand beside ours; they are not rounded outward. Without an
accelerator the report has the column of the CPU, and says that none was at hand.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measuring import ROOT, machine
from idl_audit.api import load
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.chain import Chain
from idl_audit.proof.check import check
from idl_audit.proof.convert import of_chain
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.search import device
from idl_audit.search.branching import branch
from idl_audit.search.branching.network import SearchNet
from idl_audit.search.branching.root import root_bounds
from idl_audit.search.fast_gradients import searched
from idl_audit.search.judge import Judge
from idl_audit.values.box import Box
from idl_audit.values.budget import UNLIMITED, Budget
from idl_audit.values.errors import OptionError
from idl_audit.values.query import Conjunction, Query

if TYPE_CHECKING:
    from torch.nn import Module

PACKAGES = ("numpy", "torch")
CLASSES = 10
LEAVES = 2000
POINTS = 512


@dataclass(frozen=True)
class Case:
    """A network with a box."""

    name: str
    module: Callable[[], Module]
    shape: tuple[int, ...]
    radius: float


def layers(width: int) -> Module:
    """Return five layers of ReLUs on 784 inputs; random weights."""
    from torch import nn

    sizes = (784, *[width] * 5)
    parts = [part for m, n in itertools.pairwise(sizes) for part in (nn.Linear(m, n), nn.ReLU())]
    return nn.Sequential(*parts, nn.Linear(width, CLASSES)).eval()


def convolutions(channels: int) -> Module:
    """Return four convolutions, two of them of stride 2, and a dense layer; random weights."""
    from torch import nn

    parts: list[Module] = []
    before = 3
    for stride in (1, 2, 1, 2):
        parts += [nn.Conv2d(before, channels, 3, stride=stride, padding=1), nn.ReLU()]
        before = channels
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(channels * 64, CLASSES)).eval()


def cases(*, small: bool) -> Iterator[Case]:
    """Yield the networks."""
    width, channels = (128, 4) if small else (1024, 32)
    yield Case(f"5 x {width} ReLUs", functools.partial(layers, width), (1, 784), 0.004)
    yield Case(f"4 convolutions of {channels}", functools.partial(convolutions, channels), (1, 3, 32, 32), 0.002)


def model_of(case: Case) -> tuple[ImplicitModel, Any]:
    """Return the implicit model of a network with random weights, and the network."""
    import torch

    torch.manual_seed(0)
    module = case.module()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        torch.onnx.export(module, (torch.zeros(case.shape),), path, input_names=["x"], output_names=["y"], dynamo=True)
        return load(path), module


def box_of(model: ImplicitModel, radius: float) -> Box:
    """Return a box around a random point of [0, 1]^p."""
    centre = np.random.default_rng(0).random(model.n_inputs)
    return Box.between(centre - radius, centre + radius)


def query_of(model: ImplicitModel, box: Box) -> Query:
    """Return whether the first class's margin over the second falls below where backward lines put it, a little."""
    rows = np.zeros((1, model.n_outputs))
    rows[0, :2] = 1.0, -1.0
    inputs = Interval.of_boxes(box)
    lines = output_lower_bounds(model, inputs, backward_state_bounds(model, inputs), rows)[0, 0]
    near = float(model(box.centre[None])[0] @ rows[0])
    return Query(box, (Conjunction(rows, np.array([-lines - 0.3 * (near - lines)])),))


def parts_of(case: Case, model: ImplicitModel, leaves: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what is measured, by name."""
    box = box_of(model, case.radius)
    inputs, rows = Interval.of_boxes(box), np.eye(CLASSES)
    query = query_of(model, box)

    def bounds() -> Any:
        return output_lower_bounds(model, inputs, backward_state_bounds(model, inputs), rows)

    def slopes() -> Any:
        return root_bounds(SearchNet(model, box), inputs, budget=UNLIMITED)

    def descent() -> Any:
        network, at = searched(model), np.tile(box.centre, (POINTS, 1))
        for _ in range(10):
            at = box.project(at - case.radius / 4 * np.sign(network.slopes(at, lambda y: np.ones_like(y))[1]))
        return network.outputs(at)

    def branching() -> Any:
        chain = Chain()
        found = branch(model, query, budget=Budget.of(nodes=leaves), judge=Judge.of_model(model, query), record=chain)
        return found, chain

    yield "backward bounds, proved", bounds
    yield "slopes raised, proved", slopes
    yield f"descent, {POINTS:,} points", descent
    yield f"branching, {leaves:,} leaves at most", branching


def timed(run: Callable[[], Any], where: str) -> tuple[float, Any]:
    """Return seconds - of the processor, or by the wall where it waits for a device -, and what came of it."""
    clock = time.process_time if where == "cpu" else time.perf_counter
    start = clock()
    found = run()
    return clock() - start, found


def same(part: str, model: ImplicitModel, query: Query, here: Any, there: Any) -> str:
    """Return in words whether both came to the same; proofs that a device made are checked on the CPU."""
    if not part.startswith("branching"):
        return ""
    (mine, _), (its, chain) = here, there
    if its.proved and check(model, query, of_chain(model, query, chain)):
        return "**the proof is refused**"
    return "same verdict" if mine.proved == its.proved else f"here {mine.proved}, there {its.proved}"


def peer(case: Case, module: Any, box: Box, where: str) -> float | None:
    """Return the least seconds of auto_LiRPA's backward bounds on a device; None where it is not installed."""
    try:
        from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm
    except ImportError:
        return None
    import torch

    x = torch.tensor(box.centre.reshape(case.shape), dtype=torch.float32, device=where)
    bounded = BoundedModule(module.to(where), torch.zeros_like(x), device=where)
    region = BoundedTensor(x, PerturbationLpNorm(norm=float("inf"), eps=case.radius))

    def bounds() -> Any:
        return bounded.compute_bounds(x=(region,), method="backward")[0].cpu()

    found = [timed(bounds, where)[0] for _ in range(3)]
    return min(found)


def lines(name: str, rounds: int, *, small: bool) -> Iterator[str]:
    """Measure, and yield the rows of the table."""
    for case in cases(small=small):
        model, module = model_of(case)
        query = query_of(model, box_of(model, case.radius))
        for part, run in parts_of(case, model, 64 if small else LEAVES):
            spent: dict[str, list[float]] = {"cpu": [], name: []}
            found: dict[str, Any] = {}
            for _ in range(rounds):
                for where in spent:
                    device.use(where)
                    seconds, found[where] = timed(run, where)
                    spent[where].append(seconds)
            device.use("cpu")
            here, there = min(spent["cpu"]), min(spent[name])
            if name == "cpu":
                yield f"| {case.name} | {part} | {here:.3f} | | | |"
                continue
            words = same(part, model, query, found["cpu"], found[name])
            yield f"| {case.name} | {part} | {here:.3f} | {there:.3f} | {here / there:.1f} | {words} |"
        theirs = peer(case, module, box_of(model, case.radius), name)
        if theirs is not None:
            yield f"| {case.name} | auto_LiRPA's backward bounds, on {name} | | {theirs:.3f} | | |"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "mps", "cpu"), default="cuda")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="small networks: to try the script")
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    given = parser.parse_args()
    name, said = given.device, ""
    try:
        device.use(name)
        said = f"Searched on {device.told()}; a device is tried before (float32 and float64 products, small numbers)."
    except OptionError as error:
        name = "cpu"
        said = f"No accelerator was at hand ({error}): the columns of the device are empty."
    device.use("cpu")
    words = " ".join([*(["--small"] if given.small else []), f"--device {given.device} --rounds {given.rounds}"])
    head = ["# Accelerators", "", f"Made by `python -m benchmarks.accelerators {words}`.", "", machine(1, PACKAGES)]
    table = ["| network | what | CPU, s | device, s | times as fast | |", "|---|---|---:|---:|---:|---|"]
    text = [*head, "", said, "", *table, *lines(name, given.rounds, small=given.small), ""]
    (given.out / "accelerators.md").write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
