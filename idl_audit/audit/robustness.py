"""attack and certify: a verdict for every sample at every radius."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from idl_audit.analysis.attacks import Found, Network
from idl_audit.analysis.margins import margins, predictions
from idl_audit.analysis.verdicts import Options, Result, Verdict, decide
from idl_audit.arrays import AnyArray, Float32Array, FloatArray, IntArray
from idl_audit.audit.adversarial_pictures import MOST_PICTURES, Pair, draw_pairs
from idl_audit.audit.boxes import sample_sets, threat_model
from idl_audit.audit.certificates import certificate_of, write_certificate
from idl_audit.audit.frame import Clock, framed_report
from idl_audit.audit.samples import DataOptions, describe_data, open_samples
from idl_audit.audit.sensitivity_pictures import check_new_folder
from idl_audit.audit.subject import ModelOptions, Subject, check_agreement, describe_conversion, open_subject
from idl_audit.box import Box, InputSet
from idl_audit.data.numbers import Eps, check_eps_units
from idl_audit.data.radii import read_radii
from idl_audit.data.samples import Samples
from idl_audit.errors import DataError, OptionError, UnsupportedModelError
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
    sparse: int | None = None
    """At most so many inputs change; None stands for all of them."""
    sigma: Path | None = None
    """File of per-input radii, each multiplied by eps."""
    save: Path | None = None
    certificates: Path | None = None
    """Folder for a certificate of each certified sample."""
    images: Path | None = None
    """Folder for pictures of the adversarial inputs."""
    image_shape: tuple[int, ...] | None = None
    """Of an input as an image, where the model reads it flat."""
    force: bool = False
    model: ModelOptions = field(default_factory=ModelOptions)

    def __post_init__(self) -> None:
        if self.sparse is not None and self.sparse < 1:
            raise OptionError(f"--sparse must be 1 or more, not {self.sparse}")
        if self.image_shape is not None and self.images is None:
            raise OptionError("--image-shape says how pictures are drawn; ask for them with --images DIR")
        if self.save is not None:
            check_new_file(self.save, force=self.force)
        for folder in filter(None, (self.images, self.certificates)):
            check_new_folder(folder, force=self.force)
        if self.certificates is not None and (self.sparse is not None or self.target is not None):
            raise OptionError("--certificates are written for boxes and for all rivals at once")

    @property
    def target(self) -> int | None:
        """The only class that counts as success; None stands for any but the label."""
        return self.verdicts.attack.target


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
    goal: int | None = None

    def of(self, point: Float32Array, label: int) -> tuple[str, ...]:
        """Return the names of those that misclassify the point, as the goal where there is one."""
        return tuple(name for name, network in self.networks if self._errs(network, point, label))

    def _errs(self, network: Network, point: Float32Array, label: int) -> bool:
        predicted = int(predictions(network(point[None]))[0])
        return predicted != label if self.goal is None else predicted == self.goal

    def margin(self, point: Float32Array, label: int) -> float | None:
        """Return y_label - max over the others by the original network; None where an output is no number."""
        outputs = self.networks[0][1](point[None])
        return float(margins(outputs, label)[0]) if np.isfinite(outputs).all() else None

    def survives_8bit(self, point: Float32Array, label: int, bounds: tuple[float, float]) -> bool:
        """Return whether the point is still an attack when it is stored as 8-bit pixels."""
        lo, hi = bounds
        levels = np.round((point.astype(np.float64) - lo) / (hi - lo) * 255)
        pixels = (lo + levels * (hi - lo) / 255).astype(np.float32)
        return self._errs(self.networks[0][1], pixels, label)


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
        given = open_samples(subject, options.data)
        _check_target(subject, options)
        _check_image_shape(subject, options)
        samples = _to_attack(given, options)
        sigma = _radii(given, subject, options)
    labels = _labels(samples)
    preprocessing = options.data.preprocessing
    with clock.step("check"):
        inputs = preprocessing.apply(samples.inputs[:CHECKED_SAMPLES], subject.input_shape)
        check = check_agreement(subject, inputs.astype(float))
    # refuses samples outside the valid range before any work is done
    sets = sample_sets(samples, options.eps, preprocessing.bounds, sigma=sigma, k=options.sparse)
    decided: list[_Decided] = []
    complete = True
    with clock.step("verdicts"):
        try:
            for sample in _decide_all(subject, samples, labels, sets, options, watch):
                decided.append(sample)
        except KeyboardInterrupt:
            complete = False
    with clock.step("second opinion"):
        try:
            opinions = _opinions(subject, decided, options)
        except KeyboardInterrupt:
            own = (subject.original.name, subject.network(preprocessing))
            opinions, complete = _Opinions((own,), options.target), False
    certificates: tuple[str, ...] = ()
    unwritten: list[Diagnostic] = []
    if options.certificates is not None:
        with clock.step("certificates"):
            certificates, unwritten = _certificates(subject, decided, sets, options)
    artifacts = (*_save(options, decided), *_draw(options, decided, subject), *certificates)
    return framed_report(
        command,
        clock,
        seed=options.verdicts.seed,
        complete=complete,
        model=subject.info,
        conversion=describe_conversion(subject.model, rescale(subject.model), check, subject.seconds),
        data=describe_data(samples, options.data),
        threat_model=threat_model(
            options.eps, preprocessing.bounds, sigma=options.sigma, k=options.sparse, target=options.target
        ),
        summary=_summary(decided, options.eps),
        samples=tuple(_sample_report(sample, options, opinions) for sample in decided),
        diagnostics=(
            *_left_out(given, samples, options),
            *_diagnostics(decided, check, samples, subject, options),
            *unwritten,
        ),
        artifacts=artifacts,
    )


def _certificates(
    subject: Subject, decided: list[_Decided], all_sets: list[list[InputSet]], options: RobustnessOptions
) -> tuple[tuple[str, ...], list[Diagnostic]]:
    """Write a certificate for every certified sample and radius; return the files, and what has none."""
    assert options.certificates is not None
    preprocessing = options.data.preprocessing
    model, network = subject.in_data_units(preprocessing), subject.network(preprocessing)
    options.certificates.mkdir(exist_ok=True)
    files, missing = [], []
    for sample, sets in zip(decided, all_sets, strict=False):  # an interrupted audit has fewer samples
        for radius, box in zip(options.eps, sets, strict=True):
            result = sample.results.get(radius.value)
            if result is None or result.verdict is not Verdict.CERTIFIED or not isinstance(box, Box):
                continue
            found = certificate_of(
                model,
                network,
                box,
                sample.label,
                result.chain,
                index=sample.index,
                eps=radius.value,
                seconds=options.verdicts.time_limit,
            )
            if found is None:
                missing.append(f"{sample.index} (eps {radius.text})")
                continue
            path = options.certificates / f"sample-{sample.index}-eps-{radius.value:g}.npz"
            write_certificate(
                path,
                found,
                sha256=subject.info.sha256,
                output_name=subject.output_name,
                preprocessing=preprocessing,
                force=options.force,
            )
            files.append(str(path))
    if not missing:
        return tuple(files), []
    message = f"certified, but no certificate that stands alone was found for the samples {', '.join(missing[:10])}"
    return tuple(files), [Diagnostic(code="IDL205", level="warning", message=message)]


def _check_classifier(subject: Subject) -> None:
    if subject.model.n_outputs < 2:
        raise UnsupportedModelError(
            [f"{subject.path} has one output; verdicts compare the outputs of a classifier with at least two"]
        )


def _check_target(subject: Subject, options: RobustnessOptions) -> None:
    q = subject.model.n_outputs
    if options.target is not None and not 0 <= options.target < q:
        raise OptionError(f"--target must be a class of the network, 0 to {q - 1}, not {options.target}")


def _check_image_shape(subject: Subject, options: RobustnessOptions) -> None:
    shape, p = options.image_shape, subject.model.n_inputs
    if shape is not None and math.prod(shape) != p:
        raise OptionError(f"--image-shape {','.join(map(str, shape))} has {math.prod(shape)} numbers, and an input {p}")


def _labels(samples: Samples) -> IntArray:
    if samples.labels is None:
        raise DataError(
            f"{samples.source} has no labels; put an array 'labels' into an .npz, or give a file with --labels"
        )
    return samples.labels


def _radii(samples: Samples, subject: Subject, options: RobustnessOptions) -> FloatArray | None:
    """Return the per-input radii; without them eps is a distance, and must have the data's units."""
    if options.sigma is not None:
        return read_radii(options.sigma, subject.input_shape, options.data.layout)
    check_eps_units(options.eps, float(samples.inputs.min()), float(samples.inputs.max()))
    return None


