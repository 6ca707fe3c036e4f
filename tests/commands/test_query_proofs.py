"""Proof files of VNN-LIB 2 queries: each unsat has one that verify accepts, and nobody else's query is proved by it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from idl_audit.cli.vnnlib import run as solver
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.proof_files import write
from idl_audit.commands.shared.query_certificates import proof_of_answer
from idl_audit.commands.verify import verify
from idl_audit.commands.vnnlib import decided
from idl_audit.data.vnnlib2.reader import read_specification
from idl_audit.decide.ladder import Options
from idl_audit.graph.files import read_with_sha256
from idl_audit.report.schema import Verification
from idl_audit.values.budget import Budget
from idl_audit.values.errors import InvalidInputError, ModelFileError, OptionError
from tests.commands.test_vnnlib_solver import CASES, RELU
from tests.shared.command_line import run
from tests.shared.drawn_queries import drawn_query
from tests.shared.solver_cases import model, network, one, query, save

SECONDS = 20.0
READING = ModelOptions()


@dataclass(frozen=True)
class Proved:
    """A query, its networks and the proof of it."""

    query: Path
    files: dict[str, Path]
    proof: Path

    def checked(self, **changed: Any) -> Verification:
        """Return what verify says of the proof, of the same query and networks or of others."""
        asked, files = changed.get("query", self.query), changed.get("files", self.files)
        found = verify(changed.get("proof", self.proof), None, READING, asked, networks=files).verification
        assert found is not None
        return found


def proved(path: Path, files: dict[str, Path], seconds: float = SECONDS) -> Proved | None:
    """Decide a query and write its proof; None where it is not unsat."""
    spec, sha256 = read_with_sha256(path, read_specification)
    answer, asked = decided(spec, files, Options(record=True), Budget.of(seconds))
    if answer.word != "unsat":
        return None
    assert asked is not None
    found = proof_of_answer(asked, sha256, answer, Budget.of(seconds))
    assert found is not None, answer.method
    proof = path.with_suffix(".npz")
    write(proof, found, force=True)
    return Proved(path, files, proof)


def proof_of_text(folder: Path, text: str, models: Mapping[str, onnx.ModelProto]) -> Proved:
    folder.mkdir(exist_ok=True)
    found = proved(*save(folder, text, models))
    assert found is not None
    return found


# --- every unsat ------------------------------------------------------------------------------------------------------

WIDE = model(
    [one("MatMul", "x w", "h"), one("Relu", "h", "r"), one("MatMul", "r v")],
    inputs={"x": [1, 2]},
    outputs={"y": (TensorProto.FLOAT, [1, 2])},
    constants={"w": np.float32([[1, -1, 0.5], [2, 1, -1]]), "v": np.float32([[1, 0], [-1, 1], [2, -1]])},
)
PLANE = network("N", x="[1,2]", y="[1,2]")
REAL_PLANE = network("N", x="[1,2]", y="[1,2]", element="real")
UNIT = "(assert (and (>= X[0,0] 0.0) (<= X[0,0] 1.0) (>= X[0,1] 0.0) (<= X[0,1] 1.0)))"
TWICE = f"{REAL_PLANE}\n(declare-network M (equal-to N) (declare-input XM real [1,2]) (declare-output YM real [1,2]))"
SAME = "(assert (and (== X[0,0] XM[0,0]) (== X[0,1] XM[0,1])))"

MORE: dict[str, tuple[str, onnx.ModelProto]] = {
    "rows that are only together infeasible": (
        query(f"{UNIT}(assert (and (>= Y[0,0] 2.0) (>= Y[0,1] 0.75)))", declared=PLANE),
        WIDE,
    ),
    "several alternatives": (
        query(
            f"{UNIT}(assert (or (>= Y[0,0] 3.01) (<= Y[0,1] -0.51) (and (>= Y[0,0] 2.0) (>= Y[0,1] 0.75))))",
            declared=PLANE,
        ),
        WIDE,
    ),
    "a border of reals": (query(f"{UNIT}(assert (> Y[0,0] 3.0))", declared=REAL_PLANE), WIDE),
    "decimals at a border": (
        query(
            "(assert (and (>= X[0,0] 0.1) (<= X[0,0] 0.3) (>= X[0,1] 0.1) (<= X[0,1] 0.3)))(assert (> Y[0,0] 0.9))",
            declared=REAL_PLANE,
        ),
        WIDE,
    ),
    "not equal at a point": (
        query("(assert (and (== X[0,0] 0.5) (== X[0,1] 0.25)))(assert (!= Y[0,0] 1.0))", declared=REAL_PLANE),
        WIDE,
    ),
    "a polynomial": (
        query(f"{UNIT}(assert (> (* Y[0,0] Y[0,1]) 1.2))", declared=PLANE),
        WIDE,
    ),
    "two runs of one network": (
        query(f"{UNIT}{SAME}(assert (> Y[0,0] YM[0,0]))", declared=TWICE),
        WIDE,
    ),
}


@pytest.mark.parametrize("name", [*(name for name, case in CASES.items() if case[2] == "unsat"), *MORE])
def test_every_unsat_has_a_proof(name: str, tmp_path: Path) -> None:
    text, models = MORE[name] if name in MORE else CASES[name][:2]
    found = proof_of_text(tmp_path, text, {"N": models} if isinstance(models, onnx.ModelProto) else models)
    said = found.checked()
    assert (said.accepted, said.refused) == (True, ())
    assert said.about is not None
    assert said.about.query is not None
    assert said.about.query.sha256 == read_with_sha256(found.query, read_specification)[1]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), element=st.sampled_from(["float32", "real"]))
def test_drawn_queries_have_proofs(seed: int, element: str, tmp_path: Path) -> None:
    _drawn(seed, element, tmp_path)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), element=st.sampled_from(["float32", "real"]))
def test_many_drawn_queries_have_proofs(seed: int, element: str, tmp_path: Path) -> None:
    _drawn(seed, element, tmp_path)


def _drawn(seed: int, element: str, folder: Path) -> None:
    """The proof of one query is accepted for it, and for no other query: not for one that can hold."""
    rng = np.random.default_rng(seed)
    drawn = drawn_query(rng, element)
    path, files = drawn.written(folder)
    spec, sha256 = read_with_sha256(path, read_specification)
    answer, asked = decided(spec, files, Options(record=True), Budget.of(2.0))
    if answer.word != "unsat":
        return
    assert asked is not None
    found = proof_of_answer(asked, sha256, answer, Budget.of(4.0))
    if found is None:  # where a jump lies on a border, boxes may be split without end
        assert element == "real" or answer.method == "split"
        return
    write(folder / "query.npz", found, force=True)
    said = Proved(path, files, folder / "query.npz").checked()
    assert (said.accepted, said.refused) == (True, ())


# --- forgeries --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("queries")


@pytest.fixture(scope="module")
def strict(folder: Path) -> Proved:
    """No point of the unit square has y_0 > 3, in exact arithmetic; one has y_0 >= 3."""
    text = query(f"{UNIT}(assert (> Y[0,0] 3.0))", declared=REAL_PLANE)
    return proof_of_text(folder / "strict", text, {"N": WIDE})


def forged(found: Proved, change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> Path:
    """Return a copy of a proof in which something else is said."""
    with np.load(found.proof) as file:
        arrays = dict(file)
    meta = json.loads(str(arrays.pop("meta")))
    change(meta, arrays)
    path = found.proof.with_name("forged.npz")
    np.savez(path, **arrays, meta=np.asarray(json.dumps(meta)))
    return path


def rehashed(found: Proved, asked: Path, files: Mapping[str, Path]) -> Path:
    """Return a copy of a proof that names another query and other networks by their right hashes."""
    sha256 = read_with_sha256(asked, read_specification)[1]
    own = [{"name": name, "sha256": read_with_sha256(file, Path.read_bytes)[1]} for name, file in files.items()]

    def change(meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        meta["claim"] |= {"sha256": sha256, "networks": own}
        if len(own) == 1:
            meta["model"]["sha256"] = own[0]["sha256"]

    return forged(found, change)


def other(folder: Path, name: str, text: str, made: onnx.ModelProto = WIDE) -> tuple[Path, dict[str, Path]]:
    (folder / name).mkdir(exist_ok=True)
    return save(folder / name, text, {"N": made})


@pytest.mark.parametrize(
    "assertion",
    [
        "(assert (>= Y[0,0] 3.0))",
        "(assert (> Y[0,0] 2.9999))",
        "(assert (or (> Y[0,0] 3.0) (> Y[0,1] 0.0)))",
        "(assert (> Y[0,1] 0.0))",
    ],
)
def test_a_stronger_query_is_not_proved_by_it(assertion: str, folder: Path, strict: Proved) -> None:
    asked, files = other(folder, "stronger", query(f"{UNIT}{assertion}", declared=REAL_PLANE))
    said = strict.checked(query=asked, files=files)
    assert not said.accepted
    assert "another query" in said.refused[0]
    said = strict.checked(query=asked, files=files, proof=rehashed(strict, asked, files))
    assert not said.accepted
    assert "another" not in said.refused[0]


def test_a_larger_box_is_not_proved_by_it(folder: Path, strict: Proved) -> None:
    larger = UNIT.replace("(<= X[0,1] 1.0)", "(<= X[0,1] 1.0000001)")
    asked, files = other(folder, "larger", query(f"{larger}(assert (> Y[0,0] 3.0))", declared=REAL_PLANE))
    assert not strict.checked(query=asked, files=files, proof=rehashed(strict, asked, files)).accepted


def test_a_box_without_a_bound_is_not_proved_by_it(folder: Path, strict: Proved) -> None:
    open_ = UNIT.replace("(<= X[0,1] 1.0)", "")
    asked, files = other(folder, "open", query(f"{open_}(assert (< Y[0,1] -2000000000.0))", declared=REAL_PLANE))
    said = strict.checked(query=asked, files=files, proof=rehashed(strict, asked, files))
    assert not said.accepted
    assert "no bound" in said.refused[0]


def test_floats_are_not_proved_by_exact_arithmetic(folder: Path, strict: Proved) -> None:
    asked, files = other(folder, "floats", query(f"{UNIT}(assert (> Y[0,0] 3.0))", declared=PLANE))
    said = strict.checked(query=asked, files=files, proof=rehashed(strict, asked, files))
    assert not said.accepted
    path = rehashed(strict, asked, files)
    as_floats = forged(Proved(asked, files, path), lambda meta, arrays: meta.update(arithmetic="float32"))
    said = strict.checked(query=asked, files=files, proof=as_floats)
    assert not said.accepted


def test_another_network_is_not_proved_by_it(folder: Path, strict: Proved) -> None:
    changed = onnx.ModelProto()
    changed.CopyFrom(WIDE)
    text = query(f"{UNIT}(assert (> Y[0,0] 3.0))", declared=REAL_PLANE)
    changed.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32([[1.5, -1, 0.5], [2, 1, -1]]), "w"))
    asked, files = other(folder, "network", text, changed)
    said = strict.checked(files=files)
    assert not said.accepted
    assert "another file of a network: N" in said.refused[0]
    assert not strict.checked(query=asked, files=files, proof=rehashed(strict, asked, files)).accepted


def test_networks_that_change_places_are_not_proved_by_it(folder: Path) -> None:
    """f = relu(x), g = relu(x) + 1: f < g everywhere, and g < f nowhere."""
    shifted = model([one("Relu", "x", "h"), one("Add", "h c")], constants={"c": np.float32([1])})
    declared = f"{network('F', element='real')}\n{network('G', element='real')}"
    text = query(
        "(assert (== XF[0] XG[0]))(assert (and (>= XF[0] -1.0) (<= XF[0] 1.0) (>= YF[0] YG[0])))", declared=declared
    )
    found = proof_of_text(folder / "places", text, {"F": RELU, "G": shifted})
    assert found.checked().accepted
    swapped = {"F": found.files["G"], "G": found.files["F"]}
    said = found.checked(files=swapped)
    assert not said.accepted
    assert "F, G" in said.refused[0]
    assert not found.checked(files=swapped, proof=rehashed(found, found.query, swapped)).accepted


def test_an_answer_that_needs_no_proof_is_believed_for_its_own_query_alone(folder: Path) -> None:
    text = query("(assert (<= X[0,0] 0.0))(assert (>= X[0,0] 1.0))", declared=REAL_PLANE)
    found = proof_of_text(folder / "empty", text, {"N": WIDE})
    assert found.checked().accepted
    asked, files = other(folder, "full", query("(assert (<= X[0,0] 0.0))", declared=REAL_PLANE))
    said = found.checked(query=asked, files=files, proof=rehashed(found, asked, files))
    assert said.refused == ("a box of the query has points that satisfy it",)
    asked, files = other(folder, "half", query(f"{UNIT}(assert (> Y[0,0] 3.0))", declared=REAL_PLANE))
    said = found.checked(query=asked, files=files, proof=rehashed(found, asked, files))
    assert not said.accepted


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda meta, arrays: meta["claim"].update(networks=[]), "another file of a network: N"),
        (lambda meta, arrays: meta["claim"].update(sha256="0" * 64), "another query"),
        (lambda meta, arrays: meta["model"].update(sha256="0" * 64), "what it says of the model"),
        (lambda meta, arrays: meta["model"].update(output_name="y"), "what it says of the model"),
        (lambda meta, arrays: meta.update(arithmetic="float32"), "what it says of the model"),
        (lambda meta, arrays: arrays.clear(), "proofs for 1 queries"),
        (
            lambda meta, arrays: arrays.update({key.replace("part.0", "part.1"): a for key, a in list(arrays.items())}),
            "2 proofs for 1 queries",
        ),
    ],
)
def test_what_a_file_says_of_itself_is_compared(
    change: Callable[[dict[str, Any], dict[str, np.ndarray]], None], why: str, strict: Proved
) -> None:
    said = strict.checked(proof=forged(strict, change))
    assert not said.accepted
    assert why in " ".join(said.refused)


@pytest.mark.parametrize(
    "change",
    [
        lambda meta, arrays: meta["claim"].update(networks=[{"name": "N"}]),
        lambda meta, arrays: meta["claim"].update(networks="N"),
        lambda meta, arrays: meta["claim"].update(sha256="0"),
        lambda meta, arrays: meta["claim"].pop("name"),
        lambda meta, arrays: meta["claim"].update(more=1),
        lambda meta, arrays: meta["model"].update(threshold=0.5),
        lambda meta, arrays: arrays.update({"part.0.lo": np.zeros(2)}),
        lambda meta, arrays: arrays.update({"centre": np.zeros(2)}),
    ],
)
def test_damaged_files_are_refused(
    change: Callable[[dict[str, Any], dict[str, np.ndarray]], None], strict: Proved
) -> None:
    with pytest.raises(ModelFileError, match="damaged query certificate"):
        strict.checked(proof=forged(strict, change))


# --- the commands -----------------------------------------------------------------------------------------------------


def test_the_solver_writes_a_proof(tmp_path: Path) -> None:
    path, files = save(tmp_path, MORE["a border of reals"][0], {"N": WIDE})
    flag, proof = f"--network=N={files['N']}", tmp_path / "proof.npz"
    said = solver(["verify", str(path), flag, "--timeout", "30", "--proof", str(proof)])
    assert (said.out, said.code) == ("unsat\n", 0)
    for how in ([files["N"], path], ["--query", path, flag]):
        found = run("verify", proof, *how)
        assert found.code == 0, found.err
        text = " ".join(found.out.split())
        assert f"no assignment satisfies {path}, N = {files['N']}; in real numbers" in text
    again = solver(["verify", str(path), flag, "--proof", str(proof)])
    assert (again.out, again.code) == ("", 2)
    assert "exists already" in again.err
    lost = solver(["verify", str(path), flag, "--proof", str(tmp_path / "none" / "proof.npz")])
    assert (lost.out, lost.code) == ("", 2)
    assert "there is no folder" in lost.err


def test_certify_writes_a_certificate(tmp_path: Path) -> None:
    path, files = save(tmp_path, MORE["several alternatives"][0], {"N": WIDE})
    found = run("certify", files["N"], path, "--certificates", tmp_path / "proofs", "-f", "json")
    assert found.code == 0, found.err
    assert found.report.properties[0].result == "unsat"
    assert found.report.artifacts == (str(tmp_path / "proofs" / "query.npz"),)
    checked = run("verify", tmp_path / "proofs" / "query.npz", files["N"], path, "-f", "json")
    assert checked.code == 0, checked.err
    assert checked.report.verification is not None
    about = checked.report.verification.about
    assert about is not None
    assert about.query is not None
    assert (about.kind, about.arithmetic, about.query.elements) == ("query", "float32", ("float32",))


def test_a_sat_query_has_no_proof(tmp_path: Path) -> None:
    path, files = save(tmp_path, query("(assert (<= Y[0] 0.0))"), {"N": RELU})
    said = solver(["verify", str(path), f"--network=N={files['N']}", "--proof", str(tmp_path / "p.npz")], apart=False)
    assert said.out.startswith("sat\n")
    assert not (tmp_path / "p.npz").exists()


def test_wrong_usage_is_one_sentence(strict: Proved, tmp_path: Path) -> None:
    file, own = strict.files["N"], strict.files
    for arguments, why in (
        ((None, READING), "give the query"),
        ((file, READING), "give the query"),
        ((file, READING, strict.query, None, own), "leave"),
        ((None, READING, strict.query, file, own), "leave --second"),
        ((None, READING, strict.query), "no model was given"),
    ):
        with pytest.raises(InvalidInputError, match=why):
            verify(strict.proof, *arguments)
    witness = tmp_path / "w.npz"
    assert run("sensitivity", file, "--witness", witness).code == 0
    with pytest.raises(OptionError, match="leave --network out"):
        verify(witness, None, READING, networks=own)
    with pytest.raises(OptionError, match="give its model"):
        verify(witness, None, READING)
    assert "give one of them" in run("verify", strict.proof, file, strict.query, "--query", strict.query).err
    assert "names a network twice" in run("verify", strict.proof, *[f"--network=N={file}"] * 2).err


LOADED = """
import sys
from idl_audit.cli.app import app
try:
    app(["verify", *sys.argv[1:]])
except SystemExit as end:
    assert end.code == 0, end.code
names = [name for name in sys.modules if name.startswith(("idl_audit.search", "idl_audit.decide", "highspy", "torch"))]
print("loaded", sorted(names))
"""


def test_verify_needs_neither_search_nor_solver_for_a_query(strict: Proved) -> None:
    command = [sys.executable, "-c", LOADED, str(strict.proof), str(strict.files["N"]), str(strict.query)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    assert "loaded []" in found.stdout
