"""The report's sections on the samples, and on all of them together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.robustness.opinions import Opinions
from idl_audit.commands.shared.audited import Audited
from idl_audit.commands.shared.sample_tasks import Decided, Setting
from idl_audit.commands.shared.samples import describe_data
from idl_audit.commands.shared.subject import Subject
from idl_audit.data.features import Features
from idl_audit.data.numbers import Eps
from idl_audit.data.overview import look_at
from idl_audit.decide.ladder import Parts, Result, climbed, in_order_of_cost
from idl_audit.decide.minimal import METHOD as NEAREST
from idl_audit.decide.perturbed import methods_of
from idl_audit.decide.rungs import RUNGS
from idl_audit.report.schema import (
    Adversarial,
    CleanAccuracy,
    DataInfo,
    EpsSummary,
    FeatureChange,
    LargestEps,
    OutputResult,
    PartCounts,
    SampleReport,
    SampleResult,
    ShardInfo,
    Summary,
)
from idl_audit.search.judge import Found
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.input_sets import InputSet
from idl_audit.values.perturbations import Perturbed
from idl_audit.values.query import Misclassification, SampleQuery
from idl_audit.values.verdicts import Reason, Verdict


def data_section(found: Audited, options: RobustnessOptions) -> DataInfo:
    """Return the report's section on the data: of a shard, that of its own samples, with what all of them are."""
    whole = describe_data(found.samples, options.data, found.seen)
    if options.shard is None:
        return whole
    own = found.samples.rows(np.array(options.shard.places(found.samples.n)))
    shard = ShardInfo(
        number=options.shard.number, of=options.shard.of, n=whole.n, numbers_sha256=found.seen.numbers_sha256
    )
    return describe_data(own, options.data, look_at(own)).model_copy(update={"shard": shard})


def methods_of_all(setting: Setting, subject: Subject, found: Audited, options: RobustnessOptions) -> tuple[str, ...]:
    """Return the methods that were asked for, or all that are usual for one of the sets of a few samples."""
    if options.verdicts.methods is not None:
        return options.verdicts.methods
    sets = (setting.sets(x, subject)[0] for x in found.seen.tried.inputs)
    usual = [(*((NEAREST,) if options.is_minimal else ()), *_climbed(subject, one, options)) for one in sets]
    return in_order_of_cost([RUNGS[name].begins or name for names in usual for name in names])


def _climbed(subject: Subject, inputs: InputSet | Perturbed, options: RobustnessOptions) -> tuple[str, ...]:
    if isinstance(inputs, Perturbed):
        return methods_of(subject.model, inputs, 0, None)
    if options.demanded.beside_class:
        return climbed(subject.model, SampleQuery(inputs, ()))
    return climbed(subject.model, Misclassification(inputs, (), 0))


def summary_of(
    command: str, decided: Sequence[Decided], options: RobustnessOptions, methods: tuple[str, ...]
) -> Summary:
    """Return the counts of verdicts at every radius, and the accuracy without any change."""
    wrong = sum(any(r.verdict is Verdict.CLEAN_WRONG for r in sample.results.values()) for sample in decided)
    per_eps = []
    for radius in options.eps:
        results = [s.results[radius.value] for s in decided if radius.value in s.results]
        counts = Counter(result.verdict for result in results)
        named = {verdict.value: counts[verdict] for verdict in Verdict}
        timed_out = sum(result.reason is Reason.TIME_LIMIT for result in results)
        parts = _counted([result.parts for result in results])
        per_eps.append(EpsSummary(eps=radius.value, n=counts.total(), timed_out=timed_out, parts=parts, **named))
    limit = options.verdicts.time_limit
    return Summary(
        clean=None if options.demanded.within is not None else CleanAccuracy(k=len(decided) - wrong, n=len(decided)),
        per_eps=tuple(per_eps),
        verdicts_of="attack" if command == "attack" else "certify",
        methods=methods,
        time_limit=limit if math.isfinite(limit) else None,
        max_nodes=options.verdicts.max_nodes,
    )


