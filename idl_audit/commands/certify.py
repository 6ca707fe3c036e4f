"""attack and certify: a verdict for every sample at every radius."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from idl_audit import __version__
from idl_audit.commands.options.common import AUTO
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.shared.abroad import hands_of
from idl_audit.commands.shared.adversarial_pictures import MOST_PICTURES, Pair, draw_pairs
from idl_audit.commands.shared.audited import Audited, audited, floats, left_out
from idl_audit.commands.shared.boxes import threat_model
from idl_audit.commands.shared.class_output import gives_class
from idl_audit.commands.shared.cluster import Cluster, connected, lost_cluster
from idl_audit.commands.shared.deciding import Decided, SampleTasks, Setting, decide_all
from idl_audit.commands.shared.demands import read_as
from idl_audit.commands.shared.features import named_inputs
from idl_audit.commands.shared.float_margins import float_margins
from idl_audit.commands.shared.frame import Clock, framed_report, without_last_operator
from idl_audit.commands.shared.journal import COUNT, DATA, TOOL, Journal, digest, entry_of, samples_of
from idl_audit.commands.shared.kept_points import KeptPoints
from idl_audit.commands.shared.measured_kernels import told_versions
from idl_audit.commands.shared.preflight import Teller, preflight, tell_nobody
from idl_audit.commands.shared.progress import Watcher
from idl_audit.commands.shared.ranges import refuse_other_size
from idl_audit.commands.shared.samples import describe_data
from idl_audit.commands.shared.subject import Subject, check_agreement, describe_conversion, open_subject
from idl_audit.commands.shared.tallies import tally, told
from idl_audit.data.features import Features, read_features
from idl_audit.data.fingerprints import numbers_sha256
from idl_audit.data.numbers import Eps
from idl_audit.data.overview import look_at
from idl_audit.data.perturbations import read_directions
from idl_audit.data.radii import read_sample_radii
from idl_audit.data.vectors import read_ranking
from idl_audit.decide.ladder import Parts, Result, climbed, in_order_of_cost
from idl_audit.decide.minimal import METHOD as NEAREST
from idl_audit.decide.perturbed import methods_of
from idl_audit.decide.rungs import RUNGS
from idl_audit.graph.files import read_with_sha256
from idl_audit.implicit.scaling import rescale
from idl_audit.proof.float_margins import Unbounded
from idl_audit.report.pictures import accuracy_points, plot_accuracy
from idl_audit.report.schema import (
    Adversarial,
    AgreementCheck,
    CleanAccuracy,
    DataInfo,
    Diagnostic,
    EpsSummary,
    FeatureChange,
    LargestEps,
    OutputResult,
    PartCounts,
    Report,
    SampleReport,
    SampleResult,
    ShardInfo,
    Summary,
    WhyIncomplete,
)
from idl_audit.search.attacks import Ranking
from idl_audit.search.judge import Found
from idl_audit.values.arrays import AnyArray, Float32Array, FloatArray
from idl_audit.values.demand import PartedQuery
from idl_audit.values.errors import ClusterError, DataError, OptionError, UnsupportedModelError
from idl_audit.values.files import write_whole
from idl_audit.values.input_sets import InputSet
from idl_audit.values.network import Network
from idl_audit.values.npz import write_npz
from idl_audit.values.perturbations import Perturbation, Perturbed
from idl_audit.values.query import Misclassification, SampleQuery
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
        InvalidInputError: where the model, the data or an option is refused, or a scheduler cannot be reached; nothing
            is written.
        AgreementError: where the implicit model is not the network.
    """
    with connected(options.scheduler) as cluster:
        return _audit(command, path, options, watch, tell, cluster)


