"""Verdicts over what a perturbation makes of a sample: a union of families, decided piece by piece.

What is proved is about all real parameters, over the model with the family in front (`implicit.front`). What is found
is a choice of parameters t: the network is asked about the float32 numbers next to the member u(t), and interval
arithmetic about u(t) itself, which lies in the set exactly; both must err.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from idl_audit.decide.ladder import (
    METHODS,
    Options,
    Result,
    Sample,
    climbed,
    decide_sample,
    decide_together,
    samples_at_once,
)
from idl_audit.decide.proofs import Recorded, proof_of
from idl_audit.decide.rotated import agreeing, decide_rotated
from idl_audit.implicit.front import behind, moving_in, with_family
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.exact.point import ExactNetwork, Opinion
from idl_audit.proof.proof import Proof
from idl_audit.search.branching import Watch
from idl_audit.search.judge import Found
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.families import Family
from idl_audit.values.network import Network
from idl_audit.values.perturbations import Perturbed, Piece
from idl_audit.values.query import Misclassification, Query
from idl_audit.values.verdicts import Reason, Verdict


@dataclass(frozen=True, eq=False)
class Question:
    """One piece of a set as a question about what moves in it."""

    number: int
    """Of the piece."""
    piece: Piece
    model: ImplicitModel
    """Reads what moves."""
    network: Network
    """The network at the float32 numbers next to the members."""

    @classmethod
    def of(cls, model: ImplicitModel, network: Network, number: int, piece: Piece) -> Question:
        """Put a family in front of a model and its network; over boxes both are as they are."""
        if not isinstance(piece, Family):
            return cls(number, piece, model, network)

        def asked(points: Float32Array) -> FloatArray:
            return network(shown(piece, points))

        return cls(number, piece, with_family(model, piece), asked)

    @property
    def box(self) -> Box:
        """Of what moves."""
        return moving_in(self.piece)

    def rest(self, inputs: Perturbed) -> FloatArray:
        """Return what moves where nothing has moved."""
        return np.zeros(self.box.size) if isinstance(self.piece, Family) else inputs.around.sample

    def confirm(self, exact: ExactNetwork) -> Callable[[Query, Float32Array], Opinion]:
        """Return what tells, in exact arithmetic, whether the member itself is a counterexample."""
        piece = self.piece
        if not isinstance(piece, Family):
            return exact

        def opinion(query: Query, point: Float32Array) -> Opinion:
            t = point.astype(np.float64)
            return exact.between(query, *piece.enclosed(t, t))

        return opinion

    def in_inputs(self, result: Result, inputs: Perturbed) -> Result:
        """Return a result whose point is an input, beside the parameters that it is made with."""
        if result.found is None:
            return replace(result, states=None)
        point = result.found.point
        values = inputs.values(self.number, point.astype(np.float64))
        made = shown(self.piece, point[None])[0] if isinstance(self.piece, Family) else point
        return replace(result, found=replace(result.found, point=made, parameters=values), states=None)


def shown(family: Family, points: Float32Array) -> Float32Array:
    """Return the float32 numbers next to the members with such parameters, (m, k) -> (m, p)."""
    return family.members(points).astype(np.float32)


def questions_of(model: ImplicitModel, network: Network, inputs: Perturbed) -> Iterator[Question]:
    """Yield the questions that a set falls into, one for each piece."""
    for number, piece in enumerate(inputs.pieces):
        yield Question.of(model, network, number, piece)


def methods_of(model: ImplicitModel, inputs: Perturbed, label: int, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the rungs that are climbed for the first piece. Raises OptionError where a method is not for it."""
    piece = inputs.pieces[0]
    return climbed(behind(model, piece), Misclassification(moving_in(piece), (), label), asked)


def decide_perturbed(
    model: ImplicitModel,
    network: Network,
    label: int,
    inputs: Perturbed,
    options: Options,
    watch: Watch | None = None,
    budget: Budget | None = None,
) -> Result:
    """Return the verdict of one sample over what a perturbation makes of it.

    Certified: no member of any piece has another class, in real arithmetic. Falsified: `found` has a float32 picture
    that the network misclassifies, whose parameters are `found.parameters`.

    Args:
        model: the implicit model in data units, feed-forward, with at least two outputs.
        network: the original network in data units.
        label: the right class.
        inputs: the set.
        options: the rungs and their limits.
        watch: told the share of the current tree that is proved.
        budget: what all pieces together may cost; that of the options where it is left out.

    Raises:
        UnsupportedModelError: where the model has loops.
        OptionError, DataError: where the perturbation makes no sense for the sample.
    """
    budget = options.budget if budget is None else budget
    if inputs.perturbation.rotation is not None:
        return decide_rotated(model, network, label, inputs, options, budget)
    start, exact = budget.clock(), ExactNetwork(model)
    decided: dict[int, Result] = {}
    waiting = list(questions_of(model, network, inputs))
    for some in _batches(waiting, samples_at_once(model) if len(waiting) > 1 else 1):
        firsts = _first(some, label, inputs, options, exact, budget)
        pairs = list(zip(some, firsts, strict=True))
        ended = [(question, first) for question, first in pairs if first is not None and first.verdict in _ENDS]
        for question, first in ended[:1] or pairs:
            own = replace(options, confirm=question.confirm(exact))
            result = first or decide_sample(
                question.model, question.network, question.rest(inputs), label, question.box, own, watch, budget
            )
            decided[question.number] = question.in_inputs(result, inputs)
            if result.verdict in _ENDS:
                return replace(_together([decided[question.number]]), seconds=budget.clock() - start)
        if budget.out_of_time:
            break
    found = _together([decided[k] for k in sorted(decided)])
    if len(waiting) > 1 and found.verdict not in _ENDS:
        found = replace(found, worst=_worst(decided, inputs))
    if len(decided) < len(waiting) and found.verdict is Verdict.CERTIFIED:
        found = replace(found, verdict=Verdict.UNKNOWN, reason=Reason.TIME_LIMIT, pieces=())
    return replace(found, seconds=budget.clock() - start)


