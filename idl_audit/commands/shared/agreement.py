"""Whether the implicit model is the network in the file: both are run on the same inputs.

Where they differ, two causes are told apart. Either the file was read wrongly, which is our fault; or the network's
own arithmetic is that far from exact arithmetic, which a copy of it in finer floats shows.

Where the network jumps (rounding, signs, comparisons) and an input comes so near a threshold that float32 may end up on
the other side of it, outputs need only lie among those that either side leads to (`measure.near_jumps`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

import numpy as np

from idl_audit.commands.shared.class_output import gives_class
from idl_audit.commands.shared.points import as_read
from idl_audit.commands.shared.runtime import Judged, is_changed
from idl_audit.graph.inputs import FLOATS, WHOLE
from idl_audit.graph.ir import Graph, live_inputs
from idl_audit.graph.original import OPTIMISATIONS, OriginalNetwork, precise_network
from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.near_jumps import outputs_near_jumps
from idl_audit.proof.bounds import Interval
from idl_audit.report.schema import AgreementCheck
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import AgreementError, UnsupportedModelError

TOLERANCE: Final = 1e-4
"""Largest difference of an output between implicit model and original network, relative to max|y|."""

UNIT_ROUNDOFFS: Final[Mapping[str, float]] = MappingProxyType(
    {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
)
"""What rounding changes a number by at most, relative to its size."""

_SATURATING: Final = frozenset({"QLinearConv", "QLinearMatMul"})

NOBODY_CLEAR: Final = 0.1
"""Of max|y|."""

_GROWTH: Final = 4.0
_MUCH_CLOSER: Final = 1e-3

_MOVES: Final = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherND", "Identity", "MaxPool", "Pad", "Relu"),
        *("Reshape", "Shape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
"""Operators that do not round."""


@dataclass(frozen=True)
class Compared:
    """What is compared."""

    path: Path
    model: ImplicitModel
    original: OriginalNetwork
    graph: Graph | None
    """None where the file is an implicit model, which is its own original."""
    output: str | None = None
    scores: Callable[[FloatArray], FloatArray] | None = None
    """What makes the scores of two classes of one output, where a threshold does."""
    judged: Judged | None = None
    """In which form onnxruntime runs it, where it does."""

    @property
    def point_type(self) -> np.dtype[Any]:
        """The type of the network's input."""
        return input_type(self.graph, self.output)

    @property
    def least_size(self) -> float:
        """The size below which outputs have no digits left to compare."""
        is_double = self.graph is None or self.point_type == np.float64
        return float(np.finfo(np.float64 if is_double else np.float32).tiny)


def input_type(graph: Graph | None, output: str | None = None) -> np.dtype[Any]:
    """Return the type of the inputs that an output of the network depends on; float32 where there is no network."""
    if graph is None:
        return np.dtype(np.float32)
    read = live_inputs(graph, output or graph.outputs[0].name)
    kinds = {value.dtype for value in read if value.dtype in (*FLOATS, *WHOLE)}
    return np.dtype(kinds.pop() if len(kinds) == 1 else "float32")


def tolerance(graph: Graph | None) -> float:
    """Return how far the outputs may lie apart, relative to max|y|: max(1e-4, 4 L u).

    u is the unit roundoff of the coarsest floats that the network computes with. L is the number of operators that
    round on the longest way from input to output. Each rounds its result by u of its size at most (onnxruntime sums
    in float32 whatever it stores), and to first order the roundings add up on their way to the output. The factor of 4
    is for layers whose terms cancel, so that a sum is smaller than what was rounded.
    """
    if graph is None:
        return TOLERANCE
    depth: dict[str, int] = {}
    for node in graph.nodes:
        before = max((depth.get(name, 0) for name in node.inputs), default=0)
        depth.update(dict.fromkeys(node.outputs, before + (node.op not in _MOVES)))
    return max(TOLERANCE, _GROWTH * max(depth.values(), default=0) * UNIT_ROUNDOFFS[graph.arithmetic])


