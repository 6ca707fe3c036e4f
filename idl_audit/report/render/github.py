"""The report as annotations of GitHub Actions: lines of a log that become notes beside the files of a change."""

from __future__ import annotations

import re

from idl_audit.report.render.annotations import subject_of, told_of
from idl_audit.report.schema import Report
from idl_audit.report.wording import plain


def to_github(report: Report) -> str:
    """Return one workflow command a line; what counts most stands first, for GitHub shows ten of each kind."""
    file = subject_of(report)
    where = f"file={_property(file)}," if file else ""
    return "".join(
        f"::{told.level} {where}title={_property(told.title)}::{_data(told.message)}\n" for told in told_of(report)
    )


def _data(text: str) -> str:
    r"""Return text as the message of a command: % as %25, breaks as %0D %0A; the old ##[...] commands broken up."""
    safe = re.sub(r"##(?=\[)", "## ", plain(text, longest=2000))
    return safe.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Return text as a property of a command: colons and commas escaped as well."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
