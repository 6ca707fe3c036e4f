"""What is asked of samples, and what is known of one when it is decided: what processes tell each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from idl_audit.commands.options.demands import DemandOptions
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.boxes import sample_set
from idl_audit.commands.shared.subject import Subject
from idl_audit.data.features import Features
from idl_audit.data.numbers import Eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.samples import Samples, SampleStream
from idl_audit.decide.ladder import Options, Result
from idl_audit.values.arrays import AnyArray, BoolArray, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.demand import AmongFirst, Demand
from idl_audit.values.input_sets import InputSet
from idl_audit.values.perturbations import Around, Perturbation, Perturbed
from idl_audit.values.query import Misclassification, Query
from idl_audit.values.verdicts import NormName

Message: TypeAlias = float | tuple[float, Result]
"""While a sample is being decided: the share of its tree that is proved, or a radius with its result."""


@dataclass(frozen=True)
class Setting:
    """What is the same for all samples; it is handed to other processes."""

    path: Path
    reading: ModelOptions
    sha256: str
    """Of the model as it was read first, weights beside its file included."""
    preprocessing: Preprocessing
    eps: tuple[Eps, ...]
    verdicts: Options
    certificates: Path | None = None
    """Folder for a certificate of each certified sample."""
    overwrite: bool = False
    sigma: FloatArray | None = None
    """How far each input moves for eps = 1; None stands for ones."""
    free: tuple[int, ...] = ()
    """Inputs that move through the whole valid range."""
    sparse: int | None = None
    """At most so many inputs change; None stands for all."""
    demanded: DemandOptions = field(default_factory=DemandOptions)
    """How outputs are read."""
    largest: bool = False
    """Whether smaller radii than the one given are looked at as well."""
    features: Features | None = None
    """What valid rows are, where they alone count."""
    fair: bool = False
    """Whether the protected features alone move."""
    norm: NormName = "linf"
    """What the radii bound."""
    perturbation: Perturbation | None = None
    """What changes in place of every input."""
    shape: tuple[int, ...] = ()
    """Of one input, as a perturbation sees it."""
    minimal: bool = False
    """Whether the nearest counterexample is looked for first."""
    may_lack_form: bool = False
    """Whether a network without an implicit form is attacked all the same."""

    @property
    def eps_is_distance(self) -> bool:
        """Whether each input moves by eps itself."""
        plain = self.sigma is None and self.perturbation is None and self.features is None
        return plain and self.norm == "linf"

    def sigma_of(self, index: int | None) -> FloatArray | None:
        """Return how far each input of a sample moves for eps = 1, (p,); of no sample in particular the most."""
        if self.sigma is None or self.sigma.ndim == 1:
            return self.sigma
        return np.asarray(self.sigma.max(axis=0) if index is None else self.sigma[index])

    def sets(self, centre: FloatArray, subject: Subject, index: int | None = None) -> Sequence[InputSet | Perturbed]:
        """Return the sets around a sample, one a radius in the order of the radii; of valid rows the boxes around them.

        `index` is its place in the data file, where radii differ from sample to sample.

        Raises:
            DataError: where the sample lies outside the valid range, or is no valid row.
            OptionError: where a perturbation needs pictures or a valid range, and there are none.
        """
        features, fair = self.features, self.fair
        if features is not None:
            return [features.cell(centre, radius.value, protected=fair).hull for radius in self.eps]
        bounds, chosen = self.preprocessing.bounds, (self.sigma_of(index), self.sparse, self.free, self.norm)
        if self.perturbation is not None:
            around = Around(centre, self.shape, bounds)
            found = [Perturbed(around, self.perturbation, radius.value) for radius in self.eps]
            for one in found:
                one.check()
            return found
        sets = (sample_set(centre, radius.value, bounds, *chosen) for radius in self.eps)
        return [subject.readable(one, self.preprocessing) for one in sets]


@dataclass(frozen=True, eq=False, slots=True)
class SampleTask:
    """One sample to decide at every radius."""

    position: int
    """Among the samples of the audit."""
    index: int
    """In the data file."""
    label: int
    centre: FloatArray
    demand: Demand | None = None
    """What is to hold of the outputs; None: their class is the label."""
    known: Mapping[float, Result] = field(default_factory=dict)
    """Radius -> what an earlier run found there, which is not looked for again."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle numbers that are float32 as such: half the bytes on their way to other processes."""
        with np.errstate(over="ignore"):
            narrow = self.centre.astype(np.float32)
        sent = narrow if np.array_equal(narrow, self.centre) else self.centre
        return _unpacked, (self.position, self.index, self.label, sent, self.demand, self.known)

    def errs(self, outputs: FloatArray) -> BoolArray:
        """Return which outputs, (m, q), are not as they should be."""
        return Decided.of(self).query(outputs.shape[1]).holds(outputs)


