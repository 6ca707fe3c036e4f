"""Small ONNX networks drawn from seeds, and proofs of every kind about them, which the tool's methods leave."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from idl_audit.commands.shared.float_margins import float_margins
from idl_audit.commands.shared.subject import open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options, decide_query
from idl_audit.decide.proofs import plain, proof_of
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.files.claims import About, Ball, PropertyClaim, SampleClaim, Units
from idl_audit.proof.files.file import ProofFile, write_proof
from idl_audit.search.branching import search
from idl_audit.values.box import Box
from idl_audit.values.budget import UNLIMITED
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.verdicts import ArithmeticName, Verdict
from tests.shared.proof_sources import Source

Arrays = dict[str, np.ndarray]
Nodes = list[NodeProto]
Made = tuple[Nodes, Arrays, tuple[int, ...]]
"""Nodes from x to y, their constants, and the shape of the input."""


def _gemms(rng: np.random.Generator, sizes: tuple[int, ...], first: str = "x", lead: str = "") -> tuple[Nodes, Arrays]:
    nodes, constants, last = [], {}, first
    for k, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        w, b, z = f"{lead}w{k}", f"{lead}b{k}", f"{lead}z{k}"
        constants[w] = (rng.normal(size=(n_in, n_out)) * 1.4 / np.sqrt(n_in)).astype(np.float32)
        constants[b] = (rng.normal(size=n_out) / 2).astype(np.float32)
        nodes.append(helper.make_node("Gemm", [last, w, b], ["y" if k == len(sizes) - 2 else z]))
        if k < len(sizes) - 2:
            nodes.append(helper.make_node("Relu", [z], [f"{lead}x{k}"]))
            last = f"{lead}x{k}"
    return nodes, constants


def wide(rng: np.random.Generator) -> Made:
    """One layer of states, which reads the inputs alone: it may have planes."""
    return *_gemms(rng, (2, 8, 3)), (1, 2)


def plain_layers(rng: np.random.Generator) -> Made:
    """Two layers of states."""
    return *_gemms(rng, (2, 6, 6, 3)), (1, 2)


def deep(rng: np.random.Generator) -> Made:
    """Three layers of states."""
    return *_gemms(rng, (2, 5, 5, 5, 3)), (1, 2)


def residual(rng: np.random.Generator) -> Made:
    """A block around which its inputs go."""
    nodes, constants = _gemms(rng, (5, 5, 3), first="s", lead="t")
    constants |= {"v": rng.normal(size=(2, 5)).astype(np.float32), "w": rng.normal(size=(5, 5)).astype(np.float32) / 2}
    nodes[0].input[0] = "r"
    before = [("MatMul", ["x", "v"], "h"), ("Relu", ["h"], "s"), ("MatMul", ["s", "w"], "m"), ("Add", ["m", "s"], "a")]
    before.append(("Relu", ["a"], "r"))
    return [*(helper.make_node(kind, reads, [made]) for kind, reads, made in before), *nodes], constants, (1, 2)


NETWORKS: dict[str, Callable[[np.random.Generator], Made]] = {
    "wide": wide, "plain": plain_layers, "deep": deep, "residual": residual,
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """How a proof of some kind is made."""

    network: str
    methods: tuple[str, ...]
    property_: bool = False
    """Whether the claim is a property; else that of a sample."""
    reach: float = 0.93
    """Share of the radius, or of the room, at which the claim turns false."""
    lemmas: bool = False
    """Whether the search bounds hidden states first."""
    arithmetic: ArithmeticName = "real"
    units: Preprocessing | None = None
    together: bool = False
    """Whether the rows of the property cannot hold together, though each of them can."""


UNITS = Preprocessing(0.5, (0.1,), (0.8,))
KINDS: dict[str, Kind] = {
    "linear": Kind("plain", ("linear",), reach=0.3),
    "slopes": Kind("deep", ("linear", "branch"), reach=0.6),
    "planes": Kind("wide", ("branch",), reach=0.99),
    "states split": Kind("plain", ("branch",), reach=0.99),
    "lemmas": Kind("deep", ("branch",), lemmas=True),
    "programs": Kind("plain", ("exact",), reach=0.98),
    "programs of a residual network": Kind("residual", ("exact",)),
    "states of a residual network": Kind("residual", ("branch",)),
    "units": Kind("plain", ("branch",), units=UNITS),
    "inputs split": Kind("plain", ("split",), property_=True),
    "boxes of a deep network": Kind("deep", ("split",), property_=True),
    "trees of a property": Kind("deep", ("branch",), property_=True),
    "rows together": Kind("plain", ("joint",), property_=True, together=True),
    "boxes together": Kind("plain", ("split",), property_=True, together=True),
    "float32": Kind("plain", ("branch",), arithmetic="float32"),
}


def saved(folder: Path, name: str, seed: int) -> Path:
    """Write a network."""
    nodes, constants, shape = NETWORKS[name](np.random.default_rng([seed, list(NETWORKS).index(name)]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3))],
        [numpy_helper.from_array(array, key) for key, array in constants.items()],
    )
    path = folder / f"{name}-{seed}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def made(folder: Path, name: str, seed: int) -> Source:
    """Return a proof of some kind about the network of a seed, at nearly the largest set that its methods prove."""
    return source(saved(folder, KINDS[name].network, seed), KINDS[name], name, seed)


def source(path: Path, kind: Kind, name: str, seed: int) -> Source:
    """Return a proof of some kind about a network of three outputs."""
    found = next(found for k in range(16) if (found := _proved(path, kind, name, seed, 0.8**k)) is not None)
    file = path.with_name(f"{name}-{seed}.npz")
    write_proof(file, found, tool="tests", force=True)
    with np.load(file) as archive:
        arrays = {key: archive[key] for key in archive.files if key != "meta"}
        return Source(name, path, arrays, json.loads(str(archive["meta"])), {})


def _proved(path: Path, kind: Kind, name: str, seed: int, share: float) -> ProofFile | None:
    """Return a proof for a share of that set; None where the methods find none."""
    subject = open_subject(path)
    units = kind.units or Preprocessing()
    model, rng = subject.in_data_units(units), np.random.default_rng([seed, 1])
    centre = rng.uniform(-0.5, 0.5, model.n_inputs)
    claim = (_property if kind.property_ else _sample)(kind, name, model, centre, rng, share)
    bounds = None if kind.arithmetic == "real" else float_margins(subject, units)
    proofs = []
    options = {"FEW_LEAVES": 0, "LARGEST_GAP": np.inf, "SOON": 0} if kind.lemmas else {"FEW_LEAVES": search.FEW_LEAVES}
    for query in claim.queries(model):
        with mock.patch.multiple(search, **options):
            wanted = Options(methods=kind.methods, record=True, max_nodes=20_000)
            found = decide_query(model, subject.network(units), query, wanted)
        if found.verdict is not Verdict.CERTIFIED:
            return None
        proof = proof_of(model, subject.original, query, found.recorded, budget=UNLIMITED, arithmetic=bounds)
        if proof is None:
            return None
        proofs.append(proof)
    about = About(subject.info.sha256, None, Units(units.scale, units.mean, units.std), None, kind.arithmetic)
    return ProofFile(about, claim, tuple(proofs))


def _outputs(model: ImplicitModel, centre: np.ndarray, eps: float, rng: np.random.Generator) -> np.ndarray:
    """Return y at many points of a box, corners among them."""
    u = centre + eps * rng.uniform(-1, 1, (4000, centre.size))
    u[::4] = centre + eps * rng.choice([-1.0, 1.0], (1000, centre.size))
    return np.asarray(model(u))


def _sample(
    kind: Kind, name: str, model: ImplicitModel, centre: np.ndarray, rng: np.random.Generator, share: float
) -> SampleClaim:
    label = int(_outputs(model, centre, 0.0, rng)[0].argmax())
    lo, hi = 0.0, 2.0
    for _ in range(12):
        eps = (lo + hi) / 2
        same = (_outputs(model, centre, eps, rng).argmax(axis=1) == label).all()
        lo, hi = (eps, hi) if same else (lo, eps)
    return SampleClaim(Ball(centre, share * kind.reach * lo), label, 3)


def _property(
    kind: Kind, name: str, model: ImplicitModel, centre: np.ndarray, rng: np.random.Generator, share: float
) -> PropertyClaim:
    y = _outputs(model, centre, 1.0, rng)
    room = (1.15 - share) * np.ptp(y, axis=0)
    if kind.together:
        rows = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, -3.0], [-1.0, 0.0, 1.0]])
        values, middle = y @ rows.T, np.median(y @ rows.T, axis=0)
        limits = middle + (values - middle).max(axis=1).min() - (1.03 - share) * np.ptp(values, axis=0).mean()
        alternatives = (Conjunction(rows, -limits),)
    else:
        ends = [(1.0, y[:, 1].min() - room[1]), (-1.0, -y[:, 1].max() - room[1])]
        more = np.eye(3)[[1, 0]]
        alternatives = tuple(Conjunction(np.stack([s * more[0], more[1]]), np.array([-e, -1e3])) for s, e in ends)
    box = Box.between(centre - 1.0, centre + 1.0)
    query = plain(Query(box, alternatives))
    return PropertyClaim(f"{name}.vnnlib", hashlib.sha256(name.encode()).hexdigest(), (query,))


def splits_both(source: Source) -> Source:
    """Return a proof that splits inputs and states: as it was found, or by hand."""
    lo, hi = source.arrays["part.0.lo"], source.arrays["part.0.hi"]
    variable = source.arrays["part.0.goals.0.variable"]
    if not ((variable >= 0) & (variable < lo.size)).any():
        source = _split(source, 0, float(lo[0] + hi[0]) / 2)
    if not (variable >= lo.size).any():
        source = _split(source, lo.size + 1, 0.0)
    return replace(source, name="inputs and states split")


def _split(source: Source, what: int, cut: float) -> Source:
    """Return a proof whose last leaf is split once more; both children have its choices."""
    arrays, key = dict(source.arrays), "part.0.goals.0."
    leaves = np.flatnonzero(arrays[key + "variable"] < 0)
    last, n = len(leaves) - 1, len(arrays[key + "variable"])
    for name, own, below in (("variable", what, -1), ("child", n, 0), ("cut", cut, 0.0)):
        array = np.concatenate([arrays[key + name], [below, below]])
        array[leaves[-1]] = own
        arrays[key + name] = array
    for name in [name for name in arrays if name.startswith(key) and name.endswith(".leaves")]:
        (place,) = np.nonzero(arrays[name] == last)
        if place.size:
            arrays[name] = np.append(arrays[name], last + 1)
            for other in (name.replace(".leaves", end) for end in (".values", ".shares", ".weights")):
                if other in arrays:
                    arrays[other] = np.concatenate([arrays[other], arrays[other][place]])
    return replace(source, arrays=arrays)


def sources(folder: Path, seeds: Iterable[int]) -> Iterator[Source]:
    """Yield proofs of every kind, about a network for each seed."""
    for seed in seeds:
        for name in KINDS:
            yield made(folder, name, seed)
        yield splits_both(made(folder, "inputs split", seed))
