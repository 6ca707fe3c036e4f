"""Chains and trees of boxes in files of format 1.

A chain: `step.J.states`, `step.J.slopes.K`, `tree.A.B.phases.K`, `tree.A.B.slopes.K`, `tree.A.B.multipliers.K`,
`tree.A.B.planes.K.states`, `tree.A.B.planes.K.shares`, and entries of the file's JSON `meta` that say which there are,
likewise `kept.K` and `round.R.J.*`; a tree of boxes: `split.inputs`, `split.cuts`, `split.children`. Every name begins
with the prefix of its part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from idl_audit.proof.chain import Chain, Leaves, StateStep, StateTrees
from idl_audit.proof.cover import Phases
from idl_audit.proof.files.strict_json import Damaged, Entry, below
from idl_audit.proof.format_1.arrays import ProofArrays
from idl_audit.proof.planes import Planes
from idl_audit.proof.split_tree import SplitTree
from idl_audit.values.arrays import Float32Array

CHOICES: Final = ("phases", "slopes", "multipliers")
"""What a search chose for some leaves: block -> an array with one row a leaf, each."""


Choices: TypeAlias = tuple[dict[int, Phases], dict[int, Float32Array], dict[int, Float32Array], dict[int, Planes]]


def _opened_choices(
    entry: Entry, name: str, numbers: tuple[int, ...], arrays: ProofArrays, prefix: str, m: int, above: int = -1
) -> Choices:
    """Return phases, slopes, multipliers and planes of m leaves, of blocks beyond number `above` alone."""
    sizes = arrays.sizes.blocks

    def blocks(kind: str) -> list[int]:
        return entry.members(kind, len(sizes), "block", above=above)

    phases, slopes, multipliers = (
        {
            k: arrays.take(f"{name}.{kind}.#", *numbers, k, prefix=prefix, leaves=m, states=sizes[k])
            for k in blocks(kind)
        }
        for kind in CHOICES
    )
    planes = {}
    for k in blocks("planes"):
        at = (*numbers, k)
        states = arrays.take(f"{name}.planes.#.states", *at, prefix=prefix, below=sizes[k], free="planes")
        size = {"leaves": m, "planes": states.size}
        planes[k] = Planes(states, arrays.take(f"{name}.planes.#.shares", *at, prefix=prefix, free="reads", **size))
    return phases, slopes, multipliers, planes


def _leaves_of(entry: Entry, name: str, numbers: tuple[int, ...], arrays: ProofArrays, prefix: str) -> int:
    """Return how many leaves a batch has: the rows of its arrays; one where it has none."""
    for kind, own in (*((kind, f"{kind}.#") for kind in CHOICES), ("planes", "planes.#.shares")):
        for k in entry.members(kind, len(arrays.sizes.blocks), "block"):
            return arrays.rows(f"{name}.{own}", *numbers, k, prefix=prefix)
    return 1


def opened_chain(entry: Entry, prefix: str, arrays: ProofArrays, rows: Sequence[int]) -> Chain:
    """Return the chain whose entries of meta these are.

    Args:
        entry: `CHAIN_KEYS`, and what else the file has.
        prefix: of the names of its arrays.
        arrays: the file's.
        rows: how many rows each alternative of its query has, with sums of rows.

    Raises:
        Damaged: where the file contradicts itself.
        Misfit: where it speaks of what the model does not have.
    """
    chain, sizes = Chain(), arrays.sizes
    for j, value in enumerate(entry.items("steps")):
        chain.steps.append(_opened_step(Entry(value, f"step {j}", ("block", "sign", "slopes")), j, prefix, arrays))
    for k in entry.members("kept", len(sizes.blocks), "block"):
        chain.kept[k] = arrays.take("kept.#", k, prefix=prefix, below=sizes.blocks[k], free="kept")
    arrays = arrays.among(sizes.kept({k: states.size for k, states in chain.kept.items()}))
    for r, values in enumerate(entry.items("rounds")):
        if not isinstance(values, list):
            raise Damaged(f"round {r} is no list")
        chain.rounds.append([_opened_states(value, (r, j), prefix, arrays) for j, value in enumerate(values)])
    for a, value in entry.numbered("trees").items():
        below(a, len(rows), "a tree", "alternative")
        tree = Entry(value, f"tree {a}", ("row", "after", "batches"))
        leaves = Leaves(tree.whole("row"), after=tree.whole("after"))
        if not leaves.row < rows[a] or not leaves.after <= len(chain.rounds):
            raise Damaged(f"tree {a} is of a row or after a round that the file does not have")
        for b, batch in enumerate(tree.items("batches")):
            _open_batch(leaves, batch, (a, b), prefix, arrays)
        chain.trees[a] = leaves
    return chain


CHAIN_KEYS: Final = ("steps", "kept", "rounds", "trees")
"""The entries of a chain in meta."""


def _opened_step(entry: Entry, j: int, prefix: str, arrays: ProofArrays) -> StateStep:
    sizes = arrays.sizes.blocks
    k, sign = below(entry.whole("block"), len(sizes), f"step {j}", "block"), entry.number("sign")
    if sign not in (1.0, -1.0):
        raise Damaged(f"step {j} has the sign {sign}")
    states = arrays.take("step.#.states", j, prefix=prefix, below=sizes[k], free="goals")
    later = entry.members("slopes", len(sizes), "block", above=k)
    name, goals = "step.#.slopes.#", states.size
    slopes = {i: arrays.take(name, j, i, prefix=prefix, goals=goals, states=sizes[i]) for i in later}
    return StateStep(k, states, sign, slopes)


def _opened_states(value: object, at: tuple[int, int], prefix: str, arrays: ProofArrays) -> StateTrees:
    name, sizes = "round.#.#", arrays.sizes.blocks
    entry = Entry(value, f"tree {at[1]} of round {at[0]}", ("block", *CHOICES), ("planes",))
    k = below(entry.whole("block"), len(sizes), f"a tree of round {at[0]}", "block")
    states = arrays.take(f"{name}.states", *at, prefix=prefix, below=sizes[k], free="goals")
    signs = arrays.take(f"{name}.signs", *at, prefix=prefix, goals=states.size)
    if len(set(zip(states.tolist(), signs.tolist(), strict=True))) < states.size:
        raise Damaged(f"round {at[0]} bounds a state twice from one side")
    owner = arrays.take(f"{name}.owner", *at, prefix=prefix, below=states.size, free="leaves")
    return StateTrees(k, states, signs, owner, *_opened_choices(entry, name, at, arrays, prefix, owner.size, above=k))


def _open_batch(leaves: Leaves, value: object, at: tuple[int, int], prefix: str, arrays: ProofArrays) -> None:
    entry = Entry(value, f"batch {at[1]} of tree {at[0]}", ("size", *CHOICES), ("planes",))
    m = _leaves_of(entry, "tree.#.#", at, arrays, prefix)
    if entry.whole("size") != m:
        raise Damaged(f"batch {at[1]} of tree {at[0]} is said to have {entry.whole('size')} leaves, and has {m}")
    phases, slopes, multipliers, planes = _opened_choices(entry, "tree.#.#", at, arrays, prefix, m)
    leaves.phases.append(phases)
    leaves.slopes.append(slopes)
    leaves.multipliers.append(multipliers)
    leaves.planes.append(planes)
    leaves.sizes.append(m)


def opened_splits(prefix: str, arrays: ProofArrays) -> SplitTree:
    """Return a tree of boxes. Raises Damaged where there is none."""
    inputs = arrays.take("split.inputs", prefix=prefix, free="nodes")
    cuts, children = (arrays.take(f"split.{name}", prefix=prefix, nodes=inputs.size) for name in ("cuts", "children"))
    return SplitTree(inputs.tolist(), cuts.tolist(), children.tolist())
