"""Two networks and the samples that they are compared around: read once a process, one task a sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from idl_audit.commands.options.comparing import CompareOptions
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.classifier import PROBABILITY, as_classifier, output_range
from idl_audit.commands.shared.proof_files import about, write
from idl_audit.commands.shared.subject import Subject, open_subject
from idl_audit.commands.shared.workers import Lost, begun
from idl_audit.data.numbers import Eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.comparing import Compared, Pair, compare_at
from idl_audit.implicit.input_units import in_data_units
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.pair import Form, paired_model, why_not_comparable
from idl_audit.proof.files.claims import Ball
from idl_audit.proof.files.file import ProofFile
from idl_audit.proof.files.pairs import AgreementClaim, DifferenceClaim, Pairing
from idl_audit.report.schema.comparison import ComparedResult, ComparedSample, TwoClasses
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import ModelFileError, OptionError
from idl_audit.values.margins import predictions
from idl_audit.values.network import Network
from idl_audit.values.verdicts import Reason, Verdict


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


@dataclass(frozen=True, eq=False)
class Place:
    """A sample to be compared at, with its set at each radius."""

    position: int
    """Among the samples of the run."""
    index: int
    """In the data file."""
    centre: FloatArray
    sets: tuple[Box, ...]


@dataclass(frozen=True, eq=False)
class ComparedAt:
    """What is known at one sample, in the report's words, and the files that prove it."""

    position: int
    sample: ComparedSample
    files: tuple[str, ...] = ()
    uncertified: tuple[str, ...] = ()
    """Radii at which agreement is certified, and no certificate was found, by their texts."""
    lost: Lost | None = None
    """Why nothing is known: what happened to the process."""


@dataclass(frozen=True, eq=False)
class ComparisonSetting:
    """What is the same for all samples."""

    first: Path
    second: Path
    sha256: tuple[str, str]
    """Of both files: another process must read the same."""
    options: CompareOptions
    sigma: FloatArray | None = None


class Comparer:
    """Compares at samples, in the process that has read the networks or in another one, which reads them itself."""

    def __init__(self, setting: ComparisonSetting, both: Subjects | None = None) -> None:
        self.setting, self._both = setting, both
        self._pair: Pair | None = None

    def __reduce__(self) -> tuple[type[Comparer], tuple[ComparisonSetting]]:
        return Comparer, (self.setting,)

    def __call__(self, place: Place) -> ComparedAt:
        """Compare at a sample that another process asks about."""
        _ = self.pair.models
        begun()
        return self.compare(place, lambda verdict: None)

    @property
    def both(self) -> Subjects:
        """The networks."""
        if self._both is None:
            setting = self.setting
            self._both = open_subjects(setting.first, setting.second, setting.options.model)
            if (self._both.first.info.sha256, self._both.second.info.sha256) != setting.sha256:
                raise ModelFileError(f"{setting.first} or {setting.second} was changed meanwhile; start again")
        return self._both

    @property
    def pair(self) -> Pair:
        """Both networks as one model."""
        if self._pair is None:
            self._pair = self.both.pair(self.setting.options.data.preprocessing)
        return self._pair

    def compare(self, place: Place, heard: Callable[[Verdict | None], None]) -> ComparedAt:
        """Return what is known at a sample; `heard` is told the verdict of each radius."""
        options, results = self.setting.options, list[ComparedResult]()
        files, uncertified, classes = list[str](), list[str](), (-1, -1)
        for radius, inputs in zip(options.eps, place.sets, strict=True):
            found = self._compared(place, inputs)
            if options.certificates is not None:
                files += self._certified(place, radius, found, options.certificates)
                if found.verdict is Verdict.CERTIFIED and found.agreement is None:
                    uncertified.append(radius.text)
            results.append(self._result(place, radius.value, found))
            classes = classes if results[1:] else found.classes
            heard(found.verdict)
        sample = self._sample(place, classes, results)
        return ComparedAt(place.position, sample, tuple(files), tuple(uncertified))

    def lost(self, place: Place, why: Lost) -> ComparedAt:
        """Return what is left to say where a process was lost: both classes, as the networks give them."""
        reason = Reason.WORKER_FAILED
        if why.overtime or why.memory:
            reason = Reason.TIME_LIMIT if why.overtime else Reason.MEMORY_LIMIT
        agree, known = ("unknown", reason) if self.both.has_classes else (None, None)
        results = [
            ComparedResult(eps=radius.value, agree=agree, reason=known)  # type: ignore[arg-type]
            for radius in self.setting.options.eps
        ]
        outputs = np.split(self.pair.network(place.centre[None].astype(np.float32)), 3, axis=1)
        first, second = (int(predictions(own)[0]) for own in outputs[:2])
        return ComparedAt(place.position, self._sample(place, (first, second), results), lost=why)

    def _compared(self, place: Place, inputs: Box) -> Compared:
        options = self.setting.options
        verdicts = replace(options.verdicts, max_bytes=options.model.max_bytes)
        found = compare_at(self.pair, place.centre, inputs, verdicts, classes=self.both.has_classes)
        if not self.both.strip_the_same:
            found = replace(found, limits=np.full(self.pair.q, np.inf), difference=None)
        return found

    def _certified(self, place: Place, radius: Eps, found: Compared, folder: Path) -> list[str]:
        """Write the certificates of what is proved; return their files."""
        options, units = self.setting.options, self.setting.options.data.preprocessing
        ball = Ball(place.centre, radius.value, self.setting.sigma, units.bounds)
        of, other = (about(subject, options.model, units) for subject in (self.both.first, self.both.second))
        name, made = f"sample-{place.index}-eps-{radius.value!r}", list[tuple[str, ProofFile]]()
        if found.difference is not None:
            claim = DifferenceClaim(ball, found.limits, place.index, Pairing(other, found.difference.form))
            made.append((f"{name}-difference.npz", ProofFile(of, claim, (found.difference.proof,))))
        if found.agreement is not None:
            pairing = Pairing(other, found.agreement.form)
            agreement = AgreementClaim(ball, max(found.classes[0], 0), found.possible, place.index, pairing)
            made.append((f"{name}-agreement.npz", ProofFile(of, agreement, (found.agreement.proof,))))
        for file, proof in made:
            write(folder / file, proof, force=options.force or options.resume)
        return [str(folder / file) for file, _ in made]

    def _sample(self, place: Place, classes: tuple[int, int], results: Sequence[ComparedResult]) -> ComparedSample:
        first, second = (own if self.both.has_classes and own >= 0 else None for own in classes)
        return ComparedSample(index=place.index, first=first, second=second, results=tuple(results))

    def _result(self, place: Place, eps: float, found: Compared) -> ComparedResult:
        two = None
        if found.verdict is Verdict.FALSIFIED and found.found is not None:
            point, q = found.found, self.pair.q
            classes = [int(np.argmax(y)) if np.isfinite(y).all() else None for y in np.split(point.outputs, 3)[:2]]
            change = np.abs(point.point.astype(np.float64) - place.centre)
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
            difference_proved=found.proved if self.both.strip_the_same else None,
            difference_found=found.reached if self.both.strip_the_same and math.isfinite(found.reached) else None,
            seconds=found.seconds,
        )
