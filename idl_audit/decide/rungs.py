"""The rungs of the ladder: every method that may decide a query, what it is for, and how much of the time it may take.

A rung proposes points to the judge and raises proved lower bounds of alternatives; it decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from idl_audit.decide import sample_bounds
from idl_audit.decide.case import Case
from idl_audit.decide.proofs import FEW_INPUTS
from idl_audit.decide.quick import quick
from idl_audit.decide.together import CLOSE, rows_together, several_rows, small_program
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.exact import phases
from idl_audit.proof.exact.point import RATIONALS, ExactNetwork
from idl_audit.proof.exact.refutation import refutation_of
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, output_intervals, output_lower_bounds
from idl_audit.proof.lp_chain import LpChain, widened
from idl_audit.proof.rows import plus
from idl_audit.search import branching
from idl_audit.search.attacks import Target, run_attack
from idl_audit.search.branching import Chain
from idl_audit.search.ensemble import MEMBERS
from idl_audit.search.linprog import Outcome
from idl_audit.search.lp_tree.tree import Grown, LpTree
from idl_audit.search.mixed_integer import BigMProgram, is_piecewise_linear
from idl_audit.search.pack import Quarry
from idl_audit.search.query_attacks import attack_query
from idl_audit.search.relaxation import TriangleRelaxation, program_bytes
from idl_audit.search.splitting.boxes import moving_inputs
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.budget import Budget
from idl_audit.values.input_sets import NormBall
from idl_audit.values.query import Misclassification, Query, SampleQuery
from idl_audit.values.rounding import LEAST
from idl_audit.values.verdicts import Reason

FIRST_BOXES: Final = 96
FIRST_BOXES_BY_FORMS: Final = 1024
MORE_BOXES: Final = 8192
GREATEST_EFFORT: Final = 8
FEWEST_INPUTS: Final = 7
"""Up to so many that move, linear programs of several rows wait for a long split."""
FIRST_QUERIES: Final = 200
"""Of the descent towards rivals that is usual in balls: it finds what pgd, which costs more, does not from all its
starts, and more queries find little that a tree does not."""
LARGEST_PROGRAM: Final = 2**32
"""Bytes of a linear program that is tried unless methods are named."""

REASONS: Final[Mapping[Outcome, Reason]] = MappingProxyType(
    {
        Outcome.TIME_LIMIT: Reason.TIME_LIMIT,
        Outcome.MEMORY_LIMIT: Reason.MEMORY_LIMIT,
        Outcome.INFEASIBLE: Reason.SOLVER_FAILED,
        Outcome.UNBOUNDED: Reason.SOLVER_FAILED,
        Outcome.INTERRUPTED: Reason.SOLVER_FAILED,
        Outcome.STOPPED: Reason.SOLVER_FAILED,
        Outcome.FAILED: Reason.SOLVER_FAILED,
    }
)
"""Why a program without an answer leaves its alternative open."""

# --- attacks ---------------------------------------------------------------------------------------------------------


def _attack_sample(name: str) -> Climb:
    def climb(case: Case, budget: Budget) -> None:
        if not run_attack(name, _target(case, budget), case.attack, case.rng):
            budget.check()

    return climb


def _member(name: str) -> ClimbTogether:
    """An attack of `auto` on many samples at once."""

    def climb(cases: Sequence[Case], budget: Budget) -> None:
        quarries = [Quarry(_target(case, budget), case.rng) for case in cases]
        MEMBERS[name](quarries, cases[0].attack.max_queries)

    return climb


def _first_descent(case: Case, budget: Budget) -> None:
    """Descent towards the nearest rivals, its queries few."""
    MEMBERS["apgd-t"]([Quarry(_target(case, budget), case.rng)], min(FIRST_QUERIES, case.attack.max_queries))


def _alone(together: ClimbTogether) -> Climb:
    return lambda case, budget: together([case], budget)


def _target(case: Case, budget: Budget) -> Target:
    assert isinstance(case.query, Misclassification)
    return Target(case.model, case.centre, case.query, case.judge.within(budget))


def _attack(case: Case, budget: Budget, effort: int = 1) -> None:
    """Descent in low dimension, momentum and output-diversified starts in high dimension."""
    attack_query(case.model, case.open_query, case.judge, budget=budget, rng=case.rng, effort=effort)


def _first_attack(case: Case, budget: Budget) -> None:
    """The attack without its descents in low dimension: it finds most that can be found."""
    attack_query(case.model, case.open_query, case.judge, budget=budget, rng=case.rng, briefly=True)


def _persist(case: Case, budget: Budget) -> None:
    """The attack again, harder each time, until the budget is spent."""
    effort = 2
    while not budget.is_spent and case.judge.can_be_asked and not case.judge.has_won:
        _attack(case, budget, effort)
        effort = min(effort + 1, GREATEST_EFFORT)


# --- proofs ----------------------------------------------------------------------------------------------------------


def _interval(case: Case, budget: Budget) -> None:
    """Intervals forward; the rows by the last layer's interval (multipliers 0)."""
    bounds = interval_bounds(case.proved_model, case.inputs, check=budget.check)
    case.bound_rows(_worth_bounding(case), bounds, output_intervals, budget)