def _audit(
    command: str, path: Path, options: RobustnessOptions, watch: Watcher, tell: Teller, cluster: Cluster | None
) -> Report:
    clock = Clock()
    if cluster is not None:
        tell(cluster.note())
    with clock.step("read and convert"):
        asked = options.demanded
        subject = read_as(open_subject(path, options.model, whole=asked.of_values), options.model, asked)
        _check_target(subject, options)
        options = _with_attacks(_with_ranking(subject, options))
        _check_image_shape(subject, options)
        setting = _setting(subject, options)
        found = audited(setting, subject, options)
    preprocessing = options.data.preprocessing
    with clock.step("check"):
        first = found.samples.read(slice(CHECKED_SAMPLES)).inputs
        check = check_agreement(subject, preprocessing.apply(first, subject.input_shape).astype(float))
    with clock.step("preflight"):
        radii = options.eps if setting.eps_is_distance else ()
        given = found.demanded.single(found.given)
        noted = preflight(subject, given, options.data, eps=radii, tell=tell, seen=found.seen_given)
    key = _key(command, subject, found, setting, options)
    if options.certificates is not None:
        options.certificates.mkdir(exist_ok=True)
    among = range(found.samples.n) if options.shard is None else options.shard.places(found.samples.n)
    with KeptPoints(found.samples.p) as kept:
        by_position: dict[int, Decided] = {}
        heard: list[Diagnostic] = []
        why: WhyIncomplete | None = None
        with clock.step("verdicts"):
            try:
                work = _Work(setting, subject, found, key, options, among, cluster)
                for one in _decide_with_journal(work, watch, by_position, kept):
                    heard.append(one)
                    tell(one)
            except KeyboardInterrupt:
                why = "interrupted"
            except ClusterError as error:
                why = "interrupted"
                heard.append(lost_cluster(error))
                tell(heard[-1])
        subject.check_unchanged()
        decided = _Verdicts([by_position.pop(position) for position in sorted(by_position)], kept)
        with clock.step("second opinion"):
            try:
                opinions = _opinions(subject, decided, options)
            except KeyboardInterrupt:
                own = (subject.original.name, subject.network(preprocessing))
                opinions, why = _Opinions((own,), options.target, floats(subject, options)), "interrupted"
        opinions = replace(opinions, has_scores=not gives_class(subject.model), features=setting.features)
        certificates = [file for sample in decided.samples for file in sample.certificates]
        artifacts = (*_save(options, decided, found.samples.p), *_draw(options, decided, subject), *certificates)
        summary = _summary(command, decided.samples, options, _methods(setting, subject, found, options))
        why = why or _not_judged(decided.samples)
        diagnostics = (
            *noted,
            *_other_ranking(options),
            *_shard(found, among, options),
            *left_out(found, options, subject),
            *_diagnostics(decided.samples, check, first, subject, options),
            *heard,
            *(() if cluster is None else cluster.notes()),
            *_faults(decided.samples, options),
            *_missing_opinion(opinions),
            *_other_kernels(decided.samples, subject),
        )
        samples = tuple(_sample_report(sample, options, opinions, found) for sample in decided.given_up())
    report = framed_report(
        command,
        clock,
        seed=options.verdicts.seed,
        why_incomplete=why,
        model=subject.info,
        conversion=describe_conversion(subject.model, rescale(subject.model), check, subject.seconds),
        data=_data(found, options),
        threat_model=threat_model(
            options.eps,
            preprocessing.bounds,
            sigma=options.sigma,
            radii=setting.sigma,
            k=options.sparse,
            target=options.target,
            arithmetic=options.verdicts.arithmetic,
            free=setting.free,
            features=setting.features,
            fair=options.fair,
            perturbation=setting.perturbation,
            directions=options.directions,
            shape=setting.shape,
            norm=options.norm,
        ),
        demand=found.demanded.info(found.samples),
        summary=summary,
        samples=samples,
        diagnostics=diagnostics,
        artifacts=artifacts,
    )
    return _plotted(report, options)


def _plotted(report: Report, options: RobustnessOptions) -> Report:
    """Draw the shares of samples over eps where that is asked; return the report, which names the file."""
    if options.plot is None or len(accuracy_points(report)) < 2:
        return report
    write_whole(options.plot, lambda stream: plot_accuracy(report, stream))
    return report.model_copy(update={"artifacts": (*report.artifacts, str(options.plot))})


@dataclass(frozen=True, eq=False)
class _Verdicts:
    """The samples that are decided, in order, and what they were robbed of to take little memory."""

    samples: list[Decided]
    kept: KeptPoints

    def given_up(self) -> Iterator[Decided]:
        """Yield every sample whole, and forget it: what is made of it takes its place."""
        self.samples.reverse()
        while self.samples:
            yield self.kept.get(self.samples.pop())

    @property
    def successes(self) -> Iterator[tuple[Decided, FloatArray, float, Found]]:
        """Every sample with its own point, and every radius and point where an attack succeeded."""
        for sample in map(self.kept.get, self.samples):
            for eps, result in sample.results.items():
                if result.verdict is Verdict.FALSIFIED and result.found is not None and sample.centre is not None:
                    yield sample, sample.centre, eps, result.found


