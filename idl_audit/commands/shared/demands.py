"""What is demanded of the outputs around each sample, as `certify` and `attack` are asked it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from idl_audit.commands.options.demands import DemandOptions
from idl_audit.commands.options.reading import DataOptions, ModelOptions
from idl_audit.commands.shared.class_output import gives_class
from idl_audit.commands.shared.classifier import PROBABILITY, as_classifier, output_ranges
from idl_audit.commands.shared.samples import open_stream
from idl_audit.commands.shared.subject import Subject
from idl_audit.data.fingerprints import numbers_sha256
from idl_audit.data.labels import LabelRows
from idl_audit.data.samples import Samples, SampleStream
from idl_audit.report.schema import DemandInfo
from idl_audit.values.arrays import IntArray
from idl_audit.values.demand import AmongFirst, Demand, Limits, PixelClasses, labels_kept, within
from idl_audit.values.errors import DataError, OptionError, UnsupportedModelError
from idl_audit.values.network import Network

SPATIAL: Final = 3
"""Axes of an output from which on there is one class for each place, (1, C, places ...)."""


def read_as(subject: Subject, reading: ModelOptions, asked: DemandOptions) -> Subject:
    """Return the subject as the demand reads its outputs: with two classes where one output has a threshold.

    Raises:
        OptionError: where the outputs are not what is asked about.
        UnsupportedModelError: where their values count, and the file leaves out its last operator.
    """
    kind = asked.kind
    if kind in ("top", "pixels") and gives_class(subject.model):
        raise OptionError(
            f"{subject.path} gives one class and no scores, of which {'--top' if kind == 'top' else 'pixels'} would be "
            "asked; make the scores before it the output"
        )
    if kind in ("class", "top"):
        _refuse_spatial(subject, asked)
        subject = as_classifier(subject, reading.threshold)
        if asked.top is not None and asked.top >= subject.n_outputs:
            raise OptionError(
                f"--top {asked.top} holds whatever the network does, which has {subject.n_outputs} classes; give less"
            )
        return subject
    if kind == "limits" and reading.threshold is not None:
        raise OptionError("--threshold makes classes, and limits are about values; say it with --above or --below")
    if kind == "pixels":
        _pixels(subject)
        if reading.threshold is not None:
            raise OptionError("--threshold makes classes of one output; leave it out beside --task segmentation")
    elif subject.model.stripped_output:
        raise UnsupportedModelError(
            [
                f"{subject.path} leaves out its last operator, {subject.model.stripped_output}, and the values of "
                "outputs count here; give the network's own file"
            ]
        )
    return subject


def _refuse_spatial(subject: Subject, asked: DemandOptions) -> None:
    """Refuse to take an output with a class for each place as one class among all its numbers."""
    shape = subject.output_shape
    if asked.task is None and sum(size > 1 for size in shape[1:]) > 1:
        listed = " x ".join(map(str, shape))
        raise OptionError(
            f"the output of {subject.path} is {listed}: not one class a sample; ask about each pixel with --task "
            "segmentation, about values with --within, --above or --below, or take all its numbers as classes with "
            "--task classification"
        )


def _pixels(subject: Subject) -> tuple[int, int]:
    """Return how many classes and pixels there are. Raises OptionError where the output has none."""
    shape = subject.model.output_shape
    places = math.prod(shape[2:])
    if len(shape) < SPATIAL or shape[0] != 1 or shape[1] < 2 or places < 2:
        listed = " x ".join(map(str, shape))
        raise OptionError(
            f"--task segmentation needs outputs 1 x classes x places, with two classes or more, and {subject.path} has "
            f"{listed}"
            + ("; a mask of one number a pixel is --task multilabel" if len(shape) >= SPATIAL and shape[1] == 1 else "")
        )
    return shape[1], places


@dataclass(frozen=True, eq=False)
class Demanded:
    """The samples, and what is demanded around each; nothing where it is its class."""

    stream: SampleStream
    asked: DemandOptions
    threshold: float | None = None
    """Of several labels."""

    @property
    def kind(self) -> str:
        """What is demanded."""
        return self.asked.kind

    def single(self, samples: SampleStream) -> SampleStream:
        """Return samples with one label each; without labels where they have several."""
        return samples if self.kind in ("class", "top") else replace(samples, labels=None)

    def info(self, samples: SampleStream) -> DemandInfo | None:
        """Return what a report says of it; nothing where it is the class."""
        asked, labels, kind = self.asked, samples.labels, self.asked.kind
        if kind == "class":
            return None
        several = (
            None if self.kind not in ("labels", "pixels") or labels is None else labels[np.argsort(samples.indices)]
        )
        return DemandInfo(
            kind=kind,
            top=asked.top,
            within=asked.within,
            above=asked.above,
            below=asked.below,
            outputs=asked.of_outputs,
            threshold=self.threshold,
            labels_sha256=None if several is None else numbers_sha256([several]),
        )

    def each(self, samples: Samples, subject: Subject, network: Network) -> list[Demand | None]:
        """Return what is demanded around each of some samples; None for its class.

        Raises:
            DataError: where the network gives no number for a sample from which outputs may move by so much.
        """
        labels, q = samples.labels, subject.n_outputs
        if self.kind == "limits":
            outputs = np.arange(q) if self.asked.of_outputs is None else np.asarray(sorted(self.asked.of_outputs))
            return [
                self._limits(int(index), x.astype(np.float32), outputs, network)
                for index, x in zip(samples.indices, samples.inputs, strict=True)
            ]
        if self.kind == "class" or labels is None:
            return [None] * samples.n
        if self.asked.top is not None:
            return [AmongFirst(label, self.asked.top) for label in labels.tolist()]
        if self.threshold is not None:
            return [labels_kept(row, self.threshold) for row in labels]
        classes, places = _pixels(subject)
        return [PixelClasses(row, classes, np.arange(places)) for row in labels]

    def _limits(self, index: int, x: np.ndarray, outputs: IntArray, network: Network) -> Limits:
        parts = []
        for side, value in ((1, self.asked.above), (-1, self.asked.below)):
            if value is not None:
                n = outputs.size
                parts.append(Limits(outputs, np.full(n, side), np.full(n, value), np.ones(n, np.bool_)))
        if self.asked.within is not None:
            reference = network(x[None])[0]
            if not np.isfinite(reference[outputs]).all():
                raise DataError(f"the network gives no number for sample {index}, from which --within could start")
            parts.append(within(reference, self.asked.within, outputs))
        return _together(parts)


def _together(parts: Sequence[Limits]) -> Limits:
    names = ("outputs", "sides", "values", "strict")
    return Limits(*(np.concatenate([getattr(one, name) for one in parts]) for name in names))


def read_demanded(
    subject: Subject, data: DataOptions, reading: ModelOptions, asked: DemandOptions, *, aside: Sequence[str] = ()
) -> Demanded:
    """Read the samples, with the labels that the demand needs; columns `aside` are no inputs where others suffice.

    Raises:
        DataError: where they do not fit the model, or have no labels that are needed.
        OptionError: where outputs are named that there are not.
    """
    q = subject.n_outputs
    if asked.of_outputs is not None and (
        max(asked.of_outputs) >= q or len(set(asked.of_outputs)) < len(asked.of_outputs)
    ):
        raise OptionError(f"--of-outputs must list different outputs of the network, 0 to {q - 1}")
    if asked.kind == "limits":
        return Demanded(open_stream(subject, data, with_labels=False, aside=aside), asked)
    if asked.kind in ("class", "top"):
        return Demanded(open_stream(subject, data, aside=aside), asked)
    if asked.kind == "labels":
        found = open_stream(subject, data, rows=LabelRows(q, 2, "output"), aside=aside)
        demanded = Demanded(found, asked, _threshold(subject, reading.threshold))
    else:
        classes, places = _pixels(subject)
        found = open_stream(subject, data, rows=LabelRows(places, classes, "pixel"), aside=aside)
        demanded = Demanded(found, asked)
    if found.labels is None:
        raise DataError(
            f"{found.source} has no labels; put an array 'labels' with a row for each sample into an .npz, "
            "or give a file with --labels"
        )
    return demanded


def _threshold(subject: Subject, given: float | None) -> float:
    """Return the number above which a label is given: 0.5 where all outputs end between 0 and 1, else 0."""
    if given is not None:
        if not math.isfinite(given):
            raise OptionError(f"--threshold must be a finite number, not {given}")
        return given
    lo, hi = output_ranges(subject.model)
    return 0.5 if (lo == PROBABILITY[0]).all() and (hi == PROBABILITY[1]).all() else 0.0
