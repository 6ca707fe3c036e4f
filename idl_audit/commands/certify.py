"""attack and certify: a verdict for every sample at every radius."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from idl_audit import __version__
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.shared.adversarial_pictures import MOST_PICTURES, Pair, draw_pairs
from idl_audit.commands.shared.boxes import sample_sets, threat_model
from idl_audit.commands.shared.class_output import gives_class
from idl_audit.commands.shared.deciding import Decided, SampleTask, Setting, decide_all, query_of
from idl_audit.commands.shared.demands import Demanded, read_as, read_demanded
from idl_audit.commands.shared.features import named_inputs
from idl_audit.commands.shared.float_margins import float_margins, told_denied, told_unknown, without_bound
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.journal import TOOL, Journal, digest, entry_of, samples_of
from idl_audit.commands.shared.measured_kernels import told_versions
from idl_audit.commands.shared.preflight import Teller, preflight, tell_nobody
from idl_audit.commands.shared.progress import Watcher
from idl_audit.commands.shared.samples import describe_data
from idl_audit.commands.shared.subject import Subject, check_agreement, describe_conversion, open_subject
from idl_audit.data.features import Features, read_features
from idl_audit.data.numbers import Eps, check_eps_units
from idl_audit.data.radii import read_radii
from idl_audit.data.samples import Samples
from idl_audit.decide.ladder import Parts, Result, climbed, in_order_of_cost
from idl_audit.decide.rungs import RUNGS
from idl_audit.implicit.scaling import rescale
from idl_audit.proof.float_margins import Unbounded
from idl_audit.report.pictures import accuracy_points, plot_accuracy
from idl_audit.report.schema import (
    Adversarial,
    AgreementCheck,
    CleanAccuracy,
    Diagnostic,
    EpsSummary,
    FeatureChange,
    LargestEps,
    OutputResult,
    PartCounts,
    Report,
    SampleReport,
    SampleResult,
    Summary,
    WhyIncomplete,
)
from idl_audit.search.judge import Found
from idl_audit.values.arrays import AnyArray, Float32Array, FloatArray, IntArray
from idl_audit.values.box import InputSet
from idl_audit.values.demand import AmongFirst, Demand, Limits, PartedQuery, PixelClasses
from idl_audit.values.errors import DataError, OptionError, UnsupportedModelError
from idl_audit.values.files import write_whole
from idl_audit.values.network import Network
from idl_audit.values.npz import write_npz
from idl_audit.values.query import Misclassification, Query, SampleQuery
from idl_audit.values.verdicts import Reason, Verdict

CHECKED_SAMPLES = 100
"""The agreement check runs on the first so many samples."""
FAULTS = frozenset({Reason.WORKER_FAILED.value, Reason.MEMORY_LIMIT.value})
"""Why a sample that was lost has no verdict; the time limit is an answer."""

MOST_BROKEN = 20
"""Parts that a report names of those that one point breaks."""
_NOT_FLIPPED = (Verdict.CERTIFIED, Verdict.UNKNOWN)

CHECKED_OPINIONS = 20
"""A second opinion must agree with the original network on so many samples that were attacked."""


@dataclass(frozen=True)
class _Opinions:
    """Who confirmed which attack: the networks in data units, the first the original's."""

    networks: tuple[tuple[str, Network], ...]
    goal: int | None = None
    """The class that attacks aim at."""
    floats: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    """What the original network reads of the data."""
    why_alone: str = ""
    """Why there is no second opinion, where there might be one."""
    features: Features | None = None
    """What the inputs are called."""
    has_scores: bool = True
    """Whether the original network shows scores; one that ends in ArgMax shows the class alone, and no margin."""

    def of(self, found: Found, sample: Decided) -> tuple[str, ...]:
        """Return the names of those that err at the point of a sample.

        The judge has asked the original network about it, alone, and exact arithmetic where that counts.
        """
        (name, _), *others = self.networks
        exact = (found.confirmed_by,) if found.confirmed_by else ()
        return (name, *exact, *(name for name, network in others if self._confirms(network, found.point, sample)))

    def _confirms(self, network: Network, point: Float32Array, sample: Decided) -> bool:
        """Whether a second opinion errs at the point; one that cannot be run on it has none."""
        try:
            return self._errs(network, point, sample)
        except UnsupportedModelError:
            return False

    def _errs(self, network: Network, point: Float32Array, sample: Decided) -> bool:
        """Whether a network misclassifies the point, as the goal where there is one, or breaks what is demanded."""
        return bool(sample.query(network(point[None]).shape[1], self.goal).holds(network(point[None]))[0])

    def margin(self, point: Float32Array, sample: Decided) -> float | None:
        """Return how far the original network is from erring, y_label - max over the others; None where no number."""
        outputs = self.networks[0][1](point[None])
        if not (self.has_scores and np.isfinite(outputs).all()):
            return None
        return float(sample.query(outputs.shape[1]).distance(outputs)[0])

    def broken(self, point: Float32Array, sample: Decided) -> tuple[int, ...]:
        """Return the first parts of what is demanded that the original network breaks there."""
        outputs = self.networks[0][1](point[None])[0]
        query = sample.query(outputs.size)
        return tuple(query.broken(outputs)[:MOST_BROKEN].tolist()) if isinstance(query, PartedQuery) else ()

    def survives_8bit(self, point: Float32Array, sample: Decided, bounds: tuple[float, float]) -> bool:
        """Return whether the point is still an attack when it is stored as 8-bit pixels."""
        lo, hi = bounds
        levels = np.round((point.astype(np.float64) - lo) / (hi - lo) * 255)
        pixels = (lo + levels * (hi - lo) / 255).astype(np.float32)
        return self._errs(self.networks[0][1], pixels, sample)


