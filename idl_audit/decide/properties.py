"""Properties: a ladder of methods that decides one query (a box and alternatives of output inequalities), cheap first.

unsat: every alternative is refuted: one of its rows, or a nonnegative combination of them, has a proved positive lower
bound over the box. sat: the original network's own outputs at a float32 point inside the exact box satisfy an
alternative, in exact arithmetic. timeout and unknown: neither, within the time or at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import combinations
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import numpy as np

from idl_audit.decide.proofs import Recorded
from idl_audit.decide.verdicts import Reason
from idl_audit.implicit.gradients import gradient
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.dual_bound import Functionals, Multipliers, lower_bound
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, line_multipliers, rows_at_once, zero_multipliers
from idl_audit.proof.split_tree import SplitTree
from idl_audit.search import branching
from idl_audit.search.fast_gradients import batch_size, in_batches
from idl_audit.search.query_attacks import attack_query
from idl_audit.search.splitting.boxes import moving_inputs, split_inputs
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError, MemoryLimitError, OptionError, SolverError, UnsupportedModelError
from idl_audit.values.network import Network
from idl_audit.values.query import Conjunction, Query

Answer: TypeAlias = Literal["sat", "unsat", "unknown", "timeout"]

FEW_INPUTS: Final = 20
"""Up to so many inputs that can move, splitting their box pays."""
RANDOM_POINTS: Final = 1000
RANDOM_NUMBERS: Final = 200_000
"""Random points are fewer where they have many inputs: so many numbers in all."""
SIGN_STEPS: Final = 5
NEAREST: Final = 16
"""Alternatives that the quick attack aims at, and points that are judged exactly at a time."""
MANY_ROWS: Final = 12
"""Alternatives with more rows have only the sum of all of them tried, not every pair."""
GREATEST_EFFORT: Final = 8


@dataclass(frozen=True)
class QueryOptions:
    """Which rungs to climb, in the table's order, and how long."""

    time_limit: float = 60.0
    """Seconds for the query."""
    max_nodes: int | None = None
    """Boxes, leaves and starts of attacks for the query."""
    seed: int = 0
    rungs: tuple[str, ...] | None = None
    """None stands for all of them."""
    record: bool = False
    """Keep what a proof by splitting or branching needs to be checked again."""

    def __post_init__(self) -> None:
        for name in self.rungs or ():
            if name not in RUNGS:
                raise OptionError(f"there is no rung '{name}'; known are {', '.join(RUNGS)}")
        if not self.time_limit > 0:
            raise OptionError(f"the time limit must be a positive number of seconds, not {self.time_limit}")
        if self.max_nodes is not None and self.max_nodes < 1:
            raise OptionError(f"the number of nodes must be 1 or more, not {self.max_nodes}")


@dataclass(frozen=True, eq=False)
class QueryResult:
    """What is known of one query."""

    result: Answer
    method: str | None = None
    """The rung that decided it."""
    point: Float32Array | None = None
    """For sat: the counterexample, shape (p,), inside the exact box."""
    outputs: FloatArray | None = None
    """For sat: what the original network gives there, shape (q,)."""
    seconds: float = 0.0
    reason: Reason | None = None
    """For unknown and timeout: why."""
    recorded: Recorded | None = None
    """For unsat: what was recorded."""
    proved: tuple[float, ...] = ()
    """For unsat: for each alternative, a number that one of its rows or sums of rows (offset and all) is above at every
    point of the box; 0 where the proof ends as soon as it is positive."""
    states: StateBounds | None = None
    """For unsat: backward bounds of the states over the box, where some were computed."""