def check(pair: Compared, inputs: FloatArray) -> AgreementCheck:
    """Compare the implicit model with the original network on inputs in the network's own units, shape (n, p).

    A network of 16-bit floats is compared twice: a copy of it in float32 to `TOLERANCE`, and itself to `tolerance`.

    Raises:
        AgreementError: where an output differs by more than the tolerance allows, or another class wins although the
            two best outputs are not that close.
        UnsupportedModelError: where that is so because of the network's own arithmetic.
        DataError: where an input is beyond the range of the type that the network reads.
    """
    read = as_read(inputs, pair.point_type)
    with np.errstate(over="ignore", invalid="ignore"):
        theirs = pair.original(read.astype(np.float32))
        ours = pair.model(read)
    if pair.graph is not None:
        ours = _with_last_operator(ours, pair.model.stripped_output)
    if any(block.activation.forbidden for block in pair.model.blocks):  # there neither has outputs to compare
        within = np.isfinite(theirs).all(axis=1) & np.isfinite(ours).all(axis=1)
        if within.any():
            read, ours, theirs = read[within], ours[within], theirs[within]
    _refuse_overflow(pair, ours, theirs)
    allowed = tolerance(pair.graph)
    either, near = _either_side(pair, read, ours)
    if gives_class(pair.model):
        found = _Difference.of_classes(ours, theirs, allowed, pair, either)
        if not found.agrees:
            _refuse(pair, read, found)
    else:
        found = _Difference.between(ours, theirs, allowed, pair, either)
        if pair.graph is not None and UNIT_ROUNDOFFS[pair.graph.arithmetic] > UNIT_ROUNDOFFS["float32"]:
            _compare_precise(pair, pair.graph, read, ours, either)
        if not found.agrees:
            _explain(pair, read, ours, theirs, found)
    return AgreementCheck(
        n=len(read),
        reference=pair.original.name,
        max_rel_error=found.error,
        argmax_agreement=int(found.same.sum()),
        near_jumps=near,
        optimisation=None if pair.judged is None else pair.judged.optimisation,
        optimised_apart=None if pair.judged is None else pair.judged.apart,
    )


def _either_side(pair: Compared, read: FloatArray, ours: FloatArray) -> tuple[Interval, int | None]:
    """Return the outputs that either side of a jump leads to, and for how many inputs one is near, if there are any.

    Where no input is clear of jumps, and none vouches for the others, outputs stay within `NOBODY_CLEAR` of ours.
    """
    if not pair.model.has_jumps:
        return Interval(ours, ours), None
    unit = UNIT_ROUNDOFFS["float32" if pair.graph is None else pair.graph.arithmetic]
    found, near = outputs_near_jumps(pair.model, read, unit)
    lo, hi = (np.where(near[:, None], end, ours) for end in (found.lo, found.hi))
    if near.all():
        most = NOBODY_CLEAR * float(np.abs(ours).max(initial=0.0))
        lo, hi = np.maximum(lo, ours - most), np.minimum(hi, ours + most)
    return Interval(lo, hi), int(near.sum())


@dataclass(frozen=True)
class _Difference:
    error: float
    """Relative to max|y|."""
    same: np.ndarray
    """For each input, whether the same class wins, or one that is as good within the tolerance."""
    allowed: float

    @classmethod
    def between(
        cls,
        ours: FloatArray,
        theirs: FloatArray,
        allowed: float,
        pair: Compared,
        either: Interval,
    ) -> _Difference:
        """Compare outputs; where they may lie anywhere in an interval, what counts is how far beyond it they are."""
        scores = pair.scores
        size = max(float(np.abs(theirs).max()), pair.least_size)
        error = float(np.maximum(np.maximum(theirs - either.hi, either.lo - theirs), 0.0).max()) / size
        reach = 2.0 * (either.hi - either.lo).max(axis=1) / size
        if scores is not None:
            theirs, ours = scores(theirs), scores(ours)
        behind = np.abs(np.take_along_axis(theirs, ours.argmax(1)[:, None], 1)[:, 0] - theirs.max(axis=1)) / size
        return cls(error, behind <= allowed + reach, allowed)

    @classmethod
    def of_classes(
        cls, ours: FloatArray, theirs: FloatArray, allowed: float, pair: Compared, either: Interval
    ) -> _Difference:
        """Compare our scores with the classes that the network names: what counts is how far these are behind ours."""
        size = max(float(np.abs(ours).max()), pair.least_size)
        reach = 2.0 * (either.hi - either.lo).max(axis=1) / size
        named = np.take_along_axis(ours, theirs.argmax(axis=1)[:, None], 1)[:, 0]
        behind = np.maximum((ours.max(axis=1) - named) / size - reach, 0.0)
        return cls(float(behind.max()), behind <= allowed, allowed)

    @property
    def agrees(self) -> bool:
        """Whether both are one function, as far as these inputs tell."""
        return self.error <= self.allowed and bool(self.same.all())


def _refuse_overflow(pair: Compared, ours: FloatArray, theirs: FloatArray) -> None:
    if np.isfinite(theirs).all() and np.isfinite(ours).all():
        return
    kind = "float32" if pair.graph is None else pair.graph.arithmetic
    largest = {"float16": "65504", "float64": "1.8e308"}.get(kind, "3.4e38")
    why = f"its numbers exceed the largest {kind}, {largest}"
    bounded = [f"'{block.name}' ({block.op})" for block in pair.model.blocks if block.activation.forbidden]
    if bounded:
        why += f", or lie where {bounded[-1]} has no value"
    raise UnsupportedModelError(
        [
            f"{pair.path}: {pair.original.name} gives NaN or infinity on the checked inputs, since {why}; give "
            "the data that the network is made for (--data), or export it with smaller weights or finer floats"
        ]
    )