def audit_robustness(
    command: str,
    path: Path,
    options: RobustnessOptions,
    *,
    watch: Watcher = lambda progress: None,
    tell: Teller = tell_nobody,
) -> Report:
    """Decide every sample at every radius and report on it; Ctrl-C leaves a valid, incomplete report.

    Raises:
        InvalidInputError: where the model, the data or an option is refused; nothing is written.
        AgreementError: where the implicit model is not the network.
    """
    clock = Clock()
    with clock.step("read and convert"):
        asked = options.demanded
        subject = read_as(open_subject(path, options.model, whole=asked.of_values), options.model, asked)
        demanded = read_demanded(subject, options.data, options.model, asked)
        given = demanded.samples
        _check_target(subject, options)
        _check_image_shape(subject, options)
        _refuse_unlabelled(demanded, subject)
        free = named_inputs(subject, options.ignore or (), "--ignore")
        features = _features(subject, options)
        samples = _to_attack(given, options, subject)
        sigma = _radii(given, subject, options)
    preprocessing = options.data.preprocessing
    with clock.step("check"):
        inputs = preprocessing.apply(samples.inputs[:CHECKED_SAMPLES], subject.input_shape)
        check = check_agreement(subject, inputs.astype(float))
    with clock.step("preflight"):
        radii = () if sigma is not None else options.eps
        labelled = replace(given, labels=demanded.single)
        noted = preflight(subject, labelled, options.data, eps=radii, tell=tell)
    # refuses samples outside the valid range before any work is done
    sets = _sets(samples, features, sigma, free, options)
    sets = [[subject.readable(one, preprocessing) for one in row] for row in sets]
    options = _with_attacks(options)
    tasks = _tasks(samples, demanded, demanded.each(samples, subject, subject.network(preprocessing)), sets)
    key = _key(command, subject, tasks, sigma, features, options)
    if options.certificates is not None:
        options.certificates.mkdir(exist_ok=True)
    found: dict[int, Decided] = {}
    told: list[Diagnostic] = []
    why: WhyIncomplete | None = None
    with clock.step("verdicts"):
        try:
            setting = _setting(subject, sigma, free, features, options)
            for one in _decide_with_journal(setting, subject, tasks, key, options, watch, found):
                told.append(one)
                tell(one)
        except KeyboardInterrupt:
            why = "interrupted"
    subject.check_unchanged()
    decided = [found[position] for position in sorted(found)]
    with clock.step("second opinion"):
        try:
            opinions = _opinions(subject, decided, options)
        except KeyboardInterrupt:
            own = (subject.original.name, subject.network(preprocessing))
            opinions, why = _Opinions((own,), options.target, _floats(subject, options)), "interrupted"
    opinions = replace(opinions, has_scores=not gives_class(subject.model), features=features)
    certificates = [file for sample in decided for file in sample.certificates]
    artifacts = (*_save(options, decided), *_draw(options, decided, subject), *certificates)
    report = framed_report(
        command,
        clock,
        seed=options.verdicts.seed,
        why_incomplete=why or _not_judged(decided),
        model=subject.info,
        conversion=describe_conversion(subject.model, rescale(subject.model), check, subject.seconds),
        data=describe_data(samples, options.data),
        threat_model=threat_model(
            options.eps,
            preprocessing.bounds,
            sigma=options.sigma,
            radii=sigma,
            k=options.sparse,
            target=options.target,
            arithmetic=options.verdicts.arithmetic,
            free=free,
            features=features,
            fair=options.fair,
        ),
        demand=demanded.info,
        summary=_summary(command, decided, options, _methods(subject, tasks, options)),
        samples=tuple(_sample_report(sample, options, opinions) for sample in decided),
        diagnostics=(
            *noted,
            *_left_out(given, samples, options, subject),
            *_diagnostics(decided, check, samples, subject, options),
            *told,
            *_faults(decided, options),
            *_missing_opinion(opinions),
            *_other_kernels(decided, subject),
        ),
        artifacts=artifacts,
    )
    return _plotted(report, options)


