"""Two networks over one set: whether both give one class everywhere, and how far apart their outputs can be.

certified: no point of the set has two classes, in exact arithmetic. falsified: a float32 point of the set at which the
two original networks give different ones. How far apart they are is a proved upper bound for each output, and the
largest difference that the networks themselves showed.

Bounds come from both forms of the pair (`implicit.pair`), each where it is the tighter one; trees and attacks from
`apart`, whose states branching knows.

Elsewhere: relational verification, differential verification, equivalence, top-1 agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np

from idl_audit.decide.ladder import METHODS, Options, climbed, decide_query
from idl_audit.decide.proofs import Recorded, proof_of
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.pair import FORMS, Form, equal_outputs, has_differences, paired_model
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.check import check
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.proof.proof import Proof, trivial
from idl_audit.search.fast_gradients import CheckedSearch, searched
from idl_audit.search.judge import Found, Judge, inside_of
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.disagreement import Disagreement, farther
from idl_audit.values.errors import BudgetError, MemoryLimitError, UnsupportedModelError
from idl_audit.values.margins import predictions
from idl_audit.values.network import Network
from idl_audit.values.verdicts import Reason, Verdict

MOST_RIVALS: Final = 5
"""Rivals of the class, of each network, that the search for a boundary aims at."""
MOST_OUTPUTS: Final = 16
"""Outputs whose difference is looked for."""
STEPS: Final = 12
HALVINGS: Final = 40
"""Of a way from the sample to a point of another class: float32 has no more points on it."""
BOUNDS_SHARE: Final = 0.3
"""Of the time, for each form's bounds."""
SPARE: Final = 1e-9
LEAST_LIMIT: Final = 2.0**-900
"""A limit of a certificate is a little above what was proved: below it is to be proved, in any order of sums."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two networks in data units."""

    first: ImplicitModel
    second: ImplicitModel
    network: Network
    """(m, p) -> (m, 3 q): y and y' by the original networks, and y - y' by them or, where a last operator is left out
    of the models, by the models."""
    is_one: bool = False
    """Whether both are the same file, read in the same way: one function in exact arithmetic."""
    paired: Callable[[Form], ImplicitModel] | None = None
    """What makes the pair in a form; None: it is made of the two models."""

    @cached_property
    def models(self) -> dict[Form, ImplicitModel]:
        """The forms that the pair has."""
        forms = FORMS if has_differences(self.first, self.second) else FORMS[:1]
        make = self.paired or (lambda form: paired_model(self.first, self.second, form))
        return {form: make(form) for form in forms}

    @property
    def apart(self) -> ImplicitModel:
        """The form that searches are made in."""
        return self.models["apart"]

    @property
    def q(self) -> int:
        """Outputs of each."""
        return self.first.n_outputs

    @property
    def tightest(self) -> Form:
        """The form whose states tell most of equal parts."""
        return list(self.models)[-1]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a certificate is made of."""

    form: Form
    proof: Proof


@dataclass(frozen=True, eq=False)
class Compared:
    """What is known of two networks over one set around a sample."""

    classes: tuple[int, int]
    """Of both at the sample."""
    verdict: Verdict | None
    """Whether they agree on the class everywhere; None where outputs make no classes."""
    method: str | None = None
    reason: Reason | None = None
    found: Found | None = None
    """Of two classes: where."""
    reached: float = 0.0
    """The largest |y_i - y'_i| that was seen."""
    limits: FloatArray = field(default_factory=lambda: np.zeros(0))
    """|y_i - y'_i| is below it (0: equal) at every point of the set, (q,); infinite where nothing is proved."""
    seconds: float = 0.0
    agreement: Evidence | None = None
    possible: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    """The classes that the certificate tells apart, of either network."""
    difference: Evidence | None = None

    @property
    def proved(self) -> float | None:
        """The largest limit; None where one is not finite."""
        largest = float(self.limits.max(initial=0.0))
        return largest if np.isfinite(largest) else None


def compare_at(pair: Pair, sample: FloatArray, inputs: Box, options: Options, *, classes: bool = True) -> Compared:
    """Return what is known of two networks over one box around a sample.

    Args:
        pair: the networks, with the same inputs and outputs.
        sample: shape (p,), inside the box.
        inputs: the box.
        options: methods, time and chance; with `record`, certificates are made of what is proved.
        classes: whether the largest output is a class.
    """
    run = _Run(pair, sample, inputs, options, options.budget)
    start = run.budget.clock()
    found = run.compared(classes=classes)
    return replace(found, seconds=run.budget.clock() - start)


