"""Samples in tensor files: .safetensors, and .pt files that hold plain tensors. A door to torch and safetensors."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from idl_audit.data.array_files import MAX_ARRAY_BYTES, ArrayFile
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

_PLAIN: Final = "save a dict of tensors with torch.save({'inputs': x, 'labels': y}, path), or use numpy.savez"


def read_safetensors(path: Path, wanted: Sequence[Sequence[str]]) -> ArrayFile:
    """Return of each group of names the first tensor that the file has; a single tensor answers the first group.

    Raises:
        DataError: where the file is damaged, a tensor is too large, or numpy has no such numbers.
    """
    from safetensors import SafetensorError, safe_open

    _check_size(path)
    try:
        with safe_open(path, framework="numpy") as file:
            names = tuple(file.keys())
            arrays = tuple(None if name is None else file.get_tensor(name) for name in _chosen(names, wanted))
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:  # bfloat16 has no numpy type
        raise DataError(
            f"{path} cannot be read as safetensors ({_first_line(error)}); write it again as float32"
        ) from error
    return ArrayFile(arrays, names, _digest(path))


def read_torch_tensors(path: Path, wanted: Sequence[Sequence[str]]) -> ArrayFile:
    """Return the tensors of a .pt file, read by weights_only=True, which runs nothing in it.

    The file holds a dict of tensors, one tensor (the inputs), or a pair (inputs, labels).

    Raises:
        DataError: where the file holds anything but tensors, or one is too large.
    """
    import torch

    _check_size(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the file leads it to
        raise DataError(f"{path} holds more than plain tensors, and is not loaded; {_PLAIN}") from error
    named = _named(found, wanted)
    if named is None:
        raise DataError(f"{path} holds {type(found).__name__} values that are no tensors of samples; {_PLAIN}")
    chosen = _chosen(tuple(named), wanted)
    arrays = tuple(None if name is None else _as_array(path, name, named[name]) for name in chosen)
    return ArrayFile(arrays, tuple(named), _digest(path))


def _named(found: object, wanted: Sequence[Sequence[str]]) -> dict[str, Any] | None:
    """Return the tensors by name; None where the file has none."""
    import torch

    if isinstance(found, torch.Tensor):
        return {wanted[0][0]: found}
    if isinstance(found, (tuple, list)) and len(found) == 2 and all(isinstance(one, torch.Tensor) for one in found):
        return {"inputs": found[0], "labels": found[1]}
    if isinstance(found, Mapping):
        tensors = {str(name): one for name, one in found.items() if isinstance(one, torch.Tensor)}
        return tensors or None
    return None


def _as_array(path: Path, name: str, tensor: Tensor) -> AnyArray:
    if math.prod(tensor.shape) * tensor.element_size() > MAX_ARRAY_BYTES:  # a view of few numbers may claim many
        raise DataError(f"{path}: tensor {name!r} is above the limit of {MAX_ARRAY_BYTES / 2**30:g} GiB; save fewer")
    try:
        array: AnyArray = tensor.detach().resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError) as error:  # bfloat16, sparse, quantised
        raise DataError(
            f"{path}: tensor {name!r} has values of type {tensor.dtype}; save real numbers, for example "
            "with tensor.float()"
        ) from error
    if array.dtype.kind == "c":
        raise DataError(f"{path}: tensor {name!r} has values of type {tensor.dtype}; save real numbers")
    return array


def _chosen(names: Sequence[str], wanted: Sequence[Sequence[str]]) -> list[str | None]:
    """Return of each group the first name that is there; the only array there is answers the first group."""
    chosen = [next((name for name in group if name in names), None) for group in wanted]
    if len(names) == 1 and not any(chosen):
        chosen[0] = names[0]
    return chosen


def _check_size(path: Path) -> None:
    """Refuse, before anything is allocated, what would unpack to more than the limit."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                size = max(size, sum(info.file_size for info in archive.infolist()))
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DataError(f"{path} is damaged ({_first_line(error)}); write it again") from error
    if size > 2 * MAX_ARRAY_BYTES:
        raise DataError(
            f"{path} holds {size / 2**30:.1f} GiB, above the limit of {2 * MAX_ARRAY_BYTES / 2**30:g} GiB; "
            "save fewer samples in the file"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:200].rstrip(".") if lines and lines[0] else type(error).__name__
