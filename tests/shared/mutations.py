"""Certificates to be damaged: a small network with known claims, ways to change its files, and a check by sampling."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Meta = dict[str, Any]

STRICT = "strict"
"""Mutations that leave no proof, whatever the claim: they must be refused."""


def network(folder: Path, seed: int = 1) -> Path:
    """Write an implicit model of two inputs, twelve ReLUs in two layers, and three outputs."""
    rng = np.random.default_rng(seed)
    a, b = np.zeros((12, 12)), np.zeros((12, 2))
    b[6:] = rng.normal(size=(6, 2))
    a[:6, 6:] = rng.normal(size=(6, 6)) / 2
    c = np.zeros((3, 12))
    c[:, :6] = rng.normal(size=(3, 6))
    path = folder / "net.npz"
    meta = '{"schema_version": "1.0", "activation": "relu"}'
    np.savez(path, A=a, B=b, C=c, D=np.zeros((3, 2)), b=rng.normal(size=12) / 2, d=np.zeros(3), meta=meta)
    return path


def outputs(path: Path, points: np.ndarray) -> np.ndarray:
    """Evaluate the network without the tool."""
    with np.load(path) as file:
        x = np.zeros((len(points), 12))
        for _ in range(2):
            x = np.maximum(x @ file["A"].T + points @ file["B"].T + file["b"], 0)
        return x @ file["C"].T + points @ file["D"].T + file["d"]


def points_of(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Return a grid over a box of two inputs, its faces and corners included, (40**2, 2)."""
    axes = [np.linspace(a, b, 40) for a, b in zip(lo, hi, strict=True)]
    return np.array(list(itertools.product(*axes)))


def claim_holds(path: Path, file: Path) -> bool:
    """Return whether no point of a grid over the sets in a certificate contradicts what it claims."""
    with np.load(file) as archive:
        arrays = dict(archive)
    meta = json.loads(str(arrays["meta"]))
    if meta["kind"] == "certificate":
        lo, hi = arrays["centre"] - meta["eps"], arrays["centre"] + meta["eps"]
        if meta["clip"] is not None:
            lo, hi = np.maximum(lo, meta["clip"][0]), np.minimum(hi, meta["clip"][1])
        y = outputs(path, points_of(lo, hi))
        return bool((np.delete(y, meta["label"], axis=1) < y[:, [meta["label"]]]).all())
    for number, part in enumerate(meta["parts"]):
        y = outputs(path, points_of(arrays[f"{number}.lo"], arrays[f"{number}.hi"]))
        for a in range(part["alternatives"]):
            rows, offsets = arrays[f"{number}.{a}.rows"], arrays[f"{number}.{a}.offsets"]
            if (y @ rows.T + offsets <= 0).all(axis=1).any():
                return False
    return True