def _to_attack(samples: Samples, options: RobustnessOptions) -> Samples:
    """Return the samples that the options speak of, as they are to be attacked.

    Samples of the target class itself are left out. U_card needs inputs that stay exactly as they are, which float32
    must be able to say: its samples are those that the network reads, rounded to float32.
    """
    labels = _labels(samples)
    if options.target is not None:
        others = labels != options.target
        if not others.any():
            raise DataError(f"all samples have the target class {options.target} already; give others")
        samples = replace(
            samples, inputs=samples.inputs[others], labels=labels[others], indices=samples.indices[others]
        )
    if options.sparse is not None:
        samples = replace(samples, inputs=_in_float32(samples.inputs, options.data.preprocessing.bounds))
    return samples


def _in_float32(inputs: FloatArray, bounds: tuple[float, float] | None) -> FloatArray:
    """Return the nearest float32 numbers; where one lies outside the valid range and the input does not, the next."""
    lo, hi = bounds or (-np.inf, np.inf)
    rounded = inputs.astype(np.float32)
    above, below = np.nextafter(rounded, np.float32(np.inf)), np.nextafter(rounded, np.float32(-np.inf))
    rounded = np.where((rounded.astype(np.float64) < lo) & (inputs >= lo), above, rounded)
    rounded = np.where((rounded.astype(np.float64) > hi) & (inputs <= hi), below, rounded)
    return rounded.astype(np.float64)