@dataclass(eq=False)
class _Run:
    """One box."""

    pair: Pair
    sample: FloatArray
    inputs: Box
    options: Options
    budget: Budget

    def compared(self, *, classes: bool) -> Compared:
        own = self.sample.astype(self.inputs.point_type).astype(np.float32)[None]
        outputs = np.asarray(self.pair.network(own), np.float64)
        q = self.pair.q
        at = int(predictions(outputs[:, :q])[0]), int(predictions(outputs[:, q : 2 * q])[0])
        self.reached, self.limits = 0.0, np.where(self._equal & self.is_well_posed, 0.0, np.inf)
        self.bounds = dict(self._state_bounds()) if self.is_well_posed and not self._equal.all() else {}
        difference = self._bound_differences()
        self._notice(own, outputs)
        with suppress(BudgetError, MemoryLimitError, UnsupportedModelError):  # perhaps no state is found somewhere
            self._search_differences()
        found = self._agreement(at) if classes else Compared(at, None)
        return replace(found, reached=self.reached, limits=self.limits, difference=difference)

    @property
    def is_well_posed(self) -> bool:
        """Whether both have one state for every input: of others no proof speaks."""
        return self.pair.first.is_well_posed and self.pair.second.is_well_posed

    @cached_property
    def _equal(self) -> BoolArray:
        known = [equal_outputs(model) for model in self.pair.models.values()]
        return np.asarray(np.any([np.full(self.pair.q, self.pair.is_one), *known], axis=0))

    @property
    def _box(self) -> Interval:
        return Interval.of_boxes(self.inputs)

    def _state_bounds(self) -> Iterator[tuple[Form, StateBounds]]:
        """Yield bounds of all states in each form, as far as the time goes."""
        for form, model in reversed(list(self.pair.models.items())):  # differences first
            with suppress(BudgetError, MemoryLimitError, UnsupportedModelError):
                part = self.budget.part(BOUNDS_SHARE)
                yield (
                    form,
                    backward_state_bounds(
                        model, self._box, check=self.budget.check, tighten=part.check, max_bytes=self.budget.max_bytes
                    ),
                )

    def _lowers(self, form: Form, rows: FloatArray) -> FloatArray:
        """Return proved lower bounds of rows . (y, y', y - y'), (r,); -inf where there is no time."""
        if form not in self.bounds or not len(rows):
            return np.full(len(rows), -np.inf)
        try:
            model = self.pair.models[form]
            lower = output_lower_bounds(model, self._box, self.bounds[form], rows, check=self.budget.check)
            return np.asarray(lower[0])
        except (BudgetError, MemoryLimitError, UnsupportedModelError):
            return np.full(len(rows), -np.inf)

    # --- how far apart ------------------------------------------------------------------------------------------------

    def _bound_differences(self) -> Evidence | None:
        """Bound |y_i - y'_i| by each form; the certificate is of the form that bounds the largest better."""
        q = self.pair.q
        if self._equal.all():
            return Evidence(self.pair.tightest, trivial(0)) if self.options.record and self.is_well_posed else None
        unit = np.eye(3 * q)[2 * q :]
        best: tuple[float, Form] | None = None
        limits = {}
        for form in self.bounds:
            lower = self._lowers(form, np.concatenate([unit, -unit]))
            own = -np.minimum(lower[:q], lower[q:])
            own = np.where(np.isnan(own), np.inf, np.maximum(own, 0.0))
            limits[form] = np.where(equal_outputs(self.pair.models[form]), 0.0, own)
            largest = float(limits[form].max(initial=0.0))
            if np.isfinite(largest) and (best is None or largest < best[0]):
                best = largest, form
        for own in limits.values():
            self.limits = np.fmin(self.limits, own)
        if best is None or not self.options.record:
            return None
        form = best[1]
        equal = equal_outputs(self.pair.models[form])
        self.limits = np.where(equal, 0.0, limits[form] * (1 + SPARE) + LEAST_LIMIT)
        query = farther(self.inputs, self.limits, equal)
        proof = trivial(len(query.alternatives))
        if query.alternatives and check(self.pair.models[form], query, proof):
            return None
        return Evidence(form, proof)

    def _search_differences(self) -> None:
        """Look for large differences: signed steps up, and down, from the middle and from a random point."""
        q, box = self.pair.q, self.inputs
        model = CheckedSearch(searched(self.pair.apart), self.budget.check)
        middle = self.pair.apart(box.centre[None])[0, 2 * q :]
        outputs = np.argsort(-np.where(np.isfinite(self.limits), self.limits, np.abs(middle)), kind="stable")
        unit = np.eye(3 * q)[2 * q :][outputs[:MOST_OUTPUTS]]
        rows = np.concatenate([unit, -unit] * 2)
        rng = np.random.default_rng(self.options.seed)
        points = np.repeat(box.centre[None], len(rows), axis=0)
        random = box.lo + rng.random((len(rows) // 2, box.size)) * (box.hi - box.lo)
        points[len(rows) // 2 :] = random
        self._show(self._ascended(model, points, lambda y: -rows))

    def _ascended(
        self, model: CheckedSearch, points: FloatArray, weights: Callable[[FloatArray], FloatArray]
    ) -> FloatArray:
        """Return the points of signed steps down the weights' slopes, all that were passed."""
        width, passed = self.inputs.hi - self.inputs.lo, []
        for size in np.geomspace(1.0, 0.05, STEPS):
            _, slope = model.slopes(points, weights)
            points = np.clip(points - size * width * np.sign(slope), self.inputs.lo, self.inputs.hi)
            passed.append(points)
        return np.concatenate(passed[-3:])

    def _show(self, points: FloatArray) -> tuple[Float32Array, FloatArray]:
        """Ask both networks about points put into the set, and note how far apart they are there."""
        inside = inside_of(self.inputs, points)
        if not len(inside):
            return inside, np.zeros((0, 3 * self.pair.q))
        outputs = np.asarray(self.pair.network(inside), np.float64)
        self._notice(inside, outputs)
        return inside, outputs

    def _notice(self, points: Float32Array, outputs: FloatArray) -> None:
        apart = np.abs(outputs[self.inputs.contains(points), 2 * self.pair.q :])
        self.reached = max(self.reached, float(np.max(apart, where=np.isfinite(apart), initial=0.0)))

    # --- one class ----------------------------------------------------------------------------------------------------

    def _agreement(self, at: tuple[int, int]) -> Compared:
        """Decide whether both give one class everywhere."""
        q = self.pair.q
        own = self.sample.astype(self.inputs.point_type).astype(np.float32)
        reference = max(at[0], 0)
        whole = Disagreement.of(self.inputs, q, reference, range(q), range(q))
        judge = Judge.of(self.pair.apart, self.pair.network, whole, self.budget)
        if at[0] != at[1]:
            judge.propose(own)
            if judge.has_won:
                return Compared(at, Verdict.FALSIFIED, "sample", found=judge.best)
            return Compared(at, Verdict.UNKNOWN, reason=Reason.ATTACKS_FAILED)
        if not self.is_well_posed:
            return Compared(at, Verdict.UNKNOWN, reason=Reason.NO_UNIQUENESS_PROOF)
        if self._equal.all():
            evidence = Evidence(self.pair.tightest, trivial(0)) if self.options.record else None
            return Compared(at, Verdict.CERTIFIED, "equal", agreement=evidence, possible=((reference,), (reference,)))
        possible = self._possible(reference)
        query = Disagreement.of(self.inputs, q, reference, *possible)
        lowers = {form: self._refuted(form, query) for form in self.bounds}
        if lowers and all(np.any([own[k] > 0 for own in lowers.values()]) for k in range(len(query.alternatives))):
            found = Compared(at, Verdict.CERTIFIED, "linear", possible=possible)
            return self._certified(found, query, None, lowers)
        judge = Judge.of(self.pair.apart, self.pair.network, query, self.budget)
        if self._cross(judge, reference):
            return Compared(at, Verdict.FALSIFIED, "crossing", found=judge.best)
        return self._climb(at, query, possible, judge, lowers)

    def _possible(self, c: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the classes that linear bounds leave to either network."""
        q = self.pair.q
        unit = np.eye(3 * q)
        rows = np.concatenate([unit[c] - unit[:q], unit[q + c] - unit[q : 2 * q]])
        lower = np.full(2 * q, -np.inf)
        for form in self.bounds:
            lower = np.fmax(lower, self._lowers(form, rows))
        left = [np.flatnonzero(~(own > 0)) for own in (lower[:q], lower[q:])]
        first, second = (tuple(sorted({c, *map(int, own)})) for own in left)
        return first, second

    def _refuted(self, form: Form, query: Disagreement) -> FloatArray:
        """Return the best lower bound of each alternative's rows, (a,)."""
        sizes = [len(one.rows) for one in query.alternatives]
        lower = self._lowers(form, np.concatenate([one.rows for one in query.alternatives]))
        parts = np.split(np.where(np.isnan(lower), -np.inf, lower), np.cumsum(sizes)[:-1])
        return np.array([part.max() for part in parts])

    def _cross(self, judge: Judge, c: int) -> bool:
        """Look for points of another class of either network, and on the ways there for points of two classes."""
        q = self.pair.q
        unit = np.eye(3 * q)
        middle = self.pair.apart(self.inputs.centre[None])[0]
        rows = []
        for start in (0, q):
            order = np.argsort(-middle[start : start + q], kind="stable")
            rows += [unit[start + c] - unit[start + j] for j in order[: MOST_RIVALS + 1] if j != c]
        with suppress(BudgetError, MemoryLimitError, UnsupportedModelError):
            model = CheckedSearch(searched(self.pair.apart), self.budget.check)
            weights = np.stack(rows)
            points = np.repeat(self.inputs.centre[None], len(rows), axis=0)
            inside, outputs = self._show(self._ascended(model, points, lambda y: weights))
            if len(inside) and judge.propose(inside):
                return True
            return self._halve(judge, c, inside[self._leaves(outputs, c)])
        return judge.has_won

    def _leaves(self, outputs: FloatArray, c: int) -> BoolArray:
        q = self.pair.q
        return np.asarray((predictions(outputs[:, :q]) != c) | (predictions(outputs[:, q : 2 * q]) != c))

    def _halve(self, judge: Judge, c: int, ends: Float32Array) -> bool:
        """Halve the ways from the sample to points of another class, until on one of them the classes differ."""
        far = ends.astype(np.float64)
        near = np.repeat(inside_of(self.inputs, self.sample)[:1].astype(np.float64), len(far), axis=0)
        if len(near) < len(far):
            return False
        for _ in range(HALVINGS if len(far) else 0):
            self.budget.check()
            middle = (near + far) / 2
            inside, outputs = self._show(middle)
            if len(inside) < len(middle):
                return judge.has_won
            if judge.query.holds(outputs).any() and judge.propose(inside[judge.query.holds(outputs)]):
                return True
            left = self._leaves(outputs, c)[:, None]
            far, near = np.where(left, middle, far), np.where(left, near, middle)
        return judge.has_won

    def _climb(
        self,
        at: tuple[int, int],
        query: Disagreement,
        possible: tuple[tuple[int, ...], tuple[int, ...]],
        judge: Judge,
        lowers: dict[Form, FloatArray],
    ) -> Compared:
        """Climb the ladder with the pair apart."""
        asked = self.options.methods
        names = tuple(name for name in climbed(self.pair.apart, query, asked) if name in METHODS)
        options = replace(self.options, methods=names)
        result = decide_query(
            self.pair.apart, self.pair.network, query, options, budget=self.budget, centre=self.sample
        )
        found = Compared(at, result.verdict, result.method, result.reason, result.found, possible=possible)
        if result.verdict is Verdict.CERTIFIED:
            return self._certified(replace(found, found=None), query, result.recorded, lowers)
        return found if result.verdict is Verdict.FALSIFIED else replace(found, found=None)

    def _certified(
        self, found: Compared, query: Disagreement, recorded: Recorded | None, lowers: dict[Form, FloatArray]
    ) -> Compared:
        """Return it with a proof that stands alone, where one is asked for and found."""
        if not self.options.record:
            return found
        for form, own in lowers.items():
            proof = trivial(len(query.alternatives))
            if (own > 0).all() and not check(self.pair.models[form], query, proof):
                return replace(found, agreement=Evidence(form, proof))
        alone = proof_of(self.pair.apart, self.pair.network, query, recorded, budget=self.options.budget)
        return found if alone is None else replace(found, agreement=Evidence("apart", alone))
