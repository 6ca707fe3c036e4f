"""The preflight of every command that reads samples: what `data.preflight` finds, as the report's diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.shared.subject import Subject
from idl_audit.commands.shared.whole_numbers import told_whole
from idl_audit.data.numbers import Eps
from idl_audit.data.overview import Overview
from idl_audit.data.preflight import inspect_samples
from idl_audit.data.samples import Samples, SampleStream
from idl_audit.report.schema import Diagnostic
from idl_audit.values.box import is_whole

Teller: TypeAlias = Callable[[Diagnostic], None]
"""Is told what the preflight finds, before the work begins."""


def tell_nobody(found: Diagnostic) -> None:
    """Leave it to the report."""


def preflight(
    subject: Subject,
    samples: Samples | SampleStream,
    options: DataOptions,
    *,
    eps: Sequence[Eps] = (),
    tell: Teller = tell_nobody,
    seen: Overview | None = None,
) -> tuple[Diagnostic, ...]:
    """Return what is odd about the samples, and tell it at once: clean accuracy first. Changes nothing.

    `seen` is what an earlier pass over the samples has found.
    """
    findings = inspect_samples(
        samples, options.preprocessing, options.layout, subject.input_shape, subject.original, eps=eps, seen=seen
    )
    idle = {"IDL106"} if subject.info.stripped_output else set()  # IDL201 says that margins are not of these
    if is_whole(subject.point_type):
        idle |= {"IDL102", "IDL103", "IDL107"}
    found = (
        *told_whole(subject, eps),
        *(
            Diagnostic(code=one.code, level=one.level, message=one.message, hint=one.hint, where=samples.source)
            for one in findings
            if one.code not in idle
        ),
    )
    for diagnostic in found:
        tell(diagnostic)
    return found