def _worst(decided: Mapping[int, Result], inputs: Perturbed) -> tuple[float, ...]:
    """Return the parameters of the piece that is open, or is nearest to it."""

    def nearness(number: int) -> tuple[bool, float]:
        one = decided[number]
        return one.verdict is Verdict.CERTIFIED, min(one.lowers, default=-np.inf)

    return inputs.values(min(decided, key=nearness), inputs.around.sample)


LEAST_SECONDS: Final = 0.01
_ENDS: Final = (Verdict.FALSIFIED, Verdict.CLEAN_WRONG)


def _batches(questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    for at in range(0, len(questions), size):
        yield list(questions[at : at + size])


def _first(
    questions: Sequence[Question],
    label: int,
    inputs: Perturbed,
    options: Options,
    exact: ExactNetwork,
    budget: Budget,
) -> Sequence[Result | None]:
    """Return what the first rungs say of questions about one model, climbed by all of them at once."""
    if len(questions) == 1 or budget.out_of_time or any(isinstance(one.piece, Family) for one in questions):
        return [None] * len(questions)
    samples = [Sample(question.rest(inputs), label, question.box) for question in questions]
    own = replace(options, confirm=questions[0].confirm(exact), time_limit=max(budget.left, LEAST_SECONDS))
    return decide_together(questions[0].model, questions[0].network, samples, own)


def perturbed_proofs(
    model: ImplicitModel, network: Network, label: int, inputs: Perturbed, result: Result, budget: Budget
) -> tuple[Proof, ...] | None:
    """Return a proof for each piece of a certified set, checked; None where the budget does not suffice for one.

    Of rotations: for each interval of angles that was closed.
    """
    if inputs.perturbation.rotation is not None:
        return _rotated_proofs(model, network, label, inputs, result, budget)
    proofs = []
    recorded = result.pieces or (None,) * len(inputs.pieces)
    for question, own in zip(questions_of(model, network, inputs), recorded, strict=True):
        query = Query.misclassification(question.box, model.n_outputs, label)
        proof = proof_of(question.model, question.network, query, own, budget=budget)
        if proof is None:
            return None
        proofs.append(proof)
    return tuple(proofs)


def _rotated_proofs(
    model: ImplicitModel, network: Network, label: int, inputs: Perturbed, result: Result, budget: Budget
) -> tuple[Proof, ...] | None:
    proofs = []
    for family, own in zip(inputs.turned(result.angles), result.pieces, strict=True):
        query, asked = Query.misclassification(family.parameters, model.n_outputs, label), behind(model, family)
        proof = proof_of(asked, agreeing(model.n_outputs, label), query, own, budget=budget)
        if proof is None or proof.has_planes:
            return None
        proofs.append(proof)
    return tuple(proofs) or None


def _together(results: Sequence[Result]) -> Result:
    """Return the verdict over the union: that of a piece with a counterexample, or what all have in common."""
    last = results[-1]
    if last.verdict in _ENDS:
        return replace(last, recorded=None, states=None)
    open_ = [one for one in results if one.verdict is not Verdict.CERTIFIED]
    costliest = max(results, key=_cost)
    lowers = tuple(float(value) for value in np.min([one.lowers for one in results], axis=0)) if not open_ else ()
    nearest = min((one.found for one in results if one.found is not None), key=_rank, default=None)
    recorded = tuple(one.recorded or Recorded() for one in results)
    chosen = open_[0] if open_ else costliest
    return replace(
        chosen,
        lowers=lowers or chosen.lowers,
        found=nearest,
        pieces=recorded,
        recorded=None,
        states=None,
        denied=sum(one.denied for one in results),
        reason=(chosen.reason or Reason.RELAXATION_GAP) if open_ else None,
    )


def _cost(result: Result) -> int:
    """Return the place of what decided a piece, in the order of cost."""
    return METHODS.index(result.method) if result.method in METHODS else -1


def _rank(found: Found) -> tuple[bool, float]:
    return found.rank
