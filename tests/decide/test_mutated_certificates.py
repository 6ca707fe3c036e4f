"""Certificates of properties, and a thousand damaged ones: `verify` refuses all that no longer prove their claim."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands import verify as verification
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.subject import open_subject
from idl_audit.commands.verify import verify
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options, decide_query
from idl_audit.proof.convert import of_splits
from idl_audit.proof.files.claims import Ball
from idl_audit.proof.split_tree import SplitTree
from idl_audit.values.box import Box
from idl_audit.values.errors import InvalidInputError
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.verdicts import Verdict
from tests.shared import mutations as mu
from tests.shared.format_1 import Part, certificate_of, part_of, write_certificate, write_property_certificate

CENTRE = np.array([0.4, -0.3])
PROPERTY = """
(declare-const X_0 Real) (declare-const X_1 Real)
(declare-const Y_0 Real) (declare-const Y_1 Real) (declare-const Y_2 Real)
(assert (>= X_0 -1)) (assert (<= X_0 1)) (assert (>= X_1 -1)) (assert (<= X_1 1))
(assert (or (and (>= Y_{a} {greatest}) (<= Y_{a} 1000)) (and (<= Y_{a} {least}))))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def subject(folder):
    return open_subject(mu.network(folder))


def radius_of(subject):
    """Return the label at the centre, and nearly the largest radius that a grid confirms."""
    label = int(mu.outputs(subject.path, CENTRE[None])[0].argmax())
    radii = np.linspace(0.01, 3, 300)
    good = []
    for eps in radii:
        y = mu.outputs(subject.path, mu.points_of(CENTRE - eps, CENTRE + eps))
        good.append(bool((np.delete(y, label, axis=1) < y[:, [label]]).all()))
    return label, float(0.94 * radii[np.argmin(good) - 1])


@pytest.fixture(scope="module")
def sample_file(folder, subject):
    """A certificate by trees whose claim is nearly false."""
    label, eps = radius_of(subject)
    ball = Ball(CENTRE, eps)
    found = certificate_of(subject.model, subject.original, ball, label, None, index=3)
    assert found is not None
    assert max(sum(tree.sizes) for tree in found.chain.trees.values()) > 3
    assert any(planes for tree in found.chain.trees.values() for planes in tree.planes)
    path = folder / "sample.npz"
    sha256 = subject.info.sha256
    write_certificate(path, found, sha256=sha256, output_name=None, preprocessing=Preprocessing(), force=False)
    return path


def written_property(folder, subject, name, rungs):
    """Write a property that nearly fails and its certificate by some rungs."""
    y = mu.outputs(subject.path, mu.points_of(np.full(2, -1.0), np.full(2, 1.0)))[:, 1]
    spread = float(y.max() - y.min())
    vnnlib = folder / f"{name}.vnnlib"
    bounds = {"greatest": f"{y.max() + 0.02 * spread:.6f}", "least": f"{y.min() - 0.02 * spread:.6f}"}
    text = PROPERTY
    for word, value in {"a": "1", **bounds}.items():
        text = text.replace(f"{{{word}}}", value)
    vnnlib.write_text(text)
    asked = verification.read_property(subject, vnnlib)
    (query,) = asked.queries
    found = decide_query(subject.model, subject.original, query, Options(methods=rungs, record=True))
    assert found.verdict is Verdict.CERTIFIED
    part = part_of(subject.model, query, found.recorded)
    assert part is not None
    path = folder / f"{name}.npz"
    write_property_certificate(path, [part], vnnlib=vnnlib, sha256=subject.info.sha256, output_name=None, force=False)
    return path, part


@pytest.fixture(scope="module")
def split_file(folder, subject):
    path, part = written_property(folder, subject, "split", ("interval", "linear", "split"))
    assert isinstance(part.proof, SplitTree)
    assert part.proof.leaves > 3
    return path


