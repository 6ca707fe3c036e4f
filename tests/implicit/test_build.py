"""build_implicit: the same function as the network, in the paper's order, with honest refusals and honest errors."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper

from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.linear_maps import Dense, Sparse
from idl_audit.implicit.model import ImplicitModel
from idl_audit.values.errors import MemoryLimitError, OptionError, UnsupportedModelError
from tests.shared.implicit_models import Network, built, checked, floats, ints, node, proto, read
from tests.shared.map_examples import admits, distance, exact, product, rational
from tests.shared.random_networks import FAMILIES, KINKED

RNG = np.random.default_rng(11)
SEEDS = st.integers(0, 2**32 - 1)


def f(*shape: int) -> Any:
    return floats(RNG, *shape)


def check_structure(model: ImplicitModel) -> None:
    """Newest block first, A strictly upper block triangular, every map of the right size."""
    assert model.is_feed_forward
    assert model.structure == "strictly block triangular"
    starts = model.offsets
    a = model.matrices.A.toarray()
    for k, row in enumerate(model.rows):
        assert not a[starts[k] : starts[k + 1], : starts[k + 1]].any()
        assert all(j > k for j in row.states)
        for j, linear_map in row.states.items():
            assert (linear_map.n_out, linear_map.n_in) == (model.blocks[k].size, model.blocks[j].size)
        assert row.input is None or (row.input.n_out, row.input.n_in) == (model.blocks[k].size, model.n_inputs)
        assert row.constant.shape == (model.blocks[k].size,)
    for block in model.blocks:
        if block.maximum is not None:
            assert block.maximum.windows.shape[0] == block.size
            assert block.maximum.windows.max() < model.blocks[block.maximum.source].size


def iterated(model: ImplicitModel, u: np.ndarray) -> np.ndarray:
    """Solve x = phi(A x + B u + b) from the flat matrices alone by iterating as often as there are blocks."""
    a, b, c, d, offset, shift = model.matrices
    starts = model.offsets
    x = np.zeros(model.n_states)
    for _ in range(len(model.blocks) + 1):
        z = a @ x + b @ u + offset
        x = np.concatenate(
            [np.zeros(0), *(k(z[s:e]) for k, s, e in zip(model.blocks, starts, starts[1:], strict=False))]
        )
    return np.asarray(c @ x + d @ u + shift)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@given(seed=SEEDS)
@settings(deadline=None, max_examples=12)
def test_the_implicit_model_is_the_network(family: str, seed: int) -> None:
    network = Network(FAMILIES[family](seed).proto())
    model = network.check(tolerance=2e-5, seed=seed)
    check_structure(model)
    rows = network.samples(2, seed).astype(np.float64)
    for u, y in zip(rows, model(rows), strict=True):
        np.testing.assert_allclose(iterated(model, u), y, rtol=0, atol=1e-9 * max(1.0, np.abs(y).max()))


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
@given(seed=SEEDS)
@settings(deadline=None, max_examples=25)
def test_many_networks(family: str, seed: int) -> None:
    check_structure(Network(FAMILIES[family](seed).proto()).check(tolerance=2e-5, seed=seed))


@given(seed=SEEDS)
@settings(deadline=None, max_examples=10)
def test_states_are_what_the_blocks_make_of_pre_activations(seed: int) -> None:
    network = Network(FAMILIES["dense"](seed, KINKED).proto())
    model, rows = network.implicit, network.samples(3, seed).astype(np.float64)
    a, b, *_, offset, _ = model.matrices
    x = np.hstack([np.zeros((3, 0)), *model.state(rows)])
    z = np.hstack([np.zeros((3, 0)), *model.pre_activations(rows)])
    np.testing.assert_allclose(
        z, x @ a.T.toarray() + rows @ b.T.toarray() + offset, rtol=0, atol=1e-9 * (1 + np.abs(z).max(initial=0))
    )


class TestStructure:
    def test_blocks_stand_newest_first_and_keep_their_nodes_names(self) -> None:
        nodes = [
            node("MatMul", "x w", "h", name="m1"),
            node("Relu", "h", "r", name="first"),
            node("MatMul", "r v", "g", name="m2"),
            node("Tanh", "g", "y", name="second"),
        ]
        model = checked(nodes, (1, 4), {"w": f(4, 3), "v": f(3, 2)})
        assert [(block.name, block.op, block.activation.name, block.shape) for block in model.blocks] == [
            ("second", "Tanh", "tanh", (1, 2)),
            ("first", "Relu", "relu", (1, 3)),
        ]
        assert (model.n_inputs, model.n_outputs, model.n_states) == (4, 2, 5)
        assert (model.input_shape, model.output_shape) == ((1, 4), (1, 2))

    def test_conv_batch_norm_and_sum_are_one_block(self) -> None:
        bn = {"s": f(2), "b": f(2), "m": f(2), "v": np.abs(f(2)) + 1}
        nodes = [
            node("Conv", "x w", "h", pads=[1] * 4),
            node("BatchNormalization", "h s b m v", "n"),
            node("Relu", "n", "r"),
            node("Conv", "r k", "g", pads=[1] * 4),
            node("BatchNormalization", "g s b m v", "o"),
            node("Add", "o x", "t"),
            node("Relu", "t", "y"),
        ]
        model = checked(nodes, (1, 2, 4, 4), {"w": f(2, 2, 3, 3), "k": f(2, 2, 3, 3), **bn})
        assert [block.op for block in model.blocks] == ["Relu", "Relu"]
        assert isinstance(model.rows[0].states[1], Convolution)

    CUTS: ClassVar[list[tuple[str, list[NodeProto], tuple[int, ...], dict[str, Any], int]]] = [
        (
            "two dense layers, narrow input",
            [node("MatMul", "x a", "h"), node("MatMul", "h b")],
            (1, 3),
            {"a": f(3, 40), "b": f(40, 4)},
            0,
        ),
        (
            "a bottleneck",
            [node("MatMul", "x a", "h"), node("MatMul", "h b")],
            (1, 40),
            {"a": f(40, 3), "b": f(3, 40)},
            1,
        ),
        (
            "a bottleneck of a bottleneck",
            [node("MatMul", "x a", "h"), node("MatMul", "h b", "g"), node("MatMul", "g a")],
            (1, 40),
            {"a": f(40, 3), "b": f(3, 40)},
            1,
        ),
        (
            "1 x 1 after 3 x 3",
            [node("Conv", "x a", "h"), node("Conv", "h b")],
            (1, 8, 5, 5),
            {"a": f(1, 8, 3, 3), "b": f(8, 1, 1, 1)},
            1,
        ),
        (
            "batch-norm costs nothing",
            [node("Conv", "x a", "h"), node("Mul", "h s")],
            (1, 2, 5, 5),
            {"a": f(2, 2, 3, 3), "s": f(2, 1, 1)},
            0,
        ),
        (
            "a scaling costs nothing",
            [node("MatMul", "x a", "h"), node("Mul", "h s", "g"), node("Neg", "g")],
            (1, 4),
            {"a": f(4, 4), "s": f(4)},
            0,
        ),
        (
            "tiles of a dense layer",
            [node("MatMul", "x a", "h"), node("Tile", "h n")],
            (1, 9),
            {"a": f(9, 4), "n": ints(1, 5)},
            1,
        ),
        ("tiles of the input", [node("Tile", "x n")], (1, 9), {"n": ints(1, 5)}, 0),
        (
            "pooling after a convolution",
            [node("Conv", "x a", "h"), node("GlobalAveragePool", "h")],
            (1, 2, 5, 5),
            {"a": f(3, 2, 3, 3)},
            0,
        ),
    ]

    @pytest.mark.parametrize(("what", "nodes", "shape", "constants", "cuts"), CUTS, ids=[c[0] for c in CUTS])
    def test_the_graph_is_cut_only_where_multiplying_out_costs_more(
        self, what: str, nodes: list[NodeProto], shape: tuple[int, ...], constants: dict[str, Any], cuts: int
    ) -> None:
        model = checked(nodes, shape, constants)
        assert [block.activation.name for block in model.blocks] == ["identity"] * cuts

    def test_blocks_that_the_output_does_not_see_are_left_out(self) -> None:
        nodes = [
            node("Relu", "x", "r"),
            node("Sigmoid", "x", "s"),
            node("Split", "s n", "a b", axis=1),
            node("Concat", "r a", axis=1),
        ]
        model = checked(nodes, (1, 4), {"n": ints(2, 2)})
        assert len(model.blocks) == 2
        nodes = [node("Relu", "x", "r"), node("Sub", "r r", "n"), node("Add", "n x")]
        assert not checked(nodes, (1, 4)).matrices.C.toarray().any()

    def test_a_network_without_nonlinearity_has_no_states(self) -> None:
        model = checked([node("MatMul", "x w", "h"), node("Add", "h b")], (1, 3), {"w": f(3, 2), "b": f(2)})
        assert model.n_states == 0
        assert model.matrices.A.shape == (0, 0)
        assert model.matrices.B.shape == (0, 3)
        assert model.matrices.C.shape == (2, 0)
        assert model.offsets == (0,)
        assert model.state(np.zeros((2, 3))) == ()
        assert model(np.zeros((0, 3))).shape == (0, 2)

    def test_max_pooling_knows_its_windows(self) -> None:
        nodes = [
            node("Relu", "x", "r"),
            node("Transpose", "r", "t", perm=[0, 1, 3, 2]),
            node("MaxPool", "t", kernel_shape=[2, 3], strides=[2, 2], pads=[1, 0, 1, 0]),
        ]
        network = Network(proto(nodes, (1, 2, 5, 4)))
        model = network.check()
        (k,) = [k for k, block in enumerate(model.blocks) if block.maximum is not None]
        maximum = model.blocks[k].maximum
        assert maximum is not None
        x = model.state(network.samples(5).astype(float))
        places = x[maximum.source][:, maximum.windows]
        np.testing.assert_allclose(
            np.where(maximum.windows < 0, -np.inf, places).max(axis=-1), x[k], rtol=0, atol=1e-12
        )

    def test_max_pooling_of_the_input_knows_its_windows_too(self) -> None:
        model = checked([node("MaxPool", "x", kernel_shape=[3, 3], strides=[3, 3])], (1, 1, 6, 6))
        assert any(block.maximum is not None for block in model.blocks)


class TestUnusualNetworks:
    CASES: ClassVar[dict[str, tuple[list[NodeProto], tuple[int | str | None, ...], dict[str, Any]]]] = {
        "one tensor everywhere": (
            [
                node("Relu", "x", "r"),
                node("Add", "r r", "s"),
                node("Concat", "s r x s", "t", axis=1),
                node("Add", "t t"),
            ],
            (1, 3),
            {},
        ),
        "a constant joins twice": (
            [node("Add", "x c", "h"), node("Relu", "h", "r"), node("Sub", "r c")],
            (1, 3),
            {"c": f(1, 3)},
        ),
        "all zero weights": (
            [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r w")],
            (1, 3),
            {"w": np.zeros((3, 3), "f4")},
        ),
        "a dead row": (
            [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r w")],
            (1, 3),
            {"w": np.diag([1, 0, 2]).astype("f4")},
        ),
        "relu of relu of relu": ([node("Relu", "x", "a"), node("Relu", "a", "b"), node("Relu", "b")], (1, 3), {}),
        "a scalar": ([node("Relu", "x", "r"), node("Neg", "r")], (), {}),
        "a vector": ([node("Relu", "x", "r"), node("MatMul", "r w")], (3,), {"w": f(3, 2)}),
        "sizes of 1": (
            [node("Conv", "x w", "h"), node("MaxPool", "h", "p", kernel_shape=[1, 1]), node("GlobalAveragePool", "p")],
            (1, 1, 1, 1),
            {"w": f(1, 1, 1, 1)},
        ),
        "a matrix as one sample": (
            [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("ReduceSum", "r", axes=[0])],
            (4, 3),
            {"w": f(3, 2)},
        ),
        "a batch of any size": ([node("MatMul", "x w", "h"), node("Relu", "h")], ("n", 3), {"w": f(3, 2)}),
        "a batch without a name": ([node("Relu", "x", "h"), node("Flatten", "h")], (None, 3, 2), {}),
        "an average over nothing but itself": (
            [node("ReduceMean", "x", "m", axes=[0]), node("Add", "x m")],
            (1, 3),
            {},
        ),
        "an operator of constants alone": ([node("Exp", "c", "s"), node("Add", "x s")], (1, 3), {"c": f(1, 3)}),
        "five axes": (
            [node("Transpose", "x", "t"), node("Relu", "t", "r"), node("ReduceSum", "r", axes=[1, 3])],
            (1, 2, 3, 2, 2),
            {},
        ),
        "a window cut by the edge": ([node("MaxPool", "x", kernel_shape=[2], strides=[2], pads=[1, 0])], (1, 1, 3), {}),
    }

    @pytest.mark.parametrize("what", sorted(CASES))
    def test_it_is_the_network(self, what: str) -> None:
        nodes, shape, constants = self.CASES[what]
        check_structure(checked(nodes, shape, constants, opset=11))

    EXTREME: ClassVar[dict[str, tuple[list[NodeProto], tuple[int, ...], dict[str, Any]]]] = {
        "an empty part, put back": (
            [node("Split", "x n", "a b", axis=1), node("Relu", "b", "c"), node("Concat", "a c", axis=1)],
            (1, 3),
            {"n": ints(0, 3)},
        ),
        "an activation of nothing": (
            [node("Split", "x n", "a b", axis=1), node("Relu", "a", "c"), node("Concat", "c b", axis=1)],
            (1, 3),
            {"n": ints(0, 3)},
        ),
        "every window of a pool has one entry": (
            [node("MaxPool", "x", kernel_shape=[2], strides=[2], pads=[1, 0])],
            (1, 1, 1),
            {},
        ),
        "every window of a pool has one entry, at both ends": (
            [node("MaxPool", "x", kernel_shape=[2], strides=[3], pads=[1, 1])],
            (1, 1, 3),
            {},
        ),
        "a crop by negative pads": (
            [node("Pad", "x p")],
            (1, 4),
            {"p": ints(0, -1, 0, -1)},
        ),
        "a crop on one side, zeros on the other": (
            [node("Pad", "x p v")],
            (1, 4),
            {"p": ints(0, -2, 0, 3), "v": np.float32(0.5)},
        ),
        "a crop beside a mirror": ([node("Pad", "x p", mode="reflect")], (1, 5), {"p": ints(0, -1, 0, 2)}),
        "nothing is left of an axis, and zeros": ([node("Pad", "x p")], (1, 4), {"p": ints(0, -4, 0, 2)}),
        "a maximum with the least float32": (
            [node("Max", "x c")],
            (1, 4),
            {"c": np.finfo(np.float32).min},
        ),
    }

    @pytest.mark.parametrize("what", sorted(EXTREME))
    def test_it_is_the_network_at_the_edge(self, what: str) -> None:
        nodes, shape, constants = self.EXTREME[what]
        checked(nodes, shape, constants, opset=19)

    @pytest.mark.parametrize(
        ("op", "constants"),
        [
            ("Clip", {"lo": np.float32(-1e30), "hi": np.float32(0.5)}),
            ("Clip", {"lo": np.float32(-0.5), "hi": np.float32(1e30)}),
            ("Max", {"c": np.float32(-1e30)}),
            ("Min", {"c": np.float32(1e30)}),
        ],
    )
    def test_bounds_beside_which_digits_are_lost_are_refused(self, op: str, constants: dict[str, Any]) -> None:
        with pytest.raises(UnsupportedModelError, match=f"{op} node 'y' has the bound -?1e\\+30, .* without it"):
            built([node(op, " ".join(["x", *constants]))], (1, 4), constants)

    def test_a_crop_of_more_than_there_is_is_refused(self) -> None:
        with pytest.raises(UnsupportedModelError, match="crops 5 entries of axis 1, which has 4"):
            built([node("Pad", "x p")], (1, 4), {"p": ints(0, -3, 0, -2)}, opset=19)

    def test_the_output_is_the_input(self) -> None:
        model = checked([], (1, 3), outputs=["x"])
        assert model.n_states == 0
        np.testing.assert_array_equal(model.matrices.D.toarray(), np.eye(3))

    def test_an_output_that_does_not_depend_on_the_input_is_refused(self) -> None:
        for nodes, constants in [([node("Relu", "c")], {"c": f(1, 3)}), ([node("Shape", "x")], {})]:
            with pytest.raises(UnsupportedModelError, match="does not depend on the input"):
                built(nodes, (1, 3), constants)

    def test_other_float_types(self) -> None:
        for dtype, tolerance in [(TensorProto.DOUBLE, 1e-12), (TensorProto.FLOAT16, 1e-2)]:
            numpy_type = helper.tensor_dtype_to_np_dtype(dtype)
            constants = {"w": f(4, 3).astype(numpy_type), "b": f(3).astype(numpy_type)}
            checked(
                [node("Gemm", "x w b", "h"), node("Relu", "h")], (1, 4), constants, dtype=dtype, tolerance=tolerance
            )

    @pytest.mark.slow
    def test_a_deep_network(self) -> None:
        nodes, last = [], "x"
        for k in range(1500):
            nodes += [node("Add", f"{last} c", f"h{k}"), node("Relu", f"h{k}", f"r{k}")]
            last = f"r{k}"
        model = checked([*nodes, node("Neg", last)], (1, 2), {"c": np.float32([0.25, -0.125])})
        assert len(model.blocks) == 1500

    def test_a_long_chain_of_products(self) -> None:
        nodes = [node("Mul", f"{'x' if k == 0 else f'h{k}'} c", f"h{k + 1}") for k in range(1200)]
        checked([*nodes, node("Neg", "h1200")], (1, 2), {"c": np.float32(1)})


class TestInputsAndOutputs:
    def test_one_of_several_outputs_is_chosen(self) -> None:
        nodes = [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r v", "y")]
        model = proto(nodes, (1, 4), {"w": f(4, 3), "v": f(3, 2)}, outputs=["y", "h", "r"])
        assert Network(model, output="y").check().n_outputs == 2
        hidden = Network(model, output="h").check()
        assert (hidden.n_outputs, hidden.n_states) == (3, 0)
        inside = Network(model, output="r").check()  # an output that is also used inside
        assert (inside.n_outputs, inside.n_states) == (3, 3)
        with pytest.raises(OptionError, match="choose one of y, h, r"):
            build_implicit(read(model))
        with pytest.raises(OptionError, match="no output 'z'"):
            build_implicit(read(model), output="z")

    def test_what_the_chosen_output_does_not_need_may_be_unsupported(self) -> None:
        nodes = [node("Relu", "x", "y"), node("Hardmax", "x", "z")]
        model = proto(nodes, (1, 3), outputs=["y", "z"])
        Network(model, output="y").check()
        with pytest.raises(UnsupportedModelError, match="Hardmax"):
            build_implicit(read(model), output="z")

    def test_an_initializer_that_is_declared_as_an_input_is_a_constant(self) -> None:
        graph = helper.make_graph(
            [node("Add", "x c")],
            "g",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2)) for name in ("x", "c")],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            initializer=[numpy_helper.from_array(f(1, 2), "c")],
        )
        Network(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)).check()

    @pytest.mark.parametrize("shape", [(1, "n"), (1, None, 3), ("n", "m")])
    def test_only_the_batch_may_be_symbolic(self, shape: tuple[Any, ...]) -> None:
        with pytest.raises(UnsupportedModelError, match="only the first axis"):
            built([node("Relu", "x")], shape)

    def test_an_input_without_a_shape_is_refused(self) -> None:
        model = proto([node("Relu", "x")], (1, 2))
        model.graph.input[0].type.tensor_type.ClearField("shape")
        with pytest.raises(UnsupportedModelError, match="declares no shape"):
            build_implicit(read(model))


class TestSoftmax:
    @pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
    @pytest.mark.parametrize("opset", [7, 12, 13, 20])
    def test_a_trailing_softmax_is_left_out_and_named(self, op: str, opset: int) -> None:
        nodes = [node("Relu", "x", "r"), node(op, "r", "s", axis=1), node("Identity", "s")]
        network = Network(proto(nodes, (1, 4), opset=opset))
        assert network.implicit.stripped_output == op
        rows = network.samples().astype(float)
        np.testing.assert_array_equal(network.implicit(rows), np.maximum(rows, 0))
        np.testing.assert_array_equal(network.original(rows).argmax(axis=1), network.implicit(rows).argmax(axis=1))

    def test_a_softmax_inside_stays(self) -> None:
        assert checked([node("Softmax", "x", "s"), node("Neg", "s")], (1, 3)).stripped_output == ""

    def test_no_other_model_is_stripped(self) -> None:
        assert checked([node("Sigmoid", "x")], (1, 3)).stripped_output == ""

    @pytest.mark.parametrize(
        ("shape", "axis"),
        [
            ((1, 3, 4), 1),
            ((1, 3, 4), 2),
            ((1, 3), 0),
            ((1, 3), 1),
            ((1, 1, 3), -1),
            ((1, 3, 1, 1), 1),
        ],
    )
    def test_only_a_softmax_that_keeps_the_order_of_all_outputs_is_left_out(
        self, shape: tuple[int, ...], axis: int
    ) -> None:
        try:
            network = Network(proto([node("Softmax", "x", axis=axis)], shape))
        except UnsupportedModelError:
            return
        rows = network.samples(50)
        order = np.argsort(network.implicit(rows.astype(float)), axis=1)
        sorted_as_ours = np.take_along_axis(network.original(rows), order, axis=1)
        assert (np.diff(sorted_as_ours, axis=1) >= 0).all()
        assert (
            network.original(rows).argmax(axis=1).tolist()
            == network.implicit(rows.astype(float)).argmax(axis=1).tolist()
        )


class TestRefusals:
    def test_every_problem_is_listed_at_once(self) -> None:
        nodes = [
            node("Hardmax", "x", "a", name="one"),
            node("Bernoulli", "x", "b", name="two"),
            node("Cast", "x", "c", to=3, name="three"),
            node("Concat", "a b", "d", axis=0),
            node("Cast", "c", "e", to=1),
            node("Add", "d e"),
        ]
        with pytest.raises(UnsupportedModelError) as caught:
            built(nodes, (1, 3))
        assert [problem.split()[2] for problem in caught.value.problems] == ["'one'", "'two'", "'three'"]

    def test_operators_behind_an_unsupported_one_are_listed_too(self) -> None:
        nodes = [
            node("Hardmax", "x", "a", name="one"),
            node("Relu", "a", "b"),
            node("Bernoulli", "b", name="two"),
        ]
        with pytest.raises(UnsupportedModelError) as caught:
            built(nodes, (1, 3))
        assert [problem.split()[2] for problem in caught.value.problems] == ["'one'", "'two'"]

    def test_a_supported_operator_behind_an_unsupported_one_is_not_blamed(self) -> None:
        nodes = [node("Hardmax", "x", "a"), node("Relu", "a", "b"), node("MatMul", "b w")]
        with pytest.raises(UnsupportedModelError) as caught:
            built(nodes, (1, 3), {"w": f(3, 2)})
        assert len(caught.value.problems) == 1

    def test_a_use_behind_an_unsupported_operator_is_found_whatever_that_made(self) -> None:
        """Floats by their shape, and what is made of its whole numbers again."""
        nodes = [
            node("ArgMax", "x", "k", name="one", keepdims=1),
            node("Cast", "k", "a", to=1),
            node("Add", "a x", "b"),
            node("Hardmax", "b", "c", name="two"),
            node("GlobalAveragePool", "b", "d", name="three"),
            node("Add", "c d"),
        ]
        with pytest.raises(UnsupportedModelError) as caught:
            built(nodes, (1, 3, 2, 2))
        assert [problem.split()[2] for problem in caught.value.problems] == ["'one'", "'two'"]

    def test_one_sentence_is_told_once_for_all_nodes_of_an_operator(self) -> None:
        nodes = [node("Hardmax", "x" if k == 0 else f"c{k - 1}", f"c{k}", name=f"n{k}") for k in range(12)]
        with pytest.raises(UnsupportedModelError) as caught:
            built([*nodes, node("Bernoulli", "c11", name="last")], (1, 3))
        first, second = caught.value.problems
        assert first.startswith("Hardmax node 'n0' jumps")
        assert first.endswith(" (and 11 more Hardmax nodes: 'n1', 'n2', 'n3', 'n4', 'n5', 'n6', 'n7', 'n8', ...)")
        assert second.startswith("Bernoulli node 'last' draws")

    def test_constants_may_use_any_operator(self) -> None:
        checked(
            [
                node("Hardmax", "c", "h"),
                node("Einsum", "h", "e", equation="ij->ji"),
                node("Reshape", "e s", "r"),
                node("Add", "x r"),
            ],
            (1, 3),
            {"c": f(1, 3), "s": ints(1, 3)},
        )

    def test_what_would_be_too_large_is_refused(self) -> None:
        nodes = [node("MatMul", "x w", "h"), node("Relu", "h")]
        constants = {"w": f(100, 50)}
        with pytest.raises(MemoryLimitError, match=r"5,000 nonzeros .* --max-memory"):
            built(nodes, (1, 100), constants, max_bytes=12 * 5000 - 1)
        assert built(nodes, (1, 100), constants, max_bytes=12 * 5000).n_states == 50

    def test_a_file_cannot_state_its_own_errors(self) -> None:
        nodes = [node("Relu", "x", "h", fusion_error=-1000.0), node("Neg", "h")]
        try:
            model = built(nodes, (1, 3))
        except UnsupportedModelError:
            return
        assert model.output.constant_error >= 0


def exact_output(weights: list[np.ndarray]) -> np.ndarray:
    """Return the exact product of the matrices of x W1 W2 ..., as a map of column vectors."""
    result = rational(weights[0].T.astype(float))
    for w in weights[1:]:
        result = product(rational(w.T.astype(float)), result)
    return result


class TestErrors:
    """`error` and `constant_error` bound what composing did, against rational arithmetic on the file's weights."""

    @given(seed=SEEDS, spread=st.sampled_from([0, 20]))
    @settings(deadline=None, max_examples=15)
    def test_affine_layers_in_a_row(self, seed: int, spread: int) -> None:
        rng = np.random.default_rng(seed)
        w, v = (
            np.ldexp(floats(rng, *s), rng.integers(-spread, spread + 1, size=s)).astype("f4") for s in [(3, 4), (4, 2)]
        )
        b, c = floats(rng, 4), floats(rng, 2)
        model = built([node("Gemm", "x w b", "h"), node("Gemm", "h v c")], (1, 3), {"w": w, "v": v, "b": b, "c": c})
        assert model.n_states == 0
        assert model.output.input is not None
        assert admits(model.output.input, exact_output([w, v]))
        true = product(rational(v.T.astype(float)), rational(b[:, None].astype(float)))[:, 0] + rational(
            c.astype(float)
        )
        self.check_constant(true, model)

    def check_constant(self, true: np.ndarray, model: ImplicitModel, *, slack: float = 1e3) -> None:
        off = max(abs(t - Fraction(float(r))) for t, r in zip(true, model.output.constant, strict=True))
        assert off <= Fraction(model.output.constant_error)
        assert model.output.constant_error <= slack * 2**-53 * (1e3 + float(max(abs(t) for t in true)) * 1e12)

    def test_cancellation(self) -> None:
        """(1/3 as float32 * 3 and so on): x w v with rows that nearly cancel."""
        w = np.float32([[1 / 3, -1 / 3], [1e7, 1e-7]])
        v = np.float32([[3e7], [3e7 * (1 + 1e-7)]])
        model = built(
            [node("Gemm", "x w b", "h"), node("Gemm", "h v c")],
            (1, 2),
            {"w": w, "v": v, "b": np.float32([1e8, -1e8]), "c": np.float32([0.1])},
        )
        assert model.output.input is not None
        assert admits(model.output.input, exact_output([w, v]))
        true = product(rational(v.T.astype(float)), rational(np.array([[1e8], [-1e8]])))[:, 0] + rational(
            np.float32([0.1]).astype(float)
        )
        self.check_constant(true, model)

    @given(seed=SEEDS)
    @settings(deadline=None, max_examples=10)
    def test_batch_norm_within_its_error(self, seed: int) -> None:
        """Squares avoid the root: variance + epsilon is a square of a float, so that the factor is rational."""
        rng = np.random.default_rng(seed)
        root = np.float32(rng.integers(1, 2**11, size=2) / 64)
        epsilon = 2.0**-12
        variance = (root.astype(float) ** 2 - epsilon).astype("f4")
        exact_variance = np.array_equal(variance.astype(float) + epsilon, root.astype(float) ** 2)
        scale, bias, mean = floats(rng, 2), floats(rng, 2), floats(rng, 2)
        w = floats(rng, 3, 2)
        model = built(
            [node("MatMul", "x w", "h"), node("BatchNormalization", "h s b m v", epsilon=epsilon)],
            (1, 3),
            {"w": w, "s": scale, "b": bias, "m": mean, "v": variance},
        )
        if not exact_variance:
            return
        factor = [Fraction(float(s)) / Fraction(float(r)) for s, r in zip(scale, root, strict=True)]
        true = rational(w.T.astype(float)) * np.array(factor, dtype=object)[:, None]
        assert model.output.input is not None
        assert admits(model.output.input, true)
        constant = np.array(
            [Fraction(float(b)) - Fraction(float(m)) * k for b, m, k in zip(bias, mean, factor, strict=True)]
        )
        self.check_constant(constant, model)

    def test_quotients_and_means_admit_that_they_round(self) -> None:
        for nodes, constants, true in [
            ([node("Div", "x c")], {"c": np.float32([3, 7])}, [Fraction(1, 3), Fraction(1, 7)]),
            ([node("Mean", "x c c")], {"c": np.zeros((1, 2), "f4")}, [Fraction(1, 3)] * 2),
        ]:
            model = built(nodes, (1, 2), constants)
            assert model.output.input is not None
            assert distance(np.array([[true[0], Fraction(0)], [Fraction(0), true[1]]]), model.output.input) > 0
            assert admits(model.output.input, np.array([[true[0], Fraction(0)], [Fraction(0), true[1]]]))
        model = built([node("GlobalAveragePool", "x")], (1, 1, 7))
        assert model.output.input is not None
        assert admits(model.output.input, np.array([[Fraction(1, 7)] * 7]))

    def test_what_is_exact_admits_nothing(self) -> None:
        nodes = [
            node("MatMul", "x w", "h"),
            node("Relu", "h", "r"),
            node("Concat", "r x", "c", axis=1),
            node("Neg", "c"),
        ]
        model = built(nodes, (1, 3), {"w": f(3, 2)})
        maps = [*model.output.states.values(), model.output.input, *(row.input for row in model.rows)]
        assert all(m is not None and (m.relative, m.slack) == (0.0, None) for m in maps)
        assert all(row.constant_error == 0.0 for row in (*model.rows, model.output))

    CONSTANTS: ClassVar[dict[str, tuple[list[NodeProto], dict[str, Any], Fraction]]] = {
        "a sum of constants": (
            [node("Sum", "a b x")],
            {"a": np.float32([[1]]), "b": np.float32([[2**-30]])},
            Fraction(1) + Fraction(1, 2**30),
        ),
        "constants of very different sizes": (
            [node("Sum", "a b x")],
            {"a": np.float32([[1e10]]), "b": np.float32([[1e-10]])},
            Fraction(float(np.float32(1e10))) + Fraction(float(np.float32(1e-10))),
        ),
        "a clip's range": (
            [node("Clip", "x lo hi")],
            {"lo": np.float32(-1e-10), "hi": np.float32(1e10)},
            Fraction(float(np.float32(1e10))) - Fraction(float(np.float32(-1e-10))),
        ),
    }

    @pytest.mark.parametrize("what", sorted(CONSTANTS))
    def test_constants_that_round_say_so(self, what: str) -> None:
        nodes, constants, true = self.CONSTANTS[what]
        model = built(nodes, (1, 1), constants)
        row = model.output if not model.rows else model.rows[0]
        assert abs(true - Fraction(float(row.constant[0]))) <= Fraction(row.constant_error)

    def test_exactness_of_factors(self) -> None:
        """A check of the helper: the map of the output is the matrix of the file."""
        w = f(3, 2)
        model = built([node("MatMul", "x w")], (1, 3), {"w": w})
        assert model.output.input is not None
        assert (exact(model.output.input) == rational(w.T.astype(float))).all()


