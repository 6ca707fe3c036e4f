"""Several networks as one graph: the same numbers as each of them gives, expressions, ties, and hidden tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idl_audit.graph.ir import Graph
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.graph.original import onnxruntime_tensors
from idl_audit.graph.product import Member, Place, Product, common_opset
from idl_audit.implicit.build import build_implicit
from idl_audit.values.errors import UnsupportedModelError
from tests.shared.drawn_queries import network
from tests.shared.solver_cases import model, one


def read(folder: Path, made: onnx.ModelProto, name: str = "m", hidden: tuple[str, ...] = ()) -> tuple[Path, Graph]:
    path = folder / f"{name}.onnx"
    onnx.save(made, path)
    return path, read_onnx(path, hidden=hidden)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_a_product_gives_what_its_members_give(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    columns = (np.array([[0, 1]]), np.array([[2, rng.integers(3)]]))
    members, runs = [], {}
    for name, own in zip("AB", columns, strict=True):
        path, graph = read(tmp_path, network(rng), name, ("h", "r"))
        members.append(Member(name, graph, (own,)))
        runs[name] = onnxruntime_tensors(path, hidden=("h", "r"))
    product = Product(members, 3, "float32")
    places = [
        Place(str(rng.choice(["A", "B"])), str(rng.choice(["x", "h", "r", "y"])), int(rng.integers(2)))
        for _ in range(6)
    ]
    for place in places:
        product.ask(place)
    left, right = product.entry(places[0]), product.entry(places[1])
    product.ask(product.combined("-", [product.combined("*", [left, right]), product.number(0.5), left]))
    product.ask(product.combined("-", [left]))
    product.ask(product.column(2))
    implicit = build_implicit(product.graph)
    points = rng.normal(size=(5, 3)).astype(np.float32)
    found = implicit(points.astype(np.float64))
    for point, outputs in zip(points, found, strict=True):
        values = {}
        for name, own in zip("AB", columns, strict=True):
            tensors = runs[name].run(["h", "r", "y"], {"x": point[own]})
            values |= {(name, key): array.reshape(-1) for key, array in zip("hry", tensors, strict=True)}
            values[name, "x"] = point[own].reshape(-1)
        asked = [float(values[one_.member, one_.tensor][one_.flat]) for one_ in places]
        expected = [*asked, asked[0] * asked[1] - 0.5 - asked[0], -asked[0], float(point[2])]
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)


def test_hidden_tensors_have_their_values_beside_a_fused_chain(tmp_path: Path) -> None:
    _, graph = read(tmp_path, model([one("Sigmoid", "x", "s"), one("Mul", "x s")]), hidden=("s",))
    product = Product([Member("N", graph, (np.array([0]),))], 1, "float32")
    for tensor in ("s", "y"):
        product.ask(Place("N", tensor, 0))
    x = np.array([[0.7]])
    sigmoid = 1 / (1 + np.exp(-x[0, 0]))
    np.testing.assert_allclose(build_implicit(product.graph)(x)[0], [sigmoid, x[0, 0] * sigmoid], rtol=1e-12)


def test_operator_sets_go_together_where_their_operators_mean_the_same(tmp_path: Path) -> None:
    _, new = read(tmp_path, model([one("Relu")], opset=18), "new")
    _, old = read(tmp_path, model([one("Relu")], opset=14), "old")
    assert common_opset([old, new]) == 18
    _, other = read(tmp_path, model([one("Softmax", axis=0)], opset=11), "other")
    with pytest.raises(UnsupportedModelError, match="Softmax is another operator in version 11"):
        common_opset([other, new])
