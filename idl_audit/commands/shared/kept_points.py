"""Counterexamples and their samples while an audit goes on: a few in memory, many on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from tempfile import SpooledTemporaryFile
from typing import Final, Self

import numpy as np

from idl_audit.commands.shared.sample_tasks import Decided
from idl_audit.decide.ladder import Result
from idl_audit.values.arrays import Float32Array
from idl_audit.values.errors import OptionError
from idl_audit.values.verdicts import Verdict

IN_MEMORY: Final = 2**23
"""Bytes; what is more goes to a file without a name among the temporary ones."""
_NONE: Final = np.empty(0, np.float32)


class KeptPoints:
    """The points of falsified samples, put away and taken out again, those of a sample at a time."""

    def __init__(self, p: int) -> None:
        """Begin without any; `p` is the length of a point."""
        self._p = p
        self._file = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 (closed by `__exit__`)
        self._begins: dict[int, int] = {}
        """Position of a sample -> where its numbers begin."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, sample: Decided) -> None:
        """Take the sample's own point and its counterexamples out of it. Raises OptionError where there is no room."""
        if sample.centre is None:
            return
        with _told():
            self._begins[sample.position] = self._file.seek(0, 2)
            self._file.write(sample.centre.astype("<f8").tobytes())
            for eps, result in _falsified(sample):
                assert result.found is not None  # what is falsified has its point
                self._file.write(result.found.point.astype("<f4").tobytes())
                sample.results[eps] = _with_point(result, _NONE)
        sample.centre = None

    def get(self, sample: Decided) -> Decided:
        """Return the sample with what was taken out of it."""
        if sample.position not in self._begins:
            return sample
        with _told():
            self._file.seek(self._begins[sample.position])
            centre = np.frombuffer(self._file.read(8 * self._p), "<f8")
            points = {eps: np.frombuffer(self._file.read(4 * self._p), "<f4") for eps, _ in _falsified(sample)}
        whole = {
            eps: _with_point(result, points[eps]) if eps in points else result for eps, result in sample.results.items()
        }
        return replace(sample, centre=centre, results=whole)


def _falsified(sample: Decided) -> list[tuple[float, Result]]:
    return [(eps, one) for eps, one in sample.results.items() if one.verdict is Verdict.FALSIFIED]


def _with_point(result: Result, point: Float32Array) -> Result:
    return result if result.found is None else replace(result, found=replace(result.found, point=point))


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OptionError(
            f"counterexamples cannot be kept among the temporary files ({error.strerror}); name a folder with room by "
            "TMPDIR, or audit fewer samples at a time"
        ) from error
