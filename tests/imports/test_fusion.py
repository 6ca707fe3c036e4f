"""Chains that are one activation become one, and give what the chain gives."""

from __future__ import annotations

import math
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from idl_audit import from_torch
from idl_audit.graph.fusion import fuse_activations
from idl_audit.graph.original import onnxruntime_network
from idl_audit.graph.reader import read_graph
from idl_audit.implicit.build import build_implicit
from idl_audit.values.errors import UnsupportedModelError

X = np.linspace(-9, 9, 60).reshape(-1, 3).astype(np.float32)


def chain(tmp_path, nodes, constants, *, opset=13):
    """Write x (1, 3) -> y (1, 3) and return its path."""
    types = {name: np.int64 if name in ("first", "last") else np.float32 for name in constants}
    tensors = [numpy_helper.from_array(np.asarray(v, types[k]), k) for k, v in constants.items()]
    shape = [1, 3]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(*n[:3], **n[3]) for n in nodes], "g", ends[:1], ends[1:], tensors)
    path = tmp_path / "chain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


SQRT2 = math.sqrt(2)
CHAINS = {
    "silu": ([("Sigmoid", ["x"], ["s"], {}), ("Mul", ["x", "s"], ["y"], {})], {}, "silu"),
    "silu, other way round": ([("Sigmoid", ["x"], ["s"], {}), ("Mul", ["s", "x"], ["y"], {})], {}, "silu"),
    "quick gelu": (
        [
            ("Mul", ["x", "c"], ["a"], {}),
            ("Sigmoid", ["a"], ["s"], {}),
            ("Mul", ["x", "s"], ["y"], {}),
        ],
        {"c": 1.702},
        "silu",
    ),
    "gelu, half last": (
        [
            ("Div", ["x", "r"], ["a"], {}),
            ("Erf", ["a"], ["e"], {}),
            ("Add", ["e", "one"], ["f"], {}),
            ("Mul", ["x", "f"], ["g"], {}),
            ("Mul", ["g", "half"], ["y"], {}),
        ],
        {"r": SQRT2, "one": 1, "half": 0.5},
        "gelu",
    ),
    "gelu, half first": (
        [
            ("Mul", ["x", "half"], ["h"], {}),
            ("Mul", ["x", "r"], ["a"], {}),
            ("Erf", ["a"], ["e"], {}),
            ("Add", ["one", "e"], ["f"], {}),
            ("Mul", ["h", "f"], ["y"], {}),
        ],
        {"r": 1 / SQRT2, "one": 1, "half": 0.5},
        "gelu",
    ),
    "gelu by tanh": (
        [
            ("Mul", ["x", "x"], ["x2"], {}),
            ("Mul", ["x2", "x"], ["x3"], {}),
            ("Mul", ["x3", "d"], ["dx3"], {}),
            ("Add", ["x", "dx3"], ["p"], {}),
            ("Mul", ["p", "c"], ["q"], {}),
            ("Tanh", ["q"], ["t"], {}),
            ("Add", ["t", "one"], ["f"], {}),
            ("Mul", ["x", "half"], ["h"], {}),
            ("Mul", ["h", "f"], ["y"], {}),
        ],
        {"c": math.sqrt(2 / math.pi), "d": 0.044715, "one": 1, "half": 0.5},
        "gelu_tanh",
    ),
    "gelu by tanh, with Pow": (
        [
            ("Pow", ["x", "three"], ["x3"], {}),
            ("Mul", ["d", "x3"], ["dx3"], {}),
            ("Add", ["dx3", "x"], ["p"], {}),
            ("Mul", ["c", "p"], ["q"], {}),
            ("Tanh", ["q"], ["t"], {}),
            ("Add", ["one", "t"], ["f"], {}),
            ("Mul", ["x", "f"], ["g"], {}),
            ("Mul", ["half", "g"], ["y"], {}),
        ],
        {"c": math.sqrt(2 / math.pi), "d": 0.044715, "one": 1, "half": 0.5, "three": 3},
        "gelu_tanh",
    ),
    "mish": (
        [("Softplus", ["x"], ["p"], {}), ("Tanh", ["p"], ["t"], {}), ("Mul", ["x", "t"], ["y"], {})],
        {},
        "mish",
    ),
    "hard-swish": (
        [("HardSigmoid", ["x"], ["s"], {"alpha": 1 / 6, "beta": 0.5}), ("Mul", ["x", "s"], ["y"], {})],
        {},
        "hard_swish",
    ),
    "hard-swish by clip": (
        [
            ("Add", ["x", "three"], ["a"], {}),
            ("Clip", ["a", "zero", "six"], ["c"], {}),
            ("Mul", ["x", "c"], ["m"], {}),
            ("Div", ["m", "six"], ["y"], {}),
        ],
        {"three": 3, "zero": 0, "six": 6},
        "hard_swish",
    ),
    "sigmoid by exponentials": (
        [
            ("Neg", ["x"], ["n"], {}),
            ("Exp", ["n"], ["e"], {}),
            ("Add", ["e", "one"], ["d"], {}),
            ("Div", ["one", "d"], ["y"], {}),
        ],
        {"one": 1},
        "sigmoid",
    ),
    "a steep sigmoid by Reciprocal": (
        [
            ("Mul", ["x", "c"], ["n"], {}),
            ("Exp", ["n"], ["e"], {}),
            ("Add", ["one", "e"], ["d"], {}),
            ("Reciprocal", ["d"], ["y"], {}),
        ],
        {"one": 1, "c": -2.5},
        "sigmoid",
    ),
    "silu by exponentials": (
        [
            ("Neg", ["x"], ["n"], {}),
            ("Exp", ["n"], ["e"], {}),
            ("Add", ["e", "one"], ["d"], {}),
            ("Div", ["x", "d"], ["y"], {}),
        ],
        {"one": 1},
        "silu",
    ),
    "silu by a sigmoid by exponentials": (
        [
            ("Neg", ["x"], ["n"], {}),
            ("Exp", ["n"], ["e"], {}),
            ("Add", ["e", "one"], ["d"], {}),
            ("Reciprocal", ["d"], ["s"], {}),
            ("Mul", ["x", "s"], ["y"], {}),
        ],
        {"one": 1},
        "silu",
    ),
    "softplus by exponentials": (
        [("Exp", ["x"], ["e"], {}), ("Add", ["e", "one"], ["a"], {}), ("Log", ["a"], ["y"], {})],
        {"one": 1},
        "softplus",
    ),
    "a softmax by exponentials": (
        [
            ("Exp", ["x"], ["e"], {}),
            ("ReduceSum", ["e", "last"], ["s"], {}),
            ("Div", ["e", "s"], ["p"], {}),
            ("Neg", ["p"], ["y"], {}),
        ],
        {"last": [-1]},
        "softmax",
    ),
    "a softmax without its maximum": (
        [
            ("ReduceMax", ["x"], ["m"], {"axes": [1]}),
            ("Sub", ["x", "m"], ["z"], {}),
            ("Exp", ["z"], ["e"], {}),
            ("ReduceSum", ["e", "last"], ["s"], {}),
            ("Div", ["e", "s"], ["p"], {}),
            ("Neg", ["p"], ["y"], {}),
        ],
        {"last": [1]},
        "softmax",
    ),
    "a softmax written twice": (
        [
            ("ReduceMax", ["x"], ["m"], {"axes": [1]}),
            ("Sub", ["x", "m"], ["z"], {}),
            ("Exp", ["z"], ["e"], {}),
            ("ReduceMax", ["x"], ["m2"], {"axes": [1]}),
            ("Sub", ["x", "m2"], ["z2"], {}),
            ("Exp", ["z2"], ["e2"], {}),
            ("ReduceSum", ["e2", "last"], ["s"], {}),
            ("Div", ["e", "s"], ["p"], {}),
            ("Neg", ["p"], ["y"], {}),
        ],
        {"last": [1]},
        "softmax",
    ),
    "elu by exponentials": (
        [
            ("Exp", ["x"], ["e"], {}),
            ("Sub", ["e", "one"], ["f"], {}),
            ("Mul", ["f", "c"], ["g"], {}),
            ("Greater", ["x", "zero"], ["b"], {}),
            ("Where", ["b", "x", "g"], ["y"], {}),
        ],
        {"one": 1, "zero": 0, "c": 0.5},
        "elu",
    ),
    "the root of a square": ([("Mul", ["x", "x"], ["q"], {}), ("Sqrt", ["q"], ["y"], {})], {}, "abs"),
    "the root of a second power": ([("Pow", ["x", "two"], ["q"], {}), ("Sqrt", ["q"], ["y"], {})], {"two": 2}, "abs"),
    "signed": ([("Sign", ["x"], ["s"], {}), ("Mul", ["x", "s"], ["y"], {})], {}, "abs"),
    "a size with its sign": (
        [
            ("Relu", ["x"], ["z"], {}),
            ("Abs", ["z"], ["a"], {}),
            ("Relu", ["a"], ["r"], {}),
            ("Sign", ["z"], ["s"], {}),
            ("Mul", ["s", "r"], ["y"], {}),
        ],
        {},
        "relu",
    ),
}

