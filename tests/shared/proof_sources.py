"""Small networks with known claims, a proof file of every kind for them, and a judge of claims beside the tool.

The judge reads a file with numpy alone and evaluates the network itself: a claim is false where some point of its sets
contradicts it. The claims are nearly false, so that most changes of a set, a class or an offset make them so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from idl_audit.commands.shared.questions import read_property
from idl_audit.commands.shared.subject import Subject, open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options, decide_query
from idl_audit.proof import sensitivity_witness as witnesses
from idl_audit.proof.files.claims import Ball
from idl_audit.search.branching import search
from idl_audit.values.verdicts import Verdict
from tests.shared import forgeries
from tests.shared.format_1 import certificate_of, part_of, write_certificate, write_property_certificate, write_witness

Arrays = dict[str, np.ndarray]
Meta = dict[str, Any]
Network = Callable[[np.ndarray], np.ndarray]
CENTRE = np.array([0.4, -0.3])
ACTIVATIONS = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}


def layered(path: Path, sizes: tuple[int, ...], seed: int, activation: str = "relu", loop: float = 0.0) -> Path:
    """Write an implicit model of two inputs and three outputs; `loop` is the norm of the first layer's own matrix."""
    rng, n = np.random.default_rng(seed), sum(sizes)
    a, b, c = np.zeros((n, n)), np.zeros((n, 2)), np.zeros((3, n))
    ends = np.cumsum([0, *sizes])
    for newer, own, older in zip(ends[:-2], ends[1:-1], ends[2:], strict=True):
        a[newer:own, own:older] = rng.normal(size=(own - newer, older - own)) * 1.4 / np.sqrt(older - own)
    b[ends[-2] :] = rng.normal(size=(sizes[-1], 2))
    c[:, : sizes[0]] = rng.normal(size=(3, sizes[0]))
    if loop:
        own = rng.normal(size=(sizes[-1], sizes[-1]))
        a[ends[-2] :, ends[-2] :] = loop * own / np.linalg.norm(own, 2)
    meta = json.dumps({"schema_version": "1.0", "activation": activation})
    np.savez(path, A=a, B=b, C=c, D=np.zeros((3, 2)), b=rng.normal(size=n) / 2, d=np.zeros(3), meta=meta)
    return path


def monotone(path: Path, seed: int = 0, n: int = 5) -> Path:
    """Write a loop that no contraction proves: strong feedback that turns, x = relu(A x + B u), A + A^T < 0."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, n))
    a = -0.5 * np.eye(n) - a @ a.T / n + 3 * (a - a.T)
    meta = json.dumps({"schema_version": "1.0", "activation": "relu"})
    np.savez(path, A=a, B=rng.normal(size=(n, 2)), C=rng.normal(size=(3, n)), b=rng.normal(size=n) / 2, meta=meta)
    return path


def evaluated(path: Path, share: float = 1.0) -> Network:
    """Return an implicit model as a function, by iteration to its only state with steps of that share."""
    with np.load(path) as file:
        a, b, c, own = (file[name] for name in ("A", "B", "C", "b"))
        phi = ACTIVATIONS[json.loads(str(file["meta"]))["activation"]]

    def network(u: np.ndarray) -> np.ndarray:
        x, drive = np.zeros((len(u), len(a))), u @ b.T + own
        for _ in range(3000):
            change = phi(x @ a.T + drive) - x
            x = x + share * change
            if np.abs(change).max() < 1e-13:
                break
        return x @ c.T

    return network


def both_outputs(u: np.ndarray) -> dict[str, np.ndarray]:
    """Evaluate the ONNX file of `two_outputs`."""
    x = np.abs(u[:, :1])
    return {"y": np.hstack([0.75 + 0 * x, x]), "z": np.hstack([x, 0.5 + 0 * x])}


@dataclass(frozen=True)
class Source:
    """A proof file with a true claim."""

    name: str
    model: Path
    arrays: Arrays
    meta: Meta
    networks: dict[str | None, Network]
    """Output's name -> the network as the model file has it."""
    vnnlib: Path | None = None

    def false_claim(self, arrays: Arrays, meta: Meta) -> str:
        """Say what contradicts the claim that a changed file makes; empty where nothing was found."""
        network = self.networks.get(meta["output_name"])
        if network is None:
            return f"there is no output {meta['output_name']!r}"
        if meta["kind"] == "certificate":
            return _false_class(network, arrays, meta)
        if meta["kind"] == "property certificate":
            return _false_property(network, arrays, meta)
        return _false_bounds(network, arrays, meta)


