"""The judge: the original network is asked about points, and it alone says that one is a counterexample.

Searches propose points to it. They are put into the set exactly, as float32 numbers, and asked about in batches; the
best of them once more alone, as anyone would replay it, since a batch may round otherwise. An output that is no number
satisfies no inequality and is ranked behind all that are.

Where verdicts are about exact arithmetic, `confirm` has the last word: a point that the network alone calls a
counterexample may be one by rounding only. Where verdicts are about the network as it runs, nothing stands there.

Elsewhere: adversarial example, validation of the counterexample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final, TypeAlias

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.exact.point import Opinion
from idl_audit.search.fast_gradients import batch_size, in_batches
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.box import is_whole
from idl_audit.values.budget import UNLIMITED, Budget
from idl_audit.values.check import Check
from idl_audit.values.input_sets import InputSet
from idl_audit.values.margins import predictions
from idl_audit.values.network import Network
from idl_audit.values.query import Query

ASKED_ALONE: Final = 16
"""Points of a batch that the network is asked about one by one, until one of them holds alone."""
MOST_DENIED: Final = 256
"""Counterexamples by rounding alone that are looked at; after so many, only what is nearer than the best of them."""

Confirm: TypeAlias = Callable[[Query, Float32Array], Opinion]
"""Tells whether a point that the network alone calls a counterexample is one in exact arithmetic."""


@dataclass(frozen=True, eq=False)
class Found:
    """A point inside the exact set, with what the original network says of it alone."""

    point: Float32Array
    """Shape (p,)."""
    outputs: FloatArray
    """Shape (q,)."""
    margin: float
    """Its distance by the query: y_label - max over the others for a sample. Positive where the search has failed."""
    holds: bool
    """Whether it is a counterexample."""
    confirmed_by: str = ""
    """What was asked beside the network, and agreed."""
    pinned: tuple[Fraction, ...] = ()
    """The point itself, where it is no float32 numbers and `point` has the nearest ones."""
    replays: bool = True
    """Of a counterexample: whether the network calls `point` one, too."""
    parameters: tuple[float, ...] = ()
    """Of a perturbation with parameters: those that the point is made with."""

    @property
    def predicted(self) -> int:
        """The class that the network predicts there; -1 where an output is no number."""
        return int(predictions(self.outputs[None])[0])

    @property
    def rank(self) -> tuple[bool, float]:
        """Less for a better point: counterexamples first, then the smaller margin; one that is no number last."""
        return not self.holds, self.margin if np.isfinite(self.margin) else np.inf


@dataclass
class _Kept:
    """The best point so far, whoever proposed it."""

    best: Found | None = None
    denied: int = 0
    """Points that are counterexamples for the network, and none in exact arithmetic as far as is known."""
    queries: int = 0
    """Points at which the network, or what stands in for it, was evaluated to look for a counterexample."""


@dataclass(frozen=True, eq=False)
class Judge:
    """Asks the original network about one query, and keeps the best point."""

    network: Network
    query: Query
    batch: int
    """Points that it is asked about at a time."""
    budget: Budget = UNLIMITED
    confirm: Confirm | None = None
    """Asked last; None where the network's own word counts."""
    _kept: _Kept = field(default_factory=_Kept)

    @classmethod
    def of(
        cls,
        model: ImplicitModel,
        network: Network,
        query: Query,
        budget: Budget = UNLIMITED,
        confirm: Confirm | None = None,
    ) -> Judge:
        """Return the judge of a query to the network of an implicit model."""
        return cls(network, query, batch_size(model), budget, confirm)

    @classmethod
    def of_model(cls, model: ImplicitModel, query: Query, budget: Budget = UNLIMITED) -> Judge:
        """Return the judge where the implicit model is the network itself."""
        return cls.of(model, lambda points: model(points.astype(np.float64)), query, budget)

    def within(self, budget: Budget) -> Judge:
        """Return the same judge, which looks at another budget's clock between its batches."""
        return replace(self, budget=budget)

    @property
    def best(self) -> Found | None:
        """The counterexample or, without one, the point nearest to it; None before one was asked about."""
        return self._kept.best

    @property
    def found(self) -> Found | None:
        """The counterexample; None where there is none yet."""
        return self.best if self.has_won else None

    @property
    def has_won(self) -> bool:
        """Whether a counterexample is known."""
        return self.best is not None and self.best.holds

    @property
    def denied(self) -> int:
        """How many points were counterexamples for the network, and none in exact arithmetic as far as is known."""
        return self._kept.denied

    @property
    def queries(self) -> int:
        """At how many points the network was evaluated, or its implicit form where an attack descends on that."""
        return self._kept.queries

    def count(self, queries: int) -> None:
        """Count evaluations: of the network itself, or of its implicit form where an attack descends on that."""
        self._kept.queries += queries

    @property
    def can_be_asked(self) -> bool:
        """Whether each input's interval holds a float32 number at all: no other point can be handed to the network."""
        lo, hi = self.query.box.float32_bounds()
        return bool((lo <= hi).all())

    def propose(self, points: FloatArray | Float32Array) -> bool:
        """Ask the network about points, shape (m, p) or (p,), put into the set first; tell whether one holds.

        Raises:
            BudgetError: where the time is over between two batches.
        """
        return propose_together([self], [points], self.budget.check)[0]

    def take(self, point: Sequence[Fraction], by: str) -> None:
        """Take a counterexample of the exact set that exact arithmetic has found, and ask the network next to it.

        Where points are whole numbers, one that is none is no counterexample.
        """
        if is_whole(self.query.box.point_type):
            return
        near = np.array([float(value) for value in point]).astype(np.float32)
        seen = self._judged(near, self.network(near[None])[0])
        self._keep(replace(seen, holds=True, confirmed_by=by, pinned=tuple(point), replays=seen.holds))

    def hear(self, inside: Float32Array, outputs: FloatArray, *, alone: bool) -> None:
        """Take what the network says of points inside the set; it is asked again about the best unless it was `alone`.

        Args:
            inside: shape (m, p).
            outputs: shape (m, q).
            alone: whether the network was asked about one point only.
        """
        self.count(len(inside))
        for k in self.query.nearest(outputs, ASKED_ALONE):
            seen = self._judged(inside[k], outputs[k])
            if seen.holds or self.best is None or seen.rank < self.best.rank:
                said = outputs[k] if alone else self._said(inside[k])
                self._keep(self._confirmed(self._judged(inside[k], said)))
            if self.has_won:
                break

    def _said(self, point: Float32Array) -> FloatArray:
        """Return what the network says of a point alone."""
        self.count(1)
        return np.asarray(self.network(point[None])[0])

    def _confirmed(self, found: Found) -> Found:
        """Return the point, which is a counterexample only where whoever is asked last says so."""
        if self.confirm is None or not found.holds:
            return found
        best = self.best
        if self.denied < MOST_DENIED or best is None or found.margin < best.margin:
            opinion = self.confirm(self.query, found.point)
            if opinion.holds:
                box = self.query.box
                pinned = tuple(box.exactly(found.point)) if box.pins else ()
                return replace(found, confirmed_by=opinion.by, pinned=pinned)
        self._kept.denied += 1
        return replace(found, holds=False)

    def _keep(self, found: Found) -> None:
        if self.best is None or found.rank < self.best.rank:
            self._kept.best = found

    def _judged(self, point: Float32Array, outputs: FloatArray) -> Found:
        y = np.asarray(outputs, np.float64)[None]
        return Found(point, y[0], float(self.query.distance(y)[0]), bool(self.query.holds(y)[0]))


