"""Small networks with known claims, a proof file of every kind for them, and a judge of claims beside the tool.

The judge reads a file with numpy alone and evaluates the network itself: a claim is false where some point of its sets
contradicts it. The claims are nearly false, so that most changes of a set, a class or an offset make them so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from idl_audit.commands import verify as verification
from idl_audit.commands.shared.classifier import as_classifier
from idl_audit.commands.shared.float_margins import float_margins
from idl_audit.commands.shared.questions import read_property
from idl_audit.commands.shared.subject import ModelOptions, open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options, decide_query
from idl_audit.decide.proofs import proof_of
from idl_audit.proof import sensitivity_witness as witnesses
from idl_audit.proof.files.claims import About, Ball, PropertyClaim, SampleClaim, Units
from idl_audit.proof.files.file import ProofFile, write_proof
from idl_audit.search.branching import search
from idl_audit.values.budget import UNLIMITED
from idl_audit.values.npz import NpzFile
from idl_audit.values.query import plain
from idl_audit.values.verdicts import ArithmeticName, Verdict
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


def coupled(path: Path, *, weighs: bool) -> Path:
    """Write a loop of softmaxes that one norm a group proves, or the monotone proof with weights alone."""
    rng, turn = np.random.default_rng(1), np.array([[0.6, -0.8, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
    none = np.zeros((3, 3))
    a = np.block([[none, 60 * turn], [-0.6 * turn.T, none]]) if weighs else 0.9 * np.roll(np.eye(6), 1, axis=1)
    blocks = [{"activation": "softmax", "size": size} for size in ((3, 3) if weighs else (6,))]
    meta = json.dumps({"schema_version": "1.0", "blocks": blocks})
    np.savez(path, A=a, B=rng.normal(size=(6, 2)), C=rng.normal(size=(3, 6)), b=rng.normal(size=6) / 2, meta=meta)
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
        told = claim_of(arrays, meta)
        network = self.networks.get(told.output_name)
        if network is None:
            return f"there is no output {told.output_name!r}"
        return {"class": _false_class, "property": _false_property, "bounds": _false_bounds}[told.kind](network, told)

    def today(self) -> Source:
        """Return the same claim and choices in a file of today's format, as the tool writes it."""
        path = self.model.with_name("of-format-1.npz")
        np.savez(path, **self.arrays, meta=np.asarray(json.dumps(self.meta)))
        with NpzFile(path) as archive:
            asked = verification._asked(path, archive)
            subject = open_subject(self.model, ModelOptions(asked.of.output_name))
            found = asked.opened(archive, asked.meta, subject.in_data_units(asked.units))
        return replace(written(f"{self.name} 2.0", self.model, found, None, self.vnnlib), networks=self.networks)


@dataclass(frozen=True)
class Told:
    """What a file of any format claims, read beside the tool."""

    kind: str
    output_name: str | None
    units: Meta
    words: Meta
    """Of a class: label, eps, clip, index, cardinality, threshold."""
    centre: np.ndarray | None = None
    sigma: np.ndarray | None = None
    S: np.ndarray | None = None
    boxes: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    alternatives: tuple[tuple[tuple[np.ndarray, np.ndarray], ...], ...] = ()
    """Of each box: (rows, offsets)."""


KINDS = {"certificate": "class", "property certificate": "property", "witness": "bounds"}
KINDS |= {"sample": "class", "property": "property", "sensitivity": "bounds"}


def claim_of(arrays: Arrays, meta: Meta) -> Told:
    """Return what a file claims."""
    today = meta["schema_version"] == "2.0"
    claim, of = (meta["claim"], meta["model"]) if today else (meta, meta)
    words = {key: claim.get(key) for key in ("label", "eps", "clip", "index", "cardinality")}
    lead, number = ("part.{}.", "part.{}.alternative.{}.") if today else ("{}.", "{}.{}.")
    boxes, alternatives = [], []
    while f"{lead.format(len(boxes))}lo" in arrays:
        k = len(boxes)
        boxes.append((arrays[f"{lead.format(k)}lo"], arrays[f"{lead.format(k)}hi"]))
        found: list[tuple[np.ndarray, np.ndarray]] = []
        while f"{number.format(k, len(found))}rows" in arrays:
            key = number.format(k, len(found))
            found.append((arrays[f"{key}rows"], arrays[f"{key}offsets"]))
        alternatives.append(tuple(found))
    return Told(
        KINDS[claim["kind"]],
        of["output_name"],
        of.get("preprocessing") or {"scale": 1, "mean": [], "std": []},
        words | {"threshold": of.get("threshold")},
        arrays.get("centre"),
        arrays.get("sigma"),
        arrays.get("S"),
        tuple(boxes),
        tuple(alternatives),
    )


