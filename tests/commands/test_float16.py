"""Networks of 16-bit floats from end to end: their tolerance, their points, and what is said of them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from idl_audit import from_torch, load
from idl_audit.cli.app import app
from idl_audit.commands.shared.agreement import TOLERANCE, tolerance
from idl_audit.commands.shared.points import as_read, readable, readable_box
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.errors import AgreementError, DataError, UnsupportedModelError

FLOAT, HALF, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
F16 = np.dtype(np.float16)
node = helper.make_node
RNG = np.random.default_rng(0)
W1, W2 = RNG.normal(size=(6, 12)) / 2, RNG.normal(size=(12, 3)) / 2


def saved(
    folder: Path,
    nodes: list[NodeProto],
    constants: dict[str, Any],
    *,
    kind: int = HALF,
    shape: tuple[Any, ...] = ("n", 6),
    name: str = "m.onnx",
) -> Path:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    tensors = []
    for key, value in constants.items():
        array = np.asarray(value)
        tensors.append(numpy_helper.from_array(array.astype(dtype) if array.dtype == np.float64 else array, key))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def perceptron(folder: Path, kind: int = HALF, name: str = "m.onnx") -> Path:
    nodes = [node("MatMul", ["x", "w1"], ["a"]), node("Relu", ["a"], ["b"]), node("MatMul", ["b", "w2"], ["y"])]
    return saved(folder, nodes, {"w1": W1, "w2": W2}, kind=kind, name=name)


def run(path: Path, inputs: np.ndarray, dtype: Any = np.float16) -> np.ndarray:
    return np.asarray(onnxruntime.InferenceSession(str(path)).run(None, {"x": inputs.astype(dtype)})[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network with samples and its own labels."""
    inputs = RNG.random((12, 6))
    np.savez(tmp_path / "d.npz", inputs=inputs, labels=run(perceptron(tmp_path), inputs).argmax(axis=1))
    return tmp_path


def command(folder: Path, *arguments: str) -> dict[str, Any]:
    words = [str(folder / word) if word.endswith((".onnx", ".npz")) else word for word in arguments]
    done = CliRunner().invoke(app, [*words, "-f", "json"])
    assert done.exit_code == 0, done.output
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "m.onnx"),
        ("convert", "m.onnx", "-o", "out.npz"),
        ("sensitivity", "m.onnx"),
        ("predict", "m.onnx", "-d", "d.npz"),
        ("attack", "m.onnx", "-d", "d.npz", "-e", "0.1", "--limit", "3"),
        ("attack", "m.onnx", "-d", "d.npz", "-e", "0.1", "--limit", "3", "--objective", "l1"),
        ("certify", "m.onnx", "-d", "d.npz", "-e", "0.01", "--limit", "3", "--bounds", "0,1"),
    ],
    ids=lambda arguments: "-".join(arguments[:1]),
)
def test_every_command_works_on_a_float16_network_and_says_so(folder: Path, arguments: tuple[str, ...]) -> None:
    assert command(folder, *arguments)["model"]["arithmetic"] == "float16"


def test_the_terminal_says_what_the_network_computes_in(folder: Path) -> None:
    done = CliRunner().invoke(app, ["inspect", str(folder / "m.onnx")])
    assert "computes in" in done.stdout
    assert "float16" in done.stdout


