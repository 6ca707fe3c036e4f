"""Networks with one output as classifiers of two classes: class 1 where the output is above a threshold.

Everything that speaks of classes takes such a network through `as_classifier` first, proofs and their check included;
what is judged in the end is the network's own output in its own arithmetic, compared with the threshold exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.shared.no_form import NoForm
from idl_audit.commands.shared.samples import open_samples
from idl_audit.commands.shared.subject import Subject
from idl_audit.data.samples import Samples
from idl_audit.graph.original import OriginalNetwork
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.implicit.threshold import Threshold, with_threshold
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.errors import InvalidInputError, OptionError, UnsupportedModelError
from idl_audit.values.network import Network

PROBABILITY: Final = (0.0, 1.0)
"""The range of a last sigmoid: its middle is the usual threshold."""
DEPTH: Final = 4
"""Blocks before the output that say between which numbers it can be: a clip is two of them."""
MOST_ENTRIES: Final = 10**6
"""Of a matrix that is looked at for that."""
FAR: Final = 1e300
"""Stands for no limit."""
_NEAR: Final = 1e-9
"""What outward rounding leaves of an end of the range."""


@dataclass(frozen=True)
class Judge:
    """A network of one output y with a threshold T, as outputs (0, y - T); the sign of y - T is exact."""

    network: OriginalNetwork
    threshold: Threshold

    @property
    def name(self) -> str:
        """What runs the network."""
        return self.network.name

    def __call__(self, inputs: Float32Array) -> FloatArray:
        """Return the scores, shape (m, 2), for inputs of shape (m, p)."""
        return self.threshold.scores(self.network(inputs))


def as_classifier(subject: Subject, threshold: float | None = None) -> Subject:
    """Return the subject with two classes where its network has one output, and as it is where it has several.

    Args:
        subject: the network as it was read.
        threshold: T; None takes the middle of a range from 0 to 1 (a last sigmoid), and otherwise 0.

    Raises:
        OptionError: where the network has several outputs and a threshold was given, or the output is never on both
            sides of it.
        UnsupportedModelError: where the output is the same for every input.
    """
    if subject.threshold is not None:
        return subject
    if subject.no_form is not None:
        return _without_form(subject, subject.no_form, threshold)
    value = chosen_threshold(subject.model, threshold, subject.path)
    if value is None:
        return subject
    model, found = with_threshold(subject.model, value)
    info = subject.info.model_copy(
        update={"threshold": value, "stripped_output": found.operator or subject.info.stripped_output}
    )
    return replace(
        subject,
        form=model,
        original=Judge(subject.original, found),
        info=info,
        threshold=found,
        network_itself=subject,
    )


def _without_form(subject: Subject, form: NoForm, threshold: float | None) -> Subject:
    """Return the subject as `as_classifier` does, of a network of whose output no range is known."""
    if form.n_outputs != 1:
        if threshold is not None:
            raise OptionError(f"--threshold makes classes of one output, and {subject.path} has {form.n_outputs}")
        return subject
    if threshold is None or not math.isfinite(threshold):
        raise OptionError(
            f"{subject.path} has one output; give the number above which it means class 1 with --threshold"
        )
    found = Threshold(threshold)
    return replace(
        subject,
        form=replace(form, output_shape=(1, 2)),
        original=Judge(subject.original, found),
        info=subject.info.model_copy(update={"threshold": threshold}),
        threshold=found,
        network_itself=subject,
    )


def open_labelled(subject: Subject, data: DataOptions, threshold: float | None = None) -> tuple[Subject, Samples]:
    """Return the samples, and the subject that their labels are for: a classifier, or one output without classes.

    One output has classes where a threshold was given, labels are those of two classes, or it is between 0 and 1 for
    every input. Other numbers in place of labels are the targets of a regression, and left out (`has_targets`).

    Raises:
        InvalidInputError: where the samples do not fit, or as `as_classifier` does where a threshold was given.
    """
    if subject.model.n_outputs != 1 or threshold is not None:
        reader = as_classifier(subject, threshold)
        return reader, open_samples(reader, data)
    samples = open_samples(subject, data)
    if samples.has_targets or (samples.labels is None and output_range(subject.model) != PROBABILITY):
        return subject, samples
    try:
        return as_classifier(subject), samples
    except InvalidInputError:  # counts of 0 and 1, say, that a last ReLU predicts
        return subject, replace(samples, labels=None, has_targets=samples.labels is not None)


def model_classifier(
    model: ImplicitModel, threshold: float | None, name: Path
) -> tuple[ImplicitModel, Network, Threshold | None]:
    """Return a model with at least two outputs, itself as the judge of attacks, and what makes classes of one output.

    Raises as `as_classifier` does.
    """
    value = chosen_threshold(model, threshold, name)
    if value is None:
        return model, lambda points: model(points.astype(np.float64)), None
    found, read = with_threshold(model, value)
    return found, lambda points: read.scores(model(points.astype(np.float64))), read


def chosen_threshold(model: ImplicitModel, given: float | None, name: Path) -> float | None:
    """Return the threshold of a model's one output; None where it has several. Raises as `as_classifier` does."""
    if model.n_outputs != 1:
        if given is not None:
            raise OptionError(
                f"--threshold makes classes of one output, and {name} has {model.n_outputs}, the largest of which is "
                "the class; leave it out"
            )
        if not model.n_outputs:
            raise UnsupportedModelError([f"{name} has no outputs, of which classes could be made"])
        return None
    if model.stripped_output:
        raise UnsupportedModelError(
            [
                f"{name} ends with a {model.stripped_output} of one number, which is the same for every input; export "
                "it without, or with a sigmoid"
            ]
        )
    lo, hi = output_range(model)
    if given is None:
        given = 0.5 if (lo, hi) == PROBABILITY else 0.0
        if not lo < given < hi:
            raise OptionError(
                f"{name} has one output, which is between {lo:g} and {hi:g} for every input and says by itself no "
                "class; give the number above which it means class 1 with --threshold, or ask `bounds` for the outputs "
                "of a regression"
            )
    if not math.isfinite(given):
        raise OptionError(f"--threshold must be a finite number, not {given}")
    if not lo < given < hi:
        raise OptionError(
            f"--threshold {given:g} must lie between {lo:g} and {hi:g}, without these: no output of {name} is "
            f"{'below' if given <= lo else 'above'} it"
        )
    return float(given)