def _in_units(network: Network, units: Meta) -> Network:
    mean, std = np.array(units["mean"] or [0.0]), np.array(units["std"] or [1.0])
    return lambda u: network((u * units["scale"] - mean) / std)


def _grid(lo: np.ndarray, hi: np.ndarray, count: int = 41) -> np.ndarray:
    axes = np.meshgrid(*(np.linspace(a, b, count) for a, b in zip(lo, hi, strict=True)), indexing="ij")
    return np.stack([axis.reshape(-1) for axis in axes], axis=1)


def _points(told: Told) -> np.ndarray:
    """Return points of the set around a sample: of a grid, or of the axes of one where a single input changes."""
    centre, words = told.centre, told.words
    reach = words["eps"] * (np.ones(2) if told.sigma is None else told.sigma)
    lo, hi = centre - reach, centre + reach
    if words["clip"] is not None:
        lo, hi = np.maximum(lo, words["clip"][0]), np.minimum(hi, words["clip"][1])
    if words["cardinality"] is None or words["cardinality"] >= 2:
        return _grid(lo, hi)
    along = np.linspace(lo, hi, 1001)
    return np.concatenate([np.where(np.arange(2) == j, along, centre) for j in range(2)])


def _false_class(network: Network, told: Told) -> str:
    u, label, threshold = _points(told), told.words["label"], told.words["threshold"]
    y = _in_units(network, told.units)(u)
    if threshold is not None:
        y = np.hstack([np.zeros_like(y), y - threshold])
    margin = y[:, [label]] - np.delete(y, label, axis=1)
    worst = margin.min(axis=1)
    if (worst > 0).all():
        return ""
    return f"class {label} loses by {worst.min():.3g} at {u[worst.argmin()].tolist()}"


def _false_property(network: Network, told: Told) -> str:
    for box, alternatives in zip(told.boxes, told.alternatives, strict=True):
        u = _grid(*box)
        y = _in_units(network, told.units)(u)
        for a, (rows, offsets) in enumerate(alternatives):
            held = (y @ rows.T + offsets <= -1e-12).all(axis=1)
            if held.any():
                return f"alternative {a} holds at {u[held][0].tolist()}"
    return ""


def _false_bounds(network: Network, told: Told) -> str:
    own, rng = _in_units(network, told.units), np.random.default_rng(0)
    for size in (1e-6, 1e-3, 0.1, 2.0):
        u = rng.normal(size=(500, 2)) * 2
        moves = rng.normal(size=u.shape) * size * rng.integers(0, 2, u.shape)
        change, allowed = np.abs(own(u + moves) - own(u)), np.abs(moves) @ told.S.T
        if not (change <= allowed * (1 + 1e-6) + 1e-8).all():
            return f"an output moves by {(change - allowed).max():.3g} more than S allows"
    return ""


def _radius(network: Network, label: int, largest: float = 3.0) -> float:
    """Return nearly the largest radius that a grid confirms."""
    radii = np.linspace(largest / 300, largest, 300)
    good = [bool((network(_grid(CENTRE - eps, CENTRE + eps)).argmax(axis=1) == label).all()) for eps in radii]
    return float(0.93 * radii[len(good) - 1 if all(good) else max(0, int(np.argmin(good)) - 1)])


def _loaded(name: str, path: Path, model: Path, network: Network | None, vnnlib: Path | None = None) -> Source:
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files if key != "meta"}
        return Source(name, model, arrays, json.loads(str(file["meta"])), {None: network}, vnnlib)


def written(name: str, model: Path, found: ProofFile, network: Network | None, vnnlib: Path | None = None) -> Source:
    """Return a file as the tool writes it."""
    path = model.with_name(f"{name}.proof.npz")
    write_proof(path, found, tool="tests", force=True)
    return _loaded(name, path, model, network, vnnlib)


