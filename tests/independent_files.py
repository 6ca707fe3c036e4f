"""What independent checkers read of proof files, by docs/proof-format.md alone; none shares code with idl_audit."""

import hashlib
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
Arrays = Mapping[str, Array]
Proof = Path | Arrays  # a file, or what it holds
Choices = dict[tuple[str, int], Any]  # of a kind and a block: states, and a number for each
CHOICES = dict.fromkeys(("slopes", "multipliers", "duals"), ("values", "<f4")) | {"planes": ("shares", "|u1", None)}
fraction = np.frompyfunc(Fraction, 1, 1)


class Refused(Exception):
    """The proof is not accepted; the text says why."""


def demand(condition: object, reason: str) -> None:
    """Refuse unless the condition holds."""
    if not condition:
        raise Refused(reason)


def take(arrays: Arrays, name: str, kind: str, *shape: int | None) -> Array:
    """The array of that name, type and shape, in which None stands for any length."""
    array = arrays[name]
    right = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    demand(right and array.dtype.str == kind, f"{name} has type {array.dtype.str} and shape {array.shape}")
    return array


def numbered(arrays: Arrays, prefix: str, end: str) -> Iterator[str]:
    """The names PREFIX0., PREFIX1., ... as far as an array of that end exists."""
    return itertools.takewhile(lambda name: name + end in arrays, (f"{prefix}{i}." for i in itertools.count()))


def members(value: Any, names: str) -> list[Any]:
    """The members of a JSON object that must have exactly these keys."""
    demand(isinstance(value, dict) and set(value) == set(names.split()), f"meta: the keys are not {names}")
    return [value[name] for name in names.split()]


class Noted(Mapping[str, Array]):
    """Arrays, and the names of those that were read."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays, self.seen = arrays, set[str]()

    def __getitem__(self, name: str) -> Array:
        array = self.arrays[name]
        self.seen.add(name)
        return array

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


class Forest:
    """Trees of a proof, and what is chosen in their leaves: for which states, and the numbers for these."""

    def __init__(self, arrays: Arrays, name: str, goals: int, kept: list[Array]) -> None:
        self.roots, variable = take(arrays, name + "roots", "<i8", goals), take(arrays, name + "variable", "<i8", None)
        self.child = take(arrays, name + "child", "<i8", len(variable))
        self.cut = take(arrays, name + "cut", "<f8", len(variable))
        inner, order = variable >= 0, [1, *range(2, len(kept))[::-1]]
        nodes = np.concatenate([self.roots, first := self.child[inner], first + 1])
        demand(np.array_equal(np.sort(nodes), np.arange(len(variable))), f"{name}: nodes that are not of one tree")
        self.state = np.concatenate([kept[t] for t in order])[variable]
        self.block = np.repeat(order, [len(kept[t]) for t in order])[variable]
        self.leaf, self.choices = np.where(inner, -1, np.cumsum(~inner) - 1), defaultdict[int, Choices](dict)
        for t, (kind, (end, *form)) in itertools.product(order[1:], CHOICES.items()):
            if (own := f"{name}{kind}.{len(kept) - 1 - t}.") + "leaves" in arrays:
                leaves = take(arrays, own + "leaves", "<i8", None)
                states = kept[t][take(arrays, own + "states", "<i8", None)] if kind == "planes" else kept[t]
                values = take(arrays, own + end, form[0], len(leaves), len(states), *form[1:])
                for leaf, numbers in zip(leaves.tolist(), values, strict=True):
                    self.choices[leaf][kind, t] = states, numbers


def numbers(value: Any) -> list[Fraction]:
    """A list of JSON's numbers."""
    demand(isinstance(value, list) and {*map(type, value)} <= {int, float}, f"meta: {value!r} is no list of numbers")
    return [*map(Fraction, value)]


def parts(arrays: Arrays, claim: Any, p: int, q: int) -> Iterator[tuple[Any, ...]]:
    """The boxes of a claim, the rows and offsets of the alternatives of which none may hold, and whose they are.

    Strict rows are refuted as if they were not: more is proved than is claimed.
    """
    if claim["kind"] == "sample":
        _, _, label, eps, clip, cardinality = members(claim, "kind index label eps clip cardinality")
        demand(cardinality is None, "sets of few inputs (U_card) are not supported")
        demand(type(label) is int and 0 <= label < q > 1 and eps > 0, "meta: claim")
        centre = fraction(take(arrays, "centre", "<f8", p))
        radii = numbers([eps])[0] * fraction(take(arrays, "sigma", "<f8", p) if "sigma" in arrays else np.ones(p))
        least, most = numbers(clip) if clip is not None else (-math.inf, math.inf)
        rows = np.delete(np.eye(q)[label] - np.eye(q), label, axis=0)
        box = np.maximum(centre - radii, least), np.minimum(centre + radii, most)
        yield "part.0.", *box, rows, np.zeros(q - 1), np.arange(q - 1)
        return
    demand(claim["kind"] == "property" and members(claim, "kind name sha256"), f"claims of kind {claim['kind']}")
    for key in numbered(arrays, "part.", "lo"):
        box = (fraction(take(arrays, key + end, "<f8", p)) for end in ("lo", "hi"))
        names = [*numbered(arrays, f"{key}alternative.", "rows")]
        rows = [take(arrays, name + "rows", "<f8", None, q) for name in names]
        offsets = [take(arrays, name + "offsets", "<f8", len(some)) for name, some in zip(names, rows, strict=True)]
        demand(rows and all(map(len, rows)), f"{key}: no alternative, or one without rows")
        whose = np.repeat(np.arange(len(rows)), [*map(len, rows)])
        yield key, *box, np.concatenate(rows), np.concatenate(offsets), whose


def read(
    model: Path,
    proof: Proof,
    arithmetic: str,
    load: Callable[..., Any],
    prove: Callable[..., None],
    parts: Callable[..., Iterator[tuple[Any, ...]]] = parts,
) -> str:
    """The claim of a file whose parts are all proved for the network that is loaded; Refused whatever else it holds."""
    try:
        with np.load(proof) if isinstance(proof, Path) else nullcontext(proof) as held:
            arrays = Noted(held)
            meta = json.loads(str(take(arrays, "meta", arrays["meta"].dtype.str)))
            *head, _, about, given, claim = members(meta, "schema_version kind tool model arithmetic claim")
            demand([*head, given] == ["2.0", "proof", arithmetic], f"not a claim of format 2.0 in {arithmetic} numbers")
            sha256, output, units, threshold = members(about, "sha256 output_name preprocessing threshold")
            demand(threshold is None, "thresholds are not supported")
            network = load(model, sha256, output, json.dumps(members(units, "scale mean std")))
            found = list(parts(arrays, claim, network.sizes[1], math.prod(network.output.shape)))
            demand(found, "a claim of nothing")
            for part in found:
                prove(network, arrays, *part)
            rest = {*arrays} - arrays.seen
            demand(not rest, f"arrays that the format does not name here: {sorted(rest)[:3]}")
            centre = hashlib.sha256(arrays["centre"].tobytes()).hexdigest()[:16] if "centre" in arrays else None
            return f"{json.dumps(claim)}, centre {centre}, of {model.name} {json.dumps(about)}, in {arithmetic} numbers"
    except Exception as error:
        raise error if isinstance(error, Refused) else Refused(f"{type(error).__name__}: {error}") from error