@pytest.fixture(scope="module")
def branch_file(folder, subject):
    path, part = written_property(folder, subject, "branch", ("interval", "linear", "branch"))
    assert not isinstance(part.proof, SplitTree)
    assert max(sum(tree.sizes) for tree in part.proof.trees.values()) > 1
    assert any(planes for tree in part.proof.trees.values() for planes in tree.planes)
    return path


@pytest.mark.parametrize("name", ["sample_file", "split_file", "branch_file"])
def test_what_was_written_is_accepted(name, request, subject):
    file = request.getfixturevalue(name)
    with_property = [None] if name == "sample_file" else [None, file.with_suffix(".vnnlib")]
    for vnnlib in with_property:
        found = verify(file, subject.path, ModelOptions(), vnnlib).verification
        assert (found.accepted, found.refused) == (True, ())
    assert mu.claim_holds(subject.path, file)


def test_another_property_is_refused(folder, subject, split_file):
    other = folder / "other.vnnlib"
    other.write_text(split_file.with_suffix(".vnnlib").read_text().replace("(<= X_0 1)", "(<= X_0 1.5)"))
    found = verify(split_file, subject.path, ModelOptions(), other).verification
    assert found.refused == ("it is the certificate of another property: its boxes or alternatives differ",)


def test_a_property_beside_the_certificate_of_a_sample_is_refused(subject, sample_file, split_file):
    with pytest.raises(InvalidInputError, match="not of a property"):
        verify(sample_file, subject.path, ModelOptions(), split_file.with_suffix(".vnnlib"))


def is_accepted(file: Path, subject, vnnlib=None) -> bool:
    """Return what verify says; every refusal is one of ours."""
    try:
        return verify(file, subject.path, ModelOptions(), vnnlib).verification.accepted
    except InvalidInputError:
        return False


def mutated(files, rng):
    """Yield (name of the mutation, what it demands, content) of damaged certificates, one of each kind in turn."""
    contents = []
    for file in files:
        with np.load(file) as archive:
            arrays = {name: archive[name] for name in archive.files if name != "meta"}
            contents.append((arrays, json.loads(str(archive["meta"]))))
    while True:
        for mutation in mu.MUTATIONS:
            for _ in range(20):  # not every mutation finds what it changes in every file
                arrays, meta = contents[rng.integers(len(contents))]
                mutant = mu.Mutant(dict(arrays), copy.deepcopy(meta), rng)
                demand = mutation(mutant)
                if demand is not None:
                    break
            else:
                continue
            if mutation in mu.PAIRED and rng.random() < 0.5:
                demand = mu.PAIRED[rng.integers(len(mu.PAIRED))](mutant) or ""
            yield mutation.__name__, demand, mu.packed(mutant.arrays, mutant.meta)
        content = mu.packed(*contents[rng.integers(len(contents))])
        yield "damage_bytes", "", mu.damage_bytes(content, rng)


@pytest.mark.parametrize(("count", "seed"), [(100, 0), pytest.param(500, 1, marks=pytest.mark.slow)])
def test_damaged_certificates_prove_nothing_false(
    tmp_path, monkeypatch, subject, sample_file, split_file, branch_file, count, seed
):
    monkeypatch.setattr(verification, "open_subject", lambda path, options: subject)
    rng = np.random.default_rng(seed)
    file = tmp_path / "mutant.npz"
    accepted, refused = Counter(), Counter()
    stream = mutated([sample_file, split_file, branch_file], rng)
    for _ in range(count):
        name, demand, content = next(stream)
        file.write_bytes(content)
        if not is_accepted(file, subject):
            refused[name] += 1
            continue
        accepted[name] += 1
        assert demand != mu.STRICT, name
        assert mu.claim_holds(subject.path, file), name
    assert refused.total() > accepted.total()
    tried = {mutation.__name__ for mutation in mu.MUTATIONS} | {"damage_bytes"}
    assert set(accepted) | set(refused) == tried
    if count < 500:
        return
    for name in ("change_set", "scale", "change_shares"):  # they may leave a proof, or none
        assert accepted[name]
        assert refused[name]


