"""A report from a file, with the checks that the schema cannot make: its counts are those of its samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from idl_audit.data.numbers import parse_number
from idl_audit.report.json_text import from_json
from idl_audit.report.schema import Reason, Report, SampleResult, Verdict
from idl_audit.report.wording import plain
from idl_audit.values.errors import DataError, InvalidInputError, OptionError
from idl_audit.values.text import decoded


def read_report(path: Path) -> Report:
    """Return the report in a file.

    Raises:
        DataError: where it cannot be read, is no report of this schema, or contradicts itself.
    """
    return parse_report(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """Return what is in a report's file. Raises DataError."""
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is no regular file; give a report.json that idl-audit wrote with -o")
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file; write a report with -o, for example `idl-audit run -o {path}`"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give another report") from None


def parse_report(content: bytes, path: Path) -> Report:
    """Return the report that a file's content is. Raises DataError as `read_report` does."""
    text = decoded(content, path, "give a report.json that idl-audit wrote with -o")
    try:
        report = from_json(text)
    except InvalidInputError as error:
        raise DataError(f"{path}: {error}") from None
    problem = next(_contradictions(report), None)
    if problem is not None:
        raise DataError(
            f"{path} contradicts itself: {plain(problem)}; it was changed by hand or damaged: write it anew"
        )
    return report


def _contradictions(report: Report) -> Iterator[str]:
    """Yield what cannot be true of a report that idl-audit wrote."""
    yield from _in_radii(report)
    yield from _in_samples(report)
    yield from _in_summary(report)
    yield from _in_data(report)
    yield from _in_status(report)
    yield from _in_comparison(report)
    yield from _in_monotonicity(report)
    found = report.sensitivity
    if found is not None and found.norm_inf is not None:
        largest = max((*found.row_sums, *(entry.value for entry in found.top_inputs)), default=0.0)
        if largest > found.norm_inf:
            yield f"norm_inf is {found.norm_inf:g}, and a row of S has {largest:g}"


def _in_radii(report: Report) -> Iterator[str]:
    """A radius is called by a text that says its value: a range's points by the first few digits."""
    for point in report.threat_model.eps if report.threat_model is not None else ():
        try:
            named = parse_number(point.text, option="eps")
        except OptionError:
            named = math.nan
        if not math.isclose(named, point.value, rel_tol=0.01):
            yield f"eps {point.value:g} is called '{point.text}'"


def _in_samples(report: Report) -> Iterator[str]:
    seen: set[int] = set()
    for sample in report.samples:
        if sample.index in seen:
            yield f"sample {sample.index} is listed twice"
        seen.add(sample.index)
        radii = [result.eps for result in sample.results]
        if len(set(radii)) < len(radii):
            yield f"sample {sample.index} has two verdicts at one radius"
        for result in sample.results:
            yield from _in_parts(sample.index, result)
            if report.demand is not None:
                continue
            right = sample.predicted == sample.label
            wrong = result.verdict is Verdict.CLEAN_WRONG
            decided = result.verdict in (Verdict.CERTIFIED, Verdict.FALSIFIED)
            if (wrong and right) or (decided and not right):
                yield (
                    f"sample {sample.index} is {result.verdict}, but class {sample.predicted} is predicted, and its "
                    f"label is {sample.label}"
                )


def _in_summary(report: Report) -> Iterator[str]:
    if report.summary is None:
        if any(sample.results for sample in report.samples):
            yield "its samples have verdicts, and there is no summary of them"
        return
    clean = report.summary.clean
    if clean is not None:
        counted = _clean(report)
        if (clean.k, clean.n) != counted:
            k, n = counted
            yield f"clean accuracy is given as {clean.k} of {clean.n}, and the samples have {k} of {n}"
    radii = [entry.eps for entry in report.summary.per_eps]
    if len(set(radii)) < len(radii):
        yield "the summary has one radius twice"
    verdicts = Counter((result.eps, result.verdict) for sample in report.samples for result in sample.results)
    reasons = Counter((result.eps, result.reason) for sample in report.samples for result in sample.results)
    for entry in report.summary.per_eps:
        timed_out = reasons[entry.eps, Reason.TIME_LIMIT]
        if entry.timed_out not in (None, timed_out):
            told = f"the summary counts {entry.timed_out} timed out, and the samples have {timed_out}"
            yield f"at eps {entry.eps:g} {told}"
        for verdict in Verdict:
            given, there = getattr(entry, verdict.value), verdicts.pop((entry.eps, verdict), 0)
            if given != there:
                yield f"at eps {entry.eps:g} the summary counts {given} {verdict}, and the samples have {there}"
    for eps, _ in verdicts:
        yield f"the samples have verdicts at eps {eps:g}, and the summary has not"


