"""idl-audit diff."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from idl_audit.cli.console import console, print_sections
from idl_audit.cli.exits import Exit
from idl_audit.cli.show import print_document
from idl_audit.commands.options.reports import Diff
from idl_audit.gate.difference import Difference, compare
from idl_audit.report.reading import read_report
from idl_audit.report.schema import Report, Verdict
from idl_audit.report.wording import eps_text, figure, percent, plain
from idl_audit.values.errors import DataError


def diff(asked: Diff) -> None:
    """Do `diff`."""
    if asked.more:
        _diff_several(asked)
        return
    later = read_report(asked.new)
    found = compare(read_report(asked.old), later, asked.old)
    if asked.printing.format == "json":
        print_document(json.dumps(_document(found), indent=2, allow_nan=False) + "\n")
    elif not asked.quiet:
        worse = "; ".join(found.regressions)
        sentence = f"Worse than before: {worse}." if worse else "Nothing got worse."
        print_sections(sentence, _sections(found, later, verbose=asked.printing.verbose), console())
    if (asked.exit_code or asked.quiet) and found.regressions:
        raise typer.Exit(Exit.REFUSED)


def _diff_several(asked: Diff) -> None:
    """Put more than two reports into one table, and compare each with the first where that can be done."""
    from idl_audit.report.side_by_side import Entry, SideBySide, index_of

    first, *others = paths = (asked.old, asked.new, *asked.more)
    names = _names(paths)
    reports = {path: read_report(path) for path in paths}
    found = SideBySide.of([Entry(names[path], path, reports[path]) for path in reports])
    told: dict[str, dict[str, Any]] = {}
    for path in dict.fromkeys(others):
        if path == first:
            continue
        try:
            regressions = list(compare(reports[first], reports[path], first).regressions)
            told[names[path]] = {"regressions": regressions}
        except DataError as error:
            if asked.exit_code or asked.quiet:  # the answer is asked for, and there is none
                raise
            told[names[path]] = {"not_compared": str(error)}
    worse = {name: one["regressions"] for name, one in told.items() if one.get("regressions")}
    if asked.printing.format == "json":
        document = {**index_of(found, Path("index.json")), "against": names[first], "compared": told}
        print_document(json.dumps(document, indent=2, allow_nan=False) + "\n")
    elif not asked.quiet:
        from idl_audit.report.terminal.side_by_side import sections

        to = console()
        sentence = "; ".join(f"{name}: {'; '.join(one)}" for name, one in worse.items())
        sentence = f"Worse than {names[first]}: {sentence}." if worse else f"Nothing is worse than {names[first]}."
        parts = list(sections(found, width=to.width, verbose=asked.printing.verbose))
        apart = [f"{name}: {one['not_compared']}" for name, one in told.items() if "not_compared" in one]
        if apart:
            parts.append(("Not compared", Text("\n".join(plain(line) for line in apart))))
        print_sections(sentence, parts, to)
    if (asked.exit_code or asked.quiet) and worse:
        raise typer.Exit(Exit.REFUSED)


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return what rows are called: the files' names without their ending, or with their folders where these repeat."""
    stems = [path.stem for path in dict.fromkeys(paths)]
    return {path: path.stem if stems.count(path.stem) == 1 else str(path) for path in paths}


def _document(found: Difference) -> dict[str, Any]:
    counts = [
        {"eps": after.eps, "before": before.model_dump(mode="json"), "after": after.model_dump(mode="json")}
        for _, before, after in found.counts
    ]
    changed = [
        {
            "index": one.index,
            "eps": one.eps,
            "before": one.before.value,
            "after": one.after.value,
            "worse": one.is_worse,
        }
        for one in found.changed
    ]
    (before, after) = found.clean or (None, None)
    return {
        "clean": None if before is None or after is None else {"before": _pair(before), "after": _pair(after)},
        "per_eps": counts,
        "norm_inf": None if found.norms is None else {"before": found.norms[0], "after": found.norms[1]},
        "changed": changed,
        "regressions": list(found.regressions),
        "notes": list(found.notes),
    }


def _pair(counts: tuple[int, int]) -> dict[str, int]:
    return {"k": counts[0], "n": counts[1]}


def _sections(found: Difference, later: Report, *, verbose: bool) -> Iterable[Any]:
    from idl_audit.report.terminal.layout import (
        MAX_ROWS,
        add_row,
        grid,
        heading,
        in_colour,
        pair,
        table,
        verdict_name,
    )

    if found.clean is not None or found.norms is not None:
        rows = grid()
        if found.clean is not None:
            pair(rows, "clean accuracy", " -> ".join(f"{k} of {n} ({percent(k, n)})" for k, n in found.clean))
        if found.norms is not None:
            pair(rows, "||S||_inf", " -> ".join(map(figure, found.norms)))
        yield "Change", rows
    if found.notes:
        yield "Not the same", Text("\n".join(plain(note) for note in found.notes))
    if found.counts:
        made = table(("eps", "right"), *((verdict_name(verdict), "right") for verdict in Verdict))
        for eps, before, after in found.counts:
            pairs = ((getattr(before, verdict.value), getattr(after, verdict.value)) for verdict in Verdict)
            add_row(made, (eps, *(f"{k} -> {later_k}" if k != later_k else str(k) for k, later_k in pairs)))
        yield "Verdicts", made
    if found.changed:
        most = None if verbose else MAX_ROWS
        made = table(("sample", "right"), ("eps", "right"), ("before", "left"), ("now", "left"), ("", "left"))
        for one in sorted(found.changed, key=lambda change: not change.is_worse)[:most]:
            words = [in_colour(verdict, verdict_name(verdict)) for verdict in (one.before, one.after)]
            add_row(made, (one.index, eps_text(later, one.eps), *words, "worse" if one.is_worse else "better"))
        yield heading("Samples with another verdict", len(found.changed), most), made