@pytest.mark.parametrize("extra", [(), ("--sparse", "2"), ("--mean", "0.3", "--std", "0.7")], ids=str)
def test_adversarial_points_are_read_as_numbers_inside_the_exact_set(folder: Path, extra: tuple[str, ...]) -> None:
    """Handed to the network anew, as anyone would, each point errs; and what float16 makes of it is no way out."""
    command(folder, "attack", "m.onnx", "-d", "d.npz", "-e", "0.3", *extra, "--save", "found.npz")
    with np.load(folder / "found.npz") as archive:
        found = dict(archive)
    points, originals = found["inputs"], found["originals"]
    assert len(points)
    mean, std = (0.3, 0.7) if "--mean" in extra else (0.0, 1.0)
    read = ((points.astype(np.float64) - mean) / std).astype(np.float32).astype(np.float16)
    assert (run(folder / "m.onnx", read).argmax(axis=1) == found["predictions"]).all()
    assert (found["predictions"] != found["labels"]).all()
    eps = Fraction(3, 10)
    for value, centre in zip(read.ravel().tolist(), originals.ravel().tolist(), strict=True):
        exact = Fraction(value) * Fraction(std) + Fraction(mean)
        assert abs(exact - Fraction(centre)) <= eps
    if not mean:
        np.testing.assert_array_equal(points, points.astype(np.float16))
    if "--sparse" in extra:
        assert ((points != originals.astype(np.float16)).sum(axis=1) <= 2).all()


@pytest.mark.slow
def test_the_page_shows_only_what_differs_from_what_the_network_reads(folder: Path) -> None:
    """Inputs that an attack leaves alone are those of the sample, as float16 has them."""
    words = ["attack", str(folder / "m.onnx"), "-d", str(folder / "d.npz"), "-e", "0.4", "--method", "gradient"]
    files = {name: str(folder / name) for name in ("r.json", "a.npz", "r.html", "pictures")}
    words += ["--fraction", "0.34", "--output", files["r.json"], "--save", files["a.npz"]]
    words += ["--images", files["pictures"], "--image-shape", "1,2,3"]
    assert CliRunner().invoke(app, words).exit_code == 0
    report = json.loads((folder / "r.json").read_text())
    attacks = [result.get("adversarial") for sample in report["samples"] for result in sample["results"]]
    counts = [attack["l0"] for attack in attacks if attack is not None]
    assert counts
    assert max(counts) <= 3
    words = ["report", files["r.json"], "-f", "html", "-o", files["r.html"], "--adversarial", files["a.npz"]]
    done = CliRunner().invoke(app, [*words, "--image-shape", "1,2,3"])
    assert done.exit_code == 0, done.output


def test_a_property_is_refuted_by_a_float16_point_of_the_box(folder: Path) -> None:
    lines = [*(f"(declare-const X_{i} Real)" for i in range(6)), *(f"(declare-const Y_{j} Real)" for j in range(3))]
    lines += [f"(assert (>= X_{i} 0.1000001))\n(assert (<= X_{i} 0.9))" for i in range(6)]
    (folder / "p.vnnlib").write_text("\n".join([*lines, "(assert (>= Y_0 -1000))"]))
    report = command(folder, "certify", "m.onnx", str(folder / "p.vnnlib"))
    (entry,) = report["properties"]
    assert entry["result"] == "sat"
    pairs = [line.strip("()").split() for line in entry["witness"].splitlines()]
    values = [float(pair[1]) for pair in pairs if pair[0].startswith("X_")]
    assert all(value == float(np.float16(value)) and 0.1000001 <= value <= 0.9 for value in values)


def test_the_tolerance_grows_with_depth_and_with_coarser_floats(tmp_path: Path) -> None:
    path = perceptron(tmp_path)
    half, single = read_onnx(path), read_onnx(perceptron(tmp_path, FLOAT))
    assert tolerance(half) == 4 * 2 * 2.0**-11  # two products round, the Relu does not
    assert tolerance(single) == tolerance(None) == TOLERANCE


@pytest.mark.parametrize("depth", [1, 5, 30])
def test_deep_networks_of_sixteen_bits_are_within_their_tolerance(tmp_path: Path, depth: int) -> None:
    nodes, names = [], ["x", *(f"r{k}" for k in range(depth - 1)), "y"]
    for k in range(depth):
        nodes += [node("MatMul", [names[k], f"w{k}"], [f"a{k}"]), node("Relu", [f"a{k}"], [names[k + 1]])]
    weights = {f"w{k}": np.random.default_rng(k).normal(size=(6, 6)) / 1.7 for k in range(depth)}
    load(saved(tmp_path, nodes, weights))


