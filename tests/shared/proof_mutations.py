"""Structured changes of proof files of any kind: of arrays, of meta, of the text that holds it, of the archive.

Each function changes a mutant in place and says what is demanded of the result: STRICT where it leaves no proof, ""
where the judge of claims decides, None where it found nothing to change.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.shared.mutations import STRICT, Meta, Mutant

FLOATS = (
    np.nan,
    np.inf,
    -np.inf,
    0.0,
    -0.0,
    5e-324,
    -5e-324,
    2.2e-308,
    1e308,
    -1e308,
    np.finfo(float).max,
    1e-9,
    1e300,
)
WHOLES = (-1, -2, 0, 1, 2, 5, 6, 99, 2**31, 2**62, -(2**63), 2**63 - 1)
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 7, 10**9, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, 5e-324, "x", "", "0", "-1",
    [], {}, [[]], [0, 0], [-1], [True], ["0"], {"0": 0}, [[[[[[]]]]]], "y" * 5000,
)  # fmt: skip
"""What an entry of meta may become."""


def some_value(rng: np.random.Generator) -> Any:
    """Return one of these values."""
    return copy.deepcopy(VALUES[rng.integers(len(VALUES))])


def _any(m: Mutant) -> str | None:
    return m.pick("")


def set_entry(m: Mutant) -> str | None:
    name = _any(m)
    if name is None:
        return None
    return "" if m.change(name, m.entry(_value(m, m.arrays[name].dtype))) else None


def set_all(m: Mutant) -> str | None:
    name = _any(m)
    if name is None:
        return None
    value = _value(m, m.arrays[name].dtype)
    return "" if m.change(name, lambda a: np.full_like(a, value)) else None


def _value(m: Mutant, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return dtype.type(FLOATS[m.rng.integers(len(FLOATS))])
    value, ends = WHOLES[m.rng.integers(len(WHOLES))], np.iinfo(dtype)
    return dtype.type(np.clip(value, int(ends.min), int(ends.max)))


def nudge(m: Mutant) -> str | None:
    """Change numbers by a little, or by powers of ten."""
    name = m.pick(
        "S", "adjoint", "alpha", "Y", ".v", ".r", "factor", ".m", "box", "lo", "hi", "centre", "sigma", "cuts"
    )
    if name is None or m.arrays[name].dtype.kind != "f":
        return None
    size = 10.0 ** m.rng.uniform(-16, 3)
    return "" if m.change(name, lambda a: a * (1 + size * m.rng.normal(size=a.shape))) else None


def other_dtype(m: Mutant) -> str | None:
    name = _any(m)
    kinds = ["f2", "f4", "f8", ">f8", "i1", "i2", "i8", ">i8", "u1", "u8", "?", "c16", "U3", "S2", "O", "M8[s]", "V4"]
    kind = np.dtype(str(m.rng.choice(kinds)))
    if name is None or m.arrays[name].dtype == kind:
        return None
    with np.errstate(all="ignore"):
        try:
            m.arrays[name] = m.arrays[name].astype(kind)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            m.arrays[name] = np.zeros(m.arrays[name].shape, kind)
    return STRICT


def other_shape(m: Mutant) -> str | None:
    name = _any(m)
    if name is None:
        return None
    array = m.arrays[name]
    changes: list[Callable[[], np.ndarray]] = [
        lambda: array[None],
        lambda: array[..., None],
        lambda: array.reshape(-1),
        lambda: np.array(array.flat[0]),
        lambda: array[:0],
        lambda: array[..., :0],
        lambda: array[:1],
        lambda: array[..., :1],
        lambda: array[:-1],
        lambda: array[..., :-1],
        lambda: np.repeat(array, 2, axis=0),
        lambda: np.repeat(array, 2, axis=-1),
        lambda: np.repeat(array, 3000, axis=0),
        lambda: array.T,
        lambda: np.zeros((0, *array.shape[1:]), array.dtype),
        lambda: np.zeros((10**6, 0), array.dtype),
    ]
    changed = changes[m.rng.integers(len(changes))]() if array.ndim and array.size else array[None]
    if changed.shape == array.shape:
        return None
    m.arrays[name] = changed
    return ""


def swap_arrays(m: Mutant) -> str | None:
    first, second = _any(m), _any(m)
    if first is None or second is None or first == second:
        return None
    if np.array_equal(m.arrays[first], m.arrays[second]):
        return None
    m.arrays[first], m.arrays[second] = m.arrays[second], m.arrays[first]
    return ""


def swap_rows(m: Mutant) -> str | None:
    name = _any(m)
    if name is None or not m.arrays[name].ndim or len(m.arrays[name]) < 2:
        return None
    return "" if m.change(name, lambda a: a[m.rng.permutation(len(a))]) else None


def rename(m: Mutant) -> str | None:
    """Give an array another number: of a block, a leaf's batch, a tree; or one written in another way."""
    name = _any(m)
    if name is None:
        return None
    parts = name.split(".")
    places = [i for i, part in enumerate(parts) if part.lstrip("-").isdigit()]
    if not places:
        return None
    parts[places[m.rng.integers(len(places))]] = str(
        m.rng.choice(["-1", "-2", "0", "1", "2", "7", "00", "01", "+1", " 1"])
    )
    other = ".".join(parts)
    if other == name:
        return None
    array = m.arrays[name]
    if m.rng.random() < 0.7:
        del m.arrays[name]
    m.arrays[other] = array
    return ""


