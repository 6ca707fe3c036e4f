"""idl-audit schema."""

from __future__ import annotations

import json

import typer

from idl_audit.commands.options.reports import Schema


def schema(asked: Schema) -> None:
    """Do `schema`."""
    if asked.of == "config":
        from idl_audit.config.files import schema as of_configuration

        typer.echo(json.dumps(of_configuration(), indent=2))
        return
    from idl_audit.report.schema import Report

    typer.echo(json.dumps(Report.model_json_schema(), indent=2))