def test_a_wrong_reading_is_found_although_the_tolerance_is_wide(tmp_path: Path, monkeypatch: Any) -> None:
    """A copy in float32 is compared to 1e-4: an error of 1e-3, within what float16 may round, does not pass."""
    from idl_audit.implicit import lowering

    right = lowering.LOWERINGS["LeakyRelu"]

    def slightly_wrong(made: Any, *rest: Any) -> Any:
        from dataclasses import replace

        return right(replace(made, attributes={"alpha": made.attributes["alpha"] + 1e-3}), *rest)

    monkeypatch.setattr(
        "idl_audit.implicit.lowering.nodes.LOWERINGS", {**lowering.LOWERINGS, "LeakyRelu": slightly_wrong}
    )
    for kind in (HALF, FLOAT):
        with pytest.raises(AgreementError, match="please report"):
            load(saved(tmp_path, [node("LeakyRelu", ["x"], ["y"], alpha=0.5)], {}, kind=kind))


def test_casts_inside_a_float32_network_set_its_arithmetic(tmp_path: Path) -> None:
    nodes = [
        node("Cast", ["x"], ["h"], to=HALF),
        node("Cast", ["w"], ["v"], to=HALF),
        node("MatMul", ["h", "v"], ["a"]),
        node("Cast", ["a"], ["y"], to=FLOAT),
    ]
    path = saved(tmp_path, nodes, {"w": W1}, kind=FLOAT)
    assert read_onnx(path).arithmetic == "float16"
    load(path)


CANCELLING = [node("Add", ["x", "big"], ["a"]), node("Relu", ["a"], ["b"]), node("Sub", ["b", "big"], ["y"])]


@pytest.mark.parametrize(
    ("nodes", "constants", "kind", "expected"),
    [
        (CANCELLING, {"big": 1e6}, FLOAT, "own float32 arithmetic is off by"),
        ([node("MatMul", ["x", "w"], ["y"])], {"w": W1 * 1e-7}, HALF, "own float16 arithmetic is off by"),
        ([node("Mul", ["x", "c"], ["a"]), node("Mul", ["a", "c"], ["y"])], {"c": 1e30}, FLOAT, "largest float32"),
        (
            [node("MatMul", ["x", "w"], ["a"]), node("Mul", ["a", "c"], ["y"])],
            {"w": W1, "c": 60000.0},
            HALF,
            "largest float16, 65504",
        ),
    ],
)
def test_a_network_that_its_own_floats_break_is_refused_and_not_reported(
    tmp_path: Path, nodes: list[NodeProto], constants: dict[str, Any], kind: int, expected: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=expected) as caught:
        load(saved(tmp_path, nodes, constants, kind=kind))
    assert "please report" not in str(caught.value)


@pytest.mark.parametrize(("big", "kind"), [(1e6, DOUBLE), (1.0, FLOAT)])
def test_numbers_that_float64_holds_and_small_ones_do_no_harm(tmp_path: Path, big: float, kind: int) -> None:
    load(saved(tmp_path, CANCELLING, {"big": big}, kind=kind))


def test_data_beyond_float16_is_refused(folder: Path) -> None:
    np.savez(folder / "far.npz", inputs=np.full((2, 6), 1e5), labels=[0, 1])
    words = ["predict", str(folder / "m.onnx"), "-d", str(folder / "far.npz")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "largest float16" in done.stderr
    with pytest.raises(DataError, match="65504"):
        as_read(np.array([7e4]), F16)


def test_a_gelu_whose_constants_are_rounded_to_sixteen_bits_is_one_activation(tmp_path: Path) -> None:
    nodes = [
        node("Div", ["x", "root"], ["a"]),
        node("Erf", ["a"], ["b"]),
        node("Add", ["b", "one"], ["c"]),
        node("Mul", ["x", "c"], ["d"]),
        node("Mul", ["d", "half"], ["y"]),
    ]
    model = load(saved(tmp_path, nodes, {"root": np.sqrt(2.0), "one": 1.0, "half": 0.5}))
    assert [block.op for block in model.blocks] == ["Gelu"]
    assert model.output.constant_error + max(row.constant_error for row in model.rows) > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["half", "float", "double"])
