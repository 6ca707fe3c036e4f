"""Networks with norms: proofs that hold, verdicts that verify accepts, and what is said where a divisor may be 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, helper

from idl_audit.implicit.activations.normalised import Normalised
from idl_audit.implicit.compress import pruned
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.reduce import reduce_model
from idl_audit.implicit.scaling import rescale
from idl_audit.measure.local_sensitivity import local_sensitivity
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.proof.bounds import Interval
from idl_audit.proof.domains import why_outside
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.values.box import Box
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.verdicts import Verdict
from tests.shared.command_line import run
from tests.shared.implicit_models import built, node, proto

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32 - 1)
SHAPE = (1, 2, 4, 4)

Made = tuple[list[NodeProto], dict[str, Any]]


def dense(rng: np.random.Generator, norm: list[NodeProto], constants: dict[str, Any]) -> Made:
    """Return two hidden layers: x V, a norm of it as h -> n, relu, W, the norm again, and the outputs."""
    nodes = [node("Flatten", "x", "flat")]
    before = "flat"
    for k in range(2):
        nodes += [node("MatMul", f"{before} V{k}", f"h{k}")]
        for one in norm:
            renamed = helper.make_node(
                one.op_type,
                [name if name in constants else f"{name}{k}" for name in one.input],
                [f"{name}{k}" for name in one.output],
            )
            renamed.attribute.extend(one.attribute)
            nodes.append(renamed)
        nodes += [node("Relu", f"n{k}", f"r{k}")]
        before = f"r{k}"
    nodes += [node("MatMul", f"{before} C", "y")]
    V = {f"V{k}": rng.normal(size=(n, 6)) / np.sqrt(n) for k, n in enumerate((32, 6))}
    return nodes, {**constants, **V, "C": rng.normal(size=(6, 3))}


def layer(rng: np.random.Generator) -> Made:
    scale = {"s": rng.normal(size=6), "b": rng.normal(size=6)}
    return dense(rng, [node("LayerNormalization", "h s b", "n", epsilon=1e-3)], scale)


def root_mean_square(rng: np.random.Generator) -> Made:
    chain = [node("Pow", "h two", "q"), node("ReduceMean", "q", "v", axes=[-1]), node("Add", "v e", "w")]
    chain += [node("Sqrt", "w", "s"), node("Div", "h s", "n")]
    return dense(rng, chain, {"two": np.float32(2), "e": np.float32(1e-3)})


def unit_vectors(rng: np.random.Generator) -> Made:
    chain = [node("ReduceL2", "h", "l", axes=[1]), node("Clip", "l e", "s"), node("Div", "h s", "n")]
    return dense(rng, chain, {"e": np.float32(1e-2)})


def quotients(rng: np.random.Generator) -> Made:
    chain = [node("Exp", "h", "e"), node("ReduceSum", "e", "s"), node("Div", "h s", "n")]
    return dense(rng, chain, {})


def groups(rng: np.random.Generator) -> Made:
    nodes = [
        node("Conv", "x K", "h", pads=[1, 1, 1, 1]),
        node("Reshape", "h apart", "g"),
        node("InstanceNormalization", "g ones zeros", "i", epsilon=1e-3),
        node("Reshape", "i whole", "j"),
        node("Mul", "j s", "n"),
        node("Relu", "n", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "f"),
        node("MatMul", "f C", "y"),
    ]
    constants = {
        "K": rng.normal(size=(4, 2, 3, 3)) / 3,
        "apart": np.array([0, 2, -1]),
        "whole": np.array([1, 4, 4, 4]),
        "ones": np.ones(2),
        "zeros": np.zeros(2),
        "s": rng.normal(size=(4, 1, 1)),
        "C": rng.normal(size=(4, 3)),
    }
    return nodes, constants


MADE = {
    "groups": groups,
    "layer": layer,
    "quotients": quotients,
    "root mean square": root_mean_square,
    "unit vectors": unit_vectors,
}


def typed(constants: dict[str, Any]) -> dict[str, Any]:
    return {
        name: np.asarray(v, None if np.asarray(v).dtype.kind == "i" else np.float32) for name, v in constants.items()
    }


def model_of(what: str, rng: np.random.Generator) -> ImplicitModel:
    nodes, constants = MADE[what](rng)
    opset = 17 if what == "layer" else 12
    return built(nodes, SHAPE, typed(constants), opset=opset)


def sampled(box: Box, rng: np.random.Generator, n: int) -> Array:
    shares = np.where(rng.random((n, box.size)) < 0.5, rng.choice([0.0, 1.0], size=(n, box.size)), rng.random((n, 1)))
    return np.clip(box.lo + shares * (box.hi - box.lo), box.lo, box.hi)


@pytest.mark.parametrize("what", sorted(MADE))
@given(seed=SEEDS)
@settings(deadline=None, max_examples=6)
def test_no_point_violates_a_proved_bound(what: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = model_of(what, rng)
    box = Box.around(rng.normal(size=32), float(rng.choice([1e-3, 0.03, 0.3])))
    inputs, points, seeds = Interval.of_boxes(box), sampled(box, rng, 400), rng.normal(size=(5, 3))
    for version in (model, rescale(model), reduce_model(model).model):
        solution, outputs = version.solve(points), version(points) @ seeds.T
        for bounds in (interval_bounds(version, inputs), backward_state_bounds(version, inputs)):
            for k, (z, x) in enumerate(zip(solution.pre_activations, solution.states, strict=True)):
                for found, known in ((z, bounds.z[k]), (x, bounds.x[k])):
                    slack = 1e-11 * (1 + np.abs(found).max())
                    assert (found >= known.lo - slack).all()
                    assert (found <= known.hi + slack).all()
            lower = output_lower_bounds(version, inputs, bounds, seeds)[0]
            assert (outputs.min(axis=0) >= lower - 1e-11 * (1 + np.abs(outputs).max())).all()


@pytest.mark.parametrize("what", sorted(set(MADE) - {"quotients"}))
@given(seed=SEEDS)
@settings(deadline=None, max_examples=5)
def test_sensitivity_holds_everywhere_and_within_boxes(what: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = model_of(what, rng)
    assert not model.unbounded
    everywhere = sensitivity_matrix(model, "best")
    assert np.isfinite(everywhere).all()
    box = Box.around(rng.normal(size=32), 0.02)
    near = local_sensitivity(model, box, state_bounds="linear")
    assert (near <= everywhere).all()
    for S, one, two in (
        (everywhere, rng.normal(size=(300, 32)), rng.normal(size=(300, 32)) * 0.1),
        (near, sampled(box, rng, 300), sampled(box, rng, 300)),
    ):
        assert (np.abs(model(one) - model(two)) <= np.abs(one - two) @ S.T * (1 + 1e-9) + 1e-9).all()


def test_the_sensitivity_of_two_entries_is_a_half() -> None:
    ones = np.ones(2, np.float32)
    model = built([node("LayerNormalization", "x s", epsilon=1.0)], (1, 2), {"s": ones}, opset=17)
    np.testing.assert_allclose(sensitivity_matrix(model, "best"), 0.5, rtol=1e-12)


def test_inputs_of_a_million_keep_their_variance() -> None:
    ones = np.ones(64, np.float32)
    model = built([node("LayerNormalization", "x s")], (1, 64), {"s": ones}, opset=17)
    rng = np.random.default_rng(0)
    for reach, narrow in ((1e-2, True), (1e6, False)):
        box = Box.around(1e6 + rng.normal(size=64), reach)
        bounds = backward_state_bounds(model, Interval.of_boxes(box))
        assert not why_outside(model, bounds)
        width = (bounds.x[0].hi - bounds.x[0].lo)[0, :64].max()
        assert width < 0.2 if narrow else width <= 2 * np.sqrt(63) * (1 + 1e-9)


def test_a_divisor_that_may_be_0_is_told_with_its_box() -> None:
    nodes = [node("Add", "x c", "d"), node("Div", "e d", "y")]
    nodes[1].name = "/norm/Div"
    nodes.insert(1, node("Relu", "x", "e"))
    model = built(nodes, (1, 1), {"c": np.float32([[0.64]])})
    box = Interval.of_boxes(Box.around(np.array([0.0]), 0.66))
    told = why_outside(model, interval_bounds(model, box))
    assert told == "the divisor of '/norm/Div' (Div) may be 0 in this box: [-0.02, 1.3]"


def test_a_vector_that_may_be_0_has_no_direction() -> None:
    model = built([node("LpNormalization", "x")], (1, 3))
    assert "may be 0 or less in this box" in why_outside(
        model, interval_bounds(model, Interval.of_boxes(Box.around(np.zeros(3), 0.1)))
    )
    assert "'y' (LpNormalization)" in model.unbounded
    with pytest.raises(UnsupportedModelError, match="no number bounds the slope"):
        sensitivity_matrix(model)
    there = local_sensitivity(model, Box.around(np.array([1.0, 0.0, 2.0]), 0.1))
    assert np.isfinite(there).all()


def test_changed_rows_are_relied_on_by_nobody() -> None:
    model = model_of("layer", np.random.default_rng(0))
    small = pruned(model, 1e-6).model
    for one, aided in ((model, True), (rescale(model), True), (reduce_model(model).model, True), (small, False)):
        phis = [block.activation for block in one.blocks if isinstance(block.activation, Normalised)]
        assert [phi.aided for phi in phis] == [aided] * 2


@pytest.mark.parametrize("what", sorted(MADE))
def test_certificates_are_accepted_by_verify(tmp_path: Path, what: str) -> None:
    rng = np.random.default_rng(0)
    nodes, constants = MADE[what](rng)
    path = tmp_path / "net.onnx"
    onnx.save(proto(nodes, SHAPE, typed(constants), opset=17 if what == "layer" else 12), path)
    x = rng.normal(size=(2, *SHAPE[1:])).astype(np.float32)
    np.savez(tmp_path / "data.npz", inputs=x, labels=np.zeros(2, np.int64))
    predicted = run("predict", path, "-d", tmp_path / "data.npz", "-f", "json").report
    labels = np.array([entry.predicted for entry in predicted.predictions])
    np.savez(tmp_path / "data.npz", inputs=x, labels=labels)
    options = ["-d", tmp_path / "data.npz", "-e", "0.0005"]
    done = run("certify", path, *options, "--certificates", tmp_path / "c", "-f", "json")
    assert done.code == 0, done.err
    assert [sample.results[0].verdict for sample in done.report.samples] == [Verdict.CERTIFIED] * 2
    for file in sorted((tmp_path / "c").iterdir()):
        assert run("verify", file, path).code == 0
    assert run("convert", path, "-o", tmp_path / "c.npz").code == 0
    for command in (["inspect", path], ["inspect", tmp_path / "c.npz"], ["bounds", path, *options]):
        assert run(*command).code == 0
    again = run("certify", tmp_path / "c.npz", *options, "--certificates", tmp_path / "d", "-f", "json")
    assert again.code == 0, again.err
    for file in sorted((tmp_path / "d").iterdir()):
        assert run("verify", file, tmp_path / "c.npz").code == 0
