"""Claims of proof files: what exactly is proved, and of which model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.front import behind, moving_in
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.forest import Forest
from idl_audit.proof.monotone import never_falls, score_rows
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.demand import MOST_IN_A_CLAIM, AmongFirst, Demand, PixelClasses
from idl_audit.values.errors import OptionError
from idl_audit.values.input_sets import InputSet, NormBall
from idl_audit.values.mixed import Cell
from idl_audit.values.perturbations import Perturbed
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.verdicts import ArithmeticName, NormName


@dataclass(frozen=True)
class Units:
    """What turns the inputs that a claim speaks of into the network's: (u scale - mean) / std."""

    scale: float = 1.0
    mean: tuple[float, ...] = ()
    """One for all inputs, or one a channel; none stands for 0."""
    std: tuple[float, ...] = ()
    """None stands for 1."""


@dataclass(frozen=True)
class About:
    """The model that a claim is about."""

    sha256: str
    """Of its file, and of all that belongs to it."""
    output_name: str | None = None
    """None: the file's own."""
    units: Units = Units()
    threshold: float | None = None
    """What makes two classes of a network with one output."""
    arithmetic: ArithmeticName = "real"
    """What the claim is about: the network in real numbers, or as runtimes compute it."""


@dataclass(frozen=True, eq=False)
class Ball:
    """The set around a sample: within eps sigma of it, within the valid range, at most so many inputs changed."""

    centre: FloatArray
    eps: float
    sigma: FloatArray | None = None
    """Radii for eps = 1; ones where it is None."""
    clip: tuple[float, float] | None = None
    cardinality: int | None = None
    """How many inputs change at most; None: all of them."""
    free: tuple[int, ...] = ()
    """Inputs that move through the whole valid range; the others by eps, which may be 0 then."""
    norm: NormName = "linf"
    """What eps bounds."""

    @property
    def inputs(self) -> InputSet:
        """The set. Raises InvalidInputError where it makes no sense."""
        lo, hi = self.clip or (None, None)
        with np.errstate(over="ignore"):  # what leaves the range of float64 is refused
            if self.norm != "linf":
                if self.cardinality is not None or self.free:
                    raise OptionError(f"a ball of {self.norm} has no cardinality or free inputs")
                return NormBall.around(self.centre, self.eps, self.norm, sigma=self.sigma, valid_lo=lo, valid_hi=hi)
            if self.cardinality is None:
                return Box.around(self.centre, self.eps, sigma=self.sigma, valid_lo=lo, valid_hi=hi, free=self.free)
            k = self.cardinality
            return SparseBall.around(self.centre, self.eps, k, sigma=self.sigma, valid_lo=lo, valid_hi=hi)


@dataclass(frozen=True, eq=False)
class SampleClaim:
    """Every input of a set around a sample has y_label > y_j for every other class j."""

    ball: Ball
    label: int
    index: int
    """Which sample of the data it is, for people."""

    def misfit(self, model: ImplicitModel) -> str:
        """Return why the model has no such classes or inputs; empty where it has."""
        if model.n_outputs < 2:
            return "it speaks of classes, and the model has one output and the file no threshold"
        if not 0 <= self.label < model.n_outputs or self.ball.centre.shape != (model.n_inputs,):
            return f"it speaks of class {self.label} and {self.ball.centre.size} inputs, which the model does not have"
        return ""

    def queries(self, model: ImplicitModel) -> tuple[Query, ...]:
        """Return the query that has no counterexample, if the claim holds."""
        return (Query.misclassification(self.ball.inputs, model.n_outputs, self.label),)