def _sample(name: str, model: Path, *, rounds: bool = False, units: Preprocessing | None = None) -> Source:
    """Return the certificate of the sample CENTRE; `rounds` makes the search bound hidden states first."""
    units, subject = units or Preprocessing(), open_subject(model)
    network = _in_units(evaluated(model), {"scale": units.scale, "mean": units.mean, "std": units.std})
    label = int(network(CENTRE[None])[0].argmax())
    eps = _radius(network, label)
    ball = Ball(CENTRE, eps)
    if not units.is_identity:
        ball = Ball(
            CENTRE, eps / 2, np.array([2.0, 0.5]), (float(CENTRE.min() - eps / 3), float(CENTRE.max() + eps / 3))
        )
    options = {"FEW_LEAVES": 0, "LARGEST_GAP": np.inf, "SOON": 0} if rounds else {"FEW_LEAVES": search.FEW_LEAVES}
    with mock.patch.multiple(search, **options):
        inside, reader = subject.in_data_units(units), subject.network(units)
        found = certificate_of(inside, reader, ball, label, None, index=3)
    assert found is not None, name
    path = model.with_name(f"{name}.proof.npz")
    about = {"sha256": subject.info.sha256, "output_name": None, "preprocessing": units, "force": True}
    write_certificate(path, found, **about)
    return _loaded(name, path, model, evaluated(model))


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
    return _loaded(name, path, model, network, vnnlib)


def _sensitivity(name: str, model: Path, *, adjoint: bool = False, share: float = 1.0) -> Source:
    subject = open_subject(model)
    with mock.patch.object(witnesses, "LARGEST_FLAT", 0 if adjoint else witnesses.LARGEST_FLAT):
        found = witnesses.make_witness(subject.model)
    path = model.with_name(f"{name}.proof.npz")
    about = {"sha256": subject.info.sha256, "output_name": None, "preprocessing": Preprocessing(), "force": True}
    write_witness(path, found, **about)
    return _loaded(name, path, model, evaluated(model, share))


def _two_outputs(name: str, folder: Path) -> Source:
    """Return the certificate of output y of an ONNX file that also has an output z."""
    model = forgeries.two_outputs(folder)
    arrays, meta = forgeries.certificate(model, 0.7)
    networks = {key: lambda u, key=key: both_outputs(u)[key] for key in ("y", "z")}
    return Source(name, model, arrays, {**meta, "output_name": "y"}, networks)


def _proved(
    name: str,
    model: Path,
    network: Network,
    ball: Ball,
    label: int,
    threshold: float | None = None,
    arithmetic: ArithmeticName = "real",
) -> Source:
    """Return today's file of a sample, whose proof the tool makes."""
    subject = open_subject(model)
    subject = subject if threshold is None else as_classifier(subject, threshold)
    claim = SampleClaim(ball, label, 7)
    (query,) = claim.queries(subject.model)
    bounds = None if arithmetic == "real" else float_margins(subject, Preprocessing())
    proof = proof_of(subject.model, subject.original, query, None, budget=UNLIMITED, arithmetic=bounds)
    assert proof is not None, name
    about = About(subject.info.sha256, None, Units(), threshold, arithmetic)
    return written(name, model, ProofFile(about, claim, (proof,)), network)


def _few_changes(name: str, model: Path, share: float) -> Source:
    """Return the file of a set in which one input changes, at some share of the radius where the class flips."""
    network = evaluated(model)
    label = int(network(CENTRE[None])[0].argmax())
    words = {"label": label, "clip": None, "cardinality": 1, "threshold": None}
    units, radii = {"scale": 1.0, "mean": [], "std": []}, np.linspace(0.01, 3.0, 300)
    told = [Told("class", None, units, words | {"eps": eps}, CENTRE) for eps in radii]
    largest = next((eps for eps, own in zip(radii, told, strict=True) if _false_class(network, own)), radii[-1])
    return _proved(name, model, network, Ball(CENTRE, share * float(largest), None, None, 1), label)


TOGETHER = """
(declare-const X_0 Real) (declare-const X_1 Real)
(declare-const Y_0 Real) (declare-const Y_1 Real) (declare-const Y_2 Real)
(assert (and (>= X_0 -1) (<= X_0 1) (>= X_1 -1) (<= X_1 1)))
(assert (and (<= (+ (* 2 Y_0) Y_1) {0:.6f}) (<= (- Y_1 (* 3 Y_2)) {1:.6f}) (<= (- Y_2 Y_0) {2:.6f})))
"""