@dataclass
class Mutant:
    """A certificate's content to be changed in place."""

    arrays: Arrays
    meta: Meta
    rng: np.random.Generator

    def pick(self, *words: str) -> str | None:
        """Return the name of some array whose name has one of the words, None where there is none."""
        names = [name for name in sorted(self.arrays) if any(word in name for word in words)]
        return str(self.rng.choice(names)) if names else None

    def change(self, name: str | None, function: Callable[[np.ndarray], np.ndarray]) -> bool:
        if name is None or not self.arrays[name].size:
            return False
        self.arrays[name] = function(self.arrays[name].copy())
        return True

    def entry(self, value: object) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function that puts a value at some place of an array."""

        def put(array: np.ndarray) -> np.ndarray:
            array.flat[self.rng.integers(array.size)] = value
            return array

        return put

    @property
    def chains(self) -> list[tuple[str, Meta]]:
        """The chains with the prefix of their arrays."""
        if self.meta["kind"] == "certificate":
            return [("", self.meta)]
        return [(f"{n}.", part["chain"]) for n, part in enumerate(self.meta["parts"]) if part["chain"] is not None]

    def leaves(self) -> tuple[str, Meta, str] | None:
        """Return (key, batch, name of its phases) for some batch with phases."""
        found = []
        for prefix, chain in self.chains:
            for a, tree in chain["trees"].items():
                for b, batch in enumerate(tree["batches"]):
                    key = f"{prefix}tree.{a}.{b}"
                    found += [(key, batch, f"{key}.phases.{k}") for k in batch["phases"]]
        return found[self.rng.integers(len(found))] if found else None


def scale(m: Mutant) -> str | None:
    factor = 10 ** m.rng.uniform(-4, 4) * m.rng.choice([-1, 1])
    done = m.change(m.pick("slopes", "multipliers"), lambda a: (a * factor).astype(a.dtype))
    return "" if done else None


def no_number(m: Mutant) -> str | None:
    value = m.rng.choice([np.nan, np.inf, -np.inf])
    return "" if m.change(m.pick("slopes", "multipliers"), m.entry(value)) else None


def no_number_in_the_claim(m: Mutant) -> str | None:
    value = m.rng.choice([np.nan, np.inf, -np.inf])
    return STRICT if m.change(m.pick("centre", ".lo", ".hi", ".rows", ".offsets", "cuts"), m.entry(value)) else None


def drop_leaf(m: Mutant) -> str | None:
    found = m.leaves()
    if found is None or found[1]["size"] < 1:
        return None
    key, batch, _ = found
    gone = int(m.rng.integers(batch["size"]))
    for name in [name for name in m.arrays if name.startswith(f"{key}.") and not name.endswith(".states")]:
        m.arrays[name] = np.delete(m.arrays[name], gone, axis=0)
    batch["size"] -= 1
    return STRICT


def drop_leaf_of_the_arrays(m: Mutant) -> str | None:
    found = m.leaves()
    if found is None or found[1]["size"] < 2:
        return None
    return STRICT if m.change(found[2], lambda a: a[1:]) else None


def flip_phase(m: Mutant) -> str | None:
    found = m.leaves()
    if found is None:
        return None
    places = np.argwhere(m.arrays[found[2]] != 0)
    if not len(places):
        return None
    at = tuple(places[m.rng.integers(len(places))])
    m.arrays[found[2]] = m.arrays[found[2]].copy()
    m.arrays[found[2]][at] *= -1
    return STRICT


def duplicate_phases(m: Mutant) -> str | None:
    found = m.leaves()
    if found is None:
        return None
    array = m.arrays[found[2]]
    if len(np.unique(array, axis=0)) < 2:
        return None
    m.arrays[found[2]] = np.repeat(array[:1], len(array), axis=0)
    return ""


def forget_phase(m: Mutant) -> str | None:
    found = m.leaves()
    return "" if found is not None and m.change(found[2], m.entry(0)) else None


def change_shares(m: Mutant) -> str | None:
    name = m.pick(".shares")
    if name is None:
        return None
    if m.rng.random() < 0.3:
        return "" if m.change(name, m.entry(m.rng.integers(256))) else None
    return "" if m.change(name, lambda a: m.rng.integers(256, size=a.shape).astype(a.dtype)) else None


def misfit_shares(m: Mutant) -> str | None:
    """Shares for another number of leaves, states or inputs, or that are no bytes."""
    name = m.pick(".shares")
    axis = int(m.rng.integers(4))
    if axis == 3:
        return STRICT if m.change(name, lambda a: a.astype(m.rng.choice([np.int8, np.int64, np.float64]))) else None
    return STRICT if m.change(name, lambda a: np.repeat(a, 2, axis) if m.rng.random() < 0.5 else a[..., :-1]) else None


def change_planes(m: Mutant) -> str | None:
    """Planes for states that are none, or named twice or in another order; or for other states."""
    shares = m.pick(".shares")
    if shares is None:
        return None
    name = shares.replace(".shares", ".states")
    choice = m.rng.integers(4)
    if choice == 0:
        return STRICT if m.change(name, m.entry(m.rng.choice([-1, 6, 99]))) else None
    if choice == 1:
        return STRICT if m.arrays[name].size > 1 and m.change(name, lambda a: a[::-1]) else None
    if choice == 2:
        return STRICT if m.arrays[name].size > 1 and m.change(name, lambda a: a[0] + 0 * a) else None
    return "" if m.change(name, lambda a: np.sort(m.rng.choice(6, a.size, replace=False))) else None


def move_planes(m: Mutant) -> str | None:
    """Planes for the block that reads states, or for none; or none any more."""
    found = m.leaves()
    if found is None or not found[1]["planes"]:
        return None
    key, batch, _ = found
    (k,) = batch["planes"]
    batch["planes"] = [] if m.rng.random() < 0.3 else [int(m.rng.choice([-1, 0, 2]))]
    for name in ("states", "shares"):
        for other in batch["planes"]:
            m.arrays[f"{key}.planes.{other}.{name}"] = m.arrays[f"{key}.planes.{k}.{name}"]
    return STRICT if batch["planes"] else ""


def drop_tree(m: Mutant) -> str | None:
    chains = [chain for _, chain in m.chains if chain["trees"]]
    if not chains:
        return None
    trees = chains[m.rng.integers(len(chains))]["trees"]
    del trees[str(m.rng.choice(sorted(trees)))]
    return STRICT


def change_steps(m: Mutant) -> str | None:
    steps = [step for _, chain in m.chains for step in chain["steps"]]
    if not steps:
        return None
    step = steps[m.rng.integers(len(steps))]
    choice = m.rng.integers(4)
    if choice == 0:
        step["sign"] *= -1
    elif choice == 1:
        step["block"] = int(m.rng.integers(-2, 4))
    elif choice == 2:
        m.change(m.pick("states"), lambda a: m.rng.integers(-1, 9, a.shape))
    else:
        m.change(m.pick("states"), lambda a: a[::-1])
    return ""


def other_row(m: Mutant) -> str | None:
    trees = [tree for _, chain in m.chains for tree in chain["trees"].values()]
    if not trees:
        return None
    trees[m.rng.integers(len(trees))]["row"] = int(m.rng.choice([-1, 1, 2, 99]))
    return ""


def change_set(m: Mutant) -> str | None:
    """Move or resize the set that the claim is about: the claim becomes another."""
    factor = m.rng.choice([0.3, 0.9, 1.02, 1.3, 2.0, 4.0])
    if m.meta["kind"] == "certificate":
        if m.rng.random() < 0.5:
            m.meta["eps"] *= factor
        else:
            m.change("centre", lambda a: a + m.rng.normal(size=a.shape) * m.meta["eps"])
            m.meta["clip"] = None
        return ""
    number = m.rng.integers(len(m.meta["parts"]))
    lo, hi = m.arrays[f"{number}.lo"], m.arrays[f"{number}.hi"]
    centre, radius = (lo + hi) / 2, (hi - lo) / 2 * factor
    m.arrays[f"{number}.lo"], m.arrays[f"{number}.hi"] = centre - radius, centre + radius
    return ""


def change_claim(m: Mutant) -> str | None:
    """Another class, or rows with other signs or offsets."""
    if m.meta["kind"] == "certificate":
        m.meta["label"] = int(m.rng.integers(-1, 5))
        return ""
    if m.rng.random() < 0.5:
        return "" if m.change(m.pick(".rows"), lambda a: -a) else None
    return "" if m.change(m.pick(".offsets"), lambda a: a + m.rng.normal()) else None


def change_splits(m: Mutant) -> str | None:
    name = m.pick("split.")
    if name is None:
        return None
    if name.endswith("cuts"):
        value = float(m.rng.uniform(-2, 2))
        return "" if m.change(name, m.entry(value)) else None
    return "" if m.change(name, m.entry(int(m.rng.integers(-2, 12)))) else None


def cut_splits(m: Mutant) -> str | None:
    name = m.pick("split.")
    if name is None or len(m.arrays[name]) < 3:
        return None
    if m.rng.random() < 0.5:
        return STRICT if m.change(name, lambda a: a[:-1]) else None
    for part in ("inputs", "cuts", "children"):
        whole = f"{name.rpartition('.')[0]}.{part}"
        m.arrays[whole] = m.arrays[whole][:-2]
    return STRICT


def join_leaves(m: Mutant) -> str | None:
    """Make an inner node of a tree of boxes a leaf; its children then have no parent."""
    name = m.pick("split.inputs")
    if name is None:
        return None
    inner = np.flatnonzero(m.arrays[name] >= 0)
    return STRICT if len(inner) and m.change(name, lambda a: np.where(np.arange(len(a)) == inner[-1], -1, a)) else None


def other_hash(m: Mutant) -> str | None:
    m.meta["model_sha256"] = m.rng.bytes(32).hex()
    return STRICT


def drop_key(m: Mutant) -> str | None:
    key = str(
        m.rng.choice(["model_sha256", "kind", "schema_version", "eps", "label", "steps", "trees", "parts", "centre"])
    )
    if key in m.meta:
        del m.meta[key]
        return STRICT
    return STRICT if m.arrays.pop(key, None) is not None else None


def nonsense(m: Mutant) -> str | None:
    key = str(m.rng.choice(sorted(m.meta)))
    if key in ("index", "property", "property_sha256"):
        return None  # words that no claim rests on
    m.meta[key] = [None, "x", -1, [], {}, 1e400, "9" * 5000][m.rng.integers(7)]
    return ""


def drop_array(m: Mutant) -> str | None:
    name = m.pick("")
    if name is None or "sigma" in name:
        return None
    del m.arrays[name]
    return STRICT


def reshape_array(m: Mutant) -> str | None:
    name = m.pick("")
    return "" if name is not None and m.change(name, lambda a: a.reshape(-1)[None]) else None


def other_type(m: Mutant) -> str | None:
    name, kind = m.pick(""), m.rng.choice(["c16", "U8", "u8", "?", "f2"])
    with np.errstate(all="ignore"):
        return "" if name is not None and m.change(name, lambda a: np.abs(a).astype(kind)) else None


MUTATIONS = (
    scale,
    no_number,
    no_number_in_the_claim,
    drop_leaf,
    drop_leaf_of_the_arrays,
    flip_phase,
    duplicate_phases,
    forget_phase,
    change_shares,
    misfit_shares,
    change_planes,
    move_planes,
    drop_tree,
    change_steps,
    other_row,
    change_set,
    change_claim,
    change_splits,
    cut_splits,
    join_leaves,
    other_hash,
    drop_key,
    nonsense,
    drop_array,
    reshape_array,
    other_type,
)


PAIRED = (
    scale,
    no_number,
    flip_phase,
    forget_phase,
    change_shares,
    change_steps,
    change_splits,
    change_set,
    change_claim,
)
"""Mutations of which two are made at once, too: they leave a file that can be read."""


def damage_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the file cut short, or with some bytes changed."""
    if rng.random() < 0.4:
        return content[: rng.integers(len(content))]
    changed = bytearray(content)
    for place in rng.integers(0, len(content), rng.integers(1, 6)):
        changed[place] ^= int(rng.integers(1, 256))
    return bytes(changed)


def packed(arrays: Arrays, meta: Meta) -> bytes:
    """Return the content as a file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays, meta=np.asarray(json.dumps(meta)))
    return buffer.getvalue()
