"""Answers to queries over one model of several networks: sat, unsat, unknown or timed-out.

sat only where the assignment that is handed out satisfies the assertions, in the arithmetic that the query declares:
floats as onnxruntime runs the networks, reals exactly. unsat only where every case is refuted in that arithmetic: by
bounds that pay for every rounding in a float query, by exact ones in a real one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Final, Literal, TypeAlias

import numpy as np

from idl_audit.commands.shared.agreement import Compared, check
from idl_audit.commands.shared.assertions import AskedBox, AskedQuery
from idl_audit.commands.shared.exact_values import exact_values
from idl_audit.commands.shared.posed import Posed
from idl_audit.data.vnnlib2.evaluation import holds
from idl_audit.decide.ladder import Options, Result, decide_query
from idl_audit.decide.many import decided_together
from idl_audit.decide.proofs import Recorded
from idl_audit.decide.rungs import RUNGS
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.float_margins import Unbounded
from idl_audit.search.judge import Found, Judge
from idl_audit.values.arrays import AnyArray, Float32Array, FloatArray
from idl_audit.values.budget import Budget
from idl_audit.values.errors import AgreementError, DataError, MemoryLimitError, UnsupportedModelError
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


AT_ONE_POINT: Final = "all inputs of a box satisfy it, and at the one that was tried an output is no number"
WITHOUT_BOUNDS: Final = "it is refuted within some bounds, and inputs are real numbers without any"


@dataclass(frozen=True, eq=False)
class Answer:
    """What is known of a query."""

    word: Word
    assignment: Assignment = field(default_factory=dict)
    """For sat."""
    remarks: tuple[str, ...] = ()
    """Why it is unknown."""
    method: str | None = None
    """The rung that decided it, where one was climbed."""
    recorded: Mapping[AskedBox, Recorded] = field(default_factory=dict)
    """For unsat: what was recorded for proofs of what is left of boxes, as the query is posed."""
    posed: Posed | None = None
    """For unsat: what is proved; None where nothing is left to prove."""


def answered(asked: AskedQuery, options: Options, budget: Budget) -> Answer:
    """Return the answer to a query; of networks that are not the implicit model only a point that satisfies it."""
    for box in asked.boxes:
        if box.is_whole:
            found = _somewhere(asked, box)
            if found is not None:
                return Answer("sat", found)
    left = [box for box in asked.boxes if box.query.alternatives or box.is_whole]
    if not left:
        return Answer("unsat")
    if asked.graph is None:
        return Answer("unknown", remarks=(AT_ONE_POINT,))
    try:
        return _Deciding(asked, Posed(asked, asked.model()), options, budget).answer(left)
    except (AgreementError, UnsupportedModelError, MemoryLimitError) as error:
        return _by_points_alone(asked, left, options, str(error), budget)


@dataclass(frozen=True, eq=False)
class _Deciding:
    """One query while it is decided."""

    asked: AskedQuery
    posed: Posed
    options: Options
    budget: Budget

    @property
    def model(self) -> ImplicitModel:
        """Of all networks."""
        return self.posed.model

    def answer(self, boxes: Sequence[AskedBox]) -> Answer:
        """Return what is known of some boxes."""
        self._check(boxes[0])
        rng = np.random.default_rng(self.options.seed)
        for box in boxes:
            found = self._assigned(box, _tried(self._judge(box), box, rng))
            if found is not None:
                return Answer("sat", found)
        results: list[Result] = []
        remarks: list[str] = []
        recorded: dict[AskedBox, Recorded] = {}
        together = self._together(boxes)
        for turn, box in enumerate(boxes):
            if self.budget.out_of_time:
                return Answer("timed-out")
            if box.is_whole:
                remarks.append(AT_ONE_POINT)
                continue
            result = together.get(turn) or self._decided(box, self.budget.part(1 / (len(boxes) - turn)))
            if result is None:
                continue
            found = None if result.verdict is Verdict.CERTIFIED else self._assigned(box, result.found)
            if found is not None:
                return Answer("sat", found, method=result.method)
            if result.verdict is Verdict.FALSIFIED:
                remarks.append("a point was found that satisfies it, but for an output that is no number")
            elif result.reason is Reason.TIME_LIMIT:
                remarks.append("the time is over")
            elif result.verdict is not Verdict.CERTIFIED:
                remarks.append(result.detail or f"undecided: {result.reason}")
            results.append(result)
            if result.recorded is not None and (turn not in together or self._is_all_left(box)):
                recorded[box] = result.recorded
        if not remarks:
            methods = [result.method for result in results if result.method is not None]
            hardest = max(methods, key=list(RUNGS).index, default=None)
            return Answer("unsat", method=hardest, recorded=recorded, posed=self.posed)
        timed_out = all(remark == "the time is over" for remark in remarks)
        return Answer("timed-out" if timed_out else "unknown", remarks=tuple(dict.fromkeys(remarks)))

    def _is_all_left(self, box: AskedBox) -> bool:
        """Return whether what is to be proved of a box is all that is asked of it."""
        return len(self.posed.left(box).alternatives) == len(box.query.alternatives)

    def _check(self, box: AskedBox) -> None:
        """Compare the implicit model with the networks on points of a box.

        Raises:
            AgreementError: where they differ.
            UnsupportedModelError: where they do because of the networks' own arithmetic, or where points of the box
                are beyond the numbers that the networks read.
        """
        asked = self.asked
        path = asked.networks[0].path
        points = _spread(box.query, np.random.default_rng(self.options.seed), CHECKED_WITHIN, CHECKED_POINTS)
        try:
            check(Compared(path, self.model, asked.replay, asked.graph), points)
        except DataError as error:  # the query is right all the same: real inputs, and doubles, may be of any size
            raise UnsupportedModelError([str(error)]) from error

    def _judge(self, box: AskedBox) -> Judge:
        return Judge(self.asked.replay, box.query, TRIED_FIRST, self.budget, self._options.confirm)

    @cached_property
    def _options(self) -> Options:
        """The options, with exact arithmetic for the last word on points of a real query."""
        return replace(self.options, confirm=self.posed.exact) if self.asked.is_real else self.options

    def _together(self, boxes: Sequence[AskedBox]) -> Mapping[int, Result]:
        """Return what is known of many boxes with the same rows, by their numbers."""
        arithmetic = self.posed.arithmetic
        if isinstance(arithmetic, Unbounded) or any(box.unbounded or box.is_whole for box in boxes):
            return {}
        queries = [box.query for box in boxes]
        network, options = self.asked.replay, self._options
        return decided_together(self.model, network, queries, options, self.budget, arithmetic=arithmetic)

    def _decided(self, box: AskedBox, budget: Budget) -> Result | None:
        """Return what is known of one box; without bounds of roundings, what was proved says nothing of floats.

        None where nothing of it is left to decide.
        """
        arithmetic = self.posed.arithmetic
        known = None if isinstance(arithmetic, Unbounded) else arithmetic
        query = self.posed.left(box)
        if not query.alternatives:
            return None
        network = self.asked.replay
        result = decide_query(self.model, network, query, self._options, budget=budget, arithmetic=known)
        if result.verdict is not Verdict.CERTIFIED:
            return result
        if isinstance(arithmetic, Unbounded):
            return Result(Verdict.UNKNOWN, reason=Reason.NO_ROUNDING_BOUND, detail=arithmetic.told)
        return result if self.posed.says_all(box, query) else Result(Verdict.UNKNOWN, detail=WITHOUT_BOUNDS)

    def _assigned(self, box: AskedBox, found: Found | None) -> Assignment | None:
        """Return the assignment at a point that was found, if it satisfies the query.

        In exact arithmetic it may where floats say that it misses it by a rounding.
        """
        if found is None:
            return None
        if not found.holds:
            confirm = self._options.confirm
            if confirm is None or not confirm(box.query, found.point).holds:
                return None
        exact = box.query.box
        pinned = found.pinned or (exact.exactly(found.point) if exact.pins else ())
        return _satisfying(self.asked, found.point, pinned)


# --- points -----------------------------------------------------------------------------------------------------------


def _satisfying(
    asked: AskedQuery, point: FloatArray | Float32Array, pinned: Sequence[Fraction] = ()
) -> Assignment | None:
    """Return the assignment at a point, where it satisfies the query.

    Of a real query that is known already, and all variables are told exactly; hidden tensors and outputs of networks
    that have no exact form as floats have them.
    """
    found = asked.replay.assignment(point)
    if asked.is_real:
        exact = list(pinned) or [Fraction(value) for value in point.tolist()]
        known = exact_values(asked, exact)
        found = {**found, **asked.replay.inputs_at(exact), **known}
        if not known:
            return found
    flat = {name: array.reshape(-1) for name, array in found.items()}
    return found if holds(asked.specification, lambda entry: flat[entry[0]][entry[1]]) else None


def _somewhere(asked: AskedQuery, box: AskedBox) -> Assignment | None:
    """Return the assignment at a point of a box that satisfies the query everywhere."""
    exact = box.query.box
    point = exact.project(exact.centre)
    found = _satisfying(asked, point, exact.exactly(point) if exact.pins else ())
    # the box of a float64 query may hold no float32 number, and its corner is one of its points in any case
    return found if found is not None or asked.is_real else _satisfying(asked, exact.inner_lo)


def _tried(judge: Judge, box: AskedBox, rng: np.random.Generator) -> Found | None:
    """Return the best point for a query, of a few near the middle of what is likely."""
    for scale in SCALES:
        if judge.propose(_spread(box.query, rng, scale, TRIED_FIRST)):
            break
    return judge.best


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
            point = None if asked.is_real else _tried(Judge(asked.replay, box.query, TRIED_FIRST, budget), box, rng)
        except UnsupportedModelError as error:
            return Answer("unknown", remarks=(why, str(error)))
        found = None if point is None or not point.holds else _satisfying(asked, point.point)
        if found is not None:
            return Answer("sat", found)
    return Answer("unknown", remarks=(why,))
