"""attack and certify: a verdict for every sample at every radius."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from idl_audit import __version__
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.robustness.artifacts import draw, plotted, save
from idl_audit.commands.robustness.decided import DecidedSamples
from idl_audit.commands.robustness.keys import key_of_the_first, run_key
from idl_audit.commands.robustness.opinions import Opinions, missing_opinion, opinions_of
from idl_audit.commands.robustness.remarks import (
    not_judged,
    told_faults,
    told_kernels,
    told_margins,
    told_ranking,
    told_shard,
)
from idl_audit.commands.robustness.sections import data_section, methods_of_all, sample_section, summary_of
from idl_audit.commands.robustness.setting import (
    check_image_shape,
    check_target,
    setting_of,
    with_attacks,
    with_ranking,
)
from idl_audit.commands.robustness.without_form import attacked_alone, opened_for, told_no_form
from idl_audit.commands.shared.abroad import hands_of
from idl_audit.commands.shared.audited import Audited, audited, floats, left_out
from idl_audit.commands.shared.boxes import threat_model
from idl_audit.commands.shared.class_output import gives_class
from idl_audit.commands.shared.cluster import Cluster, connected, lost_cluster
from idl_audit.commands.shared.deciding import decide_all
from idl_audit.commands.shared.demands import read_as
from idl_audit.commands.shared.float_margins import check_arithmetic
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.journal import Journal, entry_of, samples_of
from idl_audit.commands.shared.kept_points import KeptPoints
from idl_audit.commands.shared.preflight import Teller, preflight, tell_nobody
from idl_audit.commands.shared.progress import Watcher
from idl_audit.commands.shared.sample_tasks import Decided, SampleTasks, Setting
from idl_audit.commands.shared.subject import (
    CHECKED_SAMPLES,
    Subject,
    check_agreement,
    describe_conversion,
)
from idl_audit.commands.shared.whole_numbers import with_range
from idl_audit.implicit.scaling import rescale
from idl_audit.report.schema import AgreementCheck, Conversion, Diagnostic, Report, WhyIncomplete
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import ClusterError


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
    with connected(options.scheduler, patience=options.worker_timeout, tell=tell) as cluster:
        return _audit(command, path, options, watch, tell, cluster)


def _audit(
    command: str, path: Path, options: RobustnessOptions, watch: Watcher, tell: Teller, cluster: Cluster | None
) -> Report:
    clock = Clock()
    if cluster is not None:
        tell(cluster.note())
    with clock.step("read and convert"):
        asked = options.demanded
        opened = opened_for(path, options)
        if opened.no_form is not None:
            options = attacked_alone(opened.no_form, options)
        subject = read_as(opened, options.model, asked)
        check_arithmetic(subject, options.verdicts.arithmetic)
        check_target(subject, options)
        options = replace(options, data=with_range(subject, options.data))
        options = with_attacks(with_ranking(subject, options))
        check_image_shape(subject, options)
        setting = setting_of(subject, options)
        found = audited(setting, subject, options)
    preprocessing = options.data.preprocessing
    with clock.step("check"):
        first = found.samples.read(slice(CHECKED_SAMPLES)).inputs
        check = _checked(subject, preprocessing.apply(first, subject.input_shape).astype(float))
    no_form = [] if subject.no_form is None else [told_no_form(subject.no_form, subject.original.name)]
    for one in no_form:
        tell(one)
    with clock.step("preflight"):
        radii = options.eps if setting.eps_is_distance else ()
        given = found.demanded.single(found.given)
        noted = preflight(subject, given, options.data, eps=radii, tell=tell, seen=found.seen_given)
    key = run_key(command, subject, found, setting, options)
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
        decided = DecidedSamples([by_position.pop(position) for position in sorted(by_position)], kept)
        with clock.step("second opinion"):
            try:
                opinions = opinions_of(subject, decided, options)
            except KeyboardInterrupt:
                own = (subject.original.name, subject.network(preprocessing))
                opinions, why = Opinions((own,), options.target, floats(subject, options)), "interrupted"
        has_scores = subject.no_form is not None or not gives_class(subject.model)
        opinions = replace(opinions, has_scores=has_scores, features=setting.features)
        certificates = [file for sample in decided.samples for file in sample.certificates]
        artifacts = (*save(options, decided, subject), *draw(options, decided, subject), *certificates)
        summary = summary_of(command, decided.samples, options, methods_of_all(setting, subject, found, options))
        why = why or not_judged(decided.samples)
        diagnostics = (
            *no_form,
            *noted,
            *told_ranking(options),
            *told_shard(found, among, options),
            *left_out(found, options, subject),
            *told_margins(decided.samples, check, first, subject, options),
            *heard,
            *(() if cluster is None else cluster.notes()),
            *told_faults(decided.samples, options),
            *missing_opinion(opinions),
            *told_kernels(decided.samples, subject),
        )
        samples = tuple(sample_section(sample, options, opinions, found) for sample in decided.given_up())
    report = framed_report(
        command,
        clock,
        seed=options.verdicts.seed,
        why_incomplete=why,
        model=subject.info,
        conversion=_conversion(subject, check),
        data=data_section(found, options),
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
    return plotted(report, options)


def _checked(subject: Subject, inputs: FloatArray) -> AgreementCheck | None:
    """Compare the implicit model with the network; nothing where there is none."""
    return None if subject.no_form is not None else check_agreement(subject, inputs)


def _conversion(subject: Subject, check: AgreementCheck | None) -> Conversion | None:
    if subject.no_form is not None:
        return None
    return describe_conversion(subject.model, rescale(subject.model), check, subject.seconds)


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
    begun: dict[int, Decided] = {}
    with ExitStack() as stack:
        journal: Journal | None = None
        if options.journal is not None:
            opened = Journal.open(
                options.journal,
                given.key,
                resume=options.resume,
                force=options.force,
                of_the_first=None if options.shard is not None else partial(key_of_the_first, found, setting),
            )
            journal = stack.enter_context(opened)
            if journal.outdated is not None:
                count, version = journal.outdated
                why = f"version {version} of idl-audit decided them, and this is {__version__}"
                message = f"{count} of {n} samples are decided again: {why}"
                yield Diagnostic(code="IDL209", level="warning", message=message)
            for sample in samples_of(journal, tasks, [radius.value for radius in options.eps]):
                if not all(Path(certificate).is_file() for certificate in sample.certificates):
                    continue
                if len(sample.results) < len(options.eps):
                    begun[sample.position] = sample
                else:
                    kept.put(sample)
                    decided.setdefault(sample.position, sample)
        if decided or begun:
            message = f"{len(decided)} of {n} samples were decided by an earlier run and taken from its journal"
            some = f", {len(begun)} more at some of the radii" if begun else ""
            yield Diagnostic(code="IDL207", level="info", message=message + some)
        tasks = replace(tasks, begun=begun)
        known = list(decided.values())
        hands = None if given.cluster is None else hands_of(given.cluster, setting, subject)
        work = decide_all(
            setting,
            subject,
            tasks,
            jobs=options.jobs,
            earlier=known,
            begun=begun,
            watch=watch,
            among=among,
            hands=hands,
        )
        with closing(work):
            for answer in work:
                sample = answer.after(begun.pop(answer.position, None))
                if journal is not None and sample.lost is None:
                    journal.append(entry_of(sample))
                kept.put(sample)
                decided[sample.position] = sample
        if journal is not None and journal.failure is not None:
            message = f"the journal {journal.path} could not be written to the end ({journal.failure})"
            yield Diagnostic(code="IDL208", level="warning", message=message, hint="make room on the disk")
