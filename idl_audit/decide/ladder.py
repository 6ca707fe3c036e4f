"""The ladder: rungs that decide one query over one implicit model, cheap first, each on what is still open.

certified (unsat): every alternative is refuted: one of its rows, or a sum of them, has a proved positive lower bound
over the set, by our own re-evaluated bound; for floating-point arithmetic one above what its roundings may change.
falsified (sat): the original network's own outputs at a float32 point of the exact set make it a counterexample, and so
does exact arithmetic where that is asked. unknown: neither, with the reason. A sample at a radius is the query for a
point of another class; clean_wrong: the network misclassifies the sample itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from idl_audit.decide.case import Case
from idl_audit.decide.proofs import Recorded
from idl_audit.decide.quick import looks_safe
from idl_audit.decide.rungs import IN_PLACE_OF_BRANCH, PROOFS, RUNGS, STANDS_FOR
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import StateBounds
from idl_audit.proof.float_margins import Arithmetic, FloatMargins, Unbounded
from idl_audit.proof.forest import Forest
from idl_audit.search.attacks import ATTACKS, AttackOptions
from idl_audit.search.branching import Watch
from idl_audit.search.ensemble import MEMBERS
from idl_audit.search.judge import Confirm, Found, Judge
from idl_audit.search.mixed_integer import is_piecewise_linear
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError, MemoryLimitError, OptionError, SolverError, UnsupportedModelError
from idl_audit.values.input_sets import InputSet, NormBall
from idl_audit.values.margins import predictions
from idl_audit.values.network import Network
from idl_audit.values.query import Misclassification, Query
from idl_audit.values.verdicts import ArithmeticName, Reason, Verdict

LAST: Final = 0.95
"""Of the time and nodes that are left, for the last proof; the last rung of all has what there is."""
BATCH_WORK: Final = 2**32
"""Products that linear bounds of the samples of a batch may cost, were all states of all of them bounded."""
ATTACK_WORK: Final = 2**30
"""Products that a step of an attack on all samples of a batch may cost."""
MOST_AT_ONCE: Final = 64
"""Samples of a batch: more gain little, and are told of later."""


@dataclass(frozen=True)
class Options:
    """Which rungs to climb and how long."""

    methods: tuple[str, ...] | None = None
    """In this order, `auto` spelt out; None stands for those that are usual for the model and the query."""
    time_limit: float = 60.0
    """Seconds a query."""
    attack: AttackOptions = field(default_factory=AttackOptions)
    """For the attacks on samples."""
    seed: int = 0
    record: bool = False
    """Keep what a proof needs to be checked again."""
    max_nodes: int | None = None
    """Nodes a query: boxes, leaves of trees, programs, and starts of attacks."""
    max_bytes: int | None = None
    """What a rung's arrays may take."""
    arithmetic: ArithmeticName = "real"
    """What verdicts are to be proved for; unless it is real, whoever decides must be given its bounds."""
    confirm: Confirm | None = None
    """What has the last word on counterexamples; None where the network's own word counts."""

    def __post_init__(self) -> None:
        for name in self.methods or ():
            if name not in (*METHODS, *_OF_PROPERTIES, *STANDS_FOR):
                raise OptionError(f"there is no method '{name}'; known are {', '.join((*METHODS, *STANDS_FOR))}")
        if self.methods is not None:
            spelt = dict.fromkeys(one for name in self.methods for one in STANDS_FOR.get(name, (name,)))
            object.__setattr__(self, "methods", tuple(spelt))
        if not self.time_limit > 0:
            raise OptionError(f"--time-limit must be a positive number of seconds, not {self.time_limit}")
        if self.max_nodes is not None and self.max_nodes < 1:
            raise OptionError(f"--max-nodes must be 1 or more, not {self.max_nodes}")

    @property
    def budget(self) -> Budget:
        """What one query may cost, from now on."""
        return Budget.of(self.time_limit, nodes=self.max_nodes, max_bytes=self.max_bytes)