def _linear(case: Case, budget: Budget) -> None:
    """Backward linear bounds of states and rows, then of sums of rows."""
    bounds = case.bounds(budget)
    case.bound_rows(_worth_bounding(case), bounds, output_lower_bounds, budget)
    case.bound_rows(case.open, bounds, output_lower_bounds, budget, sums=True)


def _worth_bounding(case: Case) -> np.ndarray:
    """Return the alternatives that are open; of a sample all, since the least bound of its margins is told."""
    return np.arange(len(case.lowers)) if isinstance(case.query, SampleQuery) else case.open


def _split(case: Case, budget: Budget) -> None:
    """Split the box of the inputs, or go on where an earlier rung has begun."""
    splitting = case.splitting
    outcome = splitting.run(budget, case.judge)
    if outcome.proved:
        if case.recorded is not None:
            case.recorded.splits = splitting.tree
            splitting.tree.weights = case.spread(splitting.tree.weights)
        case.raise_lowers(case.open, outcome.lowers)


def _first_split(case: Case, budget: Budget) -> None:
    """A few boxes, which cost less than the attack that would find nothing; more where forms make them cheap."""
    _split(case, budget.at_most_nodes(FIRST_BOXES))
    if not case.is_decided and not case.splitting.bounding.by_lines:
        _split(case, budget.at_most_nodes(FIRST_BOXES_BY_FORMS))


def _long_split(case: Case, budget: Budget) -> None:
    """More boxes, where linear programs of several rows, which cost more each, come next."""
    _split(case, budget.at_most_nodes(MORE_BOXES))


def _first_joint(case: Case, budget: Budget) -> None:
    """All rows of an alternative at once, as long as the tree seems to end soon."""
    rows_together(case, budget, patience=1.0)


def _next_joint(case: Case, budget: Budget) -> None:
    """The same, as long as it seems to have an end."""
    rows_together(case, budget, patience=4.0)


def _branch(case: Case, budget: Budget) -> None:
    """Optimised slopes, then a tree over the phases of hidden states for every alternative that is open."""
    if not case.may_be_proved(budget):
        return
    numbers, chain = case.open, None if case.recorded is None else Chain()
    outcome = branching.branch(
        case.model,
        case.open_proved,
        budget=budget,
        judge=case.judge,
        record=chain,
        watch=case.watch,
        known=case.states,
    )
    if case.recorded is not None and chain is not None:  # it counts the alternatives that were open
        trees = {int(numbers[j]): leaves for j, leaves in chain.trees.items()}
        case.recorded.chain = replace(chain, trees=trees)
    case.raise_lowers(numbers, outcome.lowers)


def _lp(case: Case, budget: Budget) -> None:
    """The triangle LP for each row of the open alternatives: its duals for a proof, its minimiser for an attack."""
    if not case.may_be_proved(budget):
        return
    bounds, judge = case.bounds(budget), case.judge.within(budget)
    relaxation = TriangleRelaxation(case.proved_model, case.inputs, bounds, sparse=case.sparse, budget=budget)
    for number in case.hardest:
        asked = case.rows_of(number)
        for r, (row, offset, strict) in enumerate(zip(asked.rows, asked.offsets, asked.strict, strict=True)):
            if budget.is_spent:
                return
            budget.spend()
            answer = relaxation.minimise(row, budget=budget)
            if answer.outcome is not Outcome.OPTIMAL:
                case.reason = REASONS[answer.outcome]
                continue
            case.raise_by_rows(number, r, plus(np.asarray(answer.lower), offset, strict))
            if case.lowers[number] > 0:
                break
            if answer.point is not None and judge.propose(answer.point):
                return


