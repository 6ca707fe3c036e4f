"""For tests of networks: `assert_robust` fails where too few samples are certified."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from idl_audit.commands.shared.classifier import as_classifier, model_classifier
from idl_audit.commands.shared.subject import Subject, check_agreement, open_module, open_subject
from idl_audit.data.labels import checked_labels
from idl_audit.data.numbers import Eps, check_eps_units, parse_eps, parse_fraction
from idl_audit.decide.verdicts import Options, Result, Verdict, decide
from idl_audit.graph.torch_reader import example_of
from idl_audit.implicit.model import ImplicitModel
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.network import Network

if TYPE_CHECKING:
    from idl_audit.graph.torch_reader import Module

MOST_LISTED = 20
"""Samples that a failure lists."""


def assert_robust(
    model: str | Path | ImplicitModel | Module,
    x: Any,
    y: Any,
    *,
    eps: float | str,
    at_least: float | str = 1.0,
    bounds: tuple[float, float] | None = None,
    methods: Sequence[str] | None = None,
    threshold: float | None = None,
    time_limit: float = 60.0,
    seed: int = 0,
) -> None:
    """Fail unless enough samples are certified: no change of an input by at most eps changes the class.

        assert_robust("model.onnx", x, y, eps="2/255", at_least=0.9, bounds=(0, 1))

    Args:
        model: a model file, a torch module (put into evaluation mode), or an implicit model, which is then the network
            itself.
        x: n samples as the network reads them, shape (n, ...): an array or a tensor.
        y: their n classes, counted from 0; 0 and 1, or -1 and +1, for a network with one output.
        eps: the radius in the l-infinity norm, in the units of x: 0.03 or "8/255".
        at_least: the share of the samples that must be certified, 0 to 1 or "90 %"; k of n is compared exactly.
        bounds: the valid range of the inputs; perturbed ones stay within it.
        methods: as those of `idl-audit certify --method`.
        threshold: for a network with one output, the number above which it means class 1; 0.5 after a sigmoid and
            else 0 unless given.
        time_limit: seconds for one sample.
        seed: of every random choice.

    Raises:
        AssertionError: with the counts and the samples that are not certified.
        InvalidInputError: where the model, the samples or an option is refused.
        AgreementError: where the implicit model is not the network.
    """
    wanted = _share(at_least)
    radius = _radius(eps)
    samples, shape = _rows(x)
    options = Options(time_limit=time_limit, seed=seed)
    if methods is not None:
        options = Options(methods=tuple(methods), time_limit=time_limit, seed=seed)
    implicit, network, one_output, kind = _opened(model, x, samples, threshold)
    if samples.shape[1] != implicit.n_inputs:
        raise DataError(
            f"samples of shape {shape[1:]} have {samples.shape[1]} numbers, and an input {implicit.n_inputs}"
        )
    labels = checked_labels(_array(y), len(samples), implicit.n_outputs, Path("y"), one_output=one_output)
    check_eps_units((radius,), float(samples.min()), float(samples.max()))
    lo, hi = bounds or (None, None)
    boxes = [Box.around(row, radius.value, valid_lo=lo, valid_hi=hi, point_type=kind) for row in samples]
    results = [
        decide(implicit, network, row, int(label), box, options)
        for row, label, box in zip(samples, labels, boxes, strict=True)
    ]
    certified = sum(result.verdict is Verdict.CERTIFIED for result in results)
    if certified * wanted.denominator < wanted.numerator * len(results):
        raise AssertionError(_complaint(results, labels, radius, at_least, wanted))


def _share(at_least: float | str) -> Fraction:
    text = at_least if isinstance(at_least, str) else repr(float(at_least))
    percent = text.strip().endswith("%")
    value = parse_fraction(text.strip().removesuffix("%"), option="at_least") / (100 if percent else 1)
    if not 0 <= value <= 1:
        text = f"{float(value):g}" if not percent else text
        hint = f"; for {text} per cent write '{text} %'" if not percent and 1 < value <= 100 else ""
        raise OptionError(f"at_least is a share, 0 to 1, not {text}{hint}")
    return value


def _radius(eps: float | str) -> Eps:
    radii = parse_eps(eps if isinstance(eps, str) else repr(float(eps)))
    if len(radii) != 1:
        raise OptionError(f"eps must be one radius such as '8/255', not {eps!r}")
    return radii[0]


def _array(values: Any) -> np.ndarray:
    """Return an array for an array, a list or a tensor."""
    return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)


def _rows(x: Any) -> tuple[FloatArray, tuple[int, ...]]:
    array = _array(x)
    if array.ndim < 2 or array.size == 0 or array.dtype.kind not in "fiub":
        raise DataError(f"x must hold samples of numbers along its first axis, not shape {array.shape}, {array.dtype}")
    rows = array.reshape(len(array), -1).astype(np.float64)
    if not np.isfinite(rows).all():
        raise DataError("x has NaN or infinity; every number must be finite")
    return rows, array.shape


def _opened(
    model: str | Path | ImplicitModel | Module, x: Any, samples: FloatArray, threshold: float | None
) -> tuple[ImplicitModel, Network, bool, np.dtype[Any]]:
    """Return the implicit model and the network that judges attacks, which agree on the samples.

    The third tells whether a threshold makes the classes of one output, the fourth what the network reads.
    """
    if isinstance(model, ImplicitModel):
        implicit, network = model_classifier(model, threshold, Path("the model"))
        return implicit, network, model.n_outputs == 1, np.dtype(np.float32)
    subject = as_classifier(_read(model, x), threshold)
    if samples.shape[1] == subject.model.n_inputs:
        check_agreement(subject, samples[:100])
    return subject.model, subject.original, subject.threshold is not None, subject.point_type


def _read(model: str | Path | Module, x: Any) -> Subject:
    if isinstance(model, str | Path):
        return open_subject(Path(model))
    return open_module(model, example_of(_array(x)))


def _complaint(
    results: Sequence[Result], labels: IntArray, radius: Eps, at_least: float | str, wanted: Fraction
) -> str:
    """Return the counts, and the samples that are not certified, those that can be attacked first."""
    counts = Counter(result.verdict.value for result in results)
    order = [Verdict.FALSIFIED, Verdict.UNKNOWN, Verdict.CLEAN_WRONG]
    open_ = sorted(
        (place for place, result in enumerate(results) if result.verdict in order),
        key=lambda place: order.index(results[place].verdict),
    )
    told = ", ".join(f"{counts[verdict.value]} {verdict.value}" for verdict in Verdict)
    lines = [_sample(place, results[place], int(labels[place])) for place in open_[:MOST_LISTED]]
    lines += [f"... and {len(open_) - MOST_LISTED} more"] if len(open_) > MOST_LISTED else []
    needed = math.ceil(wanted * len(results))
    return "\n  ".join(
        [
            f"{counts['certified']} of {len(results)} samples are certified at eps {radius.text}; "
            f"at_least={at_least!r} asks for {needed} ({told})",
            *lines,
        ]
    )


def _sample(place: int, result: Result, label: int) -> str:
    start = f"sample {place}, label {label}: {result.verdict.value}"
    if result.verdict is Verdict.FALSIFIED and result.found is not None:
        return f"{start}, class {result.found.predicted} within eps"
    if result.verdict is Verdict.CLEAN_WRONG:
        return f"{start}, class {result.predicted} without any change"
    return start if result.reason is None else f"{start}, {result.reason.value}"