def _in_units(network: Network, meta: Meta) -> Network:
    units = meta["preprocessing"]
    mean, std = np.array(units["mean"] or [0.0]), np.array(units["std"] or [1.0])
    return lambda u: network((u * units["scale"] - mean) / std)


def _grid(lo: np.ndarray, hi: np.ndarray, count: int = 41) -> np.ndarray:
    axes = np.meshgrid(*(np.linspace(a, b, count) for a, b in zip(lo, hi, strict=True)), indexing="ij")
    return np.stack([axis.reshape(-1) for axis in axes], axis=1)


def _false_class(network: Network, arrays: Arrays, meta: Meta) -> str:
    reach = meta["eps"] * arrays.get("sigma", np.ones(2))
    lo, hi = arrays["centre"] - reach, arrays["centre"] + reach
    if meta["clip"] is not None:
        lo, hi = np.maximum(lo, meta["clip"][0]), np.minimum(hi, meta["clip"][1])
    u = _grid(lo, hi)
    y = _in_units(network, meta)(u)
    margin = y[:, [meta["label"]]] - np.delete(y, meta["label"], axis=1)
    worst = margin.min(axis=1)
    if (worst > 0).all():
        return ""
    return f"class {meta['label']} loses by {worst.min():.3g} at {u[worst.argmin()].tolist()}"


def _false_property(network: Network, arrays: Arrays, meta: Meta) -> str:
    for number, part in enumerate(meta["parts"]):
        u = _grid(arrays[f"{number}.lo"], arrays[f"{number}.hi"])
        y = network(u)
        for a in range(part["alternatives"]):
            rows, offsets = arrays[f"{number}.{a}.rows"], arrays[f"{number}.{a}.offsets"]
            held = (y @ rows.T + offsets <= -1e-12).all(axis=1)
            if held.any():
                return f"alternative {a} holds at {u[held][0].tolist()}"
    return ""


def _false_bounds(network: Network, arrays: Arrays, meta: Meta) -> str:
    own, rng = _in_units(network, meta), np.random.default_rng(0)
    for size in (1e-6, 1e-3, 0.1, 2.0):
        u = rng.normal(size=(500, 2)) * 2
        moves = rng.normal(size=u.shape) * size * rng.integers(0, 2, u.shape)
        change, allowed = np.abs(own(u + moves) - own(u)), np.abs(moves) @ arrays["S"].T
        if not (change <= allowed * (1 + 1e-6) + 1e-8).all():
            return f"an output moves by {(change - allowed).max():.3g} more than S allows"
    return ""


def _radius(network: Network, label: int, largest: float = 3.0) -> float:
    """Return nearly the largest radius that a grid confirms."""
    radii = np.linspace(largest / 300, largest, 300)
    good = [bool((network(_grid(CENTRE - eps, CENTRE + eps)).argmax(axis=1) == label).all()) for eps in radii]
    return float(0.93 * radii[len(good) - 1 if all(good) else max(0, int(np.argmin(good)) - 1)])


def _loaded(name: str, path: Path, subject: Subject, network: Network, vnnlib: Path | None = None) -> Source:
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files if key != "meta"}
        return Source(name, subject.path, arrays, json.loads(str(file["meta"])), {None: network}, vnnlib)


def _sample(name: str, model: Path, *, rounds: bool = False, units: Preprocessing | None = None) -> Source:
    """Return the certificate of the sample CENTRE; `rounds` makes the search bound hidden states first."""
    units, subject = units or Preprocessing(), open_subject(model)
    meta = {"preprocessing": {"scale": units.scale, "mean": units.mean, "std": units.std}}
    network = _in_units(evaluated(model), meta)
    label = int(network(CENTRE[None])[0].argmax())
    eps = _radius(network, label)
    ball = Ball(CENTRE, eps)
    if not units.is_identity:
        ball = Ball(
            CENTRE, eps / 2, np.array([2.0, 0.5]), (float(CENTRE.min() - eps / 3), float(CENTRE.max() + eps / 3))
        )
    options = {"FEW_LEAVES": 0, "LARGEST_GAP": np.inf} if rounds else {"FEW_LEAVES": search.FEW_LEAVES}
    with mock.patch.multiple(search, **options):
        inside, reader = subject.in_data_units(units), subject.network(units)
        found = certificate_of(inside, reader, ball, label, None, index=3)
    assert found is not None, name
    path = model.with_name(f"{name}.proof.npz")
    about = {"sha256": subject.info.sha256, "output_name": None, "preprocessing": units, "force": True}
    write_certificate(path, found, **about)
    return _loaded(name, path, subject, evaluated(model))


