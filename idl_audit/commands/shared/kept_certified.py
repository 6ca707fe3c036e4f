"""How far a model can be compressed while enough samples stay certified: levels, halved by verdicts of the ladder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from idl_audit.commands.options.models import CompressOptions, KeepCertified
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.shared.boxes import sample_boxes
from idl_audit.commands.shared.smaller import Opened
from idl_audit.data.samples import Samples
from idl_audit.decide.ladder import Options, Sample, decide_sample, decide_together
from idl_audit.implicit.compress import MATRICES, Compressed, low_rank, pruned, quantized, weights
from idl_audit.implicit.input_units import in_data_units
from idl_audit.implicit.model import ImplicitModel
from idl_audit.report.schema import CertifiedLevel, KeptCertified
from idl_audit.values.errors import OptionError
from idl_audit.values.verdicts import Verdict

AT_ONCE: Final = 64
"""Samples that climb the first rungs together."""
THRESHOLDS: Final = 24
"""Of pruning, each a factor 2^(1/2) below the one before."""
MILDEST_BITS: Final = 16


@dataclass(frozen=True)
class Level:
    """One setting of a compression."""

    setting: str
    make: Callable[[ImplicitModel], Compressed]


@dataclass(frozen=True, eq=False)
class Found:
    """The furthest level that keeps enough samples certified, and all that were tried."""

    level: Level | None
    pair: Compressed | None
    table: KeptCertified


def levels_of(chosen: CompressOptions, model: ImplicitModel) -> tuple[Level, ...]:
    """Return the levels up to the one that is asked for, the mildest first."""
    of = "".join(chosen.of)
    more = "" if set(of) == set(MATRICES) else f" of {', '.join(of)}"
    if chosen.prune is not None:
        thresholds = [chosen.prune * 2 ** (-k / 2) for k in range(THRESHOLDS)]
        return tuple(Level(f"{t:.3g}{more}", partial(pruned, threshold=t, of=of)) for t in reversed(thresholds))
    if chosen.quantize is not None:
        bits = range(max(MILDEST_BITS, chosen.quantize), chosen.quantize - 1, -1)
        return tuple(Level(f"{k} bits{more}", partial(quantized, bits=k, of=of)) for k in bits)
    assert chosen.rank is not None
    most = max(chosen.rank, *(min(one.n_in, one.n_out) for one in model.maps))
    return tuple(Level(f"{k}{more}", partial(low_rank, rank=k, of=of)) for k in range(most, chosen.rank - 1, -1))


def furthest_kept(
    opened: Opened, chosen: CompressOptions, keep: KeepCertified, data: DataOptions, options: Options
) -> Found:
    """Return the furthest level at which enough samples are certified, by halving: counts need not fall evenly.

    Raises:
        OptionError: where there are no labels, one output only, or fewer samples are certified before than asked for.
        DataError: where a sample lies outside the valid range.
    """
    assert chosen.eps is not None
    model, labelled = opened.subject.model, opened.samples
    if labelled is None or labelled.labels is None:
        raise OptionError("--keep-certified needs samples with labels; give -d FILE")
    if model.n_outputs < 2:
        raise OptionError("--keep-certified is for models with an output for each class")
    samples = _samples(labelled, chosen, data)
    in_units = partial(_in_data_units, opened=opened, data=data)
    before, _ = certified_count(in_units(model), samples, None, options)
    least = keep.least(before)
    if least > before:
        raise OptionError(f"--keep-certified {keep}: {before} of {len(samples)} samples are certified before")
    levels, tried = levels_of(chosen, model), []

    def kept(place: int) -> Compressed | None:
        pair = levels[place].make(model)
        smaller = pair.stored
        count, looked_at = 0, 0
        if smaller.is_well_posed or not model.is_well_posed:
            count, looked_at = certified_count(in_units(smaller), samples, least, options)
        entry = CertifiedLevel(
            setting=levels[place].setting,
            nonzeros=weights(smaller),
            certified=count,
            looked_at=looked_at,
            kept=count >= least,
        )
        tried.append(entry)
        return pair if entry.kept else None

    place, pair = _furthest(len(levels), kept)
    table = KeptCertified(
        eps=chosen.eps.value,
        n=len(samples),
        before=before,
        least=least,
        time_limit=chosen.time_limit,
        max_nodes=chosen.max_nodes,
        levels=tuple(tried),
    )
    return Found(None if pair is None else levels[place], pair, table)


def _furthest(n: int, kept: Callable[[int], Compressed | None]) -> tuple[int, Compressed | None]:
    """Return the last place that is kept where those behind it are not, and what it gives; None where the first fails.

    The furthest is tried first, then halves: of a level that is kept all milder ones are taken to be.
    """
    best, pair = -1, None
    low, high, place = -1, n, n - 1
    while high - low > 1:
        found = kept(place)
        if found is None:
            high = place
        else:
            low, best, pair = place, place, found
        place = (low + high) // 2
    return best, pair


def certified_count(
    model: ImplicitModel, samples: Sequence[Sample], least: int | None, options: Options
) -> tuple[int, int]:
    """Return how many samples are certified, and how many were looked at: all, or until `least` is out of reach.

    Args:
        model: in the units of the samples; it is its own original.
        samples: with their boxes.
        least: how many must be certified; None counts them all.
        options: of each verdict.
    """
    certified, looked_at = 0, 0
    for is_certified in _verdicts(model, samples, options):
        looked_at += 1
        certified += is_certified
        if least is not None and certified + len(samples) - looked_at < least:
            break
    return certified, looked_at


def _verdicts(model: ImplicitModel, samples: Sequence[Sample], options: Options) -> Iterator[bool]:
    def network(points: np.ndarray) -> np.ndarray:
        return model(points.astype(np.float64))

    for start in range(0, len(samples), AT_ONCE):
        part = samples[start : start + AT_ONCE]
        for one, known in zip(part, decide_together(model, network, part, options), strict=True):
            found = known or decide_sample(model, network, one.point, one.label, one.inputs, options)
            yield found.verdict is Verdict.CERTIFIED


def _samples(labelled: Samples, chosen: CompressOptions, data: DataOptions) -> list[Sample]:
    assert chosen.eps is not None
    assert labelled.labels is not None
    boxes = sample_boxes(labelled, [chosen.eps], data.preprocessing.bounds)
    return [
        Sample(x, int(label), own[0]) for x, label, own in zip(labelled.inputs, labelled.labels, boxes, strict=True)
    ]


def _in_data_units(model: ImplicitModel, *, opened: Opened, data: DataOptions) -> ImplicitModel:
    return in_data_units(model, *data.preprocessing.affine(opened.subject.input_shape))
