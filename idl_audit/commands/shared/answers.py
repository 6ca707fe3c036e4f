"""Answers to queries over one model of several networks: sat, unsat, unknown or timed-out.

sat only where the assignment that is handed out satisfies the assertions, in the arithmetic that the query declares:
floats as onnxruntime runs the networks, reals exactly. unsat only where every case is refuted in that arithmetic: by
bounds that pay for every rounding in a float query, by exact ones in a real one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal, TypeAlias

import numpy as np

from idl_audit.commands.shared.agreement import Compared, check
from idl_audit.commands.shared.assertions import AskedBox, AskedQuery
from idl_audit.data.vnnlib2.evaluation import holds
from idl_audit.decide.ladder import Options, Result, decide_query
from idl_audit.implicit.as_written import as_written
from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.reachability import independent_pairs
from idl_audit.proof.float_margins import Arithmetic, FloatMargins, Unbounded
from idl_audit.search.judge import Judge
from idl_audit.values.arrays import AnyArray, Float32Array, FloatArray
from idl_audit.values.budget import Budget
from idl_audit.values.errors import MemoryLimitError, UnsupportedModelError
from idl_audit.values.query import Query
from idl_audit.values.verdicts import Reason, Verdict

Word: TypeAlias = Literal["sat", "unsat", "unknown", "timed-out"]
Assignment: TypeAlias = Mapping[str, AnyArray]
"""The values of all variables by name."""

SCALES: Final = (0.0, 1.0, 10.0, 1000.0)
"""Sizes of inputs that are tried first: of one without bounds, most numbers are far too large to be of use."""
TRIED_FIRST: Final = 8
"""Points of each size."""
CHECKED_POINTS: Final = 20
"""Points at which the implicit model is compared with the networks."""
CHECKED_WITHIN: Final = 100.0
"""No further from 0 than so, where the box allows it: where numbers are large, floats are far from real ones."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What is known of a query."""

    word: Word
    assignment: Assignment = field(default_factory=dict)
    """For sat."""
    remarks: tuple[str, ...] = ()
    """Why it is unknown."""


def answered(asked: AskedQuery, options: Options, budget: Budget) -> Answer:
    """Return the answer to a query.

    Raises:
        AgreementError: where the implicit model is not the networks.
    """
    for box in asked.boxes:
        if box.is_whole:
            found = _somewhere(asked, box)
            if found is not None:
                return Answer("sat", found)
    left = [box for box in asked.boxes if box.query.alternatives or box.is_whole]
    if not left:
        return Answer("unsat")
    try:
        return _Deciding(asked, asked.model(), options, budget).answer(left)
    except (UnsupportedModelError, MemoryLimitError) as error:
        return _by_points_alone(asked, left, options, str(error), budget)