def _unpacked(
    position: int, index: int, label: int, centre: AnyArray, demand: Demand | None, known: Mapping[float, Result]
) -> SampleTask:
    return SampleTask(position, index, label, centre.astype(np.float64), demand, known)


NOWHERE: Final = Box.between(np.zeros(0), np.zeros(0))
"""Stands for the set of a query of which outputs alone are asked about."""


def query_of(demand: Demand, inputs: InputSet, n_outputs: int) -> Query:
    """Return the query for a point that breaks a demand; of combinations of rivals none are named."""
    return demand.query(inputs, n_outputs, 0) if isinstance(demand, AmongFirst) else demand.query(inputs, n_outputs)


class Tasks(Protocol):
    """All samples of an audit in their order; those of a slice are read when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice, /) -> Sequence[SampleTask]: ...


@dataclass(frozen=True, eq=False)
class SampleTasks:
    """The tasks of a stream of samples."""

    samples: SampleStream
    demands: Callable[[Samples], Sequence[Demand | None]] = lambda part: [None] * part.n
    """What is demanded around each of some samples; None: their class."""
    begun: Mapping[int, Decided] = field(default_factory=dict)
    """Position -> a sample that an earlier run decided at some of the radii."""

    def __len__(self) -> int:
        return self.samples.n

    def __getitem__(self, places: slice) -> list[SampleTask]:
        part = self.samples.read(places)
        labels = part.labels if part.labels is not None and part.labels.ndim == 1 else np.full(part.n, -1)
        each = zip(
            range(*places.indices(len(self))), part.indices, labels, part.inputs, self.demands(part), strict=True
        )
        return [
            SampleTask(
                place,
                int(index),
                int(label),
                x,
                demand,
                self.begun[place].results if place in self.begun else {},
            )
            for place, index, label, x, demand in each
        ]


@dataclass(frozen=True)
class Largest:
    """The radii between which a sample is neither certified nor falsified."""

    certified: float | None
    falsified: float | None
    tried: int


@dataclass(eq=False, slots=True)
class Decided:
    """One sample with its results so far, radius by radius."""

    position: int
    index: int
    label: int
    centre: FloatArray | None = None
    """Where it is falsified: the sample itself."""
    predicted: int = -1
    results: dict[float, Result] = field(default_factory=dict)
    certificates: list[str] = field(default_factory=list)
    """Files that were written."""
    uncertified: list[float] = field(default_factory=list)
    """Radii that are certified, but have no certificate that stands alone."""
    lost: str | None = None
    """Where it could not be decided: what happened."""
    demand: Demand | None = None
    largest: Largest | None = None
    """What is known of the radii below the one given, where that was asked."""

    @classmethod
    def of(cls, task: SampleTask) -> Decided:
        """Return a sample of which nothing is known yet."""
        return cls(task.position, task.index, task.label, demand=task.demand)

    def after(self, earlier: Decided | None) -> Decided:
        """Return the sample with what an earlier run knew of it at other radii."""
        if earlier is None:
            return self
        mine = self.results.keys() - earlier.results.keys()
        return replace(
            self,
            centre=earlier.centre if self.centre is None else self.centre,
            results={**earlier.results, **{radius: self.results[radius] for radius in mine}},
            certificates=list(dict.fromkeys([*earlier.certificates, *self.certificates])),
            uncertified=sorted({*earlier.uncertified, *(radius for radius in self.uncertified if radius in mine)}),
        )

    def query(self, n_outputs: int, goal: int | None = None) -> Query:
        """Return the query of what is asked of outputs, whatever the set: misclassified, or as the goal."""
        if self.demand is None:
            return Misclassification(NOWHERE, (), self.label, goal)
        return query_of(self.demand, NOWHERE, n_outputs)


@dataclass(frozen=True, eq=False)
class Batch:
    """Neighbours in the audit, whose first rungs are climbed together: always the same, whoever decides them."""

    tasks: tuple[SampleTask, ...]
    left: tuple[SampleTask, ...]
    """Those that are still to be decided."""


Task: TypeAlias = SampleTask | Batch
Answer: TypeAlias = Decided | list[Decided]
"""Of a batch: the samples that its first rungs decide; the others are to be decided one by one."""
