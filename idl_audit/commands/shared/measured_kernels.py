"""What is told where a verdict rests on errors of kernels that were measured with other versions than the installed."""

from __future__ import annotations

from collections.abc import Iterator

from idl_audit.commands.shared.subject import Subject
from idl_audit.implicit.as_written import as_written, of_implicit_model
from idl_audit.implicit.kernels import other_versions
from idl_audit.report.schema import Diagnostic
from idl_audit.values.errors import UnsupportedModelError


def told_versions(subject: Subject) -> Iterator[Diagnostic]:
    """Name the version that kernels were measured with, where another one runs the network, and it has such kernels.

    Nothing is told of a network whose roundings have no known bound: no verdict rests on one.
    """
    itself = subject.network_itself or subject
    others = [one for one in other_versions() if one[0] in itself.original.name]
    if not others:
        return
    try:
        written = (
            of_implicit_model(itself.model)
            if itself.graph is None
            else as_written(itself.graph, output=itself.output_name)
        )
    except UnsupportedModelError:
        return
    if written.measured:
        versions = ", ".join(f"{name} {then}, and {now} is installed" for name, then, now in others)
        yield Diagnostic(
            code="IDL215",
            level="warning",
            message=f"float errors of kernels ({', '.join(written.measured)}) were measured with {versions}",
            hint="bounds of what floating-point arithmetic may change take twice the measured errors, or more",
        )