def _mip(case: Case, budget: Budget) -> None:
    """A mixed-integer program for each open margin: its points are tried, its word that there are none proves nothing.

    Over U_card it is that of the convex hull; the judge makes the points sparse.
    """
    judge, bounds = case.judge.within(budget), case.bounds(budget)
    program = BigMProgram(case.proved_model, case.inputs, bounds, sparse=case.sparse, budget=budget)
    denied = True
    for number in case.hardest:
        if budget.is_spent:
            return
        answer = program.find_negative(case.query.alternatives[number].rows[0], propose=judge.propose)
        if judge.has_won:
            return
        denied = denied and answer.denied
        if answer.outcome not in (Outcome.OPTIMAL, Outcome.STOPPED):
            case.reason = REASONS[answer.outcome]
    if denied:
        case.reason = Reason.SOLVER_ONLY


def _exact(case: Case, budget: Budget) -> None:
    """A tree of LPs over the phases of ReLU states, for every open alternative: first all roots, then all trees."""
    if not case.may_be_proved(budget):
        return
    bounds = widened(case.bounds(budget))
    tree = LpTree(case.proved_model, case.inputs, bounds, budget)
    chain = LpChain(dict(bounds.z))
    if case.recorded is not None and case.recorded.lp is None:
        case.recorded.lp = chain
    elif case.recorded is not None and case.recorded.lp is not None:
        chain = case.recorded.lp
    judge = case.judge.within(budget)

    def candidate(points: FloatArray) -> bool:
        y = case.model(points, check=budget.check)
        near = case.query.distance(y) <= CLOSE * np.abs(y).max(axis=1)
        return bool(near.any()) and judge.propose(points[near])

    roots: dict[int, list[float]] = {}
    for number in case.hardest:
        roots[int(number)] = _rows_by_trees(case, tree, candidate, int(number), chain, budget)
        if case.judge.has_won or budget.is_spent:
            return
    for number in case.hardest:
        _rows_by_trees(case, tree, candidate, int(number), chain, budget, roots[int(number)])
        if case.judge.has_won or budget.is_spent:
            return


def _rows_by_trees(
    case: Case,
    tree: LpTree,
    candidate: Callable[[FloatArray], bool],
    number: int,
    chain: LpChain,
    budget: Budget,
    roots: list[float] | None = None,
) -> list[float]:
    """Grow trees of the rows of an alternative until one refutes it; return the objectives of their roots.

    Without `roots` the trees are no more than roots. With them the row with the best root comes first.
    """
    asked = case.rows_of(number)
    rows, offsets = asked.rows, asked.offsets
    order = range(len(rows)) if roots is None else np.argsort(-np.asarray(roots), kind="stable").tolist()
    seen = []
    for turn, r in enumerate(order):
        most_nodes = 1 if roots is None else None
        part = budget.part(1 / (len(rows) - turn))
        grown = tree.grow(rows[r], candidate, offset=float(offsets[r]), most_nodes=most_nodes, budget=part)
        seen.append(grown.root + float(offsets[r]))
        if grown.lower > 0:
            case.raise_by_rows(number, r, grown.lower)
            chain.trees[number] = replace(grown.leaves, row=r)
        elif roots is not None:
            case.reason = _why_left(grown)
        if grown.found or grown.lower > 0 or budget.is_spent:
            break
    return seen


def _why_left(grown: Grown) -> Reason:
    """Return why a tree was left: where nothing is left to split, the relaxation of other activations has a gap."""
    gaps = {Outcome.TIME_LIMIT: Reason.TIME_LIMIT, Outcome.MEMORY_LIMIT: Reason.MEMORY_LIMIT}
    return gaps.get(grown.outcome, Reason.RELAXATION_GAP)


