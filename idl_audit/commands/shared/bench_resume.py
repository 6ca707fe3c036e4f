"""bench --resume: which rows of an earlier report are kept, and why the others are decided again.

Names are not enough: the same name may stand for another network by now, or in another folder. A row is kept where
this version judged it, on the same bytes (those of weights beside the network included), in no less time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from idl_audit import __version__
from idl_audit.data.instances import Instance
from idl_audit.graph.files import combined_sha256, hashed
from idl_audit.report.schema import Diagnostic, PropertyReport, Report
from idl_audit.values.errors import ModelFileError
from idl_audit.values.verdicts import ArithmeticName

Hasher = Callable[[Path], str]
"""Path -> SHA-256 of the file."""


def row_sha256(network: str, property: str) -> str:
    """Return the hash of a row by that of its network, weights beside it included, and that of its property."""
    return combined_sha256(network, [property])


def property_file(path: Path) -> Path:
    """Return the property's file; lists often name it without the .gz that it has, or with one that it lacks."""
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(f"{path.name}.gz")
    return other if other.is_file() and not path.exists() else path


def kept_rows(
    instances: Sequence[Instance],
    folder: Path,
    seconds: Sequence[float],
    earlier: Report | None,
    max_nodes: int | None = None,
    arithmetic: ArithmeticName = "real",
) -> tuple[dict[int, PropertyReport], tuple[Diagnostic, ...]]:
    """Return number -> entry of the rows that need not be decided again, and what is to be told of the others.

    Args:
        instances: the rows as the list has them now.
        folder: where their files lie.
        seconds: the time that each row gets now.
        earlier: the report that the run goes on from.
        max_nodes: the nodes that each row gets now; None for no limit.
        arithmetic: what unsat is to be proved for.
    """
    if earlier is None:
        return {}, ()
    known = {(entry.onnx, entry.vnnlib): entry for entry in earlier.properties}
    hasher = cache(lambda path: hashed(path).sha256)
    kept: dict[int, PropertyReport] = {}
    again: Counter[str] = Counter()
    for number, (instance, limit) in enumerate(zip(instances, seconds, strict=True)):
        entry = known.get((instance.onnx, instance.vnnlib))
        if entry is None:
            continue
        why = _why_again(entry, folder, limit, earlier.tool.version, hasher) or _more_nodes(entry, max_nodes)
        if entry.arithmetic != arithmetic:
            why = f"they were asked about {entry.arithmetic} arithmetic, and are about {arithmetic} now"
        if why is None:
            kept[number] = entry.model_copy(update={"truth": instance.truth})
        else:
            again[why] += 1
    return kept, tuple(_told(again, len(kept)))


def _told(again: Counter[str], kept: int) -> Iterator[Diagnostic]:
    """Say how many rows that an earlier report has are decided again, and why."""
    if not again:
        return
    whys = "; ".join(why if len(again) == 1 else f"{why} ({count})" for why, count in again.items())
    message = f"{again.total()} of {again.total() + kept} rows of the earlier report are decided again: {whys}"
    yield Diagnostic(code="IDL506", level="warning", message=message)


def _why_again(entry: PropertyReport, folder: Path, seconds: float, version: str, hasher: Hasher) -> str | None:
    """Return why an entry of an earlier report does not answer a row; None where it does."""
    if version != __version__:
        return f"version {version} of idl-audit decided them, and this is {__version__}"
    if entry.problem is not None:
        return "they could not be judged"
    if entry.sha256 is None or entry.sha256 != sha256_now(entry, folder, hasher):
        return "their files changed since, or may have"
    if entry.result in ("unknown", "timeout") and entry.time_limit is not None and entry.time_limit < seconds:
        return "they were undecided and have more time now"
    return None


def _more_nodes(entry: PropertyReport, max_nodes: int | None) -> str | None:
    """Return why an undecided entry is decided again with so many nodes; None where it has no more than before."""
    undecided = entry.result in ("unknown", "timeout") and entry.max_nodes is not None
    if undecided and (max_nodes is None or max_nodes > (entry.max_nodes or 0)):
        return "they were undecided and have more nodes now"
    return None


def sha256_now(entry: PropertyReport, folder: Path, hasher: Hasher) -> str | None:
    """Return the hash of an entry's files as they are now; None where one cannot be read.

    Which weights lie beside a network is said by its own file: where that is the same, so are their names.
    """
    network = folder / entry.onnx
    try:
        beside = [hasher(network.parent / name) for name in entry.external_files]
        return row_sha256(combined_sha256(hasher(network), beside), hasher(property_file(folder / entry.vnnlib)))
    except (ModelFileError, OSError, ValueError):
        return None
