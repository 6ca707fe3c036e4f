"""The samples that an audit has decided, in the little memory that they take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from idl_audit.commands.shared.kept_points import KeptPoints
from idl_audit.commands.shared.sample_tasks import Decided
from idl_audit.search.judge import Found
from idl_audit.values.arrays import FloatArray
from idl_audit.values.verdicts import Verdict


@dataclass(frozen=True, eq=False)
class DecidedSamples:
    """The samples that are decided, in order, and what they were robbed of to take little memory."""

    samples: list[Decided]
    kept: KeptPoints

    def given_up(self) -> Iterator[Decided]:
        """Yield every sample whole, and forget it: what is made of it takes its place."""
        self.samples.reverse()
        while self.samples:
            yield self.kept.get(self.samples.pop())

    @property
    def successes(self) -> Iterator[tuple[Decided, FloatArray, float, Found]]:
        """Every sample with its own point, and every radius and point where an attack succeeded."""
        for sample in map(self.kept.get, self.samples):
            for eps, result in sample.results.items():
                if result.verdict is Verdict.FALSIFIED and result.found is not None and sample.centre is not None:
                    yield sample, sample.centre, eps, result.found
