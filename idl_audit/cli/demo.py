"""idl-audit demo."""

from __future__ import annotations

import typer

from idl_audit.cli.console import progress_bar
from idl_audit.cli.exits import leave
from idl_audit.cli.show import show, teller, written
from idl_audit.commands.demo import DATA, MODEL, SHAPE, audit_demo
from idl_audit.commands.options.models import Demo
from idl_audit.report.extra_files import find_extras
from idl_audit.report.render import Format, render
from idl_audit.report.wording import plain
from idl_audit.values.files import write_whole


def demo(asked: Demo) -> None:
    """Do `demo`."""
    folder, quiet = asked.folder, asked.quiet
    with progress_bar("demo", quiet=quiet) as watch:
        report = audit_demo(folder, force=asked.force, watch=watch, tell=teller(quiet=quiet))
    report = written(report, folder / "report.json")
    extras, _ = find_extras(report, folder=folder.absolute(), adversarial=None, matrix=None, image_shape=SHAPE)
    page = render(report, Format.HTML, extras=extras)
    write_whole(folder / "report.html", lambda file: file.write(page.encode("utf-8")))
    if not quiet:
        show(report, asked.printing)
        typer.echo(f"\n{_next(plain(folder))}")
    leave(report)


def _next(folder: str) -> str:
    """Return what lies in the folder, and what to try there."""
    return (
        f"In {folder}: report.html (open it in a browser), report.json, proofs/, adversarial.npz, {MODEL}, {DATA}.\n"
        "Try next:\n"
        f"  cd {folder}\n"
        f"  idl-audit inspect {MODEL}\n"
        f"  idl-audit sensitivity {MODEL} --top 3\n"
        f"  idl-audit verify proofs/sample-0-eps-0.02.npz {MODEL}\n"
        f"  idl-audit init {MODEL} {DATA} && idl-audit run --force"
    )
