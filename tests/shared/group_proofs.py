"""Proofs about small models with coupled states or curves: products, contractions, norms, softmax, exponentials.

Models are written as `convert` writes them, so that no operator stands between an activation and its proof. What a
file claims is judged at the points of a grid, by a network that is evaluated beside the tool: false where one of them
contradicts it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from idl_audit.commands.shared.subject import open_subject
from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.storage import save_model
from tests.independent_models import StoredNetwork
from tests.shared.operator_proofs import proved
from tests.shared.proof_sources import Source, claim_of

NORM = {"width": 4.0, "count": 3.0, "under": 1e-2, "beside": 0.0, "least": 0.0, "centred": 1.0}
GROUPS: dict[str, tuple[str, dict[str, float]]] = {
    "product": ("product", {}),
    "contraction": ("contraction", {"rows": 1.0, "inner": 2.0, "columns": 2.0}),
    "filled up": ("contraction", {"rows": 2.0, "inner": 1.0, "columns": 3.0}),
    "softmax": ("softmax", {"width": 3.0}),
    "standard scores": ("normalised", NORM),
    "lengths": ("normalised", {**NORM, "count": 1.0, "under": 0.0, "least": 0.5, "centred": 0.0}),
    "beside the root": ("normalised", {**NORM, "under": 0.0, "beside": 0.3}),
}
PROVED = {"contraction": (0.2, 0.2), "softmax": (0.2, 0.2), "standard scores": (0.05, 0.1), "lengths": (0.05, 0.1)}
"""How far inputs move, and the share of what outputs do then that a claim leaves beside it."""
CURVES = ("gelu", "exp", "sin")
MORE = {"filled up": (0.2, 0.2), "beside the root": (0.05, 0.1), **dict.fromkeys(("product", *CURVES), (0.4, 0.02))}
"""Of the others, whose proofs only campaigns change."""


def size(name: str) -> int:
    """States of two groups."""
    kind, given = GROUPS.get(name, (name, {}))
    return 2 * int(getattr(ACTIVATIONS[kind](**given), "width", 2))


def model(folder: Path, name: str) -> Path:
    """Write y = C phi(A relu(B u + b) + b2) + d, as `convert` does."""
    rng, n, kind = np.random.default_rng(len(name)), size(name), GROUPS.get(name, (name, {}))
    a, b, c = np.zeros((n + 4, n + 4)), np.zeros((n + 4, 2)), np.zeros((3, n + 4))
    a[4:, :4], b[:4], c[:, 4:] = rng.normal(size=(n, 4)) / 2, rng.normal(size=(4, 2)), rng.normal(size=(3, n))
    blocks = [{"activation": "relu", "size": 4}, {"activation": kind[0], "size": n, "parameters": kind[1]}]
    meta = json.dumps({"schema_version": "1.0", "blocks": blocks})
    given = folder / f"given {name}.npz"
    np.savez(given, A=a, B=b, C=c, b=rng.normal(size=n + 4) / 2, d=np.zeros(3), meta=meta)
    path = folder / f"model {name}.npz"
    subject = open_subject(given)
    save_model(path, subject.model, origin=subject.info.model_dump(mode="json"))
    return path


def source(folder: Path, name: str) -> Source:
    """Return a proof that chooses and splits, about the model of a name."""
    eps, room = {**PROVED, **MORE}[name]
    for k in range(6):
        found = proved(open_subject(model(folder, name)), ("linear", "branch"), room * 2**k, eps)
        if found is not None:
            return Source(name, found.model, found.arrays, found.meta, {})
    raise AssertionError(f"no proof about {name} was found")


def sources(folder: Path) -> Iterator[Source]:
    """Yield a proof about each kind of group, and some curves."""
    for name in (*PROVED, *MORE):
        yield source(folder, name)


def function(source: Source) -> StoredNetwork:
    """Return the network of a source, evaluated by the checker's own code."""
    return StoredNetwork(source.model, source.model, source.meta["model"]["sha256"], None, json.dumps([1.0, [], []]))


def is_false(arrays: Any, meta: Any, network: StoredNetwork) -> bool:
    """Whether an alternative holds at one of many points of the boxes that are told."""
    if meta["claim"]["kind"] != "property":
        return True
    told = claim_of(arrays, meta)
    mean, std = (np.array(told.units[key] or [i], float) for i, key in enumerate(("mean", "std")))
    for (lo, hi), alternatives in zip(told.boxes, told.alternatives, strict=True):
        axes = np.meshgrid(*np.linspace(lo, hi, 41).T)
        y = network((np.stack([axis.reshape(-1) for axis in axes], axis=1) * told.units["scale"] - mean) / std)
        if any(bool((y @ rows.T + offsets <= -1e-9).all(axis=1).any()) for rows, offsets in alternatives):
            return True
    return False


@dataclass(frozen=True)
class AtPoints:
    """Whether nothing contradicts a claim at the points of a grid."""

    source: Source

    @cached_property
    def network(self) -> StoredNetwork:
        return function(self.source)

    def __call__(self, arrays: Any, meta: Any) -> bool:
        with np.errstate(all="ignore"):
            return not is_false(arrays, meta, self.network)
