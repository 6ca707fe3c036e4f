"""compare from files to a report, its certificates, and those that are forged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import idl_audit
from idl_audit.commands.compare import audit_comparison
from idl_audit.commands.options.comparing import CompareOptions
from idl_audit.commands.shared import comparing
from idl_audit.graph.original import onnxruntime_network
from idl_audit.graph.reader import read_graph
from idl_audit.report.reading import read_report
from idl_audit.report.schema import Report
from idl_audit.report.schema.comparison import ComparedResult
from idl_audit.report.wording import verdict_sentence
from idl_audit.values.options import build
from idl_audit.values.verdicts import Reason
from tests.shared.command_line import DATA, MODEL, Run, run
from tests.shared.pairs import drawn, onnx_chain

Array = np.ndarray[Any, Any]
EPS = 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, one that is rounded, one with equal numbers, one with a softmax, and samples."""
    found = tmp_path_factory.mktemp("compare")
    rng = np.random.default_rng(1)
    weights, biases = drawn(rng, (6, 8, 8, 3))
    rounded = [w.astype(np.float16).astype(np.float32) for w in weights]
    onnx_chain(found / "a.onnx", weights, biases)
    onnx_chain(found / "b.onnx", rounded, biases)
    onnx_chain(found / "same.onnx", [w.copy() for w in weights], biases, ending="Identity")
    onnx_chain(found / "soft.onnx", rounded, biases, ending="Softmax")
    onnx_chain(found / "wide.onnx", *drawn(rng, (7, 8, 3)))
    onnx_chain(found / "score.onnx", *drawn(np.random.default_rng(2), (6, 5, 1)))
    onnx_chain(found / "score2.onnx", *drawn(np.random.default_rng(2), (6, 5, 1)), ending="Identity")
    np.savez(found / "data.npz", inputs=rng.random((6, 6)).astype(np.float32))
    compared = run(
        *("compare", found / "a.onnx", found / "b.onnx", "-d", found / "data.npz", "-e", EPS, "-o", found / "r.json"),
        *("--certificates", found / "proofs", "--bounds", "0,1"),
    )
    assert compared.code == 0, compared.err
    return found


def compare(folder: Path, first: str, second: str, *more: object, eps: object = EPS) -> Run:
    return run("compare", folder / first, folder / second, "-d", folder / "data.npz", "-e", eps, "-f", "json", *more)


def test_the_report_tells_what_was_found(folder: Path) -> None:
    report = read_report(folder / "r.json")
    found = report.comparison
    assert found is not None
    (entry,) = found.per_eps
    assert entry.n == 6 == entry.certified + entry.falsified + entry.unknown
    assert entry.certified >= 4
    assert found.forms == ("apart", "differences")
    assert 0 < entry.difference_found <= entry.difference_proved < 0.01
    assert found.second.path.endswith("b.onnx")
    data = np.load(folder / "data.npz")["inputs"]
    networks = [onnxruntime_network(folder / name, read_graph(folder / name)) for name in ("a.onnx", "b.onnx")]
    rng = np.random.default_rng(0)
    for sample in found.samples:
        (result,) = sample.results
        around = data[sample.index] + EPS * rng.uniform(-1, 1, (200, 6))
        y, z = (network(np.clip(around, 0, 1).astype(np.float32)) for network in networks)
        assert np.abs(y - z).max() <= result.difference_proved + 1e-5
        if result.agree == "certified":
            assert (y.argmax(axis=1) == z.argmax(axis=1)).all()


def test_every_view_of_the_report_has_it(folder: Path) -> None:
    for form, told in (("markdown", "Two networks"), ("html", "Two networks"), ("table", "difference proved")):
        more = ("-o", folder / f"page.{form}") if form == "html" else ()
        found = run("report", folder / "r.json", "-f", form, *more)
        text = (folder / "page.html").read_text() if form == "html" else found.out
        assert found.code == 0, found.err
        assert told in text
    assert "agreement at eps 0.05" in run("report", folder / "r.json", "-f", "junit").out
    broken = compare(folder, "a.onnx", "b.onnx", "-o", folder / "far.json", eps=0.6)
    assert broken.code == 0
    assert "have two classes" in run("report", folder / "far.json", "-f", "github").out
    assert 'type="falsified"' in run("report", folder / "far.json", "-f", "junit").out
    assert "provably agree around" in run("report", folder / "r.json", "-f", "markdown").out