def _data(found: Audited, options: RobustnessOptions) -> DataInfo:
    """Return the report's section on the data: of a shard, that of its own samples, with what all of them are."""
    whole = describe_data(found.samples, options.data, found.seen)
    if options.shard is None:
        return whole
    own = found.samples.rows(np.array(options.shard.places(found.samples.n)))
    shard = ShardInfo(
        number=options.shard.number, of=options.shard.of, n=whole.n, numbers_sha256=found.seen.numbers_sha256
    )
    return describe_data(own, options.data, look_at(own)).model_copy(update={"shard": shard})


def _shard(found: Audited, among: range, options: RobustnessOptions) -> Iterator[Diagnostic]:
    """Say which samples a report is of."""
    if options.shard is not None:
        yield Diagnostic(
            code="IDL219",
            level="info",
            message=f"this is shard {options.shard.number} of {options.shard.of}: {len(among)} of {found.samples.n} "
            f"samples, from place {among.start} on",
            hint="`idl-audit merge` makes one report of all shards",
        )


def _setting(subject: Subject, options: RobustnessOptions) -> Setting:
    _refuse_unproved(subject, options)
    sigma = None
    if options.sigma is not None:
        sigma = read_sample_radii(options.sigma, subject.input_shape, options.data.layout)
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
        named_inputs(subject, options.ignore or (), "--ignore"),
        options.sparse,
        options.demanded,
        options.largest,
        _features(subject, options),
        options.fair,
        options.norm,
        _perturbation(options, subject.model.n_inputs),
        options.image_shape or subject.input_shape,
        minimal=options.is_minimal,
    )


def _features(subject: Subject, options: RobustnessOptions) -> Features | None:
    """Return what the inputs are, where a file says so. Raises DataError where it speaks of others."""
    if options.features is None:
        return None
    found = read_features(options.features)
    refuse_other_size(found, subject.model.n_inputs, subject.path)
    if options.fair and not any(one.protected for one in found.features):
        raise DataError(
            f"{options.features} has no protected feature; write protected = true for those that --fair moves"
        )
    return found


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
    of_properties = ("sign", "pgd", *AUTO)
    instead = tuple(dict.fromkeys("attack" if name in of_properties else name for name in methods))
    return replace(options, verdicts=replace(options.verdicts, methods=instead))


def _perturbation(options: RobustnessOptions, size: int) -> Perturbation | None:
    """Return what changes in place of every input; None where each moves by itself. Raises InvalidInputError."""
    if options.directions is None:
        return options.perturb
    terms = () if options.perturb is None else options.perturb.terms
    own = options.perturb
    alone = (None, None, None) if own is None else (own.patch, own.shift, own.rotation)
    return Perturbation(terms, read_directions(options.directions, size), *alone)


def _refuse_unproved(subject: Subject, options: RobustnessOptions) -> None:
    """Refuse networks for which sets that are no boxes are not proved. Raises UnsupportedModelError."""
    if options.is_perturbed and not subject.model.is_feed_forward:
        raise UnsupportedModelError(
            [f"{subject.path} has loops, and perturbations are decided for networks without; give -e alone"]
        )
    if options.norm != "linf" and not (subject.model.is_feed_forward and subject.point_type.itemsize >= 4):
        raise UnsupportedModelError(
            [f"--norm {options.norm} is for networks without loops that read float32 or finer, unlike {subject.path}"]
        )


