"""Verdicts: a ladder of methods for one sample, cheap first, each on what is still open.

certified: the margin to every rival is proved positive over the whole set, by our own re-evaluated bound.
falsified: the original network misclassifies a point of the set. clean_wrong: it misclassifies the sample itself.
unknown: neither, with the reason.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from idl_audit.implicit.elimination import without_self_feedback
from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.state_bounds import Prepared, bound_set, prepare
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, line_multipliers, output_lower_bounds, zero_multipliers
from idl_audit.proof.lp_chain import LpChain, widened
from idl_audit.search import branching
from idl_audit.search.attacks import ATTACKS, AttackOptions, Found, Target, is_success, is_worse, run_attack
from idl_audit.search.branching import Chain, Watch
from idl_audit.search.linprog import Outcome
from idl_audit.search.lp_tree.tree import LpTree
from idl_audit.search.mixed_integer import BigMProgram, is_piecewise_linear
from idl_audit.search.relaxation import TriangleRelaxation
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box, InputSet, SparseBall
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError, MemoryLimitError, OptionError, SolverError, UnsupportedModelError
from idl_audit.values.margins import margin_functionals, predictions, rivals
from idl_audit.values.network import Network
from idl_audit.values.query import Conjunction, Query


class Verdict(enum.Enum):
    """What is known of one sample."""

    CERTIFIED = "certified"
    FALSIFIED = "falsified"
    UNKNOWN = "unknown"
    CLEAN_WRONG = "clean_wrong"


class Reason(enum.Enum):
    """Why a sample is undecided."""

    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    SOLVER_FAILED = "solver_failed"
    RELAXATION_GAP = "relaxation_gap"
    ATTACKS_FAILED = "attacks_failed"
    NODE_LIMIT = "node_limit"
    WORKER_FAILED = "worker_failed"
    NO_UNIQUENESS_PROOF = "no_uniqueness_proof"
    SOLVER_ONLY = "solver_only"


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


@dataclass(frozen=True)
class Options:
    """Which rungs to climb, in this order, and how long."""

    methods: tuple[str, ...] = ("interval", "sign", "pgd", "linear", "branch")
    time_limit: float = 60.0
    """Seconds a sample and radius."""
    attack: AttackOptions = field(default_factory=AttackOptions)
    seed: int = 0
    record: bool = False
    """Keep what a proof by branching needs to be checked again."""
    max_nodes: int | None = None
    """Nodes a sample and radius: leaves of trees, and programs."""
    max_bytes: int | None = None
    """What a rung's arrays may take."""

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in METHODS:
                raise OptionError(f"there is no method '{name}'; known are {', '.join(METHODS)}")
        if not self.time_limit > 0:
            raise OptionError(f"--time-limit must be a positive number of seconds, not {self.time_limit}")
        if self.max_nodes is not None and self.max_nodes < 1:
            raise OptionError(f"--max-nodes must be 1 or more, not {self.max_nodes}")

    @property
    def budget(self) -> Budget:
        """What one sample and radius may cost, from now on."""
        return Budget.of(self.time_limit, nodes=self.max_nodes, max_bytes=self.max_bytes)


@dataclass(frozen=True)
class Result:
    """The verdict of one sample at one radius."""

    verdict: Verdict
    predicted: int
    method: str | None = None
    lower: float | None = None
    """Proved lower bound of the smallest margin over the set."""
    found: Found | None = None
    """The point with the smallest margin that any attack found."""
    reason: Reason | None = None
    seconds: float = 0.0
    chain: Chain | LpChain | None = None
    """What proved the rivals that branching was asked about, where it was recorded."""
    states: StateBounds | None = None
    """Where it is certified: backward bounds of the states over the set, where some were computed."""
    float_error: float | None = None
    """Where it is certified: how far any computed margin may be from the exact one; None where no bound is known."""