def take_away(m: Mutant) -> str | None:
    name = _any(m)
    if name is None or name == "sigma":
        return None
    del m.arrays[name]
    return "" if ".kept." in name else STRICT


def add_array(m: Mutant) -> str | None:
    name = _any(m)
    if name is None:
        return None
    other = f"{name}{m.rng.choice(['2', '.x', '.-1', ' '])}"
    if other in m.arrays:
        return None
    m.arrays[other] = m.arrays[name]
    return STRICT


def renumber(m: Mutant) -> str | None:
    """Rename all arrays of one number together with the entries that name them: a block for another."""
    old, new = (int(m.rng.integers(0, 3)) for _ in range(2))
    new = int(m.rng.choice([-1, -2, new, 7]))
    changed: dict[str, np.ndarray] = {}
    for name, array in m.arrays.items():
        head, _, last = name.rpartition(".")
        changed[f"{head}.{new}" if last == str(old) else name] = array
    if set(changed) == set(m.arrays):
        return None
    m.arrays.clear()
    m.arrays.update(changed)
    for _, chain in _chains(m):
        for batch in (batch for tree in chain["trees"].values() for batch in tree["batches"]):
            for key in ("phases", "slopes", "multipliers"):
                batch[key] = [new if k == old else k for k in batch[key]]
    return ""


def _chains(m: Mutant) -> list[tuple[str, Meta]]:
    return [] if m.meta["kind"] in ("witness", "proof") or "lp" in m.meta else m.chains


# ---- meta ------------------------------------------------------------------------------------------------------------


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, part in value.items():
            found += _paths(part, (*path, key))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            found += _paths(part, (*path, place))
    return found


WORDS = frozenset({"index", "property", "property_sha256", "bounds", "tool", "name"})
"""Entries that no claim rests on: what a file says of itself beside them is checked for its type alone."""


def _spot(m: Mutant) -> tuple[Any, Any] | None:
    """Return (container, key) of some entry."""
    words = WORDS if "kind" in m.meta else frozenset()
    paths = [path for path in _paths(m.meta) if path[0] not in words and path[-1] not in words]
    if not paths:
        return None
    *route, key = paths[m.rng.integers(len(paths))]
    where: Any = m.meta
    for step in route:
        where = where[step]
    return where, key


def set_value(m: Mutant) -> str | None:
    spot = _spot(m)
    if spot is None:
        return None
    where, key = spot
    value = some_value(m.rng)
    if type(value) is type(where[key]) and value == where[key]:
        return None
    where[key] = value
    return ""


def set_number(m: Mutant) -> str | None:
    spot = _spot(m)
    if spot is None or isinstance(spot[0][spot[1]], bool) or not isinstance(spot[0][spot[1]], int | float):
        return None
    where, key = spot
    changes = [-1, 1, 2, 10**6, -(10**6), 0.5]
    where[key] = where[key] + changes[m.rng.integers(len(changes))]
    return ""


def take_key(m: Mutant) -> str | None:
    spot = _spot(m)
    if spot is None or spot[1] == "planes":
        return None
    del spot[0][spot[1]]
    return ""


def add_key(m: Mutant) -> str | None:
    dicts = [m.meta, *(spot[0][spot[1]] for spot in [_spot(m)] if spot and isinstance(spot[0][spot[1]], dict))]
    where = dicts[m.rng.integers(len(dicts))]
    where[str(m.rng.choice(["x", "Size", "phases ", "-1", "lp2"]))] = some_value(m.rng)
    return ""