@dataclass(frozen=True, eq=False)
class Parts:
    """What is known of each of several statements about one sample."""

    numbers: IntArray
    """Of the parts: outputs or pixels, ascending, shape (n,)."""
    verdicts: tuple[Verdict, ...]
    least: FloatArray
    """Of outputs with limits: no value in the set is below, shape (n,); -inf where nothing is known, empty without."""
    greatest: FloatArray
    """Likewise: none is above."""
    groups: tuple[IntArray, ...] = ()
    """The certified parts, those together that one query proved."""
    recorded: tuple[Recorded | None, ...] = ()
    """What was recorded of each group's proof."""

    def count(self, verdict: Verdict) -> int:
        """Return how many parts have a verdict."""
        return self.verdicts.count(verdict)


@dataclass(frozen=True, eq=False)
class Result:
    """What is known of one query."""

    verdict: Verdict
    predicted: int = -1
    """Of a sample: the class that the network predicts for it; -1 where an output is no number."""
    method: str | None = None
    """The rung that decided it."""
    lowers: tuple[float, ...] = ()
    """For each alternative, a number that one of its rows or sums of rows, offset and all, is never below."""
    found: Found | None = None
    """The counterexample or, without one, the point nearest to it that the network was asked about."""
    reason: Reason | None = None
    seconds: float = 0.0
    recorded: Recorded | None = None
    """Where it is certified: what was recorded."""
    pieces: tuple[Recorded, ...] = ()
    """Where it is certified over a union (`decide.perturbed`): what was recorded of each piece."""
    cells: Forest | None = None
    """Where it is certified over valid rows (`decide.mixed`) and recorded: how they are shared out, a piece a leaf."""
    angles: tuple[float, ...] = ()
    """Where it is certified over rotations: the ends of the intervals that the pieces are about, ascending."""
    worst: tuple[float, ...] = ()
    """Of a union of boxes: the parameters of the one that is open, or has the least proved bound."""
    states: StateBounds | None = None
    """Where it is certified, and of a single query always: backward bounds of the states over the set, where some were
    computed."""
    detail: str = ""
    """Where the reason is one of a place in the network: which, and what is known of it."""
    float_error: float | None = None
    """Where it is certified: how far any computed margin may be from the exact one; None where no bound is known."""
    nearest: float | None = None
    """The least margin that an attack found, where its point is not kept."""
    denied: int = 0
    """Points that are counterexamples for the network as it runs, and none in exact arithmetic as far as is known."""
    queries: int = 0
    """Points at which attacks evaluated the network, or its implicit form where they descend on that."""
    parts: Parts | None = None
    """Where what is demanded consists of several statements (`decide.demands`): what is known of each."""
    beaten: tuple[int, ...] = ()
    """Of a class that is to stay among the first: the rivals that are proved to stay below it."""

    @property
    def lower(self) -> float | None:
        """The least of `lowers`: of a sample, a proved lower bound of its smallest margin; None where there is none."""
        least = min(self.lowers, default=-np.inf)
        return least if np.isfinite(least) else None