@dataclass
class _Case:
    """What is known of the query so far."""

    model: ImplicitModel
    network: Network
    query: Query
    rng: np.random.Generator
    budget: Budget
    inputs: Interval
    open: tuple[Conjunction, ...]
    """Alternatives that are not yet refuted."""
    bounds: StateBounds | None = None
    """Backward bounds of all states, once a rung has asked for them."""
    point: Float32Array | None = None
    outputs: FloatArray | None = None
    reason: Reason = field(default=Reason.RELAXATION_GAP)
    recorded: Recorded | None = None
    proved: dict[Conjunction, float] = field(default_factory=dict)
    """What is known of the alternatives that are refuted."""

    @property
    def open_query(self) -> Query:
        """The query without its refuted alternatives: it has the same counterexamples."""
        return Query(self.query.box, self.open)

    @property
    def can_be_replayed(self) -> bool:
        """Whether the exact box holds a float32 point at all: no other point can be handed to the network."""
        return bool(self.query.box.contains(self.query.box.project(self.query.box.lo)))

    def replay(self, points: FloatArray | Float32Array) -> bool:
        """Ask the original network about points, put into the box first; keep and tell a counterexample."""
        inside = self.query.box.project(np.atleast_2d(np.asarray(points, np.float64)))
        inside = inside[self.query.box.contains(inside)]
        if not len(inside):
            return False
        outputs = in_batches(self.network, inside, batch_size(self.model), self.budget.check)
        with np.errstate(invalid="ignore", over="ignore"):
            distance = self.query.distance(outputs)
        nearest = np.argsort(np.where(np.isnan(distance), np.inf, distance), kind="stable")[:NEAREST]
        for hit in nearest[self.query.holds(outputs[nearest])]:
            alone = self.network(inside[hit][None])  # as anyone would replay it: a batch may round otherwise
            if self.query.holds(alone)[0]:
                self.point, self.outputs = inside[hit], alone[0]
                return True
        return False


def decide_query(
    model: ImplicitModel, network: Network, query: Query, options: QueryOptions, budget: Budget | None = None
) -> QueryResult:
    """Return whether the box has a point whose outputs satisfy one of the alternatives.

    Args:
        model: the implicit model; its inputs and outputs are those of the query.
        network: the original network, float32 (m, p) -> (m, q): the judge of counterexamples.
        query: the box and the alternatives.
        options: the rungs and their limits.
        budget: what it may cost; that of the options where it is left out.
    """
    if budget is None:
        budget = Budget.of(options.time_limit, nodes=options.max_nodes)
    start = budget.clock()
    if not model.is_well_posed:  # several states for one input: nothing said of one of them holds for all
        return QueryResult("unknown", seconds=budget.clock() - start, reason=Reason.NO_UNIQUENESS_PROOF)
    case = _Case(
        model,
        network,
        query,
        np.random.default_rng(options.seed),
        budget,
        Interval.of_boxes(query.box),
        query.alternatives,
        recorded=Recorded() if options.record else None,
    )
    method = _climb(case, options.rungs or tuple(RUNGS))
    seconds = budget.clock() - start
    if case.point is not None:
        return QueryResult("sat", method, case.point, case.outputs, seconds)
    if not case.open:
        proved = tuple(case.proved[alternative] for alternative in query.alternatives)
        return QueryResult("unsat", method, seconds=seconds, recorded=case.recorded, proved=proved, states=case.bounds)
    if budget.out_of_time:
        return QueryResult("timeout", seconds=seconds, reason=Reason.TIME_LIMIT)
    if budget.is_spent:
        case.reason = Reason.NODE_LIMIT
    return QueryResult("unknown", seconds=seconds, reason=case.reason)


def _climb(case: _Case, names: tuple[str, ...]) -> str | None:
    """Go through the rungs; return the one that decided."""
    for name, rung in RUNGS.items():
        if name not in names:
            continue
        if case.budget.out_of_time:
            return None
        try:
            rung.climb(case, case.budget.part(rung.share))
        except BudgetError:
            continue  # it could not be ended in its time
        except SolverError:
            case.reason = Reason.SOLVER_FAILED
        except (MemoryError, MemoryLimitError):
            case.reason = Reason.MEMORY_LIMIT
        except UnsupportedModelError:
            continue  # the rung is not for such models
        if case.point is not None or not case.open:
            return name
    return None


# --- search ----------------------------------------------------------------------------------------------------------