def test_what_runs_differ_by_beyond_the_proof_is_told_as_another_arithmetic(folder: Path) -> None:
    """A network and its converted file are equal by proof, and what computes them rounds."""
    report = read_report(folder / "r.json")
    assert "real arithmetic" not in verdict_sentence(report)
    equal = report.comparison.per_eps[0].model_copy(update={"difference_proved": 0.0, "difference_found": 1e-6})
    compared = report.comparison.model_copy(update={"per_eps": (equal,)})
    told = verdict_sentence(report.model_copy(update={"comparison": compared}))
    assert "by more than 0 in real arithmetic, 1e-06 was seen in that of the networks" in told


def test_agreement_is_proved_in_real_arithmetic_alone(folder: Path) -> None:
    found = compare(folder, "a.onnx", "b.onnx", "--arithmetic", "float32")
    assert (found.code, found.out) == (2, "")
    assert "--arithmetic" in found.err


def test_two_classes_are_confirmed_by_both_networks(folder: Path) -> None:
    found = compare(folder, "a.onnx", "b.onnx", eps="0.4,0.6").report.comparison
    assert found is not None
    broken = [r for sample in found.samples for r in sample.results if r.agree == "falsified"]
    assert broken
    for result in broken:
        assert result.found is not None
        assert result.found.first != result.found.second
        assert result.found.linf <= result.eps * (1 + 1e-6)
        assert len(result.found.confirmed_by) == 2


def test_equal_numbers_are_equal_networks(folder: Path) -> None:
    found = compare(folder, "a.onnx", "same.onnx", "--certificates", folder / "equal", eps=0.8)
    assert found.code == 0, found.err
    (entry,) = found.report.comparison.per_eps
    assert (entry.certified, entry.difference_proved) == (6, 0.0)
    for kind in ("agreement", "difference"):
        proof = folder / "equal" / f"sample-0-eps-0.8-{kind}.npz"
        assert run("verify", proof, folder / "a.onnx", "--second", folder / "same.onnx").code == 0
        assert run("verify", proof, folder / "a.onnx", "--second", folder / "b.onnx").code == 1


def test_equal_networks_stay_so_in_the_units_of_the_data(folder: Path) -> None:
    units = ("--scale", "1/3", "--mean", 0.1, "--std", 0.7, "--certificates", folder / "units")
    found = compare(folder, "a.onnx", "same.onnx", *units, eps=0.8)
    assert found.report.comparison.per_eps[0].difference_proved == 0.0
    for proof in sorted((folder / "units").iterdir())[:2]:
        assert run("verify", proof, folder / "a.onnx", "--second", folder / "same.onnx").code == 0
    near = ("--scale", "1/3", "--mean", 0.1, "--std", 0.7, "--certificates", folder / "near")
    assert 0 < compare(folder, "a.onnx", "b.onnx", *near).report.comparison.per_eps[0].difference_proved < 0.01
    for proof in sorted((folder / "near").iterdir())[:2]:
        assert run("verify", proof, folder / "a.onnx", "--second", folder / "b.onnx").code == 0


def test_classes_are_compared_where_one_network_ends_with_a_softmax(folder: Path) -> None:
    found = compare(folder, "a.onnx", "soft.onnx", "--certificates", folder / "soft")
    (entry,) = found.report.comparison.per_eps
    assert entry.certified >= 4
    assert (entry.difference_proved, entry.difference_found) == (None, None)
    assert "IDL216" in {told.code for told in found.report.diagnostics}
    assert {path.name.rsplit("-", 1)[1] for path in (folder / "soft").iterdir()} == {"agreement.npz"}
    both = compare(folder, "soft.onnx", "soft.onnx").report
    assert both.comparison.per_eps[0].difference_proved == 0.0
    assert "IDL201" in {told.code for told in both.diagnostics}