@dataclass(frozen=True, eq=False)
class MonotoneClaim:
    """The score of an output never falls, or never rises, between two inputs of a set that differ in one entry alone.

    The score is the output or, where a last softmax is left out, what that makes of it. The entry is the set's one free
    input, and larger at the second.
    """

    ball: Ball
    output: int
    rises: bool
    """Whether it never falls; never rises otherwise."""
    index: int
    """Which sample of the data it is, for people."""

    @property
    def feature(self) -> int:
        """The input that rises."""
        (feature,) = self.ball.free
        return feature

    def misfit(self, model: ImplicitModel) -> str:
        """Return why the model has no such score or inputs; empty where it has."""
        if not 0 <= self.output < model.n_outputs or self.ball.centre.shape != (model.n_inputs,):
            return "it speaks of an output or of inputs that the model does not have"
        if score_rows(model, self.output, rises=self.rises) is None:
            return f"it speaks of a score of {model.stripped_output}, of which no rule is known"
        return ""

    def refused(self, model: ImplicitModel, tree: Forest) -> list[str]:
        """Return why a tree of boxes does not prove it; empty where it does."""
        rows, inputs = score_rows(model, self.output, rises=self.rises), self.ball.inputs
        if rows is None or not isinstance(inputs, Box):
            return ["it is about no box, or no score"]
        return never_falls(model, self.feature, rows, Cell(inputs, ()), tree)


@dataclass(frozen=True, eq=False)
class DemandClaim:
    """Every input of a set around a sample has outputs as they are demanded."""

    ball: Ball
    demand: Demand
    groups: tuple[IntArray, ...]
    """The parts that are proved, those together that one query is about; none of a demand without parts."""
    index: int
    """Which sample of the data it is, for people."""

    def misfit(self, model: ImplicitModel) -> str:
        """Return why the model has no such outputs or inputs; empty where it has."""
        demand, q = self.demand, model.n_outputs
        if self.ball.centre.shape != (model.n_inputs,):
            return f"it speaks of {self.ball.centre.size} inputs, which the model does not have"
        if isinstance(demand, AmongFirst):
            if not 0 <= demand.label < q or not 0 < demand.k < q or not all(0 <= j < q for j in demand.below):
                return f"it speaks of class {demand.label} among the first {demand.k}, which the model does not have"
            small = demand.is_small(q) and len(demand.below) * q <= MOST_IN_A_CLAIM
            return "" if small else "it leaves more combinations of rivals open than are looked at"
        if sum(demand.entries(group.size, q) for group in self.groups) > MOST_IN_A_CLAIM:
            return "it is about more parts than are looked at together"
        if isinstance(demand, PixelClasses):
            if demand.labels.size * demand.classes != q:
                return f"it speaks of {demand.labels.size} pixels of {demand.classes} classes each, and has {q} outputs"
            return ""
        if not (demand.outputs < q).all():
            return "it speaks of outputs that the model does not have"
        if model.stripped_output:
            return f"it speaks of values of {model.stripped_output}, which the model leaves out"
        return ""

    def queries(self, model: ImplicitModel) -> tuple[Query, ...]:
        """Return the queries that have no counterexample, if the claim holds."""
        inputs, q = self.ball.inputs, model.n_outputs
        if isinstance(self.demand, AmongFirst):
            return (self.demand.query(inputs, q),)
        return tuple(self.demand.only(group).query(inputs, q) for group in self.groups)


