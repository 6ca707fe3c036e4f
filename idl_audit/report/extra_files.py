"""Files that belong to a report: named by the user, or found beside it under the name that the report gives.

A report may come from anywhere. So of what it names only the last part counts, only in the report's own folder, and
only if the content is what the report speaks of: no report can bring another file into a page.
"""

from __future__ import annotations

from pathlib import Path, PurePath, PureWindowsPath

import numpy as np

from idl_audit.report.adversarial_file import Triple, read_triples
from idl_audit.report.render.extras import Extras
from idl_audit.report.schema import Report, Verdict
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import DataError, IdlAuditError, OptionError
from idl_audit.values.npz import read_npz


def find_extras(
    report: Report,
    *,
    folder: Path,
    adversarial: Path | None,
    matrix: Path | None,
    image_shape: tuple[int, ...] | None,
) -> tuple[Extras, tuple[str, ...]]:
    """Return what can be drawn beside the report's figures, and a sentence on each file beside it that was not used.

    Args:
        report: what was found.
        folder: the report's.
        adversarial: what --save of attack or certify wrote; None looks for it in the folder.
        matrix: what --save of sensitivity wrote; likewise.
        image_shape: of an input, where the model reads it flat.

    Raises:
        InvalidInputError: where a file that was named cannot be read, or does not belong to this report.
    """
    notes: list[str] = []
    triples: tuple[Triple, ...] = ()
    if adversarial is not None:
        triples = _triples(report, adversarial)
    elif any(result.verdict is Verdict.FALSIFIED for sample in report.samples for result in sample.results):
        for path in _beside(folder, report.artifacts):
            try:
                arrays = read_npz(path)
                if not {"inputs", "originals"}.isdisjoint(arrays):  # else it is another step's: S, bounds, a witness
                    triples = read_triples(report, arrays, source=path)
            except IdlAuditError as error:
                notes.append(f"not drawn: {error}")
    found: FloatArray | None = None
    if matrix is not None:
        found = _matrix(report, matrix)
    elif report.sensitivity is not None and report.sensitivity.matrix_file is not None:
        for path in _beside(folder, (report.sensitivity.matrix_file,)):
            try:
                found = _matrix(report, path)
            except IdlAuditError as error:
                notes.append(f"not drawn: {error}")
    if image_shape is not None:
        sizes = {triple.original.size for triple in triples} | ({found.shape[1]} if found is not None else set())
        if sizes and int(np.prod(image_shape)) not in sizes:
            shape = ",".join(map(str, image_shape))
            raise OptionError(
                f"--image-shape {shape} has {int(np.prod(image_shape))} numbers, and an input {sizes.pop()}"
            )
    return Extras(triples, found, image_shape), tuple(notes)


def _beside(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Return the .npz files of these names in the folder: files only, no links."""
    bare = [PureWindowsPath(PurePath(name).name).name for name in names]
    paths = [folder / name for name in bare if name.endswith(".npz") and "\0" not in name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def _triples(report: Report, path: Path) -> tuple[Triple, ...]:
    return read_triples(report, read_npz(path), source=path)


def _matrix(report: Report, path: Path) -> FloatArray:
    found = read_npz(path).get("S")
    if found is None or found.ndim != 2 or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise DataError(f"{path} has no matrix S; give the file that sensitivity wrote with --save")
    expected = () if report.sensitivity is None else report.sensitivity.row_sums
    sums = np.asarray(found, np.float64).sum(axis=1)
    if not (found >= 0).all() or len(sums) != len(expected) or not np.allclose(sums, expected, rtol=1e-6, atol=1e-12):
        raise DataError(f"{path} was not written with this report: the row sums of its S are others")
    return np.asarray(found, np.float64)