def test_one_output_has_differences_and_with_a_threshold_classes(folder: Path) -> None:
    plain = compare(folder, "score.onnx", "score2.onnx").report
    assert not plain.comparison.has_classes
    assert {r.agree for sample in plain.comparison.samples for r in sample.results} == {None}
    assert "IDL216" in {told.code for told in plain.diagnostics}
    limits = ("--threshold", 0.2, "--max-nodes", 50)
    judged = compare(folder, "score.onnx", "score2.onnx", *limits, eps=0.02).report.comparison
    assert judged.has_classes
    assert judged.per_eps[0].certified >= 3
    assert compare(folder, "a.onnx", "b.onnx", "--threshold", 0.5).code == 2


def test_networks_with_other_inputs_or_outputs_are_refused(folder: Path) -> None:
    found = compare(folder, "a.onnx", "wide.onnx")
    assert found.code == 2
    assert "cannot be compared: the first has 6 inputs, and the second 7" in found.err
    assert "3 outputs, and the second 1" in compare(folder, "a.onnx", "score.onnx").err


def test_a_configuration_has_a_table_for_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "idl-audit.toml").write_text("[defaults]\nlimit = 2\n[compare]\nsigma = 'radii.csv'\n")
    found = compare(folder, "a.onnx", "b.onnx")
    assert found.code == 2
    assert "radii.csv" in found.err
    (tmp_path / "radii.csv").write_text("1,1,1,0,0,0\n")
    assert compare(folder, "a.onnx", "b.onnx").report.comparison.per_eps[0].n == 2


def test_the_gate_judges_it(folder: Path) -> None:
    report = folder / "r.json"
    assert run("gate", report, "--require", "agreement >= 0.6", "--require", f"max_difference@{EPS} <= 0.01").code == 0
    assert run("gate", report, "--require", "max_difference <= 0.00001").code == 1
    assert run("gate", report, "--require", "disagreement <= 50 %").code == 0
    assert run("gate", report, "--require", "max_difference <= 1 %").code == 2
    assert "compares no networks" in run("gate", "reports/digits_mlp.json", "--require", "agreement >= 0.6").err
    assert "drop is about accuracies" in run("gate", report, "--require", "drop(agreement) <= 0.1").err


# --- certificates -----------------------------------------------------------------------------------------------------


def verified(folder: Path, proof: Path, first: str = "a.onnx", second: str | None = "b.onnx") -> Run:
    more = () if second is None else ("--second", folder / second)
    return run("verify", proof, folder / first, *more)


def proofs(folder: Path) -> list[Path]:
    return sorted((folder / "proofs").iterdir())


def test_every_certificate_is_accepted_for_its_two_files_and_no_others(folder: Path) -> None:
    assert len(proofs(folder)) > 8
    for proof in proofs(folder):
        assert verified(folder, proof).code == 0
    for proof in proofs(folder)[:2]:
        for first, second in (
            ("b.onnx", "a.onnx"),
            ("a.onnx", "a.onnx"),
            ("a.onnx", "same.onnx"),
            ("same.onnx", "b.onnx"),
        ):
            found = verified(folder, proof, first, second)
            assert found.code == 1
            assert "made for another file" in " ".join(found.out.split())
        assert verified(folder, proof, "a.onnx", "wide.onnx").code == 1
        assert "give the other one with --second" in verified(folder, proof, second=None).err
    (one,) = [p for p in proofs(folder) if p.name == f"sample-0-eps-{EPS}-difference.npz"]
    assert "|y - y'|" in verified(folder, one).out


def test_a_certificate_of_one_network_has_no_second(folder: Path, tmp_path: Path) -> None:
    witness = tmp_path / "w.npz"
    assert run("sensitivity", folder / "a.onnx", "--witness", witness).code == 0
    found = verified(folder, witness)
    assert found.code == 2
    assert "is a witness of one network" in found.err


def forged(source: Path, to: Path, arrays: dict[str, Any] | None = None, **claim: Any) -> Path:
    """Write a certificate again with other arrays, or other words in its claim."""
    with np.load(source) as archive:
        found = dict(archive)
    meta = json.loads(str(found["meta"]))
    meta["claim"].update(claim)
    np.savez(to, **{**found, **(arrays or {}), "meta": np.array(json.dumps(meta))})
    return to


