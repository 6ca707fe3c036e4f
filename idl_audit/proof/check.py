"""The checker: whether a proof proves that a query has no counterexample, in float64 with outward rounding.

It trusts nothing of the proof: numbers of blocks, states and nodes are compared with the model, every bound is made
anew from the model, the box and the choices, and every comparison is one that NaN fails.

Elsewhere: proof production, certificate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, TypeAlias

import numpy as np

from idl_audit.implicit.elimination import without_self_feedback
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, SetInputs, StateBounds, flattened, of_flat
from idl_audit.proof.chain import retightened
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.exact.refutation import ExactQuery
from idl_audit.proof.float_parts import FloatParts
from idl_audit.proof.forest import Forest
from idl_audit.proof.forms import MOST_APART, Forms, moving
from idl_audit.proof.intervals import affine_interval
from idl_audit.proof.leaves import chosen_multipliers, prove_leaves
from idl_audit.proof.linear_bounds import line_multipliers, output_lower_bounds
from idl_audit.proof.planes import Planes, why_no_planes
from idl_audit.proof.proof import REST, Goals, Lemma, Proof, Refused
from idl_audit.proof.restriction import is_dead_elsewhere, restricted, restricted_bounds
from idl_audit.proof.rows import Rows, plus
from idl_audit.proof.sensitivity_witness import why_not_well_posed
from idl_audit.proof.sums import Sum
from idl_audit.proof.zonotopes import zonotopes_over
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.products import by_numpy
from idl_audit.values.query import Conjunction, Query

NUMBERS_AT_ONCE = 2**22
"""Bounds of all states in the leaves of one pass."""
MOST_STEPS = 2**28
"""Splits of states above all leaves of a forest: a chain of a hundred thousand nodes has five billion of them."""
LEAVES_AT_ONCE = 4096
BOXES_AT_ONCE = 64


def check(
    model: ImplicitModel,
    query: Query,
    proof: Proof,
    parts: FloatParts | None = None,
    exact: ExactQuery | None = None,
) -> list[str]:
    """Return why a proof does not show that no point of the set satisfies an alternative; empty where it does."""
    return examined(model, query, proof, parts, exact)[0]


def examined(
    model: ImplicitModel,
    query: Query,
    proof: Proof,
    parts: FloatParts | None = None,
    exact: ExactQuery | None = None,
) -> tuple[list[str], BoolArray]:
    """Return why a proof does not hold, empty where it does, and which alternatives it leaves open.

    Args:
        model: the model.
        query: the set and the alternatives; for floating-point arithmetic with its offsets lowered.
        proof: what is said to prove it.
        parts: for floating-point arithmetic, what the offsets need be lowered by over parts of the box.
        exact: in real arithmetic, what refutations in rational numbers are about; None: nothing says it.
    """
    is_open = np.ones(len(query.alternatives), np.bool_)
    try:
        with by_numpy(), np.errstate(all="ignore"):  # numbers that no search would choose prove nothing
            return _checked(model, query, proof, is_open, parts, exact), is_open
    except Refused as refused:
        return [str(refused)], is_open
    except UnsupportedModelError as error:  # a box over which nothing bounds a loop
        return list(error.problems), is_open


ROOM: Final = 1e-9
"""Of a bound's own size, and of 1: more than another order of sums changes in it."""


def hold_by_lines(model: ImplicitModel, queries: Sequence[Query]) -> BoolArray:
    """Return for which boxes `check` accepts the trivial proof, all of them bounded at once.

    The bounds are those that it makes of each box, to which no other adds but in the order of sums: they must exceed 0
    by more than that may change. False where that is not so, and where an alternative has several rows or an offset.

    Args:
        model: a feed-forward model.
        queries: boxes with equally many alternatives.
    """
    alternatives = [one for query in queries for one in query.alternatives]
    if not model.is_feed_forward or any(len(one.rows) != 1 or one.offsets.any() for one in alternatives):
        return np.zeros(len(queries), np.bool_)
    inputs = Interval.of_boxes([query.box for query in queries])
    rows = np.stack([np.concatenate([one.rows for one in query.alternatives]) for query in queries])
    with np.errstate(all="ignore"):
        bounds = proved_stage(model, inputs, None)
        functionals, choose = Functionals.of_outputs(model, rows), line_multipliers(model, bounds)
        lower = lower_bound(model, inputs, bounds, functionals, choose)
    is_box = (inputs.lo <= inputs.hi).all(axis=1)
    return np.asarray(is_box & (lower > ROOM * np.maximum(np.abs(lower), 1.0)).all(axis=1))


