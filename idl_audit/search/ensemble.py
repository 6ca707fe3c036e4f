"""The attacks that `auto` stands for: each with the same budget of queries and no parameter beside it.

    apgd-ce   descent on the cross-entropy, from the sample and from random points
    apgd-t    descent on the difference of logits ratio towards each of the nearest classes
    fmn       the nearest point of each of the nearest classes
    square    random search that sees the original network's outputs alone

The first three descend on the implicit model and are judged by the network; the last one asks the network alone. A
sample that one of them topples is left alone by the others.

Elsewhere: AutoAttack (Croce, Hein 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from idl_audit.search.auto_descent import auto_descent, corner_descent, cross_entropy, likelihood_of_aims, logits_ratio
from idl_audit.search.nearest import nearest_points
from idl_audit.search.pack import Pack, Quarry, nearest_rivals
from idl_audit.search.square import square_search
from idl_audit.values.arrays import IntArray

STEPS: Final = 100
"""Of a descent on the cross-entropy; what is left of the queries is spent on other starts."""
MOST_AIMS: Final = 9
FEWEST_STEPS: Final = 20
"""Towards each aim: with fewer queries there are fewer aims."""

Member: TypeAlias = Callable[[Sequence[Quarry], int], None]
"""(samples, queries each) -> None: shows points to the judges of the samples."""


def cross_entropy_descent(quarries: Sequence[Quarry], queries: int) -> None:
    """Descend on the cross-entropy from the sample, then from random points of the set."""
    steps = min(STEPS, queries)
    loss = likelihood_of_aims() if quarries[0].goal is not None else cross_entropy()
    pack = Pack.of(quarries, [_one_aim(one) for one in quarries])
    auto_descent(pack, pack.regions.centre.copy(), loss, steps)
    pack = Pack.of(quarries, [np.repeat(_one_aim(one), queries // steps - 1) for one in quarries])
    auto_descent(pack, pack.drawn(), loss, steps)


def _one_aim(quarry: Quarry) -> IntArray:
    """Return the goal; where any class counts, one that stands for all."""
    return np.array([int(quarry.target.label == 0) if quarry.goal is None else quarry.goal])


def targeted_descent(quarries: Sequence[Quarry], queries: int) -> None:
    """Descend on the difference of logits ratio towards each of the nearest classes, from a random point each."""
    pack, steps = towards_rivals(quarries, queries)
    if pack.regions.norm == "l1":
        corner_descent(pack, pack.regions.centre.copy(), logits_ratio(), steps)
    else:
        auto_descent(pack, pack.drawn(), logits_ratio(), steps)


def nearest_search(quarries: Sequence[Quarry], queries: int) -> None:
    """Look for the nearest points of the nearest classes; any in the set is enough."""
    pack, steps = towards_rivals(quarries, queries)
    nearest_points(pack, steps, until_found=True)


def towards_rivals(quarries: Sequence[Quarry], queries: int) -> tuple[Pack, int]:
    """Return a row for each of the nearest classes, and the queries that each row has."""
    aims = nearest_rivals(quarries, min(MOST_AIMS, max(1, queries // FEWEST_STEPS)))
    most = max(len(own) for own in aims)
    return Pack.of(quarries, aims), max(1, (queries - 1) // most)


def black_box(quarries: Sequence[Quarry], queries: int) -> None:
    """Look at random, seeing the network's outputs alone."""
    square_search(Pack.of(quarries, [_one_aim(one) for one in quarries]), queries)


MEMBERS: Final[Mapping[str, Member]] = MappingProxyType(
    {
        "apgd-ce": cross_entropy_descent,
        "apgd-t": targeted_descent,
        "fmn": nearest_search,
        "square": black_box,
    }
)
"""Name -> attack, in the order in which they are run."""
