"""idl-audit explain."""

from __future__ import annotations

import typer

from idl_audit.commands.options.reports import Explain
from idl_audit.report.codes import CODES
from idl_audit.values.errors import OptionError


def explain(asked: Explain) -> None:
    """Do `explain`."""
    code = asked.code
    if code is None:
        for name, entry in CODES.items():
            typer.echo(f"{name}  {entry.title}")
        return
    found = CODES.get(code.strip().upper())
    if found is None:
        raise OptionError(f"there is no code {code[:40]!r}; `idl-audit explain` lists all of them, such as IDL101")
    typer.echo(f"{code.strip().upper()}: {found.title}\n\n{found.meaning}\n\n{found.advice}")
