"""Equilibrium networks from their weights: x = phi(W x + U u + b), y = C x + d, as fixed-point layers (DEQ) have them.

In a monotone one (monDEQ) phi is a ReLU and W is made of two matrices,

    W = (1 - m) I - A^T A + B - B^T,     hence I - W >= m I: one equilibrium for every input.

The parameters are float32 numbers; W, and what the input's normalisation makes of U and b, are computed from them in
float64, and the results are the model: what is proved of it holds for these numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from idl_audit.graph.torch_weights import read_weights
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.plain import DeclaredBlock, plain_model
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.errors import ModelFileError, OptionError
from idl_audit.values.npz import write_npz

_OUTER: Final[Mapping[str, tuple[str, ...]]] = {
    "U": ("U.weight", "U"),
    "b": ("U.bias", "b"),
    "C": ("Wout.weight", "C"),
    "d": ("Wout.bias", "d"),
}
MONDEQ: Final[Mapping[str, tuple[str, ...]]] = {"A": ("A.weight", "A"), "B": ("B.weight", "B"), **_OUTER}
"""Parameter -> how its name in a state dict ends."""
FIXED_POINT: Final[Mapping[str, tuple[str, ...]]] = {"W": ("W.weight", "W"), **_OUTER}

_MOST_LISTED: Final = 12
"""Parameters of a file that a message names."""

PLAIN: Final = ("relu", "tanh", "sigmoid", "softplus", "softsign", "erf", "selu", "silu", "gelu", "mish")
"""Activations that a fixed-point layer may have: those without parameters."""


def from_mondeq(
    weights: Mapping[str, Any] | str | Path,
    *,
    m: float,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    save: str | Path | None = None,
) -> ImplicitModel:
    """Return the implicit model of a monDEQ that reads (u - mean) / std, as a function of u.

    Args:
        weights: a state dict (or the file of one) with A.weight, B.weight (both n x n), U.weight (n x p), U.bias,
            Wout.weight (q x n), Wout.bias, under any prefix.
        m: the m > 0 of W = (1 - m) I - A^T A + B - B^T that the network was trained with; the file does not hold it.
        mean, std: the normalisation of the inputs: one number, or one for each of p inputs.
        save: write A, B, C, b, d to this .npz file too, for every command to read.

    Raises:
        ModelFileError: where a parameter is missing or does not fit.
        OptionError: where m, mean or std make no sense, or the file exists.
    """
    if not m > 0 or not np.isfinite(m):
        raise OptionError(f"m of a monDEQ must be a positive number, not {m}")
    part = _parameters(weights, MONDEQ)
    skew = part["B"]
    W = (1.0 - m) * np.eye(len(skew)) - part["A"].T @ part["A"] + skew - skew.T
    return _model(part, W, "relu", mean, std, save)


def from_fixed_point(
    weights: Mapping[str, Any] | str | Path,
    *,
    activation: str = "relu",
    names: Mapping[str, str] | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    save: str | Path | None = None,
) -> ImplicitModel:
    """Return the implicit model of a fixed-point layer x = phi(W x + U v + b), y = C x + d, v = (u - mean) / std.

    Whether it has one state for every input is proved as for every model, or stays open.

    Args:
        weights: a state dict (or the file of one) with W.weight (n x n), U.weight (n x p), U.bias, Wout.weight (q x n),
            Wout.bias, under any prefix.
        activation: phi, by its name: relu, tanh, sigmoid, ...
        names: what the state dict calls W, U, b, C or d, where it is another name: {"W": "cell.recurrent.weight"}.
        mean, std: the normalisation of the inputs: one number, or one for each of p inputs.
        save: write A, B, C, b, d to this .npz file too, for every command to read.

    Raises:
        ModelFileError: where a parameter is missing or does not fit.
        OptionError: where the activation is not known, names, mean or std make no sense, or the file exists.
    """
    if activation not in PLAIN:
        raise OptionError(f"there is no activation {activation!r} without parameters; known are {', '.join(PLAIN)}")
    given = names or {}
    unknown = sorted(set(given) - set(FIXED_POINT))
    if unknown:
        raise OptionError(f"names speaks of {unknown[0]!r}; the parameters are {', '.join(FIXED_POINT)}")
    part = _parameters(weights, {**FIXED_POINT, **{name: (called,) for name, called in given.items()}})
    return _model(part, part["W"], activation, mean, std, save)


def _parameters(weights: Mapping[str, Any] | str | Path, names: Mapping[str, tuple[str, ...]]) -> dict[str, FloatArray]:
    """Return the parameters, whose shapes fit each other."""
    found = read_weights(Path(weights)) if isinstance(weights, str | Path) else weights
    where = str(weights) if isinstance(weights, str | Path) else "the state dict"
    part = {name: _parameter(found, name, names, where) for name in names}
    n, p, q = len(part["b"]), part["U"].shape[-1], len(part["C"])
    shapes = {"A": (n, n), "B": (n, n), "W": (n, n), "U": (n, p), "b": (n,), "C": (q, n), "d": (q,)}
    for name, array in part.items():
        if array.shape != shapes[name]:
            raise ModelFileError(f"{where}: {names[name][0]} has the shape {array.shape} and needs {shapes[name]}")
    return part


def _model(
    part: Mapping[str, FloatArray],
    W: FloatArray,
    activation: str,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    save: str | Path | None,
) -> ImplicitModel:
    n, p, q = len(part["b"]), part["U"].shape[1], len(part["C"])
    shift, scale = _per_input(mean, p, "mean"), _per_input(std, p, "std")
    if not (scale != 0).all():
        raise OptionError("std must not be 0")
    arrays = {
        "A": W,
        "B": part["U"] / scale,
        "C": part["C"],
        "b": part["b"] - part["U"] @ (shift / scale),
        "d": part["d"],
    }
    model = plain_model(
        arrays["A"],
        arrays["B"],
        arrays["C"],
        np.zeros((q, p)),
        arrays["b"],
        arrays["d"],
        [DeclaredBlock(activation, n, {})],
    )
    if save is not None:
        meta: AnyArray = np.asarray(json.dumps({"schema_version": "1.0", "activation": activation}))
        write_npz(Path(save), {**arrays, "meta": meta}, force=False)
    return model


def _parameter(weights: Mapping[str, Any], name: str, names: Mapping[str, tuple[str, ...]], where: str) -> FloatArray:
    matches = [key for key in weights for end in names[name] if key == end or (end != name and key.endswith(f".{end}"))]
    if len(matches) != 1:
        what = "no" if not matches else f"{len(matches)}"
        needed = ", ".join(long for long, *_ in names.values())
        if "A" in names:
            raise ModelFileError(f"{where} has {what} parameters named {names[name][0]}; a monDEQ has {needed}")
        raise ModelFileError(
            f"{where} has {what} parameters named {names[name][0]}; a fixed-point layer has {needed}: say with names= "
            f"which of {', '.join(sorted(weights)[:_MOST_LISTED])} they are"
        )
    value = weights[matches[0]]
    array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    if array.dtype.kind != "f" or not np.isfinite(array).all() or array.ndim not in (1, 2) or not array.size:
        raise ModelFileError(f"{where}: {matches[0]} is no vector or matrix of finite numbers")
    return array.astype(np.float64)


def _per_input(value: float | Sequence[float], p: int, name: str) -> FloatArray:
    array = np.asarray(value, np.float64)
    if array.shape not in ((), (p,)) or not np.isfinite(array).all():
        raise OptionError(f"{name} must be one number or {p}, one for each input")
    return np.broadcast_to(array, (p,)).copy()
