"""How far an objective moves within an input set: what attacks reach, and for linear objectives what is proved.

    linear   the largest c . y + w . x over the set, y the outputs and x the states
    l1       the smallest |x|_1 (paper 4.4)
    state    the largest |x - x0|_2^2, x0 the state of the sample (paper 7.3.2)

Candidates come from the LP relaxation and from signed gradient descent. What is reached is always the value of the
model itself at a point inside the set; where the objective reads outputs alone, of the original network.

The printed relaxation of `state` is vacuous: its value is the same whatever the set's centre, and every u is optimal.
Here LPs with the cost -2 (x^t - x0) are repeated, x^{t+1} the solution, from several random signs: the objective of the
relaxation never decreases (docs/mathematics.md, section 7.9).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from idl_audit.implicit.composition import add, compose
from idl_audit.implicit.linear_maps import LinearMap, Selection, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.search.fast_gradients import CheckedSearch, searched
from idl_audit.search.judge import Judge
from idl_audit.search.linprog import Outcome
from idl_audit.search.pgd import Objective as Descent
from idl_audit.search.pgd import Units, sign_descent
from idl_audit.search.relaxation import TriangleRelaxation
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray
from idl_audit.values.budget import UNLIMITED, Budget
from idl_audit.values.errors import BudgetError, MemoryLimitError, OptionError, SolverError
from idl_audit.values.input_sets import InputSet
from idl_audit.values.network import Network
from idl_audit.values.query import Query
from idl_audit.values.rounding import TINY, gamma, up

SEARCHES: Final = ("pgd", "lp")
"""What looks for points, in the order of use."""

RANDOM_STARTS: Final = 4
DESCENT_STEPS: Final = 40
SEARCH_SHARE: Final = 0.9
"""Of the time, for searches; the rest is for what is proved without a solver."""
LP_ROUNDS: Final = 20
"""LPs from one random sign, at most; they end as soon as the objective stays."""


SMALLEST, LARGEST = 1e-30, 1e30
"""Of the weights of an objective."""


@dataclass(frozen=True, eq=False)
class Objective:
    """What is to be made large or small, as a function of v: some of the outputs y and the states x."""

    kind: Literal["linear", "l1", "state"]
    observed: ImplicitModel
    """The model whose outputs are v."""
    weights: FloatArray
    """For `linear`: one number for each entry of v."""
    reads_states: bool = True
    """Whether v holds states; otherwise it is y, and the original network can say it."""

    @property
    def sense(self) -> Literal["largest", "smallest"]:
        """Which end of the objective is looked for."""
        return "smallest" if self.kind == "l1" else "largest"

    def value(self, v: FloatArray, at_sample: FloatArray) -> FloatArray:
        """Return the objective for each row of v, shape (m, r) -> (m,)."""
        if self.kind == "linear":
            return np.asarray(v @ self.weights)
        return np.asarray(np.abs(v).sum(axis=1) if self.kind == "l1" else ((v - at_sample) ** 2).sum(axis=1))

    def slope(self, v: FloatArray, at_sample: FloatArray) -> FloatArray:
        """Return the derivative of what is minimised (the objective, or minus it) by v, shape (m, r)."""
        if self.kind == "linear":
            return np.broadcast_to(-self.weights, v.shape)
        return np.sign(v) if self.kind == "l1" else -2.0 * (v - at_sample)


def linear(model: ImplicitModel, of_outputs: FloatArray, of_states: FloatArray | None = None) -> Objective:
    """Return c . y + w . x.

    Args:
        model: the model in data units.
        of_outputs: c, shape (q,).
        of_states: w, shape (n,), states newest block first; None stands for zeros.

    Raises:
        OptionError: where a length is wrong, a number is not finite or of no ordinary size, or all are 0.
    """
    for name, given, size in (
        ("outputs", of_outputs, model.n_outputs),
        ("states", np.zeros(model.n_states) if of_states is None else of_states, model.n_states),
    ):
        if given.shape != (size,):
            raise OptionError(f"the objective has {given.size} weights of {name}, and the model {size} {name}")
        if not np.isfinite(given).all():
            raise OptionError(f"the objective's weights of {name} must be finite numbers")
        sizes = np.abs(given[given != 0])
        if not ((sizes >= SMALLEST) & (sizes <= LARGEST)).all():
            raise OptionError(
                f"the objective's weights of {name} go from {sizes.min():g} to {sizes.max():g}; give 0 or numbers from "
                f"{SMALLEST:g} to {LARGEST:g}, whose products float32 holds: divide all of them by one number"
            )
    if not of_outputs.any() and (of_states is None or not of_states.any()):
        raise OptionError("the objective's weights are all 0; give at least one")
    if of_states is None or not of_states.any():
        return Objective("linear", model, of_outputs, reads_states=False)
    return Objective("linear", _with_states(model, outputs=True), np.concatenate([of_outputs, of_states]))


def l1(model: ImplicitModel) -> Objective:
    """Return |x|_1, to be made small."""
    return _of_states("l1", model)


def state_discrepancy(model: ImplicitModel) -> Objective:
    """Return |x - x0|_2^2, to be made large."""
    return _of_states("state", model)


def _of_states(kind: Literal["l1", "state"], model: ImplicitModel) -> Objective:
    if not model.n_states:
        raise OptionError(f"the model has no states, so that the objective {kind} says nothing of it")
    return Objective(kind, _with_states(model, outputs=False), np.zeros(model.n_states))


def _with_states(model: ImplicitModel, *, outputs: bool) -> ImplicitModel:
    """Return the model whose outputs are (y, x), or x alone; exact, or with what rounding did accounted for."""
    first, n = (model.n_outputs if outputs else 0), model.n_states
    size = first + n
    maps: dict[int, LinearMap] = {}
    for k, block in enumerate(model.blocks):
        index = np.full(size, -1, np.int64)
        index[first + model.offsets[k] : first + model.offsets[k + 1]] = np.arange(block.size)
        own: LinearMap = Selection(index=index, size_in=block.size)
        if outputs and k in model.output.states:
            own = add(_padded(model.output.states[k], size), own)
        maps[k] = own
    reads = model.output.input if outputs else None
    constant = np.concatenate([model.output.constant if outputs else np.zeros(0), np.zeros(n)])
    error = model.output.constant_error if outputs else 0.0
    row = Affine(maps, None if reads is None else _padded(reads, size), constant, error)
    return replace(model, output=row, output_shape=(size,))


def _padded(linear_map: LinearMap, size: int) -> LinearMap:
    """Return the map with rows of zeros below."""
    index = np.where(np.arange(size) < linear_map.n_out, np.arange(size), -1)
    sparse = Sparse(matrix=linear_map.to_sparse(), relative=linear_map.relative, slack=linear_map.slack)
    return compose(Selection(index=index, size_in=linear_map.n_out), sparse)


@dataclass(frozen=True)
class Measured:
    """What was found for one sample and one set."""

    at_sample: float
    """The objective at the sample itself."""
    reached: float
    """The largest or smallest value that was found in the set."""
    proved: float | None
    """No point of the set goes beyond it; None where nothing is proved."""
    point: Float32Array
    """Where it is reached, shape (p,), inside the set."""
    method: str | None
    """What found the point; None where no point beats the sample."""
    reason: Outcome | None = None
    """Why the LP gave nothing, where it did not."""
    seconds: float = 0.0


class Measurement:
    """One objective of one model, measured over one set after the other."""

    def __init__(self, model: ImplicitModel, network: Network, objective: Objective, *, seed: int = 0) -> None:
        """Keep the model in data units and the original network, which gives the value of outputs."""
        self._model, self._network, self._objective, self._seed = model, network, objective, seed

    def measure(
        self,
        sample: FloatArray,
        inputs: InputSet,
        *,
        searches: tuple[str, ...] = SEARCHES,
        budget: Budget = UNLIMITED,
    ) -> Measured:
        """Return how far the objective moves within one set.

        Args:
            sample: shape (p,), inside the set.
            inputs: a box or U_card; bounds and LPs are those of the box around it.
            searches: some of SEARCHES.
            budget: what it may cost; a search that is not ended in time gives what it has found.
        """
        start = budget.clock()
        run = _Run(self, sample, inputs, budget)
        for name in SEARCHES:
            if name in searches and not run.budget.out_of_time:
                try:
                    {"pgd": run.by_descent, "lp": run.by_programs}[name]()
                except BudgetError:
                    run.reason = Outcome.TIME_LIMIT
                except SolverError:
                    run.reason = Outcome.FAILED
                except (MemoryError, MemoryLimitError):
                    run.reason = Outcome.MEMORY_LIMIT
            elif name in searches:
                run.reason = Outcome.TIME_LIMIT
        return run.result(budget.clock() - start)

    @property
    def parts(self) -> tuple[ImplicitModel, Network, Objective, int]:
        """The model, the network, the objective, the seed."""
        return self._model, self._network, self._objective, self._seed


@dataclass(frozen=True, eq=False)
class _Farthest(Query):
    """What the judge is asked for: the point where an objective is smallest, or largest; it is never enough."""

    objective: Objective
    at_sample: FloatArray

    @property
    def sign(self) -> float:
        """What is minimised is sign times the objective."""
        return 1.0 if self.objective.sense == "smallest" else -1.0

    def holds(self, outputs: FloatArray) -> BoolArray:
        """Return False for each row."""
        return np.zeros(len(outputs), np.bool_)

    def distance(self, outputs: FloatArray) -> FloatArray:
        """Return sign times the objective for each row."""
        return self.sign * self.objective.value(outputs, self.at_sample)


class _Run:
    """The searches over one set, and the best point so far."""

    def __init__(self, measurement: Measurement, sample: FloatArray, inputs: InputSet, budget: Budget) -> None:
        self._model, network, self._objective, seed = measurement.parts
        self._inputs, self._sample = inputs, sample
        self._rng = np.random.default_rng(seed)
        self.budget, self._whole = budget.part(SEARCH_SHARE), budget
        self.reason: Outcome | None = None
        self._interval = Interval.of_boxes(inputs.hull)
        self._observed = self._objective.observed
        self._at_sample = self._observed(sample[None])[0]
        asked = _Farthest(inputs, (), self._objective, self._at_sample)
        by = network
        if self._objective.reads_states:
            by = lambda points: self._observed(points.astype(np.float64))  # noqa: E731
        self._judge, self._sign = Judge.of(self._model, by, asked, budget), asked.sign
        own = sample.astype(inputs.hull.point_type).astype(np.float32)
        self._start = float(self._objective.value(np.asarray(by(own[None]), np.float64), self._at_sample)[0])
        self._best, self._point = self._start, own
        self._method: str | None = None
        if not bool(inputs.contains(own[None])[0]):  # rounding moves it out of the set
            self._best = np.inf if self._objective.sense == "smallest" else -np.inf
        self._bounds: StateBounds | None = None
        self._proved: float | None = None

    def _offer(self, points: FloatArray, method: str) -> None:
        """Keep the best of some points, by the original network where the objective reads outputs alone."""
        self._judge.propose(points)
        found = self._judge.best
        if found is not None and np.isfinite(found.margin) and found.margin < self._sign * self._best:
            self._best, self._point, self._method = self._sign * found.margin, found.point, method

    def by_descent(self) -> None:
        """Signed gradient descent from the sample and from random points."""
        units = Units.of_float32(self._inputs.hull)
        if (units.lo > units.hi).any():
            return
        model = CheckedSearch(searched(self._observed), self.budget.check)
        objective, at = self._objective, self._at_sample
        starts = self._rng.random((RANDOM_STARTS + 1, units.lo.size))
        starts[0] = units.of_points(self._sample)

        def value(v: FloatArray) -> FloatArray:
            found = self._sign * objective.value(v, at)
            return np.where(np.isnan(found), np.inf, found)

        descent = Descent(value, lambda v: objective.slope(v, at))
        if objective.kind == "state":  # its slope is 0 at the sample itself
            starts = starts[1:]
        best, _ = sign_descent(model, units, starts, descent, steps=DESCENT_STEPS)
        self._offer(units.points(best), "pgd")

    def by_programs(self) -> None:
        """Linear programs: one for a linear objective and for l1, a sequence from random signs for `state`."""
        bounds = self.state_bounds
        relaxation = TriangleRelaxation(self._observed, self._interval, bounds, budget=self.budget)
        if self._objective.kind != "state":
            self._solve(relaxation, self._functional(bounds))
            return
        for _ in range(RANDOM_STARTS):
            direction = self._rng.choice([-1.0, 1.0], self._at_sample.size)
            best = -np.inf
            for _ in range(LP_ROUNDS):
                states = self._solve(relaxation, -direction)
                if states is None:
                    return
                reached = float(((states - self._at_sample) ** 2).sum())
                if not reached > best * (1 + 1e-9):
                    break
                best, direction = reached, 2.0 * (states - self._at_sample)

    def _solve(self, relaxation: TriangleRelaxation, functional: FloatArray) -> FloatArray | None:
        """Solve one LP, offer its point, keep its bound; return the relaxation's x, None where there is no answer."""
        self.budget.check()
        answer = relaxation.minimise(functional, budget=self.budget)
        if answer.outcome is not Outcome.OPTIMAL or answer.point is None:
            self.reason = answer.outcome
            return None
        self._offer(answer.point, "lp")
        if self._objective.kind != "state":
            self._note_bound(answer.lower)
        return answer.states

    @property
    def state_bounds(self) -> StateBounds:
        """Backward bounds of all states, computed once."""
        if self._bounds is None:
            self._bounds = backward_state_bounds(self._model, self._interval, check=self.budget.check)
        return self._bounds

    def _functional(self, bounds: StateBounds) -> FloatArray:
        """Return the linear functional of v that is minimised.

        For l1 it is the sum of |x_i| over the states whose sign is known, no more than |x|_1 everywhere.
        """
        if self._objective.kind == "linear":
            return -self._objective.weights
        parts = [bounds.x[k] for k in range(len(self._observed.blocks))]
        lo, hi = (
            np.concatenate([side[0] for side in sides]) for sides in zip(*((x.lo, x.hi) for x in parts), strict=True)
        )
        return np.where(lo >= 0, 1.0, np.where(hi <= 0, -1.0, 0.0))

    def _note_bound(self, lower: float) -> None:
        """Keep a proved lower bound of what is minimised."""
        if not np.isfinite(lower):
            return
        bound = self._sign * lower
        if self._proved is None or self._sign * bound > self._sign * self._proved:
            self._proved = bound

    def _prove(self) -> None:
        """Prove what can be proved without a solver: backward bounds; for `state`, from the states' intervals."""
        bounds = self.state_bounds
        if self._objective.kind != "state":
            seeds, check = self._functional(bounds)[None], self.budget.check
            self._note_bound(
                float(output_lower_bounds(self._observed, self._interval, bounds, seeds, check=check)[0, 0])
            )
            return
        error = self._state_error()
        farthest = np.concatenate(
            [
                np.maximum(x.hi[0] - at, at - x.lo[0])
                for x, at in zip(
                    (bounds.x[k] for k in range(len(self._observed.blocks))),
                    np.split(self._at_sample, np.cumsum([b.size for b in self._observed.blocks])[:-1]),
                    strict=True,
                )
            ]
        )
        total = float((up(farthest + error) ** 2).sum())
        self._note_bound(-total * (1 + 4 * gamma(farthest.size + 8)) - TINY)  # squares underflow

    def _state_error(self) -> FloatArray:
        """Return how far the state of the sample, as computed, may be from the exact one."""
        at = self._sample[None]
        known = backward_state_bounds(self._model, Interval(at, at), check=self.budget.check)
        x = [known.x[k] for k in range(len(self._observed.blocks))]
        lo, hi = (np.concatenate([side[0] for side in sides]) for sides in zip(*((v.lo, v.hi) for v in x), strict=True))
        return np.asarray(up(np.maximum(hi - self._at_sample, self._at_sample - lo)))

    def result(self, seconds: float) -> Measured:
        """Return what is known now, with what can be proved in the time that is left."""
        self.budget = self._whole
        if self._model.is_well_posed:
            with suppress(BudgetError):
                self._prove()
        return Measured(
            at_sample=self._start,
            reached=self._best if np.isfinite(self._best) else self._start,
            proved=self._proved,
            point=self._point,
            method=self._method,
            reason=self.reason,
            seconds=seconds,
        )
