"""Which weights are best: what our own prover certifies of samples that training has not seen.

A network of which intervals certify little may be certified by lines, and one of which lines certify little by
branching; so it is the cheap rungs of the ladder on all samples that are kept apart, then branching on some of those
that stay open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from idl_audit.decide.ladder import Options, Sample, decide_sample, decide_together
from idl_audit.implicit.model import ImplicitModel
from idl_audit.values.margins import predictions
from idl_audit.values.verdicts import Verdict

AT_ONCE: Final = 64
"""Samples that climb a rung together."""
BRANCHED: Final = 20
"""Open samples that are branched on, at most."""
NODES: Final = 100
"""Of each of them: the same work on every machine."""
SECONDS: Final = 5.0
"""A safety net of each of them."""


@dataclass(frozen=True)
class Score:
    """What is known of a network on the samples kept apart; counts."""

    n: int
    clean: int
    """Samples whose class is the label."""
    by_intervals: int
    by_lines: int
    """Those certified by intervals among them."""
    branched: int
    """Open samples that were branched on."""
    by_branching: int
    """Of them, those certified."""
    open: int
    """Samples that neither lines certify nor the network gets wrong."""

    @property
    def certified(self) -> float:
        """About how many samples would be certified if all open ones were branched on."""
        share = self.by_branching / self.branched if self.branched else 0.0
        return self.by_lines + share * self.open


def score(model: ImplicitModel, samples: Sequence[Sample]) -> Score:
    """Return what the ladder certifies of samples; the implicit model itself is the network that is asked.

    Nothing is claimed of it: verdicts on the file that is written come from an audit of their own.
    """
    if not samples:
        return Score(0, 0, 0, 0, 0, 0, 0)

    def network(points: np.ndarray) -> np.ndarray:
        return model(points.astype(np.float64))

    options = Options(methods=("interval", "linear"), time_limit=SECONDS * len(samples))
    by_intervals, by_lines, clean = 0, 0, 0
    left: list[Sample] = []
    right = predictions(network(np.stack([one.point for one in samples]))) == [one.label for one in samples]
    for start in range(0, len(samples), AT_ONCE):
        part = [one for one, is_right in zip(samples[start : start + AT_ONCE], right[start:], strict=False) if is_right]
        clean += len(part)
        found = decide_together(model, network, part, options) if part else []
        for one, known in zip(part, found, strict=True):
            result = known or decide_sample(model, network, one.point, one.label, one.inputs, options)
            if result.verdict is Verdict.CERTIFIED:
                by_lines += 1
                by_intervals += result.method == "interval"
            else:
                left.append(one)
    some = left[:BRANCHED]
    hard = Options(time_limit=SECONDS, max_nodes=NODES)
    verdicts = [decide_sample(model, network, one.point, one.label, one.inputs, hard).verdict for one in some]
    by_branching = sum(verdict is Verdict.CERTIFIED for verdict in verdicts)
    return Score(len(samples), clean, by_intervals, by_lines, len(some), by_branching, len(left))
