"""Leaves of a branching tree, by linear programs: exact where every kinked state has a phase.

See docs/mathematics.md, sections 7.5 and 8.4.

Where all states are linear over a leaf, the relaxation is the leaf itself: its optimum is the least value of the
functional there, and its point is where the network attains it. The duals prove that bound; for a leaf without points,
a dual ray lam does, by p(lam; 0, 0) < 0: 0 is then bounded below by a positive number over all points of the leaf.
Both come out as split multipliers, the form in which `branching` records a leaf, evaluated by the certificate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.intervals import affine_interval
from idl_audit.proof.leaves import chosen_multipliers
from idl_audit.proof.lp_chain import given
from idl_audit.proof.sums import Sum
from idl_audit.search.linprog import Outcome
from idl_audit.search.relaxation import Solved, outweighing
from idl_audit.search.rows_together import RowsTogether, relaxation_of
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.budget import UNLIMITED, Budget, Pace
from idl_audit.values.check import Check
from idl_audit.values.query import Conjunction


@dataclass(frozen=True)
class LeafAnswer:
    """What the linear program of a leaf came to."""

    outcome: Outcome
    lower: float
    """Proved lower bound of seed . y over the leaf, by `splits`; -inf where there is none."""
    is_empty: bool
    """Whether a dual ray proves that the leaf has no points: `lower` is then whatever was wanted, or more."""
    splits: dict[int, Float32Array]
    """Block -> split multipliers, shape (n,), for `prove_leaves(..., slopes={}, splits)`; empty without a bound."""
    point: FloatArray | None
    """u, shape (p,): where the relaxation over the leaf is least; a candidate for a counterexample."""
    weights: Float32Array | None = None
    """Of several rows, (r,): the functional that `lower` is of."""


class LeafProgram:
    """The linear program of one tree: every leaf changes bounds of columns and rows, and starts warm from the last."""

    def __init__(
        self,
        model: ImplicitModel,
        inputs: Interval,
        bounds: StateBounds,
        budget: Budget = UNLIMITED,
        together: Conjunction | None = None,
    ) -> None:
        """Build the program from proved bounds of all states over the box of the tree; of several rows `together`."""
        self._model, self._inputs, self._together = model, inputs, together
        self._relaxation = relaxation_of(model, inputs, bounds, together, budget=budget)
        self._largest = cache(lambda: affine_interval(model.output, bounds.x, inputs).largest[0])
        self._proofs = Pace()

    def solve(
        self, leaf: StateBounds, seed: FloatArray, *, wanted: float = 0.0, budget: Budget = UNLIMITED
    ) -> LeafAnswer:
        """Return the proved least value of seed . y over a leaf, and where the linear program attains its own.

        Args:
            leaf: bounds of every z over the leaf, arrays with a batch axis of 1, each within those of the tree; the
                phase z >= 0 is lo = 0, z <= 0 is hi = 0.
            seed: shape (q,).
            wanted: for a leaf without points: the bound to be proved, something above it comes back. Of rows together
                the program weighs them, and both are those of their sum.
            budget: what it may cost.

        Raises:
            BudgetError: where the time is over before a bound is proved.
        """
        model = self._model
        bounds = StateBounds.of_pre_activations(model.blocks, leaf.z)
        self._relaxation.restrict(bounds)
        seconds, weights = budget.before(self._proofs.seconds).left, None
        if isinstance(self._relaxation, RowsTogether):
            solved, mu = self._relaxation.solve_together(seconds=seconds)
            weights, solved = _of_sum_one(solved, mu, self._relaxation.count)
            seed, wanted = self._sum(weights)
        else:
            solved = self._relaxation.solve(seed, seconds=seconds)
        lam, is_empty = solved.multipliers, solved.outcome is Outcome.INFEASIBLE
        proved = partial(self._as_splits, bounds, budget.check)
        with self._proofs.unit(1, budget):
            if is_empty and lam is not None:
                lam = outweighing(lambda weight, ray: proved(weight * seed, ray)[0], lam, wanted)
            lower, splits = (-np.inf, {}) if lam is None else proved(seed, lam)
        if is_empty and not lower > wanted:
            return LeafAnswer(solved.outcome, -np.inf, False, {}, None, weights)
        point = None if solved.columns is None else self._relaxation.form.inputs_of(solved.columns)
        return LeafAnswer(solved.outcome, lower, is_empty, splits, point, weights)

    def _sum(self, weights: Float32Array) -> tuple[FloatArray, float]:
        """Return the sum of rows as a functional of y, and the bound of it that refutes them."""
        assert self._together is not None
        own = Sum.of(self._together, weights.astype(np.float64))
        return own.seed, -own.shift(self._largest)

    def _as_splits(
        self, bounds: StateBounds, check: Check, seed: FloatArray, lam: FloatArray
    ) -> tuple[float, dict[int, Float32Array]]:
        """Return a proved bound by one multiplier a state, and these as differences from the usual lines' in float32.

        lam = v s - split with s the usual slope for the sign of v; the bound is that of the rounded split.
        """
        model, splits = self._model, dict[int, Float32Array]()
        choose, by_lines = given(model, lam[None]), chosen_multipliers(model, bounds, {}, {})

        def rounded(k: int, v: FloatArray) -> FloatArray:
            usual = by_lines(k, v)
            with np.errstate(over="ignore"):
                split = np.asarray(usual - choose(k, v)).astype(np.float32)
            split = np.where(np.isfinite(split), split, np.float32(0.0))
            splits[k] = split[0, 0].copy()
            return usual - split

        functionals = Functionals.of_outputs(model, seed[None])
        lower = float(lower_bound(model, self._inputs, bounds, functionals, rounded, check=check)[0, 0])
        return lower, splits


def _of_sum_one(solved: Solved, mu: FloatArray | None, count: int) -> tuple[Float32Array, Solved]:
    """Return weights of sum 1, equal ones where the program gives none, and the answer with multipliers for these."""
    total = 0.0 if mu is None else float(mu.sum())
    if mu is None or not total > 0:
        return np.full(count, 1 / count, np.float32), solved
    lam = None if solved.multipliers is None else solved.multipliers / total
    return (mu / total).astype(np.float32), replace(solved, multipliers=lam)