def _plotted(report: Report, options: RobustnessOptions) -> Report:
    """Draw the shares of samples over eps where that is asked; return the report, which names the file."""
    if options.plot is None or len(accuracy_points(report)) < 2:
        return report
    write_whole(options.plot, lambda stream: plot_accuracy(report, stream))
    return report.model_copy(update={"artifacts": (*report.artifacts, str(options.plot))})


def _features(subject: Subject, options: RobustnessOptions) -> Features | None:
    """Return what the inputs are, where a file says so. Raises DataError where it speaks of others."""
    if options.features is None:
        return None
    found, p = read_features(options.features), subject.model.n_inputs
    if found.size != p:
        raise DataError(f"{options.features} speaks of {found.size} inputs, and {subject.path} has {p}")
    if options.fair and not any(one.protected for one in found.features):
        raise DataError(
            f"{options.features} has no protected feature; write protected = true for those that --fair moves"
        )
    return found


def _sets(
    samples: Samples,
    features: Features | None,
    sigma: FloatArray | None,
    free: tuple[int, ...],
    options: RobustnessOptions,
) -> list[list[InputSet]]:
    """Return the set of each sample at each radius; of valid rows, the box around them."""
    if features is None:
        bounds = options.data.preprocessing.bounds
        return sample_sets(samples, options.eps, bounds, sigma=sigma, k=options.sparse, free=free)
    return [
        [features.cell(x, radius.value, int(index), protected=options.fair).hull for radius in options.eps]
        for index, x in zip(samples.indices, samples.inputs, strict=True)
    ]


def _setting(
    subject: Subject,
    sigma: FloatArray | None,
    free: tuple[int, ...],
    features: Features | None,
    options: RobustnessOptions,
) -> Setting:
    return Setting(
        subject.path,
        options.model,
        subject.info.sha256,
        options.data.preprocessing,
        options.eps,
        replace(options.verdicts, max_bytes=options.model.max_bytes),
        options.certificates,
        options.force or options.resume,
        sigma,
        free,
        options.demanded,
        options.largest,
        features,
        options.fair,
    )


def _with_attacks(options: RobustnessOptions) -> RobustnessOptions:
    """Return the options whose attacks can look for what is demanded: for sign and pgd the attack on properties.

    Raises:
        OptionError: where an attack is about classes alone.
    """
    methods = options.verdicts.methods
    if methods is None or not options.demanded.beside_class:
        return options
    alone = [name for name in methods if name in ("random", "sensitivity", "gradient", "mip")]
    if alone:
        raise OptionError(f"the method {alone[0]} is about one class of a sample; leave it out beside --task or limits")
    instead = tuple(dict.fromkeys("attack" if name in ("sign", "pgd") else name for name in methods))
    return replace(options, verdicts=replace(options.verdicts, methods=instead))