def _rational(case: Case, budget: Budget) -> None:
    """Exact programs over the phases of the few states that bend: for what rounding leaves open at a border."""
    box, network = case.query.box, case.judge.confirm
    if case.arithmetic is not None:  # what holds of real numbers says nothing of floats at a border
        return
    if not isinstance(network, ExactNetwork) or not phases.is_small(case.proved_model, box, case.bounds(budget)):
        return
    model = network.own
    if model is None or not phases.fits(model):
        return
    bounds = backward_state_bounds(model, case.inputs, check=budget.check)
    program = phases.program_of(model, box, bounds, check=budget.check) if phases.is_small(model, box, bounds) else None
    if program is None:
        return
    decider = phases.Decider(model, case.query, program, budget.check)
    for number in case.hardest.tolist():
        budget.spend()
        answer = decider.decide(case.query.alternatives[number])
        if answer.point and network.opinion(case.query, answer.point).holds:
            near = np.array([float(value) for value in answer.point])
            if not case.judge.propose(near):  # a point of float32 numbers is one for everybody
                case.judge.take(answer.point, RATIONALS)
            return
        if answer.tree is not None:
            case.raise_lowers([number], [LEAST])
            if case.recorded is not None:
                case.recorded.exact[number] = refutation_of(number, program, bounds, model, answer.tree)


# --- the table -------------------------------------------------------------------------------------------------------

Climb: TypeAlias = Callable[[Case, Budget], None]
"""(case, its part of the budget): refutes alternatives or finds a counterexample, or neither."""
ClimbTogether: TypeAlias = Callable[[Sequence[Case], Budget], None]
"""The same for samples of one model, each in a box of its own."""
Suits: TypeAlias = Callable[[ImplicitModel, Query], bool]


def _always(model: ImplicitModel, query: Query) -> bool:
    return True


def _never(model: ImplicitModel, query: Query) -> bool:
    return False


def _loops(model: ImplicitModel, query: Query) -> bool:
    return not model.is_feed_forward


def _boxes(model: ImplicitModel, query: Query) -> bool:
    return isinstance(query.inputs, Box)


def _other_sets(model: ImplicitModel, query: Query) -> bool:
    return not _boxes(model, query)


def _sparse(model: ImplicitModel, query: Query) -> bool:
    return isinstance(query.inputs, SparseBall)


def _balls(model: ImplicitModel, query: Query) -> bool:
    return isinstance(query.inputs, NormBall) and isinstance(query, Misclassification)


def _boxes_or_sparse(model: ImplicitModel, query: Query) -> bool:
    """Sets for which linear programs have rows of their own."""
    return not isinstance(query.inputs, NormBall)


def _few_inputs(model: ImplicitModel, query: Query) -> bool:
    return _boxes(model, query) and 0 < moving_inputs(query.box).size <= FEW_INPUTS


def _few_feed_forward(model: ImplicitModel, query: Query) -> bool:
    return model.is_feed_forward and _few_inputs(model, query)


def _several_small(model: ImplicitModel, query: Query) -> bool:
    return model.is_feed_forward and _boxes(model, query) and several_rows(model, query) and small_program(model)


def _several_many(model: ImplicitModel, query: Query) -> bool:
    """Where fewer inputs move, boxes close more than programs do in the same time."""
    return _several_small(model, query) and moving_inputs(query.box).size > FEWEST_INPUTS


def _attacked(model: ImplicitModel, query: Query) -> bool:
    """Points of programs of several rows are tried before attacks, where many inputs move."""
    return _boxes(model, query) and not _several_many(model, query)


def _few_attacked(model: ImplicitModel, query: Query) -> bool:
    return _few_inputs(model, query) and not _several_many(model, query)


def _several_few(model: ImplicitModel, query: Query) -> bool:
    return _few_inputs(model, query) and _several_small(model, query)


def _several_in_a_box(model: ImplicitModel, query: Query) -> bool:
    return _boxes(model, query) and several_rows(model, query) and program_bytes(model) <= LARGEST_PROGRAM


def _classes(model: ImplicitModel, query: Query) -> bool:
    return isinstance(query, Misclassification)


def _classes_dense(model: ImplicitModel, query: Query) -> bool:
    """Boxes and balls, in which all inputs move."""
    return _classes(model, query) and not isinstance(query.inputs, SparseBall)


def _classes_piecewise_linear(model: ImplicitModel, query: Query) -> bool:
    return _classes(model, query) and is_piecewise_linear(model)


def _trees(model: ImplicitModel, query: Query) -> bool:
    return branching.applies(model) and (_boxes(model, query) or isinstance(query.inputs, NormBall))


def _no_trees(model: ImplicitModel, query: Query) -> bool:
    """Linear programs stand in for trees, unless they alone would take the machine's memory."""
    return model.is_feed_forward and not _trees(model, query) and program_bytes(model) <= LARGEST_PROGRAM


