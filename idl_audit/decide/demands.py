"""Deciding what is demanded of the outputs beside one class: limits, a place among the first, the classes of pixels.

What has parts is decided in rounds. A round asks whether any part that is open can be broken: where none can, all are
certified; a point that is found breaks at least one, which leaves; and whatever alternatives of a part are all refuted
on the way certify it. Each part ends with a verdict of its own, and bounds of the states are made once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from idl_audit.decide.ladder import Options, Parts, Result, decide_query
from idl_audit.decide.proofs import Recorded
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import StateBounds
from idl_audit.proof.float_margins import Arithmetic
from idl_audit.search.branching import Watch
from idl_audit.search.judge import Found
from idl_audit.values.arrays import Float32Array, FloatArray, IntArray
from idl_audit.values.budget import Budget
from idl_audit.values.demand import AmongFirst, Demand, Limits, Parted, PartedQuery, in_groups
from idl_audit.values.input_sets import InputSet
from idl_audit.values.margins import predictions
from idl_audit.values.network import Network
from idl_audit.values.query import Query
from idl_audit.values.verdicts import Reason, Verdict

BOUNDS: Final = ("interval", "linear")
"""What says which rivals stay below a class."""
ATTACKS: Final = ("quick", "attack")
"""What looks for points where combinations are too many to be refuted."""
AIMED_AT: Final = 8
"""Combinations that these attacks aim at: of the rivals that come next at the sample."""
MOST_CONFIRMED: Final = 256
"""Parts that one point breaks and exact arithmetic is asked about; others wait for the next round."""


@dataclass(frozen=True, eq=False)
class Decision:
    """What is the same in all rounds about one sample over one set."""

    model: ImplicitModel
    network: Network
    sample: FloatArray
    """Shape (p,), inside the set."""
    inputs: InputSet
    options: Options
    budget: Budget
    watch: Watch | None = None
    arithmetic: Arithmetic = None

    def query(self, query: Query, states: StateBounds | None = None, options: Options | None = None) -> Result:
        """Decide a query about the set."""
        return decide_query(
            self.model,
            self.network,
            query,
            options or self.options,
            watch=self.watch,
            budget=self.budget,
            centre=self.sample,
            arithmetic=self.arithmetic,
            states=states,
        )

    @property
    def said(self) -> FloatArray:
        """What the network gives for the sample itself, (q,)."""
        return np.asarray(self.network(self.sample[None].astype(np.float32))[0])


def decide_demand(decision: Decision, demand: Demand, before: Result | None = None) -> Result:
    """Return the verdict on what is demanded around one sample.

    clean_wrong: the sample itself breaks it. With parts, the verdict on all: the worst of theirs.

    Args:
        decision: the sample, its set, and how it is decided.
        demand: what every point of the set is to keep.
        before: the result of a smaller set around the sample: what breaks it there breaks it here.
    """
    start = decision.budget.clock()
    if isinstance(demand, AmongFirst):
        found = _among_first(decision, demand)
    else:
        found = _Rounds(decision, demand).result(None if before is None else before.found)
    return replace(found, seconds=decision.budget.clock() - start)


# --- top k -----------------------------------------------------------------------------------------------------------


def _among_first(decision: Decision, demand: AmongFirst) -> Result:
    q, said = decision.model.n_outputs, decision.said
    predicted = int(predictions(said[None])[0])
    if demand.query(decision.inputs, q, 0).holds(said[None])[0]:
        return Result(Verdict.CLEAN_WRONG, predicted)
    rivals = demand.others(q)
    each = replace(demand, below=tuple(rivals.tolist()))
    asked = decision.options.methods
    proofs = tuple(name for name in BOUNDS if asked is None or name in asked)
    states: StateBounds | None = None
    below: tuple[int, ...] = ()
    if proofs:
        options = replace(decision.options, methods=proofs, record=False)
        bounded = decision.query(Query(decision.inputs, each.query(decision.inputs, q, 0).alternatives), None, options)
        states = bounded.states
        below = tuple(int(j) for j, lower in zip(rivals, bounded.lowers, strict=False) if lower > 0)
    found = _with_combinations(decision, replace(demand, below=below), states)
    return replace(found, predicted=predicted, beaten=below)


def _with_combinations(decision: Decision, demand: AmongFirst, states: StateBounds | None) -> Result:
    """Decide whether k rivals reach the label at once; where there are too many to ask of, look for points alone."""
    q = decision.model.n_outputs
    if demand.is_small(q):
        return decision.query(demand.query(decision.inputs, q), states)
    query = replace(demand, below=()).query(decision.inputs, q, AIMED_AT, decision.said)
    methods = decision.options.methods or ATTACKS
    options = replace(decision.options, methods=tuple(name for name in methods if name in ATTACKS) or ATTACKS)
    found = decision.query(query, states, options)
    if found.verdict is Verdict.CERTIFIED:  # not all combinations were named
        found = replace(found, verdict=Verdict.UNKNOWN, method=None, reason=Reason.RELAXATION_GAP, recorded=None)
    spent = (Reason.ATTACKS_FAILED, Reason.TIME_LIMIT, Reason.NODE_LIMIT)  # more of either would prove nothing
    reason = Reason.RELAXATION_GAP if found.reason in spent else found.reason
    return replace(found, reason=reason, lowers=())


# --- parts -----------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Rounds:
    """What is known of the parts so far."""

    decision: Decision
    demand: Parted
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    lowers: dict[tuple[int, int], float] = field(default_factory=dict)
    """(part, how many of its alternatives come before it) -> the best proved lower bound."""
    found: Found | None = None
    """The first point that broke a part."""
    nearest: Found | None = None
    method: str | None = None
    reason: Reason | None = None
    detail: str = ""
    denied: int = 0
    groups: list[IntArray] = field(default_factory=list)
    recorded: list[Recorded | None] = field(default_factory=list)
    loose: list[int] = field(default_factory=list)
    """Parts that were certified beside others that were not: their proofs are made anew."""
    states: StateBounds | None = None

    def result(self, earlier: Found | None) -> Result:
        """Return what is known once every part is decided, or the budget spent."""
        said = self.decision.said
        wrong = self._query(self.demand).broken(said)
        self._settle(wrong, Verdict.CLEAN_WRONG)
        if earlier is not None and earlier.holds and bool(self.decision.inputs.contains(earlier.point)):
            self._break(earlier, self._confirmed(earlier.point, self._query(self.demand).broken(earlier.outputs)))
        for parts in in_groups(self.demand, self.demand.parts, self.decision.model.n_outputs):
            self._decide(parts)
        if isinstance(self.demand, Limits) and self.decision.options.methods is None:
            self._bound(self.demand)
        return self._told()

    def _bound(self, demand: Limits) -> None:
        """Bound the outputs that are not certified as well: their intervals are told."""
        left = np.array([p for p in demand.parts.tolist() if self.verdicts.get(p) is not Verdict.CERTIFIED], np.int64)
        options = replace(self.decision.options, methods=BOUNDS, record=False)
        for parts in in_groups(demand, left, self.decision.model.n_outputs):
            if not self.decision.budget.is_spent:
                query = self._query(demand.only(parts))
                self._learn(query, self.decision.query(query, self.states, options))

    def _query(self, demand: Parted) -> PartedQuery:
        return demand.query(self.decision.inputs, self.decision.model.n_outputs)

    def _settle(self, parts: IntArray, verdict: Verdict) -> None:
        for part in parts.tolist():
            self.verdicts.setdefault(part, verdict)

    def _open(self, parts: IntArray) -> IntArray:
        return np.array([part for part in parts.tolist() if part not in self.verdicts], np.int64)

    def _decide(self, parts: IntArray) -> None:
        """Ask about the parts that are open until each is certified or broken, or nothing more is found."""
        while (open_ := self._open(parts)).size:
            if self.decision.budget.is_spent:
                self.reason = self.reason or self._why_spent()
                return
            if not self._round(open_):
                return

    def _why_spent(self) -> Reason:
        return Reason.TIME_LIMIT if self.decision.budget.out_of_time else Reason.NODE_LIMIT

    def _round(self, parts: IntArray) -> bool:
        """Ask once; return whether something was decided."""
        query = self._query(self.demand.only(parts))
        found = self.decision.query(query, self.states)
        self.states = self.states or found.states
        self.denied += found.denied
        self._learn(query, found)
        if found.verdict is Verdict.CERTIFIED:
            self._settle(parts, Verdict.CERTIFIED)
            self.groups.append(parts)
            self.recorded.append(found.recorded)
            self.method = found.method
            return True
        proved = np.array([part for part in parts.tolist() if self._refuted(query, found, part)], np.int64)
        self._settle(proved, Verdict.CERTIFIED)
        self.loose += proved.tolist()
        if found.verdict is Verdict.UNKNOWN or found.found is None:
            self.reason, self.detail, self.nearest = found.reason, found.detail, found.found or self.nearest
            return False
        broken = query.broken(found.found.outputs)
        self._break(found.found, self._confirmed(found.found.point, broken))
        self.method = found.method
        if self._open(parts).size == parts.size:  # exact arithmetic breaks a part that the network keeps there
            self.reason = Reason.RELAXATION_GAP
            return False
        return True

    def _learn(self, query: PartedQuery, found: Result) -> None:
        """Keep the best proved bounds of each part's alternatives."""
        seen: dict[int, int] = {}
        for part, lower in zip(query.of.tolist(), found.lowers, strict=False):
            place = seen[part] = seen.get(part, -1) + 1
            self.lowers[part, place] = float(np.fmax(self.lowers.get((part, place), -np.inf), lower))

    def _refuted(self, query: PartedQuery, found: Result, part: int) -> bool:
        lowers = np.asarray(found.lowers)
        own = lowers[query.of == part] if lowers.size == query.of.size else np.zeros(1)
        return bool((own > 0).all())

    def _confirmed(self, point: Float32Array, parts: IntArray) -> IntArray:
        """Return those of the broken parts that exact arithmetic, where it is asked, calls broken as well."""
        confirm = self.decision.options.confirm if self.decision.arithmetic is None else None
        if confirm is None:
            return parts
        some = [part for part in parts.tolist() if part not in self.verdicts][:MOST_CONFIRMED]
        one = [confirm(self._query(self.demand.only(np.array([part]))), point).holds for part in some]
        return np.array([part for part, holds in zip(some, one, strict=True) if holds], np.int64)

    def _break(self, found: Found, parts: IntArray) -> None:
        if parts.size:
            self._settle(parts, Verdict.FALSIFIED)
            self.found = self.found or found

    def _told(self) -> Result:
        parts = self.demand.parts
        verdicts = tuple(self.verdicts.get(part, Verdict.UNKNOWN) for part in parts.tolist())
        for group in in_groups(self.demand, np.sort(np.asarray(self.loose, np.int64)), self.decision.model.n_outputs):
            self.groups.append(group)
            self.recorded.append(None)
        worst = next((v for v in _WORST_FIRST if v in verdicts), Verdict.CERTIFIED)
        least, greatest = self._intervals()
        known = Parts(parts, verdicts, least, greatest, tuple(self.groups), tuple(self.recorded))
        lowers = tuple(self._lowers_in_order())
        return Result(
            worst,
            -1,
            self.method,
            lowers,
            self.found or self.nearest,
            (self.reason or Reason.RELAXATION_GAP) if worst is Verdict.UNKNOWN else None,
            states=self.states,
            detail=self.detail if worst is Verdict.UNKNOWN else "",
            denied=self.denied,
            parts=known,
        )

    def _lowers_in_order(self) -> list[float]:
        """Return a bound for each alternative of all parts that the sample keeps."""
        seen: dict[int, int] = {}
        found = []
        for part in self._alternatives().tolist():
            place = seen[part] = seen.get(part, -1) + 1
            found.append(self.lowers.get((part, place), -np.inf))
        return found

    def _alternatives(self) -> IntArray:
        """Return the part of each alternative of the whole demand."""
        if isinstance(self.demand, Limits):
            return self.demand.outputs
        return np.repeat(self.demand.parts, self.demand.classes - 1)

    def _intervals(self) -> tuple[FloatArray, FloatArray]:
        if not isinstance(self.demand, Limits):
            return np.zeros(0), np.zeros(0)
        return self.demand.interval(np.asarray(self._lowers_in_order()))


_WORST_FIRST: Final = (Verdict.CLEAN_WRONG, Verdict.FALSIFIED, Verdict.UNKNOWN)