def _tasks(
    samples: Samples, demanded: Demanded, demands: Sequence[Demand | None], all_sets: list[list[InputSet]]
) -> list[SampleTask]:
    single = demanded.kind in ("class", "top")
    labels = _labels(samples) if single else np.full(samples.n, -1)
    each = zip(samples.indices, labels, samples.inputs, all_sets, demands, strict=True)
    return [
        SampleTask(i, int(index), int(label), x, tuple(sets), demand)
        for i, (index, label, x, sets, demand) in enumerate(each)
    ]


def _key(
    command: str,
    subject: Subject,
    tasks: Sequence[SampleTask],
    sigma: FloatArray | None,
    features: Features | None,
    options: RobustnessOptions,
) -> dict[str, str]:
    """Return what a run must have in common with the one whose journal it goes on from."""
    arrays = [array for task in tasks for array in (task.centre, np.array([task.index, task.label]), *_labels_of(task))]
    reading, data, chosen = options.model, options.data, replace(options.verdicts)
    asked = (
        options.eps,
        chosen,
        options.sparse,
        options.ignore,
        options.demanded,
        options.largest,
        None if features is None else features.sha256,
        options.fair,
        options.certificates,
        data.layout,
        asdict(data.preprocessing),
    )
    return {
        TOOL: __version__,
        "command": command,
        "model": digest(
            subject.info.sha256.encode(),
            repr((reading.output_name, reading.torch, subject.info.threshold)).encode(),
            repr(reading.runtime_optimisation).encode(),
        ),
        "data file": digest(*(array.tobytes() for array in arrays), b"" if sigma is None else sigma.tobytes()),
        "set of options": digest(repr(asked).encode()),
    }


def _labels_of(task: SampleTask) -> tuple[AnyArray, ...]:
    """Return the several labels of a sample, where it has some, or the limits of its outputs."""
    if isinstance(task.demand, PixelClasses):
        return (task.demand.labels,)
    return (task.demand.sides, task.demand.values) if isinstance(task.demand, Limits) else ()


def _decide_with_journal(
    setting: Setting,
    subject: Subject,
    tasks: list[SampleTask],
    key: Mapping[str, str],
    options: RobustnessOptions,
    watch: Watcher,
    decided: dict[int, Decided],
) -> Iterator[Diagnostic]:
    """Put the samples into `decided` as they are decided, those of the journal first; yield what is to be told."""
    with ExitStack() as stack:
        journal: Journal | None = None
        if options.journal is not None:
            opened = Journal.open(options.journal, key, resume=options.resume, force=options.force)
            journal = stack.enter_context(opened)
            if journal.outdated is not None:
                count, version = journal.outdated
                why = f"version {version} of idl-audit decided them, and this is {__version__}"
                message = f"{count} of {len(tasks)} samples are decided again: {why}"
                yield Diagnostic(code="IDL209", level="warning", message=message)
            earlier = samples_of(journal, tasks, [radius.value for radius in options.eps])
            decided.update((i, one) for i, one in earlier.items() if all(Path(c).is_file() for c in one.certificates))
        if decided:
            message = (
                f"{len(decided)} of {len(tasks)} samples were decided by an earlier run and taken from its journal"
            )
            yield Diagnostic(code="IDL207", level="info", message=message)
        known = list(decided.values())
        work = decide_all(setting, subject, tasks, jobs=options.jobs, earlier=known, watch=watch)
        with closing(work):
            for sample in work:
                decided[sample.position] = sample
                if journal is not None and sample.lost is None:
                    journal.append(entry_of(sample))
        if journal is not None and journal.failure is not None:
            message = f"the journal {journal.path} could not be written to the end ({journal.failure})"
            yield Diagnostic(code="IDL208", level="warning", message=message, hint="make room on the disk")


