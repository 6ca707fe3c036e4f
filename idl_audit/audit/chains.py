"""Chains and trees of boxes as arrays of an .npz file, and back.

A chain: `step.J.states`, `step.J.slopes.K`, `tree.A.B.phases.K`, `tree.A.B.slopes.K`, `tree.A.B.multipliers.K`,
`tree.A.B.planes.K.states`, `tree.A.B.planes.K.shares`, and entries of the file's JSON `meta` that say which there are,
likewise `kept.K` and `round.R.J.*`; a tree of boxes: `split.inputs`, `split.cuts`, `split.children`. Every name begins
with the prefix of its part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import numpy as np

from idl_audit.analysis.branching.chain import Chain, Leaves, Phases, StateStep, StateTrees
from idl_audit.analysis.planes import AllPlanes, Planes
from idl_audit.analysis.splitting.split_tree import SplitTree
from idl_audit.arrays import AnyArray, Float32Array, FloatArray

Rows = TypeVar("Rows", bound=AnyArray)


def packed_chain(chain: Chain, prefix: str, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    """Put the arrays of a chain into `arrays` and return its entries of meta."""
    steps: list[dict[str, Any]] = []
    trees: dict[str, Any] = {}
    for j, step in enumerate(chain.steps):
        arrays[f"{prefix}step.{j}.states"] = step.states
        for k, slopes in step.slopes.items():
            arrays[f"{prefix}step.{j}.slopes.{k}"] = slopes
        steps.append({"block": step.block, "sign": step.sign, "slopes": sorted(step.slopes)})
    for a, leaves in chain.trees.items():
        batches = []
        for b, m in enumerate(leaves.sizes):
            chosen = leaves.phases[b], leaves.slopes[b], leaves.multipliers[b]
            key = f"{prefix}tree.{a}.{b}"
            packed = {**_packed_choices(chosen, key, arrays), **_packed_planes(leaves.planes[b], key, arrays)}
            batches.append({"size": m, **packed})
        trees[str(a)] = {"row": leaves.row, "after": leaves.after, "batches": batches}
    for k, states in chain.kept.items():
        arrays[f"{prefix}kept.{k}"] = states
    rounds = [
        [_packed_states(own, f"{prefix}round.{r}.{j}", arrays) for j, own in enumerate(trees_of_round)]
        for r, trees_of_round in enumerate(chain.rounds)
    ]
    return {"steps": steps, "kept": sorted(chain.kept), "rounds": rounds, "trees": trees}


def _packed_states(own: StateTrees, key: str, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    arrays[f"{key}.states"], arrays[f"{key}.signs"], arrays[f"{key}.owner"] = own.states, own.signs, own.owner
    choices = _packed_choices((own.phases, own.slopes, own.multipliers), key, arrays)
    return {"block": own.block, **choices, **_packed_planes(own.planes, key, arrays)}


CHOICES: Final = ("phases", "slopes", "multipliers")
"""What a search chose for some leaves: block -> an array with one row a leaf, each."""


def _packed_choices(
    chosen: tuple[Mapping[int, AnyArray], ...], key: str, arrays: dict[str, AnyArray]
) -> dict[str, list[int]]:
    named = dict(zip(CHOICES, chosen, strict=True))
    for name, values in named.items():
        for k, array in values.items():
            arrays[f"{key}.{name}.{k}"] = array
    return {name: sorted(values) for name, values in named.items()}


def _opened_choices(
    entry: Mapping[str, Any], key: str, arrays: Mapping[str, AnyArray], m: int
) -> tuple[dict[int, Phases], dict[int, Float32Array], dict[int, Float32Array]]:
    signs = {whole(k): _rows(integers(arrays, f"{key}.phases.{whole(k)}"), m) for k in entry["phases"]}
    slopes, multipliers = (
        {whole(k): _rows(_single(arrays, f"{key}.{name}.{whole(k)}"), m) for k in entry[name]} for name in CHOICES[1:]
    )
    return {k: np.sign(array).astype(np.int8) for k, array in signs.items()}, slopes, multipliers


def _packed_planes(planes: AllPlanes, key: str, arrays: dict[str, AnyArray]) -> dict[str, list[int]]:
    for k, own in planes.items():
        arrays[f"{key}.planes.{k}.states"], arrays[f"{key}.planes.{k}.shares"] = own.states, own.shares
    return {"planes": sorted(planes)}


def _opened_planes(entry: Mapping[str, Any], key: str, arrays: Mapping[str, AnyArray]) -> dict[int, Planes]:
    planes = {}
    for k in entry.get("planes", ()):  # certificates of before there were planes
        shares = arrays[f"{key}.planes.{whole(k)}.shares"]
        if shares.dtype != np.uint8:
            raise TypeError(f"shares of {shares.dtype}")
        planes[whole(k)] = Planes(integers(arrays, f"{key}.planes.{whole(k)}.states"), shares)
    return planes


def _opened_states(entry: Mapping[str, Any], key: str, arrays: Mapping[str, AnyArray]) -> StateTrees:
    states, owner = integers(arrays, f"{key}.states"), integers(arrays, f"{key}.owner")
    signs = floats(arrays, f"{key}.signs")
    if any(array.ndim != 1 for array in (states, owner, signs)) or states.shape != signs.shape:
        raise ValueError("trees of states of another shape")
    choices = _opened_choices(entry, key, arrays, owner.size)
    return StateTrees(whole(entry["block"]), states, signs, owner, *choices, _opened_planes(entry, key, arrays))


def opened_chain(meta: Mapping[str, Any], prefix: str, arrays: Mapping[str, AnyArray]) -> Chain:
    """Return a chain. Raises LookupError, TypeError or ValueError where it is damaged."""
    chain = Chain()
    for j, entry in enumerate(meta["steps"]):
        key = f"{prefix}step.{j}"
        states = integers(arrays, f"{key}.states")
        slopes = {whole(k): _rows(_single(arrays, f"{key}.slopes.{whole(k)}"), states.size) for k in entry["slopes"]}
        if states.ndim != 1 or (states < 0).any() or entry["sign"] not in (1.0, -1.0) or whole(entry["block"]) < 0:
            raise ValueError("a step without states, block or sign")
        chain.steps.append(StateStep(whole(entry["block"]), states, float(entry["sign"]), slopes))
    for k in meta["kept"]:
        states = integers(arrays, f"{prefix}kept.{whole(k)}")
        if states.ndim != 1:
            raise ValueError("kept states of another shape")
        chain.kept[whole(k)] = states
    for r, entries in enumerate(meta["rounds"]):
        chain.rounds.append(
            [_opened_states(entry, f"{prefix}round.{r}.{j}", arrays) for j, entry in enumerate(entries)]
        )
    for a, entry in meta["trees"].items():
        leaves = Leaves(whole(entry["row"]), after=whole(entry["after"]))
        for b, batch in enumerate(entry["batches"]):
            key = f"{prefix}tree.{int(a)}.{b}"
            m = whole(batch["size"])
            phases, slopes, multipliers = _opened_choices(batch, key, arrays, m)
            leaves.phases.append(phases)
            leaves.slopes.append(slopes)
            leaves.multipliers.append(multipliers)
            leaves.planes.append(_opened_planes(batch, key, arrays))
            leaves.sizes.append(m)
        chain.trees[int(a)] = leaves
    return chain


def packed_splits(tree: SplitTree, prefix: str, arrays: dict[str, AnyArray]) -> None:
    """Put the arrays of a tree of boxes into `arrays`."""
    arrays[f"{prefix}split.inputs"] = np.asarray(tree.inputs, np.int64)
    arrays[f"{prefix}split.cuts"] = np.asarray(tree.cuts, np.float64)
    arrays[f"{prefix}split.children"] = np.asarray(tree.children, np.int64)


def opened_splits(prefix: str, arrays: Mapping[str, AnyArray]) -> SplitTree:
    """Return a tree of boxes. Raises LookupError, TypeError or ValueError where it is damaged."""
    cuts = floats(arrays, f"{prefix}split.cuts")
    parts = [integers(arrays, f"{prefix}split.{name}") for name in ("inputs", "children")]
    if any(part.ndim != 1 for part in (*parts, cuts)):
        raise ValueError("splits of another shape")
    return SplitTree(parts[0].tolist(), cuts.tolist(), parts[1].tolist())


def whole(value: object) -> int:
    """Return a whole number of meta. Raises TypeError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("a number that is not whole")
    return value


def floats(arrays: Mapping[str, AnyArray], key: str) -> FloatArray:
    """Return an array of floating-point numbers. Raises LookupError or TypeError."""
    if arrays[key].dtype.kind != "f":
        raise TypeError(f"an array of {arrays[key].dtype}")
    return arrays[key].astype(np.float64)


def integers(arrays: Mapping[str, AnyArray], key: str) -> np.ndarray:
    """Return an array of signed whole numbers. Raises LookupError or TypeError."""
    if arrays[key].dtype.kind != "i":
        raise TypeError(f"an array of {arrays[key].dtype}")
    return arrays[key].astype(np.int64)


def _single(arrays: Mapping[str, AnyArray], key: str) -> Float32Array:
    with np.errstate(over="ignore"):
        return floats(arrays, key).astype(np.float32)


def _rows(array: Rows, m: int) -> Rows:
    """Return a table of m rows. Raises ValueError where it is none: what is repeated to fit was not written by us."""
    if array.ndim != 2 or len(array) != m:
        raise ValueError(f"an array of shape {array.shape} for {m} rows")
    return array
