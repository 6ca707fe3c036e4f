"""Which model a report, a worker and a proof speak of: all of its files, and the code that makes it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.compose import compose
from idl_audit.commands.convert import convert
from idl_audit.commands.inspect import inspect
from idl_audit.commands.options.models import ConvertOptions, WriteOptions
from idl_audit.commands.options.reading import DataOptions, ModelOptions
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.run import combined
from idl_audit.commands.shared.decider import Decider
from idl_audit.commands.shared.sample_tasks import SampleTask, Setting
from idl_audit.commands.shared.subject import open_module, open_subject
from idl_audit.commands.verify import verify
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options
from idl_audit.graph.files import combined_sha256, hashed, refuse_changed
from idl_audit.graph.torch_options import TorchOptions
from idl_audit.report.schema import Report
from idl_audit.values.errors import IncompleteError, ModelFileError
from idl_audit.values.npz import read_npz

LARGE = 4096
"""Inputs of a network whose weights onnxruntime maps from the file beside it, rather than copies."""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def network(path: Path, w: np.ndarray, *, beside: bool, shift: bool = False) -> Path:
    """Write y = x w, or y = (x + b) w, the weights in the file or beside it."""
    p, q = w.shape
    infos = [helper.make_tensor_value_info(*entry) for entry in (("x", TensorProto.FLOAT, (1, p)),)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, q))]
    nodes = [helper.make_node("MatMul", ["h" if shift else "x", "w"], ["y"])]
    arrays = {"w": w}
    if shift:
        nodes.insert(0, helper.make_node("Add", ["x", "b"], ["h"]))
        arrays["b"] = np.ones((1, p))
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", infos, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=beside, location=data.name, size_threshold=0)
    return path


def matrix(p: int = 4, q: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(p, q))


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    return network(tmp_path / "m.onnx", matrix(), beside=True)


def other_weights(path: Path) -> None:
    """Negate the weights beside a network, in place; its own file stays as it is."""
    data = path.with_name(f"{path.name}.data")
    with data.open("r+b") as file:
        numbers = np.frombuffer(file.read(), "<f4").copy()
        file.seek(0)
        file.write((-numbers).tobytes())


def samples(folder: Path, p: int = 4, n: int = 3, w: np.ndarray | None = None) -> Path:
    path = folder / "d.npz"
    inputs = np.random.default_rng(7).random((n, p)).astype(np.float32)
    right = (inputs @ (matrix() if w is None else w)).argmax(axis=1)
    np.savez(path, inputs=inputs, labels=right)
    return path


# --- the hash ---------------------------------------------------------------------------------------------------------


def test_a_file_that_holds_everything_has_its_own_hash(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", matrix(), beside=False)
    info = open_subject(path).info
    assert info.sha256 == info.file_sha256 == sha256(path)
    assert (info.external_files, info.external_sha256) == ((), ())


def test_the_weights_beside_a_file_belong_to_it(beside: Path) -> None:
    first = open_subject(beside).info
    data = sha256(beside.with_name("m.onnx.data"))
    assert first.external_sha256 == (data,)
    assert first.sha256 == combined_sha256(sha256(beside), [data]) != first.file_sha256 == sha256(beside)
    assert inspect(beside, ModelOptions()).model == first.model_copy(update={"path": str(beside)})
    other_weights(beside)
    second = open_subject(beside).info
    assert second.file_sha256 == first.file_sha256
    assert second.sha256 != first.sha256


def test_a_combined_hash_is_of_each_of_its_parts() -> None:
    a, b, c = ("a" * 64, "b" * 64, "c" * 64)
    assert combined_sha256(a, []) == a
    hashes = {combined_sha256(*args) for args in ((a, []), (a, [b]), (a, [c]), (b, [a]), (a, [b, c]), (a, [c, b]))}
    assert len(hashes) == 6


def test_a_converted_model_is_its_own_file(beside: Path, tmp_path: Path) -> None:
    report = convert(beside, tmp_path / "m.npz", ConvertOptions(witness=tmp_path / "w.npz"))
    assert report.model is not None
    info = open_subject(tmp_path / "m.npz").info
    assert info.sha256 == info.file_sha256 == sha256(tmp_path / "m.npz")
    assert (info.external_files, info.external_sha256, info.output_name, info.arch) == ((), (), None, None)
    assert meta_of(tmp_path / "w.npz")["model"]["sha256"] == info.sha256


def test_a_composition_is_of_both_models(tmp_path: Path) -> None:
    paths = [network(tmp_path / f"{seed}.onnx", matrix(4, 4, seed), beside=False) for seed in range(3)]

    def of(first: Path, second: Path) -> str:
        report = compose("sum", (first, second), WriteOptions(tmp_path / "c.npz", force=True))
        assert report.model is not None
        return report.model.sha256

    assert len({of(paths[0], paths[1]), of(paths[0], paths[2]), of(paths[1], paths[0])}) == 3


FACTORIES = """
import torch

