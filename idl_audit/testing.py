"""For tests of networks: `assert_robust` fails where too few samples are certified."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idl_audit.api import Robustness, SampleVerdict, certify
from idl_audit.commands.options.robustness import ArrayOptions
from idl_audit.data.numbers import parse_fraction
from idl_audit.implicit.model import ImplicitModel
from idl_audit.values.errors import OptionError
from idl_audit.values.options import asking
from idl_audit.values.verdicts import Verdict

if TYPE_CHECKING:
    from idl_audit.graph.torch_reader import Module

MOST_LISTED = 20
"""Samples that a failure lists."""


@asking(ArrayOptions)
def assert_robust(
    model: str | Path | ImplicitModel | Module, x: Any, y: Any, *, at_least: float | str = 1.0, **options: Any
) -> None:
    """Fail unless enough samples are certified: no change of an input by at most eps changes the class.

        assert_robust("model.onnx", x, y, eps="2/255", at_least=0.9, bounds=(0, 1))

    Args:
        model: a model file, a torch module (put into evaluation mode), or an implicit model, which is then the network
            itself.
        x: n samples as the network reads them, shape (n, ...): an array or a tensor.
        y: their n classes, counted from 0; 0 and 1, or -1 and +1, for a network with one output.
        at_least: the share of the samples that must be certified, 0 to 1 or "90 %"; k of n is compared exactly.
        options: eps and the others of `idl_audit.certify`.

    Raises:
        AssertionError: with the counts and the samples that are not certified.
        InvalidInputError: where the model, the samples or an option is refused.
        AgreementError: where the implicit model is not the network.
    """
    wanted = _share(at_least)
    found: object = certify(model, x, y, **options)
    if not isinstance(found, Robustness):
        raise OptionError("assert_robust takes one radius, not a list; call it once for each")
    if found.certified * wanted.denominator < wanted.numerator * found.n:
        raise AssertionError(_complaint(found, options.get("eps", found.eps), at_least, wanted))


def _share(at_least: float | str) -> Fraction:
    text = at_least if isinstance(at_least, str) else repr(float(at_least))
    percent = text.strip().endswith("%")
    value = parse_fraction(text.strip().removesuffix("%"), option="at_least") / (100 if percent else 1)
    if not 0 <= value <= 1:
        text = f"{float(value):g}" if not percent else text
        hint = f"; for {text} per cent write '{text} %'" if not percent and 1 < value <= 100 else ""
        raise OptionError(f"at_least is a share, 0 to 1, not {text}{hint}")
    return value


def _complaint(found: Robustness, eps: float | str, at_least: float | str, wanted: Fraction) -> str:
    """Return the counts, and the samples that are not certified, those that can be attacked first."""
    order = [Verdict.FALSIFIED, Verdict.UNKNOWN, Verdict.CLEAN_WRONG]
    open_ = sorted(
        (one for one in found.samples if one.verdict in order), key=lambda one: order.index(Verdict(one.verdict))
    )
    told = ", ".join(f"{getattr(found, verdict.value)} {verdict.value}" for verdict in Verdict)
    lines = [_sample(one) for one in open_[:MOST_LISTED]]
    lines += [f"... and {len(open_) - MOST_LISTED} more"] if len(open_) > MOST_LISTED else []
    first = (
        f"{found.certified} of {found.n} samples are certified at eps {eps}; "
        f"at_least={at_least!r} asks for {math.ceil(wanted * found.n)} ({told})"
    )
    return "\n  ".join([first, *lines])


def _sample(one: SampleVerdict) -> str:
    start = f"sample {one.index}, label {one.label}: {one.verdict}"
    if one.becomes is not None:
        return f"{start}, class {one.becomes} within eps"
    if one.verdict == "clean_wrong":
        return f"{start}, class {one.predicted} without any change"
    return start if one.reason is None else f"{start}, {one.reason}"