def _clean(report: Report) -> tuple[int, int]:
    """Return how many samples are right without any change, and of how many that is known."""
    if report.demand is not None:
        wrong = [any(r.verdict is Verdict.CLEAN_WRONG for r in sample.results) for sample in report.samples]
        return wrong.count(False), len(wrong)
    labels = [sample for sample in report.samples if sample.label is not None]
    return sum(sample.predicted == sample.label for sample in labels), len(labels)


def _in_parts(index: int, result: SampleResult) -> Iterator[str]:
    """The worst part says what the verdict is, and outputs are counted among the parts."""
    parts = result.parts
    if parts is None:
        return
    order = (Verdict.CLEAN_WRONG, Verdict.FALSIFIED, Verdict.UNKNOWN, Verdict.CERTIFIED)
    worst = next((verdict for verdict in order if getattr(parts, verdict.value)), None)
    if worst is not result.verdict and parts.n:
        yield f"sample {index} is {result.verdict}, and one of its parts {worst}"
    counts = Counter(output.verdict for output in result.outputs)
    if result.outputs and any(counts[verdict] != getattr(parts, verdict.value) for verdict in order):
        yield f"sample {index} has outputs with other verdicts than its parts are counted to have"


def _in_comparison(report: Report) -> Iterator[str]:
    found = report.comparison
    if found is None:
        return
    yield from _in_places("compared", report, [sample.index for sample in found.samples])
    counts = Counter((result.eps, result.agree) for sample in found.samples for result in sample.results)
    for entry in found.per_eps:
        own = (entry.certified, entry.falsified, entry.unknown)
        there = tuple(counts[entry.eps, word] for word in ("certified", "falsified", "unknown"))
        if own != there or entry.n != sum(there) + counts[entry.eps, None]:
            yield f"at eps {entry.eps:g} two networks agree, differ or neither {own}, and the samples say {there}"
        known = [result for sample in found.samples for result in sample.results if result.eps == entry.eps]
        limits = [math.inf if one.difference_proved is None else one.difference_proved for one in known]
        if entry.difference_proved is not None and not max(limits, default=0.0) <= entry.difference_proved:
            yield f"at eps {entry.eps:g} at most {entry.difference_proved:g} is proved of all, and more of a sample"


def _in_monotonicity(report: Report) -> Iterator[str]:
    found = report.monotonicity
    if found is None:
        return
    yield from _in_places("looked at", report, [sample.index for sample in found.samples])
    counts = Counter((result.eps, result.verdict) for sample in found.samples for result in sample.results)
    for entry in found.per_eps:
        own = (entry.certified, entry.falsified, entry.unknown)
        there = tuple(counts[entry.eps, v] for v in (Verdict.CERTIFIED, Verdict.FALSIFIED, Verdict.UNKNOWN))
        if own != there:
            yield f"at eps {entry.eps:g} the verdicts of a score are counted as {own}, and the samples have {there}"


def _in_places(what: str, report: Report, indices: list[int]) -> Iterator[str]:
    if len(set(indices)) < len(indices):
        yield f"a sample is {what} twice"
    if report.status == "complete" and report.data is not None and indices != list(report.data.indices):
        yield f"the samples that were {what} are not those that data.indices lists, although it is complete"


def _in_status(report: Report) -> Iterator[str]:
    unjudged = sum(entry.problem is not None for entry in report.properties)
    if report.status == "complete" and unjudged:
        yield f"it is complete, but {unjudged} of its properties could not be judged"
    if report.status == "incomplete" and report.gate is not None and report.gate.passed:
        yield "its gate passed, although it is incomplete"


def _in_data(report: Report) -> Iterator[str]:
    if report.data is None:
        return
    if report.data.indices and len(report.data.indices) != report.data.n:
        yield f"data.n is {report.data.n}, and {len(report.data.indices)} indices are listed"
    if report.status != "complete" or report.summary is None or not report.summary.per_eps:
        return
    if [sample.index for sample in report.samples] != list(report.data.indices):
        yield "its samples are not those that data.indices lists, although it is complete"
    for entry in report.summary.per_eps:
        if entry.n != report.data.n:
            yield f"it is complete, but at eps {entry.eps:g} only {entry.n} of {report.data.n} samples have a verdict"
