"""Which form of the network is judged: as the file has it, or as onnxruntime rewrites it before it runs it.

What is proved is said of the file. Asked for `auto`, both forms are run on the same inputs: where the optimised one is
the same function it is judged, since it is what most users deploy, and faster; elsewhere the file as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.commands.options.reading import ModelOptions
from idl_audit.graph.ir import Graph
from idl_audit.graph.original import OPTIMISATIONS, OriginalNetwork, onnxruntime_network
from idl_audit.report.schema import AgreementCheck, Diagnostic, Optimisation
from idl_audit.values import threads
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.errors import UnsupportedModelError

QUANTISED: Final = frozenset(
    {"DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "QuantizeLinear"}
)
"""Operators that onnxruntime puts integer kernels in the place of, whose sums a few inputs may not bring to their
ends."""


@dataclass(frozen=True)
class Judged:
    """A network as onnxruntime runs it, and how it was chosen."""

    network: OriginalNetwork
    optimisation: Optimisation
    apart: float | None = None
    """How far outputs with and without all optimisations lie apart, relative to max|y|; None: not compared."""


def judged(path: Path, graph: Graph, options: ModelOptions, inputs: FloatArray, *, allowed: float) -> Judged:
    """Return the network that is judged: in the form that is asked for, or (auto) in one that is what the file says.

    Args:
        path: the file.
        graph: what was read of it.
        options: which output, and which form.
        inputs: what both forms are compared on, (n, p).
        allowed: a difference up to this, relative to max|y|, is rounding.

    Raises:
        UnsupportedModelError: where onnxruntime refuses the file.
    """

    def run(optimisation: Optimisation) -> OriginalNetwork:
        most = threads.most(options.threads or 1)
        return onnxruntime_network(path, graph, output=options.output_name, threads=most, optimisation=optimisation)

    if options.runtime_optimisation != "auto":
        return Judged(run(options.runtime_optimisation), options.runtime_optimisation)
    try:
        plain = run("off")
    except UnsupportedModelError:  # it has no kernel for an operator that optimisations put others in the place of
        return Judged(run("all"), "all")
    try:
        optimised = run("all")
        apart = _apart(plain, optimised, inputs.astype(np.float32))
    except UnsupportedModelError:
        return Judged(plain, "off")
    is_one = apart is not None and apart <= allowed and not {node.op for node in graph.nodes} & QUANTISED
    return Judged(optimised, "all", apart) if is_one else Judged(plain, "off", apart)


def _apart(plain: OriginalNetwork, optimised: OriginalNetwork, inputs: Float32Array) -> float | None:
    """Return the largest difference relative to max|y|; None where only one of the two gives numbers, or none does."""
    with np.errstate(all="ignore"):
        one, other = plain(inputs), optimised(inputs)
    numbers = np.isfinite(one)
    if not np.array_equal(numbers, np.isfinite(other)) or not numbers.any():
        return None
    size = max(float(np.abs(one[numbers]).max()), float(np.finfo(np.float32).tiny))
    return float(np.abs(one[numbers] - other[numbers]).max()) / size


def is_changed(path: Path, graph: Graph, output: str | None, inputs: FloatArray, ours: FloatArray, most: float) -> bool:
    """Whether the file run as it is gives our outputs up to `most`: then it is the optimisations that differ."""
    try:
        theirs = onnxruntime_network(path, graph, output=output)(inputs.astype(np.float32))
    except UnsupportedModelError:
        return False
    return bool((np.abs(theirs - ours) <= most).all())


def told_changed(check: AgreementCheck | None) -> Iterator[Diagnostic]:
    """Say that the network changes when onnxruntime optimises it, which is what it does unasked."""
    if check is None or check.optimisation != "off" or not (check.optimised_apart or 0.0) > NOTICED:
        return
    yield Diagnostic(
        code="IDL214",
        level="warning",
        message=f"{check.reference} changes outputs by up to {check.optimised_apart:.1e} of max|y| when it optimises "
        "the graph, as it does unless told otherwise; judged is the network as the file has it",
        hint=f"deploy it with SessionOptions.graph_optimization_level = GraphOptimizationLevel.{OPTIMISATIONS['off']}",
    )


NOTICED: Final = 1e-4
"""Of max|y|."""
