"""Write reports/convolutions.md: backward linear bounds of convolutions, attention and ReLUs beside auto_LiRPA.

    python -m benchmarks.convolution_bounds [--rounds 5] [--out DIR]

The networks have random weights and are made here: four convolutions of 3 x 3 on 3 x 32 x 32 inputs and a dense layer;
attention of 17 tokens with 3 heads of 16 and a residual sum; four layers of 256 ReLUs. Four properties of resnet_2b
(the VNN competition's) come with IDL_AUDIT_DATA.
Each row is a process of its own on one thread; both contestants take turns in it, and the least time of each is told.
auto_LiRPA need not be installed; its columns are empty then. Its bounds are not rounded outward, ours are.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measuring import ROOT, least_seconds, machine, peak_megabytes, run_part
from idl_audit.api import load
from idl_audit.commands.shared.questions import read_property
from idl_audit.commands.shared.subject import open_subject
from idl_audit.proof.bounds import Interval
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.values.arrays import FloatArray

if TYPE_CHECKING:
    from torch.nn import Module

SIDE = 32
CLASSES = 10
TOKENS, HEADS, WIDTH = 17, 3, 48
PACKAGES = ("numpy", "torch")


def convolutions(channels: int) -> Module:
    """Return four convolutions, two of them of stride 2, and a dense layer; random weights."""
    from torch import nn

    layers: list[Module] = []
    before = 3
    for stride in (1, 2, 1, 2):
        layers += [nn.Conv2d(before, channels, 3, stride=stride, padding=1), nn.ReLU()]
        before = channels
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (SIDE // 4) ** 2, CLASSES)).eval()


def attention() -> Module:
    """Return a block of attention as vision transformers have it, a residual sum, and a dense layer; random weights."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
            self.out, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(TOKENS * WIDTH, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (
                layer(x).reshape(-1, TOKENS, HEADS, WIDTH // HEADS).permute(0, 2, 1, 3)
                for layer in (self.query, self.key, self.value)
            )
            weights = torch.softmax(q.matmul(k.transpose(-1, -2)) * (WIDTH // HEADS) ** -0.5, dim=-1)
            y = self.out(weights.matmul(v).permute(0, 2, 1, 3).reshape(-1, TOKENS, WIDTH)) + x
            return self.head(torch.relu(y).flatten(1))

    return Block()


def layers_of_256() -> Module:
    """Return four layers of 256 ReLUs on 784 inputs; random weights."""
    from torch import nn

    sizes = (784, 256, 256, 256, 256)
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(256, CLASSES))


IMAGE = (1, 3, SIDE, SIDE)
NETWORKS: tuple[tuple[str, Callable[[], Module], tuple[int, ...], float], ...] = (
    ("8 channels", partial(convolutions, 8), IMAGE, 0.01),
    ("16 channels", partial(convolutions, 16), IMAGE, 0.01),
    ("32 channels", partial(convolutions, 32), IMAGE, 1e-4),
    ("attention", attention, (1, TOKENS, WIDTH), 0.01),
    ("4 x 256 ReLUs", layers_of_256, (1, 784), 0.01),
)
"""Name, what makes it, the shape of its input, the radius of the box."""


PROPERTIES = tuple(f"prop_{number}_eps_0.008.vnnlib.gz" for number in (2, 5, 8, 11))
"""Of resnet_2b."""


class AsWritten:
    """Makes the torch module of an ONNX file of convolutions, dense layers, ReLUs and sums."""

    def __init__(self, path: Path) -> None:
        """Take the file; nothing is read before the module is wanted."""
        self.path = path

    def __call__(self) -> Module:
        """Return the module."""
        import onnx
        import torch
        from onnx import numpy_helper
        from torch import nn

        graph = onnx.load(str(self.path)).graph
        numbers = {one.name: torch.tensor(numpy_helper.to_array(one)) for one in graph.initializer}

        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.ModuleList(layer(node) for node in graph.node)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                known = {next(one.name for one in graph.input if one.name not in numbers): x}
                for node, own in zip(graph.node, self.layers, strict=True):
                    read = [known[name] for name in node.input if name in known]
                    known[node.output[0]] = read[0] + read[1] if node.op_type == "Add" else own(read[0])
                return known[graph.output[0].name]

        def layer(node: Any) -> Module:
            if node.op_type not in ("Conv", "Gemm"):
                return {"Relu": nn.ReLU, "Flatten": nn.Flatten, "Add": nn.Identity}[node.op_type]()
            weights, bias = (numbers[name] for name in node.input[1:])
            own: Module
            if node.op_type == "Gemm":
                own = nn.Linear(weights.shape[1], weights.shape[0])
            else:
                told = {one.name: list(one.ints) for one in node.attribute if one.ints}
                shape = weights.shape[1], weights.shape[0], tuple(told["kernel_shape"])
                own = nn.Conv2d(*shape, stride=told["strides"], padding=told["pads"][:2])
            own.load_state_dict({"weight": weights, "bias": bias})
            return own

        return Network()


def cases() -> list[tuple[str, Callable[[], Module], tuple[int, ...], float | Path]]:
    """Return the networks made here, then properties of the data folder where there is one."""
    found: list[tuple[str, Callable[[], Module], tuple[int, ...], float | Path]] = [*NETWORKS]
    if "IDL_AUDIT_DATA" in os.environ:
        folder = Path(os.environ["IDL_AUDIT_DATA"], "vnncomp/cifar10_resnet")
        make = AsWritten(folder / "resnet_2b.onnx")
        found += [(f"resnet_2b, {name.partition('_eps')[0]}", make, IMAGE, folder / name) for name in PROPERTIES]
    return found


def made(make: Callable[[], Module]) -> Module:
    """Return a network, with the same random weights each time."""
    import torch

    torch.manual_seed(0)
    return make().eval()


def exported(make: Callable[[], Module], shape: tuple[int, ...], folder: Path) -> Path:
    """Return the ONNX file of a network."""
    import torch

    if isinstance(make, AsWritten):
        return make.path
    module, path = made(make), folder / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.zeros(shape),), str(path), dynamo=False, opset_version=13)
    return path


def box_around(size: int, eps: float) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the box around random numbers in [0, 1], (p,)."""
    image = np.random.default_rng(1).random(size)
    return np.clip(image - eps, 0, 1), np.clip(image + eps, 0, 1)


def asked(model: Path, given: float | Path, size: int) -> tuple[tuple[FloatArray, FloatArray], str]:
    """Return the ends of the box around random numbers, or of a property, and what is told of its size."""
    if not isinstance(given, Path):
        return box_around(size, given), f"{given:g}"
    box = read_property(open_subject(model), given).queries[0].box
    return (box.lo, box.hi), given.name.partition("eps_")[2].partition(".vnnlib")[0]


def margin_rows(scores: FloatArray) -> FloatArray:
    """Return the winner's margins over the other classes, as rows over the outputs."""
    best = int(np.argmax(scores))
    rows = -np.eye(CLASSES)
    rows[:, best] += 1
    return np.delete(rows, best, axis=0)


def peer(
    module: Module, shape: tuple[int, ...], box: tuple[FloatArray, FloatArray], rows: FloatArray, precision: str
) -> Callable[[], FloatArray]:
    """Return what computes auto_LiRPA's CROWN bounds of the margins."""
    import torch
    from auto_LiRPA import BoundedModule, BoundedTensor
    from auto_LiRPA.perturbations import PerturbationLpNorm

    kind = getattr(torch, precision)
    ends = [torch.tensor(side.reshape(shape), dtype=kind) for side in box]
    bounded = BoundedModule(module.to(kind), torch.zeros_like(ends[0]))
    inputs = BoundedTensor((ends[0] + ends[1]) / 2, PerturbationLpNorm(x_L=ends[0], x_U=ends[1]))
    specification = torch.tensor(rows[None], dtype=kind)

    def run() -> FloatArray:
        with torch.no_grad():
            lower, _ = bounded.compute_bounds(x=(inputs,), C=specification, method="backward", bound_upper=False)
        return np.asarray(lower.numpy()[0], np.float64)

    return run


def measured(
    name: str, make: Callable[[], Module], shape: tuple[int, ...], given: float | Path, rounds: int
) -> dict[str, Any]:
    """Return seconds, memory and how far the bounds are apart, for one network."""
    with tempfile.TemporaryDirectory() as folder:
        path = exported(make, shape, Path(folder))
        model = load(path)
        (lo, hi), eps = asked(path, given, model.n_inputs)
    rows, inputs = margin_rows(model((lo + hi)[None] / 2)[0]), Interval(lo[None], hi[None])

    def ours() -> FloatArray:
        return output_lower_bounds(model, inputs, backward_state_bounds(model, inputs), rows)[0]

    before = peak_megabytes()
    found: dict[str, Any] = {"name": name, "eps": eps, "lower": float(ours().min())}
    found["megabytes"] = peak_megabytes() - before
    contestants: dict[str, Callable[[], FloatArray]] = {"ours": ours}
    for precision in ("float32", "float64"):
        try:
            run = peer(made(make), shape, (lo, hi), rows, precision)
            theirs = run()
        except (ImportError, RuntimeError) as error:  # its products of states are float32 alone
            found["missing"] = str(error)
            continue
        import auto_LiRPA

        contestants[precision] = run
        found["version"] = auto_LiRPA.__version__
        found["theirs"] = float(theirs.min())
        found["apart"] = float((np.abs(ours() - theirs) / np.maximum(np.abs(theirs), 1e-3)).max())
    return {**found, "seconds": least_seconds(contestants, rounds=rounds, clock=time.process_time)}


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return the report."""
    lines = [
        "# Convolutions, attention, layers of ReLUs",
        "",
        "Made by `python -m benchmarks.convolution_bounds`. Backward linear bounds of all states and margins of one "
        "box, float64, rounded outward, beside auto_LiRPA's CROWN (patches, not rounded outward) in the same process; "
        "networks with random weights, and resnet_2b of the VNN competition. Ratios: ours over auto_LiRPA's; processor "
        "seconds, the least of some rounds. "
        "Apart: the greatest relative difference of the margins' bounds; convolutions and ReLUs have the same lines, "
        "attention other planes.",
        "",
        f"{machine(1, PACKAGES)}, auto_LiRPA {found[0].get('version', 'not at hand')}.",
        "",
        "| network | eps | our least margin | auto_LiRPA's | ours s | auto_LiRPA float64 s | float32 s | ratio float64 "
        "| ratio float32 | apart | our memory MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        seconds = row["seconds"]
        theirs = [f"{seconds[p]:.3f}" if p in seconds else "-" for p in ("float64", "float32")]
        ratios = [f"{seconds['ours'] / seconds[p]:.2f}" if p in seconds else "-" for p in ("float64", "float32")]
        apart = f"{row['apart']:.0e}" if "apart" in row else "-"
        margins = f"{row['lower']:.4f}", f"{row['theirs']:.4f}" if "theirs" in row else "-"
        cells = (row["name"], row["eps"], *margins, f"{seconds['ours']:.3f}", *theirs, *ratios)
        lines.append("| " + " | ".join(map(str, (*cells, apart, f"{row['megabytes']:.0f}"))) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every network in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part is not None:
        print(json.dumps(measured(*cases()[int(given.part)], given.rounds)))
        return
    run = partial(run_part, "benchmarks.convolution_bounds", threads=1, more=("--rounds", str(given.rounds)))
    given.out.mkdir(exist_ok=True)
    text = table([run(part=str(number)) for number in range(len(cases()))])
    (given.out / "convolutions.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