@dataclass(eq=False)
class Ascent:
    """A query on the ladder: what is known of it, and the rungs that it has before it."""

    case: Case
    budget: Budget
    names: tuple[str, ...]
    """All its rungs; where none were asked for, the order is chosen on the way."""
    left: list[str]
    is_free: bool
    """Whether the order may be chosen."""
    method: str | None = None
    """The rung that decided it."""
    unbounded: Unbounded | None = None
    """Why nothing can be proved for the arithmetic that is asked about."""

    @classmethod
    def of(
        cls,
        model: ImplicitModel,
        network: Network,
        query: Query,
        options: Options,
        budget: Budget,
        centre: FloatArray,
        arithmetic: Arithmetic,
    ) -> Ascent:
        """Stand before the first rung.

        Raises:
            UnsupportedModelError: where mip is asked for and the model is not piecewise linear.
            OptionError: where a method is not for such queries.
        """
        names = climbed(model, query, options.methods)
        confirm = options.confirm if arithmetic is None else None  # of what is computed, the runtime has the last word
        judge = Judge.of(model, network, query, budget, confirm)
        rng = np.random.default_rng(options.seed)
        recorded = Recorded() if options.record else None
        bounds = _fitting(arithmetic, model, options)
        case = Case(model, query, judge, centre, rng, options.attack, recorded=recorded, arithmetic=bounds)
        left = list(names) if model.is_well_posed else []  # of several states for one input no rung speaks
        unbounded = arithmetic if isinstance(arithmetic, Unbounded) else None
        if unbounded is not None:  # attacks are climbed where they are asked for by name
            left = [name for name in left if options.methods is not None and name not in PROOFS]
        return cls(case, budget, names, left, options.methods is None and model.is_feed_forward, unbounded=unbounded)

    @property
    def together(self) -> str | None:
        """The next rung, where many samples climb it at once."""
        query, name = self.case.query, self.left[0] if self.left else None
        if self.method is not None or name is None or RUNGS[name].together is None:
            return None
        fits = isinstance(query.inputs, (Box, NormBall) if RUNGS[name].together_in_balls else Box)
        return name if isinstance(query, Misclassification) and fits else None

    def part(self, budget: Budget) -> Budget:
        """Return what the next rung may cost."""
        last = next((name for name in reversed(self.names) if name in PROOFS), None)
        name = self.left[0]
        return budget if len(self.left) == 1 else budget.part(LAST if name == last else RUNGS[name].share)

    def climb(self) -> None:
        """Go through the rungs that are left, until one decides or the time is over."""
        case = self.case
        while self.left and self.method is None and not self.budget.out_of_time:
            try:
                RUNGS[self.left[0]].climb(case, self.part(self.budget))
            except (BudgetError, UnsupportedModelError):
                pass  # it could not be ended in its time, or nothing bounds this model over this set
            except SolverError:
                case.reason = Reason.SOLVER_FAILED
            except (MemoryError, MemoryLimitError):
                case.reason = Reason.MEMORY_LIMIT
            self.step()
            with suppress(BudgetError, MemoryError):
                choose([self], self.budget)

    def step(self) -> None:
        """Leave a rung behind."""
        name = self.left.pop(0)
        if self.case.is_decided:
            self.method = RUNGS[name].begins or name

    @property
    def result(self) -> Result:
        """What is known now, without its seconds."""
        return replace(self._known, denied=self.case.judge.denied, queries=self.case.judge.queries)

    @property
    def _known(self) -> Result:
        case, lowers = self.case, tuple(self.case.lowers.tolist())
        if not case.model.is_well_posed:
            return Result(Verdict.UNKNOWN, reason=Reason.NO_UNIQUENESS_PROOF)
        if case.judge.has_won:
            return Result(Verdict.FALSIFIED, -1, self.method, lowers, case.judge.best)
        if not case.open.size:
            if case.recorded is not None and case.arithmetic is not None:
                case.recorded.slack = case.slack
            certified = Result(Verdict.CERTIFIED, -1, self.method, lowers, case.judge.best, recorded=case.recorded)
            return replace(certified, states=case.states)
        if self.unbounded is not None and not PROOFS.isdisjoint(self.names):
            told = self.unbounded.told
            return Result(Verdict.UNKNOWN, -1, None, (), case.judge.best, Reason.NO_ROUNDING_BOUND, detail=told)
        outside = "" if PROOFS.isdisjoint(self.names) else case.outside
        reason = Reason.OUTSIDE_DOMAIN if outside else _reason(case, self.names, self.budget)
        return Result(Verdict.UNKNOWN, -1, None, lowers, case.judge.best, reason, detail=outside)