def _not_judged(decided: Sequence[Decided]) -> WhyIncomplete | None:
    """Return that some samples were not judged; None where all were.

    That a sample took too long is an answer, as the user set the limit; that the process died on it is none.
    """
    lost = [result for sample in decided if sample.lost is not None for result in sample.results.values()]
    return "not_judged" if any(result.reason is not None and result.reason.value in FAULTS for result in lost) else None


def _faults(decided: Sequence[Decided], options: RobustnessOptions) -> Iterator[Diagnostic]:
    """Name the samples that could not be decided, and where they may have no outputs, and those without certificate."""
    for sample in decided:
        if sample.lost is not None:
            yield Diagnostic(
                code="IDL206",
                level="error",
                message=f"sample {sample.index} could not be decided: {sample.lost}",
                hint="run it again alone with --index, with fewer --jobs" if options.jobs > 1 else None,
                where=f"samples {sample.index}",
            )
        for eps, result in sample.results.items():
            if result.reason is Reason.OUTSIDE_DOMAIN:
                message = f"sample {sample.index} at eps {eps:g}: {result.detail}"
                yield Diagnostic(code="IDL212", level="warning", message=message, where=f"samples {sample.index}")
    yield from _without_bound(decided)
    yield from _out_of_time(decided, options)
    missing = [f"{sample.index} (eps {eps:g})" for sample in decided for eps in sample.uncertified]
    if missing:
        message = f"certified, but no certificate that stands alone was found for the samples {', '.join(missing[:10])}"
        yield Diagnostic(code="IDL205", level="warning", message=message)


def _out_of_time(decided: Sequence[Decided], options: RobustnessOptions) -> Iterator[Diagnostic]:
    """Say that the time limit ended verdicts for which nodes were counted: they depend on the machine after all."""
    most = options.verdicts.max_nodes
    ended = [s.index for s in decided for one in s.results.values() if one.reason is Reason.TIME_LIMIT]
    if most is None or not ended:
        return
    few = ", ".join(map(str, ended[:10])) + (", ..." if len(ended) > 10 else "")
    yield Diagnostic(
        code="IDL220",
        level="warning",
        message=f"{len(ended)} verdict{_s(ended)} ended by the time limit of {options.verdicts.time_limit:g} s before "
        f"{most:,} nodes were used: samples {few}",
        hint="raise --time-limit, or lower --max-nodes, so that every machine finds the same",
    )


def _without_bound(decided: Sequence[Decided]) -> Iterator[Diagnostic]:
    """Say, once, why nothing can be proved for the arithmetic that is asked about."""
    results = [result for sample in decided for result in sample.results.values()]
    details = [result.detail for result in results if result.reason is Reason.NO_ROUNDING_BOUND and result.detail]
    for detail in dict.fromkeys(details):
        yield without_bound(f"{details.count(detail)} verdict{_s(details)}", detail)


def _check_target(subject: Subject, options: RobustnessOptions) -> None:
    q = subject.model.n_outputs
    if options.target is not None and not 0 <= options.target < q:
        raise OptionError(f"--target must be a class of the network, 0 to {q - 1}, not {options.target}")


def _check_image_shape(subject: Subject, options: RobustnessOptions) -> None:
    shape, p = options.image_shape, subject.model.n_inputs
    if shape is not None and math.prod(shape) != p:
        raise OptionError(f"--image-shape {','.join(map(str, shape))} has {math.prod(shape)} numbers, and an input {p}")


def _refuse_unlabelled(demanded: Demanded, subject: Subject) -> None:
    samples = demanded.samples
    if samples.labels is not None or demanded.kind == "limits":
        return
    classes = ""
    if subject.threshold is not None:
        classes = (
            f" (1 where the output is above {subject.threshold.value:g}, else 0); a regression has no classes: ask how "
            "far its outputs move with --within DELTA"
        )
    raise DataError(
        f"{samples.source} has no labels; put an array 'labels' into an .npz, or give a file with --labels{classes}"
    )


def _labels(samples: Samples) -> IntArray:
    assert samples.labels is not None
    return samples.labels


