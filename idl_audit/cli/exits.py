"""How commands end: every exit code of every command on one screen; help, documents and tests are made of it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from idl_audit.report.schema import Report


class Exit(IntEnum):
    """What the shell is told."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    INCOMPLETE = 3
    INTERRUPTED = 130


MEANINGS: Final[Mapping[Exit, str]] = MappingProxyType(
    {
        Exit.DONE: "done, whatever was found",
        Exit.REFUSED: "what was judged does not hold, nothing else",
        Exit.USAGE: "wrong usage, or a file that cannot be read or is not supported",
        Exit.INCOMPLETE: "incomplete, or an internal error",
        Exit.INTERRUPTED: "interrupted",
    }
)
"""What each code means of any command."""

_LOST: Final = "a sample could not be judged (its process died, the memory ran out), or an internal error"

PARTICULAR: Final[Mapping[str, Mapping[Exit, str]]] = MappingProxyType(
    {
        "certify": {Exit.INCOMPLETE: _LOST},
        "attack": {Exit.INCOMPLETE: _LOST},
        "run": {
            Exit.DONE: "done, and every rule of level error holds",
            Exit.REFUSED: "a rule of level error does not hold",
            Exit.INCOMPLETE: f"{_LOST}; of several audits the worst code of all",
        },
        "bench": {
            Exit.INCOMPLETE: "a row could not be judged (its files are missing or refused, its process died, the "
            "memory ran out), or a result contradicts the truth"
        },
        "gate": {
            Exit.DONE: "every rule of level error holds, and the report is complete",
            Exit.REFUSED: "a rule of level error does not hold, or the report is incomplete",
            Exit.USAGE: "wrong usage, or a report that cannot be read, does not say what is asked, or cannot be "
            "compared with the baseline",
        },
        "compress": {
            Exit.REFUSED: "with --keep-certified, at no level are enough samples certified; nothing was written",
        },
        "diff": {
            Exit.DONE: "done; with --exit-code or -q, nothing got worse",
            Exit.REFUSED: "with --exit-code or -q, something got worse, or the later report is incomplete",
            Exit.USAGE: "wrong usage, or reports that cannot be read or compared",
        },
        "harden": {
            Exit.DONE: "done: a network that certifies more was written",
            Exit.REFUSED: "no trade-off certifies more and keeps clean accuracy; nothing was written",
            Exit.INCOMPLETE: _LOST,
        },
        "inspect": {
            Exit.DONE: "the file was read; with --check, all of it is supported",
            Exit.REFUSED: "with --check, something in the file is unsupported",
        },
        "verify": {Exit.DONE: "every claim holds", Exit.REFUSED: "a claim does not hold"},
    }
)
"""Command -> code -> what it means there, where that is more than MEANINGS says."""


def codes_of(command: str) -> Mapping[Exit, str]:
    """Return every code that a command can end with, and what it means: 1 only of those that judge."""
    own = PARTICULAR.get(command, {})
    return {code: own.get(code, text) for code, text in MEANINGS.items() if code is not Exit.REFUSED or code in own}


def exit_codes_of(command: str) -> str:
    """Return the paragraph on exit codes below a command's help."""
    return _paragraph(codes_of(command))


def exit_codes() -> str:
    """Return the paragraph on exit codes below the help of all."""
    return _paragraph(MEANINGS)


def _paragraph(codes: Mapping[Exit, str]) -> str:
    return f"[bold]Exit codes:[/] {'; '.join(f'[bold]{code:d}[/] {text}' for code, text in codes.items())}."


def leave(report: Report) -> None:
    """End the command as the status of its report asks for; return where the report is complete."""
    if report.status == "incomplete":
        raise typer.Exit(Exit.INCOMPLETE if report.why_incomplete == "not_judged" else Exit.INTERRUPTED)