def _left_out(given: Samples, samples: Samples, options: RobustnessOptions) -> Iterator[Diagnostic]:
    """Say what a targeted or a sparse attack made of the samples."""
    if options.target is not None:
        left = given.n - samples.n
        yield Diagnostic(
            code="IDL203",
            level="info",
            message=f"only class {options.target} counts: falsified means that the network predicts it, certified that "
            f"the label outranks it everywhere; {left} sample{'' if left == 1 else 's'} of that class left out",
        )
    kept = given.inputs if options.target is None else given.inputs[_labels(given) != options.target]
    rounded = int((kept != samples.inputs).any(axis=1).sum())
    if rounded:
        yield Diagnostic(
            code="IDL204",
            level="info",
            message=f"{rounded} of {samples.n} samples are no float32 numbers; the sparse sets are those around the "
            "samples rounded to float32, as the network reads them",
        )


def _decide_all(
    subject: Subject,
    samples: Samples,
    labels: IntArray,
    all_sets: list[list[InputSet]],
    options: RobustnessOptions,
    watch: Watcher,
) -> Iterator[_Decided]:
    """Yield the samples as they are decided, all radii of one before the next."""
    preprocessing = options.data.preprocessing
    model, network = subject.in_data_units(preprocessing), subject.network(preprocessing)
    counts: Counter[str] = Counter()
    total = samples.n * len(options.eps)
    watch(Progress(0, total, counts))
    for index, x, label, sets in zip(samples.indices, samples.inputs, labels, all_sets, strict=True):
        sample = _Decided(int(index), int(label), x, -1)
        for radius, inputs in sorted(zip(options.eps, sets, strict=True), key=lambda pair: pair[0].value):
            result = _decide(model, network, sample, inputs, options.verdicts)
            sample.results[radius.value], sample.predicted = result, result.predicted
            counts[result.verdict.value] += 1
            watch(Progress(counts.total(), total, counts))
        yield sample


def _decide(model: ImplicitModel, network: Network, sample: _Decided, inputs: InputSet, options: Options) -> Result:
    """Decide one radius; what flips the class within a smaller set flips it within this one."""
    for smaller in sample.results.values():
        settled = smaller.verdict in (Verdict.FALSIFIED, Verdict.CLEAN_WRONG)
        if settled and (smaller.found is None or bool(inputs.contains(smaller.found.point))):
            return replace(smaller, lower=None, seconds=0.0)
    return decide(model, network, sample.centre, sample.label, inputs, options)


