"""The report as one HTML file: nothing from elsewhere, light and dark, wide and narrow, whole without its one script.

The page forbids itself everything but its own style sheet and its script that looks for rows (both by hash), and
pictures within it. Every string passes through `plain` and jinja's escaping; only what is made here, data: links, the
style sheet and the script, is marked as safe.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePath
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from idl_audit.report.json_text import to_json
from idl_audit.report.render.extras import Extras
from idl_audit.report.render.html_pictures import (
    CHANGES,
    MAGMA,
    accuracy_chart,
    cards_of_triples,
    heat_maps,
    statement_maps,
    structure_picture,
)
from idl_audit.report.render.parts import Detail, Dot, Heat, Jump, Kind, Mark, Name, Pairs, Share, Stack
from idl_audit.report.render.sections import sections
from idl_audit.report.schema import Report, Verdict
from idl_audit.report.wording import eps_text, percent, plain, verdict_sentence

MARK: Final = "<!-- idl-audit report -->"
MOST_TRIPLES: Final = 12
"""So many adversarial inputs are in sight; the others are folded away."""
MOST_CARRIED: Final = 5000
"""A report of no more samples is carried by its page."""


def to_html(report: Report, extras: Extras) -> str:
    """Return the report as an HTML document."""
    style, script = (beside(name) for name in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; style-src {hashed(style)}; script-src {hashed(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    subject = PurePath(report.model.path).name if report.model is not None else report.command
    triples, triples_note = cards_of_triples(report, extras)
    heat, heat_note = heat_maps(report, extras)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            mark=Markup(MARK),
            policy=policy,
            style=Markup(style),
            script=Markup(script),
            title=f"{subject}: {_TITLES.get(report.command.split(' ')[0], report.command)}",
            arithmetic=_arithmetic(report),
            kicker=f"{report.tool.name} {report.tool.version}, {report.created:%d %B %Y, %H:%M} {report.created:%Z}",
            sentence=verdict_sentence(report),
            complete=report.status == "complete",
            cards=_cards(report),
            sections=sections(report),
            chart=accuracy_chart(report),
            triples=triples,
            triples_note=triples_note,
            most_triples=MOST_TRIPLES,
            heat=heat,
            heat_note=heat_note,
            magma=MAGMA,
            changes=CHANGES,
            has_pictures=any(triple.pictures for triple in triples),
            structure=structure_picture(report),
            maps=statement_maps(report),
            json=_document(report),
            schema_version=report.schema_version,
        )
        .strip()
        + "\n"
    )


def beside(name: str) -> str:
    """Return the text of a file that stands beside this one."""
    return (files("idl_audit.report.render") / name).read_text(encoding="utf-8")


def hashed(content: str) -> str:
    """Return how a policy names what it lets in."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode('utf-8')).digest()).decode()}'"


def _document(report: Report) -> Markup:
    """Return the report as a link that holds it; an empty one where it is too large for a page."""
    if len(report.samples) > MOST_CARRIED:
        return Markup("")
    text = base64.b64encode(to_json(report).encode("utf-8")).decode()
    return Markup(f"data:application/json;base64,{text}")


_TITLES: Final = {
    "certify": "robustness",
    "run": "robustness",
    "attack": "attacks",
    "sensitivity": "sensitivity",
    "bounds": "bounds",
    "convert": "implicit model",
    "inspect": "implicit model",
    "bench": "properties",
    "verify": "verification",
}


@cache
def environment() -> Environment:
    """Return what fills templates: every string is made safe."""
    made = Environment(
        loader=PackageLoader("idl_audit.report.render", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
    )
    kinds: dict[str, type] = {"dot": Dot, "mark": Mark, "name": Name, "jump": Jump, "heat": Heat, "stack": Stack}
    kinds |= {"share": Share, "pairs": Pairs, "detail": Detail}
    made.tests.update({name: (lambda value, kind=kind: isinstance(value, kind)) for name, kind in kinds.items()})
    return made


def _shown(value: object) -> object:
    """Make a string safe to show; what is marked as safe was made here."""
    return plain(value, longest=1000) if isinstance(value, str) and not isinstance(value, Markup) else value


@dataclass(frozen=True)
class _Card:
    """One figure on top of the page."""

    title: str
    value: str
    below: str
    kind: Kind


def _short(k: int, n: int) -> str:
    """Return the share in per cent, without the sign."""
    return percent(k, n).removesuffix(" %").removesuffix(".0")


def _cards(report: Report) -> list[_Card]:
    cards: list[_Card] = []
    if report.gate is not None:
        held = sum(rule.passed for rule in report.gate.rules)
        below = f"{held} of {len(report.gate.rules)} rules hold"
        passed = report.gate.passed
        cards.append(_Card("Gate", "passed" if passed else "failed", below, "good" if passed else "bad"))
    if report.summary is None or not report.summary.per_eps:
        return cards
    clean = report.summary.clean
    if clean is not None and clean.n:
        cards.append(_Card("Clean accuracy", percent(clean.k, clean.n), f"{clean.k} of {clean.n}", "info"))
    entries = sorted(report.summary.per_eps, key=lambda entry: entry.eps)
    first, last = entries[0], entries[-1]
    named: tuple[tuple[str, Verdict, Kind], ...] = (
        ("Certified", Verdict.CERTIFIED, "certified"),
        ("Falsified", Verdict.FALSIFIED, "falsified"),
        ("Unknown", Verdict.UNKNOWN, "unknown"),
    )
    only_attacked = report.command.split(" ")[0] == "attack" and not any(entry.certified for entry in entries)
    for title, verdict, kind in named[only_attacked:]:  # where nothing tried to certify, 0 % would mislead
        k, m = getattr(first, verdict.value), getattr(last, verdict.value)
        if len(entries) == 1:
            cards.append(
                _Card(title, percent(k, first.n), f"{k} of {first.n} at eps {eps_text(report, first.eps)}", kind)
            )
        else:
            value = f"{_short(k, first.n)} → {_short(m, last.n)} %"
            cards.append(_Card(title, value, f"eps {eps_text(report, first.eps)} → {eps_text(report, last.eps)}", kind))
    return cards


def _arithmetic(report: Report) -> str:
    """Return what certified speaks of, in words."""
    threat = report.threat_model
    if threat is None or threat.arithmetic == "real":
        return "exact arithmetic"
    return f"{threat.arithmetic} arithmetic as runtimes compute, whatever they round"
