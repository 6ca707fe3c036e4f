"""What differs between two reports: what makes their verdicts speak of other things, and what is only worth telling.

Files are compared by what is in them, not by their names. What an earlier version of idl-audit did not write down is
never taken for the same: the sentence says what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from idl_audit.report.schema import DataInfo, DemandInfo, PreprocessingInfo, Report, Sensitivity, ThreatModel
from idl_audit.report.wording import plain

WITHOUT_FINGERPRINTS: Final = "1.0"
"""The version of the schema that lacks fingerprints."""

THREAT_FIELDS: Final = (
    *("set", "norm", "arithmetic", "k", "target", "clip", "free", "perturbation", "picture"),
    *("features_sha256", "fair"),
)
"""Fields of a threat model that must be equal as they are; `sigma`, `directions` and `eps` are compared apart."""


def differences(report: Report, earlier: Report, *, same_radii: bool) -> Iterator[str]:
    """Yield why the two reports do not speak of the same question; the models may differ."""
    yield from _other_data(report, earlier)
    yield from _other_labels(report, earlier)
    yield from _other_reading(report, earlier)
    yield from _other_output(report, earlier)
    yield from _other_classes(report, earlier)
    yield from _other_threat(report.threat_model, earlier.threat_model, same_radii=same_radii)
    yield from _other_demand(report.demand, earlier.demand)
    if report.samples and earlier.samples:
        asked = [any(one.largest is not None for one in which.samples) for which in (report, earlier)]
        if asked[0] != asked[1]:
            yield "only one of the two reports looks for the largest radii"
    yield from _other_relation(report, earlier)


def notes(report: Report, earlier: Report) -> Iterator[str]:
    """Yield what else differs, sentence by sentence: another network, other methods, another version."""
    for note in (_model, _output_left_out, _verdicts, _methods, _radii, _sensitivity, _version):
        yield from note(report, earlier)


def _lacks(what: str, *, earlier: bool) -> str:
    """Say that one of the reports, the earlier or the later one, leaves open what must be compared."""
    which = "it" if earlier else "the later report"
    return f"{which} does not say {what}, as a version of idl-audit wrote it that did not note this; make it anew"


# --- what must be the same -------------------------------------------------------------------------------------------


def _other_data(report: Report, earlier: Report) -> Iterator[str]:
    new, old = report.data, earlier.data
    if new is None or old is None:
        if new is not old:
            yield "only one of the two reports speaks of samples"
        return
    if not _same_numbers(new, old):
        yield f"it was made with other data ({_source(old)}, not {_source(new)})"
    if sorted(new.indices) != sorted(old.indices):
        yield f"it was made with other samples of the file ({old.n}, not {new.n} of the same positions)"


def _same_numbers(new: DataInfo, old: DataInfo) -> bool:
    """Return whether the samples are the same numbers; of other positions, whether they are of the same file."""
    if sorted(new.indices) == sorted(old.indices) and None not in (new.numbers_sha256, old.numbers_sha256):
        return new.numbers_sha256 == old.numbers_sha256
    same_order = (new.layout == "nhwc") == (old.layout == "nhwc")  # the only one that moves numbers
    return new.sha256 == old.sha256 and same_order


def _source(data: DataInfo) -> str:
    return f"{plain(data.source)}, sha256 {data.sha256[:12]}, layout {data.layout}"


def _other_labels(report: Report, earlier: Report) -> Iterator[str]:
    before = dict(_labels(earlier))
    other = [index for index, label in _labels(report) if before.get(index, label) != label]
    if other:
        named = ", ".join(map(str, other[:5])) + (", ..." if len(other) > 5 else "")
        yield f"it was made with other labels (sample{'' if len(other) == 1 else 's'} {named})"


def _labels(report: Report) -> Iterator[tuple[int, int | None]]:
    yield from ((sample.index, sample.label) for sample in report.samples)
    yield from ((entry.index, entry.label) for entry in report.predictions)


def _other_reading(report: Report, earlier: Report) -> Iterator[str]:
    """Compare what is done to the numbers before the network reads them."""
    new, old = _preprocessing(report), _preprocessing(earlier)
    if new is None or old is None:
        if new is not old and WITHOUT_FINGERPRINTS in (report.schema_version, earlier.schema_version):
            yield _lacks("what preprocessing it was made with", earlier=old is None)
        return
    for name, usual in (("scale", 1.0), ("mean", 0.0), ("std", 1.0)):
        now, before = (_few(getattr(info, name), usual) for info in (new, old))
        if now != before:
            yield f"it was made with another preprocessing ({name} {_shown(before)}, not {_shown(now)})"


def _preprocessing(report: Report) -> PreprocessingInfo | None:
    if report.data is not None:
        return report.data.preprocessing
    return None if report.sensitivity is None else report.sensitivity.preprocessing


def _few(value: float | tuple[float, ...], usual: float) -> tuple[float, ...]:
    """Return numbers in one form: what is left out, and one number for all inputs, are written in several."""
    values = value if isinstance(value, tuple) else (value,)
    distinct = set(values) or {usual}
    return tuple(distinct) if len(distinct) == 1 else values


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        few = ", ".join(repr(entry) for entry in value[:4])
        return f"{few}, ..." if len(value) > 4 else few
    return "none" if value is None else plain(value)


def _other_output(report: Report, earlier: Report) -> Iterator[str]:
    new, old = report.model, earlier.model
    if new is None or old is None or new.output_name == old.output_name:
        return
    if WITHOUT_FINGERPRINTS in (report.schema_version, earlier.schema_version):
        yield _lacks("which output of the network it speaks of", earlier=old.output_name is None)
    else:
        yield f"it speaks of another output ({_shown(old.output_name)}, not {_shown(new.output_name)})"


def _other_classes(report: Report, earlier: Report) -> Iterator[str]:
    """Compare what makes classes of one output; of several, the largest is always the class.

    Reports of before there were thresholds are of networks with several, or say nothing of classes.
    """
    new, old = report.model, earlier.model
    if new is not None and old is not None and new.threshold != old.threshold:
        yield f"it makes classes by another threshold ({_shown(old.threshold)}, not {_shown(new.threshold)})"


def _other_relation(report: Report, earlier: Report) -> Iterator[str]:
    """Compare what a score is to do, and which other network stands beside the first."""
    new, old = report.monotonicity, earlier.monotonicity
    if new is not None and old is not None:
        asked = [(one.input, one.direction, one.label) for one in (old, new)]
        if asked[0] != asked[1]:
            ways = [f"{k}{way}" + ("" if label is None else f" of class {label}") for k, way, label in asked]
            yield f"it asks about another score (input {ways[0]}, not {ways[1]})"
    elif new is not old:
        yield "only one of the two reports asks which way a score goes"
    whole, earlier_whole = report.everywhere, earlier.everywhere
    if whole is not None and earlier_whole is not None:
        statements = [[(one.text, one.range_sha256) for one in which.statements] for which in (earlier_whole, whole)]
        if statements[0] != statements[1]:
            yield "it asks about other statements, or another range of the inputs"
    elif whole is not earlier_whole:
        yield "only one of the two reports asks about the whole range of the inputs"
    now, before = report.comparison, earlier.comparison
    if now is not None and before is not None:
        if now.second.sha256 != before.second.sha256:
            yield f"it compares with another network ({plain(before.second.path)}, not {plain(now.second.path)})"
    elif now is not before:
        yield "only one of the two reports compares two networks"


def _other_demand(new: DemandInfo | None, old: DemandInfo | None) -> Iterator[str]:
    """Compare what is demanded of the outputs: None stands for the class of the largest."""
    if new is None or old is None:
        if new is not old:
            words = ["the class" if one is None else one.kind for one in (old, new)]
            yield f"it asks something else of the outputs ({words[0]}, not {words[1]})"
        return
    for name in DemandInfo.model_fields:
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            yield f"it asks something else of the outputs ({name} {_shown(before)}, not {_shown(now)})"


def _other_threat(new: ThreatModel | None, old: ThreatModel | None, *, same_radii: bool) -> Iterator[str]:
    if new is None or old is None:
        if new is not old:
            yield "only one of the two reports has a threat model"
        return
    for name in THREAT_FIELDS:
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            yield f"it has another threat model ({name} {_shown(before)}, not {_shown(now)})"
    yield from _other_radii_of_inputs(new, old)
    if new.directions_sha256 != old.directions_sha256:
        before, now = (f"{_shown(one.directions)}, sha256 {str(one.directions_sha256)[:12]}" for one in (old, new))
        yield f"it has another threat model (the directions in a file: {before}, not {now})"
    before_eps, now_eps = ({point.value for point in threat.eps} for threat in (old, new))
    if same_radii and before_eps != now_eps:
        texts = [", ".join(plain(point.text) for point in threat.eps) for threat in (old, new)]
        yield f"it has another threat model (eps {texts[0]}, not {texts[1]})"
    if not before_eps & now_eps:
        yield "the two reports have no radius in common"


def _other_radii_of_inputs(new: ThreatModel, old: ThreatModel) -> Iterator[str]:
    """Compare the numbers of --sigma: a name may stand for other radii by now, and two names for the same."""
    if new.sigma is None or old.sigma is None:
        if new.sigma != old.sigma:
            yield f"it has another threat model (sigma {_shown(old.sigma)}, not {_shown(new.sigma)})"
    elif new.sigma_sha256 is None or old.sigma_sha256 is None:
        yield _lacks("which radii the file of --sigma had", earlier=old.sigma_sha256 is None)
    elif new.sigma_sha256 != old.sigma_sha256:
        before, now = (f"{_shown(one.sigma)}, sha256 {str(one.sigma_sha256)[:12]}" for one in (old, new))
        yield f"it has another threat model (the radii in the file of sigma: {before}, not {now})"


# --- what is told ----------------------------------------------------------------------------------------------------


def _model(report: Report, earlier: Report) -> Iterator[str]:
    new, old = report.model, earlier.model
    if new is None or old is None:
        return
    for which, one in (("earlier", old), ("later", new)):
        if one.external_files and not one.external_sha256:
            yield f"the {which} report does not say which weights lay beside the network"
            return
    if new.sha256 != old.sha256:
        named = [f"{plain(one.path)}, sha256 {one.sha256[:12]}" for one in (old, new)]
        yield f"another network: {named[0]}; now {named[1]}"
    if new.arch != old.arch:
        yield f"another --arch: {_shown(old.arch)}; now {_shown(new.arch)}"


def _output_left_out(report: Report, earlier: Report) -> Iterator[str]:
    new, old = report.model, earlier.model
    if new is not None and old is not None and new.stripped_output != old.stripped_output:
        yield f"left out at the output: {_shown(old.stripped_output)}; now {_shown(new.stripped_output)}"


def _verdicts(report: Report, earlier: Report) -> Iterator[str]:
    new, old = (None if one.summary is None else one.summary.verdicts_of for one in (report, earlier))
    if new is not None and old is not None and new != old:
        yield f"verdicts of {old}; now of {new}: attack leaves unknown what certify may prove"


def _methods(report: Report, earlier: Report) -> Iterator[str]:
    new, old = report.summary, earlier.summary
    if new is None or old is None or not new.methods or not old.methods:
        return
    if new.methods != old.methods:
        yield f"other methods: {plain(', '.join(old.methods))}; now {plain(', '.join(new.methods))}"
    if new.time_limit != old.time_limit:
        yield f"another time limit: {_seconds(old.time_limit)}; now {_seconds(new.time_limit)}"
    if new.max_nodes != old.max_nodes:
        yield f"another limit of nodes: {_shown(old.max_nodes)}; now {_shown(new.max_nodes)}"


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value!r} s"


def _radii(report: Report, earlier: Report) -> Iterator[str]:
    gone = [point for point in _eps(earlier) if point not in _eps(report)]
    if gone:
        yield f"no longer asked: eps {', '.join(gone)}"


def _eps(report: Report) -> list[str]:
    return [] if report.threat_model is None else [plain(point.text) for point in report.threat_model.eps]


def _sensitivity(report: Report, earlier: Report) -> Iterator[str]:
    new, old = report.sensitivity, earlier.sensitivity
    if new is None or old is None:
        return
    if not same_matrix(report, earlier):
        yield "the two matrices S are not compared: they are for other inputs"
    for name, word in (("method", "method of S"), ("state_bounds", "bounds of states for S")):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            yield f"another {word}: {_shown(before)}; now {_shown(now)}"
    if _groups(new) != _groups(old) and None not in (_groups(new), _groups(old)):
        yield "other groups of inputs"


def _groups(found: Sensitivity) -> str | None:
    return None if found.groups is None else found.groups.sha256


def same_matrix(report: Report, earlier: Report) -> bool:
    """Return whether both matrices S are about the same pairs of inputs: all, or those in boxes of one radius."""
    new, old = report.sensitivity, earlier.sensitivity
    return new is not None and old is not None and (new.kind, new.eps) == (old.kind, old.eps)


def _version(report: Report, earlier: Report) -> Iterator[str]:
    if report.tool.version != earlier.tool.version:
        yield f"another version of idl-audit: {plain(earlier.tool.version)}; now {plain(report.tool.version)}"