SHRUNK = [
    ("Abs", ["x"], ["a"], {}),
    ("Greater", ["a", "w"], ["c"], {}),
    ("Sign", ["x"], ["s"], {}),
    ("Mul", ["s", "w"], ["t"], {}),
    ("Sub", ["x", "t"], ["u"], {}),
    ("Mul", ["x", "zero"], ["o"], {}),
    ("Where", ["c", "u", "o"], ["y"], {}),
]
SEVERAL = {
    "a soft shrinkage": (SHRUNK, {"w": 0.75, "zero": 0}),
    "the logarithm of a sum of exponentials": (
        [
            ("Exp", ["x"], ["e"], {}),
            ("ReduceSum", ["e", "last"], ["s"], {"keepdims": 1}),
            ("Log", ["s"], ["l"], {}),
            ("Add", ["x", "l"], ["y"], {}),
        ],
        {"last": [-1]},
    ),
    "the logarithm of a sigmoid": ([("Sigmoid", ["x"], ["s"], {}), ("Log", ["s"], ["y"], {})], {}),
    "the logarithm of a softmax": (
        [("Softmax", ["x"], ["p"], {"axis": -1}), ("Log", ["p"], ["l"], {}), ("Neg", ["l"], ["y"], {})],
        {},
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_a_chain_that_takes_several_blocks_gives_the_same(tmp_path, name):
    nodes, constants = SEVERAL[name]
    path = chain(tmp_path, nodes, constants)
    graph = read_graph(path)
    rows = X[np.abs(X).max(axis=1) < 4]  # beyond, float32 takes the logarithm of what is almost 0
    np.testing.assert_allclose(build_implicit(graph)(rows), onnxruntime_network(path, graph)(rows), atol=2e-5)


def test_a_last_softmax_by_exponentials_is_left_out(tmp_path):
    nodes = [*CHAINS["a softmax by exponentials"][0][:2], ("Div", ["e", "s"], ["y"], {})]
    assert build_implicit(read_graph(chain(tmp_path, nodes, {"last": [-1]}))).stripped_output == "Softmax"


def test_chains_of_constants_are_left_to_be_folded(tmp_path):
    nodes = [
        ("Exp", ["c"], ["e"], {}),
        ("Add", ["e", "one"], ["a"], {}),
        ("Log", ["a"], ["l"], {}),
        ("Mul", ["x", "l"], ["y"], {}),
    ]
    graph = read_graph(chain(tmp_path, nodes, {"c": [0.5, -1, 2], "one": 1}))
    assert fuse_activations(graph).nodes == graph.nodes
    np.testing.assert_allclose(build_implicit(graph)(np.ones((1, 3))), [np.log1p(np.exp([0.5, -1, 2]))], atol=1e-6)


OTHERS = {
    "another constant": (
        [("Exp", ["x"], ["e"], {}), ("Add", ["e", "two"], ["a"], {}), ("Log", ["a"], ["y"], {})],
        "",
    ),
    "a sum over another axis": (
        [
            ("Exp", ["x"], ["e"], {}),
            ("ReduceSum", ["e", "first"], ["s"], {}),
            ("Div", ["e", "s"], ["p"], {}),
            ("Neg", ["p"], ["y"], {}),
        ],
        "",
    ),
    "a sum of something else": (
        [
            ("Exp", ["x"], ["e"], {}),
            ("Neg", ["x"], ["n"], {}),
            ("Exp", ["n"], ["f"], {}),
            ("ReduceSum", ["f", "last"], ["s"], {}),
            ("Div", ["e", "s"], ["y"], {}),
        ],
        "",
    ),
    "a shift by another maximum": (
        [
            ("ReduceMax", ["x"], ["m"], {"axes": [0]}),
            ("Sub", ["x", "m"], ["z"], {}),
            ("Exp", ["z"], ["e"], {}),
            ("ReduceSum", ["e", "last"], ["s"], {}),
            ("Div", ["e", "s"], ["p"], {}),
            ("Neg", ["p"], ["y"], {}),
        ],
        "",
    ),
    "a product of two": (
        [("Abs", ["x"], ["a"], {}), ("Mul", ["x", "a"], ["q"], {}), ("Sqrt", ["q"], ["y"], {})],
        "",
    ),
    "a third power": ([("Pow", ["x", "three"], ["q"], {}), ("Sqrt", ["q"], ["y"], {})], ""),
    "a size with another sign": (
        [
            ("Abs", ["x"], ["a"], {}),
            ("Neg", ["x"], ["n"], {}),
            ("Sign", ["n"], ["s"], {}),
            ("Mul", ["s", "a"], ["y"], {}),
        ],
        "",
    ),
    "an elu from another border": (
        [
            ("Exp", ["x"], ["e"], {}),
            ("Sub", ["e", "one"], ["f"], {}),
            ("Greater", ["x", "one"], ["b"], {}),
            ("Where", ["b", "x", "f"], ["y"], {}),
        ],
        "",
    ),
    "a shrinkage by another width": ([*SHRUNK[:3], ("Mul", ["s", "one"], ["t"], {}), *SHRUNK[4:]], ""),
}
SPARE = {"one": 1, "two": 2, "three": 3, "zero": 0, "w": 0.75, "first": [0], "last": [-1]}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_written_almost_so_is_not_taken_for_it(tmp_path, name):
    """Refused by an operator of the chain, or read as what it is: a softmax over another axis, say."""
    nodes, refused = OTHERS[name]
    path = chain(tmp_path, nodes, SPARE)
    graph = read_graph(path)
    if refused:
        with pytest.raises(UnsupportedModelError, match=f"{refused} node"):
            build_implicit(graph)
        return
    model = build_implicit(graph)
    assert not model.stripped_output
    np.testing.assert_allclose(model(X), onnxruntime_network(path, graph)(X), atol=2e-5)


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_becomes_one_activation_that_gives_the_same(tmp_path, name):
    nodes, constants, activation = CHAINS[name]
    path = chain(tmp_path, nodes, constants)
    graph = read_graph(path)
    model = build_implicit(graph)
    assert [block.activation.name for block in model.blocks] == [activation]
    np.testing.assert_allclose(model(X), onnxruntime_network(path, graph)(X), atol=2e-6)


def test_what_float32_constants_change_is_bounded(tmp_path):
    """The file's constant is float32(1/sqrt(2)); the chain in float64 stays within constant_error of the model."""
    from scipy.special import erf

    nodes, constants, _ = CHAINS["gelu, half first"]
    model = build_implicit(read_graph(chain(tmp_path, nodes, constants)))
    c = float(np.float32(1 / SQRT2))
    x = np.linspace(-6, 6, 20001)
    exact = 0.5 * x * (1 + erf(c * x))
    ours = model(np.tile(x[:, None], (1, 3)))[:, 0]
    assert 0 < model.output.constant_error < 1e-6
    assert np.abs(exact - ours).max() <= model.output.constant_error + 1e-15


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([("Sigmoid", ["x"], ["s"], {}), ("Tanh", ["x"], ["t"], {}), ("Mul", ["s", "t"], ["y"], {})], {}),
        ([("Tanh", ["x"], ["t"], {}), ("Mul", ["x", "t"], ["y"], {})], {}),
        ([("Add", ["x", "c"], ["a"], {}), ("Sigmoid", ["a"], ["s"], {}), ("Mul", ["x", "s"], ["y"], {})], {"c": 1}),
        (
            [
                ("Mul", ["x", "r"], ["a"], {}),
                ("Erf", ["a"], ["e"], {}),
                ("Add", ["one", "e"], ["f"], {}),
                ("Mul", ["x", "f"], ["y"], {}),
            ],
            {"r": 0.7, "one": 1},
        ),
    ],
)
def test_other_products_stay_products(tmp_path, nodes, constants):
    graph = read_graph(chain(tmp_path, nodes, constants))
    assert fuse_activations(graph).nodes == graph.nodes
    model = build_implicit(graph)
    assert "product" in {block.activation.name for block in model.blocks}


