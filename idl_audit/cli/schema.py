"""idl-audit schema."""

from __future__ import annotations

import json

import typer

from idl_audit.cli.show import command
from idl_audit.report.schema import Report


@command
def schema() -> None:
    """Print the JSON Schema of the reports."""
    typer.echo(json.dumps(Report.model_json_schema(), indent=2))
