"""Where searches compute, and the one way there and back: whoever searches asks for tensors here, and knows no device.

On a CPU, tensors share the memory of numpy's arrays. On an accelerator they are copied, and sums have another order.
Large products of matrices in float64 (`values.products`) are made there as well, and are looked at here before a proof
may use them; a device without float64 makes none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np

from idl_audit.search.adam import Adam
from idl_audit.values import products
from idl_audit.values.arrays import AnyArray, Float32Array, FloatArray
from idl_audit.values.errors import DeviceError, MissingTorchError, OptionError
from idl_audit.values.rounding import LOST, gamma

if TYPE_CHECKING:
    import torch

Name: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
NAMES: Final[tuple[str, ...]] = get_args(Name)
"""What may be asked for; auto is the CPU."""
WORTH: Final = 2**24
"""Multiplications of a product in float64 below which it is not worth a way to the device and back."""


@dataclass(frozen=True, eq=False)
class _Place:
    """An accelerator."""

    where: torch.device
    title: str
    doubles: bool
    """Whether it has float64."""
    sparse: bool
    """Whether it multiplies by sparse matrices."""


_place: list[_Place] = []
"""The accelerator that is used; none on the CPU."""


def use(name: str) -> None:
    """Search on this device from now on: one of `NAMES`.

    Raises:
        OptionError: where there is no such device, or its arithmetic is not that of IEEE 754.
    """
    if name in ("auto", "cpu"):
        _leave()
        return
    if _place and _place[0].where.type == name:
        return
    place = _found(name)
    _plain_arithmetic()
    wrong = next(_faults(place), None)
    if wrong is not None:
        raise OptionError(f"--device {name}: {place.title} {wrong}; search with --device cpu")
    _enter(place)


def has_sparse_products() -> bool:
    """Return whether sparse matrices are multiplied by where searches compute."""
    return not _place or _place[0].sparse


@contextmanager
def placed(where: torch.device, *, doubles: bool = True) -> Iterator[None]:
    """Search on a device of torch's inside, whatever it is; its arithmetic is not tried: for tests of the way."""
    before = list(_place)
    _enter(_Place(where, str(where), doubles, sparse=True))
    try:
        yield
    finally:
        _leave()
        if before:
            _enter(before[0])


def _enter(place: _Place) -> None:
    _place[:] = [place]
    products.made_by(_made_there if place.doubles else None, place=place.title)


def _leave() -> None:
    _place.clear()
    products.made_by(None)


def current() -> object:
    """Return what stands for the device in keys of caches of tensors."""
    return _place[0] if _place else None


# --- the way there ---------------------------------------------------------------------------------------------------


def tensor(array: AnyArray) -> torch.Tensor:
    """Return an array in float32."""
    with np.errstate(over="ignore"):  # a search with an endless weight finds nothing
        return as_it_is(np.ascontiguousarray(array, np.float32))


def indices(array: AnyArray) -> torch.Tensor:
    """Return an array of whole numbers."""
    return as_it_is(np.ascontiguousarray(array, np.int64))


def as_it_is(array: AnyArray) -> torch.Tensor:
    """Return an array in its own type; on a CPU both are one piece of memory."""
    import torch

    here = torch.from_numpy(array)
    return here.to(_place[0].where) if _place else here


def moved(here: torch.Tensor) -> torch.Tensor:
    """Return a tensor of this machine's memory where searches compute."""
    return here.to(_place[0].where) if _place else here


def zeros(*shape: int) -> torch.Tensor:
    """Return zeros in float32."""
    return full(shape, 0.0)


def full(shape: Sequence[int], value: float) -> torch.Tensor:
    """Return a number many times, in float32."""
    import torch

    return torch.full(tuple(shape), value, dtype=torch.float32, device=_place[0].where if _place else None)


# --- the way back ----------------------------------------------------------------------------------------------------


def array(values: torch.Tensor) -> Any:
    """Return numbers as numpy has them, in their type, without their gradient; on a CPU the memory is that of both."""
    return values.detach().cpu().numpy() if _place else values.detach().numpy()


def doubles(values: torch.Tensor) -> FloatArray:
    """Return numbers in float64; an accelerator need not have that."""
    return np.asarray(array(values), np.float64)


def arrays(values: dict[int, torch.Tensor]) -> dict[int, Float32Array]:
    """Return block -> numbers."""
    return {k: array(value) for k, value in values.items()}


def adam(groups: Sequence[tuple[Sequence[torch.Tensor], float]]) -> Adam:
    """Return what descends on groups of tensors, each group with its rate, and changes them in place."""
    if not _place:
        return Adam([([value.detach().numpy() for value in own], rate) for own, rate in groups])
    import torch

    there: Any = [([value.detach() for value in own], rate) for own, rate in groups]
    return Adam(there, kit=torch)


def gradient(values: torch.Tensor) -> Any:
    """Return a gradient as the `adam` of the same tensors takes it."""
    return values if _place else values.numpy()


# --- products of proofs ----------------------------------------------------------------------------------------------