def _radii(samples: Samples, subject: Subject, options: RobustnessOptions) -> FloatArray | None:
    """Return the per-input radii; without them eps is a distance, and must have the data's units."""
    if options.sigma is not None:
        return read_radii(options.sigma, subject.input_shape, options.data.layout)
    if options.features is None:
        check_eps_units(options.eps, float(samples.inputs.min()), float(samples.inputs.max()))
    return None


def _to_attack(samples: Samples, options: RobustnessOptions, subject: Subject) -> Samples:
    """Return the samples that the options speak of, as they are to be attacked.

    Samples of the target class itself are left out. Where some inputs stay exactly as they are, float32 must be able to
    say them, or float16 where the network reads that: the samples are rounded to what the network reads.
    """
    if options.target is not None:
        labels = _labels(samples)
        others = labels != options.target
        if not others.any():
            raise DataError(f"all samples have the target class {options.target} already; give others")
        samples = replace(
            samples, inputs=samples.inputs[others], labels=labels[others], indices=samples.indices[others]
        )
    if options.sparse is not None or options.ignore is not None or options.features is not None:
        samples = replace(
            samples, inputs=_in_floats(samples.inputs, _floats(subject, options), options.data.preprocessing.bounds)
        )
    return samples


def _floats(subject: Subject, options: RobustnessOptions) -> np.dtype[Any]:
    """Return the type of the numbers that the network reads of the data itself."""
    coarse = subject.point_type.itemsize < 4 and options.data.preprocessing.is_identity
    return subject.point_type if coarse else np.dtype(np.float32)


def _in_floats(inputs: FloatArray, kind: np.dtype[Any], bounds: tuple[float, float] | None) -> FloatArray:
    """Return the nearest numbers of a type; where one lies outside the valid range and the input does not, the next."""
    lo, hi = bounds or (-np.inf, np.inf)
    rounded, infinity = inputs.astype(kind), np.array(np.inf, kind)
    above, below = np.nextafter(rounded, infinity), np.nextafter(rounded, -infinity)
    rounded = np.where((rounded.astype(np.float64) < lo) & (inputs >= lo), above, rounded)
    rounded = np.where((rounded.astype(np.float64) > hi) & (inputs <= hi), below, rounded)
    return rounded.astype(np.float64)


def _left_out(given: Samples, samples: Samples, options: RobustnessOptions, subject: Subject) -> Iterator[Diagnostic]:
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
        kind, sets = _floats(subject, options).name, "sets" if options.sparse is None else "sparse sets"
        yield Diagnostic(
            code="IDL204",
            level="info",
            message=f"{rounded} of {samples.n} samples are no {kind} numbers; the {sets} are those around the "
            f"samples rounded to {kind}, as the network reads them",
        )


def _opinions(subject: Subject, decided: list[Decided], options: RobustnessOptions) -> _Opinions:
    """Return who is asked about attacks: the original network and, where an attack succeeded, a second opinion."""
    preprocessing = options.data.preprocessing
    own = (subject.original.name, subject.network(preprocessing))
    attacked = [sample for sample in decided if any(r.verdict is Verdict.FALSIFIED for r in sample.results.values())]
    floats = _floats(subject, options)
    if not attacked:
        return _Opinions((own,), options.target, floats)
    centres = np.stack([sample.centre for sample in attacked[:CHECKED_OPINIONS]])
    second = subject.second_opinion(preprocessing, centres)
    if second is None or second.network is None:
        return _Opinions((own,), options.target, floats, "" if second is None else second.why_not)
    return _Opinions((own, second.network), options.target, floats)


def _missing_opinion(opinions: _Opinions) -> Iterator[Diagnostic]:
    """Say that nobody but the original network was asked about the attacks."""
    if opinions.why_alone:
        yield Diagnostic(
            code="IDL211",
            level="info",
            message=f"no second opinion on the attacks: {opinions.why_alone}",
            hint=f"what is falsified is so by {opinions.networks[0][0]} alone",
        )


