"""harden: more is certified by the same proofs, the file stays the user's, and nothing is claimed from training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as safetensors_of

from idl_audit.commands.harden import harden_model
from idl_audit.commands.options.reading import DataOptions, ModelOptions
from idl_audit.commands.options.training import HardenOptions
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.gate.judge import judge, parse_rules
from idl_audit.graph.original import onnxruntime_network
from idl_audit.graph.reader import read_graph, sniff
from idl_audit.graph.torch_options import TorchOptions
from idl_audit.graph.torch_weights import weights_in, write_weights
from idl_audit.training.schedule import Heard, Step
from idl_audit.values.errors import DataError, ModelFileError, OptionError
from tests.shared.blobs import blobs, distracted
from tests.shared.command_line import run
from tests.shared.implicit_models import floats, node, proto

MINUTES = 0.004


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples to train on, to choose by and to audit, and a network."""
    where = tmp_path_factory.mktemp("harden")
    points, labels = blobs(500)
    for name, part in (("train", slice(0, 400)), ("holdout", slice(400, 440)), ("audit", slice(440, 500))):
        np.savez(where / f"{name}.npz", inputs=points[part], labels=labels[part])
    distracted(where / "model.onnx")
    return where


def asked(folder: Path, out: Path, **more: Any) -> HardenOptions:
    given: dict[str, Any] = {"eps": "0.1", "minutes": MINUTES, "holdout": folder / "holdout.npz", "keep_clean": "2%"}
    data = DataOptions(path=folder / "train.npz", preprocessing=Preprocessing(bounds=(0.0, 1.0)))
    return HardenOptions(out=out, data=data, **{**given, **more})


