"""What `run` takes from parts that may not be there yet: journal, processes, further formats. One place to look."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from idl_audit.audit.robustness import RobustnessOptions
from idl_audit.errors import OptionError
from idl_audit.report.schema import Report

_JOURNAL = "idl_audit.audit.journal"
_RENDER = "idl_audit.report.render"
_EXTRAS = "idl_audit.report.extra_files"


def worker_options(output: Path | None, *, resume: bool, jobs: int) -> dict[str, Any]:
    """Return the options on processes, and on the journal that a killed run is resumed from."""
    journal = None
    if output is not None and find_spec(_JOURNAL) is not None:
        journal = import_module(_JOURNAL).journal_beside(output)
    wanted = {"journal": (journal, None), "resume": (resume, False), "jobs": (jobs, 1)}
    known = {field.name for field in fields(RobustnessOptions)}
    for name, (value, default) in wanted.items():
        if name not in known and value != default:
            raise OptionError(f"--{name} is not available in this version; leave it out")
    return {name: value for name, (value, _) in wanted.items() if name in known}


def drop_journal(options: RobustnessOptions | None, report: Report) -> None:
    """Remove the journal of a report that is written."""
    journal = getattr(options, "journal", None)
    if journal is not None:
        import_module(_JOURNAL).drop_journal(journal, report)


def check_renderer() -> None:
    """Refuse further formats where nothing writes them."""
    if find_spec(_RENDER) is None:
        raise OptionError("further formats are not available in this version; leave reports out of [run]")


def render(report: Report, format: str, *, folder: Path) -> str:
    """Return the report as html, markdown or junit; pictures are drawn from files beside it, in `folder`."""
    more: dict[str, Any] = {}
    if format == "html" and find_spec(_EXTRAS) is not None:
        extras, _ = import_module(_EXTRAS).find_extras(
            report, folder=folder, adversarial=None, matrix=None, image_shape=None
        )
        more["extras"] = extras
    text: str = import_module(_RENDER).render(report, format, **more)
    return text
