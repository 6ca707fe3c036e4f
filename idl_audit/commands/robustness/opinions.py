"""Who confirms an attack: the original network, exact arithmetic, and a second runtime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.robustness.decided import DecidedSamples
from idl_audit.commands.shared.audited import floats
from idl_audit.commands.shared.sample_tasks import Decided
from idl_audit.commands.shared.subject import Subject
from idl_audit.data.features import Features
from idl_audit.report.schema import (
    Diagnostic,
)
from idl_audit.search.judge import Found
from idl_audit.values.arrays import Float32Array
from idl_audit.values.demand import PartedQuery
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.network import Network

MOST_BROKEN = 20
"""Parts that a report names of those that one point breaks."""


CHECKED_OPINIONS = 20
"""A second opinion must agree with the original network on so many samples that were attacked."""


@dataclass(frozen=True)
class Opinions:
    """Who confirmed which attack: the networks in data units, the first the original's."""

    networks: tuple[tuple[str, Network], ...]
    goal: int | None = None
    """The class that attacks aim at."""
    floats: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    """What the original network reads of the data."""
    why_alone: str = ""
    """Why there is no second opinion, where there might be one."""
    features: Features | None = None
    """What the inputs are called."""
    has_scores: bool = True
    """Whether the original network shows scores; one that ends in ArgMax shows the class alone, and no margin."""

    def of(self, found: Found, sample: Decided) -> tuple[str, ...]:
        """Return the names of those that err at the point of a sample.

        The judge has asked the original network about it, alone, and exact arithmetic where that counts.
        """
        (name, _), *others = self.networks
        exact = (found.confirmed_by,) if found.confirmed_by else ()
        return (name, *exact, *(name for name, network in others if self._confirms(network, found.point, sample)))

    def _confirms(self, network: Network, point: Float32Array, sample: Decided) -> bool:
        """Whether a second opinion errs at the point; one that cannot be run on it has none."""
        try:
            return self._errs(network, point, sample)
        except UnsupportedModelError:
            return False

    def _errs(self, network: Network, point: Float32Array, sample: Decided) -> bool:
        """Whether a network misclassifies the point, as the goal where there is one, or breaks what is demanded."""
        return bool(sample.query(network(point[None]).shape[1], self.goal).holds(network(point[None]))[0])

    def margin(self, point: Float32Array, sample: Decided) -> float | None:
        """Return how far the original network is from erring, y_label - max over the others; None where no number."""
        outputs = self.networks[0][1](point[None])
        if not (self.has_scores and np.isfinite(outputs).all()):
            return None
        return float(sample.query(outputs.shape[1]).distance(outputs)[0])

    def broken(self, point: Float32Array, sample: Decided) -> tuple[int, ...]:
        """Return the first parts of what is demanded that the original network breaks there."""
        outputs = self.networks[0][1](point[None])[0]
        query = sample.query(outputs.size)
        return tuple(query.broken(outputs)[:MOST_BROKEN].tolist()) if isinstance(query, PartedQuery) else ()

    def survives_8bit(self, point: Float32Array, sample: Decided, bounds: tuple[float, float]) -> bool:
        """Return whether the point is still an attack when it is stored as 8-bit pixels."""
        lo, hi = bounds
        levels = np.round((point.astype(np.float64) - lo) / (hi - lo) * 255)
        pixels = (lo + levels * (hi - lo) / 255).astype(np.float32)
        return self._errs(self.networks[0][1], pixels, sample)


def opinions_of(subject: Subject, decided: DecidedSamples, options: RobustnessOptions) -> Opinions:
    """Return who is asked about attacks: the original network and, where an attack succeeded, a second opinion."""
    preprocessing = options.data.preprocessing
    own = (subject.original.name, subject.network(preprocessing))
    attacked = {sample.position: centre for sample, centre, *_ in islice(decided.successes, CHECKED_OPINIONS)}
    kind = floats(subject, options)
    if not attacked:
        return Opinions((own,), options.target, kind)
    second = subject.second_opinion(preprocessing, np.stack(list(attacked.values())))
    if second is None or second.network is None:
        return Opinions((own,), options.target, kind, "" if second is None else second.why_not)
    return Opinions((own, second.network), options.target, kind)


def missing_opinion(opinions: Opinions) -> Iterator[Diagnostic]:
    """Say that nobody but the original network was asked about the attacks."""
    if opinions.why_alone:
        yield Diagnostic(
            code="IDL211",
            level="info",
            message=f"no second opinion on the attacks: {opinions.why_alone}",
            hint=f"what is falsified is so by {opinions.networks[0][0]} alone",
        )
