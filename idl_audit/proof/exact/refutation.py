"""Refutations in rational numbers as proof files hold them, and their checker.

Where outward rounding proves nothing, since a row holds with equality somewhere, an alternative is refuted by a tree of
phases and, at each leaf, by Farkas' multipliers: whole numbers lambda >= 0 for the rows of the leaf's program
(`exact.phases`) with sum lambda_k row_k = 0 v + c, and c > 0, or c = 0 where a strict row has lambda_k > 0. Every point
of the leaf that satisfies the alternative has row_k <= 0, < 0 for strict ones, and so it has none
(docs/mathematics.md, section 13.3). The checker makes the rows anew, exactly, and adds them up.

Elsewhere: Farkas certificate of a border.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds, flattened, of_flat
from idl_audit.proof.exact.numbers import zeros
from idl_audit.proof.exact.phases import (
    ABOVE,
    BELOW,
    FREE,
    MOST_BENDING,
    MOST_VARIABLES,
    NodeRows,
    Program,
    Row,
    Tree,
    bending,
    fits,
    program_of,
    with_phase,
)
from idl_audit.proof.exact.point import ExactNetwork
from idl_audit.proof.forest import LEAF, Forest
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.query import Query

MOST_STEPS: Final = 2**20
"""Splits above all leaves of a tree."""


@dataclass(frozen=True, eq=False)
class Refutation:
    """Why one alternative holds nowhere: a tree of phases whose leaves are contradictions."""

    alternative: int
    states: IntArray
    """(v,): the states that are variables, in the order of evaluation, by their numbers in the flat order."""
    lo: FloatArray
    """(v,): z >= lo."""
    hi: FloatArray
    forest: Forest
    """One tree, which splits z of states at 0."""
    leaves: IntArray
    """(t,): the leaf that each multiplier is for, counted in the order of nodes."""
    rows: IntArray
    """(t,): the row that it multiplies."""
    multipliers: tuple[int, ...]
    """(t,), 0 or more."""


@dataclass(frozen=True, eq=False)
class ExactQuery:
    """A query with its own decimals, and the network in exact arithmetic: what refutations are about."""

    query: Query
    network: ExactNetwork

    def why_open(self, refutation: Refutation) -> str:
        """Return why a refutation does not show that its alternative holds nowhere; empty where it does."""
        model = self.network.own
        if model is None or not fits(model):
            return "it refutes in rational numbers, and the network has no exact form for that"
        if not 0 <= refutation.alternative < len(self.query.alternatives):
            return "it refutes an alternative that the query does not have"
        with np.errstate(all="ignore"):
            program = _program(model, self.query, refutation)
        if isinstance(program, str):
            return program
        return _why_open(model, self.query, refutation, program)


def refutation_of(
    alternative: int, program: Program, bounds: StateBounds, model: ImplicitModel, tree: Tree
) -> Refutation:
    """Return what a decider found out about one alternative as a file holds it.

    Args:
        alternative: its number in the query.
        program: of the query.
        bounds: of the states, that the program was made with.
        model: the exact model.
        tree: the decider's.
    """
    states = np.array([kink.state for kink in program.kinks], np.int64)
    lo, hi = (ends[0, states] for ends in flattened(model, bounds))
    split = np.array(tree.split, np.int64)
    variable = np.where(split == LEAF, LEAF, model.n_inputs + np.append(states, LEAF)[split])
    child = np.array(tree.child, np.int64)
    forest = Forest(np.zeros(1, np.int64), variable, np.zeros(split.size), child)
    used = [(leaf, row, top) for leaf, own in enumerate(tree.leaves) for row, top in sorted(own.items())]
    leaves, rows = (np.array([one[place] for one in used], np.int64) for place in (0, 1))
    return Refutation(alternative, states, lo, hi, forest, leaves, rows, tuple(top for _, _, top in used))


# --- the checker ------------------------------------------------------------------------------------------------------


def _program(model: ImplicitModel, query: Query, found: Refutation) -> Program | str:
    """Return the program of the query with the variables that a refutation names; a text says why there is none."""
    sizes = {found.states.size, found.lo.size, found.hi.size}
    if len(sizes) > 1 or not ((found.states >= 0) & (found.states < model.n_states)).all():
        return "its variables are states that the network does not have"
    ends = query.box.exact_ends
    moving = 0 if ends is None else sum(low < high for low, high in zip(*ends, strict=True))
    if found.states.size > MOST_BENDING or found.states.size + moving > MOST_VARIABLES:
        return "it has more variables than anyone looks at"
    if not ((found.lo < 0) & (found.hi > 0)).all():
        return "a variable of it does not bend"
    own = backward_state_bounds(model, Interval.of_boxes(query.box))
    lo, hi = (ends[0].copy() for ends in flattened(model, own))
    if not ((lo[found.states] >= found.lo) & (hi[found.states] <= found.hi)).all():
        return "what it says of a state is not proved"
    lo[found.states], hi[found.states] = found.lo, found.hi
    bounds = of_flat(model, lo[None], hi[None])
    if sum(int(some.sum()) for some in bending(model, bounds).values()) != found.states.size:
        return "a state that may bend is no variable of it"
    program = program_of(model, query.box, bounds)
    if program is None:
        return "the box has no exact ends, or the program takes too many products"
    if [kink.state for kink in program.kinks] != found.states.tolist():
        return "its variables are not the states that may bend, in their order"
    return program


def _why_open(model: ImplicitModel, query: Query, found: Refutation, program: Program) -> str:
    forest = found.forest
    why = forest.fault(model.n_inputs, model.n_states)
    if why or forest.roots.size != 1 or forest.has_choices or forest.cut.any():
        return why or "its tree splits what is no phase"
    if not forest.steps(model.n_inputs) <= MOST_STEPS:
        return "its tree is deeper than anyone looks at"
    kinks = {model.n_inputs + kink.state: number for number, kink in enumerate(program.kinks)}
    if not set(forest.variable[~forest.is_leaf].tolist()) <= kinks.keys():
        return "its tree splits what is no variable"
    if not found.leaves.shape == found.rows.shape == (len(found.multipliers),):
        return "its multipliers are not whole"
    rows, asked = NodeRows.of(program), list(program.alternative_rows(query.alternatives[found.alternative]))
    least, own = list(program.least_rows()), _by_leaf(found)
    for number, phases in _leaves(forest, kinks, len(program.kinks)):
        every = [*rows.at(phases, asked), *least]
        if not _contradict(every, own.get(number, {})):
            return f"leaf {number} of alternative {found.alternative} is no contradiction in rational numbers"
    return ""


def _by_leaf(found: Refutation) -> Mapping[int, Mapping[int, int]]:
    """Return for each leaf row -> multiplier."""
    own: dict[int, dict[int, int]] = {}
    for leaf, row, top in zip(found.leaves.tolist(), found.rows.tolist(), found.multipliers, strict=True):
        own.setdefault(leaf, {})[row] = top
    return own


def _leaves(forest: Forest, kinks: Mapping[int, int], count: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the number of each leaf with its phases."""
    waiting: list[tuple[int, tuple[int, ...]]] = [(int(forest.roots[0]), (FREE,) * count)]
    while waiting:
        node, phases = waiting.pop()
        if forest.is_leaf[node]:
            yield int(forest.leaf_number[node]), phases
            continue
        kink, child = kinks[int(forest.variable[node])], int(forest.child[node])
        for second, phase in enumerate((BELOW, ABOVE)):
            waiting.append((child + second, with_phase(phases, kink, phase)))


def _contradict(rows: Sequence[Row], multipliers: Mapping[int, int]) -> bool:
    """Return whether a sum of rows <= 0, with multipliers >= 0, says that a number above 0 is not above 0."""
    total, strict = zeros(rows[0].coefficients.shape) if rows else zeros((1,)), False
    for number, top in multipliers.items():
        if not 0 <= number < len(rows) or top < 0:
            return False
        total = total + rows[number].coefficients * top
        strict = strict or (rows[number].strict and top > 0)
    constant = total[-1]
    return not any(total[:-1].tolist()) and bool(constant > 0 or (constant == 0 and strict))
