"""The words of a report, for any output: its one-sentence verdict, figures, and strings made safe to print."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from idl_audit.values.verdicts import Reason, Verdict

if TYPE_CHECKING:
    from idl_audit.report.schema import (
        Adversarial,
        AgreementCheck,
        Audited,
        ComparedCounts,
        Comparison,
        Compression,
        Conversion,
        EpsSummary,
        Everywhere,
        Hardening,
        InputRange,
        ModelInfo,
        Monotonicity,
        PropertyResult,
        Report,
        SampleResult,
        Sensitivity,
        Summary,
        ThreatModel,
        TopInput,
        Training,
    )

REASONS: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.TIME_LIMIT: "the time ran out: raise --time-limit",
        Reason.NODE_LIMIT: "all nodes were used: raise --max-nodes",
        Reason.MEMORY_LIMIT: "it would need more memory: raise --max-memory",
        Reason.SOLVER_FAILED: "the solver gave no usable answer: try another --method",
        Reason.WORKER_FAILED: "the process working on it ended early: run it again with fewer --jobs",
        Reason.NO_UNIQUENESS_PROOF: "no proof that the model has exactly one state there",
        Reason.RELAXATION_GAP: "no attack was found, and the bounds are too loose for a proof: try a smaller eps",
        Reason.SOLVER_ONLY: "only the MIP solver says that there is no attack, which is no proof: certify with branch",
        Reason.OUTSIDE_DOMAIN: "an operator may have no value in the set (0 as a divisor, say): try a smaller eps",
        Reason.ATTACKS_FAILED: "no attack was found; nothing was proved: use certify",
        Reason.NO_ROUNDING_BOUND: "nothing is known to bound what rounding changes: try --arithmetic real",
        Reason.NO_IMPLICIT_FORM: "parts of the network are not read, so that nothing can be proved: see the warning",
        Reason.WITHIN_ROUNDING: "the margin is not above what rounding may change: try a smaller eps",
    }
)
"""What each reason for an unknown verdict means, and what would help."""

SCALARS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "norm_inf": "the largest row sum of S",
        "rho_norm_bound": "rho",
        "spectral_inf": "sqrt(p) times spectral norms",
    }
)
"""What each bound of the outputs' change by the largest change of an input is called."""

OBJECTIVES: Final[Mapping[str, str]] = MappingProxyType(
    {"l1": "the l1 norm of the state", "state": "the squared distance from the sample's state"}
)
"""What an objective of `attack --objective` that is not in a file is."""

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # colours, cursor movements
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # titles, links, device strings
    r"|\x1b[ -/]*[0-~]?"
)
_LONGEST = 500
MOST_NAMED: Final = 5
"""Inputs that a sentence names."""


