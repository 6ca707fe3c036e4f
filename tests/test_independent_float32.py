"""The independent checker of float32 claims: it accepts what the tool writes, and no claim that float32 contradicts."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.certify_property import audit_property
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.options.robustness import PropertyOptions, RobustnessOptions
from idl_audit.data.numbers import parse_eps
from idl_audit.decide.ladder import Options
from tests import independent_checker, independent_files, independent_float32
from tests.commands.test_float_margins import asked, saved
from tests.independent_files import Refused

SAMPLES = Path(__file__).resolve().parents[1] / "sample_models"


def network(folder: Path, seed: int, scale: float = 1.0) -> Path:
    rng = np.random.default_rng(seed)
    sizes = (2, 6, 5, 2)
    nodes, constants = [], {}
    for k, (n, m) in enumerate(pairwise(sizes)):
        constants |= {f"w{k}": rng.normal(size=(n, m)) * scale, f"b{k}": rng.normal(size=m)}
        last = k == len(sizes) - 2
        before = "x" if k == 0 else f"h{k - 1}"
        if k == 1:
            nodes += [("MatMul", f"{before} w{k}", f"m{k}", {}), ("Add", f"m{k} b{k}", f"g{k}", {})]
        else:
            nodes += [("Gemm", f"{before} w{k} b{k}", "y" if last else f"g{k}", {})]
        nodes += [] if last else [("Relu", f"g{k}", f"h{k}", {})]
    return saved(folder / f"net{seed}.onnx", nodes, constants, n=2)


def certificates(model: Path, data: Path, folder: Path, eps: str, limit: int | None = None) -> list[Path]:
    options = RobustnessOptions(
        eps=parse_eps(eps),
        data=DataOptions(data, limit=limit),
        verdicts=Options(arithmetic="float32", time_limit=10),
        certificates=folder,
    )
    audit_robustness("certify", model, options)
    return sorted(folder.glob("*.npz"))


def sample_of(model: Path, folder: Path) -> Path:
    x = np.zeros((1, 2), np.float32)
    y = onnxruntime.InferenceSession(str(model)).run(None, {"x": x})[0]
    np.savez(folder / "d.npz", inputs=x, labels=y.argmax(axis=1))
    return folder / "d.npz"


@pytest.mark.parametrize(("name", "count"), [("digits_mlp", 2), ("digits_conv", 1)])
def test_accepts_what_the_tool_writes_of_samples(tmp_path: Path, name: str, count: int) -> None:
    model = SAMPLES / f"{name}.onnx"
    files = certificates(model, SAMPLES / f"{name}.npz", tmp_path, "0.01", count)
    assert len(files) == count
    for file in files:
        assert "in float32" in independent_float32.check(model, file)
        with pytest.raises(Refused, match=r"not a claim of format 2\.0"):
            independent_checker.check(model, file)


def convolutional(folder: Path, seed: int) -> Path:
    """Return a network of two convolutions, a maximum and a mean, on pictures of 4 x 4 numbers."""
    rng = np.random.default_rng(seed)
    nodes = [
        ("Reshape", "x picture", "p", {}),
        ("Conv", "p w0 b0", "g0", {"pads": [1, 1, 1, 1]}),
        ("Relu", "g0", "h0", {}),
        ("MaxPool", "h0", "m", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", "m w1 b1", "g1", {"pads": [1, 1, 0, 0], "strides": [1, 1]}),
        ("Relu", "g1", "h1", {}),
        ("AveragePool", "h1", "a", {"kernel_shape": [2, 2]}),
        ("Flatten", "a", "f", {}),
        ("Gemm", "f w2 b2", "y", {}),
    ]
    shapes = {"w0": (2, 1, 3, 3), "b0": (2,), "w1": (3, 2, 2, 2), "b1": (3,), "w2": (3, 2), "b2": (2,)}
    constants = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    path = saved(folder / f"conv{seed}.onnx", nodes, constants, n=16)
    proto = onnx.load(path)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.int64([1, 1, 4, 4]), "picture"))
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("seed", range(3))
def test_convolutions_are_bounded_on_their_own(tmp_path: Path, seed: int) -> None:
    """Its bounds hold of onnxruntime, accept what the tool writes, and refuse what says that nothing is rounded."""
    model, rng = convolutional(tmp_path, seed), np.random.default_rng(seed)
    centre = rng.normal(size=16).astype(np.float32)
    session = onnxruntime.InferenceSession(str(model))
    label = session.run(None, {"x": centre[None]})[0].argmax(axis=1)
    np.savez(tmp_path / "d.npz", inputs=centre[None], labels=label)
    (file,) = certificates(model, tmp_path / "d.npz", tmp_path / "proofs", "0.001")
    assert "in float32" in independent_float32.check(model, file)
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(tmp_path / "forged.npz", allow_pickle=True, **{**arrays, "part.0.delta.0": np.full(1, 1e-9)})
    with pytest.raises(Refused, match="roundings may be larger"):
        independent_float32.check(model, tmp_path / "forged.npz")
    point = np.array([Fraction(float(v)) for v in centre])
    errors = independent_float32.roundings(model, point, point)
    exact = ReferenceEvaluator(in_float64(model)).run(None, {"x": centre[None].astype(float)})[0][0]
    seen = np.abs(session.run(None, {"x": centre[None]})[0][0] - exact)
    assert (errors > 0).all()
    assert (seen <= errors.astype(float)).all()
    assert errors.max() < 1e-3


def in_float64(path: Path) -> onnx.ModelProto:
    """Return a network with its numbers in float64."""
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(float), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    return proto


@pytest.mark.parametrize("seed", range(4))
def test_accepts_or_refuses_small_networks_for_what_roundings_may_change(tmp_path: Path, seed: int) -> None:
    model = network(tmp_path, seed)
    (file,) = certificates(model, sample_of(model, tmp_path), tmp_path / "proofs", "0.001")
    independent_float32.check(model, file)
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for change, why in (
        ({"part.0.delta.0": np.full(1, 1e-9)}, "roundings may be larger"),
        ({"part.0.delta.0": np.full(1, 1e3)}, "not closed"),
        ({"part.0.delta.0": np.full(1, -1.0)}, "no bound"),
        ({"part.0.delta.0": np.full(1, np.nan)}, "finite|no bound"),
        ({"part.0.delta.0": np.zeros(2)}, "delta"),
    ):
        np.savez(tmp_path / "forged.npz", allow_pickle=True, **{**arrays, **change})
        with pytest.raises(Refused, match=why):
            independent_float32.check(model, tmp_path / "forged.npz")
    meta = json.loads(str(arrays["meta"])) | {"arithmetic": "real"}
    np.savez(tmp_path / "forged.npz", allow_pickle=True, **{**arrays, "meta": np.asarray(json.dumps(meta))})
    with pytest.raises(Refused, match="not a claim"):
        independent_float32.check(model, tmp_path / "forged.npz")


def test_accepts_a_property(tmp_path: Path) -> None:
    model = saved(tmp_path / "pair.onnx", [("Gemm", "x w b", "y", {})], {"w": [[1.0, 0.5]], "b": [0.1, 0.0]})
    text = asked(tmp_path, "(assert (<= Y_0 1.05))", lo=1, hi=2)
    options = PropertyOptions(arithmetic="float32", certificates=tmp_path / "proofs")
    assert audit_property(model, text, options).properties[0].result == "unsat"
    (file,) = (tmp_path / "proofs").glob("*.npz")
    independent_float32.check(model, file)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_roundings_are_never_larger(tmp_path: Path, seed: int, scale: float) -> None:
    """|onnxruntime - exact| at random points, in fractions."""
    model = network(tmp_path, seed, scale)
    rng = np.random.default_rng(seed)
    points = (rng.random((20, 2)) * 2 - 1).astype(np.float32)
    exact = independent_files.fraction
    lo, hi = exact(-np.ones(2)), exact(np.ones(2))
    bound = independent_float32.roundings(model, lo, hi)
    session = onnxruntime.InferenceSession(str(model))
    for point in points:
        here = exact(point.astype(float))
        at = independent_float32.roundings(model, here, here)
        assert (at <= bound).all()
        (y,) = session.run(None, {"x": point[None]})[0].astype(float)
        values = _exactly(model, here)
        assert all(abs(Fraction(float(a)) - b) <= e for a, b, e in zip(y, values, at, strict=True))


def _exactly(model: Path, point: np.ndarray) -> np.ndarray:
    """The exact outputs, as the middle of an interval without width."""
    found = {}
    made = independent_float32._made

    def kept(*given):
        found["last"] = made(*given)
        return found["last"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(independent_float32, "_made", kept)
        independent_float32.roundings(model, point, point)
    assert (found["last"].lo == found["last"].hi).all()
    return np.asarray(found["last"].lo)
