"""attack and certify: a verdict for every sample at every radius."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from idl_audit.analysis.attacks import Found, Network
from idl_audit.analysis.margins import predictions
from idl_audit.analysis.verdicts import Options, Result, Verdict, decide
from idl_audit.arrays import AnyArray, Float32Array, FloatArray, IntArray
from idl_audit.audit.boxes import box_threat_model, sample_boxes
from idl_audit.audit.frame import Clock, framed_report
from idl_audit.audit.samples import DataOptions, describe_data, open_samples
from idl_audit.audit.subject import ModelOptions, Subject, check_agreement, describe_conversion, open_subject
from idl_audit.box import Box
from idl_audit.data.numbers import Eps, check_eps_units
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.samples import Samples
from idl_audit.errors import DataError, UnsupportedModelError
from idl_audit.files import check_new_file
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.scaling import rescale
from idl_audit.npz import write_npz
from idl_audit.report.schema import (
    Adversarial,
    AgreementCheck,
    CleanAccuracy,
    Diagnostic,
    EpsSummary,
    Reason,
    Report,
    SampleReport,
    SampleResult,
    Summary,
)
from idl_audit.report.schema import Verdict as ReportedVerdict

CHECKED_SAMPLES = 100
"""The agreement check runs on the first so many samples."""

POOR_ACCURACY = 0.5
"""Below this share of correct predictions the data are probably not read as the network was trained to."""


@dataclass(frozen=True)
class RobustnessOptions:
    """What attack and certify are asked for."""

    eps: tuple[Eps, ...]
    data: DataOptions
    verdicts: Options = field(default_factory=Options)
    save: Path | None = None
    force: bool = False
    model: ModelOptions = field(default_factory=ModelOptions)

    def __post_init__(self) -> None:
        if self.save is not None:
            check_new_file(self.save, force=self.force)


@dataclass(frozen=True)
class Progress:
    """How far the work has come, for whoever shows it."""

    done: int
    total: int
    verdicts: Counter[str]


Watcher = Callable[[Progress], None]


@dataclass
class _Decided:
    """One sample with its results so far, radius by radius."""

    index: int
    label: int
    centre: FloatArray
    predicted: int
    results: dict[float, Result] = field(default_factory=dict)


@dataclass(frozen=True)
class _Opinions:
    """Who confirmed which attack: the networks in data units, the first the original's."""

    networks: tuple[tuple[str, Network], ...]

    def of(self, point: Float32Array, label: int) -> tuple[str, ...]:
        """Return the names of those that misclassify the point."""
        return tuple(name for name, network in self.networks if int(predictions(network(point[None]))[0]) != label)


def audit_robustness(
    command: str, path: Path, options: RobustnessOptions, *, watch: Watcher = lambda progress: None
) -> Report:
    """Decide every sample at every radius and report on it; Ctrl-C leaves a valid, incomplete report.

    Raises:
        InvalidInputError: where the model, the data or an option is refused; nothing is written.
        AgreementError: where the implicit model is not the network.
    """
    clock = Clock()
    with clock.step("read and convert"):
        subject = open_subject(path, options.model)
        _check_classifier(subject)
        samples = open_samples(subject, options.data)
    labels = _labels(samples, options)
    preprocessing = options.data.preprocessing
    with clock.step("check"):
        inputs = preprocessing.apply(samples.inputs[:CHECKED_SAMPLES], subject.input_shape)
        check = check_agreement(subject, inputs.astype(float))
    # refuses samples outside the valid range before any work is done
    boxes = sample_boxes(samples, options.eps, preprocessing.bounds)
    decided: list[_Decided] = []
    complete = True
    with clock.step("verdicts"):
        try:
            for sample in _decide_all(subject, samples, labels, boxes, options, watch):
                decided.append(sample)
        except KeyboardInterrupt:
            complete = False
    with clock.step("second opinion"):
        try:
            opinions = _opinions(subject, decided, preprocessing)
        except KeyboardInterrupt:
            opinions, complete = _Opinions(((subject.original.name, subject.network(preprocessing)),)), False
    artifacts = _save(options, decided)
    return framed_report(
        command,
        clock,
        seed=options.verdicts.seed,
        complete=complete,
        model=subject.info,
        conversion=describe_conversion(subject.model, rescale(subject.model), check, subject.seconds),
        data=describe_data(samples, options.data),
        threat_model=box_threat_model(options.eps, preprocessing.bounds),
        summary=_summary(decided, options.eps),
        samples=tuple(_sample_report(sample, options, opinions, subject) for sample in decided),
        diagnostics=tuple(_diagnostics(decided, check, samples, subject, options)),
        artifacts=artifacts,
    )