def _methods(subject: Subject, tasks: Sequence[SampleTask], options: RobustnessOptions) -> tuple[str, ...]:
    """Return the methods that were asked for, or all that are usual for one of the sets."""
    if options.verdicts.methods is not None:
        return options.verdicts.methods
    q = subject.model.n_outputs
    usual = (climbed(subject.model, _usual_query(task, one, q)) for task in tasks for one in task.sets[:1])
    return in_order_of_cost([RUNGS[name].begins or name for names in usual for name in names])


def _usual_query(task: SampleTask, inputs: InputSet, n_outputs: int) -> Query:
    """Return a query of the kind that is decided about a sample."""
    if task.demand is None:
        return Misclassification(inputs, (), task.label)
    return query_of(task.demand, inputs, n_outputs) if isinstance(task.demand, AmongFirst) else SampleQuery(inputs, ())


def _summary(command: str, decided: list[Decided], options: RobustnessOptions, methods: tuple[str, ...]) -> Summary:
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


def _sample_report(sample: Decided, options: RobustnessOptions, opinions: _Opinions) -> SampleReport:
    bounds = options.data.preprocessing.bounds
    results = tuple(
        _result_report(eps, sample, sample.results[eps.value], opinions, bounds)
        for eps in options.eps
        if eps.value in sample.results
    )
    predicted = sample.predicted if sample.predicted >= 0 else None
    label = sample.label if sample.label >= 0 else None
    found = sample.largest
    largest = None
    if found is not None:
        largest = LargestEps(certified=found.certified, falsified=found.falsified, tried=found.tried)
    return SampleReport(index=sample.index, label=label, predicted=predicted, results=results, largest=largest)


def _result_report(
    eps: Eps,
    sample: Decided,
    result: Result,
    opinions: _Opinions,
    bounds: tuple[float, float] | None,
) -> SampleResult:
    adversarial = None
    if result.verdict is Verdict.FALSIFIED and result.found is not None:
        adversarial = _adversarial(sample, result.found, opinions, bounds)
    found = None if result.verdict is Verdict.CLEAN_WRONG else result.found
    margin = found.margin if found is not None and opinions.has_scores else math.inf
    return SampleResult(
        eps=eps.value,
        verdict=result.verdict,
        method=result.method,
        lower_bound=result.lower,
        margin_found=margin if math.isfinite(margin) else None,
        adversarial=adversarial,
        reason=result.reason,
        seconds=result.seconds,
        parts=_counted([result.parts]),
        outputs=_outputs(result.parts),
        beaten=result.beaten,
    )


def _adversarial(sample: Decided, found: Found, opinions: _Opinions, bounds: tuple[float, float] | None) -> Adversarial:
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
    )


def _changes(features: Features | None, before: FloatArray, after: Float32Array) -> tuple[FeatureChange, ...]:
    """Return the features that differ, in their own words."""
    if features is None:
        return ()
    found = features.changes(before, after.astype(np.float64))
    return tuple(FeatureChange(feature=name, before=old, after=new) for name, old, new in found)


def _successes(decided: list[Decided]) -> list[tuple[Decided, float, Found]]:
    """Return every sample, radius and point where an attack succeeded."""
    return [
        (sample, eps, result.found)
        for sample in decided
        for eps, result in sample.results.items()
        if result.verdict is Verdict.FALSIFIED and result.found is not None
    ]


def _draw(options: RobustnessOptions, decided: list[Decided], subject: Subject) -> tuple[str, ...]:
    """Draw the adversarial inputs for --images and return the names of written files."""
    if options.images is None:
        return ()
    texts = {radius.value: radius.text for radius in options.eps}
    floats = _floats(subject, options)
    pairs = [
        Pair(
            sample.index,
            sample.label,
            found.predicted,
            texts[eps],
            sample.centre,
            sample.centre.astype(floats).astype(np.float32),
            found.point,
        )
        for sample, eps, found in _successes(decided)[:MOST_PICTURES]
    ]
    shape = options.image_shape or subject.input_shape
    files = draw_pairs(options.images, pairs, shape=shape, bounds=options.data.preprocessing.bounds)
    return tuple(str(file) for file in files)


def _save(options: RobustnessOptions, decided: list[Decided]) -> tuple[str, ...]:
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
    write_npz(options.save, arrays, force=options.force or options.resume)
    return (str(options.save),)