def propose_together(judges: Sequence[Judge], points: Sequence[FloatArray | Float32Array], check: Check) -> list[bool]:
    """Ask the one network of several judges about points of each, all in one go; tell who has a counterexample.

    Args:
        judges: of queries about one network.
        points: those proposed to each, shape (m, p) or (p,), which it puts into its set.
        check: called between batches; what it raises ends the asking.
    """
    asked = [(j, inside_of(j.query.inputs, own)) for j, own in zip(judges, points, strict=True) if not j.has_won]
    asked = [(judge, inside) for judge, inside in asked if len(inside)]
    if asked:
        all_inside: Float32Array = np.concatenate([inside for _, inside in asked])
        with np.errstate(invalid="ignore", over="ignore"):
            outputs = in_batches(asked[0][0].network, all_inside, asked[0][0].batch, check)
            at = 0
            for judge, inside in asked:
                judge.hear(inside, outputs[at : at + len(inside)], alone=len(all_inside) == 1)
                at += len(inside)
    return [judge.has_won for judge in judges]


def inside_of(inputs: InputSet, points: FloatArray | Float32Array) -> Float32Array:
    """Return points, shape (m, p) or (p,), put into the exact set as float32 numbers; those that fit, (k, p)."""
    inside = inputs.project(np.atleast_2d(np.asarray(points, np.float64)))
    return inside[inputs.contains(inside)]
