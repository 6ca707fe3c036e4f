"""Deciding samples, one after the other or in several processes: one that fails is unknown, and the others go on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from idl_audit.commands.options.demands import DemandOptions
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.boxes import ball_radius, sample_set
from idl_audit.commands.shared.demands import read_as
from idl_audit.commands.shared.float_margins import errors, errors_of, float_margins
from idl_audit.commands.shared.progress import Progress, Watcher
from idl_audit.commands.shared.proof_files import about, write
from idl_audit.commands.shared.subject import Subject, open_subject
from idl_audit.commands.shared.workers import Done, Lost, begun, tell, work_through
from idl_audit.data.features import Features
from idl_audit.data.numbers import Eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.samples import Samples, SampleStream
from idl_audit.decide.demands import Decision, decide_demand
from idl_audit.decide.ladder import Options, Result, Sample, decide_sample, decide_together, samples_at_once
from idl_audit.decide.largest import Search
from idl_audit.decide.minimal import Nearest, reach
from idl_audit.decide.mixed import Rows
from idl_audit.decide.opaque import decide_opaque
from idl_audit.decide.perturbed import decide_perturbed, perturbed_proofs
from idl_audit.decide.proofs import Recorded, by_lines_alone, proof_of
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.files.claims import Ball, DemandClaim, PerturbedClaim, SampleClaim
from idl_audit.proof.files.file import ProofFile
from idl_audit.proof.float_margins import Arithmetic, FloatMargins, Unbounded
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.proof import Proof, trivial
from idl_audit.search.opaque import Opaque
from idl_audit.values.arrays import AnyArray, BoolArray, FloatArray
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.budget import Budget
from idl_audit.values.demand import MOST_ENTRIES, AmongFirst, Demand
from idl_audit.values.errors import DeviceError, IdlAuditError, InvalidInputError, ModelFileError
from idl_audit.values.input_sets import InputSet
from idl_audit.values.margins import margin_functionals, predictions, rivals
from idl_audit.values.network import Network
from idl_audit.values.perturbations import Around, Perturbation, Perturbed
from idl_audit.values.query import Misclassification, Query
from idl_audit.values.verdicts import NormName, Reason, Verdict

GRACE: Final = 10.0
"""Seconds beyond its time after which a process is ended: it does not look at the clock, or hangs."""
PAUSE: Final = 0.2
"""Seconds between two words on how far a tree is."""
FLIPPED: Final = (Verdict.FALSIFIED, Verdict.CLEAN_WRONG)
"""Of a smaller set: the class flips within the larger one, too."""

Message: TypeAlias = float | tuple[float, Result]
"""While a sample is being decided: the share of its tree that is proved, or a radius with its result."""


@dataclass(frozen=True)
class Setting:
    """What is the same for all samples; it is handed to other processes."""

    path: Path
    reading: ModelOptions
    sha256: str
    """Of the model as it was read first, weights beside its file included."""
    preprocessing: Preprocessing
    eps: tuple[Eps, ...]
    verdicts: Options
    certificates: Path | None = None
    """Folder for a certificate of each certified sample."""
    overwrite: bool = False
    sigma: FloatArray | None = None
    """How far each input moves for eps = 1; None stands for ones."""
    free: tuple[int, ...] = ()
    """Inputs that move through the whole valid range."""
    sparse: int | None = None
    """At most so many inputs change; None stands for all."""
    demanded: DemandOptions = field(default_factory=DemandOptions)
    """How outputs are read."""
    largest: bool = False
    """Whether smaller radii than the one given are looked at as well."""
    features: Features | None = None
    """What valid rows are, where they alone count."""
    fair: bool = False
    """Whether the protected features alone move."""
    norm: NormName = "linf"
    """What the radii bound."""
    perturbation: Perturbation | None = None
    """What changes in place of every input."""
    shape: tuple[int, ...] = ()
    """Of one input, as a perturbation sees it."""
    minimal: bool = False
    """Whether the nearest counterexample is looked for first."""
    may_lack_form: bool = False
    """Whether a network without an implicit form is attacked all the same."""

    @property
    def eps_is_distance(self) -> bool:
        """Whether each input moves by eps itself."""
        plain = self.sigma is None and self.perturbation is None and self.features is None
        return plain and self.norm == "linf"

    def sigma_of(self, index: int | None) -> FloatArray | None:
        """Return how far each input of a sample moves for eps = 1, (p,); of no sample in particular the most."""
        if self.sigma is None or self.sigma.ndim == 1:
            return self.sigma
        return np.asarray(self.sigma.max(axis=0) if index is None else self.sigma[index])

    def sets(self, centre: FloatArray, subject: Subject, index: int | None = None) -> Sequence[InputSet | Perturbed]:
        """Return the sets around a sample, one a radius in the order of the radii; of valid rows the boxes around them.

        `index` is its place in the data file, where radii differ from sample to sample.

        Raises:
            DataError: where the sample lies outside the valid range, or is no valid row.
            OptionError: where a perturbation needs pictures or a valid range, and there are none.
        """
        features, fair = self.features, self.fair
        if features is not None:
            return [features.cell(centre, radius.value, protected=fair).hull for radius in self.eps]
        bounds, chosen = self.preprocessing.bounds, (self.sigma_of(index), self.sparse, self.free, self.norm)
        if self.perturbation is not None:
            around = Around(centre, self.shape, bounds)
            found = [Perturbed(around, self.perturbation, radius.value) for radius in self.eps]
            for one in found:
                one.check()
            return found
        sets = (sample_set(centre, radius.value, bounds, *chosen) for radius in self.eps)
        return [subject.readable(one, self.preprocessing) for one in sets]


@dataclass(frozen=True, eq=False, slots=True)
class SampleTask:
    """One sample to decide at every radius."""

    position: int
    """Among the samples of the audit."""
    index: int
    """In the data file."""
    label: int
    centre: FloatArray
    demand: Demand | None = None
    """What is to hold of the outputs; None: their class is the label."""
    known: Mapping[float, Result] = field(default_factory=dict)
    """Radius -> what an earlier run found there, which is not looked for again."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle numbers that are float32 as such: half the bytes on their way to other processes."""
        with np.errstate(over="ignore"):
            narrow = self.centre.astype(np.float32)
        sent = narrow if np.array_equal(narrow, self.centre) else self.centre
        return _unpacked, (self.position, self.index, self.label, sent, self.demand, self.known)

    def errs(self, outputs: FloatArray) -> BoolArray:
        """Return which outputs, (m, q), are not as they should be."""
        return Decided.of(self).query(outputs.shape[1]).holds(outputs)


