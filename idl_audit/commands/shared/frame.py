"""What every report has: tool, time, environment, and where the time went."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from idl_audit import __version__
from idl_audit.commands.shared.runtime import told_changed
from idl_audit.report.schema import (
    AgreementCheck,
    Conversion,
    Diagnostic,
    Environment,
    Report,
    Timing,
    Tool,
    WhyIncomplete,
)
from idl_audit.values import products
from idl_audit.values.threads import in_use

LIBRARIES = ("numpy", "scipy", "highspy", "onnx", "onnxruntime", "onnx2torch", "torch")
"""Libraries whose version a figure may depend on."""


class Clock:
    """Wall time of a command, and of each step in it."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._steps: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count what happens inside towards one step."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._steps[name] = self._steps.get(name, 0.0) + time.monotonic() - start

    def timing(self) -> Timing:
        """Return the times so far."""
        return Timing(total=time.monotonic() - self._start, steps=dict(self._steps))


def framed_report(
    command: str, clock: Clock, *, seed: int | None = None, why_incomplete: WhyIncomplete | None = None, **parts: Any
) -> Report:
    """Return a report with the given sections inside the frame that all of them share.

    Args:
        command: which command made it.
        clock: where the time went.
        seed: of every random choice.
        why_incomplete: None where all of the work was done.
        parts: the sections by their names.
    """
    parts["diagnostics"] = (*parts.get("diagnostics", ()), *told_changed(_check_of(parts.get("conversion"))))
    return Report(
        tool=Tool(version=__version__),
        command=command,
        created=datetime.now(UTC).replace(microsecond=0),
        status="complete" if why_incomplete is None else "incomplete",
        why_incomplete=why_incomplete,
        environment=Environment(
            python=platform.python_version(),
            platform=f"{platform.system()} {platform.machine()}",
            versions=dict(_versions()),
            threads=in_use(),
            device=products.place(),
            seed=seed,
        ),
        timing=clock.timing(),
        **parts,
    )


def _check_of(conversion: Conversion | None) -> AgreementCheck | None:
    return None if conversion is None else conversion.check


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = []
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found.append((name, version(name)))
    return tuple(found)


def without_last_operator(operator: str | None, why: str) -> Iterator[Diagnostic]:
    """Say that the last operator of a network is left out, where one is."""
    if operator:
        yield Diagnostic(code="IDL201", level="info", message=f"the last operator, {operator}, is left out: {why}")