def _checked(
    model: ImplicitModel,
    query: Query,
    proof: Proof,
    is_open: BoolArray,
    parts: FloatParts | None,
    exact: ExactQuery | None,
) -> list[str]:
    if not (query.box.lo <= query.box.hi).all():
        return ["its box is empty"]
    if query.box.size != model.n_inputs or any(c.rows.shape[1] != model.n_outputs for c in query.alternatives):
        return ["it speaks of inputs or outputs that the model does not have"]
    for k in model.loops:
        why = why_not_well_posed(model, k, proof.loops.get(k))
        if why:
            return [f"nothing proves that the model has one state for every input: {why}"]
    _check_refutations(proof, query, is_open, exact)
    inputs = Interval.of_set(query.inputs)
    model, stages = proved_stages(without_self_feedback(model), inputs, proof)
    if proof.kept:  # bounds of roundings are about all states
        parts = None
    refused = []
    for goals in sorted(proof.goals, key=lambda goals: bool((goals.alternatives == REST).any())):
        if not 0 <= goals.stage < len(stages):
            return ["it relies on a stage that it does not have"]
        why = _unproved(model, inputs, stages[goals.stage], query, goals, is_open, parts)
        refused += [why] if why else []
    if not is_open.any():
        return []
    return refused or [f"it has no tree for {int(is_open.sum())} of {is_open.size} alternatives"]


def _check_refutations(proof: Proof, query: Query, is_open: BoolArray, exact: ExactQuery | None) -> None:
    """Close the alternatives that are refuted in rational numbers. Raises Refused where one is not."""
    for refutation in proof.exact:
        if exact is None or len(exact.query.alternatives) != is_open.size:
            raise Refused("it refutes in rational numbers, and what these are about is not known")
        _refuse(exact.why_open(refutation))
        is_open[refutation.alternative] = False


def proved_stages(model: ImplicitModel, inputs: Interval, proof: Proof) -> tuple[ImplicitModel, list[StateBounds]]:
    """Return the model without states that are dead over the box, and the bounds of its states that each stage proves.

    Raises:
        Refused: where a lemma does not fit the model, or a state is left out that is not proved dead.
    """
    if not all(0 <= lemma.block < len(model.blocks) for lemmas in proof.stages for lemma in lemmas):
        raise Refused("it bounds states of a block that the model does not have")
    bounds = proved_stage(model, inputs, None, proof.stages[0])
    if not is_dead_elsewhere(model, bounds, proof.kept):
        raise Refused("it leaves out states that are not proved dead")
    stages = [restricted_bounds(bounds, proof.kept)]
    model = restricted(model, proof.kept)
    for lemmas in proof.stages[1:]:
        stages.append(proved_stage(model, inputs, stages[-1], lemmas))
    return model, stages


def proved_stage(
    model: ImplicitModel, inputs: Interval, known: StateBounds | None, lemmas: tuple[Lemma, ...] = ()
) -> StateBounds:
    """Return bounds of all states over m boxes: intervals, backward lines, what is known, and lemmas over one box.

    Over one box, zonotopes stand in for lines that would be dear.
    """
    bounds, zonotopes = StateBounds(), zonotopes_over(model, inputs)
    for k in model.evaluation_order:
        bounds = retightened(model, k, bounds, known, inputs, zonotopes=zonotopes)
        for lemma in (one for one in lemmas if one.block == k):
            z = proved_lemma(model, inputs, bounds, lemma)
            bounds = bounds.with_block(k, model.blocks[k], z, bounds.x[k])
    return bounds


def part_stage(
    model: ImplicitModel,
    inputs: Interval,
    known: StateBounds,
    apart: IntArray,
    *,
    by_lines: bool,
    check: Check = unchecked,
) -> StateBounds:
    """Return bounds of all states over m parts of a box: intervals, what is known of the whole, forms, perhaps lines.

    Args:
        model: the model.
        inputs: the parts, (m, p).
        known: bounds of all states over boxes that hold them.
        apart: the inputs that forms tell apart; none are made where they are more than `MOST_APART`.
        by_lines: whether states that bend are bounded backwards, too.
        check: called between small units of work.
    """
    bounds, forms = StateBounds(), Forms.over(inputs, apart) if apart.size <= MOST_APART else None
    for k in model.evaluation_order:
        form = None if forms is None else forms.of_block(model, k)
        bounds = retightened(model, k, bounds, known, inputs, form=form, by_lines=by_lines, check=check)
        if forms is not None:
            forms = forms.with_block(k, model.blocks[k], form, bounds.z[k], bounds.x[k])
    return bounds


