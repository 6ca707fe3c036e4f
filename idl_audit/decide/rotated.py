"""Verdicts over the rotations of a picture: intervals of angles, each a family that encloses what it makes.

What a family holds beside rotated pictures counts for nothing but proofs: searches never see it. They try angles; the
network is asked about the float32 numbers next to the rotated picture, and interval arithmetic about the picture
itself, which both must err at.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

import numpy as np

from idl_audit.decide.ladder import Options, Result, decide_query
from idl_audit.decide.proofs import Recorded
from idl_audit.implicit.front import with_family
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.exact.point import ExactNetwork
from idl_audit.search.judge import Found
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.budget import Budget
from idl_audit.values.margins import predictions
from idl_audit.values.network import Network
from idl_audit.values.perturbations import Perturbed
from idl_audit.values.query import Query
from idl_audit.values.rotations import Rotated
from idl_audit.values.verdicts import Reason, Verdict

TRIED: Final = 65
"""Angles that are tried, evenly, both ends among them."""
AGAIN: Final = 3
"""Times that the neighbourhood of the worst angle is looked at more closely."""
FIRST_PIECES: Final = 8
"""Intervals of angles to begin with: wider ones are hardly ever proved."""
NARROWEST: Final = 2.0**-14
"""Share of all angles below which an interval is not cut any more."""
BOUNDS: Final = ("interval", "linear")
"""What proves an interval of angles: none of it proposes points."""


@dataclass(eq=False)
class Turns:
    """The rotations of one sample, and what is known of them."""

    model: ImplicitModel
    network: Network
    label: int
    inputs: Perturbed
    options: Options
    budget: Budget
    lowest: FloatArray | None = None
    """The least proved bound of each margin over the intervals that are closed."""
    method: str | None = None
    found: Found | None = None
    nearest: Found | None = None
    """Where the network is nearest to erring."""
    denied: int = 0
    closed: list[tuple[float, float, Recorded]] = field(default_factory=list)
    """(lo, hi) of the intervals that are proved, and what was recorded of it where that is asked for."""
    waiting: list[tuple[float, float, float]] = field(default_factory=list)
    """(-width, lo, hi)"""

    def __post_init__(self) -> None:
        rotation = self.inputs.perturbation.rotation
        assert rotation is not None
        self.inner, self.outer = rotation.reach(self.inputs.factor)
        self.rotated: Rotated = self.inputs.rotated
        self.exact = ExactNetwork(self.model)

    def decide(self) -> Result:
        """Return the verdict: certified where every interval of angles is, falsified by a rotated picture."""
        predicted = int(predictions(self.network(self.inputs.around.sample[None].astype(np.float32)))[0])
        if predicted != self.label:
            return Result(Verdict.CLEAN_WRONG, predicted)
        if self._attacked():
            return Result(Verdict.FALSIFIED, predicted, method="angles", found=self.found, denied=self.denied)
        open_ = self._proved()
        if open_ is None:
            lowers = () if self.lowest is None else tuple(self.lowest.tolist())
            known = Result(Verdict.CERTIFIED, predicted, method=self.method, lowers=lowers, found=self.nearest)
            closed = sorted(self.closed, key=lambda one: one[0])
            angles = (*(lo for lo, _, _ in closed), *(hi for _, hi, _ in closed[-1:]))
            return replace(known, pieces=tuple(recorded for *_, recorded in closed), angles=angles)
        reason = Reason.RELAXATION_GAP
        if self.budget.is_spent:
            reason = Reason.TIME_LIMIT if self.budget.out_of_time else Reason.NODE_LIMIT
        return Result(Verdict.UNKNOWN, predicted, reason=reason, found=self.nearest, worst=(open_,), denied=self.denied)

    def _attacked(self) -> bool:
        """Try angles, closer and closer about the worst; return whether one makes the network err."""
        lo, hi = -self.inner, self.inner
        for _ in range(1 + AGAIN):
            angles = np.linspace(lo, hi, TRIED)
            worst = self._ask(np.clip(angles, -self.inner, self.inner))
            if self.found is not None:
                return True
            step = (hi - lo) / (TRIED - 1)
            lo, hi = worst - step, worst + step
        return False

    def _ask(self, angles: FloatArray) -> float:
        """Ask the network about pictures rotated by some angles; return the worst of them."""
        ends = [self.rotated.enclosed(angle, angle) for angle in angles.tolist()]
        pictures: Float32Array = np.stack([lo / 2 + hi / 2 for lo, hi in ends]).astype(np.float32)
        query = self._query()
        self.budget.spend(len(pictures))
        outputs = np.concatenate([self.network(one[None]) for one in pictures])
        distance = np.where(np.isfinite(outputs).all(axis=1), query.distance(outputs), np.inf)
        for i in np.argsort(distance, kind="stable"):
            point = _asked(pictures[i], outputs[i], float(distance[i]), float(angles[i]))
            if not bool(query.holds(outputs[i][None])[0]):
                if self.nearest is None or point.rank < self.nearest.rank:
                    self.nearest = point
                break
            opinion = self.exact.between(query, *ends[i])
            if opinion.holds:
                self.found = replace(point, holds=True, confirmed_by=opinion.by)
                break
            self.denied += 1
        return float(angles[int(np.argmin(distance))])

    def _query(self) -> Query:
        return Query.misclassification(self.inputs.hull, self.model.n_outputs, self.label)

    def _proved(self) -> float | None:
        """Prove intervals of angles, the widest first; return an angle of one that stays open, None where none does."""
        ends = np.linspace(-self.outer, self.outer, FIRST_PIECES + 1).tolist()
        ends[0], ends[-1] = -self.outer, self.outer
        self.waiting = [(lo - hi, lo, hi) for lo, hi in pairwise(ends)]
        heapq.heapify(self.waiting)
        while self.waiting:
            _, lo, hi = heapq.heappop(self.waiting)
            if self.budget.is_spent:
                return lo / 2 + hi / 2
            self.budget.spend()
            if self._closed(lo, hi):
                continue
            middle = lo / 2 + hi / 2
            if not (lo < middle < hi and hi - lo > NARROWEST * self.outer):
                return middle
            for low, high in ((lo, middle), (middle, hi)):
                heapq.heappush(self.waiting, (low - high, low, high))
        return None

    def _closed(self, lo: float, hi: float) -> bool:
        family = self.rotated.family(lo, hi)
        behind = with_family(self.model, family)
        query = Query.misclassification(family.parameters, behind.n_outputs, self.label)
        asked = self.options.methods
        names = tuple(name for name in BOUNDS if asked is None or name in asked) or BOUNDS[:1]
        options = replace(self.options, methods=names, confirm=None)
        found = decide_query(behind, agreeing(behind.n_outputs, self.label), query, options, budget=self.budget)
        if found.verdict is not Verdict.CERTIFIED:
            return False
        if self.options.record:
            self.closed.append((lo, hi, found.recorded or Recorded()))
        lowers = np.asarray(found.lowers)
        self.lowest = lowers if self.lowest is None else np.minimum(self.lowest, lowers)
        self.method = found.method if self.method in (None, *BOUNDS[:1]) else self.method
        return True


def agreeing(n_outputs: int, label: int) -> Network:
    """Return a network that never errs: what a family holds beside rotated pictures falsifies nothing."""
    return lambda points: np.repeat(np.eye(n_outputs)[label][None], len(points), axis=0)


def _asked(point: Float32Array, outputs: FloatArray, distance: float, angle: float) -> Found:
    """Return a rotated picture that the network was asked about, with its angle."""
    return Found(point, np.asarray(outputs, np.float64), distance, holds=False, parameters=(angle,))


def decide_rotated(
    model: ImplicitModel, network: Network, label: int, inputs: Perturbed, options: Options, budget: Budget
) -> Result:
    """Return the verdict of one sample over its rotations.

    Args: as those of `idl_audit.decide.perturbed.decide_perturbed`.

    Raises:
        UnsupportedModelError: where the model has loops.
        OptionError, DataError: where the rotation makes no sense for the sample.
    """
    start = budget.clock()
    found = Turns(model, network, label, inputs, options, budget).decide()
    return replace(found, seconds=budget.clock() - start)
