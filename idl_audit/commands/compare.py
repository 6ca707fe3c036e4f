"""compare: two networks on the same inputs, whether they give one class and how far apart their outputs are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from idl_audit import __version__
from idl_audit.commands.options.comparing import CompareOptions
from idl_audit.commands.robustness.keys import model_key
from idl_audit.commands.shared.boxes import sample_sets, threat_model
from idl_audit.commands.shared.comparing import ComparedAt, Comparer, ComparisonSetting, Place, Subjects, open_subjects
from idl_audit.commands.shared.deciding import GRACE
from idl_audit.commands.shared.frame import Clock, framed_report, without_last_operator
from idl_audit.commands.shared.journal import TOOL, Journal, digest
from idl_audit.commands.shared.preflight import Teller, preflight, tell_nobody
from idl_audit.commands.shared.progress import Progress, Watcher
from idl_audit.commands.shared.samples import describe_data, open_samples
from idl_audit.commands.shared.subject import CHECKED_SAMPLES, Subject, check_agreement, describe_conversion
from idl_audit.commands.shared.whole_numbers import with_range
from idl_audit.commands.shared.workers import Lost, work_through
from idl_audit.data.numbers import Eps, check_eps_units
from idl_audit.data.radii import read_radii
from idl_audit.data.samples import Samples
from idl_audit.implicit.scaling import rescale
from idl_audit.report.schema import Diagnostic, Report, WhyIncomplete
from idl_audit.report.schema.comparison import ComparedCounts, ComparedSample, Comparison
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box, is_whole
from idl_audit.values.errors import OptionError
from idl_audit.values.verdicts import Verdict

MOST_NAMED: Final = 10
"""Samples that a sentence names."""
PARTS: Final = 4
"""Bounds in two forms, classes and a certificate: each may take the time of a verdict."""


def audit_comparison(
    first: Path,
    second: Path,
    options: CompareOptions,
    *,
    watch: Watcher = lambda progress: None,
    tell: Teller = tell_nobody,
) -> Report:
    """Compare two networks around every sample at every radius; Ctrl-C leaves a valid, incomplete report.

    Raises:
        InvalidInputError: where a model, the data or an option is refused; nothing is written.
        AgreementError: where an implicit model is not its network.
    """
    clock = Clock()
    with clock.step("read and convert"):
        both = open_subjects(first, second, options.model)
        _check_alike(both)
        options = replace(options, data=with_range(both.first, options.data))
        preprocessing = options.data.preprocessing
        samples = open_samples(both.first, options.data, with_labels=False)
        sigma = _radii(samples, both.first, options)
    with clock.step("check"):
        inputs = preprocessing.apply(samples.inputs[:CHECKED_SAMPLES], both.first.input_shape).astype(float)
        checks = [check_agreement(subject, inputs) for subject in (both.first, both.second)]
    with clock.step("preflight"):
        noted = preflight(both.first, samples, options.data, eps=() if sigma is not None else options.eps, tell=tell)
    sets = sample_sets(samples, options.eps, preprocessing.bounds, sigma=sigma)
    sets = [[both.first.readable(both.second.readable(s, preprocessing), preprocessing) for s in row] for row in sets]
    if options.certificates is not None:
        options.certificates.mkdir(exist_ok=True)
    run = _Run(both, samples, sigma, options, first, second)
    with clock.step("pair"):
        _ = run.comparer.pair.models
    with clock.step("compare"):
        why = run.compare_all(sets, watch, tell)
    for subject in (both.first, both.second):
        subject.check_unchanged()
    return framed_report(
        "compare",
        clock,
        seed=options.verdicts.seed,
        why_incomplete=why,
        model=both.first.info,
        conversion=describe_conversion(both.first.model, rescale(both.first.model), checks[0], both.first.seconds),
        data=describe_data(samples, options.data),
        threat_model=threat_model(options.eps, preprocessing.bounds, sigma=options.sigma, radii=sigma),
        comparison=Comparison(
            second=both.second.info,
            check=checks[1],
            forms=tuple(run.comparer.pair.models),
            has_classes=both.has_classes,
            per_eps=tuple(run.counts(radius) for radius in options.eps),
            samples=tuple(one.sample for one in run.in_order),
        ),
        diagnostics=(*noted, *run.told, *run.diagnostics()),
        artifacts=tuple(file for one in run.in_order for file in one.files),
    )


def _check_alike(both: Subjects) -> None:
    """Refuse a network of whole numbers beside one of other numbers. Raises OptionError."""
    kinds = [one.point_type for one in (both.first, both.second)]
    if any(map(is_whole, kinds)) and kinds[0] != kinds[1]:
        raise OptionError(
            f"{both.first.path} reads {kinds[0].name} and {both.second.path} {kinds[1].name}; networks are compared on "
            "the same inputs"
        )


def _radii(samples: Samples, subject: Subject, options: CompareOptions) -> FloatArray | None:
    if options.sigma is not None:
        return read_radii(options.sigma, subject.input_shape, options.data.layout)
    ends, whole = (float(samples.inputs.min()), float(samples.inputs.max())), is_whole(subject.point_type)
    check_eps_units(options.eps, *ends, options.data.preprocessing.bounds, whole=whole)
    return None


class _Run:
    """All samples, one after the other or several at a time."""

    def __init__(
        self,
        both: Subjects,
        samples: Samples,
        sigma: FloatArray | None,
        options: CompareOptions,
        first: Path,
        second: Path,
    ) -> None:
        self.both, self._samples, self._sigma, self._options = both, samples, sigma, options
        infos = (both.first.info, both.second.info)
        setting = ComparisonSetting(first, second, (infos[0].sha256, infos[1].sha256), options, sigma)
        self.comparer = Comparer(setting, both)
        self.found: dict[int, ComparedAt] = {}
        """Position of a sample -> what is known there."""
        self.told: list[Diagnostic] = []

    @property
    def in_order(self) -> list[ComparedAt]:
        """What is known, in the order of the samples."""
        return [self.found[position] for position in sorted(self.found)]

    def compare_all(self, sets: Sequence[Sequence[object]], watch: Watcher, tell: Teller) -> WhyIncomplete | None:
        """Compare at every sample and radius; return why some are left over, or could not be compared."""
        places = [
            Place(position, int(index), centre, tuple(inputs for inputs in row if isinstance(inputs, Box)))
            for position, (index, centre, row) in enumerate(
                zip(self._samples.indices, self._samples.inputs, sets, strict=True)
            )
        ]
        with ExitStack() as stack:
            journal = self._journal(stack, tell)
            for one in () if journal is None else self._earlier(journal):
                self.found.setdefault(one.position, one)
            if self.found:
                how_many = f"{len(self.found)} of {len(places)} samples"
                message = f"{how_many} were compared by an earlier run and taken from its journal"
                self._say(Diagnostic(code="IDL207", level="info", message=message), tell)
            try:
                for one in self._work([place for place in places if place.position not in self.found], watch):
                    self.found[one.position] = one
                    if journal is not None and one.lost is None:
                        journal.append(_entry(one))
            except KeyboardInterrupt:
                return "interrupted"
            if journal is not None and journal.failure is not None:
                message = f"the journal {journal.path} could not be written to the end ({journal.failure})"
                hint = "make room on the disk"
                self._say(Diagnostic(code="IDL208", level="warning", message=message, hint=hint), tell)
        lost = [one.lost for one in self.found.values() if one.lost is not None and not one.lost.overtime]
        return "not_judged" if lost else None

    def _say(self, told: Diagnostic, tell: Teller) -> None:
        self.told.append(told)
        tell(told)

    def _work(self, places: Sequence[Place], watch: Watcher) -> Iterator[ComparedAt]:
        """Yield what is known at some samples as they are compared."""
        options = self._options
        total, verdicts = self._samples.n * len(options.eps), Counter[str]()

        def heard(verdict: Verdict | None) -> None:
            verdicts["unknown" if verdict is None else verdict.value] += 1
            watch(Progress(verdicts.total(), total, verdicts))

        for one in self.found.values():
            verdicts.update(result.agree or "unknown" for result in one.sample.results)
        watch(Progress(verdicts.total(), total, verdicts))
        if options.jobs == 1:
            for place in places:
                yield self.comparer.compare(place, heard)
            return
        seconds = options.verdicts.time_limit * len(options.eps) * PARTS + GRACE
        remote = Comparer(self.comparer.setting)
        with closing(work_through(places, remote, jobs=options.jobs, allowed=lambda _: seconds)) as work:
            for done in work:
                lost = isinstance(done.answer, Lost)
                one = self.comparer.lost(done.task, done.answer) if isinstance(done.answer, Lost) else done.answer
                verdicts.update("unknown" if lost else result.agree or "unknown" for result in one.sample.results)
                watch(Progress(verdicts.total(), total, verdicts))
                yield one

    # --- the journal --------------------------------------------------------------------------------------------------

    def _journal(self, stack: ExitStack, tell: Teller) -> Journal | None:
        options = self._options
        if options.journal is None:
            return None
        opened = Journal.open(options.journal, self._key(), resume=options.resume, force=options.force)
        journal = stack.enter_context(opened)
        if journal.outdated is not None:
            count, version = journal.outdated
            why = f"version {version} of idl-audit compared them, and this is {__version__}"
            message = f"{count} of {self._samples.n} samples are compared again: {why}"
            self._say(Diagnostic(code="IDL209", level="warning", message=message), tell)
        return journal

    def _key(self) -> Mapping[str, str]:
        """Return what a run must have in common with the one whose journal it goes on from."""
        options, data = self._options, self._options.data
        asked = (options.eps, options.verdicts, options.certificates, data.layout, asdict(data.preprocessing))
        return {
            TOOL: __version__,
            "command": "compare",
            "model": model_key(self.both.first, options.model),
            "second model": model_key(self.both.second, options.model),
            "data file": digest(
                np.ascontiguousarray(self._samples.inputs).tobytes(),
                self._samples.indices.tobytes(),
                b"" if self._sigma is None else self._sigma.tobytes(),
            ),
            "set of options": digest(repr(asked).encode()),
        }

    def _earlier(self, journal: Journal) -> Iterator[ComparedAt]:
        """Yield what an earlier run found out, as far as its lines are whole and its files are there."""
        for line in journal.lines:
            one = _of_entry(json.loads(line))
            if one is None or not 0 <= one.position < self._samples.n:
                continue
            fits = one.sample.index == self._samples.indices[one.position]
            radii = [result.eps for result in one.sample.results] == [radius.value for radius in self._options.eps]
            if fits and radii and all(Path(file).is_file() for file in one.files):
                yield one

    # --- the report ---------------------------------------------------------------------------------------------------

    def counts(self, radius: Eps) -> ComparedCounts:
        """Return the counts at one radius."""
        place = self._options.eps.index(radius)
        found = [one.sample.results[place] for one in self.in_order]
        verdicts = Counter(one.agree for one in found)
        proved = [one.difference_proved for one in found]
        known = [value for value in proved if value is not None]
        seen = [one.difference_found for one in found if one.difference_found is not None]
        return ComparedCounts(
            eps=radius.value,
            n=len(found),
            certified=verdicts["certified"],
            falsified=verdicts["falsified"],
            unknown=verdicts["unknown"],
            difference_proved=max(known) if known and len(known) == len(proved) else None,
            difference_found=max(seen, default=None),
        )

    def diagnostics(self) -> Iterator[Diagnostic]:
        """Say what is left out, what has no certificate, and where floating point is farther apart than the proof."""
        first, second = (subject.model.stripped_output for subject in (self.both.first, self.both.second))
        if not self.both.strip_the_same:
            names = [name or "none" for name in (first, second)]
            message = (
                f"differences of outputs are left out: the last operator is {names[0]} in the first network and "
                f"{names[1]} in the second, and only classes can be compared"
            )
            yield Diagnostic(code="IDL216", level="warning", message=message, hint="export both with the same output")
        else:
            why = "it changes no class, and differences are those of its input, by the implicit models"
            yield from without_last_operator(first, why)
        if not self.both.has_classes:
            message = "both networks have one output and no threshold: differences are compared, and no classes"
            yield Diagnostic(code="IDL216", level="info", message=message, hint="give --threshold T for two classes")
        uncertified = [f"{one.sample.index} (eps {text})" for one in self.in_order for text in one.uncertified]
        if uncertified:
            named = ", ".join(uncertified[:MOST_NAMED])
            message = f"agreement is certified, but no certificate that stands alone was found for the samples {named}"
            yield Diagnostic(code="IDL205", level="warning", message=message)
        for one in self.in_order:
            if one.lost is not None:
                yield Diagnostic(
                    code="IDL206",
                    level="error",
                    message=f"sample {one.sample.index} could not be compared: {one.lost.why}",
                    hint="run it again alone with --index, with fewer --jobs" if self._options.jobs > 1 else None,
                    where=f"samples {one.sample.index}",
                )
        yield from self._rounded()

    def _rounded(self) -> Iterator[Diagnostic]:
        """Name samples at which the networks themselves are farther apart than in exact arithmetic."""
        places = [
            one.sample.index
            for one in self.in_order
            if any(
                found.difference_proved is not None
                and found.difference_found is not None
                and found.difference_found > found.difference_proved
                for found in one.sample.results
            )
        ]
        if places:
            yield Diagnostic(
                code="IDL202",
                level="warning",
                message=f"around {len(places)} samples the networks were seen farther apart than is proved: floating "
                "point moves outputs by more than what differs in exact arithmetic",
                hint="the proof holds in exact arithmetic for the weights in the files",
                where=f"samples {', '.join(map(str, places[:MOST_NAMED]))}",
            )


def _entry(one: ComparedAt) -> Mapping[str, Any]:
    """Return what is known at a sample as a line of a journal."""
    sample = one.sample.model_dump(mode="json")
    return {"position": one.position, "sample": sample, "files": one.files, "uncertified": one.uncertified}


def _of_entry(line: Mapping[str, Any]) -> ComparedAt | None:
    """Return what a line of a journal says; None where it is none."""
    try:
        sample = ComparedSample.model_validate_json(json.dumps(line["sample"]))
        files, uncertified = (tuple(map(str, line[name])) for name in ("files", "uncertified"))
        return ComparedAt(int(line["position"]), sample, files, uncertified)
    except (KeyError, TypeError, ValueError):
        return None