@dataclass(frozen=True, eq=False)
class _Deciding:
    """One query while it is decided."""

    asked: AskedQuery
    model: ImplicitModel
    options: Options
    budget: Budget

    def answer(self, boxes: Sequence[AskedBox]) -> Answer:
        """Return what is known of some boxes."""
        self._check(boxes[0])
        rng = np.random.default_rng(self.options.seed)
        for box in boxes:
            found = self._confirmed(_tried(self.asked, box, rng, self.budget))
            if found is not None:
                return Answer("sat", found)
        results: list[Result] = []
        remarks: list[str] = []
        for turn, box in enumerate(boxes):
            if self.budget.out_of_time:
                return Answer("timed-out")
            result = decide_query(
                self.model,
                self.asked.replay,
                box.query,
                self.options,
                budget=self.budget.part(1 / (len(boxes) - turn)),
                arithmetic=self._arithmetic,
            )
            if result.verdict is Verdict.FALSIFIED and result.found is not None:
                found = self._confirmed(result.found.point)
                if found is not None:
                    return Answer("sat", found)
                remarks.append("a point was found that satisfies it up to rounding alone")
            elif result.verdict is Verdict.CERTIFIED:
                remarks += self._why_not_proved(box)
            elif result.reason is Reason.TIME_LIMIT:
                remarks.append("the time is over")
            else:
                remarks.append(result.detail or f"undecided: {result.reason}")
            results.append(result)
        if not remarks:
            return Answer("unsat")
        timed_out = all(remark == "the time is over" for remark in remarks)
        return Answer("timed-out" if timed_out else "unknown", remarks=tuple(dict.fromkeys(remarks)))

    def _check(self, box: AskedBox) -> None:
        """Compare the implicit model with the networks on points of a box.

        Raises:
            AgreementError: where they differ.
            UnsupportedModelError: where they do because of the networks' own arithmetic.
        """
        asked = self.asked
        path = asked.networks[0].path
        points = _spread(box.query, np.random.default_rng(self.options.seed), CHECKED_WITHIN, CHECKED_POINTS)
        check(Compared(path, self.model, asked.replay, asked.graph), points)

    def _confirmed(self, point: FloatArray | Float32Array | None) -> Assignment | None:
        """Return the assignment at a point, where it satisfies the query in the arithmetic that this declares."""
        if point is None:
            return None
        return _satisfying(self.asked, point)

    def _why_not_proved(self, box: AskedBox) -> Iterator[str]:
        """Yield what keeps a box that is refuted in exact arithmetic, within its bounds, from being refuted."""
        if box.unbounded:
            rows = np.concatenate([one.rows for one in box.query.alternatives])
            read = (rows != 0).any(axis=0)
            apart = independent_pairs(self.model)[read][:, list(box.unbounded)]
            if not apart.all():
                yield "inputs are real numbers without bounds, and it is refuted within some alone"

    @cached_property
    def _arithmetic(self) -> Arithmetic:
        """What unsat is to be proved for: the floats that the query declares, or real arithmetic."""
        if self.asked.is_real:
            return None
        assert self.asked.graph is not None
        try:
            return FloatMargins(as_written(self.asked.graph), self.model)
        except UnsupportedModelError as error:
            return Unbounded(error.problems)


# --- points -----------------------------------------------------------------------------------------------------------


def _satisfying(asked: AskedQuery, point: FloatArray | Float32Array) -> Assignment | None:
    """Return the assignment at a point, where it satisfies the query."""
    if asked.is_real:
        return None
    found = asked.replay.assignment(point)
    flat = {name: array.reshape(-1) for name, array in found.items()}
    return found if holds(asked.specification, lambda entry: flat[entry[0]][entry[1]]) else None


def _somewhere(asked: AskedQuery, box: AskedBox) -> Assignment | None:
    """Return the assignment at a point of a box that satisfies the query everywhere."""
    return _satisfying(asked, box.query.box.project(box.query.box.centre))


def _tried(asked: AskedQuery, box: AskedBox, rng: np.random.Generator, budget: Budget) -> Float32Array | None:
    """Return a point that satisfies a query, of a few near the middle of what is likely."""
    judge = Judge(asked.replay, box.query, TRIED_FIRST, budget)
    for scale in SCALES:
        if judge.propose(_spread(box.query, rng, scale, TRIED_FIRST)):
            assert judge.found is not None
            return judge.found.point
    return None


def _spread(query: Query, rng: np.random.Generator, scale: float, count: int) -> FloatArray:
    """Return points of a query's box, (count, p): even within `scale` of 0, or of what of the box is nearest to it."""
    lo, hi = query.box.lo, query.box.hi
    nearest = np.clip(0.0, lo, hi)
    low, high = np.maximum(lo, nearest - scale), np.minimum(hi, nearest + scale)
    points: FloatArray = low + rng.random((count, query.box.size)) * (high - low)
    return points


def _by_points_alone(
    asked: AskedQuery, boxes: Sequence[AskedBox], options: Options, why: str, budget: Budget
) -> Answer:
    """Look for a point where there is no model: what is not found is unknown."""
    rng = np.random.default_rng(options.seed)
    for box in boxes:
        try:
            point = _tried(asked, box, rng, budget)
        except UnsupportedModelError as error:
            return Answer("unknown", remarks=(why, str(error)))
        found = None if point is None else _satisfying(asked, point)
        if found is not None:
            return Answer("sat", found)
    return Answer("unknown", remarks=(why,))