class Functional(nn.Module):
    """Chains as people write them in PyTorch."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.last, self.kind = nn.Linear(4, 6), nn.Linear(6, 3), kind

    def forward(self, x):
        z = self.first(x)
        made = {
            "x * sigmoid(x)": lambda: z * torch.sigmoid(z),
            "erf": lambda: 0.5 * z * (1 + torch.erf(z / math.sqrt(2.0))),
            "gelu": lambda: functional.gelu(z),
            "gelu tanh": lambda: functional.gelu(z, approximate="tanh"),
            "hardswish": lambda: functional.hardswish(z),
            "silu": lambda: functional.silu(z),
            "mish": lambda: functional.mish(z),
            "relu6": lambda: functional.relu6(z),
            "softplus": lambda: functional.softplus(z),
            "celu": lambda: functional.celu(z, 0.7),
            "selu": lambda: functional.selu(z),
            "hardtanh": lambda: functional.hardtanh(z),
            "hardsigmoid": lambda: functional.hardsigmoid(z),
            "softsign": lambda: functional.softsign(z),
        }[self.kind]()
        return self.last(made)


KINDS = (
    "x * sigmoid(x)", "erf", "gelu", "gelu tanh", "hardswish", "silu", "mish", "relu6", "softplus", "celu", "selu",
    "hardtanh", "hardsigmoid", "softsign",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_functions_of_pytorch_import_through_its_exporter(kind):
    torch.manual_seed(0)
    module = Functional(kind).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = from_torch(module, torch.zeros(1, 4))
    u = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32) * 4
    theirs = module(torch.from_numpy(u)).detach().numpy()
    np.testing.assert_allclose(model(u), theirs, atol=1e-5)