@dataclass
class _Case:
    """What is known of one sample so far."""

    target: Target
    options: Options
    rng: np.random.Generator
    budget: Budget
    lowers: FloatArray
    """Proved lower bound of each rival's margin, shape (q - 1,)."""
    inputs: Interval
    bounds: StateBounds | None = None
    """Backward bounds of all states, once a rung has asked for them."""
    found: Found | None = None
    reason: Reason = Reason.RELAXATION_GAP
    chain: Chain | LpChain | None = None
    watch: Watch | None = None

    @property
    def sparse(self) -> SparseBall | None:
        """The set, where it is U_card and bounds know it: loops are bounded over the box around it."""
        inputs = self.target.inputs
        return inputs if isinstance(inputs, SparseBall) and self.target.model.is_feed_forward else None

    @property
    def model(self) -> ImplicitModel:
        """The model that proofs are about: the same function, with its loops in the form that bounds are best in."""
        return without_self_feedback(self.target.model)

    @property
    def functionals(self) -> FloatArray:
        return margin_functionals(self.target.model.n_outputs, self.target.label)

    @property
    def open(self) -> np.ndarray:
        """Rivals whose margin is not yet proved positive, the most dangerous first."""
        order = np.argsort(self.lowers, kind="stable")
        return order[~(self.lowers[order] > 0)]  # NaN, which an overflow may leave, proves nothing

    @property
    def is_falsified(self) -> bool:
        return is_success(self.found, self.target.label, self.options.attack.target)

    def note(self, found: Found | None) -> None:
        """Keep the point with the smallest margin, a success before all others."""
        if found is None:
            return
        if self.found is None or is_worse(found, self.found, self.target.label, self.options.attack.target):
            self.found = found


def decide(
    model: ImplicitModel,
    network: Network,
    sample: FloatArray,
    label: int,
    inputs: InputSet,
    options: Options,
    watch: Watch | None = None,
    budget: Budget | None = None,
) -> Result:
    """Return the verdict of one sample over one input set: a box, or U_card.

    With a target class, falsified means that the network predicts it somewhere, certified that y_label > y_target
    everywhere.

    Args:
        model: the implicit model in data units, with at least two outputs.
        network: the original network in data units, the judge of attacks.
        sample: shape (p,), inside the set.
        label: the right class.
        inputs: the input set.
        options: the rungs and their limits.
        watch: told the share of the current tree that is proved.
        budget: what it may cost; that of the options where it is left out.

    Raises:
        UnsupportedModelError: where mip is asked for and the model is not piecewise linear.
    """
    budget = options.budget if budget is None else budget
    start = budget.clock()
    if "mip" in options.methods and not is_piecewise_linear(model):
        bent = next(block for block in model.blocks if not block.activation.piecewise_linear)
        raise UnsupportedModelError(
            (f"the method mip needs piecewise linear states, and '{bent.name}' ({bent.op}) has none; leave mip out",)
        )
    predicted = int(predictions(network(sample[None].astype(np.float32)))[0])
    if predicted != label:
        return Result(Verdict.CLEAN_WRONG, predicted, seconds=budget.clock() - start)
    if not model.is_well_posed:  # several states for one input: nothing said of one of them holds for all
        seconds = budget.clock() - start
        return Result(Verdict.UNKNOWN, predicted, reason=Reason.NO_UNIQUENESS_PROOF, seconds=seconds)
    case = _Case(
        target=Target(model, inputs, sample, label, network, budget),
        options=options,
        rng=np.random.default_rng(options.seed),
        budget=budget,
        lowers=_unproved(model, label, options.attack.target),
        inputs=Interval.of_boxes(inputs.hull),
        watch=watch,
    )
    method = _climb(case)
    return _result(case, predicted, method, budget.clock() - start)


def _unproved(model: ImplicitModel, label: int, goal: int | None) -> FloatArray:
    """Return -inf for every rival to be looked at, infinity for those that a targeted attack passes over."""
    if goal is None:
        return np.full(model.n_outputs - 1, -np.inf)
    lowers = np.where(rivals(model.n_outputs, label) == goal, -np.inf, np.inf)
    if (lowers > 0).all():
        raise OptionError(f"class {goal} is no target for a sample of class {label} of {model.n_outputs} classes")
    return lowers


def _climb(case: _Case) -> str | None:
    """Go through the rungs; return the one that decided."""
    for name in _order(case):
        if case.budget.out_of_time:
            case.reason = Reason.TIME_LIMIT
            return None
        try:
            METHODS[name](case)
        except BudgetError:
            case.reason = Reason.TIME_LIMIT
        except SolverError:
            case.reason = Reason.SOLVER_FAILED
        except (MemoryError, MemoryLimitError):
            case.reason = Reason.MEMORY_LIMIT
        if case.is_falsified or not case.open.size:
            return name
    if case.reason is Reason.RELAXATION_GAP and not PROOFS.intersection(case.options.methods):
        case.reason = Reason.ATTACKS_FAILED
    return None