@dataclass(frozen=True, eq=False)
class PerturbedClaim:
    """Every input that a perturbation makes of a sample has y_label > y_j for every other class j."""

    inputs: Perturbed
    label: int
    index: int
    """Which sample of the data it is, for people."""
    angles: FloatArray | None = None
    """Of rotations: the ends of the intervals that are proved one by one, ascending."""

    def misfit(self, model: ImplicitModel) -> str:
        """Return why the model has no such classes or inputs; empty where it has."""
        around, rotation = self.inputs.around, self.inputs.perturbation.rotation
        if rotation is not None and (self.angles is None or not rotation.is_covered(self.angles, self.inputs.factor)):
            return "its intervals leave out some of the angles"
        if model.n_outputs < 2:
            return "it speaks of classes, and the model has one output and the file no threshold"
        if not 0 <= self.label < model.n_outputs or around.sample.shape != (model.n_inputs,):
            return f"it speaks of class {self.label} and {around.sample.size} inputs, which the model does not have"
        if not model.is_feed_forward:
            return "it speaks of a perturbation, and the model has loops"
        return ""

    def queries(self, model: ImplicitModel) -> tuple[Query, ...]:
        """Return the queries that have no counterexample, if the claim holds: one for each piece of the set.

        Of rotations: one for each interval, all of which have the same parameters.
        """
        if self.angles is not None:
            box = self.inputs.rotated.parameters
            return (Query.misclassification(box, model.n_outputs, self.label),) * (self.angles.size - 1)
        return tuple(
            Query.misclassification(moving_in(piece), model.n_outputs, self.label) for piece in self.inputs.pieces
        )

    def questions(self, model: ImplicitModel) -> Iterator[tuple[ImplicitModel, Query]]:
        """Yield each query with the model that it is about: of the parameters of its piece."""
        pieces = self.inputs.pieces if self.angles is None else self.inputs.turned(self.angles.tolist())
        for piece, query in zip(pieces, self.queries(model), strict=True):
            yield behind(model, piece), query


@dataclass(frozen=True, eq=False)
class PropertyClaim:
    """No input of any box makes one of the alternatives of that box hold."""

    name: str
    """The property's file."""
    sha256: str
    """Of that file."""
    asked: tuple[Query, ...]

    def misfit(self, model: ImplicitModel) -> str:
        """Return why the model has no such inputs or outputs, or leaves out what the claim speaks of."""
        for query in self.asked:
            rows = [alternative.rows for alternative in query.alternatives]
            if query.box.size != model.n_inputs or any(own.shape[1] != model.n_outputs for own in rows):
                return "it speaks of inputs or outputs that the model does not have"
            if model.stripped_output and not all(map(compares, query.alternatives)):
                return f"it speaks of values of {model.stripped_output}, which the model leaves out"
        return ""

    def queries(self, model: ImplicitModel) -> tuple[Query, ...]:
        """Return the queries that have no counterexample, if the claim holds."""
        return self.asked


@dataclass(frozen=True, eq=False)
class QueryClaim:
    """No assignment satisfies a VNN-LIB 2 query about one or several networks.

    The file holds no box and no row: whoever checks it makes what is left to refute from the query's text.
    """

    name: str
    """The query's file."""
    sha256: str
    """Of that file."""
    networks: tuple[tuple[str, str], ...]
    """Name and sha256 of each network that has a file of its own, in the order of the query."""
    asked: tuple[Query, ...] = ()
    """What is left to refute, box by box, in terms of the model that is made of the query: never out of a file."""

    def misfit(self, model: ImplicitModel) -> str:
        """Return why the model has no such inputs or outputs; empty, as it is made for them."""
        return ""

    def queries(self, model: ImplicitModel) -> tuple[Query, ...]:
        """Return the queries that have no counterexample, if the claim holds."""
        return self.asked


@dataclass(frozen=True, eq=False)
class SensitivityClaim:
    """|y(u) - y(v)| <= S |u - v| entrywise for all u and v."""

    S: FloatArray
    """(q, p)."""


def compares(alternative: Conjunction) -> bool:
    """Return whether every row says y_i <= y_j or y_i < y_j: what the order of the outputs alone decides."""
    return not alternative.offsets.any() and all(
        np.count_nonzero(row) == 2 and row.sum() == 0 for row in alternative.rows
    )


def is_asked(found: Query, query: Query) -> bool:
    """Return whether a query of a file is this one: the same box and the same alternatives."""
    return (
        np.array_equal(found.box.lo, query.box.lo)
        and np.array_equal(found.box.hi, query.box.hi)
        and len(found.alternatives) == len(query.alternatives)
        and all(
            all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("rows", "offsets", "strict"))
            for a, b in zip(found.alternatives, query.alternatives, strict=True)
        )
    )
