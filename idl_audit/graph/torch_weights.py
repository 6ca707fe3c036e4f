"""Files of weights without the network, state dicts and safetensors: read without running anything, and written anew.

A door to torch and safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from idl_audit.graph.ir import shown
from idl_audit.graph.original import first_line
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import ModelFileError, OptionError
from idl_audit.values.files import write_whole


def weights_in(path: Path, kind: str) -> Mapping[str, Any]:
    """Return the state dict in a file, read without running anything."""
    import torch

    content, place = _content(path, kind)
    if place is not None:
        content = content[place]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ModelFileError(f"{path} holds no state dict; save one with torch.save(model.state_dict(), ...)")
    return content


def _content(path: Path, kind: str) -> tuple[Any, str | None]:
    """Return what a file of weights holds, read without running anything, and where in it the state dict stands."""
    import torch

    try:
        if kind == "safetensors":
            from safetensors.torch import load_file

            return dict(load_file(str(path))), None
        content = torch.load(str(path), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelFileError(
            f"{path} cannot be read as weights ({first_line(error)}); save it with torch.save(model.state_dict(), ...)"
        ) from error
    is_mapping = isinstance(content, Mapping)
    inside = (name for name in ("state_dict", "model_state_dict", "model") if is_mapping)
    return content, next((name for name in inside if isinstance(content.get(name), Mapping)), None)


def saved_names(path: Path, kind: str) -> frozenset[str]:
    """Return the names, as the module has them, of the float tensors in a file of weights."""
    weights = weights_in(path, kind)
    return frozenset(own for own, key in own_names(weights).items() if weights[key].is_floating_point())


def write_weights(path: Path, kind: str, out: Path, arrays: Mapping[str, AnyArray]) -> None:
    """Write a copy of a file of weights with other numbers in some tensors: same keys, order, shapes and types.

    Tensors that are one in the original are one in the copy; what a checkpoint holds besides stays.

    Args:
        path: the original: a state dict, a checkpoint with one, or safetensors.
        kind: what `reader.sniff` says of it.
        out: the copy; an existing file is replaced.
        arrays: name, as the module has it -> numbers of the same shape.

    Raises:
        ModelFileError: where the original cannot be read, or has no such tensor any more.
        OptionError: where a number does not fit its type, or the file cannot be written.
    """
    import torch

    content, place = _content(path, kind)
    state = content if place is None else content[place]
    names = own_names(state)
    for name, array in arrays.items():
        old = state.get(names.get(name, ""))
        if old is None or tuple(old.shape) != array.shape:
            raise ModelFileError(f"{path}: the tensor {shown(name)!r} was changed meanwhile; start again")
        new = torch.from_numpy(np.ascontiguousarray(array)).to(old.dtype)
        if not bool(torch.isfinite(new).all()):
            raise OptionError(f"a trained number of {shown(name)!r} does not fit its type {old.dtype}")
        old.copy_(new)  # in place: whatever shares these numbers has the new ones, too
    if kind == "safetensors":
        from safetensors import safe_open
        from safetensors.torch import save

        with safe_open(str(path), framework="pt") as file:
            told = file.metadata()
        written = save(state, metadata=told)
        write_whole(out, lambda file: file.write(written))
    else:
        write_whole(out, lambda file: torch.save(content, file))


def read_weights(path: Path) -> Mapping[str, Any]:
    """Return the state dict in a file of weights (.pt, .pth, .safetensors), read without running anything.

    Raises:
        ModelFileError: where there is none.
    """
    if not path.is_file():
        raise ModelFileError(f"{path} is no file; give a state dict that torch.save wrote")
    return weights_in(path, "safetensors" if path.suffix == ".safetensors" else "torch-zip")


def own_names(weights: Mapping[str, Any]) -> dict[str, str]:
    """Return the names that the module itself has for weights -> those in the file: without prefixes that all share."""
    state = {name: name for name in weights}
    for prefix in ("module.", "model.", "_orig_mod."):
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): key for name, key in state.items()}
    return state