def _order(case: _Case) -> tuple[str, ...]:
    """Return the methods in the order in which they suit the model.

    No float32 search goes through a loop, and there an attack costs more than all proofs together: `exact` does the
    work of `branch`, and proofs, which propose points of their own, come first.
    """
    if case.target.model.is_feed_forward:
        return case.options.methods
    names = tuple(dict.fromkeys("exact" if name == "branch" else name for name in case.options.methods))
    if "linear" in names:  # which begins with the intervals, the costly part of a loop's bounds
        names = tuple(name for name in names if name != "interval")
    return (*(name for name in names if name in PROOFS), *(name for name in names if name not in PROOFS))


def _result(case: _Case, predicted: int, method: str | None, seconds: float) -> Result:
    lower = float(case.lowers.min())
    known = lower if np.isfinite(lower) else None
    if case.is_falsified:
        return Result(Verdict.FALSIFIED, predicted, method, known, case.found, None, seconds)
    if not case.open.size:
        return Result(Verdict.CERTIFIED, predicted, method, known, case.found, None, seconds, case.chain, case.bounds)
    return Result(Verdict.UNKNOWN, predicted, method, known, case.found, case.reason, seconds)


def _interval(case: _Case) -> None:
    """Intervals forward; the margin by the last layer's interval (multipliers 0)."""
    model = case.model
    check = case.budget.check
    bounds = interval_bounds(model, case.inputs, check=check)
    lowers = output_lower_bounds(model, case.inputs, bounds, case.functionals, zero_multipliers, check=check)
    case.lowers = np.fmax(case.lowers, lowers[0])


def _state_bounds(case: _Case) -> StateBounds:
    """Return backward bounds of all states, computed once."""
    if case.bounds is None:
        if case.sparse is None:
            case.bounds = backward_state_bounds(case.model, case.inputs, check=case.budget.check)
        else:
            prepared = _prepared_for_sparse(case.target.model, case.budget.max_bytes)
            case.bounds = bound_set(prepared, case.sparse, budget=case.budget).states
    return case.bounds


@lru_cache(maxsize=2)
def _prepared_for_sparse(model: ImplicitModel, max_bytes: int | None) -> Prepared:
    """Return what bounds over U_card need for every sample of a model."""
    return prepare(model, ("interval", "linear"), sparse=True, max_bytes=max_bytes)


def _begun(case: _Case) -> bool:
    """Return whether another program may be begun, and note why where it may not."""
    if case.budget.is_spent:
        case.reason = _why_spent(case.budget)
    return not case.budget.is_spent


def _why_spent(budget: Budget) -> Reason:
    return Reason.TIME_LIMIT if budget.out_of_time else Reason.NODE_LIMIT


def _linear(case: _Case) -> None:
    """Backward linear bounds of states and margins."""
    bounds = _state_bounds(case)
    model, check = case.model, case.budget.check
    if case.sparse is None:
        lowers = output_lower_bounds(model, case.inputs, bounds, case.functionals, check=check)
    else:
        functionals = Functionals.of_outputs(model, case.functionals)
        lines = line_multipliers(model, bounds)
        lowers = lower_bound(model, Interval.of_set(case.sparse), bounds, functionals, lines, check=check)
    case.lowers = np.fmax(case.lowers, lowers[0])


def _lp(case: _Case) -> None:
    """The triangle LP for each open rival: its duals for a proof, its minimiser for an attack."""
    budget = case.budget
    relaxation = TriangleRelaxation(case.model, case.inputs, _state_bounds(case), sparse=case.sparse, budget=budget)
    for rival in case.open:
        if not _begun(case):
            return
        budget.spend()
        answer = relaxation.minimise(case.functionals[rival], budget=budget)
        if answer.outcome is not Outcome.OPTIMAL:
            case.reason = REASONS[answer.outcome]
            continue
        case.lowers[rival] = np.fmax(case.lowers[rival], answer.lower)
        if case.lowers[rival] <= 0 and answer.point is not None:
            case.note(case.target.replay(answer.point, "lp", case.options.attack.target))
            if case.is_falsified:
                return


