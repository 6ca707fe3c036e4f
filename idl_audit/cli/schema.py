"""idl-audit schema."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from idl_audit.cli.show import command


class Described(StrEnum):
    """What has a JSON Schema."""

    REPORT = "report"
    CONFIG = "config"


@command
def schema(
    of: Annotated[
        Described, typer.Argument(help="The reports, or the configuration.", metavar="WHAT")
    ] = Described.REPORT,
) -> None:
    """Print the JSON Schema of the reports, or of the configuration."""
    if of is Described.CONFIG:
        from idl_audit.config.settings import Settings

        typer.echo(json.dumps(Settings.model_json_schema(), indent=2))
        return
    from idl_audit.report.schema import Report

    typer.echo(json.dumps(Report.model_json_schema(), indent=2))