def _unpacked(
    position: int, index: int, label: int, centre: AnyArray, demand: Demand | None, known: Mapping[float, Result]
) -> SampleTask:
    return SampleTask(position, index, label, centre.astype(np.float64), demand, known)


NOWHERE: Final = Box.between(np.zeros(0), np.zeros(0))
"""Stands for the set of a query of which outputs alone are asked about."""


def query_of(demand: Demand, inputs: InputSet, n_outputs: int) -> Query:
    """Return the query for a point that breaks a demand; of combinations of rivals none are named."""
    return demand.query(inputs, n_outputs, 0) if isinstance(demand, AmongFirst) else demand.query(inputs, n_outputs)


class Tasks(Protocol):
    """All samples of an audit in their order; those of a slice are read when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice, /) -> Sequence[SampleTask]: ...


@dataclass(frozen=True, eq=False)
class SampleTasks:
    """The tasks of a stream of samples."""

    samples: SampleStream
    demands: Callable[[Samples], Sequence[Demand | None]] = lambda part: [None] * part.n
    """What is demanded around each of some samples; None: their class."""
    begun: Mapping[int, Decided] = field(default_factory=dict)
    """Position -> a sample that an earlier run decided at some of the radii."""

    def __len__(self) -> int:
        return self.samples.n

    def __getitem__(self, places: slice) -> list[SampleTask]:
        part = self.samples.read(places)
        labels = part.labels if part.labels is not None and part.labels.ndim == 1 else np.full(part.n, -1)
        each = zip(
            range(*places.indices(len(self))), part.indices, labels, part.inputs, self.demands(part), strict=True
        )
        return [
            SampleTask(
                place,
                int(index),
                int(label),
                x,
                demand,
                self.begun[place].results if place in self.begun else {},
            )
            for place, index, label, x, demand in each
        ]


@dataclass(frozen=True)
class Largest:
    """The radii between which a sample is neither certified nor falsified."""

    certified: float | None
    falsified: float | None
    tried: int


@dataclass(eq=False, slots=True)
class Decided:
    """One sample with its results so far, radius by radius."""

    position: int
    index: int
    label: int
    centre: FloatArray | None = None
    """Where it is falsified: the sample itself."""
    predicted: int = -1
    results: dict[float, Result] = field(default_factory=dict)
    certificates: list[str] = field(default_factory=list)
    """Files that were written."""
    uncertified: list[float] = field(default_factory=list)
    """Radii that are certified, but have no certificate that stands alone."""
    lost: str | None = None
    """Where it could not be decided: what happened."""
    demand: Demand | None = None
    largest: Largest | None = None
    """What is known of the radii below the one given, where that was asked."""

    @classmethod
    def of(cls, task: SampleTask) -> Decided:
        """Return a sample of which nothing is known yet."""
        return cls(task.position, task.index, task.label, demand=task.demand)

    def after(self, earlier: Decided | None) -> Decided:
        """Return the sample with what an earlier run knew of it at other radii."""
        if earlier is None:
            return self
        mine = self.results.keys() - earlier.results.keys()
        return replace(
            self,
            centre=earlier.centre if self.centre is None else self.centre,
            results={**earlier.results, **{radius: self.results[radius] for radius in mine}},
            certificates=list(dict.fromkeys([*earlier.certificates, *self.certificates])),
            uncertified=sorted({*earlier.uncertified, *(radius for radius in self.uncertified if radius in mine)}),
        )

    def query(self, n_outputs: int, goal: int | None = None) -> Query:
        """Return the query of what is asked of outputs, whatever the set: misclassified, or as the goal."""
        if self.demand is None:
            return Misclassification(NOWHERE, (), self.label, goal)
        return query_of(self.demand, NOWHERE, n_outputs)


@dataclass(frozen=True, eq=False)
class Batch:
    """Neighbours in the audit, whose first rungs are climbed together: always the same, whoever decides them."""

    tasks: tuple[SampleTask, ...]
    left: tuple[SampleTask, ...]
    """Those that are still to be decided."""


Task: TypeAlias = SampleTask | Batch
Answer: TypeAlias = Decided | list[Decided]
"""Of a batch: the samples that its first rungs decide; the others are to be decided one by one."""


@dataclass(eq=False)
class Decider:
    """Decides samples in this process; in another one, it reads the model at its first sample."""

    setting: Setting
    subject: Subject | None = None
    _ready: tuple[ImplicitModel, Network] | None = None
    _bare: Opaque | None = None
    """In the place of the model, where the network has no implicit form."""
    _options: Options | None = None
    """Those of the setting, with what confirms counterexamples of this model."""
    _last: float = 0.0
    _margins: FloatMargins | Unbounded | None = None
    _known: dict[int, dict[float, Result]] = field(default_factory=dict)
    """Position -> radius -> what `decide_first` has found."""
    _errors: dict[tuple[int, float], float] = field(default_factory=dict)
    """Position and radius -> a bound of what floats change in a certified margin, where it is below that."""
    _proofs: dict[tuple[int, float], Proof] = field(default_factory=dict)
    """Position and radius -> the proof of what is certified, which has been checked."""

    def __reduce__(self) -> tuple[type[Decider], tuple[Setting]]:
        return Decider, (self.setting,)

    def __call__(self, task: Task) -> Answer:
        """Decide what another process asks for: a sample, or those samples of a batch that its first rungs decide."""
        self._opened()
        begun()
        if isinstance(task, SampleTask):
            return self.decide(task, tell)
        self.decide_first(task)
        decided = []
        for one in task.left:
            if self._is_decided(one.position):
                begun()
                decided.append(self.decide(one, lambda message: None))
        for left in (self._known, self._errors, self._proofs):
            left.clear()
        return decided

    def decide_first(self, batch: Batch) -> None:
        """Climb the first rungs with the samples of a batch, radius by radius.

        What goes wrong with a batch is left to each of its samples alone.
        """
        self._errors.clear()
        self._proofs.clear()
        alone = self.setting.features is not None or any(task.demand is not None for task in batch.tasks)
        if alone or len(batch.tasks) == 1 or self.setting.perturbation is not None or self.setting.minimal:
            return
        model, network = self._model()
        sets = {
            task.position: [own for own in self._sets(task) if not isinstance(own, Perturbed)] for task in batch.tasks
        }
        for number, radius in sorted(enumerate(self.setting.eps), key=lambda pair: pair[1].value):
            open_ = [task for task in batch.tasks if not self._is_settled(task.position)]
            samples = [Sample(task.centre, task.label, sets[task.position][number]) for task in open_]
            try:
                found = decide_together(model, network, samples, self._chosen, arithmetic=self._arithmetic())
            except (InvalidInputError, DeviceError):
                raise
            except Exception:
                return
            for task, result in zip(open_, found, strict=True):
                if result is not None:
                    self._known.setdefault(task.position, {})[radius.value] = result
            certified = [
                (task, sets[task.position][number], result)
                for task, result in zip(open_, found, strict=True)
                if result is not None and result.verdict is Verdict.CERTIFIED
            ]
            if len(certified) > 1 and self.setting.verdicts.arithmetic == "real":
                self._finish_together(radius, certified)

    def _finish_together(self, radius: Eps, certified: Sequence[tuple[SampleTask, InputSet, Result]]) -> None:
        """Find what belongs to certified verdicts of many samples at once; what fails is left to each of them alone."""
        model, _ = self._model()
        try:
            self._errors_together(radius, certified)
            if self.setting.certificates is not None:
                queries = [self._claim(task, radius, inputs).queries(model)[0] for task, inputs, _ in certified]
                by_lines = by_lines_alone(model, queries, [result.recorded for *_, result in certified])
                for (task, *_), query, holds in zip(certified, queries, by_lines, strict=True):
                    if holds:
                        self._proofs[task.position, radius.value] = trivial(len(query.alternatives))
        except (IdlAuditError, MemoryError):
            return

    def _errors_together(self, radius: Eps, certified: Sequence[tuple[SampleTask, InputSet, Result]]) -> None:
        """Bound what floats change in margins coarsely, over all boxes at once; where that is enough, it is kept."""
        margins = self._float_margins()
        if isinstance(margins, Unbounded):
            return
        boxes = Interval.of_boxes([inputs.hull for _, inputs, _ in certified])
        rows = np.stack([self._margin_rows(task.label) for task, *_ in certified])
        found = (
            margins.over(boxes, interval_bounds(margins.model, boxes)).of(rows, ranked=True).max(axis=1, initial=0.0)
        )
        for (task, _, result), error in zip(certified, found.tolist(), strict=True):
            if result.lower is not None and result.lower > error:
                self._errors[task.position, radius.value] = error

    def _is_settled(self, position: int) -> bool:
        """Whether a smaller set has a point of another class."""
        return any(result.verdict in FLIPPED for result in self._known.get(position, {}).values())

    def _is_decided(self, position: int) -> bool:
        """Whether nothing is left to do at any radius."""
        known = sorted(self._known.get(position, {}).items())
        radii = sorted(eps.value for eps in self.setting.eps)[: len(known)]
        first = [radius for radius, _ in known] == radii
        return first and bool(known) and (len(known) == len(self.setting.eps) or known[-1][1].verdict in FLIPPED)

    def decide(self, task: SampleTask, heard: Callable[[Message], None]) -> Decided:
        """Return the sample with a result for every radius, the smallest first; `heard` is told on the way."""
        self._opened()
        setting = self.setting
        decided = self._is_decided(task.position)  # else alone from the start, as another process would do it
        known = self._known.pop(task.position, {}) if decided else {}

        def share(value: float) -> None:
            if time.monotonic() - self._last >= PAUSE:
                self._last = time.monotonic()
                heard(value)

        sample = Decided.of(task)
        for radius, inputs in sorted(zip(setting.eps, self._sets(task), strict=True), key=lambda pair: pair[0].value):
            if radius.value in task.known:
                earlier = sample.results[radius.value] = task.known[radius.value]
                sample.predicted = earlier.predicted
                sample.centre = task.centre if earlier.verdict is Verdict.FALSIFIED else sample.centre
                continue
            budget = setting.verdicts.budget
            result = _settled_or_known(sample, inputs, known.get(radius.value))
            result = result or self._nearest(task, radius, budget)
            result = result or self._at(sample, task, inputs, share, budget, radius.value)
            error = self._errors.pop((task.position, radius.value), None)
            if error is None or result.verdict is not Verdict.CERTIFIED:
                error = self._float_error(sample, inputs, result, budget)
            if setting.largest:
                result = self._search_below(sample, task, radius, result, share)
            elif setting.certificates is not None and _has_proof(result):
                self._certify(sample, task, radius, inputs, result, setting.certificates)
            result = _slim(replace(result, float_error=error))
            sample.results[radius.value], sample.predicted = result, result.predicted
            if result.verdict is Verdict.FALSIFIED:
                sample.centre = task.centre
            heard((radius.value, result))
        if self.subject is not None:
            self.subject.check_unchanged()
        return sample

    def _at(
        self,
        sample: Decided,
        task: SampleTask,
        inputs: InputSet | Perturbed,
        share: Callable[[float], None],
        budget: Budget,
        radius: float,
    ) -> Result:
        """Return the verdict over one set."""
        if self._opened().no_form is not None and not isinstance(inputs, Perturbed):
            return decide_opaque(self._opaque(), task.centre, task.label, inputs, self.setting.verdicts, budget)
        (model, network), arithmetic, chosen = self._model(), self._arithmetic(), self._chosen
        centre, label = task.centre, task.label
        if isinstance(inputs, Perturbed):
            return decide_perturbed(model, network, label, inputs, chosen, share, budget)
        if self.setting.features is not None:
            cell = self.setting.features.cell(centre, radius, protected=self.setting.fair)
            return Rows(model, network, centre, label, cell, chosen, budget, arithmetic).decide()
        if task.demand is not None:
            decision = Decision(model, network, centre, inputs, chosen, budget, share, arithmetic=arithmetic)
            flips = (one for one in sample.results.values() if one.found is not None and one.found.holds)
            return decide_demand(decision, task.demand, next(flips, None))
        return decide_sample(model, network, centre, label, inputs, chosen, share, budget, arithmetic=arithmetic)

    def _search_below(
        self, sample: Decided, task: SampleTask, radius: Eps, result: Result, share: Callable[[float], None]
    ) -> Result:
        """Bisect between 0 and the radius given; certify the largest radius that is certified.

        Returns the result at that radius; where the nearest counterexample is looked for, with that.
        """
        setting, centre, around = self.setting, task.centre, self._around(task)

        def decide(value: float) -> Result:
            return self._at(sample, task, around(value), share, setting.verdicts.budget, value)

        def near(value: float, found: Result) -> float:
            if found.found is None or found.found.pinned:
                return value
            return reach(centre, value, found.found.point, around)

        search = Search(decide, near, radius.value)
        search.run(result)
        sample.largest = Largest(search.certified, search.falsified, search.tried)
        if search.certified is not None and search.proof is not None and setting.certificates is not None:
            value = Eps(search.certified, repr(search.certified))
            self._certify(sample, task, value, around(value.value), search.proof, setting.certificates)
        nearest = search.nearest
        if nearest is None or not setting.minimal:
            return result
        return replace(nearest, seconds=result.seconds, queries=max(result.queries, nearest.queries))

    def _around(self, task: SampleTask) -> Callable[[float], InputSet]:
        """Return the set of any radius around a sample."""
        setting, subject = self.setting, self.subject
        assert subject is not None

        def around(value: float) -> InputSet:
            (found,) = replace(setting, eps=(Eps(value, repr(value)),)).sets(task.centre, subject, task.index)
            assert not isinstance(found, Perturbed)  # the options refuse it
            return found

        return around

    def _nearest(self, task: SampleTask, radius: Eps, budget: Budget) -> Result | None:
        """Return the nearest counterexample that an attack finds, where that is asked; None without one."""
        if not self.setting.minimal:
            return None
        model, network = self._model()
        around = self._around(task)
        return Nearest(model, network, task.centre, task.label, around, radius.value, self._chosen, budget).look()

    def _opened(self) -> Subject:
        """Return the subject, read where this is another process."""
        if self.subject is None:
            asked, may_lack = self.setting.demanded, self.setting.may_lack_form
            read = open_subject(self.setting.path, self.setting.reading, whole=asked.of_values, may_lack_form=may_lack)
            self.subject = read_as(read, self.setting.reading, asked)
        if self.subject.info.sha256 != self.setting.sha256:
            raise ModelFileError(f"{self.setting.path} was changed while it was being audited; start again")
        return self.subject

    def _model(self) -> tuple[ImplicitModel, Network]:
        if self._ready is None:
            subject, units = self._opened(), self.setting.preprocessing
            self._ready = subject.in_data_units(units), subject.network(units)
            exact = self.setting.verdicts.arithmetic == "real"  # else the runtime has the last word
            self._options = replace(self.setting.verdicts, confirm=subject.exact(units) if exact else None)
        return self._ready

    def _opaque(self) -> Opaque:
        """Return the network without an implicit form."""
        if self._bare is None:
            subject, units = self._opened(), self.setting.preprocessing
            network, shape = subject.network(units), subject.input_shape
            self._bare = Opaque(network, subject.n_outputs, shape, subject.pulled(units))
        return self._bare

    @property
    def _chosen(self) -> Options:
        assert self._options is not None  # set with the model
        return self._options

    def _float_error(
        self, sample: Decided, inputs: InputSet | Perturbed, result: Result, budget: Budget
    ) -> float | None:
        """Return how far a computed margin of a certified sample may be from the exact one; None where nothing says.

        It is part of what the verdict may cost: with no time left, the coarse bounds are all there is.
        """
        if result.verdict is not Verdict.CERTIFIED or result.lower is None or self.subject is None:
            return None
        if self.setting.verdicts.arithmetic != "real":
            return 0.0  # it is part of the verdict
        margins = self._float_margins()
        if isinstance(margins, Unbounded):
            return None
        if sample.demand is not None and not isinstance(inputs, Perturbed):
            return self._error_of_demand(margins, sample.demand, inputs, result, budget)
        box, rows = Interval.of_boxes(inputs.hull), self._margin_rows(sample.label)
        proved = np.full(len(rows), result.lower)
        found = errors(margins, box, rows, proved, result.states, ranked=True, check=budget.check)
        error = float(found.max(initial=0.0))
        return error if np.isfinite(error) else None

    def _error_of_demand(
        self, margins: FloatMargins, demand: Demand, inputs: InputSet, result: Result, budget: Budget
    ) -> float | None:
        """Return how far a row of a demand that is kept may be computed from the exact one; None where it is large."""
        q = margins.model.n_outputs
        if isinstance(demand, AmongFirst):
            demand = replace(demand, below=result.beaten)
        elif demand.entries(demand.parts.size, q) > MOST_ENTRIES:
            return None
        query = demand.query(inputs, q)
        if len(query.alternatives) != len(result.lowers):
            return None
        error = float(errors_of(margins, query, result.lowers, result.states, check=budget.check).max(initial=0.0))
        return error if np.isfinite(error) else None

    def _arithmetic(self) -> Arithmetic:
        """Return what verdicts are to be proved for."""
        return None if self.setting.verdicts.arithmetic == "real" else self._float_margins()

    def _float_margins(self) -> FloatMargins | Unbounded:
        if self._margins is None:
            assert self.subject is not None
            self._margins = float_margins(self.subject, self.setting.preprocessing)
        return self._margins

    def _margin_rows(self, label: int) -> FloatArray:
        """Return the margins that were proved: to every rival, or to the class that is aimed at."""
        assert self.subject is not None
        rows, goal = margin_functionals(self.subject.model.n_outputs, label), self.setting.verdicts.attack.target
        return rows if goal is None else rows[rivals(self.subject.model.n_outputs, label) == goal]

    def _sets(self, task: SampleTask) -> Sequence[InputSet | Perturbed]:
        assert self.subject is not None  # read with the model
        return self.setting.sets(task.centre, self.subject, task.index)

    def _claim(self, task: SampleTask, radius: Eps, inputs: InputSet) -> SampleClaim:
        k = inputs.k if isinstance(inputs, SparseBall) else None
        setting = self.setting
        clip, free = setting.preprocessing.bounds, setting.free
        sigma, value = setting.sigma_of(task.index), radius.value
        if setting.norm != "linf":  # one factor for all inputs of a sample
            sigma, value = None, ball_radius(value, sigma)
        ball = Ball(task.centre, value, sigma, clip, k, free, setting.norm)
        return SampleClaim(ball, task.label, task.index)

    def _certify(
        self,
        sample: Decided,
        task: SampleTask,
        radius: Eps,
        inputs: InputSet | Perturbed,
        result: Result,
        folder: Path,
    ) -> None:
        """Write a certificate for a sample that is certified, or note that there is none."""
        setting = self.setting
        proofs: tuple[SampleClaim | DemandClaim | PerturbedClaim, tuple[Proof, ...]] | None
        if isinstance(inputs, Perturbed):
            proofs = self._perturbed_proofs(sample, inputs, result)
        else:
            proofs = self._proof(task, radius, inputs, result)
        if proofs is None:
            sample.uncertified.append(radius.value)
            return
        path = folder / f"sample-{sample.index}-eps-{radius.value!r}.npz"
        assert self.subject is not None
        of = about(self.subject, setting.reading, setting.preprocessing, setting.verdicts.arithmetic)
        write(path, ProofFile(of, *proofs), force=setting.overwrite)
        sample.certificates.append(str(path))

    def _perturbed_proofs(
        self, sample: Decided, inputs: Perturbed, result: Result
    ) -> tuple[PerturbedClaim, tuple[Proof, ...]] | None:
        """Return a claim about what a perturbation makes of a sample and a proof for each piece; None without one."""
        model, network = self._model()
        angles = np.array(result.angles) if inputs.perturbation.rotation is not None else None
        claim = PerturbedClaim(inputs, sample.label, sample.index, angles)
        proofs = perturbed_proofs(model, network, claim.label, inputs, result, self.setting.verdicts.budget)
        return None if proofs is None else (claim, proofs)

    def _proof(
        self, task: SampleTask, radius: Eps, inputs: InputSet, result: Result
    ) -> tuple[SampleClaim | DemandClaim, tuple[Proof, ...]] | None:
        """Return a claim about a ball around a sample and its proofs; None where there are none."""
        model, network = self._model()
        claim, recorded = _claim_of(task, self._claim(task, radius, inputs), result)
        if claim.misfit(model):
            return None
        made = None if task.demand is not None else self._proofs.pop((task.position, radius.value), None)
        if made is not None:
            return claim, (made,)
        budget, arithmetic, proofs = self.setting.verdicts.budget, self._arithmetic(), []
        for query, own in zip(claim.queries(model), recorded, strict=True):
            proof = proof_of(model, network, query, own, budget=budget, arithmetic=arithmetic)
            if proof is None:
                return None
            proofs.append(proof)
        return claim, tuple(proofs)


def _slim(result: Result) -> Result:
    """Return what is told of a result: not what only its proof needs, and of points only a counterexample."""
    known = () if result.lower is None else (result.lower,)
    found, nearest = result.found, result.nearest
    if result.found is not None and result.verdict is not Verdict.FALSIFIED:
        found, nearest = None, result.found.margin
    parts = None if result.parts is None else replace(result.parts, groups=(), recorded=())
    slim = replace(result, lowers=known, found=found, nearest=nearest, recorded=None, pieces=(), angles=(), states=None)
    return replace(slim, parts=parts)


def _claim_of(
    task: SampleTask, of_class: SampleClaim, result: Result
) -> tuple[SampleClaim | DemandClaim, tuple[Recorded | None, ...]]:
    """Return what is proved of a sample, and what was recorded for each of its queries."""
    demand, ball = task.demand, of_class.ball
    if demand is None:
        return of_class, (result.recorded,)
    if isinstance(demand, AmongFirst):
        return DemandClaim(ball, replace(demand, below=result.beaten), (), task.index), (result.recorded,)
    assert result.parts is not None
    return DemandClaim(ball, demand, result.parts.groups, task.index), result.parts.recorded


def _has_proof(result: Result) -> bool:
    """Return whether something is certified: a sample, or parts of it."""
    return bool(result.parts.groups) if result.parts is not None else result.verdict is Verdict.CERTIFIED


def _settled_or_known(sample: Decided, inputs: InputSet | Perturbed, known: Result | None) -> Result | None:
    """Return what is known of a set without deciding it: by a smaller one, or by what a batch has decided."""
    parted = sample.demand is not None and not isinstance(sample.demand, AmongFirst)
    return known if parted else _settled(sample, inputs) or known


def _settled(sample: Decided, inputs: InputSet | Perturbed) -> Result | None:
    """Return what flips the class within a smaller set: it flips it within this one; smaller ranges lie in larger."""
    for smaller in sample.results.values():
        if smaller.verdict in FLIPPED and (
            smaller.found is None or isinstance(inputs, Perturbed) or bool(inputs.contains(smaller.found.point))
        ):
            return replace(smaller, lowers=(), seconds=0.0)
    return None


@dataclass(eq=False)
class _Score:
    """What is decided, and what is known of the samples that are being decided."""

    total: int
    watch: Watcher
    verdicts: Counter[str]
    begun: dict[int, dict[float, Result]] = field(default_factory=dict)
    """Position -> results of a sample that is being decided."""
    shares: dict[int, float] = field(default_factory=dict)
    """Position -> share of its tree that is proved."""

    def hear(self, task: Task, message: Message) -> None:
        """Take what is said of a sample; of a batch nothing is said."""
        assert isinstance(task, SampleTask)
        if isinstance(message, float):
            self.shares[task.position] = message
        else:
            radius, result = message
            self.begun.setdefault(task.position, {})[radius] = result
            self.shares.pop(task.position, None)
            self.verdicts[result.verdict.value] += 1
        self.tell()

    def finish(self, sample: Decided) -> Decided:
        """Count what was not heard of, where the sample was lost."""
        known = self.begun.pop(sample.position, {})
        self.shares.pop(sample.position, None)
        missing = [result for radius, result in sample.results.items() if radius not in known]
        self.verdicts.update(result.verdict.value for result in missing)
        if missing:
            self.tell()
        return sample

    def tell(self) -> None:
        """Say how far the work has come."""
        self.watch(Progress(self.verdicts.total(), self.total, self.verdicts, tuple(self.shares.values())))


class Hands(Protocol):
    """Whoever decides tasks in place of processes of this machine."""

    def __call__(
        self,
        tasks: Iterable[Task],
        /,
        *,
        allowed: Callable[[Task], float],
        heard: Callable[[Task, Message], None],
        follow: Callable[[Done[Task, Answer]], Iterable[Task]],
    ) -> Generator[Done[Task, Answer], None, None]:
        """Yield every task with its answer, as `work_through` does."""
        ...


def decide_all(
    setting: Setting,
    subject: Subject,
    tasks: Tasks,
    *,
    jobs: int,
    earlier: Iterable[Decided] = (),
    begun: Mapping[int, Decided] = MappingProxyType({}),
    watch: Watcher = lambda progress: None,
    among: range | None = None,
    decider: Callable[[Task], Answer] | None = None,
    hands: Hands | None = None,
) -> Generator[Decided, None, None]:
    """Yield the samples as they are decided, all radii of one at a time.

    Args:
        setting: what is the same for all samples.
        subject: the model.
        tasks: all samples of the audit.
        jobs: how many processes; 1 works in this one.
        earlier: what was decided before, and is not decided again; iterated once.
        begun: position -> what was decided before at some of the radii, and is known to the tasks.
        watch: told how far the work has come.
        among: the positions that are to be decided; all of them, unless given. The others take part in batches.
        decider: what decides a sample in another process; where it is None, a `Decider`, which takes batches as well.
        hands: who decides, where it is not this machine.
    """
    among = range(len(tasks)) if among is None else among
    score = _Score(len(among) * len(setting.eps), watch, Counter())
    known = np.ones(len(tasks), bool)
    known[among.start : among.stop] = False
    for sample in earlier:
        known[sample.position] = True
        score.verdicts.update(result.verdict.value for result in sample.results.values())
    for position, sample in begun.items():
        score.verdicts.update(result.verdict.value for result in sample.results.values())
        score.begun[position] = dict(sample.results)
    score.tell()
    size = 1 if subject.no_form is not None else samples_at_once(subject.model, setting.verdicts.methods)
    batches = _batches(tasks, known, size)
    if jobs == 1 and decider is None and hands is None:
        decide_here = Decider(setting, subject)
        for batch in batches:
            decide_here.decide_first(batch)
            for task in batch.left:
                answer = _guarded(decide_here, task, score)
                yield score.finish(_or_unknown(answer, task, setting, subject, score))
        return
    certificates = setting.certificates is not None
    seconds = setting.verdicts.time_limit * len(setting.eps) * (2 if certificates else 1) + GRACE
    handed_out: Iterable[Task] = batches
    if decider is not None or size == 1:
        handed_out = (task for batch in batches for task in batch.left)
    told: Mapping[str, Any] = {"allowed": lambda _: seconds, "heard": score.hear, "follow": _left_alone}
    if hands is None:
        work = work_through(handed_out, decider or Decider(setting), jobs=jobs, **told)
    else:
        work = hands(handed_out, **told)
    with closing(work):
        for done in work:
            if isinstance(done.task, SampleTask):
                assert not isinstance(done.answer, list)
                yield score.finish(_or_unknown(done.answer, done.task, setting, subject, score))
            elif isinstance(done.answer, list):
                yield from map(score.finish, done.answer)


def _batches(tasks: Tasks, known: BoolArray, size: int) -> Iterator[Batch]:
    """Yield the batches in which samples are left; the others take part, so that the numbers stay the same."""
    for at in range(0, len(tasks), size):
        if not known[at : at + size].all():
            mates = tuple(tasks[at : at + size])
            yield Batch(mates, tuple(task for task in mates if not known[task.position]))


def _left_alone(done: Done[Task, Answer]) -> Iterator[SampleTask]:
    """Yield the samples of a batch that are still to be decided: all of them where it was lost."""
    if isinstance(done.task, Batch):
        decided = done.answer if isinstance(done.answer, list) else []
        positions = {sample.position for sample in decided}
        yield from (task for task in done.task.left if task.position not in positions)


def _guarded(decider: Decider, task: SampleTask, score: _Score) -> Decided | Lost:
    """Decide a sample; what nobody expects is an answer, too, so that the samples decided so far are not lost."""
    try:
        return decider.decide(task, lambda message: score.hear(task, message))
    except (InvalidInputError, DeviceError):
        raise
    except Exception as error:
        return Lost.by(error)


def _or_unknown(answer: Decided | Lost, task: SampleTask, setting: Setting, subject: Subject, score: _Score) -> Decided:
    """Return the sample; where it was lost, with the radii that were decided before, the others unknown."""
    if isinstance(answer, Decided):
        return answer
    known = score.begun.get(task.position, {})
    network = subject.network(setting.preprocessing)
    said = network(task.centre[None].astype(np.float32))
    predicted = -1 if task.label < 0 else int(predictions(said)[0])
    reason = Reason.WORKER_FAILED
    if answer.overtime or answer.memory:
        reason = Reason.TIME_LIMIT if answer.overtime else Reason.MEMORY_LIMIT
    unknown = (
        Result(Verdict.UNKNOWN, predicted, reason=reason)
        if not task.errs(said)[0]
        else Result(Verdict.CLEAN_WRONG, predicted)
    )
    results = {radius.value: known.get(radius.value, unknown) for radius in setting.eps}
    centre = task.centre if any(one.verdict is Verdict.FALSIFIED for one in results.values()) else None
    return replace(Decided.of(task), centre=centre, predicted=predicted, results=results, lost=answer.why)
