"""What the schemas of JUnit reports ask for, as one table: every document that has no fault here is valid by both.

The stricter is Apache Ant's (JUnitReport task), which fixes the order of elements and the required attributes; that of
Jenkins' xUnit plugin allows more elements, in any order, and times as plain decimals only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from xml.etree import ElementTree

CONTENT: Final = {
    "testsuites": "(testsuite )*",
    "testsuite": "properties (testcase )*system-out system-err ",
    "properties": "(property )*",
    "property": "",
    "testcase": "((skipped|error|failure) )?",
    "skipped": "",
    "error": "",
    "failure": "",
    "system-out": "",
    "system-err": "",
}
"""Element -> its children in their order, as a regular expression over their names."""

_ANY, _TOKEN, _COUNT, _SECONDS = r"(?s:.*)", r"\S(?s:.*)", r"\d{1,9}", r"\d+(\.\d+)?"
_DATE = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d"

REQUIRED: Final[dict[str, dict[str, str]]] = {
    "testsuite": {
        "name": _TOKEN,
        "timestamp": _DATE,
        "hostname": _TOKEN,
        "tests": _COUNT,
        "failures": _COUNT,
        "errors": _COUNT,
        "time": _SECONDS,
        "package": _ANY,
        "id": _COUNT,
    },
    "property": {"name": _TOKEN, "value": _ANY},
    "testcase": {"name": _ANY, "classname": _ANY, "time": _SECONDS},
    "error": {"type": _ANY},
    "failure": {"type": _ANY},
}
OPTIONAL: Final[dict[str, dict[str, str]]] = {
    "testsuite": {"skipped": _COUNT},
    "skipped": {"message": _ANY},
    "error": {"message": _ANY},
    "failure": {"message": _ANY},
}
TEXT: Final = frozenset({"error", "failure", "skipped", "system-out", "system-err"})
"""Elements that may have text; in others there is white space alone."""


def faults(document: str) -> list[str]:
    """Return what is not as the schemas ask for, and where counts do not agree with what is counted."""
    root = ElementTree.fromstring(document.encode())
    if root.tag != "testsuites":
        return [f"the root is {root.tag}"]
    return [*(fault for element in root.iter() for fault in _faults(element)), *_wrong_counts(root)]


def _faults(element: ElementTree.Element) -> Iterator[str]:
    name = element.tag
    if name not in CONTENT:
        yield f"<{name}> is unknown"
        return
    children = "".join(f"{child.tag} " for child in element)
    if not re.fullmatch(CONTENT[name], children):
        yield f"<{name}> holds {children[:100]}"
    required, optional = REQUIRED.get(name, {}), OPTIONAL.get(name, {})
    yield from (f"<{name}> lacks {key}" for key in required if key not in element.attrib)
    for key, value in element.attrib.items():
        pattern = {**required, **optional}.get(key)
        if pattern is None:
            yield f"<{name}> has the unknown attribute {key}"
        elif not re.fullmatch(pattern, value):
            yield f"<{name}> has {key} = {value!r}"
    if name not in TEXT and (element.text or "").strip():
        yield f"<{name}> has text"
    yield from (f"text after <{child.tag}>" for child in element if (child.tail or "").strip())


def _wrong_counts(root: ElementTree.Element) -> Iterator[str]:
    for place, suite in enumerate(root):
        if suite.get("id") != str(place):
            yield f"suite {place} has the id {suite.get('id')}"
        counted = {"tests": "testcase", "failures": "testcase/failure", "errors": "testcase/error"}
        for key, path in (*counted.items(), ("skipped", "testcase/skipped")):
            if suite.get(key) not in (str(len(suite.findall(path))), None):
                yield f"suite {place} has {key} = {suite.get(key)}"