def _counted(parts: Sequence[Parts | None]) -> PartCounts | None:
    """Return how many parts of some samples have which verdict; None where they have none."""
    known = [one for one in parts if one is not None]
    if not known:
        return None
    counts = {verdict.value: sum(one.count(verdict) for one in known) for verdict in Verdict}
    return PartCounts(n=sum(counts.values()), **counts)


def _outputs(parts: Parts | None) -> tuple[OutputResult, ...]:
    """Return what is known of each output, where parts are outputs."""
    if parts is None or not parts.least.size:
        return ()
    each = zip(parts.numbers.tolist(), parts.verdicts, parts.least.tolist(), parts.greatest.tolist(), strict=True)
    return tuple(
        OutputResult(
            output=number,
            verdict=verdict,
            least=least if math.isfinite(least) else None,
            greatest=greatest if math.isfinite(greatest) else None,
        )
        for number, verdict, least, greatest in each
    )


def sample_section(sample: Decided, options: RobustnessOptions, opinions: Opinions, audit: Audited) -> SampleReport:
    """Return what a report says of one sample."""
    results = tuple(
        _result_report(eps, sample, sample.results[eps.value], opinions, options)
        for eps in options.eps
        if eps.value in sample.results
    )
    predicted = sample.predicted if sample.predicted >= 0 else None
    label = sample.label if sample.label >= 0 else None
    found = sample.largest
    largest = None
    if found is not None:
        largest = LargestEps(certified=found.certified, falsified=found.falsified, tried=found.tried)
    groups = dict(audit.groups.get(sample.index, {}))
    return SampleReport(
        index=sample.index,
        label=label,
        predicted=predicted,
        fingerprint=audit.fingerprint(sample.index),
        groups=groups,
        results=results,
        largest=largest,
    )


def _result_report(
    eps: Eps,
    sample: Decided,
    result: Result,
    opinions: Opinions,
    options: RobustnessOptions,
) -> SampleResult:
    adversarial = None
    if result.verdict is Verdict.FALSIFIED and result.found is not None:
        adversarial = _adversarial(sample, result.found, opinions, options)
    margin = result.nearest if result.found is None else result.found.margin
    margin = None if result.verdict is Verdict.CLEAN_WRONG or not opinions.has_scores else margin
    return SampleResult(
        eps=eps.value,
        verdict=result.verdict,
        method=result.method,
        lower_bound=result.lower,
        margin_found=None if margin is None or not math.isfinite(margin) else margin,
        adversarial=adversarial,
        reason=result.reason,
        worst=result.worst,
        seconds=round(result.seconds, 6),
        queries=result.queries or None,
        parts=_counted([result.parts]),
        outputs=_outputs(result.parts),
        beaten=result.beaten,
    )


def _adversarial(sample: Decided, found: Found, opinions: Opinions, options: RobustnessOptions) -> Adversarial:
    bounds = options.data.preprocessing.bounds
    assert sample.centre is not None  # that of a falsified sample is kept
    change = np.abs(found.point.astype(np.float64) - sample.centre)
    moved = found.point != sample.centre.astype(opinions.floats).astype(np.float32)
    return Adversarial(
        class_=found.predicted if found.predicted >= 0 and sample.label >= 0 else None,
        linf=float(change.max()),
        l0=int(moved.sum()),
        margin=opinions.margin(found.point, sample),
        confirmed_by=opinions.of(found, sample),
        survives_8bit=None if bounds is None else opinions.survives_8bit(found.point, sample, bounds),
        broken=opinions.broken(found.point, sample),
        changes=_changes(opinions.features, sample.centre, found.point),
        parameters=found.parameters,
        distance=None if options.norm == "linf" else float(np.linalg.norm(change, 2 if options.norm == "l2" else 1)),
    )


def _changes(features: Features | None, before: FloatArray, after: Float32Array) -> tuple[FeatureChange, ...]:
    """Return the features that differ, in their own words."""
    if features is None:
        return ()
    found = features.changes(before, after.astype(np.float64))
    return tuple(FeatureChange(feature=name, before=old, after=new) for name, old, new in found)
