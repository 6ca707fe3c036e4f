"""The report for people and for machines that run checks: HTML, Markdown, JUnit XML, GitHub annotations, SARIF.

Reads report.json's values only: needs neither torch, nor onnx, nor a solver; matplotlib only where pictures are drawn.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from idl_audit.report.adversarial_file import Triple
from idl_audit.report.render.extras import Extras
from idl_audit.report.schema import Report

__all__ = ["Extras", "Format", "Triple", "render"]


class Format(StrEnum):
    """The forms of a report besides JSON and the terminal's tables."""

    HTML = "html"
    MARKDOWN = "markdown"
    JUNIT = "junit"
    GITHUB = "github"
    SARIF = "sarif"


def render(report: Report, format: Format | str, *, extras: Extras | None = None) -> str:
    """Return the report in one of the forms; strings of the report are inert in each.

    Args:
        report: what was found.
        format: html, markdown, junit, github or sarif.
        extras: arrays beside the report, from which HTML draws pictures.
    """
    match Format(format):
        case Format.HTML:
            from idl_audit.report.render.html import to_html

            return to_html(report, extras or Extras())
        case Format.MARKDOWN:
            from idl_audit.report.render.markdown import to_markdown

            return to_markdown(report)
        case Format.JUNIT:
            from idl_audit.report.render.junit import to_junit

            return to_junit(report)
        case Format.GITHUB:
            from idl_audit.report.render.github import to_github

            return to_github(report)
        case Format.SARIF:
            from idl_audit.report.render.sarif import to_sarif

            return to_sarif(report)
        case unknown:
            assert_never(unknown)