def double_entry(m: Mutant) -> str | None:
    lists = [path for path in _paths(m.meta) if isinstance(_at(m.meta, path), list) and _at(m.meta, path)]
    if not lists:
        return None
    found = _at(m.meta, lists[m.rng.integers(len(lists))])
    found.append(found[m.rng.integers(len(found))])
    return ""


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def shuffle_entries(m: Mutant) -> str | None:
    lists = [path for path in _paths(m.meta) if isinstance(_at(m.meta, path), list) and len(_at(m.meta, path)) > 1]
    if not lists:
        return None
    m.rng.shuffle(_at(m.meta, lists[m.rng.integers(len(lists))]))
    return ""


def another_size(m: Mutant) -> str | None:
    batches = [batch for _, chain in _chains(m) for tree in chain["trees"].values() for batch in tree["batches"]]
    if not batches:
        return None
    batch = batches[m.rng.integers(len(batches))]
    batch["size"] = int(m.rng.choice([0, batch["size"] + 1, 10**6, 10**9, 2**62]))
    return STRICT


def swap_batches(m: Mutant) -> str | None:
    """Put one tree's batches in the place of another's."""
    trees = [tree for _, chain in _chains(m) for tree in chain["trees"].values()]
    if len(trees) < 2:
        return None
    trees[0]["batches"], trees[1]["batches"] = trees[1]["batches"], trees[0]["batches"]
    return ""


# ---- claims ----------------------------------------------------------------------------------------------------------


def claim_more(m: Mutant) -> str | None:
    """Claim something that is nearly always false: a wider set, another class, a smaller S, other units or output."""
    today = m.meta["kind"] == "proof"
    claim, of = (m.meta["claim"], m.meta["model"]) if today else (m.meta, m.meta)
    kind, choice = claim["kind"], int(m.rng.integers(6))
    if kind in ("witness", "sensitivity"):
        if choice < 3:
            factor = m.rng.choice([0.0, 0.5, 0.9, 1 - 1e-3, -1.0])
            return "" if m.change("S", lambda a: a * factor) else None
        return "" if m.change("S", lambda a: a * np.where(m.rng.random(a.shape) < 0.3, 0.5, 1.0)) else None
    if kind in ("property", "property certificate"):
        name = m.pick("lo", "hi", "offsets", "rows")
        return "" if m.change(name, lambda a: a * m.rng.choice([1.2, 3.0, -1.0]) + m.rng.normal() * 0.1) else None
    if choice == 0:
        claim["eps"] = float(claim["eps"] * m.rng.choice([1.1, 1.5, 4.0, 1e6, 1e300]))
    elif choice == 1:
        claim["label"] = int((claim["label"] + 1) % 3)
    elif choice == 2:
        of["preprocessing"]["scale"] = float(m.rng.choice([-1.0, 0.1, 10.0, 1e-308, 1e308]))
    elif choice == 3:
        claim["clip"] = None
        return "" if m.change("centre", lambda a: a + m.rng.normal(size=a.shape)) else None
    elif choice == 4:
        of["output_name"] = str(m.rng.choice(["y", "z", "other"]))
    elif claim.get("cardinality") is None and of.get("threshold") is None:
        return None
    elif claim.get("cardinality") is not None:
        claim["cardinality"] = [None, 2, 99][m.rng.integers(3)]
    else:
        of["threshold"] = float(of["threshold"] * m.rng.choice([0.5, 0.9, -1.0, 1e-300]))
    return ""


def sharpen_proof(m: Mutant) -> str | None:
    """Make the numbers of a proof say more than they prove."""
    name = m.pick("adjoint", ".r", ".v", ".Y", "alpha", "factor", ".m", "box", "multipliers", "slopes", "duals")
    factor = 10.0 ** m.rng.uniform(-320, 300)
    with np.errstate(all="ignore"):
        return "" if m.change(name, lambda a: (a * factor).astype(a.dtype)) else None


def drop_lp_leaf(m: Mutant) -> str | None:
    name = m.pick("leaves.")
    if name is None:
        return None
    head = name.rpartition(".")[0]
    if len(m.arrays[f"{head}.phases"]) < 2:
        return None
    gone = int(m.rng.integers(len(m.arrays[f"{head}.phases"])))
    for part in ("phases", "multipliers"):
        m.arrays[f"{head}.{part}"] = np.delete(m.arrays[f"{head}.{part}"], gone, axis=0)
    return STRICT