PROPERTY = """
(declare-const X_0 Real) (declare-const X_1 Real)
(declare-const Y_0 Real) (declare-const Y_1 Real) (declare-const Y_2 Real)
(assert (or {boxes}))
(assert (or (and (>= Y_1 {greatest}) (<= Y_1 1000)) (and (<= Y_1 {least}) (>= Y_0 -1000) (<= Y_2 1000))))
"""


def _property(name: str, model: Path, rungs: tuple[str, ...], boxes: int = 1) -> Source:
    """Return the certificate that output 1 stays within what it takes on, in one box or in two."""
    subject, network = open_subject(model), evaluated(model)
    y = network(_grid(np.full(2, -1.0), np.full(2, 1.0)))[:, 1]
    room = 0.02 * float(y.max() - y.min())
    ends = [(-1, 1)] if boxes == 1 else [(-1, 0), (0, 1)]
    texts = [f"(and (>= X_0 {a}) (<= X_0 {b}) (>= X_1 -1) (<= X_1 1))" for a, b in ends]
    vnnlib = model.with_name(f"{name}.vnnlib")
    limits = {"greatest": f"{y.max() + room:.6f}", "least": f"{y.min() - room:.6f}"}
    vnnlib.write_text(PROPERTY.format(boxes=" ".join(texts), **limits))
    parts = []
    for query in read_property(subject, vnnlib).queries:
        found = decide_query(subject.model, subject.original, query, Options(methods=rungs, record=True))
        assert found.verdict is Verdict.CERTIFIED, name
        parts.append(part_of(subject.model, query, found.recorded))
    path = model.with_name(f"{name}.proof.npz")
    about = {"sha256": subject.info.sha256, "output_name": None, "force": True}
    write_property_certificate(path, parts, vnnlib=vnnlib, **about)
    return _loaded(name, path, subject, network, vnnlib)


def _sensitivity(name: str, model: Path, *, adjoint: bool = False, share: float = 1.0) -> Source:
    subject = open_subject(model)
    with mock.patch.object(witnesses, "LARGEST_FLAT", 0 if adjoint else witnesses.LARGEST_FLAT):
        found = witnesses.make_witness(subject.model)
    path = model.with_name(f"{name}.proof.npz")
    about = {"sha256": subject.info.sha256, "output_name": None, "preprocessing": Preprocessing(), "force": True}
    write_witness(path, found, **about)
    return _loaded(name, path, subject, evaluated(model, share))


def _two_outputs(name: str, folder: Path) -> Source:
    """Return the certificate of output y of an ONNX file that also has an output z."""
    model = forgeries.two_outputs(folder)
    arrays, meta = forgeries.certificate(model, 0.7)
    networks = {key: lambda u, key=key: both_outputs(u)[key] for key in ("y", "z")}
    return Source(name, model, arrays, {**meta, "output_name": "y"}, networks)


def sources(folder: Path) -> Iterator[Source]:
    """Yield a proof file of every kind."""
    plain, deep = layered(folder / "plain.npz", (6, 6), 3), layered(folder / "deep.npz", (6, 6, 6), 1)
    loop = layered(folder / "loop.npz", (5, 6), 4, loop=0.6)
    smooth = layered(folder / "smooth.npz", (5, 5), 4, activation="tanh")
    yield _sample("trees", plain)
    yield _sample("rounds", deep, rounds=True)
    yield _sample("units", plain, units=Preprocessing(0.5, (0.1, -0.2), (0.8, 1.25)))
    yield _sample("smooth", smooth)
    yield _sample("programs", loop)
    yield _two_outputs("outputs", folder)
    yield _property("boxes", plain, ("interval", "linear", "split"))
    yield _property("two boxes", plain, ("interval", "linear", "split"), boxes=2)
    yield _property("branches", plain, ("interval", "linear", "branch"))
    yield _sensitivity("flat", plain)
    yield _sensitivity("adjoint", deep, adjoint=True)
    yield _sensitivity("loops", loop)
    yield _sensitivity("monotone", monotone(folder / "monotone.npz"), share=0.05)
