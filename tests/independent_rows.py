"""An independent checker of proofs about valid rows of tables, written from docs/proof-format.md alone.

A tree shares rows out by values of features; the least box around each leaf's rows is a part that `independent_checker`
proves, with which it shares no code with idl_audit. Rules between features are not supported.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests import independent_checker, independent_files
from tests.independent_files import Arrays, Proof, demand, fraction, members, numbered, take


def parts(arrays: Arrays, claim: Any, p: int, q: int) -> Iterator[tuple[Any, ...]]:
    """The boxes around the leaves of the tree, each with the alternatives of a sample."""
    _, _, label = members(claim, "kind index label")
    demand(claim["kind"] == "rows" and type(label) is int and 0 <= label < q > 1, "no rows alone")
    lo, hi, centre = (take(arrays, name, "<f8", p) for name in ("range.lo", "range.hi", "centre"))
    demand((lo <= hi).all(), "an empty range")
    columns, values = [], []
    for name in numbered(arrays, "range.choice.", "columns"):
        columns.append(take(arrays, name + "columns", "<i8", None))
        values.append(take(arrays, name + "values", "<f8", None, len(columns[-1])))
        demand(values[-1].size and (centre[columns[-1]] == values[-1]).all(axis=1).any(), "a sample that is no row")
    owned = [*np.concatenate(columns)] if columns else []
    demand(len({*owned}) == len(owned) and all(0 <= c < p for c in owned), "a feature of two choices")
    apart = np.isin(np.arange(p), owned)
    demand(((lo <= centre) & (centre <= hi) | apart).all(), "a sample that is no row")
    (root,) = take(arrays, "tree.roots", "<i8", 1)
    types = {"variable": "<i8", "cut": "<f8", "child": "<i8"}
    variable, cut, child = (take(arrays, f"tree.{name}", kind, None) for name, kind in types.items())
    demand(len(variable) == len(cut) == len(child), "a tree that is none")
    left, leaves, seen = {int(root): values}, [], set[int]()
    for node in range(len(variable)):
        demand(node in left, "a node that is no child")
        own = left.pop(node)
        if variable[node] < 0:
            leaves.append(own)
            continue
        c, first = int(variable[node]) - p, int(child[node])
        demand(0 <= c < len(values) and first > node and not {first, first + 1} & seen, "a node that is no tree's")
        seen |= {first, first + 1}
        some = own[c]
        count = min(max(int(cut[node]), 1), len(some) - 1)
        halves = (some[:count], some[count:]) if count > 0 else (some, some)
        left |= {first + k: [*own[:c], half, *own[c + 1 :]] for k, half in enumerate(halves)}
    demand(not left, "children that are no nodes")
    rows = np.delete(np.eye(q)[label] - np.eye(q), label, axis=0)
    for number, own in enumerate(leaves):
        ends = lo.copy(), hi.copy()
        for where, some in zip(columns, own, strict=True):
            ends[0][where], ends[1][where] = some.min(axis=0), some.max(axis=0)
        yield f"part.{number}.", *map(fraction, ends), rows, np.zeros(q - 1), np.arange(q - 1)


def check(model: Path, proof: Proof) -> str:
    """The claim of a proof about rows that is right; Refused otherwise."""
    return independent_files.read(model, proof, "real", independent_checker.load, independent_checker.prove, parts)