def test_torch_modules_of_every_precision_are_read(kind: str) -> None:
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    assert from_torch(getattr(net, kind)(), torch.zeros(1, 4)).n_states == 8


@pytest.mark.slow
def test_a_torch_module_of_bfloat16_is_refused_with_what_would_work() -> None:
    import torch

    with pytest.raises(UnsupportedModelError, match=r"bfloat16; convert it with module\.float\(\)"):
        from_torch(torch.nn.Linear(4, 3).bfloat16(), torch.zeros(1, 4))


numbers = st.floats(-300, 300, allow_nan=False)


@given(numbers, st.floats(1e-6, 50))
def test_the_bounds_of_float16_points_are_the_outermost_ones_inside(centre: float, eps: float) -> None:
    box = Box.around(np.array([centre]), eps, point_type=F16)
    lo, hi = (float(bound[0]) for bound in box.float32_bounds())
    for bound, beyond in ((lo, -np.inf), (hi, np.inf)):
        assert bound == float(np.float16(bound))
        following = float(np.nextafter(np.float16(bound), np.float16(beyond)))
        inside = box.inner_lo[0] <= following <= box.inner_hi[0]
        assert not inside
    if lo <= hi:
        assert bool(box.contains(box.project(np.array([[centre]])))[0])
        assert box.inner_lo[0] <= lo <= hi <= box.inner_hi[0]


@settings(deadline=None)
@given(
    st.floats(0, 1),
    st.floats(1e-5, 0.5),
    st.sampled_from([1.0, 255.0, 1 / 255, -2.0]),
    st.floats(-1, 1).filter(lambda x: x == 0 or abs(x) > 1e-90),
    st.floats(0.05, 5),
    st.integers(0, 2**32 - 1),
)
def test_behind_a_preprocessing_every_point_is_read_as_inside(
    centre: float, eps: float, scale: float, mean: float, std: float, seed: int
) -> None:
    units = Preprocessing(scale=scale, mean=(mean,), std=(std,))
    box = Box.around(np.array([centre]), eps)
    found = readable_box(box, F16, units, (1, 1))
    lo, hi = (float(bound[0]) for bound in found.float32_bounds())
    if lo > hi:
        return
    assert box.inner_lo[0] <= lo <= hi <= box.inner_hi[0]
    tried = lo + (hi - lo) * np.array([0.0, 1.0, *np.random.default_rng(seed).random(20)])
    points = np.clip(tried.astype(np.float32), np.float32(lo), np.float32(hi))
    exact = [Fraction(float(end)) for end in (box.inner_lo[0], box.inner_hi[0])]
    for read in units.apply(points[:, None].astype(np.float64), (1, 1)).astype(np.float16).ravel().tolist():
        back = (Fraction(read) * Fraction(std) + Fraction(mean)) / Fraction(scale)
        assert exact[0] <= back <= exact[1]


def test_an_interval_without_a_float16_has_no_points() -> None:
    box = Box.between(np.array([0.50001]), np.array([0.50002]))
    for units in (Preprocessing(), Preprocessing(mean=(0.1,))):
        lo, hi = readable_box(box, F16, units, (1, 1)).float32_bounds()
        assert lo[0] > hi[0]
        found = readable_box(box, F16, units, (1, 1))
        assert not found.contains(found.project(np.array([[0.500015]])))[0]