def test_more_samples_are_certified_by_the_same_proofs(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "hardened.onnx"
    report = harden_model(folder / "model.onnx", asked(folder, out, audit=folder / "audit.npz"))
    found = report.hardening
    assert found is not None
    assert found.chosen is not None
    assert found.audited_before is not None
    assert found.audited_after is not None
    assert found.audited_after.counts.certified > found.audited_before.counts.certified + 20
    assert report.artifacts == (str(out),)
    assert (found.trained_on, found.held_out) == (400, 40)
    before, after = onnx.load(folder / "model.onnx"), onnx.load(out)
    assert [n.op_type for n in before.graph.node] == [n.op_type for n in after.graph.node]
    assert before.graph.input == after.graph.input
    rows = np.random.default_rng(1).random((5, 4)).astype(np.float32)
    ran = onnxruntime_network(out, read_graph(out))(rows)
    assert ran.shape == (5, 2)


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    files = []
    for name in ("a.onnx", "b.onnx"):
        harden_model(folder / "model.onnx", asked(folder, tmp_path / name))
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_nothing_is_written_where_clean_accuracy_is_lost(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "hardened.onnx"
    found = run(
        *("harden", folder / "model.onnx", "-d", folder / "train.npz", "-e", "0.45", "--bounds", "0,1", "-o", out),
        *("--holdout", folder / "holdout.npz", "--keep-clean", "0", "--minutes", "0.01", "--method", "ibp", "-q"),
        *("--json", tmp_path / "report.json"),
    )
    assert found.code == 1, found.err
    assert not out.exists()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["hardening"]["chosen"] is None
    assert report["diagnostics"][0]["code"] == "IDL601"
    assert "was not hardened" in found.out


def test_a_sample_that_was_seen_is_no_audit(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--audit .* 400 of its 400 samples .* training") as refused:
        harden_model(folder / "model.onnx", asked(folder, tmp_path / "x.onnx", audit=folder / "train.npz"))
    assert refused.value.code == "IDL603"
    with pytest.raises(DataError, match="are among those of choice"):
        harden_model(folder / "model.onnx", asked(folder, tmp_path / "x.onnx", audit=folder / "holdout.npz"))
    with pytest.raises(DataError, match="--holdout"):
        harden_model(folder / "model.onnx", asked(folder, tmp_path / "x.onnx", holdout=folder / "train.npz"))
    assert not (tmp_path / "x.onnx").exists()


def test_a_share_of_the_samples_is_kept_apart(folder: Path, tmp_path: Path) -> None:
    report = harden_model(folder / "model.onnx", asked(folder, tmp_path / "x.onnx", holdout="20%", method="ibp"))
    assert report.hardening is not None
    assert (report.hardening.trained_on, report.hardening.held_out) == (320, 80)
    assert "IDL602" in {told.code for told in report.diagnostics}


def test_frozen_initializers_are_bit_equal(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    report = harden_model(folder / "model.onnx", asked(folder, out, freeze=("[cd]",)))
    assert report.hardening is not None
    assert report.hardening.weights == ("v", "w")
    before, after = (
        {t.name: t.raw_data for t in onnx.load(path).graph.initializer} for path in (folder / "model.onnx", out)
    )
    assert {name for name in before if before[name] != after[name]} == {"v", "w"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--minutes", "0"), "--minutes must be a number of minutes above 0"),
        (("--keep-clean", "120%"), "--keep-clean must be a share"),
        (("--holdout", "95%"), "--holdout must be a share from 1% to 90%"),
        (("--freeze", "zz*"), "--freeze zz*: no weight of the network has such a name"),
        (("--method", "magic"), "--method must be one of"),
    ],
)
def test_what_makes_no_sense_is_refused(folder: Path, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    given = ("harden", folder / "model.onnx", "-d", folder / "train.npz", "-e", "0.1", "-o", tmp_path / "x.onnx")
    found = run(*given, *options)
    assert found.code == 2
    assert words in found.err
    assert not (tmp_path / "x.onnx").exists()


def test_an_existing_file_is_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"precious")
    with pytest.raises(OptionError, match="exists already"):
        asked(folder, tmp_path / "x.onnx")


def test_networks_that_are_no_classifiers_are_refused(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    onnx.save(proto([node("MatMul", "x v")], ("N", 4), {"v": floats(rng, 4, 1)}), tmp_path / "one.onnx")
    with pytest.raises(OptionError, match="has one output"):
        harden_model(tmp_path / "one.onnx", asked(folder, tmp_path / "x.onnx"))


# --- state dicts and safetensors ------------------------------------------------------------------------------------


def module() -> torch.nn.Module:
    """Return the network on blobs as a module, with a batch norm between its layers."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), torch.nn.Linear(6, 2))


def trained_module(folder: Path) -> torch.nn.Module:
    made = module()
    with np.load(folder / "train.npz") as data:
        x, y = torch.from_numpy(data["inputs"]), torch.from_numpy(data["labels"])
    optimizer = torch.optim.Adam(made.parameters(), 0.05)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(made(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return made.eval()


@pytest.mark.parametrize("form", ["state dict", "checkpoint", "safetensors"])
def test_files_of_weights_keep_their_keys_and_types(form: str, folder: Path, tmp_path: Path) -> None:
    state = trained_module(folder).state_dict()
    given, out = tmp_path / "given.pt", tmp_path / "out.pt"
    if form == "safetensors":
        given, out = tmp_path / "given.safetensors", tmp_path / "out.safetensors"
        given.write_bytes(safetensors_of({f"module.{name}": value for name, value in state.items()}, {"made by": "us"}))
    else:
        torch.save({"state_dict": state, "epoch": 7} if form == "checkpoint" else state, given)
    torch_options = TorchOptions("tests.commands.test_harden:module", ((1, 4),), allow_code_execution=True)
    chosen = asked(folder, out, model=ModelOptions(torch=torch_options), keep_clean="5%", minutes=0.01)
    found = harden_model(given, chosen).hardening
    assert found is not None
    assert found.chosen is not None
    assert set(found.weights) == {f"{k}.{part}" for k in (0, 1, 3) for part in ("weight", "bias")}
    before, after = weights_in(given, sniff(given)), weights_in(out, sniff(out))
    assert list(before) == list(after)
    assert all(before[key].dtype == after[key].dtype for key in before)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert {key.removeprefix("module.") for key in moved} == set(found.weights)
    if form == "checkpoint":
        assert torch.load(out, weights_only=True)["epoch"] == 7
    if form == "safetensors":
        with safe_open(out, framework="pt") as file:
            assert file.metadata() == {"made by": "us"}


def test_tensors_that_are_one_stay_one(tmp_path: Path) -> None:
    shared = torch.ones(2, 2)
    torch.save({"a": shared, "b": shared, "c": torch.ones(2, 2)}, tmp_path / "given.pt")
    write_weights(tmp_path / "given.pt", "torch-zip", tmp_path / "out.pt", {"a": np.full((2, 2), 3, np.float32)})
    found = weights_in(tmp_path / "out.pt", "torch-zip")
    assert [float(found[key][0, 0]) for key in "abc"] == [3, 3, 1]
    assert found["a"].data_ptr() == found["b"].data_ptr()
    with pytest.raises(ModelFileError, match="was changed meanwhile"):
        write_weights(tmp_path / "given.pt", "torch-zip", tmp_path / "x.pt", {"z": np.ones((2, 2), np.float32)})
    with pytest.raises(OptionError, match="does not fit its type"):
        write_weights(tmp_path / "given.pt", "torch-zip", tmp_path / "x.pt", {"a": np.full((2, 2), np.inf, np.float32)})
    assert not (tmp_path / "x.pt").exists()


# --- penalties, interrupts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["S", "rho", "columns", "mtl+S"])
def test_the_paper_s_penalties_certify_more(method: str, folder: Path, tmp_path: Path) -> None:
    report = harden_model(folder / "model.onnx", asked(folder, tmp_path / "x.onnx", method=method, minutes=0.01))
    assert report.hardening is not None
    assert report.hardening.method == method
    assert report.hardening.chosen is not None


def test_an_interrupt_leaves_the_best_so_far_and_resume_ends_as_without_it(folder: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.onnx", tmp_path / "cut.onnx"
    harden_model(folder / "model.onnx", asked(folder, whole))

    def interrupts(name: str) -> Heard:
        def heard(step: Step) -> None:
            if step.step == 40 and name != "mtl, a = 0.05":
                raise KeyboardInterrupt

        return heard

    report = harden_model(folder / "model.onnx", asked(folder, cut), heard=interrupts)
    assert report.status == "incomplete"
    assert "IDL605" in {told.code for told in report.diagnostics}
    assert cut.exists()
    assert (tmp_path / "cut.onnx.run").exists()
    with pytest.raises(OptionError, match="go on with --resume"):
        harden_model(folder / "model.onnx", asked(folder, cut, force=True))
    with pytest.raises(OptionError, match="other options"):
        harden_model(folder / "model.onnx", asked(folder, cut, force=True, resume=True, seed=3))
    harden_model(folder / "model.onnx", asked(folder, cut, force=True, resume=True))
    assert cut.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "cut.onnx.run").exists()


def test_the_gate_judges_what_was_gained(folder: Path, tmp_path: Path) -> None:
    report = harden_model(folder / "model.onnx", asked(folder, tmp_path / "x.onnx", audit=folder / "audit.npz"))
    found = report.hardening
    assert found is not None
    assert found.audited_before is not None
    assert found.audited_after is not None
    gain = found.audited_after.counts.certified - found.audited_before.counts.certified
    assert gain > 0

    def passes(rule: str) -> bool:
        return judge(report, parse_rules([rule], [], has_baseline=False)).passed

    assert passes(f"certified_gain@0.1 >= {gain}/60")
    assert passes(f"certified_gain < {gain + 1}/60")
    assert not passes(f"certified_gain@0.1 >= {gain + 1}/60")
    with pytest.raises(OptionError, match="no verdicts at eps"):
        passes("certified_gain@0.2 >= 0.1")
    nothing = report.model_copy(update={"hardening": found.model_copy(update={"audited_after": None, "chosen": None})})
    assert not judge(nothing, parse_rules(["certified_gain@0.1 > 0"], [], has_baseline=False)).passed
