"""idl-audit explain."""

from __future__ import annotations

import typer

from idl_audit.commands.options.reports import Explain
from idl_audit.report.codes import CODES, WORDS
from idl_audit.values.errors import OptionError


def explain(asked: Explain) -> None:
    """Do `explain`."""
    code = asked.code
    if code is None:
        for name, entry in {**CODES, **WORDS}.items():
            typer.echo(f"{name}  {entry.title}")
        return
    name = code.strip().upper()
    if name not in CODES:
        name = code.strip().lower().replace("-", "_")
    found = {**CODES, **WORDS}.get(name)
    if found is None:
        raise OptionError(
            f"there is no code {code[:40]!r}; `idl-audit explain` lists all of them, such as IDL101, and the words of "
            "verdicts"
        )
    typer.echo(f"{name}: {found.title}\n\n{found.meaning}\n\n{found.advice}")
