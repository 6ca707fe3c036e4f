"""--images: a picture of every adversarial input beside its sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from idl_audit.report.pictures import draw_adversarial
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.files import make_folder, write_whole

MOST_PICTURES = 100
"""The first so many adversarial inputs get a picture."""


@dataclass(frozen=True)
class Pair:
    """One sample and what an attack made of it."""

    index: int
    label: int
    predicted: int
    """-1 where an output is no number."""
    eps: str
    """The radius as it was written."""
    original: FloatArray
    read: Float32Array
    """What the network reads of the original: only what differs from that has changed."""
    adversarial: Float32Array


def draw_pairs(
    folder: Path, pairs: Sequence[Pair], *, shape: tuple[int, ...], bounds: tuple[float, float] | None
) -> tuple[Path, ...]:
    """Draw each pair as `adversarial-sample-7-1.png`, counted where a sample has several; return the files.

    Args:
        folder: made where it does not exist.
        pairs: what to draw.
        shape: of one input.
        bounds: the valid range of the data: what is black and what is white.

    Raises:
        OptionError: where a file cannot be written.
    """
    make_folder(folder)
    files: list[Path] = []
    for pair in pairs:
        stem = f"adversarial-sample-{pair.index}"
        count = sum(file.name.startswith(f"{stem}-") for file in files) + 1
        change = np.abs(pair.adversarial.astype(np.float64) - pair.original)
        moved = pair.adversarial != pair.read
        draw = partial(
            draw_adversarial,
            original=pair.original,
            adversarial=np.where(moved, pair.adversarial, pair.original),
            shape=shape,
            bounds=bounds,
            titles=(f"original: class {pair.label}", f"adversarial: {_class(pair.predicted)}"),
            caption=f"sample {pair.index}, eps {pair.eps}: {moved.sum()} inputs changed by at most {change.max():.3g}",
        )
        files.append(folder / f"{stem}-{count}.png")
        write_whole(files[-1], draw)
    return tuple(files)


def _class(predicted: int) -> str:
    return f"class {predicted}" if predicted >= 0 else "no number"
