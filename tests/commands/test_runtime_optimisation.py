"""Which form of a network is judged: onnxruntime's graph optimisations change some, and reports say so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
from onnx import NodeProto, TensorProto, helper, numpy_helper

from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared import runtime
from idl_audit.commands.shared.points import random_inputs
from idl_audit.commands.shared.subject import Subject, check_agreement, open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import UnsupportedModelError
from tests.shared.command_line import gemm, network, run, weights

node = helper.make_node
RNG = np.random.default_rng(3)
STEPS = RNG.integers(-127, 128, (48, 6)).astype(np.int8)
STEP = np.float32(0.01)


def saved(
    path: Path, nodes: Sequence[NodeProto], constants: Mapping[str, Any], sizes: tuple[int, int], opset: int = 17
) -> Path:
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", size))
        for name, size in zip("xy", sizes, strict=True)
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid("", opset)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    return path


def int8_weights(path: Path, opset: int) -> Path:
    nodes = [node("DequantizeLinear", ["w", "s", "z"], ["d"]), node("MatMul", ["x", "d"], ["y"])]
    return saved(path, nodes, {"w": STEPS, "s": STEP, "z": np.int8(0)}, STEPS.shape, opset)


GRIDS = {"s1": np.float32(0.5), "z1": np.uint8(100), "s2": np.float32(0.375), "z2": np.uint8(128)}


def two_grids(path: Path) -> Path:
    nodes = [
        node("QuantizeLinear", ["x", "s1", "z1"], ["a"]),
        node("DequantizeLinear", ["a", "s1", "z1"], ["b"]),
        node("QuantizeLinear", ["b", "s2", "z2"], ["c"]),
        node("DequantizeLinear", ["c", "s2", "z2"], ["y"]),
    ]
    return saved(path, nodes, GRIDS, (5, 5))


def on_both_grids(x: FloatArray) -> FloatArray:
    once = np.clip(np.round(x / 0.5), -100, 155) * 0.5
    return np.asarray(np.clip(np.round(once / 0.375), -128, 127) * 0.375)


def roughly_gelu(path: Path) -> Path:
    nodes = [
        node("Div", ["x", "root"], ["a"]),
        node("Erf", ["a"], ["b"]),
        node("Add", ["b", "one"], ["c"]),
        node("Mul", ["x", "c"], ["d"]),
        node("Mul", ["d", "half"], ["y"]),
    ]
    constants = {"root": np.float32(1.4142), "one": np.float32(1), "half": np.float32(0.5)}
    return saved(path, nodes, constants, (6, 6))


def opened(path: Path, optimisation: Any = "auto") -> Subject:
    return open_subject(path, ModelOptions(runtime_optimisation=optimisation))


def told(path: Path, *more: str) -> dict[str, Any]:
    np.savez(path.parent / "d.npz", inputs=RNG.random((4, opened(path).model.n_inputs)), labels=np.zeros(4, int))
    done = run("predict", path, "-d", path.parent / "d.npz", "-f", "json", *more)
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


@pytest.mark.parametrize("opset", [19, 21])
def test_weights_of_8_bits_are_multiplied_by_activations_that_are_not_rounded(tmp_path: Path, opset: int) -> None:
    subject = opened(int8_weights(tmp_path / "m.onnx", opset))
    assert subject.judged is not None
    assert (subject.judged.optimisation, 1e-3 < (subject.judged.apart or 0) < 1e-1) == ("off", True)
    x = RNG.normal(size=(50, 48)).astype(np.float32)
    exact = x.astype(float) @ (STEPS * float(STEP))
    found = subject.network(Preprocessing())(x)
    assert np.abs(found - exact).max() < 1e-6 * np.abs(exact).max()
    check = check_agreement(subject, random_inputs(48))
    assert check.max_rel_error < 1e-6
    assert check.optimisation == "off"


@pytest.mark.parametrize("optimisation", ["basic", "all"])
def test_two_grids_in_a_row_are_two(tmp_path: Path, optimisation: str) -> None:
    path = two_grids(tmp_path / "m.onnx")
    subject = opened(path)
    assert subject.judged is not None
    assert subject.judged.optimisation == "off"
    x = RNG.uniform(-4, 4, (200, 5)).astype(np.float32)
    np.testing.assert_array_equal(subject.network(Preprocessing())(x), on_both_grids(x.astype(float)))
    merged = opened(path, optimisation)
    assert np.abs(merged.network(Preprocessing())(x) - on_both_grids(x.astype(float))).max() > 0.1
    with pytest.raises(UnsupportedModelError, match=rf"optimises it \({optimisation}\) .*--runtime-optimisation off"):
        check_agreement(merged, x.astype(float))


def test_reports_say_which_form_is_judged_and_how_far_the_other_is(tmp_path: Path) -> None:
    report = told(int8_weights(tmp_path / "m.onnx", 21))
    check = report["conversion"]["check"]
    assert check["optimisation"] == "off"
    assert check["optimised_apart"] > 1e-3
    (word,) = [entry for entry in report["diagnostics"] if entry["code"] == "IDL214"]
    assert "ORT_DISABLE_ALL" in word["hint"]
    shown = run("predict", tmp_path / "m.onnx", "-d", tmp_path / "d.npz").out
    assert "without graph optimisations" in " ".join(shown.split())


def test_who_says_which_form_is_deployed_is_told_nothing(tmp_path: Path) -> None:
    report = told(int8_weights(tmp_path / "m.onnx", 21), "--runtime-optimisation", "off")
    assert not [entry for entry in report["diagnostics"] if entry["code"] == "IDL214"]
    refused = run("predict", tmp_path / "m.onnx", "-d", tmp_path / "d.npz", "--runtime-optimisation", "all")
    assert refused.code == 2
    assert "please report" not in refused.err
    assert "--runtime-optimisation off" in refused.err


def test_a_constant_of_a_few_digits_is_within_the_tolerance(tmp_path: Path) -> None:
    """onnxruntime takes 1.4142 for sqrt(2): a change of 3e-6, which is told and no more."""
    subject = opened(roughly_gelu(tmp_path / "m.onnx"))
    assert subject.judged is not None
    assert subject.judged.optimisation == "all"
    assert 1e-7 < (subject.judged.apart or 0) < 1e-5
    x = RNG.normal(size=(50, 6)).astype(np.float32)
    exact = 0.5 * x * (1 + scipy.special.erf(x / float(np.float32(1.4142))))
    found = opened(tmp_path / "m.onnx", "off").network(Preprocessing())(x)
    assert np.abs(found - exact).max() < 5e-7
    assert check_agreement(subject, x.astype(float)).optimised_apart == subject.judged.apart


def test_networks_of_16_bits_are_what_they_are_within_their_own_tolerance(tmp_path: Path) -> None:
    constants = {"w": RNG.normal(size=(64, 64)) / 8, "v": RNG.normal(size=(64, 4)) / 8}
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, ("n", k)) for n, k in (("x", 64), ("y", 4))]
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["b"]), node("MatMul", ["b", "v"], ["y"])]
    tensors = [numpy_helper.from_array(value.astype(np.float16), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    for form in ("auto", "off", "all"):
        subject = opened(tmp_path / "m.onnx", form)
        assert subject.judged is not None
        assert subject.judged.optimisation == ("all" if form == "auto" else form)
        assert check_agreement(subject, random_inputs(64)).max_rel_error < 4e-3


def test_plain_networks_are_judged_as_onnxruntime_runs_them_unasked(tmp_path: Path) -> None:
    network(tmp_path / "m.onnx", [gemm()], weights())
    report = told(tmp_path / "m.onnx")
    check = report["conversion"]["check"]
    assert check["optimisation"] == "all"
    assert check["optimised_apart"] < 1e-6
    assert not [entry for entry in report["diagnostics"] if entry["code"] == "IDL214"]


def test_what_runs_in_one_form_only_is_judged_in_that_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network(tmp_path / "m.onnx", [gemm()], weights())
    real = runtime.onnxruntime_network
    for broken, left in (("off", "all"), ("all", "off")):

        def run_one(*given: Any, optimisation: str, broken: str = broken, **named: Any) -> Any:
            if optimisation == broken:
                raise UnsupportedModelError(["no kernel"])
            return real(*given, optimisation=optimisation, **named)

        monkeypatch.setattr(runtime, "onnxruntime_network", run_one)
        subject = opened(tmp_path / "m.onnx")
        assert subject.judged is not None
        assert (subject.judged.optimisation, subject.judged.apart) == (left, None)


def test_networks_that_onnxruntime_does_not_run_have_no_such_form(tmp_path: Path) -> None:
    network(tmp_path / "m.onnx", [gemm()], weights())
    assert run("convert", tmp_path / "m.onnx", "-o", tmp_path / "m.npz").code == 0
    report = told(tmp_path / "m.npz")
    assert report["conversion"]["check"]["optimisation"] is None
    refused = run("predict", tmp_path / "m.npz", "-d", tmp_path / "d.npz", "--runtime-optimisation", "off")
    assert refused.code == 2
    assert "belongs to ONNX files" in refused.err


def test_what_the_optimiser_fails_on_runs_as_it_is_and_an_order_for_it_says_what_would_work(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ("n", 3)) for name in "xy"]
    constants = {"w": np.eye(3), "low": np.array(0.1), "high": np.array(0.9)}
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("Clip", ["r", "low", "high"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    path = tmp_path / "doubles.onnx"
    made = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors), opset_imports=[helper.make_opsetid("", 17)]
    )
    made.ir_version = 8
    path.write_bytes(made.SerializeToString())
    subject = open_subject(path)
    check_agreement(subject, random_inputs(3))
    assert capfd.readouterr().err == ""
    with pytest.raises(UnsupportedModelError, match="--runtime-optimisation off runs the network as it is"):
        open_subject(path, ModelOptions(runtime_optimisation="all"))
