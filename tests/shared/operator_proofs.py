"""A small network for every operator, a proof about it that the tool writes, and its model as `convert` writes it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from idl_audit.commands.shared.subject import ModelOptions, Subject, open_subject
from idl_audit.commands.verify import verify
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options, decide_query
from idl_audit.decide.proofs import proof_of
from idl_audit.implicit.storage import save_model
from idl_audit.proof.files.claims import About, PropertyClaim, Units
from idl_audit.proof.files.file import ProofFile, write_proof
from idl_audit.values.box import Box
from idl_audit.values.budget import UNLIMITED
from idl_audit.values.errors import ModelFileError
from idl_audit.values.query import Conjunction, Query, plain
from idl_audit.values.verdicts import Verdict
from tests.shared.implicit_models import floats, ints, node, proto
from tests.shared.operator_cases import Case

EPS = 2.0**-6
LARGEST = 64
"""Numbers of an input: networks that are checked in exact arithmetic are small."""
MIDDLING = 6
"""Numbers of an input for which a use of an operator is neither trivial nor dear."""
TRIVIAL = ("axis of 1", "one pixel", "1 rows", "(1, 1)")


@dataclass(frozen=True)
class Proved:
    """A proof file about a network, with what its claim says: `row` . y lies between `limits` over the box."""

    subject: Subject
    converted: Path
    proof: Path
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]
    middle: float
    """The same of y in the middle of the box."""

    @property
    def model(self) -> Path:
        """The network's file."""
        return self.subject.path

    def held(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the file holds, with some other arrays."""
        return {**self.arrays, **arrays, "meta": np.asarray(json.dumps(self.meta))}

    def verified(self, arrays: dict[str, np.ndarray] | None = None) -> bool:
        """Whether `verify` accepts the file, or one with some other arrays; the network is not opened again."""
        file = self.proof
        if arrays is not None:
            file = file.with_name("changed.npz")
            np.savez(file, **self.held(arrays))
        try:
            report = verify(file, self.model, ModelOptions(), opened=lambda *_, **__: self.subject)
        except ModelFileError:  # of a file with numbers that are none
            return False
        assert report.verification is not None
        return report.verification.accepted


def uses(cases: list[Case], op: str) -> list[Case]:
    """The uses of an operator: its own, of the input alone and of middling size first."""
    own = [case for case in cases if op in (case.op, *(made.op_type for made in case.nodes))]
    own = [case for case in own if math.prod(case.shape) <= LARGEST]
    return sorted(
        own, key=lambda case: (is_trivial(case), case.op != op, -_reads(case), abs(math.prod(case.shape) - MIDDLING))
    )


def is_trivial(case: Case) -> bool:
    """Whether the use says little of its operator."""
    return any(word in case.what for word in TRIVIAL)


def _reads(case: Case) -> int:
    """How many inputs the nodes have that are no constants; more than one where tensors are multiplied."""
    return max(sum(name not in case.constants and name != "" for name in made.input) for made in case.nodes)


def network(case: Case, seed: int = 1) -> onnx.ModelProto:
    """y = m op(x), x = (relu(a u + b) + u) / 2: the operator reads states, and an affine map reads it."""
    rng, shape = np.random.default_rng(seed), case.shape
    constants = {"pre.w": floats(rng, *shape), "pre.b": floats(rng, *shape), "pre.half": np.float32(0.5)}
    before = [
        node("Mul", "u pre.w", "pre.h"),
        node("Add", "pre.h pre.b", "pre.z"),
        node("Relu", "pre.z", "pre.r"),
        node("Add", "pre.r u", "pre.s"),
        node("Mul", "pre.s pre.half", "x"),
    ]
    constants |= {"post.row": ints(1, -1), "post.factor": np.float32(0.75)}
    after = [node("Reshape", "y post.row", "post.f"), node("Mul", "post.f post.factor", "post.y")]
    every = {**case.constants, **constants}
    return proto([*before, *case.nodes, *after], shape, every, opset=case.opsets[-1], source="u", outputs=["post.y"])


def written(folder: Path, case: Case) -> Subject:
    """The network of a use of an operator, as the tool opens it, and as `convert` writes it."""
    path = folder / "model.onnx"
    onnx.save(network(case), path)
    return open_subject(path)


def proved(
    subject: Subject, methods: tuple[str, ...] = ("linear",), room: float = 1.0, eps: float = EPS
) -> Proved | None:
    """A proof that an output stays near what it is around a point; None where no try leaves one."""
    save_model(subject.path.with_name("converted.npz"), subject.model, origin={}, force=True)
    found = (_proof(subject, centre, methods, room, eps) for centre in _centres(subject.model.n_inputs))
    return next((one for one in found if one is not None), None)


def _centres(n: int) -> Iterator[np.ndarray]:
    """Points to try: some operators have no value everywhere."""
    for k in range(6):
        yield np.random.default_rng(k).uniform(*((-1, 1), (0.2, 0.9))[k % 2], n).round(3)


def _proof(subject: Subject, centre: np.ndarray, methods: tuple[str, ...], room: float, eps: float) -> Proved | None:
    model, rng = subject.model, np.random.default_rng(0)
    y = model(centre + eps * np.vstack([0 * centre, rng.choice([-1.0, 0.3, 1.0], (64, centre.size))]))
    if not np.isfinite(y).all():
        return None
    k = int(np.ptp(y, axis=0).argmax())
    reach = room * np.ptp(y[:, k]) + 1e-3 * (1 + abs(y[0, k]))
    row = np.eye(model.n_outputs)[[k]]
    offsets = np.array([[-(y[:, k].min() - reach)], [y[:, k].max() + reach]])
    alternatives = tuple(Conjunction(side * row, offset) for side, offset in zip((1, -1), offsets, strict=True))
    query = plain(Query(Box.between(centre - eps, centre + eps), alternatives))
    options = Options(methods=methods, record=True, max_nodes=200)
    found = decide_query(model, subject.network(Preprocessing()), query, options)
    if found.verdict is not Verdict.CERTIFIED:
        return None
    proof = proof_of(model, subject.original, query, found.recorded, budget=UNLIMITED)
    if proof is None:
        return None
    claim = PropertyClaim("p.vnnlib", hashlib.sha256(b"p").hexdigest(), (query,))
    about, file = About(subject.info.sha256, None, Units(), None, "real"), subject.path.with_name("proof.npz")
    write_proof(file, ProofFile(about, claim, (proof,)), tool="tests", force=True)
    with np.load(file) as archive:
        arrays = {key: archive[key] for key in archive.files if key != "meta"}
        meta = json.loads(str(archive["meta"]))
    return Proved(subject, subject.path.with_name("converted.npz"), file, arrays, meta, float(y[0, k]))