def test_lies_about_limits_are_refused(folder: Path, tmp_path: Path) -> None:
    source = folder / "proofs" / f"sample-0-eps-{EPS}-difference.npz"
    limits = np.load(source)["limits"]
    lies = {
        "smaller": limits * 0.5,
        "none": np.zeros(3),
        "one": np.where(np.arange(3) == 1, 0.0, limits),
    }
    for name, lie in lies.items():
        assert verified(folder, forged(source, tmp_path / f"{name}.npz", {"limits": lie})).code == 1, name
    damaged = {"nan": limits * np.nan, "endless": limits + np.inf, "negative": -limits}
    for name, lie in damaged.items():
        found = verified(folder, forged(source, tmp_path / f"{name}.npz", {"limits": lie}))
        assert (found.code, "damaged" in found.err) == (2, True), name
    for lie in (limits[:2], np.append(limits, 1.0)):
        assert verified(folder, forged(source, tmp_path / "size.npz", {"limits": lie})).code == 1
    assert verified(folder, forged(source, tmp_path / "more.npz", {"limits": limits * 1.01})).code == 0
    assert verified(folder, forged(source, tmp_path / "wider.npz", eps=4 * EPS)).code == 1
    assert verified(folder, forged(source, tmp_path / "moved.npz", {"centre": np.full(6, 0.9)}, eps=0.1)).code == 1


def test_lies_about_classes_are_refused(folder: Path, tmp_path: Path) -> None:
    source = next(p for p in proofs(folder) if p.name.endswith("agreement.npz"))
    meta = json.loads(str(np.load(source)["meta"]))["claim"]
    # which class is named has no say in whether there is but one: the claim stays true
    other = (meta["reference"] + 1) % 3
    assert verified(folder, forged(source, tmp_path / "reference.npz", reference=other)).code in (0, 1)
    assert verified(folder, forged(source, tmp_path / "wider.npz", eps=0.9)).code == 1
    for name, value in (("form", "other"), ("first", [7]), ("second", [0, 0]), ("reference", -1), ("eps", None)):
        assert verified(folder, forged(source, tmp_path / "damaged.npz", **{name: value})).code in (1, 2), name
    for value in ({}, None, {**meta["other"], "sha256": "zebra"}, {**meta["other"], "more": 1}):
        found = verified(folder, forged(source, tmp_path / "damaged.npz", other=value))
        assert found.code == 2
    scaled = {**meta["other"], "preprocessing": {"scale": 2.0, "mean": [], "std": []}}
    assert verified(folder, forged(source, tmp_path / "units.npz", other=scaled)).code in (0, 1)
    assert verified(folder, forged(source, tmp_path / "kind.npz", kind="difference")).code == 2


def test_a_difference_is_never_one_of_other_last_operators(folder: Path, tmp_path: Path) -> None:
    source = folder / "proofs" / f"sample-0-eps-{EPS}-difference.npz"
    found = verified(folder, source, "a.onnx", "soft.onnx")
    assert found.code == 1
    assert "last operator" in " ".join(found.out.split())


@pytest.mark.slow
def test_the_sample_network_beside_its_rounded_version(tmp_path: Path) -> None:
    assert run("compress", MODEL, "--quantize", 10, "-d", DATA, "-o", tmp_path / "smaller.npz").code == 0
    found = run("compare", MODEL, tmp_path / "smaller.npz", "-d", DATA, "-e", 0.02, "--bounds", "0,1", "-f", "json")
    (entry,) = found.report.comparison.per_eps
    assert entry.certified > 0.8 * entry.n


def test_one_file_is_one_function_whatever_is_in_it(tmp_path: Path) -> None:
    """Loops have no states that pair up, and a threshold rounds: what is equal is the file."""
    model = MODEL.parent / "digits_mondeq.npz"
    line = ("-d", DATA, "-e", 0.3, "--bounds", "0,1", "--limit", 2, "-f", "json", "--certificates", tmp_path / "p")
    (entry,) = run("compare", model, model, *line).report.comparison.per_eps
    assert (entry.certified, entry.difference_proved) == (2, 0.0)
    for proof in (tmp_path / "p").iterdir():
        assert run("verify", proof, model, "--second", model).code == 0
        found = run("verify", proof, model, "--second", MODEL)
        assert found.code == 1
        changed = forged(proof, tmp_path / "forged.npz", other={"sha256": "0" * 64, **_about(proof)})
        assert run("verify", changed, model, "--second", model).code == 1


def _about(proof: Path) -> dict[str, Any]:
    with np.load(proof) as archive:
        other = json.loads(str(archive["meta"]))["claim"]["other"]
    return {key: value for key, value in other.items() if key != "sha256"}