# --- lemmas ----------------------------------------------------------------------------------------------------------


def proved_lemma(model: ImplicitModel, inputs: Interval, bounds: StateBounds, lemma: Lemma) -> Interval:
    """Return the bounds of z of the lemma's block over one box, with what its trees prove put in.

    The bound of a goal is that of its worst leaf.

    Raises:
        Refused: where the lemma does not fit the model.
    """
    k, forest = lemma.block, lemma.forest
    _refuse(_misfit(model, lemma))
    if forest.n_leaves == forest.variable.size and not forest.planes:
        return _by_choices(model, inputs, bounds, lemma)
    nodes = np.flatnonzero(forest.is_leaf)
    goal = forest.goal_of[nodes]
    proved = _proved(model, inputs, bounds, forest, nodes, _signed_states(model, lemma, goal), block=k)
    worst = np.full(forest.n_goals, np.inf)
    np.minimum.at(worst, goal, np.where(np.isnan(proved), -np.inf, proved))
    return bounds.z[k].tightened(lemma.states, lemma.signs.astype(np.float64), worst)


def _misfit(model: ImplicitModel, lemma: Lemma) -> str:
    """Return why a lemma does not fit the model; empty where it does."""
    k, forest = lemma.block, lemma.forest
    if not np.isin(lemma.signs, (1, -1)).all():
        return f"it bounds states of block {k} from no side"
    if not ((lemma.states >= 0) & (lemma.states < model.blocks[k].size)).all():
        return f"it bounds states that block {k} does not have"
    if not lemma.states.shape == lemma.signs.shape == forest.roots.shape:
        return f"it has another number of trees than of states in block {k}"
    why = _unfit(model, forest, k)
    if why:
        return why
    split = forest.variable[~forest.is_leaf] - model.n_inputs
    if not (split >= model.offsets[k + 1]).all():
        return f"a tree for states of block {k} splits what is not older"
    return ""


