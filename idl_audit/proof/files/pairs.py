"""Claims about two models over one set: both give one class, and outputs are no farther apart than limits.

The model that such a claim is checked against is the pair (`implicit.pair`), in the form that the file names, with the
outputs (y, y', y - y').
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.pair import Form, equal_outputs, paired_model
from idl_audit.proof.files.claims import About, Ball
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.disagreement import Disagreement, farther
from idl_audit.values.query import Query

LEAST_CLASSES: Final = 2


@dataclass(frozen=True)
class Pairing:
    """The second model of a claim, and how the two are one model."""

    other: About
    form: Form

    def model(self, first: ImplicitModel, second: ImplicitModel) -> ImplicitModel:
        """Return the pair of two models in the claim's units. Raises OptionError where they are none."""
        return paired_model(first, second, self.form)


@dataclass(frozen=True, eq=False)
class AgreementClaim:
    """At every input of a set around a sample, the largest outputs of both models are those of one class."""

    ball: Ball
    reference: int
    """A class, such as that of both at the sample."""
    possible: tuple[tuple[int, ...], tuple[int, ...]]
    """The classes of either model that the alternatives tell apart; those of others are refuted by the reference."""
    index: int
    """Which sample of the data it is, for people."""
    pairing: Pairing

    def misfit(self, model: ImplicitModel) -> str:
        """Return why the pair has no such classes or inputs; empty where it has."""
        q = model.n_outputs // 3
        if q < LEAST_CLASSES:
            return "it speaks of classes, and the models have one output and the file no threshold"
        classes = {self.reference, *self.possible[0], *self.possible[1]}
        if not all(0 <= one < q for one in classes) or self.ball.centre.shape != (model.n_inputs,):
            return "it speaks of classes or inputs that the models do not have"
        return _no_box(self.ball)

    def is_settled(self, model: ImplicitModel) -> bool:
        """Return whether the outputs are equal for every input, so that there is nothing to refute."""
        return bool(equal_outputs(model).all())

    def queries(self, model: ImplicitModel) -> tuple[Query, ...]:
        """Return the query that has no counterexample, if the claim holds."""
        inputs = self.ball.inputs
        assert isinstance(inputs, Box)
        return (Disagreement.of(inputs, model.n_outputs // 3, self.reference, *self.possible),)


@dataclass(frozen=True, eq=False)
class DifferenceClaim:
    """At every input of a set around a sample, |y_i - y'_i| < limits_i, or <= where the limit is 0."""

    ball: Ball
    limits: FloatArray
    """(q,)."""
    index: int
    pairing: Pairing

    def misfit(self, model: ImplicitModel) -> str:
        """Return why the pair has no such outputs or inputs; empty where it has."""
        if self.limits.shape != (model.n_outputs // 3,) or self.ball.centre.shape != (model.n_inputs,):
            return "it speaks of outputs or inputs that the models do not have"
        return _no_box(self.ball)

    def is_settled(self, model: ImplicitModel) -> bool:
        """Return whether the outputs are equal for every input, so that no limit can be passed."""
        return bool(equal_outputs(model).all() and (self.limits >= 0).all())

    def queries(self, model: ImplicitModel) -> tuple[Query, ...]:
        """Return the query that has no counterexample, if the claim holds."""
        inputs = self.ball.inputs
        assert isinstance(inputs, Box)
        equal = equal_outputs(model) & (self.limits >= 0)
        return (farther(inputs, self.limits, equal),)


def _no_box(ball: Ball) -> str:
    return "" if isinstance(ball.inputs, Box) else "two models are compared over boxes alone"


PAIRED: Final = (AgreementClaim, DifferenceClaim)
"""Claims about two models."""