class TestFusedChains:
    """Chains that become one activation: graph.fusion."""

    SILU = (node("Mul", "x two", "h"), node("Sigmoid", "x", "s"), node("Mul", "h s", "g"))

    @pytest.mark.parametrize("name", ["g/factor", "g/activation"])
    def test_names_in_the_file_stay_what_they_are(self, name: str) -> None:
        nodes = [node("Neg", "x", name), *self.SILU, node("Add", f"g {name}")]
        constants = {"two": np.float32(2)}
        if name == "g/factor":
            nodes, constants = nodes[1:], {**constants, name: f(1, 3)}
        checked(nodes, (1, 3), constants)

    def test_a_factor_that_is_left_over_admits_that_it_rounds(self) -> None:
        nodes = [node("Sigmoid", "x", "s"), node("Mul", "x s", "g"), node("Div", "g three")]
        model = built(nodes, (1, 1), {"three": np.float32(3)})
        assert admits(model.output.states[0], np.array([[Fraction(1, 3)]]))

    @pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 1, 1)])
    def test_constants_of_any_rank_are_taken(self, shape: tuple[int, ...]) -> None:
        constants = {"two": np.full(shape, 2, np.float32), "w": f(3, 2)}
        checked([*self.SILU, node("MatMul", "g w")], (1, 3), constants)


def test_matrices_that_are_nearly_all_zeros_are_sparse_and_hold_the_same_numbers() -> None:
    wide, narrow = np.zeros((64, 48), np.float32), f(64, 32)
    wide[np.arange(64), np.arange(64) % 48] = 1 + f(64) ** 2
    nodes = [node("Gemm", "x w", "a", transB=1), node("Relu", "a", "b"), node("Gemm", "b v", "y")]
    model = checked(nodes, (1, 48), {"w": wide, "v": narrow})
    (row,) = model.rows
    assert isinstance(row.input, Sparse)
    assert row.input.nnz == 64
    assert np.array_equal(row.input.to_sparse().toarray(), wide)
    assert isinstance(model.output.states[0], Dense)