def _together(name: str, model: Path, method: str) -> Source:
    """Return the file of a property whose three rows can just not hold together, though each two of them can."""
    subject, network = open_subject(model), evaluated(model)
    y = network(_grid(np.full(2, -1.0), np.full(2, 1.0), 201)) @ np.array([[2, 0, -1], [1, 1, 0], [0, -3, 1]])
    y_centre, width = np.median(y, axis=0), np.ptp(y, axis=0).mean()
    limits = y_centre + (y - y_centre).max(axis=1).min() - 0.03 * width
    vnnlib = model.with_name(f"{name}.vnnlib")
    vnnlib.write_text(TOGETHER.format(*limits))
    (query,) = read_property(subject, vnnlib).queries
    found = decide_query(subject.model, subject.original, query, Options(methods=("linear", method), record=True))
    assert found.verdict is Verdict.CERTIFIED, name
    proof = proof_of(subject.model, subject.original, query, found.recorded, budget=UNLIMITED)
    assert proof is not None, name
    assert proof.goals[0].own is not None, name
    claim = PropertyClaim(vnnlib.name, hashlib.sha256(vnnlib.read_bytes()).hexdigest(), (plain(query),))
    about = About(subject.info.sha256, None, Units(), None)
    return written(name, model, ProofFile(about, claim, (proof,)), network, vnnlib)


def sources_of_format_1(folder: Path) -> Iterator[Source]:
    """Yield a proof file of every kind, as earlier versions wrote it."""
    small, deep = layered(folder / "plain.npz", (6, 6), 3), layered(folder / "deep.npz", (6, 6, 6), 1)
    loop = layered(folder / "loop.npz", (5, 6), 4, loop=0.6)
    smooth = layered(folder / "smooth.npz", (5, 5), 4, activation="tanh")
    yield _sample("trees", small)
    yield _sample("rounds", deep, rounds=True)
    yield _sample("units", small, units=Preprocessing(0.5, (0.1, -0.2), (0.8, 1.25)))
    yield _sample("smooth", smooth)
    yield _sample("programs", loop)
    yield _two_outputs("outputs", folder)
    yield _property("boxes", small, ("interval", "linear", "split"))
    yield _property("two boxes", small, ("interval", "linear", "split"), boxes=2)
    yield _property("branches", small, ("interval", "linear", "branch"))
    yield _sensitivity("flat", small)
    yield _sensitivity("adjoint", deep, adjoint=True)
    yield _sensitivity("loops", loop)
    yield _sensitivity("monotone", monotone(folder / "monotone.npz"), share=0.05)


def sources(folder: Path) -> Iterator[Source]:
    """Yield a proof file of every kind, of both formats."""
    for source in sources_of_format_1(folder):
        yield source
        yield source.today()
    yield _few_changes("few changes 2.0", layered(folder / "one.npz", (6,), 3), 0.9)
    yield _few_changes("few changes by programs 2.0", folder / "plain.npz", 0.4)
    yield _together("rows together 2.0", folder / "plain.npz", "joint")
    yield _together("boxes together 2.0", folder / "plain.npz", "split")
    turning = folder / "monotone.npz"
    yield _proved("turning loop 2.0", turning, evaluated(turning, 0.05), Ball(CENTRE, 0.2), 0)
    above = forgeries.one_output(folder)
    found = _proved("threshold 2.0", above, lambda u: np.abs(u[:, :1]), Ball(np.zeros(2), 0.72), 0, 0.75)
    both = {None: found.networks[None], "y": found.networks[None]}
    yield replace(found, networks=both)
    found = _proved(
        "computed threshold 2.0", above, found.networks[None], Ball(np.zeros(2), 0.72), 0, 0.75, arithmetic="float32"
    )
    yield replace(found, networks=both)
    plain = folder / "plain.npz"
    network = evaluated(plain)
    label = int(network(CENTRE[None])[0].argmax())
    yield _proved("computed 2.0", plain, network, Ball(CENTRE, _radius(network, label)), label, arithmetic="float32")
