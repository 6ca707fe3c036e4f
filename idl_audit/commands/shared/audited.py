"""The samples of an audit of robustness: as the file has them, as they are attacked, and one look at all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np

from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.shared.demands import Demanded, read_demanded
from idl_audit.commands.shared.sample_tasks import Setting
from idl_audit.commands.shared.subject import Subject
from idl_audit.data.group_columns import read_groups
from idl_audit.data.numbers import check_eps_units
from idl_audit.data.overview import Overview, look_at, unchanged
from idl_audit.data.samples import SampleStream
from idl_audit.report.schema import Diagnostic
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.box import check_whole, is_coarse, is_whole
from idl_audit.values.errors import DataError

NEAR_INFINITY: Final = 1e300
"""Beyond it, a set may not fit into float64."""


@dataclass(frozen=True, eq=False)
class Audited:
    """The samples, and what one pass over them has found."""

    given: SampleStream
    """As the options choose them."""
    samples: SampleStream
    """As they are attacked: those of the target class left out, rounded where the sets are those of rounded ones."""
    seen_given: Overview
    seen: Overview
    """Of `samples`."""
    rounded: int
    """How many samples are no numbers that the network reads."""
    demanded: Demanded
    """What is asked of the outputs."""
    groups: Mapping[int, Mapping[str, str]]
    """With --group-by: position in the file -> column -> group."""

    @cached_property
    def _places(self) -> dict[int, int]:
        return {index: place for place, index in enumerate(self.given.indices.tolist())}

    def fingerprint(self, index: int) -> str:
        """Return the hash of a sample's numbers, as the file has them, by its position in the file."""
        return bytes(self.seen_given.hashes[self._places[index]]).hex()

    @property
    def labels(self) -> IntArray:
        """The classes, or several labels of each sample; none where no labels are needed."""
        labels = self.samples.labels
        return np.zeros(0, np.int64) if labels is None else labels


def audited(setting: Setting, subject: Subject, options: RobustnessOptions) -> Audited:
    """Read all samples once, and refuse those that cannot be audited before any work is done.

    Raises:
        DataError: where the samples have no labels, or one lies outside the valid range.
    """
    aside = [column.name for column in options.group_by if column.path is None]
    demanded = read_demanded(subject, options.data, options.model, options.demanded, aside=aside)
    given = demanded.stream
    groups = read_groups(options.data.path, options.group_by, given.indices, given.total) if options.group_by else []
    _refuse_unlabelled(demanded, given, subject)
    chosen = _but_target(given, options)
    samples = _as_read(chosen, subject, options)
    _refuse_other_count(setting, given, options)
    lo, hi = setting.preprocessing.bounds or (None, None)
    if setting.features is None:
        inside = np.clip(samples.read(slice(1)).inputs[0], lo, hi)
        setting.sets(inside, subject)  # what is wrong with the set around any sample is told first
    check = _in_range(setting, subject)
    seen = look_at(demanded.single(samples), check)
    seen_given = seen if samples is given else look_at(demanded.single(given))
    if setting.eps_is_distance:  # it must have the data's units
        valid, whole = options.data.preprocessing.bounds, is_whole(subject.point_type)
        check_eps_units(options.eps, seen_given.least, seen_given.greatest, valid, whole=whole)
    rounded = 0 if samples is chosen else _differing(chosen, samples)
    by_index = dict(zip(given.indices.tolist(), groups, strict=True)) if groups else {}
    return Audited(given, unchanged(samples, seen), seen_given, seen, rounded, demanded, by_index)


def _refuse_unlabelled(demanded: Demanded, samples: SampleStream, subject: Subject) -> None:
    if samples.labels is not None or demanded.kind == "limits":
        return
    classes = ""
    if subject.threshold is not None:
        classes = (
            f" (1 where the output is above {subject.threshold.value:g}, else 0); a regression has no classes: ask how "
            "far its outputs move with --within DELTA"
        )
    raise DataError(
        f"{samples.source} has no labels; put an array 'labels' into an .npz, or give a file with --labels{classes}"
    )


def _but_target(samples: SampleStream, options: RobustnessOptions) -> SampleStream:
    """Leave out samples of the target class itself."""
    if options.target is None or samples.labels is None:
        return samples
    others = samples.labels != options.target
    if not others.any():
        raise DataError(f"all samples have the target class {options.target} already; give others")
    return samples.rows(others)