def test_only_sixteen_bits_change_a_set() -> None:
    box = Box.between(np.zeros(3), np.ones(3))
    for kind in (np.float32, np.float64):
        assert readable(box, np.dtype(kind), Preprocessing(), (1, 3)) is box
    ball = SparseBall(np.full(3, 0.3), box, 1)
    found = readable(ball, F16, Preprocessing(mean=(0.5,)), (1, 3))
    assert isinstance(found, SparseBall)
    assert bool(found.contains(ball.centre))


def test_what_is_certified_in_float16_says_so_and_is_verified(folder: Path) -> None:
    words = ("certify", "m.onnx", "-d", "d.npz", "-e", "0.01", "--limit", "2", "--bounds", "0,1")
    report = command(folder, *words, "--arithmetic", "float16", "--certificates", str(folder / "proofs"))
    assert report["threat_model"]["arithmetic"] == "float16"
    assert [sample["results"][0]["verdict"] for sample in report["samples"]] == ["certified"] * 2
    file = folder / "proofs/sample-0-eps-0.01.npz"
    done = CliRunner().invoke(app, ["verify", str(file), str(folder / "m.onnx")])
    assert done.exit_code == 0, done.output
    assert "in float16 arithmetic as runtimes compute" in " ".join(done.output.split())


@pytest.mark.parametrize("other", ["float32", "bfloat16", "float64"])
def test_a_proof_about_other_floats_than_the_network_s_is_refused(folder: Path, other: str) -> None:
    words = ("certify", "m.onnx", "-d", "d.npz", "-e", "0.01", "--limit", "1", "--bounds", "0,1")
    command(folder, *words, "--arithmetic", "float16", "--certificates", str(folder / "proofs"))
    file = folder / "proofs/sample-0-eps-0.01.npz"
    with np.load(file) as archive:
        arrays = dict(archive)
    arrays["meta"] = np.array(str(arrays["meta"]).replace('"arithmetic": "float16"', f'"arithmetic": "{other}"'))
    np.savez(file, **arrays)
    done = CliRunner().invoke(app, ["verify", str(file), str(folder / "m.onnx")])
    assert done.exit_code == 1
    assert f"it speaks of {other} arithmetic, and the network computes in float16" in " ".join(done.output.split())


def test_other_floats_than_the_network_s_are_not_asked_about(folder: Path) -> None:
    where = ["-d", str(folder / "d.npz"), "-e", "0.01", "--arithmetic", "float32"]
    for name in ("certify", "bounds"):
        done = CliRunner().invoke(app, [name, str(folder / "m.onnx"), *where])
        assert done.exit_code == 2
        assert "the network computes in float16; ask for --arithmetic float16, or real" in " ".join(done.output.split())


def test_a_point_that_only_float16_misclassifies_is_no_certified_one(folder: Path) -> None:
    """y0 = relu(g + 1) - relu(g), g = 4096 u, is 1 in exact arithmetic, 0 where each step is rounded; y1 = .5."""
    nodes = [
        node("MatMul", ["x", "k"], ["g"]),
        node("Add", ["g", "one"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("Relu", ["g"], ["s"]),
        node("Sub", ["r", "s"], ["d"]),
        node("MatMul", ["d", "w"], ["e"]),
        node("Add", ["e", "b"], ["y"]),
    ]
    constants = {"k": [[4096.0]], "one": [1.0], "w": [[1.0, 0.0]], "b": [0.0, 0.5]}
    path = saved(folder, nodes, constants, shape=("n", 1), name="bump.onnx")
    np.savez(folder / "one.npz", inputs=np.array([[0.25]]), labels=np.array([0]))
    assert (run(path, np.array([[0.9]])) == [[1, 0.5]]).all()  # onnxruntime rounds at the end alone
    words = ("certify", "bump.onnx", "-d", "one.npz", "-e", "0.25", "--max-nodes", "20")
    verdicts = [
        command(folder, *words, "--arithmetic", name)["samples"][0]["results"][0] for name in ("real", "float16")
    ]
    assert [one["verdict"] for one in verdicts] == ["certified", "unknown"]
