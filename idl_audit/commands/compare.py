"""compare: two networks on the same inputs, whether they give one class and how far apart their outputs are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.commands.certify import CHECKED_SAMPLES
from idl_audit.commands.options.comparing import CompareOptions
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.boxes import sample_sets, threat_model
from idl_audit.commands.shared.classifier import PROBABILITY, as_classifier, output_range
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.preflight import Teller, preflight, tell_nobody
from idl_audit.commands.shared.progress import Progress, Watcher
from idl_audit.commands.shared.proof_files import about, write
from idl_audit.commands.shared.samples import describe_data, open_samples
from idl_audit.commands.shared.subject import Subject, check_agreement, describe_conversion, open_subject
from idl_audit.data.numbers import Eps, check_eps_units
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.radii import read_radii
from idl_audit.data.samples import Samples
from idl_audit.decide.comparing import Compared, Pair, compare_at
from idl_audit.implicit.input_units import in_data_units
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.pair import Form, paired_model, why_not_comparable
from idl_audit.implicit.scaling import rescale
from idl_audit.proof.files.claims import Ball
from idl_audit.proof.files.file import ProofFile
from idl_audit.proof.files.pairs import AgreementClaim, DifferenceClaim, Pairing
from idl_audit.report.schema import Diagnostic, Report
from idl_audit.report.schema.comparison import (
    ComparedCounts,
    ComparedResult,
    ComparedSample,
    Comparison,
    TwoClasses,
)
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import OptionError
from idl_audit.values.network import Network
from idl_audit.values.verdicts import Verdict

MOST_NAMED: Final = 10
"""Samples that a sentence names."""


@dataclass(frozen=True)
class Subjects:
    """Two networks, and whether their outputs make classes."""

    first: Subject
    second: Subject
    has_classes: bool

    @property
    def strip_the_same(self) -> bool:
        """Whether both models leave out the same last operator, if any: else outputs are no numbers to subtract."""
        return self.first.model.stripped_output == self.second.model.stripped_output

    def pair(self, preprocessing: Preprocessing) -> Pair:
        """Return both in data units."""
        one, other = (subject.in_data_units(preprocessing) for subject in (self.first, self.second))
        own, others = (subject.network(preprocessing) for subject in (self.first, self.second))
        left_out = bool(one.stripped_output or other.stripped_output)

        def network(points: Float32Array) -> FloatArray:
            y, z = np.asarray(own(points), np.float64), np.asarray(others(points), np.float64)
            if not left_out:
                return np.hstack([y, z, y - z])
            exact = points.astype(np.float64)
            return np.hstack([y, z, one(exact) - other(exact)])

        def paired(form: Form) -> ImplicitModel:
            units = preprocessing.affine(self.first.input_shape)
            return in_data_units(paired_model(self.first.model, self.second.model, form), *units)

        found: Network = network
        return Pair(one, other, found, self.is_one, paired)

    @property
    def is_one(self) -> bool:
        """Whether both are the same file, all that belongs to it included, read in the same way."""
        infos = [subject.info for subject in (self.first, self.second)]
        return all(
            getattr(infos[0], name) == getattr(infos[1], name)
            for name in ("sha256", "output_name", "threshold", "arch", "fixed_inputs", "inputs", "input_shape")
        )


def open_subjects(first: Path, second: Path, options: ModelOptions) -> Subjects:
    """Read two networks that are to be compared.

    Raises:
        InvalidInputError: where one cannot be read, or inputs or outputs differ.
    """
    one, other = open_subject(first, options), open_subject(second, options)
    why = why_not_comparable(one.model, other.model)
    shapes = one.input_shape, other.input_shape
    if not why and shapes[0] != shapes[1] and min(map(len, shapes)) > 1:
        sizes = [" x ".join(map(str, shape)) for shape in shapes]
        why = f"an input of the first is {sizes[0]}, and one of the second {sizes[1]}"
    if why:
        raise OptionError(
            f"{first} and {second} cannot be compared: {why}; networks are compared on the same inputs and outputs"
        )
    if one.model.n_outputs > 1:
        as_classifier(one, options.threshold)  # refuses a threshold
        return Subjects(one, other, True)
    if options.threshold is None and not all(output_range(s.model) == PROBABILITY for s in (one, other)):
        return Subjects(one, other, False)
    return Subjects(as_classifier(one, options.threshold), as_classifier(other, options.threshold), True)


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
    clock, preprocessing = Clock(), options.data.preprocessing
    with clock.step("read and convert"):
        both = open_subjects(first, second, options.model)
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
    run = _Run(both, samples, sigma, options)
    with clock.step("pair"):
        _ = run.pair.models
    with clock.step("compare"):
        complete = run.compare_all(sets, watch)
    for subject in (both.first, both.second):
        subject.check_unchanged()
    return framed_report(
        "compare",
        clock,
        seed=options.verdicts.seed,
        why_incomplete=None if complete else "interrupted",
        model=both.first.info,
        conversion=describe_conversion(both.first.model, rescale(both.first.model), checks[0], both.first.seconds),
        data=describe_data(samples, options.data),
        threat_model=threat_model(options.eps, preprocessing.bounds, sigma=options.sigma, radii=sigma),
        comparison=Comparison(
            second=both.second.info,
            check=checks[1],
            forms=tuple(run.pair.models),
            has_classes=both.has_classes,
            per_eps=tuple(run.counts(radius) for radius in options.eps),
            samples=tuple(run.sample_report(place) for place in sorted(run.found)),
        ),
        diagnostics=(*noted, *run.diagnostics()),
        artifacts=tuple(run.files),
    )


def _radii(samples: Samples, subject: Subject, options: CompareOptions) -> FloatArray | None:
    if options.sigma is not None:
        return read_radii(options.sigma, subject.input_shape, options.data.layout)
    check_eps_units(
        options.eps, float(samples.inputs.min()), float(samples.inputs.max()), options.data.preprocessing.bounds
    )
    return None


class _Run:
    """All samples, one after the other."""

    def __init__(self, both: Subjects, samples: Samples, sigma: FloatArray | None, options: CompareOptions) -> None:
        self.both, self._samples, self._sigma, self._options = both, samples, sigma, options
        self.pair = both.pair(options.data.preprocessing)
        self.found: dict[int, dict[float, Compared]] = {}
        """Place of a sample -> radius -> what is known."""
        self.files: list[str] = []
        self._uncertified: list[str] = []
        verdicts = replace(options.verdicts, max_bytes=options.model.max_bytes)
        self._verdicts = verdicts

    def compare_all(self, sets: Sequence[Sequence[object]], watch: Watcher) -> bool:
        """Compare at every sample and radius; return whether none was left over."""
        total, verdicts = self._samples.n * len(self._options.eps), Counter[str]()
        watch(Progress(0, total, verdicts))
        try:
            for place, row in enumerate(sets):
                results: dict[float, Compared] = {}
                for radius, inputs in zip(self._options.eps, row, strict=True):
                    assert isinstance(inputs, Box)
                    results[radius.value] = self._compare(place, radius, inputs)
                    verdict = results[radius.value].verdict
                    verdicts["unknown" if verdict is None else verdict.value] += 1
                    watch(Progress(verdicts.total(), total, verdicts))
                self.found[place] = results
        except KeyboardInterrupt:
            return False
        return True

    def _compare(self, place: int, radius: Eps, inputs: Box) -> Compared:
        sample = self._samples.inputs[place]
        found = compare_at(self.pair, sample, inputs, self._verdicts, classes=self.both.has_classes)
        if not self.both.strip_the_same:
            found = replace(found, limits=np.full(self.pair.q, np.inf), difference=None)
        if self._options.certificates is not None:
            self._certify(place, radius, found, self._options.certificates)
        return found

    def _certify(self, place: int, radius: Eps, found: Compared, folder: Path) -> None:
        """Write the certificates of what is proved, or note that there is none."""
        options, index = self._options, int(self._samples.indices[place])
        units = options.data.preprocessing
        ball = Ball(self._samples.inputs[place], radius.value, self._sigma, units.bounds)
        of, other = (about(subject, options.model, units) for subject in (self.both.first, self.both.second))
        name = f"sample-{index}-eps-{radius.value!r}"
        if found.difference is not None:
            claim = DifferenceClaim(ball, found.limits, index, Pairing(other, found.difference.form))
            self._write(folder / f"{name}-difference.npz", ProofFile(of, claim, (found.difference.proof,)))
        if found.agreement is not None:
            pairing = Pairing(other, found.agreement.form)
            agreement = AgreementClaim(ball, max(found.classes[0], 0), found.possible, index, pairing)
            self._write(folder / f"{name}-agreement.npz", ProofFile(of, agreement, (found.agreement.proof,)))
        if found.verdict is Verdict.CERTIFIED and found.agreement is None:
            self._uncertified.append(f"{index} (eps {radius.text})")

    def _write(self, path: Path, file: ProofFile) -> None:
        write(path, file, force=self._options.force)
        self.files.append(str(path))

    def counts(self, radius: Eps) -> ComparedCounts:
        """Return the counts at one radius."""
        found = [results[radius.value] for results in self.found.values()]
        verdicts = Counter(one.verdict for one in found)
        proved = [self._proved(one) for one in found]
        known = [value for value in proved if value is not None]
        return ComparedCounts(
            eps=radius.value,
            n=len(found),
            certified=verdicts[Verdict.CERTIFIED],
            falsified=verdicts[Verdict.FALSIFIED],
            unknown=verdicts[Verdict.UNKNOWN],
            difference_proved=max(known) if known and len(known) == len(proved) else None,
            difference_found=max((one.reached for one in found), default=None) if self.both.strip_the_same else None,
        )

    def _proved(self, found: Compared) -> float | None:
        return found.proved if self.both.strip_the_same else None

    def sample_report(self, place: int) -> ComparedSample:
        """Return one sample with its results."""
        results = self.found[place]
        first, second = next(iter(results.values())).classes
        classes = self.both.has_classes
        return ComparedSample(
            index=int(self._samples.indices[place]),
            first=first if classes and first >= 0 else None,
            second=second if classes and second >= 0 else None,
            results=tuple(self._result(place, radius.value, results[radius.value]) for radius in self._options.eps),
        )

    def _result(self, place: int, eps: float, found: Compared) -> ComparedResult:
        two = None
        if found.verdict is Verdict.FALSIFIED and found.found is not None:
            point, q = found.found, self.pair.q
            classes = [int(np.argmax(y)) if np.isfinite(y).all() else None for y in np.split(point.outputs, 3)[:2]]
            change = np.abs(point.point.astype(np.float64) - self._samples.inputs[place])
            assert point.outputs.size == 3 * q
            names = (self.both.first.original.name, self.both.second.original.name)
            two = TwoClasses(first=classes[0], second=classes[1], linf=float(change.max()), confirmed_by=names)
        agree = None if found.verdict is None else found.verdict.value
        return ComparedResult(
            eps=eps,
            agree=agree,  # type: ignore[arg-type]
            method=found.method,
            reason=found.reason,
            found=two,
            difference_proved=self._proved(found),
            difference_found=found.reached if self.both.strip_the_same and math.isfinite(found.reached) else None,
            seconds=found.seconds,
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
        elif first:
            message = f"the last operator, {first}, is left out: it changes no class, and differences are those of its "
            yield Diagnostic(code="IDL201", level="info", message=message + "input, by the implicit models")
        if not self.both.has_classes:
            message = "both networks have one output and no threshold: differences are compared, and no classes"
            yield Diagnostic(code="IDL216", level="info", message=message, hint="give --threshold T for two classes")
        if self._uncertified:
            named = ", ".join(self._uncertified[:MOST_NAMED])
            message = f"agreement is certified, but no certificate that stands alone was found for the samples {named}"
            yield Diagnostic(code="IDL205", level="warning", message=message)
        yield from self._rounded()

    def _rounded(self) -> Iterator[Diagnostic]:
        """Name samples at which the networks themselves are farther apart than in exact arithmetic."""
        places = [
            int(self._samples.indices[place])
            for place, results in self.found.items()
            if any(one.proved is not None and one.reached > one.proved for one in results.values())
        ]
        if places and self.both.strip_the_same:
            yield Diagnostic(
                code="IDL202",
                level="warning",
                message=f"around {len(places)} samples the networks were seen farther apart than is proved: floating "
                "point moves outputs by more than what differs in exact arithmetic",
                hint="the proof holds in exact arithmetic for the weights in the files",
                where=f"samples {', '.join(map(str, places[:MOST_NAMED]))}",
            )