def _fitting(arithmetic: Arithmetic, model: ImplicitModel, options: Options) -> FloatMargins | None:
    """Return the bounds of roundings, which must be those of the model that is decided.

    Raises:
        ValueError: where they are of another model, or missing.
    """
    if arithmetic is None and options.arithmetic != "real":
        raise ValueError(f"{options.arithmetic} is asked about, and nothing says what its roundings change")
    if not isinstance(arithmetic, FloatMargins):
        return None
    own, theirs = arithmetic.model, model
    sizes = [[(block.name, block.size) for block in one.blocks] for one in (own, theirs)]
    if sizes[0] != sizes[1] or (own.n_inputs, own.n_outputs) != (theirs.n_inputs, theirs.n_outputs):
        raise ValueError("the bounds of roundings are those of another model")
    return arithmetic


def choose(ascents: Sequence[Ascent], budget: Budget) -> None:
    """Put linear bounds before the attacks where the slopes at the centre say that these would find nothing.

    The order is a matter of what the query itself shows, not of clocks or of other queries: a verdict is the same
    whatever was decided before.
    """
    waiting = [one for one in ascents if _may_choose(one)]
    if waiting:
        for one, is_safe in zip(waiting, looks_safe([one.case for one in waiting], budget), strict=True):
            one.is_free = False
            if is_safe:
                one.left.remove("linear")
                one.left.insert(0, "linear")


def _may_choose(ascent: Ascent) -> bool:
    left = ascent.left
    return ascent.is_free and ascent.method is None and "linear" in left and left[0] in (*ATTACKS, "quick")


@dataclass(frozen=True)
class Sample:
    """A sample and the set around it."""

    point: FloatArray
    """Shape (p,), inside the set."""
    label: int
    inputs: InputSet