def _as_read(samples: SampleStream, subject: Subject, options: RobustnessOptions) -> SampleStream:
    """Round samples to what the network reads, where some inputs stay exactly as they are: it must be able to say them.

    That is float32, or float16 where the network reads that.
    """
    of_patch = options.perturb is not None and options.perturb.patch is not None
    if options.sparse is None and options.ignore is None and options.features is None and not of_patch:
        return samples
    kind, bounds, exactly = floats(subject, options), options.data.preprocessing.bounds, samples.inputs_at
    return replace(samples, inputs_at=lambda indices: _in_floats(exactly(indices), kind, bounds))


def floats(subject: Subject, options: RobustnessOptions) -> np.dtype[Any]:
    """Return the type of the numbers that the network reads of the data itself."""
    coarse = is_coarse(subject.point_type) and options.data.preprocessing.is_identity
    return subject.point_type if coarse else np.dtype(np.float32)


def _in_floats(inputs: FloatArray, kind: np.dtype[Any], bounds: tuple[float, float] | None) -> FloatArray:
    """Return the nearest numbers of a type; where one lies outside the valid range and the input does not, the next."""
    lo, hi = bounds or (-np.inf, np.inf)
    rounded, infinity = inputs.astype(kind), np.array(np.inf, kind)
    above, below = np.nextafter(rounded, infinity), np.nextafter(rounded, -infinity)
    rounded = np.where((rounded.astype(np.float64) < lo) & (inputs >= lo), above, rounded)
    rounded = np.where((rounded.astype(np.float64) > hi) & (inputs <= hi), below, rounded)
    return rounded.astype(np.float64)


def _refuse_other_count(setting: Setting, given: SampleStream, options: RobustnessOptions) -> None:
    """Refuse radii of samples that are not as many as the data has. Raises DataError."""
    if setting.sigma is None or setting.sigma.ndim == 1:
        return
    there = given.total or int(given.indices.max(initial=-1)) + 1  # of some files nobody knows how many they have
    if len(setting.sigma) < there or (given.total and len(setting.sigma) > there):
        raise DataError(
            f"{options.sigma} has radii for {len(setting.sigma)} samples, and the data {there}; give one row, or one "
            "number, for each"
        )


def _in_range(setting: Setting, subject: Subject) -> Callable[[IntArray, FloatArray], None]:
    """Return what refuses samples around which there is no set: outside the valid range, or next to infinity."""
    lo, hi = setting.preprocessing.bounds or (-NEAR_INFINITY, NEAR_INFINITY)
    lo, hi = max(lo, -NEAR_INFINITY), min(hi, NEAR_INFINITY)
    kind = subject.point_type

    def check(indices: IntArray, inputs: FloatArray) -> None:
        if is_whole(kind):
            for index, row in zip(indices.tolist(), inputs, strict=True):
                check_whole(row, kind, f"sample {index}: an input")
        odd = ~((inputs >= lo) & (inputs <= hi)).all(axis=1)
        each = setting.features is not None  # must be a valid row
        for row in np.flatnonzero(odd | each):
            try:
                setting.sets(inputs[row], subject, int(indices[row]))
            except DataError as error:
                raise DataError(f"sample {int(indices[row])}: {error}") from error

    return check


def _differing(chosen: SampleStream, samples: SampleStream) -> int:
    """Return how many samples are not what the file has."""
    parts = zip(chosen.parts(), samples.parts(), strict=True)
    return sum(int((one.inputs != other.inputs).any(axis=1).sum()) for (_, one), (_, other) in parts)


def left_out(found: Audited, options: RobustnessOptions, subject: Subject) -> Iterator[Diagnostic]:
    """Say what a targeted or a sparse attack made of the samples."""
    if options.target is not None:
        left = found.given.n - found.samples.n
        yield Diagnostic(
            code="IDL203",
            level="info",
            message=f"only class {options.target} counts: falsified means that the network predicts it, certified that "
            f"the label outranks it everywhere; {left} sample{'' if left == 1 else 's'} of that class left out",
        )
    if found.rounded:
        kind, sets = floats(subject, options).name, "sets" if options.sparse is None else "sparse sets"
        yield Diagnostic(
            code="IDL204",
            level="info",
            message=f"{found.rounded} of {found.samples.n} samples are no {kind} numbers; the {sets} are those around "
            f"the samples rounded to {kind}, as the network reads them",
        )