def flip_lp_phase(m: Mutant) -> str | None:
    name = m.pick(".phases") if "lp" in m.meta else None
    if name is None:
        return None
    places = np.argwhere(m.arrays[name] != 0)
    if not len(places):
        return None
    m.arrays[name] = m.arrays[name].copy()
    m.arrays[name][tuple(places[m.rng.integers(len(places))])] *= -1
    return STRICT


def shrink_box(m: Mutant) -> str | None:
    name = m.pick("box.")
    return "" if name is not None and m.change(name, lambda a: a * m.rng.choice([0.0, 0.5, 0.99])) else None


# ---- forests of today's format ---------------------------------------------------------------------------------------


def _forest(m: Mutant, *, split: bool = False) -> str | None:
    """Return the prefix of some forest, of one that splits something where that is asked for."""
    found = [name.removesuffix("variable") for name in sorted(m.arrays) if name.endswith(".variable")]
    found = [key for key in found if not split or (m.arrays[f"{key}variable"] >= 0).any()]
    return str(m.rng.choice(found)) if found else None


def _inner(m: Mutant, key: str) -> int:
    return int(m.rng.choice(np.flatnonzero(m.arrays[f"{key}variable"] >= 0)))


def cut_forest(m: Mutant) -> str | None:
    """Leave the last nodes out, or make a leaf of one that is split."""
    key = _forest(m, split=True)
    if key is None:
        return None
    if m.rng.random() < 0.5:
        for name in ("variable", "cut", "child"):
            m.arrays[key + name] = m.arrays[key + name][:-2]
        return STRICT
    node = _inner(m, key)
    for name, value in (("variable", -1), ("cut", 0), ("child", 0)):
        m.arrays[key + name] = np.where(np.arange(m.arrays[key + name].size) == node, value, m.arrays[key + name])
    return STRICT


def split_elsewhere(m: Mutant) -> str | None:
    """Split something else, elsewhere, or the children the other way round."""
    key = _forest(m, split=True)
    if key is None:
        return None
    node, choice = _inner(m, key), int(m.rng.integers(3))
    if choice < 2:
        name, value = (("variable", int(m.rng.integers(0, 16))), ("cut", float(m.rng.normal())))[choice]
        return "" if m.change(key + name, lambda a: np.where(np.arange(a.size) == node, value, a)) else None
    order = np.arange(m.arrays[f"{key}variable"].size)
    first = int(m.arrays[f"{key}child"][node])
    order[[first, first + 1]] = first + 1, first
    for name in ("variable", "cut", "child"):
        m.arrays[key + name] = m.arrays[key + name][order]
    return ""


def other_goals(m: Mutant) -> str | None:
    """Trees for other goals: alternatives, rows, states, sides, blocks, stages."""
    name = m.pick(".alternatives", ".weights", ".states", ".signs", ".blocks", ".stage", ".leaves")
    if name is None or m.meta["kind"] != "proof":
        return None
    array = m.arrays[name]
    if array.dtype.kind == "f":
        return "" if m.change(name, lambda a: np.abs(a) * m.rng.choice([0.0, 1e-300, 0.5, 1e300], a.shape)) else None
    choice = int(m.rng.integers(3))
    if choice == 0:
        return "" if m.change(name, lambda a: m.rng.permutation(a)) else None
    return "" if m.change(name, m.entry(int(m.rng.choice([-1, 0, 1, 2, 3])))) else None


def keep_fewer(m: Mutant) -> str | None:
    """Leave a state out that lives, with the choices that are made for it."""
    name = m.pick(".kept.")
    if name is None or m.arrays[name].size < 2:
        return None
    gone, (head, block) = int(m.rng.integers(m.arrays[name].size)), name.split(".kept.")
    width = m.arrays[name].size
    for other, array in list(m.arrays.items()):
        if other.startswith(head) and other.endswith(f".{block}.values") and array.shape[1] == width:
            m.arrays[other] = np.delete(array, gone, axis=1)
    m.arrays[name] = np.delete(m.arrays[name], gone)
    return ""


def round_less(m: Mutant) -> str | None:
    """Say that roundings change less than they do, or more."""
    name = m.pick(".delta.")
    if name is None:
        return None
    factor = float(m.rng.choice([0.0, 1e-12, 1e-3, 0.9, 1.5, 1e3]))
    return (STRICT if factor < 1e-3 else "") if m.change(name, lambda a: a * factor) else None