# --- several at a time, and again -------------------------------------------------------------------------------------


def told(report: Report) -> object:
    """Return all that was found, without what clocks say."""
    assert report.comparison is not None
    samples = [s.model_copy(update={"results": tuple(map(timeless, s.results))}) for s in report.comparison.samples]
    return report.comparison.per_eps, samples, report.artifacts


def timeless(result: ComparedResult) -> ComparedResult:
    return result.model_copy(update={"seconds": None})


def test_several_at_a_time_find_the_same(folder: Path, tmp_path: Path) -> None:
    proofs = ("--certificates", tmp_path / "proofs", "--bounds", "0,1")
    one = compare(folder, "a.onnx", "b.onnx", *proofs)
    two = compare(folder, "a.onnx", "b.onnx", *proofs, "--force", "--jobs", 2)
    assert (one.code, two.code) == (0, 0), two.err
    assert told(one.report) == told(two.report)
    assert len(two.report.artifacts) >= 6


def test_a_process_that_dies_loses_its_sample_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = build(CompareOptions, {"eps": EPS, "data": folder / "data.npz", "jobs": 2, "limit": 2})
    monkeypatch.setattr(comparing, "Comparer", Dying)
    monkeypatch.setattr("idl_audit.commands.compare.Comparer", Dying)
    report = audit_comparison(folder / "a.onnx", folder / "b.onnx", options)
    assert (report.status, report.why_incomplete) == ("incomplete", "not_judged")
    assert report.comparison is not None
    first, second = report.comparison.samples
    assert (first.results[0].agree, first.results[0].reason) == ("unknown", Reason.WORKER_FAILED)
    assert first.first is not None
    assert second.results[0].agree == "certified"
    assert "IDL206" in {one.code for one in report.diagnostics}


class Dying(comparing.Comparer):
    """Ends its process at the first sample."""

    def __reduce__(self) -> tuple[type[comparing.Comparer], tuple[comparing.ComparisonSetting]]:
        return Dying, (self.setting,)

    def __call__(self, place: comparing.Place) -> comparing.ComparedAt:
        if place.position == 0:
            os._exit(3)
        return super().__call__(place)


def test_an_interrupted_run_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = ("-o", tmp_path / "r.json", "--certificates", tmp_path / "proofs", "--bounds", "0,1")
    whole = compare(folder, "a.onnx", "b.onnx", *out)
    assert whole.code == 0
    first = read_report(tmp_path / "r.json")
    assert not (tmp_path / "r.json.journal").exists()
    seen, compared = [], comparing.Comparer.compare

    def until(self: comparing.Comparer, place: comparing.Place, heard: object) -> object:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(place.position)
        return compared(self, place, heard)  # type: ignore[arg-type]

    monkeypatch.setattr(comparing.Comparer, "compare", until)
    ended = compare(folder, "a.onnx", "b.onnx", *out, "--force")
    partial = read_report(tmp_path / "r.json")
    assert partial.status == "incomplete"
    assert partial.comparison is not None
    assert partial.comparison.per_eps[0].n == 3
    assert (tmp_path / "r.json.journal").exists()
    assert "--resume" in ended.err
    seen.clear()
    monkeypatch.setattr(comparing.Comparer, "compare", compared)
    other = compare(folder, "a.onnx", "same.onnx", *out, "--resume")
    assert other.code == 2
    assert "second model" in other.err
    again = compare(folder, "a.onnx", "b.onnx", *out, "--resume")
    assert again.code == 0, again.err
    report = read_report(tmp_path / "r.json")
    assert "IDL207" in {one.code for one in report.diagnostics}
    assert told(report) == told(first)
    assert compare(folder, "a.onnx", "b.onnx", "--resume").code == 2


def test_python_asks_the_same(folder: Path) -> None:
    files = (folder / "a.onnx", folder / "b.onnx", folder / "data.npz")
    report = idl_audit.compare(*files, eps=EPS, bounds=(0, 1))
    assert told(report) == told(compare(folder, "a.onnx", "b.onnx", "--bounds", "0,1").report)
    with pytest.raises(TypeError, match="epsilon"):
        idl_audit.compare(*files, epsilon=EPS)