def _by_choices(model: ImplicitModel, inputs: Interval, bounds: StateBounds, lemma: Lemma) -> Interval:
    """Return the bounds that the choices of leaves without splits prove, in passes of many rows over the one box."""
    k, forest = lemma.block, lemma.forest
    z = bounds.z[k]
    at_once = max(1, NUMBERS_AT_ONCE // max(1, *(block.size for block in model.blocks), model.n_inputs))
    for start in range(0, forest.n_goals, at_once):
        goals = np.arange(start, min(start + at_once, forest.n_goals))
        leaves = forest.leaf_number[forest.roots[goals]]
        chosen = [{j: rows[None] for j, rows in kind.items()} for kind in forest.chosen(leaves)]
        functionals = Functionals.of_block(model, k, _signed_states(model, lemma, goals)(slice(None)))
        choose = chosen_multipliers(model, bounds, *chosen)
        proved = lower_bound(model, inputs, bounds, functionals, choose)[0]
        z = z.tightened(lemma.states[goals], lemma.signs[goals].astype(np.float64), proved)
    return z


Seeds: TypeAlias = Callable[[slice], FloatArray]
"""The functionals of some leaves, made when they are asked for: leaves are many, and rows may be long."""


def _signed_states(model: ImplicitModel, lemma: Lemma, goals: IntArray) -> Seeds:
    """Return signs * z of the states of some of a lemma's goals, as functionals."""

    def of(some: slice) -> FloatArray:
        rows = goals[some]
        seeds = np.zeros((rows.size, model.blocks[lemma.block].size))
        seeds[np.arange(rows.size), lemma.states[rows]] = lemma.signs[rows]
        return seeds

    return of


# --- goals -----------------------------------------------------------------------------------------------------------


def _unproved(
    model: ImplicitModel,
    inputs: Interval,
    bounds: StateBounds,
    query: Query,
    goals: Goals,
    is_open: BoolArray,
    parts: FloatParts | None,
) -> str:
    """Close the alternatives that are proved refuted; return why others are not."""
    forest, count = goals.forest, len(query.alternatives)
    _refuse(_unfit(model, forest, None))
    if not goals.alternatives.shape == forest.roots.shape == goals.weights.shape[:1]:
        return "it has another number of trees than of goals"
    if not ((goals.alternatives >= REST) & (goals.alternatives < count)).all():
        return "it speaks of alternatives that the query does not have"
    if not ((goals.weights >= 0) & np.isfinite(goals.weights)).all():
        return "it weighs rows by what is no number or below 0"
    _refuse(_misweighed(query, goals))
    splits_inputs, weighed = forest.splits_inputs(model.n_inputs), _Weighed(goals, model, bounds, inputs)
    flat = np.flatnonzero((goals.alternatives != REST) & ~splits_inputs[forest.roots])
    why = _flat_goals(model, inputs, bounds, query, goals, flat, is_open, weighed)
    for goal in np.setdiff1d(np.arange(forest.n_goals), flat):
        number = int(goals.alternatives[goal])
        if number == REST:
            target = _Target.rest(query, is_open)
        else:
            target = _Target.of_sum(query.alternatives[number], goals.weights[goal], weighed)
        own_parts = parts if number == REST else None
        walk = _Walk(model, inputs, bounds, forest, splits_inputs, target, weighed, own_parts)
        own = walk.why_open(int(forest.roots[goal]))
        if own:
            why = why or (own if number == REST else f"alternative {number}: {own}")
        elif number == REST:
            is_open[:] = False
        else:
            is_open[number] = False
    return why


def _misweighed(query: Query, goals: Goals) -> str:
    """Return why weights of single leaves do not fit the goals; empty where they do, or where there are none."""
    own = goals.own
    if own is None:
        return ""
    is_rest = goals.alternatives == REST
    if is_rest.any() and not is_rest.all():
        return "it weighs rows of all alternatives and of one"
    count = sum(len(c.rows) for c in query.alternatives) if is_rest.any() else goals.weights.shape[1]
    if own.values.ndim != 2 or own.values.shape[1] != count:
        return "it weighs another number of rows than there are"
    if own.leaves.shape != own.values.shape[:1] or not _ascends(own.leaves, goals.forest.n_leaves):
        return "it weighs rows in leaves that it does not have"
    if not ((own.values >= 0) & np.isfinite(own.values)).all():
        return "it weighs rows by what is no number or below 0"
    return ""


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums of rows as functionals of y: one for each of some leaves, or for each alternative in each."""

    seeds: FloatArray
    """(m, q) or (m, a, q)."""
    shifts: FloatArray
    """What is to be added to their lower bounds, (m,) or (m, a)."""
    strict: BoolArray
    """Which of them refute from 0 on."""

    def above(self, lower: FloatArray) -> FloatArray:
        """Return lower bounds of the sums from those of their functionals: above 0 they refute."""
        return plus(lower, self.shifts, self.strict)


class _Weighed:
    """The sums of rows that leaves of some goals prove to be positive: their goal's, or their own."""

    def __init__(self, goals: Goals, model: ImplicitModel, bounds: StateBounds, inputs: Interval) -> None:
        self._goals, self._largest = goals, cache(lambda: affine_interval(model.output, bounds.x, inputs).largest[0])

    def sums(self, alternatives: Sequence[Conjunction], weights: Sequence[FloatArray]) -> _Sums:
        """Return the sums of some alternatives' rows."""
        found = [Sum.of(own, mu) for own, mu in zip(alternatives, weights, strict=True)]
        seeds, shifts = np.stack([one.seed for one in found]), np.array([one.shift(self._largest) for one in found])
        return _Sums(seeds, shifts, np.array([one.strict for one in found]))

    def of_leaves(self, query: Query, nodes: IntArray) -> _Sums:
        """Return the sum of each of some leaves of trees of one alternative."""
        goals, forest = self._goals, self._goals.forest
        goal, (has, own) = forest.goal_of[nodes], self._own(nodes)
        code = np.where(has, forest.n_goals + np.arange(nodes.size), goal)
        _, first, which = np.unique(code, return_index=True, return_inverse=True)
        weights = [own[i] if has[i] else goals.weights[goal[i]] for i in first]
        found = self.sums([query.alternatives[goals.alternatives[goal[i]]] for i in first], weights)
        return _Sums(found.seeds[which], found.shifts[which], found.strict[which])

    def of_boxes(self, alternatives: Sequence[Conjunction], nodes: IntArray) -> Iterator[tuple[IntArray, _Sums]]:
        """Yield which nodes are leaves with weights of their own, (t,), and the sums of alternatives of these, (t, a).

        Sums of which no row has a weight are 0, and -inf is to be added to their bounds.
        """
        has, own = self._own(nodes)
        every, ends = np.flatnonzero(has), np.cumsum([len(one.rows) for one in alternatives])
        shape = len(alternatives), alternatives[0].rows.shape[1]
        at_once = max(1, NUMBERS_AT_ONCE // max(1, math.prod(shape)))
        for start in range(0, every.size, at_once):
            some = every[start : start + at_once]
            seeds, shifts = np.zeros((some.size, *shape)), np.full((some.size, shape[0]), -np.inf)
            strict = np.zeros(shifts.shape, np.bool_)
            for t, weights in enumerate(own[some]):
                if weights[ends[-1] :].any():
                    raise Refused("it weighs rows that an alternative does not have")
                parts = [weights[end - len(one.rows) : end] for one, end in zip(alternatives, ends, strict=True)]
                used = [a for a, part in enumerate(parts) if part.any()]
                if used:
                    found = self.sums([alternatives[a] for a in used], [parts[a] for a in used])
                    seeds[t, used], shifts[t, used], strict[t, used] = found.seeds, found.shifts, found.strict
            yield some, _Sums(seeds, shifts, strict)

    def _own(self, nodes: IntArray) -> tuple[BoolArray, FloatArray]:
        own, forest = self._goals.own, self._goals.forest
        if own is None:
            return np.zeros(nodes.size, np.bool_), np.zeros((nodes.size, 0))
        return own.of_leaves(np.where(forest.is_leaf[nodes], forest.leaf_number[nodes], -1))


def _flat_goals(
    model: ImplicitModel,
    inputs: Interval,
    bounds: StateBounds,
    query: Query,
    goals: Goals,
    numbers: IntArray,
    is_open: BoolArray,
    weighed: _Weighed,
) -> str:
    """Check the trees of some goals that split states alone, all leaves together."""
    if not numbers.size:
        return ""
    place = np.full(goals.forest.n_goals, -1)
    place[numbers] = np.arange(numbers.size)
    nodes = np.flatnonzero(goals.forest.is_leaf & (place[goals.forest.goal_of] >= 0))
    own = place[goals.forest.goal_of[nodes]]
    worst = np.full(numbers.size, np.inf)
    at_once = max(1, min(LEAVES_AT_ONCE, NUMBERS_AT_ONCE // max(1, model.n_outputs)))
    for start in range(0, nodes.size, at_once):
        some = slice(start, start + at_once)
        sums = weighed.of_leaves(query, nodes[some])
        proved = sums.above(_proved(model, inputs, bounds, goals.forest, nodes[some], sums.seeds.__getitem__))
        np.minimum.at(worst, own[some], np.where(np.isnan(proved), -np.inf, proved))
    for number, lower in zip(goals.alternatives[numbers], worst, strict=True):
        if lower > 0:
            is_open[number] = False
    short = np.flatnonzero(~(worst > 0))
    if not short.size:
        return ""
    return f"alternative {goals.alternatives[numbers[short[0]]]}: a leaf has the lower bound {worst[short[0]]:.3g}"


@dataclass(frozen=True, eq=False)
class _Target:
    """What each leaf of a tree that splits inputs must refute: alternatives, each by one of its rows."""

    rows: Rows
    is_open: BoolArray
    """(a,): the alternatives that are to be refuted."""
    single: bool
    """Whether it is one alternative by one sum, which choices of leaves are for."""
    alternatives: tuple[Conjunction, ...]
    """Whose rows single leaves may weigh."""

    @classmethod
    def rest(cls, query: Query, is_open: BoolArray) -> _Target:
        """Return the target of all alternatives that are still open, by any of their rows and exact sums."""
        return cls(Rows.of(query), is_open.copy(), False, query.alternatives)

    @classmethod
    def of_sum(cls, alternative: Conjunction, weights: FloatArray, weighed: _Weighed) -> _Target:
        """Return the target of one sum of rows."""
        wanted = weighed.sums([alternative], [weights])
        rows = Rows(wanted.seeds, wanted.shifts, (np.zeros(1, np.int64),), wanted.strict, np.ones(1))
        return cls(rows, np.ones(1, np.bool_), True, (alternative,))


@dataclass(frozen=True, eq=False)
class _Part:
    """A node of a tree that splits inputs."""

    node: int
    lo: FloatArray
    hi: FloatArray
    z_lo: FloatArray
    """Bounds of all pre-activations, in the flat order: of the node, or of its parent where it is `cut`."""
    z_hi: FloatArray
    is_open: BoolArray
    cut: bool


class _Walk:
    """One tree that splits inputs, from its root: a box whose inputs were cut has its bounds made anew."""

    def __init__(
        self,
        model: ImplicitModel,
        inputs: Interval,
        bounds: StateBounds,
        forest: Forest,
        splits_inputs: BoolArray,
        target: _Target,
        weighed: _Weighed,
        parts: FloatParts | None = None,
    ) -> None:
        self._parts = parts
        self._model, self._inputs, self._forest, self._target = model, inputs, forest, target
        self._weighed = weighed
        self._splits_inputs, self._bounds, self._apart = splits_inputs, bounds, moving(inputs)

    def why_open(self, root: int) -> str:
        """Return why the tree does not refute the target; empty where it does."""
        model, inputs = self._model, self._inputs
        z_lo, z_hi = flattened(model, self._bounds)
        waiting = [_Part(root, inputs.lo[0], inputs.hi[0], z_lo[0], z_hi[0], self._target.is_open, False)]
        while waiting:
            batch = [waiting.pop()]
            while waiting and len(batch) < BOXES_AT_ONCE and waiting[-1].cut == batch[0].cut:
                batch.append(waiting.pop())
            why = self._settle(batch, waiting)
            if why:
                return why
        return ""

    def _settle(self, batch: list[_Part], waiting: list[_Part]) -> str:
        """Refute what can be refuted in some nodes, and put the children of the others on the stack."""
        batch = self._bounded(batch, by_lines=False)
        is_last = np.array([not self._splits_inputs[one.node] for one in batch])
        is_open = np.array([one.is_open.any() for one in batch])
        late = [one for one, last in zip(batch, is_open & is_last, strict=True) if last]
        for here in self._bounded(late, by_lines=True) if late else []:
            why = self._states_alone(here) if here.is_open.any() else ""
            if why:
                return why
        for here, goes_on in zip(batch, is_open & ~is_last, strict=True):
            why = self._split(here, waiting) if goes_on else ""
            if why:
                return why
        return ""

    def _bounded(self, batch: list[_Part], *, by_lines: bool) -> list[_Part]:
        """Return some nodes, all cut or none, with their own bounds, and what these leave open.

        Lines are for leaves alone: forms cost less, and the bounds of a node serve its children as a beginning.
        """
        model, is_cut = self._model, batch[0].cut
        if by_lines and not is_cut:
            return batch
        inputs = self._box(np.stack([one.lo for one in batch]), np.stack([one.hi for one in batch]))
        z_lo, z_hi = np.stack([one.z_lo for one in batch]), np.stack([one.z_hi for one in batch])
        bounds = of_flat(model, z_lo, z_hi)
        if is_cut:
            bounds = part_stage(model, inputs, bounds, self._apart, by_lines=by_lines)
            z_lo, z_hi = flattened(model, bounds, len(batch))
        nodes, asked = np.array([one.node for one in batch]), np.stack([one.is_open for one in batch])
        is_open = asked & ~(self._best(inputs, bounds, nodes, asked if is_cut else None) > 0)
        return [
            replace(one, z_lo=low, z_hi=high, is_open=left)
            for one, low, high, left in zip(batch, z_lo, z_hi, is_open, strict=True)
        ]

    def _box(self, lo: FloatArray, hi: FloatArray) -> Interval:
        """Return the inputs of some nodes; U_card is never split."""
        sparse = isinstance(self._inputs, SetInputs)
        return self._inputs.repeated(len(lo)) if sparse else Interval(lo, hi)

    def _best(
        self, inputs: Interval, bounds: StateBounds, nodes: IntArray, apart: BoolArray | None = None
    ) -> FloatArray:
        """Return for some nodes the best lower bound of each alternative's rows by the usual lines, (m, a).

        What is wanted `apart`, (m, a), is refuted by what roundings may change over each box, too.
        """
        model, rows = self._model, self._target.rows
        lower = output_lower_bounds(model, inputs, bounds, rows.functionals)
        best = rows.best(rows.shifted(lower))
        for some, sums in self._weighed.of_boxes(self._target.alternatives, nodes):
            there, functionals = bounds.of_boxes(some), Functionals.of_outputs(model, sums.seeds)
            own = lower_bound(model, inputs.rows(some), there, functionals, line_multipliers(model, there))
            best[some] = np.fmax(best[some], sums.above(own))
        if self._parts is not None and apart is not None:
            wanted = apart & ~(best > 0)
            best = np.where(wanted, self._parts.best(lower, wanted, inputs, bounds), best)
        return best

    def _split(self, here: _Part, waiting: list[_Part]) -> str:
        """Put the two children of a node on the stack."""
        variable, cut = int(self._forest.variable[here.node]), float(self._forest.cut[here.node])
        child, p = int(self._forest.child[here.node]), self._model.n_inputs
        for second in (False, True):
            ends = {name: getattr(here, name).copy() for name in ("lo", "hi", "z_lo", "z_hi")}
            if variable < p:
                if isinstance(self._inputs, SetInputs):
                    return "it splits an input of a set that is no box"
                if not here.lo[variable] <= cut <= here.hi[variable]:
                    return "a split lies outside its box"
                ends["lo" if second else "hi"][variable] = cut
            else:
                own, least = ends["z_lo" if second else "z_hi"], np.maximum if second else np.minimum
                side = self._model.sides(np.array(variable - p), np.array(cut))[second]
                own[variable - p] = least(own[variable - p], side)
            waiting.append(_Part(child + second, **ends, is_open=here.is_open, cut=variable < p))
        return ""

    def _states_alone(self, here: _Part) -> str:
        """Refute what is open in a node below which only states are split."""
        nodes = self._forest.leaves_below(here.node)
        inputs = self._box(here.lo[None], here.hi[None])
        bounds = of_flat(self._model, here.z_lo[None], here.z_hi[None])
        if self._target.single:
            wanted = self._sums(nodes)
            seeds, whole = wanted.seeds.__getitem__, self._inputs
            proved = _proved(self._model, inputs, bounds, self._forest, nodes, seeds, top=here.node, whole=whole)
            lower = wanted.above(proved)[:, None]
        else:
            lower = self._by_lines(here, inputs, bounds, nodes)
        refuted = (lower > 0) | ~here.is_open
        return "" if refuted.all() else f"a leaf has the lower bound {float(np.nanmin(lower)):.3g}"

    def _sums(self, nodes: IntArray) -> _Sums:
        """Return the sum that each of some leaves is to prove positive."""
        rows = self._target.rows
        seeds, shifts = np.repeat(rows.functionals, nodes.size, axis=0), np.repeat(rows.offsets, nodes.size)
        strict = np.repeat(rows.strict, nodes.size)
        for some, own in self._weighed.of_boxes(self._target.alternatives, nodes):
            seeds[some], shifts[some], strict[some] = own.seeds[:, 0], own.shifts[:, 0], own.strict[:, 0]
        return _Sums(seeds, shifts, strict)

    def _by_lines(self, here: _Part, inputs: Interval, bounds: StateBounds, nodes: IntArray) -> FloatArray:
        """Return the best lower bound of each alternative in some leaves by the usual lines, (m, a)."""
        if self._forest.has_choices:
            raise Refused("it has choices for leaves that refute several alternatives")
        found = []
        for some in _chunks(self._model, nodes):
            leaves = leaf_bounds(self._model, bounds, self._forest, some, here.node)
            found.append(self._best(inputs.repeated(some.size), leaves, some))
        return np.concatenate(found)


# --- leaves ----------------------------------------------------------------------------------------------------------


def _proved(
    model: ImplicitModel,
    inputs: Interval,
    bounds: StateBounds,
    forest: Forest,
    nodes: IntArray,
    seeds: Seeds,
    *,
    block: int | None = None,
    top: int | None = None,
    whole: Interval | None = None,
) -> FloatArray:
    """Return proved lower bounds of one functional in each of some leaves of one box, shape (m,).

    Args:
        model: the model.
        inputs: the box, (1, p).
        bounds: of the states over that box.
        forest: the trees, whose splits above the leaves are of states alone up to `top`.
        nodes: the leaves, (m,).
        seeds: of some of the leaves, (m, rows): of the outputs, or of z of a block.
        block: whose z.
        top: the node that `bounds` hold for; None for the roots.
        whole: the box that planes are for; None where it is `inputs`.
    """
    found = np.full(nodes.size, -np.inf)
    start = 0
    for some in _chunks(model, nodes):
        numbers = forest.leaf_number[some]
        leaves = leaf_bounds(model, bounds, forest, some, top)
        chosen, own = forest.chosen(numbers), seeds(slice(start, start + some.size))
        for rows, planes in _with_planes(forest, numbers):
            if planes:
                if whole is not None and not (
                    np.array_equal(whole.lo, inputs.lo) and np.array_equal(whole.hi, inputs.hi)
                ):
                    raise Refused("it has planes for a part of the box")
                _refuse(why_no_planes(model, inputs, rows.size, planes))
            here = StateBounds({k: Interval(z.lo[rows], z.hi[rows]) for k, z in leaves.z.items()})
            slopes, splits, duals = ({k: value[rows] for k, value in kind.items()} for kind in chosen)
            found[start + rows] = prove_leaves(
                model,
                inputs.repeated(rows.size),
                here,
                own[rows],
                slopes,
                splits,
                block=block,
                planes=planes,
                duals=duals,
            )
        start += some.size
    return found


def _chunks(model: ImplicitModel, nodes: IntArray) -> list[IntArray]:
    at_once = max(1, min(LEAVES_AT_ONCE, NUMBERS_AT_ONCE // max(1, model.n_states)))
    return [nodes[start : start + at_once] for start in range(0, nodes.size, at_once)]


def leaf_bounds(
    model: ImplicitModel, bounds: StateBounds, forest: Forest, nodes: IntArray, top: int | None = None
) -> StateBounds:
    """Return the bounds of z in some nodes of one box: what the splits of states above them say, put in."""
    z_lo, z_hi = (np.repeat(ends, nodes.size, axis=0) for ends in flattened(model, bounds))
    for who, parent, second in forest.steps_up(nodes, top):
        state = forest.variable[parent] - model.n_inputs
        below, above = model.sides(state, forest.cut[parent])
        for ends, side, cut, tighter in ((z_lo, second, above, np.fmax), (z_hi, ~second, below, np.fmin)):
            some = side & (state >= 0)
            place = who[some], state[some]
            ends[place] = tighter(ends[place], cut[some])
    parts = {k: slice(model.offsets[k], model.offsets[k + 1]) for k in bounds.z}
    return StateBounds({k: Interval(z_lo[:, own], z_hi[:, own]) for k, own in parts.items()})


def _with_planes(forest: Forest, numbers: IntArray) -> list[tuple[IntArray, dict[int, Planes]]]:
    """Return some leaves in groups that have planes for the same blocks, each with its planes."""
    if not forest.planes:
        return [(np.arange(numbers.size), {})]
    place = {k: np.searchsorted(own.leaves, numbers) for k, own in forest.planes.items()}
    has = []
    for k, own in forest.planes.items():
        inside = place[k] < own.leaves.size
        inside[inside] = own.leaves[place[k][inside]] == numbers[inside]
        has.append(inside)
    code = np.stack(has).T @ (1 << np.arange(len(has)))
    groups = []
    for value in np.unique(code):
        rows = np.flatnonzero(code == value)
        chosen = {
            k: Planes(own.states, own.values[place[k][rows]])
            for bit, (k, own) in enumerate(forest.planes.items())
            if value >> bit & 1
        }
        groups.append((rows, chosen))
    return groups


def _unfit(model: ImplicitModel, forest: Forest, block: int | None) -> str:
    """Return why a forest does not fit the model; a lemma's reads only blocks that are older than its own."""
    why = forest.fault(model.n_inputs, model.n_states)
    if why:
        return why
    if not forest.steps(model.n_inputs) <= MOST_STEPS:
        return "its trees are deeper than anyone looks at"
    newest = 0 if block is None else block + 1
    for kind in (forest.slopes, forest.multipliers, forest.duals, forest.planes):
        for k, own in kind.items():
            if not newest <= k < len(model.blocks):
                return "it has choices for a block that does not take part"
            if own.leaves.shape != own.values.shape[:1] or not _ascends(own.leaves, forest.n_leaves):
                return "it has choices for leaves that it does not have"
    for kind in (forest.slopes, forest.multipliers, forest.duals):
        if any(own.values.shape[1:] != (model.blocks[k].size,) for k, own in kind.items()):
            return "it has choices for another number of states"
    return ""


def _ascends(values: IntArray, limit: int) -> bool:
    """Return whether whole numbers ascend from 0 or more to less than a limit."""
    return bool(values.size == 0 or (values[0] >= 0 and values[-1] < limit and (np.diff(values) > 0).all()))


def _refuse(why: str) -> None:
    if why:
        raise Refused(why)