def _opinions(subject: Subject, decided: list[_Decided], options: RobustnessOptions) -> _Opinions:
    """Return who is asked about attacks: the original network and, where an attack succeeded, a second opinion."""
    preprocessing = options.data.preprocessing
    own = (subject.original.name, subject.network(preprocessing))
    if not any(result.verdict is Verdict.FALSIFIED for sample in decided for result in sample.results.values()):
        return _Opinions((own,), options.target)
    second = subject.second_opinion(preprocessing)
    return _Opinions((own,) if second is None else (own, second), options.target)


def _summary(decided: list[_Decided], eps: Sequence[Eps]) -> Summary:
    right = sum(sample.predicted == sample.label for sample in decided)
    per_eps = []
    for radius in eps:
        counts = Counter(s.results[radius.value].verdict for s in decided if radius.value in s.results)
        named = {verdict.value: counts[verdict] for verdict in Verdict}
        per_eps.append(EpsSummary(eps=radius.value, n=counts.total(), **named))
    return Summary(clean=CleanAccuracy(k=right, n=len(decided)), per_eps=tuple(per_eps))


def _sample_report(sample: _Decided, options: RobustnessOptions, opinions: _Opinions) -> SampleReport:
    bounds = options.data.preprocessing.bounds
    results = tuple(
        _result_report(eps, sample, sample.results[eps.value], opinions, bounds)
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
    bounds: tuple[float, float] | None,
) -> SampleResult:
    adversarial = None
    if result.verdict is Verdict.FALSIFIED and result.found is not None:
        adversarial = _adversarial(sample, result.found, opinions, bounds)
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
    sample: _Decided, found: Found, opinions: _Opinions, bounds: tuple[float, float] | None
) -> Adversarial:
    change = np.abs(found.point.astype(np.float64) - sample.centre)
    moved = found.point != sample.centre.astype(np.float32)
    return Adversarial(
        class_=found.predicted if found.predicted >= 0 else None,
        linf=float(change.max()),
        l0=int(moved.sum()),
        margin=opinions.margin(found.point, sample.label),
        confirmed_by=opinions.of(found.point, sample.label),
        survives_8bit=None if bounds is None else opinions.survives_8bit(found.point, sample.label, bounds),
    )


def _successes(decided: list[_Decided]) -> list[tuple[_Decided, float, Found]]:
    """Return every sample, radius and point where an attack succeeded."""
    return [
        (sample, eps, result.found)
        for sample in decided
        for eps, result in sample.results.items()
        if result.verdict is Verdict.FALSIFIED and result.found is not None
    ]


def _draw(options: RobustnessOptions, decided: list[_Decided], subject: Subject) -> tuple[str, ...]:
    """Draw the adversarial inputs for --images and return the names of written files."""
    if options.images is None:
        return ()
    texts = {radius.value: radius.text for radius in options.eps}
    pairs = [
        Pair(sample.index, sample.label, found.predicted, texts[eps], sample.centre, found.point)
        for sample, eps, found in _successes(decided)[:MOST_PICTURES]
    ]
    shape = options.image_shape or subject.input_shape
    files = draw_pairs(options.images, pairs, shape=shape, bounds=options.data.preprocessing.bounds)
    return tuple(str(file) for file in files)


def _save(options: RobustnessOptions, decided: list[_Decided]) -> tuple[str, ...]:
    """Write the adversarial inputs to --save and return the names of written files."""
    if options.save is None:
        return ()
    rows = _successes(decided)
    size = decided[0].centre.size if decided else 0
    arrays: dict[str, AnyArray] = {
        "inputs": np.array([found.point for _, _, found in rows], np.float32).reshape(len(rows), size),
        "labels": np.array([sample.label for sample, _, _ in rows], np.int64),
        "predictions": np.array([found.predicted for _, _, found in rows], np.int64),
        "eps": np.array([eps for _, eps, _ in rows], np.float64),
        "indices": np.array([sample.index for sample, _, _ in rows], np.int64),
        "originals": np.array([sample.centre for sample, _, _ in rows], np.float64).reshape(len(rows), size),
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
