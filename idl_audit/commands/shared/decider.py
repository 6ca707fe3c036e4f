"""Deciding samples in this process, one by one or the first rungs of a batch: verdicts, and their certificates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.commands.shared.boxes import ball_radius
from idl_audit.commands.shared.demands import read_as
from idl_audit.commands.shared.float_margins import errors, errors_of, float_margins
from idl_audit.commands.shared.points import with_points
from idl_audit.commands.shared.proof_files import about, write
from idl_audit.commands.shared.sample_tasks import (
    Answer,
    Batch,
    Decided,
    Largest,
    Message,
    SampleTask,
    Setting,
    Task,
)
from idl_audit.commands.shared.subject import Subject, open_subject
from idl_audit.commands.shared.workers import begun, tell
from idl_audit.data.numbers import Eps
from idl_audit.decide.demands import Decision, decide_demand
from idl_audit.decide.ladder import Options, Result, Sample, decide_sample, decide_together
from idl_audit.decide.largest import Search
from idl_audit.decide.minimal import Nearest, reach
from idl_audit.decide.mixed import Rows, row_proofs
from idl_audit.decide.opaque import decide_opaque
from idl_audit.decide.perturbed import decide_perturbed, perturbed_proofs
from idl_audit.decide.proofs import Recorded, by_lines_alone, proof_of
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.cells import rules_of
from idl_audit.proof.files.claims import Ball, DemandClaim, PerturbedClaim, SampleClaim
from idl_audit.proof.files.file import ProofFile
from idl_audit.proof.files.rows import RowsClaim
from idl_audit.proof.float_margins import Arithmetic, FloatMargins, Unbounded
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.proof import Proof, trivial
from idl_audit.search.opaque import Opaque
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import SparseBall, is_whole
from idl_audit.values.budget import Budget
from idl_audit.values.demand import MOST_ENTRIES, AmongFirst, Demand
from idl_audit.values.errors import DeviceError, IdlAuditError, InvalidInputError, ModelFileError
from idl_audit.values.input_sets import InputSet
from idl_audit.values.margins import margin_functionals, rivals
from idl_audit.values.mixed import Cell
from idl_audit.values.network import Network
from idl_audit.values.perturbations import Perturbed
from idl_audit.values.verdicts import Verdict

PAUSE: Final = 0.2
"""Seconds between two words on how far a tree is."""
FLIPPED: Final = (Verdict.FALSIFIED, Verdict.CLEAN_WRONG)
"""Of a smaller set: the class flips within the larger one, too."""


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

        assert self.subject is not None
        whole = is_whole(self.subject.point_type) and setting.sigma is None and setting.features is None
        search = Search(decide, near, radius.value, whole=whole)
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
        if setting.norm != "linf":
            value, sigma = ball_radius(value, sigma)
        if is_whole(inputs.hull.point_type) and sigma is None and value >= 1:
            value = float(math.floor(value))  # the same whole numbers, and the box that was proved
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
        proofs: tuple[SampleClaim | DemandClaim | PerturbedClaim | RowsClaim, tuple[Proof, ...]] | None
        if isinstance(inputs, Perturbed):
            proofs = self._perturbed_proofs(sample, inputs, result)
        elif setting.features is not None:
            cell = setting.features.cell(task.centre, radius.value, protected=setting.fair)
            proofs = self._row_proofs(task, cell, result)
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

    def _row_proofs(self, task: SampleTask, cell: Cell, result: Result) -> tuple[RowsClaim, tuple[Proof, ...]] | None:
        """Return a claim about the valid rows around a sample and a proof for each of their cells; None without one."""
        (model, network), arithmetic = self._model(), self._arithmetic()
        if result.cells is None:
            return None
        rules = rules_of(cell) if arithmetic is None and model.is_feed_forward else None
        claim = RowsClaim(cell, result.cells, task.label, task.index, task.centre, rules)
        budget = self.setting.verdicts.budget
        made = row_proofs(claim, model, network, result.pieces, budget=budget, arithmetic=arithmetic)
        return None if made is None else (claim, made)

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
        kind = inputs.hull.point_type
        for query, own in zip(claim.queries(model), recorded, strict=True):
            query = replace(query, inputs=with_points(query.inputs, kind))
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
    return replace(slim, parts=parts, cells=None)


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