def _check_classifier(subject: Subject) -> None:
    if subject.model.n_outputs < 2:
        raise UnsupportedModelError(
            [f"{subject.path} has one output; verdicts compare the outputs of a classifier with at least two"]
        )


def _labels(samples: Samples, options: RobustnessOptions) -> IntArray:
    if samples.labels is None:
        raise DataError(
            f"{samples.source} has no labels; put an array 'labels' into an .npz, or give a file with --labels"
        )
    check_eps_units(options.eps, float(samples.inputs.min()), float(samples.inputs.max()))
    return samples.labels


def _decide_all(
    subject: Subject,
    samples: Samples,
    labels: IntArray,
    boxes: list[list[Box]],
    options: RobustnessOptions,
    watch: Watcher,
) -> Iterator[_Decided]:
    """Yield the samples as they are decided, all radii of one before the next."""
    preprocessing = options.data.preprocessing
    model, network = subject.in_data_units(preprocessing), subject.network(preprocessing)
    counts: Counter[str] = Counter()
    total = samples.n * len(options.eps)
    watch(Progress(0, total, counts))
    for index, x, label, sets in zip(samples.indices, samples.inputs, labels, boxes, strict=True):
        sample = _Decided(int(index), int(label), x, -1)
        for radius, box in sorted(zip(options.eps, sets, strict=True), key=lambda pair: pair[0].value):
            result = _decide(model, network, sample, box, options.verdicts)
            sample.results[radius.value], sample.predicted = result, result.predicted
            counts[result.verdict.value] += 1
            watch(Progress(counts.total(), total, counts))
        yield sample


def _decide(model: ImplicitModel, network: Network, sample: _Decided, box: Box, options: Options) -> Result:
    """Decide one radius; what flips the class within a smaller set flips it within this one."""
    for smaller in sample.results.values():
        settled = smaller.verdict in (Verdict.FALSIFIED, Verdict.CLEAN_WRONG)
        if settled and (smaller.found is None or bool(box.contains(smaller.found.point))):
            return replace(smaller, lower=None, seconds=0.0)
    return decide(model, network, sample.centre, sample.label, box, options)


def _opinions(subject: Subject, decided: list[_Decided], preprocessing: Preprocessing) -> _Opinions:
    """Return who is asked about attacks: the original network and, where an attack succeeded, a second opinion."""
    own = (subject.original.name, subject.network(preprocessing))
    if not any(result.verdict is Verdict.FALSIFIED for sample in decided for result in sample.results.values()):
        return _Opinions((own,))
    second = subject.second_opinion(preprocessing)
    return _Opinions((own,) if second is None else (own, second))


def _summary(decided: list[_Decided], eps: Sequence[Eps]) -> Summary:
    right = sum(sample.predicted == sample.label for sample in decided)
    per_eps = []
    for radius in eps:
        counts = Counter(s.results[radius.value].verdict for s in decided if radius.value in s.results)
        named = {verdict.value: counts[verdict] for verdict in Verdict}
        per_eps.append(EpsSummary(eps=radius.value, n=counts.total(), **named))
    return Summary(clean=CleanAccuracy(k=right, n=len(decided)), per_eps=tuple(per_eps))


def _sample_report(sample: _Decided, options: RobustnessOptions, opinions: _Opinions, subject: Subject) -> SampleReport:
    network = subject.network(options.data.preprocessing)
    bounds = options.data.preprocessing.bounds
    results = tuple(
        _result_report(eps, sample, sample.results[eps.value], opinions, network, bounds)
        for eps in options.eps
        if eps.value in sample.results
    )
    predicted = sample.predicted if sample.predicted >= 0 else None
    return SampleReport(index=sample.index, label=sample.label, predicted=predicted, results=results)