def _branch(case: _Case) -> None:
    """Optimised slopes, then a tree over the phases of hidden states for every rival that is still open.

    Where no tree can be grown (very many states, U_card) the triangle LP stands in for it.
    """
    model = case.target.model
    if not branching.applies(model) or not isinstance(case.target.inputs, Box):
        _lp(case)
        return
    rivals_left = case.open
    query = Query(case.target.box, tuple(Conjunction(case.functionals[[j]], np.zeros(1)) for j in rivals_left))
    record = Chain() if case.options.record else None
    outcome = branching.branch(
        model, query, budget=case.budget, network=case.target.network, record=record, watch=case.watch
    )
    if record is not None:  # the chain counts the alternatives that were open; the certificate counts all rivals
        trees = {int(rival): record.trees[j] for j, rival in enumerate(rivals_left) if j in record.trees}
        case.chain = replace(record, trees=trees)
    for rival, lower in zip(rivals_left, outcome.lowers, strict=True):
        case.lowers[rival] = np.fmax(case.lowers[rival], lower)
    if outcome.point is not None:
        case.note(case.target.replay(outcome.point.astype(np.float64), "branch", case.options.attack.target))
    elif not outcome.proved and case.budget.is_spent:
        case.reason = _why_spent(case.budget)


def _mip(case: _Case) -> None:
    """A mixed-integer program for each open rival: its points are tried, its word that there are none proves nothing.

    Over U_card it is that of the convex hull; the points are made sparse before they are tried.
    """
    program = BigMProgram(case.model, case.inputs, _state_bounds(case), sparse=case.sparse, budget=case.budget)
    denied = True

    def propose(point: FloatArray) -> bool:
        case.note(case.target.replay(point, "mip", case.options.attack.target))
        return case.is_falsified

    for rival in case.open:
        if not _begun(case):
            return
        answer = program.find_negative(case.functionals[rival], propose=propose)
        if case.is_falsified:
            return
        denied = denied and answer.denied
        if answer.outcome not in (Outcome.OPTIMAL, Outcome.STOPPED):
            case.reason = REASONS[answer.outcome]
    if denied:
        case.reason = Reason.SOLVER_ONLY


CLOSE = 1e-5
"""Margins below this share of max|y| are shown to the original network, which may see them otherwise."""


def _exact(case: _Case) -> None:
    """A tree of LPs over the phases of ReLU states, for every open rival: first all roots, then all trees."""
    bounds = widened(_state_bounds(case))
    tree = LpTree(case.model, case.inputs, bounds, case.budget)
    chain = LpChain(dict(bounds.z))

    def candidate(u: FloatArray) -> bool:
        y = case.target.model(u[None], check=case.budget.check)[0]
        if (case.functionals @ y).min() <= CLOSE * np.abs(y).max():
            case.note(case.target.replay(u, "exact", case.options.attack.target))
        return case.is_falsified

    for most_nodes in (1, None):
        for rival in case.open:
            grown = tree.grow(case.functionals[rival], candidate, most_nodes=most_nodes)
            if grown.found:
                return
            if grown.lower > 0:
                case.lowers[rival] = np.fmax(case.lowers[rival], grown.lower)
                chain.trees[int(rival)] = grown.leaves
            elif most_nodes is None:
                case.reason = _GAPS.get(grown.outcome, Reason.RELAXATION_GAP)
            if case.open.size and case.budget.is_spent:
                case.reason = _why_spent(case.budget)
                return
    if case.options.record:
        case.chain = chain


_GAPS: Final[Mapping[Outcome, Reason]] = MappingProxyType(
    {Outcome.TIME_LIMIT: Reason.TIME_LIMIT, Outcome.MEMORY_LIMIT: Reason.MEMORY_LIMIT}
)
"""Why a tree of LPs was left; at a node with nothing left to split, the relaxation of other activations has a gap."""


def _attack(name: str) -> Rung:
    def rung(case: _Case) -> None:
        case.note(run_attack(name, case.target, case.options.attack, case.rng))
        if not case.is_falsified:
            case.budget.check()

    return rung


Rung: TypeAlias = Callable[[_Case], None]

PROOFS: Final = frozenset({"interval", "linear", "lp", "branch", "exact"})
"""The methods that can certify; the others only find points."""

METHODS: Final[Mapping[str, Rung]] = MappingProxyType(
    {
        "interval": _interval,
        **{name: _attack(name) for name in ATTACKS},
        "linear": _linear,
        "lp": _lp,
        "branch": _branch,
        "exact": _exact,
        "mip": _mip,
    }
)
"""Name -> rung, in the order of their cost."""


def in_order_of_cost(names: Sequence[str]) -> tuple[str, ...]:
    """Return the methods without repetition, cheap ones first; unknown names stay, for `Options` to refuse."""
    known = [name for name in METHODS if name in names]
    return (*known, *(name for name in names if name not in METHODS))