def plain(value: object, *, longest: int = _LONGEST) -> str:
    """Return a string from a file as one line without escape sequences, control or direction characters.

    Every character left is one that XML can hold.
    """
    text = _ESCAPES.sub("", str(value)[: 4 * longest])
    text = "".join(" " if char in "\t\n\r\v\f\x85\u2028\u2029" else char for char in text)
    text = "".join(char for char in text if unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"})
    text = text.replace("\ufffe", "").replace("\uffff", "")
    return text if len(text) <= longest else text[: longest - 3] + "..."


def input_name(model: ModelInfo | None, k: int) -> str:
    """Return what views call input k: its number or, of a network with several inputs, its place in one of them."""
    start = 0
    for part in () if model is None else model.inputs:
        size = math.prod(part.shape)
        if k < start + size:
            return plain(part.name) if size == 1 else f"{plain(part.name)}[{k - start}]"
        start += size
    return str(k)


def listed_inputs(report: Report, entries: Sequence[TopInput]) -> str | None:
    """Return the inputs that move an output, the largest first, with their entries of S; None where there are none."""
    ordered = sorted(entries, key=lambda entry: -entry.value)
    return ", ".join(f"{input_name(report.model, entry.input)} ({figure(entry.value)})" for entry in ordered) or None


def percent(k: int, n: int) -> str:
    """Return k of n in per cent; 100 and 0 only where they are exact, `-` for n = 0."""
    if n == 0:
        return "-"
    if k in (0, n):
        return "0 %" if k == 0 else "100 %"
    return f"{min(max(100 * k / n, 0.1), 99.9):.1f} %"


def figure(value: float | None) -> str:
    """Return four significant digits, `-` for None."""
    return "-" if value is None else f"{value:.4g}"


def interval(lower: float | None, upper: float | None) -> str:
    """Return both ends with three digits, rounded outward: what is printed is a bound as well."""
    low = "-inf" if lower is None else _digits(lower, ROUND_FLOOR)
    return f"{low} .. {'inf' if upper is None else _digits(upper, ROUND_CEILING)}"


def at_most(value: float) -> str:
    """Return three digits of a number that something is proved up to, rounded down."""
    return _digits(value, ROUND_FLOOR)


def at_least(value: float) -> str:
    """Return three digits of a number from which on something is known, rounded up."""
    return _digits(value, ROUND_CEILING)


def _digits(value: float, rounding: str) -> str:
    return f"{float(Context(prec=3, rounding=rounding).create_decimal(repr(value))) + 0.0:.3g}"


def eps_text(report: Report, value: float) -> str:
    """Return the text that the threat model writes this radius in."""
    known = report.threat_model.eps if report.threat_model else ()
    return next((plain(eps.text) for eps in known if eps.value == value), f"{value:g}")


def verdict_sentence(report: Report) -> str:
    """Return the one sentence that says what was found, for who reads only one line."""
    sentence = _sentence(report)
    if report.status == "complete":
        return sentence
    why = "not all could be judged" if report.why_incomplete == "not_judged" else "the work was cut short"
    return f"Incomplete, {why}. {sentence}"


def _sentence(report: Report) -> str:
    if report.gate is not None:
        held = sum(rule.passed for rule in report.gate.rules)
        return (
            f"The gate {'passed' if report.gate.passed else 'failed'}: {held} of {len(report.gate.rules)} rules hold."
        )
    if report.verification is not None:
        found = report.verification
        were = "was" if found.checked == 1 else "were"
        claims = f"{counted(found.checked, 'claim')} {were} checked, {len(found.refused)} refused"
        if found.files:
            held = sum(one.accepted for one in found.files)
            return f"{held} of {len(found.files)} proof files are accepted: {claims}."
        return f"{plain(found.file)} is {'accepted' if found.accepted else 'refused'}: {claims}."
    if report.training is not None:
        return _training_sentence(report, report.training)
    if report.comparison is not None:
        return _comparison_sentence(report, report.comparison)
    if report.monotonicity is not None:
        return _monotone_sentence(report, report.monotonicity)
    if report.everywhere is not None:
        return _everywhere_sentence(report.everywhere)
    if report.hardening is not None:
        return _hardening_sentence(report, report.hardening)
    if report.objectives:
        return _objectives_sentence(report)
    if report.properties:
        return _properties_sentence(report)
    if report.summary is not None and report.summary.per_eps:
        return _summary_sentence(report, report.summary)
    if any(entry.part == "outputs" for entry in report.bounds):
        return _bounds_sentence(report)
    if report.sensitivity is not None:
        return _sensitivity_sentence(report.sensitivity)
    if report.compression is not None:
        return _compression_sentence(report, report.compression)
    if report.predictions:
        return _predictions_sentence(report)
    if report.conversion is not None:
        return _conversion_sentence(report, report.conversion)
    if report.model is not None:
        lacking = len(report.model.unsupported)
        read = f"{_file_name(report)} was read"
        return (
            f"{read}; {lacking} of its parts {'has' if lacking == 1 else 'have'} no implicit form here."
            if lacking
            else f"{read}; every part is supported."
        )
    return "Nothing was measured."


def _comparison_sentence(report: Report, found: Comparison) -> str:
    entries = sorted(found.per_eps, key=lambda entry: entry.eps)
    if not entries:
        return "Nothing was compared."
    return " ".join(_compared(report, found, entry) for entry in dict.fromkeys((entries[0], entries[-1])))


def _monotone_sentence(report: Report, found: Monotonicity) -> str:
    way = "falls" if found.direction == "+" else "rises"
    what = f"{plain(found.score)} never {way} while input {input_name(report.model, found.input)} rises"
    parts = [
        f"at eps {eps_text(report, entry.eps)} around {entry.certified} of {entry.n} {_noun(report, entry.n)} (it does "
        f"around {entry.falsified}, {entry.unknown} undecided)"
        for entry in found.per_eps
    ]
    return f"It is proved that {what}: {'; '.join(parts)}." if parts else "Nothing was looked at."


def _everywhere_sentence(found: Everywhere) -> str:
    if not found.statements:
        return "Nothing was looked at."
    told = []
    for one in found.statements:
        shares = f"it is proved in {share_text(one.holding)} of the range, {share_text(one.open)} is open"
        words = {
            Verdict.CERTIFIED: f"It is proved everywhere that {plain(one.text)}.",
            Verdict.FALSIFIED: f"It does not hold everywhere that {plain(one.text)}: {shares}.",
            Verdict.UNKNOWN: f"It is undecided whether {plain(one.text)}: {shares}.",
        }
        told.append(words.get(one.verdict, ""))
    return " ".join(told)


def share_text(share: float) -> str:
    """Return a share in per cent; 100 and 0 only where they are exact."""
    if share in (0.0, 1.0):
        return "100 %" if share else "0 %"
    return f"{min(max(100 * share, 0.01), 99.99):.2f} %"


def limits_text(limits: Sequence[InputRange]) -> str:
    """Return the values of some inputs in words; the whole range where none is limited."""
    told = []
    for one in limits:
        if one.lo is not None and one.hi is not None:
            told.append(f"{plain(one.name)} {one.lo:.6g} to {one.hi:.6g}")
            continue
        count, values = one.n_values or len(one.values), [plain(value) for value in one.values]
        listed = ", ".join(values) if count == len(values) else f"{values[0]} ... {values[-1]} ({count} values)"
        told.append(f"{plain(one.name)} {listed}")
    return "; ".join(told) or "the whole range"


def _compared(report: Report, found: Comparison, entry: ComparedCounts) -> str:
    start, who = f"At eps {eps_text(report, entry.eps)}: ", f"{entry.n} {_noun(report, entry.n)}"
    proved, found_apart = entry.difference_proved, entry.difference_found
    seen = "" if found_apart is None else f", {figure(found_apart)} was seen"
    apart = f"no output differs by more than {figure(proved)}" if proved is not None else "no bound of differences"
    if proved is not None and found_apart is not None and found_apart > proved:  # proofs are of reals, runs of floats
        apart, seen = f"{apart} in real arithmetic", f", {figure(found_apart)} was seen in that of the networks"
    if not found.has_classes:
        return f"{start}around {who} {apart}{seen}."
    return (
        f"{start}the two networks provably agree around {entry.certified} of {who} and have two classes around "
        f"{entry.falsified}, {entry.unknown} undecided; {apart}{seen}."
    )


def _compression_sentence(report: Report, found: Compression) -> str:
    if found.kind == "reduce" and found.states is not None:
        gone = found.states.before - found.states.after
        left = f"{found.states.after:,} of {found.states.before:,} states are left"
        same = (
            "the outputs are the same" if found.setting is None else f"{plain(found.setting)} the outputs are the same"
        )
        return f"{left}, and {same}." if gone else "Nothing can be removed: every state matters to some output."
    share = percent(found.nonzeros.after, found.nonzeros.before)
    start = f"{share} of the coefficients are left ({plain(found.kind)} {plain(found.setting or '')})"
    if found.kind == "quantize":
        start = f"The coefficients are quantised to {plain(found.setting or '')}"
    proved = found.drift.at_samples if found.drift.guaranteed is None else found.drift.guaranteed
    if proved is None:
        return f"{start}; an output moved by up to {figure(found.drift.measured)} where it was measured."
    measured = f"{figure(found.drift.measured)} was measured"
    if found.drift.guaranteed is None:
        measured = f"and {measured} there and in the box around them, where nothing is proved"
        return f"{start}; no output moves by more than {figure(proved)} at the samples, {measured}."
    return f"{start}; no output moves by more than {figure(proved)} in the box of inputs, {measured}."


def _predictions_sentence(report: Report) -> str:
    n = len(report.predictions)
    start = f"{n} {'sample has its' if n == 1 else 'samples have their'} outputs"
    if report.summary is None or report.summary.clean is None:
        return f"{start}."
    clean = report.summary.clean
    return f"{start}; {clean.k} of {clean.n} labels are predicted ({percent(clean.k, clean.n)})."


def _training_sentence(report: Report, found: Training) -> str:
    held = found.holdout
    if held.right is not None:
        fit = f"{held.right} of {held.n} classes are right ({percent(held.right, held.n)})"
    else:
        fit = f"the RMSE is {figure(held.rmse)}"
    model = f"{_file_name(report)} is written, an implicit model of {found.states:,} states"
    return f"{model}; on samples kept apart {fit}."


def _hardening_sentence(report: Report, found: Hardening) -> str:
    if found.chosen is None:
        return (
            f"{_file_name(report)} was not hardened: no trade-off certifies more at eps {found.eps:g} and keeps its "
            "clean accuracy."
        )
    before, after = found.audited_before, found.audited_after
    if before is not None and after is not None:
        return (
            f"At eps {found.eps:g}, {after.counts.certified} of {after.counts.n} samples are certified after "
            f"hardening, {before.counts.certified} before; clean accuracy {_right(after)}, {_right(before)} before."
        )
    written = plain(report.artifacts[0]) if report.artifacts else "the new file"
    return f"{written} is written; verdicts on it are `certify`'s, or --audit's."


def _right(audit: Audited) -> str:
    counts = audit.counts
    return percent(counts.n - counts.clean_wrong, counts.n)


def _summary_sentence(report: Report, summary: Summary) -> str:
    entries = sorted(summary.per_eps, key=lambda entry: entry.eps)
    if len(entries) > 1:
        return _range_sentence(report, entries[0], entries[-1])
    entry = entries[0]
    start = f"At eps {eps_text(report, entry.eps)}{_sparsity(report)}{_demanded(report)}{in_arithmetic(report)}: "
    images = _noun(report, entry.n)
    wrong = f"{entry.clean_wrong} {_wrong_before(report)}{_parts(report, entry)}"
    if _only_attacked(report):
        searched = any(sample.largest is not None for sample in report.samples)
        by = "" if searched else " by the LP's bound"
        proved = f"{entry.certified} certified{by}, " if entry.certified else ""
        withstood = entry.unknown - _not_tried(report)
        failed = f"{entry.unknown - withstood} not decided, " if entry.unknown > withstood else ""
        return (
            f"{start}{entry.falsified} of {entry.n} {images} can be attacked, {proved}{withstood} withstood these "
            f"attacks (which is no proof), {failed}{wrong}.{_quantiles(report)}"
        )
    verb = "is" if entry.certified == 1 else "are"
    return (
        f"{start}{entry.certified} of {entry.n} {images} {verb} certified, {entry.falsified} can be attacked, "
        f"{entry.unknown} undecided, {wrong}.{_quantiles(report)}"
    )


def _quantiles(report: Report) -> str:
    """Return what nine of ten, and half, of the samples are certified at, where the largest radii were looked for."""
    searched = [sample.largest for sample in report.samples if sample.largest is not None]
    if not searched:
        return ""
    found = sorted((one.certified or 0.0 for one in searched), reverse=True)
    most, half = (at_most(found[math.ceil(len(found) * share) - 1]) for share in (0.9, 0.5))
    return f" The largest certified eps is {most} or more for nine of ten, {half} or more for half of them."


def _not_tried(report: Report) -> int:
    """Return how many verdicts are unknown because attacks were cut short."""
    tried = (Reason.ATTACKS_FAILED, Reason.RELAXATION_GAP, Reason.SOLVER_ONLY, Reason.NO_IMPLICIT_FORM, None)
    results = [result for sample in report.samples for result in sample.results]
    return sum(result.verdict is Verdict.UNKNOWN and result.reason not in tried for result in results)


def _range_sentence(report: Report, first: EpsSummary, last: EpsSummary) -> str:
    radii = f"From eps {eps_text(report, first.eps)} to {eps_text(report, last.eps)}"
    start = f"{radii}{_sparsity(report)}{_demanded(report)}{in_arithmetic(report)}: "
    images = _noun(report, first.n)
    wrong = f"{first.clean_wrong} {_wrong_before(report)}{_parts(report, last)}"
    attacked = f"from {first.falsified} to {last.falsified}"
    if _only_attacked(report):
        return f"{start}{images} that can be attacked go {attacked} of {first.n}; {wrong}."
    certified = f"certified {images} go from {first.certified} to {last.certified} of {first.n}"
    return f"{start}{certified}, attacked ones {attacked}; {wrong}."


def _properties_sentence(report: Report) -> str:
    counts: Counter[PropertyResult] = Counter(entry.result for entry in report.properties if entry.problem is None)
    unjudged = len(report.properties) - counts.total()
    undecided = counts["unknown"] + counts["timeout"]
    noun = "property" if len(report.properties) == 1 else "properties"
    return (
        f"{counts['unsat']} of {len(report.properties)} {noun} hold (unsat), {counts['sat']} violated (sat), "
        f"{undecided} undecided{f', {unjudged} not judged' if unjudged else ''}{in_arithmetic(report)}."
    )


def _objectives_sentence(report: Report) -> str:
    found = report.objectives
    first = found[0]
    values = [entry.reached for entry in found if entry.reached is not None]
    bounds = [entry.proved for entry in found if entry.proved is not None]
    what = OBJECTIVES.get(first.objective, f"the objective of {plain(PurePath(first.objective).name)}")
    if not values:
        return f"No value of {what} was found."
    n = len({entry.index for entry in found})
    far, word = (max, "at most") if first.sense == "largest" else (min, "at least")
    proved = f", and {word} {figure(far(bounds))} is proved" if len(bounds) == len(found) else ""
    return (
        f"Around {n} {_noun(report, n)}{_sparsity(report)}, the {first.sense} value found of {what} is "
        f"{figure(far(values))}{proved}."
    )


def _bounds_sentence(report: Report) -> str:
    entries = sorted((entry for entry in report.bounds if entry.part == "outputs"), key=lambda entry: entry.eps)
    n = max(len(entry.samples) for entry in entries)
    parts = [f"{figure(entry.mean_width)} at eps {eps_text(report, entry.eps)}" for entry in (entries[0], entries[-1])]
    widths = " and ".join(dict.fromkeys(parts))
    return f"Over {n} {_noun(report, n)}{_sparsity(report)}, an output's interval is {widths} wide in the mean."


def _sensitivity_sentence(found: Sensitivity) -> str:
    best = found.norm_inf if found.smallest is None else found.smallest.value
    if best is None:
        return "No bound on the sensitivity was found."
    where = "whatever the input"
    if found.kind == "local":
        where = "within the boxes around the samples"
        everywhere = (found.global_norm_inf, found.rho_norm_bound, found.spectral_inf)
        if found.global_norm_inf is not None:
            where = f"{where} ({figure(min(value for value in everywhere if value is not None))} for all inputs)"
    return f"No output moves by more than {figure(best)} times the largest change of an input, {where}."


def _conversion_sentence(report: Report, found: Conversion) -> str:
    states, inputs = counted(found.n_states, "state"), counted(found.n_inputs, "input")
    size = f"{states}, {inputs} and {counted(found.n_outputs, 'output')}"
    if report.command == "compose" and report.model is not None:
        return f"{plain(report.model.path)} are one implicit model with {size}; {plain(found.well_posed.proof)}."
    start = f"{_file_name(report)} is one implicit model with {size}"
    if found.check is None:
        return f"{start}; it was not compared with the original network."
    check = found.check
    if report.model is not None and report.model.format == "implicit":
        return f"{start}, given as such: there is no other network to compare it with."
    return (
        f"{start}; on {check.n} inputs it differs from the original network by at most "
        f"{figure(check.max_rel_error)} of the largest output, and {check.argmax_agreement} of {check.n} classes agree."
    )


def near_jumps(check: AgreementCheck) -> str:
    """Return what is to be said of inputs near a jump; nothing where there are none."""
    if not check.near_jumps:
        return ""
    return f"; {check.near_jumps} inputs so near a jump that floats may take either side"


def optimisation(check: AgreementCheck) -> str:
    """Return in which form onnxruntime ran the network, where that is not the one it chooses unasked."""
    if check.optimisation in (None, "all"):
        return ""
    asked = {"off": "without graph optimisations", "basic": "with its basic graph optimisations"}[check.optimisation]
    apart = check.optimised_apart
    return f" {asked}" + ("" if apart is None else f" (all of them change outputs by {figure(apart)} of max|y|)")


def _only_attacked(report: Report) -> bool:
    return report.command.split(" ")[0] == "attack"


def is_perturbed(report: Report) -> bool:
    """Return whether the sets are what a perturbation makes of the samples."""
    return report.threat_model is not None and report.threat_model.set == "perturbed"


def parameters_text(result: SampleResult) -> str | None:
    """Return the parameters of a perturbation that an input was found with, or of the worst of several places."""
    values = result.worst if result.adversarial is None else result.adversarial.parameters
    return ", ".join(f"{value:.4g}" for value in values) or None


_PATCHED: Final = ", any values in "


def saturates(perturbation: str | None) -> bool:
    """Return whether inputs that a perturbation would move out of the range stay at its ends."""
    return not (perturbation or "").startswith(("patch=", "translate=", "rotate="))


def is_patch(threat: ThreatModel) -> bool:
    """Return whether the set is a patch at any place."""
    return (threat.perturbation or "").startswith("patch=")


def perturbation_text(threat: ThreatModel) -> str:
    """Return what changes in place of every input: brightness=-0.1:0.1, contrast=0.8:1.2."""
    changes = [] if threat.perturbation is None else threat.perturbation.split(",")
    changes += [] if threat.directions is None else [f"the directions in {threat.directions}"]
    return ", ".join(changes)


def _sparsity(report: Report) -> str:
    threat = report.threat_model
    k = threat.k if threat else None
    free = threat.free if threat else ()
    if threat is not None and threat.fair:
        return ", protected features alone changing"
    if threat is not None and threat.features is not None:
        return ", valid rows alone"
    if threat is not None and threat.set == "perturbed":
        return f"{_PATCHED if is_patch(threat) else ' times '}{plain(perturbation_text(threat))}"
    if threat is not None and threat.norm != "linf":
        return f" in the {threat.norm} norm{'' if threat.sigma is None else ' of changes in units of their radii'}"
    if free:
        return f", {_named(report, free)} moving freely"
    return "" if k is None else f" on at most {k} input{'' if k == 1 else 's'}"


def changes_text(found: Adversarial | None, most: int = MOST_NAMED) -> str | None:
    """Return which features of a table an adversarial row changes, in their words; None where no file names them."""
    if found is None or not found.changes:
        return None
    told = [f"{plain(one.feature)} {plain(one.before)} -> {plain(one.after)}" for one in found.changes[:most]]
    return ", ".join(told) + (f" and {len(found.changes) - most} more" if len(found.changes) > most else "")


PARTS: Final[Mapping[str, str]] = MappingProxyType({"limits": "outputs", "labels": "labels", "pixels": "pixels"})
"""What the parts of a demand are."""


def demand_text(report: Report) -> str:
    """Return what is demanded of the outputs, in words; empty where it is their class."""
    found = report.demand
    if found is None:
        return ""
    if found.kind == "top":
        return f"the label among the first {found.top} classes"
    if found.kind == "labels":
        return f"each label on its side of {figure(found.threshold)}"
    if found.kind == "pixels":
        return "the class of each pixel"
    which = "outputs"
    if found.outputs is not None:
        few = ", ".join(map(str, found.outputs[:MOST_NAMED])) + (", ..." if len(found.outputs) > MOST_NAMED else "")
        which = f"output{'' if len(found.outputs) == 1 else 's'} {few}"
    said = [("within", found.within, " of the sample's"), ("above", found.above, ""), ("below", found.below, "")]
    limits = [f"{word} {value:g}{more}" for word, value, more in said if value is not None]
    return f"{which} {' and '.join(limits)}"


def _demanded(report: Report) -> str:
    return f", {demand_text(report)}" if report.demand is not None else ""


def _wrong_before(report: Report) -> str:
    return "misclassified to begin with" if report.demand is None else "not so without any change"


def _parts(report: Report, entry: EpsSummary) -> str:
    """Return how many outputs, labels or pixels are certified, where each has a verdict."""
    if entry.parts is None or report.demand is None:
        return ""
    k, n = entry.parts.certified, entry.parts.n
    return f"; {k} of {n} {PARTS[report.demand.kind]} certified ({percent(k, n)})"


def in_arithmetic(report: Report) -> str:
    """Return what verdicts and unsat are proved for, where that is not real arithmetic."""
    found = {entry.arithmetic for entry in report.properties}
    found |= {report.threat_model.arithmetic} if report.threat_model else set()
    return "".join(f", in {one} arithmetic" for one in sorted(found - {"real"}))


def _named(report: Report, inputs: Sequence[int]) -> str:
    few = ", ".join(input_name(report.model, k) for k in inputs[:MOST_NAMED])
    more = f" and {len(inputs) - MOST_NAMED} more" if len(inputs) > MOST_NAMED else ""
    return f"input{'' if len(inputs) == 1 else 's'} {few}{more}"


def counted(n: int, noun: str) -> str:
    """Return a number and its noun, which takes an s."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _noun(report: Report, n: int) -> str:
    image = report.model is not None and len(report.model.input_shape) == 4
    return ("image" if image else "sample") + ("" if n == 1 else "s")


def _file_name(report: Report) -> str:
    return plain(PurePath(report.model.path).name) if report.model is not None else "The model"