def _result_report(
    eps: Eps,
    sample: _Decided,
    result: Result,
    opinions: _Opinions,
    network: Network,
    bounds: tuple[float, float] | None,
) -> SampleResult:
    adversarial = None
    if result.verdict is Verdict.FALSIFIED and result.found is not None:
        adversarial = _adversarial(sample, result.found, opinions, network, bounds)
    return SampleResult(
        eps=eps.value,
        verdict=ReportedVerdict(result.verdict.value),
        method=result.method,
        lower_bound=result.lower,
        margin_found=None if result.found is None or not math.isfinite(result.found.margin) else result.found.margin,
        adversarial=adversarial,
        reason=None if result.reason is None else Reason(result.reason.value),
        seconds=result.seconds,
    )


def _adversarial(
    sample: _Decided, found: Found, opinions: _Opinions, network: Network, bounds: tuple[float, float] | None
) -> Adversarial:
    change = np.abs(found.point.astype(np.float64) - sample.centre)
    moved = found.point != sample.centre.astype(np.float32)
    return Adversarial(
        class_=found.predicted if found.predicted >= 0 else None,
        linf=float(change.max()),
        l0=int(moved.sum()),
        margin=found.margin if math.isfinite(found.margin) else None,
        confirmed_by=opinions.of(found.point, sample.label),
        survives_8bit=None if bounds is None else _survives_8bit(found.point, sample.label, network, bounds),
    )


def _survives_8bit(point: Float32Array, label: int, network: Network, bounds: tuple[float, float]) -> bool:
    """Return whether the point is still misclassified when it is stored as 8-bit pixels."""
    lo, hi = bounds
    levels = np.round((point.astype(np.float64) - lo) / (hi - lo) * 255)
    return int(network((lo + levels * (hi - lo) / 255).astype(np.float32)[None])[0].argmax()) != label


def _save(options: RobustnessOptions, decided: list[_Decided]) -> tuple[str, ...]:
    """Write the adversarial inputs to --save and return the names of written files."""
    if options.save is None:
        return ()
    rows = [
        (sample, eps, result.found)
        for sample in decided
        for eps, result in sample.results.items()
        if result.verdict is Verdict.FALSIFIED and result.found is not None
    ]
    size = decided[0].centre.size if decided else 0
    arrays: dict[str, AnyArray] = {
        "inputs": np.array([found.point for _, _, found in rows], np.float32).reshape(len(rows), size),
        "labels": np.array([sample.label for sample, _, _ in rows], np.int64),
        "predictions": np.array([found.predicted for _, _, found in rows], np.int64),
        "eps": np.array([eps for _, eps, _ in rows], np.float64),
        "indices": np.array([sample.index for sample, _, _ in rows], np.int64),
    }
    write_npz(options.save, arrays, force=options.force)
    return (str(options.save),)


def _diagnostics(
    decided: list[_Decided], check: AgreementCheck, samples: Samples, subject: Subject, options: RobustnessOptions
) -> Iterator[Diagnostic]:
    right = sum(sample.predicted == sample.label for sample in decided)
    if decided and right < POOR_ACCURACY * len(decided):
        yield Diagnostic(
            code="IDL101",
            level="warning",
            message=f"the network predicts the label of only {right} of {len(decided)} samples",
            hint="give the preprocessing it was trained with: --scale, --mean, --std, --layout",
            where=samples.source,
        )
    if subject.info.stripped_output:
        yield Diagnostic(
            code="IDL201",
            level="info",
            message=f"the last operator, {subject.info.stripped_output}, is left out: it changes no ranking of outputs",
        )
    yield from _close_calls(decided, check, samples, subject, options)


def _close_calls(
    decided: list[_Decided], check: AgreementCheck, samples: Samples, subject: Subject, options: RobustnessOptions
) -> Iterator[Diagnostic]:
    """Name certified samples whose margin is smaller than what float32 inference may differ by."""
    if not decided:
        return
    network = subject.network(options.data.preprocessing)
    outputs = network(samples.inputs[:CHECKED_SAMPLES].astype(np.float32))
    slack = 2 * check.max_rel_error * float(np.abs(outputs).max())
    close = [
        sample.index
        for sample in decided
        for result in sample.results.values()
        if result.verdict is Verdict.CERTIFIED and result.lower is not None and result.lower < slack
    ]
    if close:
        yield Diagnostic(
            code="IDL202",
            level="warning",
            message=f"{len(close)} certified margins are below {slack:.1e}, what float32 inference may differ by",
            hint="the proof holds in exact arithmetic for the weights in the file",
            where=f"samples {', '.join(map(str, close[:10]))}",
        )