def weigh_otherwise(m: Mutant) -> str | None:
    """Change weights that leaves have of their own: at random, to 0, to what is no weight, or for other leaves."""
    name = m.pick(".own.weights")
    if name is None:
        return None
    weights, choice = m.arrays[name], int(m.rng.integers(5))
    row = int(m.rng.integers(len(weights)))
    changed = weights.copy()
    if choice == 0:
        changed[row] = m.rng.random(weights.shape[1])
    elif choice == 1:
        changed[row] = 0.0
    elif choice == 2:
        changed[row, m.rng.integers(weights.shape[1])] = m.rng.choice([np.nan, np.inf, -1e-30, -1.0])
    elif choice == 3:
        changed = changed[m.rng.permutation(len(weights))]
    else:
        leaves = name.replace("weights", "leaves")
        m.arrays[leaves] = m.arrays[leaves] + int(m.rng.choice([-1, 1, 2, 10**6]))
        return ""
    m.arrays[name] = changed
    return STRICT if choice == 2 else ""


MUTATIONS: tuple[Callable[[Mutant], str | None], ...] = (
    set_entry, set_all, nudge, other_dtype, other_shape, swap_arrays, swap_rows, rename, take_away, add_array, renumber,
    set_value, set_number, take_key, add_key, double_entry, shuffle_entries, another_size, swap_batches, claim_more,
    weigh_otherwise, sharpen_proof, drop_lp_leaf, flip_lp_phase, shrink_box, cut_forest, split_elsewhere, other_goals,
    keep_fewer, round_less,
)  # fmt: skip


OF_META = (set_value, set_number, take_key, add_key, double_entry, shuffle_entries)
"""Those that change any JSON object."""


# ---- the text and the archive ----------------------------------------------------------------------------------------


def packed(arrays: dict[str, np.ndarray], text: str, rng: np.random.Generator) -> bytes:
    """Return a file, compressed or not."""
    buffer = io.BytesIO()
    save = np.savez_compressed if rng.random() < 0.5 else np.savez
    save(buffer, allow_pickle=True, **arrays, meta=np.asarray(text))
    return buffer.getvalue()


def bent_text(meta: Meta, rng: np.random.Generator) -> str:
    """Return meta as a text that is no such object, or is one in two ways."""
    text = json.dumps(meta)
    choice = int(rng.integers(7))
    if choice == 0:
        key = str(rng.choice(sorted(meta)))
        return f"{text[:-1]}, {json.dumps(key)}: {json.dumps(some_value(rng))}}}"
    if choice == 1:
        return "[" * int(10 ** rng.uniform(1, 5.5))
    if choice == 2:
        depth = int(10 ** rng.uniform(1, 5))
        return f'{text[:-1]}, "more": {"[" * depth}{"]" * depth}}}'
    if choice == 3:
        return text[: rng.integers(len(text))]
    if choice == 4:
        return text.replace(": ", f': {rng.choice(["NaN", "Infinity", "-Infinity", "1e999", "9" * 6000])}, "_": ', 1)
    if choice == 5:
        place = int(rng.integers(len(text)))
        return text[:place] + chr(int(rng.integers(1, 1000))) + text[place + 1 :]
    return text + text


def bent_archive(content: bytes, rng: np.random.Generator) -> bytes:
    """Return an archive with a member twice, a rare compression, sizes that lie, or other bytes."""
    choice = int(rng.integers(6))
    if choice < 2:
        buffer = io.BytesIO(content)
        method = zipfile.ZIP_LZMA if choice else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(buffer, "a", method) as archive:
            name = str(rng.choice(archive.namelist()))
            archive.writestr(name.removesuffix(".npy") if rng.random() < 0.5 else name, archive.read(name))
        return buffer.getvalue()
    if choice == 2:  # the sizes that the directory at the end states
        places = [i for i in range(len(content) - 46) if content[i : i + 4] == b"PK\x01\x02"]
        place = places[rng.integers(len(places))] + int(rng.choice([20, 24]))
        lie = struct.pack("<I", int(10 ** rng.uniform(0, 9.6)))
        return content[:place] + lie + content[place + 4 :]
    if choice == 3:
        return content[: rng.integers(len(content))]
    changed = bytearray(content)
    for place in rng.integers(0, len(content), rng.integers(1, 6)):
        changed[place] ^= int(rng.integers(1, 256))
    return bytes(changed)