def _quick_attack(case: _Case, budget: Budget) -> None:
    """Random points and corners; then signed gradient steps on the row that is furthest from holding."""
    if not case.can_be_replayed:
        return
    box, width = case.query.box, case.query.box.hi - case.query.box.lo
    count = max(4, min(RANDOM_POINTS, RANDOM_NUMBERS // box.size) // 2)
    shape = (count, box.size)
    points = np.vstack([box.centre, box.lo + case.rng.random(shape) * width])
    points = np.vstack([points, box.lo + case.rng.integers(0, 2, shape) * width])
    if case.replay(points):
        return
    starts, aims = _starts(case.open, points, in_batches(case.model, points, batch_size(case.model), budget.check))
    for step in np.geomspace(1.0, 0.1, SIGN_STEPS):
        rows = _worst_rows(case.open, aims, case.model(starts, check=budget.check))
        slope = gradient(case.model, starts, rows, check=budget.check)
        starts = np.clip(starts - step * width * np.sign(slope), box.lo, box.hi)
        if case.replay(starts):
            return


def _starts(open_: tuple[Conjunction, ...], points: FloatArray, y: FloatArray) -> tuple[FloatArray, list[int]]:
    """Return the best point for each of the alternatives that are nearest to holding, and their numbers."""
    far = np.stack([(y @ c.rows.T + c.offsets).max(axis=1) for c in open_], axis=1)
    aims = np.argsort(far.min(axis=0), kind="stable")[:NEAREST]
    return points[far[:, aims].argmin(axis=0)], [int(k) for k in aims]


def _worst_rows(open_: tuple[Conjunction, ...], aims: list[int], y: FloatArray) -> FloatArray:
    """Return for each point the row of its alternative with the greatest value there."""
    return np.stack(
        [open_[k].rows[int(np.argmax(open_[k].rows @ v + open_[k].offsets))] for k, v in zip(aims, y, strict=True)]
    )


def _attack(case: _Case, budget: Budget) -> None:
    """Descent in low dimension, momentum and output-diversified starts in high dimension."""
    _attack_once(case, budget, effort=1)


def _attack_once(case: _Case, budget: Budget, *, effort: int) -> None:
    point = attack_query(case.model, case.network, case.open_query, budget=budget, rng=case.rng, effort=effort)
    if point is not None:
        case.replay(point[None])


def _persistent_attack(case: _Case, budget: Budget) -> None:
    """The attack again, harder each time, until the budget is spent."""
    effort = 2
    while not budget.is_spent and case.can_be_replayed and case.point is None:
        _attack_once(case, budget, effort=effort)
        effort = min(effort + 1, GREATEST_EFFORT)


# --- proof -----------------------------------------------------------------------------------------------------------


def _interval(case: _Case, budget: Budget) -> None:
    """Intervals forward; the rows by the last layer's interval (multipliers 0)."""
    bounds = interval_bounds(case.model, case.inputs, check=budget.check)
    _refute(case, bounds, zero_multipliers, budget)


def _linear(case: _Case, budget: Budget) -> None:
    """Backward linear bounds of states and rows, then of combinations of rows."""
    if case.bounds is None:
        case.bounds = backward_state_bounds(case.model, case.inputs, check=budget.check)
    choose = line_multipliers(case.model, case.bounds)
    _refute(case, case.bounds, choose, budget)
    if any(len(c.rows) > 1 for c in case.open):
        _refute(case, case.bounds, choose, budget, combined=True)


def _refute(case: _Case, bounds: StateBounds, choose: Multipliers, budget: Budget, *, combined: bool = False) -> None:
    """Drop the alternatives one of whose rows, or combinations of rows, has a proved positive lower bound."""
    at_once = rows_at_once(case.model)
    still = []
    for batch in _batches(case.open, at_once, combined=combined):
        rows = np.concatenate([rows for _, rows, _ in batch])
        if budget.out_of_time or not len(rows):
            still += [alternative for alternative, _, _ in batch]
            continue
        offsets = np.concatenate([offsets for _, _, offsets in batch])
        functionals = Functionals.of_outputs(case.model, rows)
        lowers = lower_bound(case.model, case.inputs, bounds, functionals, choose, check=budget.check)[0]
        with np.errstate(over="ignore"):
            shifted = np.nextafter(lowers + offsets, -np.inf)
        start = 0
        for alternative, own, _ in batch:
            best = float(
                np.max(shifted[start : start + len(own)], where=shifted[start : start + len(own)] > 0, initial=0.0)
            )
            if best > 0:
                case.proved[alternative] = best
            else:
                still.append(alternative)
            start += len(own)
    case.open = tuple(still)


_Rows: TypeAlias = tuple[Conjunction, FloatArray, FloatArray]
"""An alternative, the rows that may refute it, shape (r, q), and their offsets rounded downward, shape (r,)."""


def _batches(open_: tuple[Conjunction, ...], at_once: int, *, combined: bool) -> Iterator[list[_Rows]]:
    """Yield the alternatives with their rows (or combinations of rows) in batches of about `at_once` rows."""
    batch: list[_Rows] = []
    count = 0
    for alternative in open_:
        rows, offsets = combined_rows(alternative) if combined else (alternative.rows, alternative.offsets)
        batch.append((alternative, rows, offsets))
        count += len(rows)
        if count >= at_once:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def combined_rows(alternative: Conjunction) -> tuple[FloatArray, FloatArray]:
    """Return sums of rows, shape (r, q), with the sums of their offsets rounded downward, shape (r,).

    Where all rows y + offsets <= 0 hold, so do their sums: one sum with a positive lower bound refutes them all. Every
    pair is summed, and all rows together; sums that float64 does not hold exactly are left out.
    """
    k = len(alternative.rows)
    exact = alternative.exact_offsets or tuple(Fraction(float(c)) for c in alternative.offsets)
    chosen = [*(combinations(range(k), 2) if k <= MANY_ROWS else ()), *([tuple(range(k))] if k > 2 else [])]
    rows, offsets = [], []
    for numbers in chosen:
        total = np.zeros(alternative.rows.shape[1])
        exactly = True
        for number in numbers:
            own = alternative.rows[number]
            added = total + own
            own_part = added - total
            exactly = exactly and bool((((total - (added - own_part)) + (own - own_part)) == 0).all())
            total = added
        if exactly:
            rows.append(total)
            offsets.append(_rounded_down(sum((exact[number] for number in numbers), Fraction(0))))
    return np.array(rows).reshape(-1, alternative.rows.shape[1]), np.array(offsets)


def _rounded_down(value: Fraction) -> float:
    nearest = float(value)
    return float(np.nextafter(nearest, -np.inf)) if Fraction(nearest) > value else nearest


def _split_inputs(case: _Case, budget: Budget) -> None:
    """Split the box of the inputs, where few of them can move."""
    if not 0 < moving_inputs(case.query.box).size <= FEW_INPUTS:
        return
    tree = None if case.recorded is None else SplitTree()
    outcome = split_inputs(case.model, case.open_query, budget=budget, network=case.network, record=tree)
    if outcome.point is not None and case.replay(outcome.point[None]):
        return
    if outcome.proved:
        if case.recorded is not None:
            case.recorded.splits = tree
        case.proved.update(dict.fromkeys(case.open, 0.0))
        case.open = ()


def _branch(case: _Case, budget: Budget) -> None:
    """Optimised slopes, then branching on hidden states."""
    if not branching.applies(case.model):
        return
    chain = None if case.recorded is None else branching.Chain()
    outcome = branching.branch(case.model, case.open_query, budget=budget, network=case.network, record=chain)
    if outcome.point is not None and case.replay(outcome.point[None]):
        return
    if outcome.proved:
        if case.recorded is not None and chain is not None:
            numbers = [next(i for i, c in enumerate(case.query.alternatives) if c is own) for own in case.open]
            trees = {numbers[j]: leaves for j, leaves in chain.trees.items()}
            case.recorded.chain = replace(chain, trees=trees)
        case.proved.update(zip(case.open, outcome.lowers, strict=True))
        case.open = ()


@dataclass(frozen=True)
class Rung:
    """One method, and how much of the time that is left it may take."""

    climb: Callable[[_Case, Budget], None]
    """(case, its part of the budget): refutes alternatives or finds a counterexample, or neither."""
    share: float


RUNGS: Final[Mapping[str, Rung]] = MappingProxyType(
    {
        "random": Rung(_quick_attack, 0.1),
        "interval": Rung(_interval, 1.0),
        "linear": Rung(_linear, 1.0),
        "attack": Rung(_attack, 0.15),
        "split": Rung(_split_inputs, 0.85),
        "branch": Rung(_branch, 0.95),
        "persist": Rung(_persistent_attack, 1.0),
    }
)
"""Name -> rung, in the order in which they are climbed."""

PROOFS: Final = frozenset({"interval", "linear", "split", "branch"})
"""The rungs that can prove unsat."""