def _key(
    command: str, subject: Subject, found: Audited, setting: Setting, options: RobustnessOptions
) -> dict[str, str]:
    """Return what a run must have in common with the one whose journal it goes on from."""
    reading, data, chosen = options.model, options.data, replace(options.verdicts)
    perturbation = _perturbation(options, found.samples.p)
    own = None if perturbation is None else perturbation.directions
    asked = (
        options.eps,
        chosen,
        options.sparse,
        options.ignore,
        options.demanded,
        options.largest,
        None if setting.features is None else setting.features.sha256,
        options.fair,
        options.norm,
        None if perturbation is None else (perturbation.text, options.image_shape),
        "" if own is None else digest(*(array.tobytes() for array in own.arrays)),
        options.certificates,
        data.layout,
        asdict(data.preprocessing),
        options.shard,
    )
    return {
        TOOL: __version__,
        "command": command,
        "model": model_key(subject, reading),
        DATA: _data_key(found, setting, found.samples.n, found.seen.numbers_sha256),
        COUNT: str(found.samples.n),
        "set of options": digest(repr(asked).encode()),
    }


def _data_key(found: Audited, setting: Setting, n: int, numbers: str) -> str:
    """Return a hash of the first n samples, whose numbers have a hash already."""
    return digest(
        numbers.encode(),
        found.samples.indices[:n].tobytes(),
        found.labels[:n].tobytes(),
        b"" if setting.sigma is None else setting.sigma.tobytes(),
    )


def _of_the_first(found: Audited, setting: Setting, n: int) -> str:
    """Return what the key of a run over the first n samples says of the data; they are read for it."""
    first = found.samples.rows(np.arange(n))
    order = np.argsort(first.indices, kind="stable")
    numbers = numbers_sha256(row for _, part in first.parts(order) for row in part.inputs)
    return _data_key(found, setting, n, numbers)


def model_key(subject: Subject, reading: ModelOptions) -> str:
    """Return a hash of the function that is judged, and of how it is run."""
    return digest(
        subject.info.sha256.encode(),
        repr((reading.output_name, reading.torch, subject.info.threshold)).encode(),
        repr(reading.runtime_optimisation).encode(),
    )


@dataclass(frozen=True, eq=False)
class _Work:
    """What is to be decided, and who does it."""

    setting: Setting
    subject: Subject
    found: Audited
    key: Mapping[str, str]
    """Of the journal."""
    options: RobustnessOptions
    among: range
    """The places of the samples."""
    cluster: Cluster | None
    """Who works, where it is not this machine."""


def _decide_with_journal(
    given: _Work, watch: Watcher, decided: dict[int, Decided], kept: KeptPoints
) -> Iterator[Diagnostic]:
    """Put the samples into `decided` as they are decided, those of the journal first; yield what is to be told."""
    setting, subject, found, options, among = given.setting, given.subject, given.found, given.options, given.among
    n, network = len(among), subject.network(options.data.preprocessing)
    tasks = SampleTasks(found.samples, lambda part: found.demanded.each(part, subject, network))
    with ExitStack() as stack:
        journal: Journal | None = None
        if options.journal is not None:
            opened = Journal.open(
                options.journal,
                given.key,
                resume=options.resume,
                force=options.force,
                of_the_first=None if options.shard is not None else partial(_of_the_first, found, setting),
            )
            journal = stack.enter_context(opened)
            if journal.outdated is not None:
                count, version = journal.outdated
                why = f"version {version} of idl-audit decided them, and this is {__version__}"
                message = f"{count} of {n} samples are decided again: {why}"
                yield Diagnostic(code="IDL209", level="warning", message=message)
            for sample in samples_of(journal, tasks, [radius.value for radius in options.eps]):
                if all(Path(certificate).is_file() for certificate in sample.certificates):
                    kept.put(sample)
                    decided.setdefault(sample.position, sample)
        if decided:
            message = f"{len(decided)} of {n} samples were decided by an earlier run and taken from its journal"
            yield Diagnostic(code="IDL207", level="info", message=message)
        known = list(decided.values())
        hands = None if given.cluster is None else hands_of(given.cluster, setting, subject)
        work = decide_all(
            setting, subject, tasks, jobs=options.jobs, earlier=known, watch=watch, among=among, hands=hands
        )
        with closing(work):
            for sample in work:
                if journal is not None and sample.lost is None:
                    journal.append(entry_of(sample))
                kept.put(sample)
                decided[sample.position] = sample
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
    missing = [(f"{sample.index} (eps {eps:g})", 1) for sample in decided for eps in sample.uncertified]
    if missing:
        yield told(tally("verdicts without a certificate", missing))


