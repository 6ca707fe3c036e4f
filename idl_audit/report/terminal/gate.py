"""The gate's rules and the samples that can be attacked since the baseline, as tables."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from idl_audit.report.known import entry_name
from idl_audit.report.schema import Gate, Report, RuleResult
from idl_audit.report.terminal.layout import Section, add_columns, add_row, heading, in_colour, table, verdict_name
from idl_audit.report.wording import eps_text, figure, is_patch, perturbation_text, plain


def gate_sections(report: Report, gate: Gate, most: int | None) -> Iterable[Section]:
    """Yield the sections of a report that was judged; `most` limits the rows of samples."""
    yield "Gate", rules_table(report, gate)
    if gate.newly_falsified:
        made = table(("sample", "right"), ("eps", "right"), ("before", "left"))
        for entry in gate.newly_falsified[:most]:
            add_row(
                made, (entry.index, eps_text(report, entry.eps), in_colour(entry.before, verdict_name(entry.before)))
            )
        yield heading("Attacked now, and not in the baseline", len(gate.newly_falsified), most), made
    if gate.known:
        made = table(("known", "left"), ("samples", "left"), ("reason", "left"), ("until", "left"))
        for known in gate.known[:most]:
            state = Text(known.state, style="bold red" if known.state == "expired" else "")
            add_row(made, (state, entry_name(known), known.reason, known.until))
        yield heading("Known samples: those that are apart no rule counts", len(gate.known), most), made


def rules_table(report: Report, gate: Gate) -> Table:
    """Return one row per rule: what it asks for, what was found, k of n, and how sure that is."""
    made = table(("outcome", "left"), ("rule", "left"), ("found", "right"))
    add_columns(made, ("k of n", "right"), ("95 % interval", "right"))
    for rule in gate.rules:
        counts = None if rule.k is None or rule.n is None else f"{rule.k} of {rule.n}"
        add_row(made, (_outcome(rule), rule.rule, rule.found, counts, _interval(rule)))
    names = sorted({rule.interval.method for rule in gate.rules if rule.interval is not None})
    notes = [f"interval: {', '.join(map(plain, names))}; no rule is judged by it"] if names else []
    notes += _threat(report)
    notes += [f"baseline: {plain(gate.baseline)}"] if gate.baseline is not None else []
    since = "" if gate.baseline is None else "since the baseline: "
    notes += [f"{since}{plain(note)}" for note in gate.notes]
    if notes:
        made.caption, made.caption_justify = Text("\n".join(notes)), "left"
    return made


def _threat(report: Report) -> list[str]:
    """Say what is less than an attacker who changes all inputs towards any class: rules hold against no more."""
    threat = report.threat_model
    limits = []
    if threat is not None and threat.set == "perturbed":
        what = "within" if is_patch(threat) else "by eps times"
        limits.append(f"inputs change {what} {plain(perturbation_text(threat))} alone")
    if threat is not None and threat.norm != "linf":
        units = "" if threat.sigma is None else ", each input's in units of its own radius"
        limits.append(f"eps bounds the {threat.norm} norm of the change{units}")
    if threat is not None and threat.k is not None:
        limits.append(f"at most {threat.k} inputs change")
    if threat is not None and threat.target is not None:
        limits.append(f"only class {threat.target} counts as an attack's success")
    if threat is not None and threat.free:
        limits.append(f"inputs {', '.join(map(str, threat.free))} move through their whole range")
    return [f"threat model: {', '.join(limits)}"] if limits else []


def _outcome(rule: RuleResult) -> Text:
    if rule.passed:
        return Text("passed", style="green")
    return Text("warning", style="yellow") if rule.level == "warning" else Text("FAILED", style="bold red")


def _interval(rule: RuleResult) -> str | None:
    return None if rule.interval is None else f"{figure(rule.interval.low)} to {figure(rule.interval.high)}"