def _made_there(a: FloatArray, b: FloatArray) -> FloatArray | None:
    """Return A B as the device makes it; None where it is small, or has numbers that are not finite.

    Raises DeviceError where it is not A B.
    """
    if a.ndim < 2 or b.ndim < 2 or max(a.size * b.shape[-1], b.size * a.shape[-2]) < WORTH:
        return None
    if a.dtype != np.float64 or b.dtype != np.float64:
        return None
    made = array(as_it_is(np.ascontiguousarray(a)) @ as_it_is(np.ascontiguousarray(b)))
    excess = _excess(a, b, made)
    if excess is None:
        return None
    if not excess <= 1:
        raise DeviceError(
            f"{products.place()} made a product in float64 that is {excess:.2g} times as far from the exact one as "
            "rounding explains; its arithmetic is not to be trusted, search with --device cpu"
        )
    return np.asarray(made)


def _excess(a: FloatArray, b: FloatArray, made: FloatArray) -> float | None:
    """Return how far C is from A B along one direction, in units of what rounding explains; None: not finite.

    With x of entries +-1, |C x - A (B x)| is at most gamma |A| |B| 1 in all, which is at most gamma |a_i| |B| sqrt(n)
    with the lengths of A's rows and of B. A look at every product, for a hundredth of its price.
    """
    k, n = b.shape[-2:]
    with np.errstate(all="ignore"):
        x = np.where(np.arange(n) * 0.6180339887498949 % 1 < 0.5, 1.0, -1.0)
        off = np.abs(made @ x - (a @ (b @ x)[..., None])[..., 0])
        length = np.linalg.norm(a, axis=-1) * (np.linalg.norm(b, axis=(-2, -1)) * np.sqrt(n))[..., None]
        explained = 4 * gamma(2 * (k + n) + 16) * length + LOST * n
        if not (np.isfinite(explained).all() and np.isfinite(made).all()):
            return None
        return float((off / explained).max(initial=0.0))


# --- what a device is asked before it is used ------------------------------------------------------------------------


def _found(name: str) -> _Place:
    """Return a device by its name. Raises OptionError where there is none, MissingTorchError without torch."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingTorchError from error

    if name == "cuda" and torch.cuda.is_available():
        return _Place(torch.device("cuda"), f"cuda ({torch.cuda.get_device_name()})", doubles=True, sparse=True)
    if name == "mps" and torch.backends.mps.is_available():
        return _Place(torch.device("mps"), "mps", doubles=False, sparse=False)
    hint = "" if name != "cuda" or torch.version.cuda else f": torch {torch.__version__} was built without it"
    raise OptionError(f"--device {name}: there is no such device here{hint}; search with --device cpu")


def _plain_arithmetic() -> None:
    """Let torch use no arithmetic of fewer digits than a number's type has, where it has a choice."""
    import torch

    # the older flags: with torch 2.13, the newer fp32_precision makes torch.onnx.export raise, which reads allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


EMULATION: Final = ("CUBLAS_EMULATE_DOUBLE_PRECISION", "CUBLAS_EMULATION_STRATEGY", "NVIDIA_TF32_OVERRIDE")
"""Variables that tell cuBLAS to work with fewer digits, or to put numbers together of shorter ones."""
SIZES: Final = (8, 64, 512)
"""Of the matrices that are tried: kernels differ by size."""
SINGLE: Final = 2.0**-24


def _faults(place: _Place) -> Iterator[str]:
    """Yield what is wrong with a device's arithmetic."""
    for name in EMULATION:
        if os.environ.get(name, "0") not in ("0", "default", ""):
            yield f"may work with fewer digits: {name} is {os.environ[name]!r} in the environment; unset it"
    for size in SIZES:
        if not _keeps_digits(place, size, np.float32, SINGLE):
            yield f"does not multiply float32 matrices of {size} rows in float32"
        if place.doubles and not _keeps_digits(place, size, np.float64, 2.0**-53):
            yield f"does not multiply float64 matrices of {size} rows in float64"
        if place.doubles and not _keeps_small_numbers(place, size):
            yield f"loses small numbers in float64 matrices of {size} rows"


def _keeps_digits(place: _Place, size: int, kind: type, u: float) -> bool:
    """Return whether products of numbers with all their digits, some of them far apart in size, are right.

    One row is 2^e beside 1, where the large number meets a zero: whoever takes the digits of a row together at the
    scale of its largest loses the small one.
    """
    rng = np.random.default_rng(size)
    a: AnyArray = np.asarray(rng.uniform(-1, 1, (size, size)), kind)
    b: AnyArray = np.asarray(rng.uniform(-1, 1, (size, size)), kind)
    a[0], b[0] = 0.0, 0.0
    a[0, 0], a[0, 1] = kind(2.0**60), 1.0
    made = _product(place, a, b)
    left, right = (np.asarray(part, np.float64) for part in (a, b))
    exact, size_of = left @ right, np.abs(left) @ np.abs(right)
    return bool((np.abs(made - exact) <= 2 * (size + 1) * u * size_of).all())


def _keeps_small_numbers(place: _Place, size: int) -> bool:
    """Return whether numbers that are not normal are not taken for 0, on the way in, in products and in sums."""
    a, b = np.zeros((size, size)), np.eye(size)
    a[0, :2] = 2.0**-540, 2.0**-1070
    b[0, 0], b[1, 1] = 2.0**-520, 1.0
    return bool(np.array_equal(_product(place, a, b), a @ b))


def _product(place: _Place, a: AnyArray, b: AnyArray) -> AnyArray:
    import torch

    left, right = (torch.from_numpy(part).to(place.where) for part in (a, b))
    return np.asarray((left @ right).cpu().numpy())