def output_range(model: ImplicitModel) -> tuple[float, float]:
    """Return between which numbers the last operators keep one output, 0 to 1 for a sigmoid; infinite without limit.

    It serves the choice and the check of a threshold, and no proof.
    """
    lo, hi = output_ranges(model)
    return float(lo[0]), float(hi[0])


def output_ranges(model: ImplicitModel) -> tuple[FloatArray, FloatArray]:
    """Return the same of every output, (q,) each."""
    with np.errstate(all="ignore"):
        lo, hi = _affine_range(model, model.output, DEPTH)
    return np.array([_end(value) for value in lo]), np.array([_end(value) for value in hi])


def _affine_range(model: ImplicitModel, row: Affine, depth: int) -> tuple[FloatArray, FloatArray]:
    """Return the ends of W+ lo + W- hi + constant, from those of the states, or of inputs without limit."""
    lo, hi = row.constant.copy(), row.constant.copy()
    parts = [(linear_map, _state_range(model, k, depth)) for k, linear_map in row.states.items()]
    if row.input is not None:
        everything = np.full(row.input.n_in, np.inf)
        parts.append((row.input, (-everything, everything)))
    for linear_map, (least, most) in parts:
        if linear_map.nnz > MOST_ENTRIES:
            return np.full(row.size, -np.inf), np.full(row.size, np.inf)
        matrix = linear_map.to_sparse()
        matrix.eliminate_zeros()
        above, below = matrix.maximum(0), matrix.minimum(0)
        lo += above @ least + below @ most
        hi += above @ most + below @ least
    return lo, hi


def _state_range(model: ImplicitModel, k: int, depth: int) -> tuple[FloatArray, FloatArray]:
    """Return the ends of what a block's states can be: of `depth` blocks before it, the earlier ones without limit."""
    block = model.blocks[k]
    lo, hi = np.full(block.size, -np.inf), np.full(block.size, np.inf)
    if depth and k not in model.loops:
        lo, hi = _affine_range(model, model.rows[k], depth - 1)
    least, most = block.interval(np.clip(lo, -FAR, FAR), np.clip(hi, -FAR, FAR))
    return np.where(least <= -FAR / 2, -np.inf, least), np.where(most >= FAR / 2, np.inf, most)


def _end(value: float) -> float:
    """Return an end of a range without what rounding did to it."""
    near = float(np.round(value)) + 0.0  # no negative zero
    return near if math.isfinite(value) and abs(value - near) < _NEAR else float(value)