def _small_exact(model: ImplicitModel, query: Query) -> bool:
    return _a_property(model, query) and phases.fits(model)


def _a_property(model: ImplicitModel, query: Query) -> bool:
    """A property gets all its time; a sample that no rung decides is left, as there are more."""
    return not isinstance(query, SampleQuery) and _boxes(model, query)


@dataclass(frozen=True)
class Rung:
    """One method."""

    climb: Climb
    share: float = 1.0
    """Of the time and nodes that are left, where another proof follows."""
    proves: bool = False
    """Whether it can refute alternatives."""
    fits: Suits = _always
    """The models and queries that it can be asked about."""
    usual: Suits = _never
    """Those for which it is climbed unless methods are named."""
    begins: str = ""
    """The method that it is the beginning of; it is told by that name, and cannot be asked for by its own."""
    together: ClimbTogether | None = None
    """For many samples at once, where that is cheaper than one after the other."""
    together_in_balls: bool = False
    """Whether these may be balls of another norm, too."""


def _of_auto(name: str) -> Rung:
    together = _member(name)
    return Rung(_alone(together), fits=_classes_dense, together=together, together_in_balls=True)


RUNGS: Final[Mapping[str, Rung]] = MappingProxyType(
    {
        "interval": Rung(_interval, proves=True, usual=_always, together=sample_bounds.intervals),
        "random": Rung(_attack_sample("random"), fits=_classes),
        "sign": Rung(_attack_sample("sign"), fits=_classes, usual=_other_sets),
        "sensitivity": Rung(_attack_sample("sensitivity"), fits=_classes),
        "gradient": Rung(_attack_sample("gradient"), fits=_classes),
        "quick": Rung(lambda case, budget: quick([case], budget), 0.1, fits=_boxes, usual=_boxes, together=quick),
        "pgd": Rung(_attack_sample("pgd"), fits=_classes, usual=_sparse),
        **{name: _of_auto(name) for name in MEMBERS},
        "first apgd-t": Rung(_first_descent, fits=_balls, usual=_balls, begins="apgd-t"),
        "linear": Rung(_linear, 0.7, proves=True, usual=_always, together=sample_bounds.lines),
        "first rational": Rung(_rational, 0.1, proves=True, fits=_small_exact, usual=_small_exact, begins="rational"),
        "first split": Rung(_first_split, 0.1, proves=True, fits=_boxes, usual=_few_feed_forward, begins="split"),
        "first joint": Rung(_first_joint, 0.1, proves=True, fits=several_rows, usual=_several_many, begins="joint"),
        "first attack": Rung(_first_attack, 0.1, fits=_boxes, usual=_few_attacked, begins="attack"),
        "next split": Rung(_first_split, 0.1, proves=True, fits=_boxes, usual=_few_feed_forward, begins="split"),
        "attack": Rung(_attack, 0.15, fits=_boxes, usual=_attacked),
        "rational": Rung(_rational, 0.3, proves=True, fits=_small_exact, usual=_small_exact),
        "long split": Rung(_long_split, 0.1, proves=True, fits=_boxes, usual=_several_few, begins="split"),
        "next joint": Rung(_next_joint, 0.4, proves=True, fits=several_rows, usual=_several_small, begins="joint"),
        "late attack": Rung(_attack, 0.15, fits=_boxes, usual=_several_many, begins="attack"),
        "split": Rung(_split, 0.85, proves=True, fits=_boxes, usual=_few_inputs),
        "joint": Rung(rows_together, 0.6, proves=True, fits=several_rows, usual=_several_in_a_box),
        "lp": Rung(_lp, proves=True, usual=_no_trees),
        "branch": Rung(_branch, proves=True, fits=_trees, usual=_trees),
        "exact": Rung(_exact, 0.6, proves=True, usual=_loops),
        "mip": Rung(_mip, fits=_classes_piecewise_linear),
        "persist": Rung(_persist, fits=_boxes, usual=_a_property),
    }
)
"""Name -> rung, in the order of their cost."""

PROOFS: Final = frozenset(name for name, rung in RUNGS.items() if rung.proves)
"""The methods that can certify; the others only find points."""

STANDS_FOR: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({"auto": tuple(MEMBERS)})
"""Names of several methods together."""

IN_PLACE_OF_BRANCH: Final = ("exact", "lp")
"""What the method branch stands for where it does not fit: those that are usual then."""