class Net(torch.nn.Module):
    def __init__(self, last):
        super().__init__()
        self.a, self.last = torch.nn.Linear(4, 5), last
        self.b = torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.b(self.last(self.a(x)))

def relu():
    return Net(torch.nn.ReLU())

def tanh():
    return Net(torch.nn.Tanh())
"""


@pytest.mark.slow
def test_the_code_of_a_network_belongs_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights, and two functions of Python that use them otherwise; two shapes of the input."""
    import torch

    (tmp_path / "my_factories.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_factories  # type: ignore[import-not-found]

    torch.save(my_factories.relu().state_dict(), "w.pt")
    torch.save(my_factories.tanh(), "module.pt")

    def info(name: str, arch: str | None, shape: tuple[int, ...] = (1, 4)) -> Any:
        given = TorchOptions(arch=arch, input_shape=shape, allow_code_execution=True)
        return open_subject(Path(name), ModelOptions(torch=given)).info

    relu, tanh = info("w.pt", "my_factories:relu"), info("w.pt", "my_factories:tanh")
    assert relu.file_sha256 == tanh.file_sha256 == sha256(Path("w.pt"))
    assert relu.sha256 != tanh.sha256
    assert (relu.arch, tanh.arch) == ("my_factories:relu", "my_factories:tanh")
    assert info("w.pt", "my_factories:relu").sha256 == relu.sha256
    assert info("w.pt", "my_factories:relu", (1, 2, 4)).sha256 != relu.sha256
    pickled = info("module.pt", None)
    assert pickled.sha256 != pickled.file_sha256 == sha256(Path("module.pt"))
    sys.modules.pop("my_factories")


@pytest.mark.slow
def test_a_module_in_memory_is_known_by_its_weights() -> None:
    import torch

    net, example = torch.nn.Sequential(torch.nn.Linear(100, 4), torch.nn.ReLU()), torch.zeros(1, 100)
    first = open_module(net, example).info.sha256
    assert open_module(net, example).info.sha256 == first
    with torch.no_grad():
        net[0].weight[0, 0] += 1e-3
    assert open_module(net, example).info.sha256 != first


# --- while it is being audited ----------------------------------------------------------------------------------------


def audit(path: Path, data: Path, **more: Any) -> Report:
    chosen = RobustnessOptions(
        eps=parse_eps("0.001"), data=DataOptions(data), verdicts=Options(("interval", "sign")), **more
    )
    return audit_robustness("certify", path, chosen)


def task(p: int = 4) -> SampleTask:
    x = np.full(p, 0.5)
    return SampleTask(0, 0, 0, x)


def decider(path: Path, known: str) -> Decider:
    return Decider(Setting(path, ModelOptions(), known, Preprocessing(), parse_eps("0.001"), Options(("interval",))))


def test_a_process_that_starts_after_the_weights_changed_refuses_them(beside: Path) -> None:
    known = open_subject(beside).info.sha256
    decider(beside, known)(task())
    other_weights(beside)
    with pytest.raises(ModelFileError, match="was changed while it was being audited"):
        decider(beside, known)(task())


def test_a_process_that_runs_while_the_weights_change_refuses_them(tmp_path: Path) -> None:
    """onnxruntime maps large weights: written over in place, they are those of the network that answers."""
    path = network(tmp_path / "m.onnx", matrix(LARGE), beside=True, shift=True)
    subject = open_subject(path)
    worker = decider(path, subject.info.sha256)
    worker(task(LARGE))
    x = np.full((1, LARGE), 0.5, np.float32)
    before = subject.original(x)
    other_weights(path)
    assert not np.array_equal(subject.original(x), before), "onnxruntime copies weights now: the check may go"
    with pytest.raises(ModelFileError, match=r"m\.onnx\.data was changed while it was being audited"):
        worker(task(LARGE))
    with pytest.raises(ModelFileError, match=r"m\.onnx\.data was changed"):
        subject.check_unchanged()


def test_an_audit_during_which_the_weights_change_says_nothing(
    beside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idl_audit.commands import certify as robustness

    data = samples(tmp_path)
    assert audit(beside, data).status == "complete"
    real = robustness.decide_all

    def deciding(*arguments: Any, **more: Any) -> Any:
        yield from real(*arguments, **more)
        other_weights(beside)

    monkeypatch.setattr(robustness, "decide_all", deciding)
    with pytest.raises(ModelFileError, match="start again"):
        audit(beside, data)


TOUCHES: dict[str, Callable[[Path], object]] = {
    "another time": lambda path: os.utime(path, (1, 1)),
    "a copy put in place": lambda path: shutil.move(shutil.copy(path, f"{path}.copy"), path),
    "the same bytes written": lambda path: path.write_bytes(path.read_bytes()),
}


@pytest.mark.parametrize("name", TOUCHES)
def test_the_same_bytes_are_no_change(beside: Path, name: str) -> None:
    subject = open_subject(beside)
    for file in subject.files:
        TOUCHES[name](file.path)
    subject.check_unchanged()


def test_a_change_whose_time_is_put_back_is_one(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    file = hashed(path)
    status = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not file.is_unchanged
    path.unlink()
    with pytest.raises(ModelFileError, match="was changed"):
        refuse_changed([file])


def test_the_steps_of_a_run_are_of_one_model_and_one_set(beside: Path, tmp_path: Path) -> None:
    data = samples(tmp_path)
    report = audit(beside, data)
    other_weights(beside)
    second = audit(beside, data)
    with pytest.raises(IncompleteError, match="the model file was changed"):
        combined([report, second])
    assert combined([report, report]).status == "complete"
    threat = report.threat_model
    assert threat is not None
    radii = [
        report.model_copy(update={"threat_model": threat.model_copy(update={"sigma": "s", "sigma_sha256": one * 64})})
        for one in "ab"
    ]
    with pytest.raises(IncompleteError, match="the sigma file was changed"):
        combined(radii)


# --- proofs -----------------------------------------------------------------------------------------------------------


def meta_of(file: Path) -> dict[str, Any]:
    return json.loads(str(read_npz(file)["meta"][()]))


def with_meta(file: Path, **changes: object) -> Path:
    arrays = read_npz(file)
    arrays["meta"] = np.asarray(json.dumps(meta_of(file) | changes))
    np.savez(file, **arrays)
    return file


def proofs(path: Path, folder: Path) -> list[Path]:
    more = {"certificates": folder, "force": True}
    chosen = RobustnessOptions(
        eps=parse_eps("0.001"),
        data=DataOptions(samples(path.parent)),
        verdicts=Options(("interval",), record=True),
        **more,
    )
    return [Path(name) for name in audit_robustness("certify", path, chosen).artifacts]


def verified(file: Path, model: Path) -> tuple[bool, str]:
    found = verify(file, model, ModelOptions()).verification
    assert found is not None
    return found.accepted, "; ".join(found.refused)


def test_a_proof_of_a_file_that_holds_everything_names_that_file(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", matrix(), beside=False)
    for file in proofs(path, tmp_path / "c"):
        assert meta_of(file)["model"]["sha256"] == sha256(path)
        assert verified(file, path) == (True, "")


def test_a_proof_is_of_the_weights_beside_the_file_too(beside: Path, tmp_path: Path) -> None:
    files = proofs(beside, tmp_path / "c")
    assert files
    assert all(verified(file, beside) == (True, "") for file in files)
    before = open_subject(beside).info.sha256
    data = beside.with_name("m.onnx.data")
    kept = data.read_bytes()
    data.write_bytes((np.frombuffer(kept, "<f4") * np.float32(1.0001)).tobytes())  # every claim still holds
    for file in files:
        accepted, why = verified(file, beside)
        assert not accepted
        assert before[:12] in why
    data.write_bytes(kept)
    assert all(verified(file, beside)[0] for file in files)


def test_a_proof_that_names_the_file_alone_is_refused(beside: Path, tmp_path: Path) -> None:
    """As earlier versions wrote it: of which weights, it does not say."""
    for file in proofs(beside, tmp_path / "c"):
        accepted, why = verified(with_meta(file, model={**meta_of(file)["model"], "sha256": sha256(beside)}), beside)
        assert not accepted
        assert "names the model's file alone" in why


def test_a_setting_is_of_one_hash(beside: Path) -> None:
    setting = decider(beside, "0" * 64).setting
    with pytest.raises(ModelFileError):
        Decider(replace(setting, sha256="1" * 64))(task())