def _out_of_time(decided: Sequence[Decided], options: RobustnessOptions) -> Iterator[Diagnostic]:
    """Say that the time limit ended verdicts for which nodes were counted: they depend on the machine after all."""
    most = options.verdicts.max_nodes
    rows = ((str(sample.index), result) for sample in decided for result in sample.results.values())
    ended = [(name, 1) for name, one in rows if one.reason is Reason.TIME_LIMIT]
    if most is not None and ended:
        about = f"the time limit of {options.verdicts.time_limit:g} s before {most:,} nodes were used"
        yield told(tally("verdicts out of time", ended, about=about))


def _without_bound(decided: Sequence[Decided]) -> Iterator[Diagnostic]:
    """Say, once, why nothing can be proved for the arithmetic that is asked about."""
    rows = [(str(sample.index), result) for sample in decided for result in sample.results.values()]
    why = [(name, one.detail) for name, one in rows if one.reason is Reason.NO_ROUNDING_BOUND and one.detail]
    for detail in dict.fromkeys(detail for _, detail in why):
        counted = [(name, 1) for name, other in why if other == detail]
        yield told(tally("verdicts without a rounding bound", counted, about=detail))


def _check_target(subject: Subject, options: RobustnessOptions) -> None:
    q = subject.model.n_outputs
    if options.target is not None and not 0 <= options.target < q:
        raise OptionError(f"--target must be a class of the network, 0 to {q - 1}, not {options.target}")


def _with_ranking(subject: Subject, options: RobustnessOptions) -> RobustnessOptions:
    """Return the options with S of --matrix read."""
    if options.matrix is None:
        return options
    q, p = subject.model.n_outputs, subject.model.n_inputs
    matrix, sha256 = read_with_sha256(options.matrix, lambda path: read_ranking(path, q, p, subject.input_shape))
    attack = replace(options.verdicts.attack, ranking=Ranking(matrix, sha256))
    return replace(options, verdicts=replace(options.verdicts, attack=attack))


def _other_ranking(options: RobustnessOptions) -> Iterator[Diagnostic]:
    ranking = options.verdicts.attack.ranking
    if ranking is not None:
        message = f"sensitivity ranks inputs by S of {options.matrix} (sha256 {ranking.sha256[:12]})"
        yield Diagnostic(code="IDL218", level="info", message=message)


def _check_image_shape(subject: Subject, options: RobustnessOptions) -> None:
    shape, p = options.image_shape, subject.model.n_inputs
    if shape is not None and math.prod(shape) != p:
        raise OptionError(f"--image-shape {','.join(map(str, shape))} has {math.prod(shape)} numbers, and an input {p}")


def _opinions(subject: Subject, decided: _Verdicts, options: RobustnessOptions) -> _Opinions:
    """Return who is asked about attacks: the original network and, where an attack succeeded, a second opinion."""
    preprocessing = options.data.preprocessing
    own = (subject.original.name, subject.network(preprocessing))
    attacked = {sample.position: centre for sample, centre, *_ in islice(decided.successes, CHECKED_OPINIONS)}
    kind = floats(subject, options)
    if not attacked:
        return _Opinions((own,), options.target, kind)
    second = subject.second_opinion(preprocessing, np.stack(list(attacked.values())))
    if second is None or second.network is None:
        return _Opinions((own,), options.target, kind, "" if second is None else second.why_not)
    return _Opinions((own, second.network), options.target, kind)


def _missing_opinion(opinions: _Opinions) -> Iterator[Diagnostic]:
    """Say that nobody but the original network was asked about the attacks."""
    if opinions.why_alone:
        yield Diagnostic(
            code="IDL211",
            level="info",
            message=f"no second opinion on the attacks: {opinions.why_alone}",
            hint=f"what is falsified is so by {opinions.networks[0][0]} alone",
        )


def _methods(setting: Setting, subject: Subject, found: Audited, options: RobustnessOptions) -> tuple[str, ...]:
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


def _summary(command: str, decided: Sequence[Decided], options: RobustnessOptions, methods: tuple[str, ...]) -> Summary:
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


def _sample_report(sample: Decided, options: RobustnessOptions, opinions: _Opinions, audit: Audited) -> SampleReport:
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
    opinions: _Opinions,
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


