"""Attacks on many samples at once: a row for each sample and each class that it is to become, until one is found.

The outputs and slopes are those of the implicit model (or of what stands in for it); a point that looks like a
counterexample there is shown to the judge of its sample, who alone says that it is one. What a sample draws at random
is its own, and does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from idl_audit.search.attacks import Target
from idl_audit.search.judge import propose_together
from idl_audit.search.regions import Regions
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.margins import margins


@dataclass(frozen=True, eq=False)
class Quarry:
    """A sample that is attacked, and the chance that is its own."""

    target: Target
    rng: np.random.Generator

    @property
    def goal(self) -> int | None:
        """The only class that counts."""
        return self.target.query.goal


@dataclass(frozen=True, eq=False)
class Loss:
    """What each row descends on, of its outputs, label and aim."""

    value: Callable[[FloatArray, IntArray, IntArray], FloatArray]
    """(outputs (m, q), what stands in the way (m,), aims (m,)) -> (m,)."""
    weights: Callable[[FloatArray, IntArray, IntArray], FloatArray]
    """Its derivative by the outputs, (m, q)."""


@dataclass(frozen=True, eq=False)
class Pack:
    """Rows of samples: each has a set, a label and an aim."""

    quarries: Sequence[Quarry]
    owner: IntArray
    """Of each row the number of its sample, shape (m,)."""
    aims: IntArray
    """The class that each row goes for, shape (m,)."""
    labels: IntArray
    """The right class of each row."""
    is_aimed: BoolArray
    """Of which rows the aim alone counts."""
    regions: Regions

    @classmethod
    def of(cls, quarries: Sequence[Quarry], aims: Sequence[IntArray]) -> Pack:
        """Return rows for the samples that have no counterexample yet, as many each as it has aims."""
        going = [
            k
            for k, one in enumerate(quarries)
            if not one.target.judge.has_won and one.target.judge.can_be_asked and len(aims[k])
        ]
        owner = np.repeat(np.array(going, np.int64), [len(aims[k]) for k in going])
        all_aims = np.concatenate([np.zeros(0, np.int64), *(aims[k] for k in going)]).astype(np.int64)
        targets = [quarries[k].target for k in owner.tolist()]
        labels = np.array([one.label for one in targets], np.int64)
        is_aimed = np.array([one.query.goal is not None for one in targets], np.bool_)
        regions = Regions.of([one.inputs for one in targets], [one.centre for one in targets]) if targets else _NOWHERE
        return cls(quarries, owner, all_aims, labels, is_aimed, regions)

    def __len__(self) -> int:
        return len(self.owner)

    def rows(self, some: BoolArray) -> Pack:
        """Return the pack with some of its rows."""
        kept = {name: getattr(self, name)[some] for name in ("owner", "aims", "labels", "is_aimed")}
        return replace(self, **kept, regions=self.regions.rows(some))

    def in_the_way(self, outputs: FloatArray) -> IntArray:
        """Return the class that each row's aim has to pass: the label; towards a goal the largest of the others."""
        others = outputs.copy()
        others[np.arange(len(others)), self.aims] = -np.inf
        return np.where(self.is_aimed, others.argmax(axis=1), self.labels)

    def short_of(self, outputs: FloatArray) -> FloatArray:
        """Return how far each row is from being a counterexample, (m,): below 0 it seems to be one; inf if unknown."""
        found = np.full(len(outputs), np.inf)
        for label in np.unique(self.labels):
            of = self.labels == label
            found[of] = margins(outputs[of], int(label))
        aimed = self.is_aimed
        for goal in np.unique(self.aims[aimed]):
            of = aimed & (self.aims == goal)
            found[of] = -margins(outputs[of], int(goal))
        return np.where(np.isnan(found), np.inf, found)

    def slopes(self, points: FloatArray, loss: Loss) -> tuple[FloatArray, FloatArray]:
        """Return outputs and the slope of the loss at each row's point, (m, q) and (m, p); a query each."""
        way: list[IntArray] = []

        def weights(outputs: FloatArray) -> FloatArray:
            way.append(self.in_the_way(outputs))
            return loss.weights(outputs, way[-1], self.aims)

        self.count()
        with np.errstate(all="ignore"):
            outputs, slopes = self.quarries[0].target.uncounted.slopes(points, weights)
        return outputs, np.nan_to_num(slopes, nan=0.0, posinf=0.0, neginf=0.0)

    def count(self) -> None:
        """Count a query for each row."""
        for k, queries in enumerate(np.bincount(self.owner, minlength=len(self.quarries)).tolist()):
            self.quarries[k].target.judge.count(queries)

    def show(self, points: FloatArray, which: BoolArray) -> BoolArray:
        """Show points of some rows to the judges of their samples; return which rows still have something to find."""
        shown = np.unique(self.owner[which]).tolist()
        if shown:
            judges = [self.quarries[k].target.judge for k in shown]
            propose_together(judges, [points[which & (self.owner == k)] for k in shown], judges[0].budget.check)
        won = np.array([one.target.judge.has_won for one in self.quarries], np.bool_)
        return ~won[self.owner]

    def drawn(self) -> FloatArray:
        """Return a random point of each row's set, by the chance of its sample, (m, p)."""
        points = np.empty_like(self.regions.centre)
        for k in np.unique(self.owner):
            of = self.owner == k
            points[of] = self.regions.rows(of).drawn(self.quarries[k].rng)
        return points


_EMPTY = np.zeros((0, 0))
_NOWHERE = Regions("linf", _EMPTY, _EMPTY, _EMPTY, _EMPTY, np.zeros(0))


def nearest_rivals(quarries: Sequence[Quarry], most: int) -> list[IntArray]:
    """Return for each sample the classes that come nearest to its own there, at most so many; or its goal.

    A query for each sample.
    """
    outputs = quarries[0].target.uncounted.outputs(np.stack([one.target.centre for one in quarries]))
    found = []
    for one, y in zip(quarries, outputs, strict=True):
        one.target.judge.count(1)
        others = np.argsort(-np.where(np.isnan(y), -np.inf, y), kind="stable")
        label, goal = one.target.label, one.goal
        found.append(others[others != label][:most] if goal is None else np.array([goal]))
    return found
