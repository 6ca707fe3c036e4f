"""--images: a heat map of S for each output, all on one colour scale."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from idl_audit.report.input_maps import as_image
from idl_audit.report.pictures import draw_heat_map
from idl_audit.values.arrays import FloatArray
from idl_audit.values.files import make_folder, write_whole

MOST_PICTURES = 20
"""The first so many outputs get a picture."""


def draw_rows(folder: Path, matrix: FloatArray, *, shape: tuple[int, ...], name: str, where: str) -> tuple[Path, ...]:
    """Draw the rows of S, shape (q, p), as `sensitivity-class-3.png` and so on; return the files.

    Args:
        folder: made where it does not exist.
        matrix: the sensitivity matrix.
        shape: of one input.
        name: of the network.
        where: what the matrix holds for.

    Raises:
        OptionError: where a file cannot be written.
    """
    make_folder(folder)
    rows = matrix[:MOST_PICTURES]
    largest = max((float(as_image(row, shape).max()) for row in rows), default=0.0)
    digits = len(str(max(len(rows) - 1, 0)))
    files = tuple(folder / f"sensitivity-class-{i:0{digits}d}.png" for i in range(len(rows)))
    for i, file in enumerate(files):
        draw = partial(
            draw_heat_map,
            values=rows[i],
            shape=shape,
            largest=largest,
            title=f"{name}: sensitivity of output {i}, {where}",
            caption=f"row sum {rows[i].sum():.4g}; one scale for all outputs",
            unit="output change per unit",
        )
        write_whole(file, draw)
    return files