def _adversarial(sample: Decided, found: Found, opinions: _Opinions, options: RobustnessOptions) -> Adversarial:
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


def _draw(options: RobustnessOptions, decided: _Verdicts, subject: Subject) -> tuple[str, ...]:
    """Draw the adversarial inputs for --images and return the names of written files."""
    if options.images is None:
        return ()
    texts = {radius.value: radius.text for radius in options.eps}
    kind = floats(subject, options)
    pairs = [
        Pair(
            sample.index,
            sample.label,
            found.predicted,
            texts[eps],
            centre,
            centre.astype(kind).astype(np.float32),
            found.point,
        )
        for sample, centre, eps, found in islice(decided.successes, MOST_PICTURES)
    ]
    shape = options.image_shape or subject.input_shape
    files = draw_pairs(options.images, pairs, shape=shape, bounds=options.data.preprocessing.bounds)
    return tuple(str(file) for file in files)


def _save(options: RobustnessOptions, decided: _Verdicts, size: int) -> tuple[str, ...]:
    """Write the adversarial inputs to --save and return the names of written files."""
    if options.save is None:
        return ()
    rows = list(decided.successes)
    arrays: dict[str, AnyArray] = {
        "inputs": np.array([found.point for *_, found in rows], np.float32).reshape(len(rows), size),
        "labels": np.array([sample.label for sample, *_ in rows], np.int64),
        "predictions": np.array([found.predicted for *_, found in rows], np.int64),
        "eps": np.array([eps for _, _, eps, _ in rows], np.float64),
        "indices": np.array([sample.index for sample, *_ in rows], np.int64),
        "originals": np.array([centre for _, centre, *_ in rows], np.float64).reshape(len(rows), size),
    }
    write_npz(options.save, arrays, force=options.force or options.resume)
    return (str(options.save),)


def _diagnostics(
    decided: Sequence[Decided], check: AgreementCheck, first: FloatArray, subject: Subject, options: RobustnessOptions
) -> Iterator[Diagnostic]:
    yield from _left_out_at_the_end(subject)
    yield from _close_calls(decided, check, first, subject, options)
    yield from _denied(decided)


def _denied(decided: Sequence[Decided]) -> Iterator[Diagnostic]:
    """Name samples that the network misclassifies somewhere as it runs, and not in exact arithmetic."""
    rows = [(str(sample.index), result) for sample in decided for result in sample.results.values()]
    some = [(name, result.denied) for name, result in rows if result.denied and result.verdict in _NOT_FLIPPED]
    if some:
        yield told(tally("denied points", some))


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
    why = "it changes no ranking of outputs"
    if threshold is not None:
        why = "it rises with its input, and proved margins are differences of that input"
    yield from without_last_operator(operator, why)


def _close_calls(
    decided: Sequence[Decided], check: AgreementCheck, first: FloatArray, subject: Subject, options: RobustnessOptions
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
        counted = [(str(index), 1) for index, *_ in certified]
        yield told(tally("verdicts in exact arithmetic", counted, about=known.told))
        return
    itself = subject.network_itself or subject
    network = itself.network(options.data.preprocessing)
    outputs = network(first.astype(np.float32))
    seen = 2 * check.max_rel_error * float(np.abs(outputs).max())  # more than what is proved would refute the proof
    if subject.threshold is not None:
        seen = subject.threshold.margin(seen)
    close = [(index, error) for index, lower, error in certified if not lower > max(seen, error)]
    if close:
        largest = max(error for _, error in close)
        kind = "float32" if subject.graph is None else subject.graph.arithmetic
        counted = [(str(index), 1) for index, _ in close]
        limit = largest if largest < math.inf else None
        yield told(tally("close margins", counted, about=kind, largest=limit))


def _other_kernels(decided: Sequence[Decided], subject: Subject) -> Iterator[Diagnostic]:
    """Say with which versions kernels were measured, where a certified verdict has a bound of what they change."""
    results = (result for sample in decided for result in sample.results.values())
    if any(one.verdict is Verdict.CERTIFIED and one.float_error is not None for one in results):
        yield from told_versions(subject)


def _s(things: Sequence[object]) -> str:
    return "" if len(things) == 1 else "s"


def _or_infinite(error: float | None) -> float:
    return math.inf if error is None else error