def test_no_change_of_the_claim_passes_beside_the_property(tmp_path, monkeypatch, subject, split_file, branch_file):
    monkeypatch.setattr(verification, "open_subject", lambda path, options: subject)
    rng = np.random.default_rng(2)
    for file in (split_file, branch_file):
        with np.load(file) as archive:
            arrays = {name: archive[name] for name in archive.files if name != "meta"}
            meta = json.loads(str(archive["meta"]))
        for _ in range(4):
            for mutation in (mu.change_set, mu.change_claim):
                mutant = mu.Mutant(dict(arrays), copy.deepcopy(meta), rng)
                assert mutation(mutant) is not None
                path = tmp_path / "mutant.npz"
                path.write_bytes(mu.packed(mutant.arrays, mutant.meta))
                assert not is_accepted(path, subject, file.with_suffix(".vnnlib"))


def test_a_tree_of_boxes_needs_all_its_leaves(subject):
    """A query that holds on a small part of the box only: no tree proves it, however it is made."""
    points = mu.points_of(np.full(2, -1.0), np.full(2, 1.0))
    y = mu.outputs(subject.path, points)[:, 0]
    row = Conjunction(np.array([[1.0, 0.0, 0.0]]), np.array([-np.quantile(y, 0.01)]))
    query = Query(Box.between(np.full(2, -1.0), np.full(2, 1.0)), (row,))
    rng = np.random.default_rng(0)
    for _ in range(20):
        tree = SplitTree()
        boxes = {0: (np.full(2, -1.0), np.full(2, 1.0))}
        for _ in range(30):
            node = int(rng.choice(sorted(boxes)))
            lo, hi = boxes.pop(node)
            j = int(rng.integers(2))
            cut = float(rng.uniform(lo[j], hi[j]))
            first = tree.split(node, j, cut)
            below, above = hi.copy(), lo.copy()
            below[j] = above[j] = cut
            boxes[first], boxes[first + 1] = (lo, below), (above, hi)
        assert Part(query, tree).refused(subject.model)
    assert any("lower bound" in why for why in Part(query, tree).refused(subject.model))


@pytest.mark.parametrize(
    ("inputs", "children"),
    [
        ([0, 0, 0, -1, -1], [1, 3, 3, 0, 0]),
        ([0, -1, -1], [0, 0, 0]),
        ([5, -1, -1], [1, 0, 0]),
        ([], []),
        ([-1, -1], [0, 0]),
    ],
)
def test_what_is_no_tree(inputs, children):
    def fault(inputs, children):
        tree = SplitTree(inputs, [0.0] * len(inputs), children)
        return of_splits(tree).goals[0].forest.fault(2, 0)

    assert fault(inputs, children)
    assert not fault([1, -1, -1], [1, 0, 0])


LOADED = """
import json, sys
from idl_audit.cli.app import app
for line in json.loads(sys.argv[1]):
    try:
        app(["verify", *line])
    except SystemExit as end:
        assert end.code == 0, (line, end.code)
from types import ModuleType
loaded = {name for name, found in sys.modules.items() if isinstance(found, ModuleType)}
print("loaded", sorted(name for name in loaded if name.split(".")[0] in ("torch", "highspy", "onnx2torch")))
print("loaded", sorted(name for name in loaded if name.startswith(("idl_audit.search", "idl_audit.decide"))))
"""


def test_verify_needs_neither_search_nor_solver_nor_torch(subject, sample_file, split_file, branch_file):
    lines = [[str(sample_file), str(subject.path)]]
    lines += [[str(file), str(subject.path), str(file.with_suffix(".vnnlib"))] for file in (split_file, branch_file)]
    command = [sys.executable, "-c", LOADED, json.dumps(lines)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    assert " ".join(found.stdout.split()).count("checked, 0 refused.") == 3
    assert found.stdout.count("loaded []") == 2