def _diagnostics(
    decided: list[Decided], check: AgreementCheck, samples: Samples, subject: Subject, options: RobustnessOptions
) -> Iterator[Diagnostic]:
    yield from _left_out_at_the_end(subject)
    yield from _close_calls(decided, check, samples, subject, options)
    yield from _denied(decided)


def _denied(decided: list[Decided]) -> Iterator[Diagnostic]:
    """Name samples that the network misclassifies somewhere as it runs, and not in exact arithmetic."""
    rows = [(sample.index, result) for sample in decided for result in sample.results.values()]
    some = [(index, result.denied) for index, result in rows if result.denied and result.verdict in _NOT_FLIPPED]
    if some:
        named = list(dict.fromkeys(index for index, _ in some))
        where = f"samples {', '.join(map(str, named[:10]))}"
        yield told_denied(sum(count for _, count in some), f"{len(named)} sample{_s(named)}", where=where)


def _left_out_at_the_end(subject: Subject) -> Iterator[Diagnostic]:
    """Say how the outputs are read, where that is not as they are."""
    operator, threshold = subject.info.stripped_output, subject.threshold
    if threshold is not None:
        yield Diagnostic(
            code="IDL210",
            level="info",
            message=f"the network has one output: class 1 is where it is above {threshold.value!r}, class 0 elsewhere",
            hint="another number is given with --threshold",
        )
    if operator:
        why = "it changes no ranking of outputs"
        if threshold is not None:
            why = "it rises with its input, and proved margins are differences of that input"
        yield Diagnostic(code="IDL201", level="info", message=f"the last operator, {operator}, is left out: {why}")


def _close_calls(
    decided: list[Decided], check: AgreementCheck, samples: Samples, subject: Subject, options: RobustnessOptions
) -> Iterator[Diagnostic]:
    """Name certified samples whose margin is not above what floating-point arithmetic may change in it."""
    certified = [
        (sample.index, -math.inf if result.lower is None else result.lower, _or_infinite(result.float_error))
        for sample in decided
        for result in sample.results.values()
        if result.verdict is Verdict.CERTIFIED
    ]
    if not certified or options.verdicts.arithmetic != "real":
        return
    known = float_margins(subject, options.data.preprocessing)
    if isinstance(known, Unbounded):
        yield told_unknown(known, f"{len(certified)} certified verdict{_s(certified)}")
        return
    itself = subject.network_itself or subject
    network = itself.network(options.data.preprocessing)
    outputs = network(samples.inputs[:CHECKED_SAMPLES].astype(np.float32))
    seen = 2 * check.max_rel_error * float(np.abs(outputs).max())  # more than what is proved would refute the proof
    if subject.threshold is not None:
        seen = subject.threshold.margin(seen)
    close = [(index, error) for index, lower, error in certified if not lower > max(seen, error)]
    if close:
        largest = max(error for _, error in close)
        named = dict.fromkeys(index for index, _ in close)
        kind = "float32" if subject.graph is None else subject.graph.arithmetic
        yield Diagnostic(
            code="IDL202",
            level="warning",
            message=f"{len(close)} certified margin{_s(close)} {'is' if len(close) == 1 else 'are'} not above what "
            f"{kind} arithmetic may change in {'it' if len(close) == 1 else 'them'}"
            + (f": up to {largest:.1e}, as far as is proved" if largest < math.inf else ", as far as is proved"),
            hint="the proof holds in exact arithmetic for the weights in the file",
            where=f"samples {', '.join(map(str, list(named)[:10]))}",
        )


def _other_kernels(decided: Sequence[Decided], subject: Subject) -> Iterator[Diagnostic]:
    """Say with which versions kernels were measured, where a certified verdict has a bound of what they change."""
    results = (result for sample in decided for result in sample.results.values())
    if any(one.verdict is Verdict.CERTIFIED and one.float_error is not None for one in results):
        yield from told_versions(subject)


def _s(things: Sequence[object]) -> str:
    return "" if len(things) == 1 else "s"


def _or_infinite(error: float | None) -> float:
    return math.inf if error is None else error
