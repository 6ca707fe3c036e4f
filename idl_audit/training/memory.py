"""What a run of harden has reached so far, in a file beside what it writes, so that the same command can go on.

One .npz: the runs that are done, with what the judge said of them, and where the current run stands. It is read as
every other file is: without pickles, and each array must have the shape and type that the network's weights give it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from idl_audit.training.choose import Score
from idl_audit.training.fine_tune import PARTS, State
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.errors import ModelFileError, OptionError
from idl_audit.values.npz import read_npz, write_npz

CHANCE_BYTES: Final = 2**16
"""No state of a generator is larger."""


@dataclass(frozen=True, eq=False)
class Done:
    """A run that is done."""

    name: str
    weights: Mapping[str, FloatArray]
    steps: int
    score: Score


@dataclass(eq=False)
class Memory:
    """Nothing is kept, unless there is a file."""

    path: Path | None = None
    key: str = ""
    """What must be the same in the run that goes on: a hash of model, samples and options."""
    runs: list[Done] = field(default_factory=list)
    state: State | None = None
    """Where the run behind the last one that is done stands."""

    @classmethod
    def open(cls, path: Path, key: str, shapes: Mapping[str, tuple[int, ...]], *, resume: bool) -> Memory:
        """Return what a file remembers with `resume`, else an empty memory that will be written to it.

        Args:
            path: the file; it need not be there.
            key: what the run is about.
            shapes: of the weights that are trained.
            resume: whether to go on from what it has.

        Raises:
            OptionError: where there is a file and no resume, or it is about something else.
            ModelFileError: where it is damaged.
        """
        found = cls(path, key)
        if not path.exists():
            return found
        if not resume:
            raise OptionError(f"{path} holds a run that was interrupted; go on with --resume, or remove it")
        arrays = read_npz(path)
        try:
            meta = json.loads(str(arrays["meta"]))
            if meta["key"] != key:
                raise OptionError(f"{path} is about another model, other samples or other options; remove it")
            for k, run in enumerate(meta["runs"]):
                own = {name: _taken(arrays[f"run{k}/{i}"], shape) for i, (name, shape) in enumerate(shapes.items())}
                found.runs.append(Done(str(run["name"]), own, int(run["steps"]), Score(**_counts(run["score"]))))
            if meta["step"] is not None:
                found.state = _state(arrays, int(meta["step"]), shapes)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"{path} is no memory of a run of harden; remove it to start anew") from error
        return found

    def done(self, run: Done) -> None:
        """Remember a run that is done."""
        self.runs.append(run)
        self.state = None
        self._write()

    def stands(self, state: State) -> None:
        """Remember where a run stands."""
        self.state = state
        self._write()

    def forget(self) -> None:
        """Remove the file: everything is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        if self.path is None:
            return
        arrays: dict[str, AnyArray] = {}
        for k, run in enumerate(self.runs):
            arrays |= {f"run{k}/{i}": value for i, value in enumerate(run.weights.values())}
        if self.state is not None:
            for part in PARTS:
                arrays |= {f"{part}/{i}": value for i, value in enumerate(getattr(self.state, part))}
            arrays["chance"] = self.state.chance
        runs = [{"name": run.name, "steps": run.steps, "score": asdict(run.score)} for run in self.runs]
        meta = {"key": self.key, "runs": runs, "step": None if self.state is None else self.state.step}
        write_npz(self.path, {**arrays, "meta": np.asarray(json.dumps(meta))}, force=True)


def _taken(array: AnyArray, shape: Sequence[int]) -> FloatArray:
    if array.shape != tuple(shape) or array.dtype != np.float32 or not np.isfinite(array).all():
        raise ValueError("an array does not fit the network")
    return array


def _counts(given: Any) -> dict[str, int]:
    return {str(name): int(value) for name, value in given.items()}


def _state(arrays: Mapping[str, AnyArray], step: int, shapes: Mapping[str, tuple[int, ...]]) -> State:
    parts = {
        part: tuple(_taken(arrays[f"{part}/{i}"], shape) for i, shape in enumerate(shapes.values())) for part in PARTS
    }
    chance = arrays["chance"]
    if step < 0 or chance.dtype != np.uint8 or chance.ndim != 1 or chance.size > CHANCE_BYTES:
        raise ValueError("where the run stands does not fit")
    return State(step=step, chance=chance, **parts)
