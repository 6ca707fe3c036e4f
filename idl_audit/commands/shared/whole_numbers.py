"""Networks that read whole numbers, as pictures of bytes: what of an audit is otherwise with them.

Their sets are boxes of real numbers, and their points the whole numbers in these: certified is proved of all of the
box, falsified is said of a whole number alone. eps counts in whole numbers, and nothing is scaled on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.shared.subject import Subject
from idl_audit.data.features import Features
from idl_audit.data.numbers import Eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.report.schema import Diagnostic
from idl_audit.values.box import is_whole, type_limits
from idl_audit.values.errors import DataError, OptionError, UnsupportedModelError


def with_range(subject: Subject, read: DataOptions) -> DataOptions:
    """Return how the data are read, with the valid range of a network that reads bytes, and no more than its type has.

    Raises:
        OptionError: where something is to be scaled before a network that reads whole numbers.
    """
    return replace(read, preprocessing=within_range(subject, read.preprocessing))


def within_range(subject: Subject, units: Preprocessing) -> Preprocessing:
    """Return the units of data as `with_range` does."""
    return range_of(subject.point_type, units, subject.path) if is_whole(subject.point_type) else units


def range_of(kind: np.dtype[Any], units: Preprocessing, network: object) -> Preprocessing:
    """Return the units of data that are whole numbers of a type. Raises OptionError as `with_range` does."""
    if not units.is_identity:
        raise OptionError(
            f"{network} reads {kind.name}, so that nothing is scaled before it; leave --scale, --mean and --std "
            "out, and give eps and --bounds in its own whole numbers"
        )
    least, greatest = type_limits(kind)
    if units.bounds is None and kind.kind == "i" and kind.itemsize > 2:
        return units
    lo, hi = units.bounds or (float(least), float(greatest))
    lo, hi = max(math.ceil(lo), least), min(math.floor(hi), greatest)
    if not lo < hi:
        raise OptionError(f"--bounds holds fewer than two of the numbers that {network} reads, {kind.name}")
    return replace(units, bounds=(float(lo), float(hi)))


def refuse_fractions_of(subject: Subject, features: Features) -> None:
    """Refuse features that may become fractions where the network reads whole numbers. Raises DataError."""
    if is_whole(subject.point_type):
        refuse_fractions(features, subject.path, subject.point_type)


def refuse_fractions(features: Features, network: object, kind: np.dtype[Any]) -> None:
    """Refuse features that may become fractions. Raises DataError."""
    for one in features.features:
        steps = (one.start, one.step) if one.kind == "integer" else ()
        if one.kind == "continuous" or not all(value == round(value) for value in steps):
            raise DataError(
                f"{features.path}: {one.name} may have fractions, and {network} reads {kind.name}; write kind = "
                '"integer"'
            )


def refuse_whole(subject: Subject, what: str) -> None:
    """Refuse what is not known of networks that read whole numbers. Raises UnsupportedModelError."""
    if is_whole(subject.point_type):
        raise UnsupportedModelError(
            [
                f"{subject.path} reads {subject.point_type.name}, and {what} is for networks that read floats: give "
                "the part behind its Cast (onnx.utils.extract_model)"
            ]
        )


def told_whole(subject: Subject, eps: Sequence[Eps]) -> tuple[Diagnostic, ...]:
    """Say what eps and verdicts are about where the network reads whole numbers; nothing elsewhere."""
    kind = subject.point_type
    if not is_whole(kind):
        return ()
    said = Diagnostic(
        code="IDL109",
        level="info",
        message=f"the network reads {kind.name}: eps counts in its whole numbers; falsified is said of whole numbers, "
        "certified of all real numbers between them as well",
    )
    small = next((radius for radius in eps if radius.value < 1), None)
    if small is None:
        return (said,)
    counted = small.text.removesuffix("/255") if small.text.endswith("/255") else None
    idle = Diagnostic(
        code="IDL107",
        level="warning",
        message=f"eps {small.text} is less than 1, and the network reads whole numbers: nothing but the sample itself "
        "is left",
        hint="eps is in the units of the data: write -e "
        + (f"{counted} for {small.text} of their range" if counted else "1 or more"),
    )
    return said, idle