def _compare_precise(pair: Compared, graph: Graph, read: FloatArray, ours: FloatArray, either: Interval) -> None:
    """Compare with a copy of a network of 16-bit floats in float32, where there is one."""
    try:
        copy = precise_network(pair.path, graph, output=pair.output)
        theirs = copy(read.astype(np.float32))
    except UnsupportedModelError:
        return  # the network itself is compared all the same
    found = _Difference.between(ours, theirs, TOLERANCE, pair, either)
    if np.isfinite(theirs).all() and not found.agrees:
        _explain(pair, read, ours, theirs, found)


def _explain(pair: Compared, read: FloatArray, ours: FloatArray, theirs: FloatArray, found: _Difference) -> None:
    """Say whose fault a difference is: onnxruntime's optimisations', the network's own arithmetic's, or ours."""
    _refuse_optimised(pair, read, ours, theirs, found)
    if _is_at_thresholds(pair, read, theirs):
        raise UnsupportedModelError(
            [
                f"{pair.path}: every input that was tried lies at a threshold, where rounding decides which way "
                f"{pair.original.name} goes, as where a tensor is compared with its own largest entries (x >= max(x)): "
                f"it differs by {found.error:.1e} of max|y| from exact arithmetic; compare with numbers that lie "
                "between, or leave the comparison out"
            ]
        )
    if pair.graph is not None and _is_rounding(pair, pair.graph, read, ours, theirs):
        raise UnsupportedModelError(
            [
                f"{pair.path}: the network's own {pair.graph.arithmetic} arithmetic is off by {found.error:.1e} of "
                f"max|y| from exact arithmetic, more than {found.allowed:.1e} allows (large numbers cancel, or small "
                "ones vanish), so that what is proved of one would not hold for the other; export it in finer floats, "
                "or without such numbers"
            ]
        )
    kernels = sorted({node.op for node in pair.graph.nodes} & _SATURATING) if pair.graph is not None else []
    if kernels:
        raise UnsupportedModelError(
            [
                f"{pair.path}: {pair.original.name} differs by {found.error:.1e} of max|y| from what the file says; "
                f"its kernels for {' and '.join(kernels)} saturate sums in 16 bits on processors without VNNI: use "
                "reduce_range=True, or the format QDQ, whose operators run one by one here"
            ]
        )
    _refuse(pair, read, found)


def _is_at_thresholds(pair: Compared, read: FloatArray, theirs: FloatArray) -> bool:
    """Whether no input is clear of jumps, and all outputs are among those that either side leads to."""
    if pair.graph is None or not pair.model.has_jumps:
        return False
    found, near = outputs_near_jumps(pair.model, read, UNIT_ROUNDOFFS[pair.graph.arithmetic])
    room = TOLERANCE * float(np.abs(theirs).max())
    return bool(near.all() and ((theirs >= found.lo - room) & (theirs <= found.hi + room)).all())


def _refuse(pair: Compared, read: FloatArray, found: _Difference) -> NoReturn:
    raise AgreementError(
        f"{pair.path}: the implicit model and {pair.original.name} differ by {found.error:.1e} of max|y| on "
        f"{len(read)} inputs ({int(found.same.sum())} of them predict the same class), more than {found.allowed:.1e} "
        "allows; please report this model"
    )


def _refuse_optimised(
    pair: Compared, read: FloatArray, ours: FloatArray, theirs: FloatArray, found: _Difference
) -> None:
    """Refuse a form of the network that is another function than what its file says."""
    if pair.judged is None or pair.judged.optimisation == "off" or pair.graph is None:
        return
    most = found.allowed * max(float(np.abs(theirs).max()), pair.least_size)
    if is_changed(pair.path, pair.graph, pair.output, read, ours, most):
        raise UnsupportedModelError(
            [
                f"{pair.path}: as {pair.original.name} optimises it ({pair.judged.optimisation}) the network differs "
                f"by {found.error:.1e} of max|y| from what the file says, which is what is proved; audit it with "
                f"--runtime-optimisation off, and deploy it with GraphOptimizationLevel.{OPTIMISATIONS['off']}"
            ]
        )


def _is_rounding(pair: Compared, graph: Graph, read: FloatArray, ours: FloatArray, theirs: FloatArray) -> bool:
    """Return whether a copy of the network in float64 is as good as our model, compared with the network itself."""
    if graph.arithmetic == "float64":
        return False
    try:
        exact = precise_network(pair.path, graph, output=pair.output, double=True)(read)  # type: ignore[arg-type]
    except UnsupportedModelError:
        return False
    return bool(np.abs(ours - exact).max() <= _MUCH_CLOSER * np.abs(theirs - exact).max())


def _with_last_operator(outputs: FloatArray, operator: str) -> FloatArray:
    """Apply what the implicit model leaves out at the end, so that the file's own output is compared."""
    if operator not in ("Softmax", "LogSoftmax"):
        return outputs
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.asarray(logs if operator == "LogSoftmax" else np.exp(logs))
