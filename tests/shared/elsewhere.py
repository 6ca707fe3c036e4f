"""A device that is none: tensors that say they are elsewhere, computed here, and a border that no operation crosses.

Real accelerators refuse an operation whose tensors lie on two devices, but for numbers (no axes) and places to read
from (indices), and their tensors have no `.numpy()`. So does this. Whoever creates a tensor without saying where
creates it here, and is caught as soon as it meets one from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from idl_audit.search import device

THERE = torch.device("meta")
"""What the tensors say; torch computes nothing on it by itself."""

aten = torch.ops.aten
PLACES = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
"""Operations whose indices may lie here."""
COPIES = (aten._to_copy.default, aten.copy_.default)
"""The way from one to the other."""


class Elsewhere(torch.Tensor):
    """A tensor that says that it is on the other device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Elsewhere:
        """Wrap a tensor of this machine."""
        strided = inner.layout == torch.strided
        shape: dict[str, Any] = {}
        if strided:
            shape = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, dtype=inner.dtype, device=THERE, **shape
        )
        made.inner = inner
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute without a border, so that a test may look at what came of it."""
        raise AssertionError(f"{func} works on a tensor of another device outside the border")


class Border(TorchDispatchMode):
    """Computes what is asked of tensors elsewhere, and counts what goes over."""

    def __init__(self, *, float64: bool = True) -> None:
        super().__init__()
        self.float64, self.sent, self.fetched, self.operations = float64, 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do one operation, where all of its tensors are."""
        kwargs = kwargs or {}
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        here = [one for one in tensors if not isinstance(one, Elsewhere)]
        asked = kwargs.get("device")
        is_there = len(here) < len(tensors) if asked is None else torch.device(asked) == THERE
        if func in COPIES:
            self.sent += is_there and bool(here)
            self.fetched += not is_there and len(here) < len(tensors)
        elif len(here) < len(tensors):
            stray = [one for one in here if one.ndim]
            if stray and not (func in PLACES and isinstance(args[0], Elsewhere)):
                raise AssertionError(f"{func} reads tensors of two devices")
            self.operations += 1
        inside = {} if "device" not in kwargs else {"device": torch.device("cpu")}
        found = func(*tree_map(_inner, args), **{**tree_map(_inner, kwargs), **inside})
        known = {id(one.inner): one for one in tensors if isinstance(one, Elsewhere)}

        def outside(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or not is_there:
                return value
            assert self.float64 or value.dtype != torch.float64, f"{func} made float64 on a device that has none"
            return known.get(id(value)) if id(value) in known else Elsewhere(value)

        return tree_map(outside, found)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Elsewhere) else value


@contextmanager
def elsewhere(border: Border | None = None) -> Iterator[Border]:
    """Search on the other device inside."""
    with border or Border() as at, device.placed(THERE, doubles=at.float64):
        yield at
