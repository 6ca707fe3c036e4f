"""Which weights are best: what our own prover certifies of samples that training has not seen.

A network of which intervals certify little may be certified by lines, and one of which lines certify little by
branching; so it is the cheap rungs of the ladder on all samples that are kept apart, then branching on some of those
that stay open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from idl_audit.decide.ladder import Options, Sample, decide_sample, decide_together
from idl_audit.implicit.model import ImplicitModel
from idl_audit.training.fine_tune import Samples as Held
from idl_audit.training.losses import attacked
from idl_audit.training.network import Twin
from idl_audit.values.arrays import BoolArray
from idl_audit.values.verdicts import Verdict

AT_ONCE: Final = 64
"""Samples that climb a rung together."""
BRANCHED: Final = 20
"""Open samples that are branched on, at most."""
FIRST_LOOK: Final = 5
"""Of them: where branching certifies none of these, it is not asked about the others."""
NODES: Final = 100
"""Of each of them: the same work on every machine."""
SECONDS: Final = 5.0
"""A safety net of each of them."""


BATCH: Final = 256
"""Samples that the network is asked about at once."""
ATTACK_STEPS: Final = 20
"""Of the attack whose victims need no proof."""


@dataclass(frozen=True)
class Score:
    """What is known of a network on the samples kept apart; counts."""

    held: int
    """Samples kept apart."""
    clean: int
    """Of them, those whose class is the label."""
    n: int
    """Those that were asked for more: the first ones."""
    by_intervals: int
    by_lines: int
    """Those certified by intervals among them."""
    branched: int
    """Open samples that were branched on."""
    by_branching: int
    """Of them, those certified."""
    open: int
    """Samples that lines do not certify, the network gets right, and a short attack does not break."""

    @property
    def certified(self) -> float:
        """About how many of the n samples would be certified if all open ones were branched on."""
        share = self.by_branching / self.branched if self.branched else 0.0
        return self.by_lines + share * self.open


def certified_of(model: ImplicitModel, samples: Sequence[Sample], *, branch: bool = True) -> tuple[int, int, int, int]:
    """Return how many samples intervals and lines certify, how many open ones were branched on, and certified so.

    The implicit model itself is the network that is asked. Nothing is claimed of it: verdicts on the file that is
    written come from an audit of their own.

    Args:
        model: the network, in the units of the samples.
        samples: those that the network gets right and no attack has broken.
        branch: whether open ones are branched on.
    """

    def network(points: np.ndarray) -> np.ndarray:
        return model(points.astype(np.float64))

    by_intervals, by_lines = 0, 0
    left: list[Sample] = []
    for start in range(0, len(samples), AT_ONCE):
        part = samples[start : start + AT_ONCE]
        options = Options(methods=("interval", "linear"), time_limit=SECONDS * len(part))
        for one, found in zip(part, decide_together(model, network, part, options), strict=True):
            if found is not None and found.verdict is Verdict.CERTIFIED:
                by_lines += 1
                by_intervals += found.method == "interval"
            else:
                left.append(one)
    branched = by_branching = 0
    hard = Options(time_limit=SECONDS, max_nodes=NODES)
    for one in left[:BRANCHED] if branch else ():
        if branched >= FIRST_LOOK and not by_branching:
            break
        verdict = decide_sample(model, network, one.point, one.label, one.inputs, hard).verdict
        branched += 1
        by_branching += verdict is Verdict.CERTIFIED
    return by_intervals, by_lines, branched, by_branching


def right_of(network: Twin, samples: Held) -> BoolArray:
    """Return of which samples the network predicts the label, (n,)."""
    found = []
    with torch.no_grad():
        for places in _parts(len(samples.x)):
            found.append(network(samples.x[places]).argmax(1) == samples.y[places])
    return np.asarray(torch.cat(found).numpy())


def withstood(network: Twin, samples: Held, seed: int) -> BoolArray:
    """Return of which samples a short attack leaves the prediction right, (n,)."""
    chance = torch.Generator().manual_seed(seed)
    found = []
    for places in _parts(len(samples.x)):
        points = attacked(network, samples.batch(places, 1.0), ATTACK_STEPS, chance)
        with torch.no_grad():
            found.append(network(points).argmax(1) == samples.y[places])
    return np.asarray(torch.cat(found).numpy())


def _parts(n: int) -> Iterator[torch.Tensor]:
    return (torch.arange(start, min(start + BATCH, n)) for start in range(0, n, BATCH))