def samples_at_once(model: ImplicitModel, methods: Sequence[str] | None = None) -> int:
    """Return how many samples are worth deciding together: fewer of a model whose bounds take long for one.

    One where loops are solved box by box. Attacks alone, where methods are named, need no bounds.
    """
    if not model.is_feed_forward:
        return 1
    if methods is not None and PROOFS.isdisjoint(methods):
        return int(np.clip(ATTACK_WORK // max(1, model.nnz), 1, MOST_AT_ONCE))
    return int(np.clip(BATCH_WORK // max(1, model.nnz * (model.n_states + model.n_outputs)), 1, MOST_AT_ONCE))


def decide_together(
    model: ImplicitModel,
    network: Network,
    samples: Sequence[Sample],
    options: Options,
    *,
    arithmetic: Arithmetic = None,
) -> list[Result | None]:
    """Return the verdicts that the first rungs give, climbed by many samples at once; None where they give none.

    They are those of `decide_sample`, which is left what is not decided here: a batch has the time of one sample, and
    no verdict depends on the other samples (bounds may differ by the order in which a product is summed).

    Raises:
        UnsupportedModelError: where mip is asked for and the model is not piecewise linear.
        OptionError: where the target is no other class, or a method is not for such sets.
    """
    budget = options.budget
    begun = [_begun(model, network, sample, options, budget, arithmetic) for sample in samples]
    while group := _group(begun):
        start = budget.clock()
        goes_on = _climb_together([one.ascent for one in group if one.ascent is not None], budget)
        share = (budget.clock() - start) / len(group)
        for one in group:
            one.seconds += share
        if not goes_on:
            break
    for one in begun:
        if one.ascent is not None and _attacks_together(one.ascent):  # the last one of a batch
            start = budget.clock()
            one.ascent.climb()
            one.seconds += budget.clock() - start
    return [one.result if one.is_decided else None for one in begun]


def _attacks_together(ascent: Ascent) -> bool:
    """Whether nothing but attacks on many samples at once is asked for: all of it may be done in a batch."""
    return all(name not in PROOFS and RUNGS[name].together is not None for name in ascent.names)


@dataclass(eq=False)
class _Begun:
    """A sample of which it is known whether the network is right on it."""

    predicted: int
    ascent: Ascent | None
    """None where the network misclassifies the sample itself."""
    seconds: float

    @property
    def is_decided(self) -> bool:
        """Whether nothing is left to do."""
        ascent = self.ascent
        if ascent is None or ascent.method is not None:
            return True
        return not ascent.left and (ascent.unbounded is not None or PROOFS.isdisjoint(ascent.names))

    @property
    def result(self) -> Result:
        """What is known of it."""
        if self.ascent is None:
            return Result(Verdict.CLEAN_WRONG, self.predicted, seconds=self.seconds)
        return replace(self.ascent.result, predicted=self.predicted, seconds=self.seconds)


def _begun(
    model: ImplicitModel, network: Network, sample: Sample, options: Options, budget: Budget, arithmetic: Arithmetic
) -> _Begun:
    start = budget.clock()
    predicted = int(predictions(network(sample.point[None].astype(np.float32)))[0])
    ascent = None
    if predicted == sample.label:
        query = Query.misclassification(sample.inputs, model.n_outputs, sample.label, options.attack.target)
        ascent = Ascent.of(model, network, query, options, budget, sample.point, arithmetic)
    return _Begun(predicted, ascent, budget.clock() - start)


def _group(begun: Sequence[_Begun]) -> list[_Begun]:
    """Return the samples whose next rung is the same, the cheapest such rung; none where each stands alone."""
    standing: dict[str, list[_Begun]] = {}
    for one in begun:
        name = one.ascent and one.ascent.together
        if name:
            standing.setdefault(name, []).append(one)
    groups = [standing[name] for name in METHODS if len(standing.get(name, ())) > 1]
    return groups[0] if groups else []


def _climb_together(ascents: Sequence[Ascent], budget: Budget) -> bool:
    """Climb one rung; return False where its time or memory did not suffice, and each sample is to try it alone."""
    together = RUNGS[ascents[0].left[0]].together
    assert together is not None
    try:
        together([one.case for one in ascents], ascents[0].part(budget))
        for one in ascents:
            one.step()
        choose(ascents, budget)
    except (BudgetError, UnsupportedModelError, MemoryError, MemoryLimitError):
        return False
    return True


def decide_sample(
    model: ImplicitModel,
    network: Network,
    sample: FloatArray,
    label: int,
    inputs: InputSet,
    options: Options,
    watch: Watch | None = None,
    budget: Budget | None = None,
    *,
    arithmetic: Arithmetic = None,
) -> Result:
    """Return the verdict of one sample over one input set: a box, or U_card.

    With a target class, falsified means that the network predicts it somewhere, certified that y_label > y_target
    everywhere.

    Args:
        model: the implicit model in data units, with at least two outputs.
        network: the original network in data units, the judge of points.
        sample: shape (p,), inside the set.
        label: the right class.
        inputs: the input set.
        options: the rungs and their limits.
        watch: told the share of the current tree that is proved.
        budget: what it may cost; that of the options where it is left out.
        arithmetic: what certified is to be proved for; None stands for real arithmetic.

    Raises:
        UnsupportedModelError: where mip is asked for and the model is not piecewise linear.
        OptionError: where the target is no other class, or a method is not for such sets.
    """
    budget = options.budget if budget is None else budget
    start = budget.clock()
    begun = _begun(model, network, Sample(sample, label, inputs), options, budget, arithmetic)
    if begun.ascent is not None:
        begun.ascent.case.watch = watch
        begun.ascent.climb()
    return replace(begun.result, seconds=budget.clock() - start)


def decide_query(
    model: ImplicitModel,
    network: Network,
    query: Query,
    options: Options,
    *,
    watch: Watch | None = None,
    budget: Budget | None = None,
    centre: FloatArray | None = None,
    arithmetic: Arithmetic = None,
    states: StateBounds | None = None,
) -> Result:
    """Return whether the set has a point whose outputs satisfy one of the alternatives.

    Args:
        model: the implicit model; its inputs and outputs are those of the query.
        network: the original network, float32 (m, p) -> (m, q): the judge of counterexamples.
        query: the set and the alternatives.
        options: the rungs and their limits.
        watch: told the share of the current tree that is proved.
        budget: what it may cost; that of the options where it is left out.
        centre: a point of the set to begin at, shape (p,); the middle of its box where it is left out.
        arithmetic: what certified is to be proved for; None stands for real arithmetic.
        states: backward bounds of the states over the set, where an earlier query about it has made them.

    Raises:
        UnsupportedModelError: where mip is asked for and the model is not piecewise linear.
        OptionError: where a method is not for such queries.
    """
    budget = options.budget if budget is None else budget
    start = budget.clock()
    point = query.box.centre if centre is None else centre
    ascent = Ascent.of(model, network, query, options, budget, point, arithmetic)
    ascent.case.watch = watch
    if states is not None:
        ascent.case.know(states)
    ascent.climb()
    return replace(ascent.result, states=ascent.case.states, seconds=budget.clock() - start)


def climbed(model: ImplicitModel, query: Query, asked: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the rungs that are climbed for a model and a query, in order.

    No float32 search goes through a loop, and there an attack costs more than all proofs together: proofs, which
    propose points of their own, come first.

    Args:
        model: the implicit model.
        query: the set and the alternatives.
        asked: methods by name, in the order in which they are wanted; None stands for those that are usual.

    Raises:
        UnsupportedModelError: where mip is asked for and the model is not piecewise linear.
        OptionError: where a method is not for such queries.
    """
    usual = [name for name, rung in RUNGS.items() if rung.fits(model, query) and rung.usual(model, query)]
    if asked is None:
        names = usual
    else:
        instead = {} if "branch" in usual else {"branch": [name for name in IN_PLACE_OF_BRANCH if name in usual]}
        names = list(dict.fromkeys(one for name in asked for one in instead.get(name, [name])))
        _check_fit(model, query, names)
    if model.is_feed_forward:
        return tuple(names)
    if "linear" in names and "interval" in names:  # it begins with intervals, the costly part of a loop's bounds
        names.remove("interval")
    return tuple(sorted(names, key=lambda name: (name not in PROOFS, name == "split")))  # exact is faster, mostly


def _check_fit(model: ImplicitModel, query: Query, names: Sequence[str]) -> None:
    if "mip" in names and not is_piecewise_linear(model):
        bent = next(block for block in model.blocks if not block.activation.piecewise_linear)
        raise UnsupportedModelError(
            (f"the method mip needs piecewise linear states, and '{bent.name}' ({bent.op}) has none; leave mip out",)
        )
    if "sensitivity" in names:
        model.refuse_jumps("the attack sensitivity has no ranking of inputs")
    for name in names:
        if not RUNGS[name].fits(model, query):
            raise OptionError(f"the method {name} is not for {_kind(query, name)}; leave it out")


def _kind(query: Query, name: str) -> str:
    """Return what a method does not fit."""
    of_classes = name in (*ATTACKS, *MEMBERS, "mip")
    if of_classes and not isinstance(query, Misclassification):
        return "properties"
    return f"balls of the norm {query.inputs.norm}" if isinstance(query.inputs, NormBall) else FEW_CHANGE


def _reason(case: Case, names: Sequence[str], budget: Budget) -> Reason:
    """Return why nothing is known."""
    if budget.out_of_time:
        return Reason.TIME_LIMIT
    if budget.is_spent:
        return Reason.NODE_LIMIT
    if case.reason is Reason.RELAXATION_GAP and not PROOFS.intersection(names):
        return Reason.ATTACKS_FAILED
    return Reason.WITHIN_ROUNDING if case.is_within_rounding else case.reason


FEW_CHANGE: Final = "sets in which few inputs change"
_OF_PROPERTIES: Final = ("persist", "rational", "joint")
"""Rungs of properties alone, which have no methods to choose on the command line: persist ends with the time, rational
is for borders, joint for several rows at once."""
METHODS: Final = tuple(name for name, rung in RUNGS.items() if name not in _OF_PROPERTIES and not rung.begins)
"""What may be asked for, in the order of cost."""


def in_order_of_cost(names: Sequence[str]) -> tuple[str, ...]:
    """Return the methods without repetition, cheap ones first; unknown names stay, for `Options` to refuse."""
    return (*(name for name in METHODS if name in names), *(name for name in names if name not in METHODS))
