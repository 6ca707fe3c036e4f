"""Files that fix a batch of N samples: read as one of them where each is proved to go its own way, else as a whole."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from idl_audit.commands.inspect import inspect
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.points import random_inputs
from idl_audit.commands.shared.subject import check_agreement, open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.graph.original import BatchedNetwork, InputForm
from idl_audit.graph.reader import read_graph
from idl_audit.implicit.build import build_implicit
from idl_audit.values.errors import DataError, UnsupportedModelError

RNG = np.random.default_rng(0)


def f(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def ints(*values):
    return np.asarray(values, np.int64)


def node(op, inputs, output="y", **attributes):
    return helper.make_node(op, inputs.split(), [output], name=output, **attributes)


def saved(tmp_path, nodes, constants, shape, *, opset=17):
    """Write x -> y; the output's shape is not declared."""
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", ends, out, tensors)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def exported(tmp_path, module, shape, *, dynamo):
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (torch.zeros(shape),), str(path), dynamo=dynamo, verbose=False)
    return path


DENSE = [node("Gemm", "x w b", "h"), node("Relu", "h", "r"), node("Gemm", "r v c")]
WEIGHTS = {"w": f(6, 5), "b": f(5), "v": f(5, 3), "c": f(3)}
IMAGES = [node("Conv", "x k", "h"), node("Relu", "h", "r"), node("Reshape", "r s", "f"), node("MatMul", "f w")]
STEPS = [node("Reshape", "x s", "t"), node("MatMul", "t w", "h"), node("Relu", "h", "r"), node("Reshape", "r o")]

# nodes, constants, the input's shape; the model is that of one row
BATCHES = {
    "MLP": (DENSE, WEIGHTS, (32, 6)),
    "a bias for every row, all the same": (DENSE, {**WEIGHTS, "b": np.tile(f(1, 5), (4, 1))}, (4, 6)),
    "a batch baked into a Reshape": (IMAGES, {"k": f(2, 1, 3, 3), "s": ints(8, -1), "w": f(8, 3)}, (8, 1, 4, 4)),
    "the other size left open": (IMAGES, {"k": f(2, 1, 3, 3), "s": ints(-1, 8), "w": f(8, 3)}, (8, 1, 4, 4)),
    "all sizes": (IMAGES, {"k": f(2, 1, 3, 3), "s": ints(8, 8), "w": f(8, 3)}, (8, 1, 4, 4)),
    "as many channels as images": (IMAGES, {"k": f(8, 8, 3, 3), "s": ints(8, -1), "w": f(32, 3)}, (8, 8, 4, 4)),
    "rows that are merged with steps": (STEPS, {"s": ints(12, 2), "w": f(2, 5), "o": ints(4, 15)}, (4, 3, 2)),
    "steps before rows": (
        [
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            node("Reshape", "t s", "m"),
            node("MatMul", "m w", "h"),
            node("Reshape", "h u", "g"),
            node("Transpose", "g", "r", perm=[1, 0, 2]),
            node("Reshape", "r o"),
        ],
        {"s": ints(12, 2), "w": f(2, 5), "u": ints(3, 4, 5), "o": ints(4, 15)},
        (4, 3, 2),
    ),
    "a shape that is computed": (
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n"),
            node("Concat", "n rest", "t", axis=0),
            node("Reshape", "x t", "f"),
            node("Relu", "f"),
        ],
        {"zero": ints(0), "rest": ints(-1)},
        (5, 2, 3),
    ),
    "zeros of the whole batch": (
        [node("ConstantOfShape", "s", "z"), node("Concat", "x z", "h", axis=1), node("Relu", "h")],
        {"s": ints(5, 2)},
        (5, 3),
    ),
    "a recurrent layer": (
        [
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            helper.make_node("RNN", ["t", "w", "r", "", "", "i"], ["", "l"], hidden_size=4),
            node("Squeeze", "l zero", "s"),
            node("MatMul", "s v"),
        ],
        {"w": f(1, 4, 2), "r": f(1, 4, 4), "i": np.tile(f(1, 1, 4), (1, 5, 1)), "zero": ints(0), "v": f(4, 3)},
        (5, 3, 2),
    ),
    "an LSTM with lengths": (
        [
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            helper.make_node("LSTM", ["t", "w", "r", "", "l", "i", "i"], ["", "h", "c"], hidden_size=4),
            node("Concat", "h c", "s", axis=2),
            node("Squeeze", "s zero"),
        ],
        {
            "w": f(1, 16, 2),
            "r": f(1, 16, 4),
            "l": np.array([2] * 5, np.int32),
            "i": np.tile(f(1, 1, 4), (1, 5, 1)),
            "zero": ints(0),
        },
        (5, 3, 2),
    ),
    "a GRU whose first states depend on the input": (
        [
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            node("Gather", "t one", "g", axis=0),
            helper.make_node("GRU", ["t", "w", "r", "", "", "g"], ["", "h"], hidden_size=2),
            node("Squeeze", "h zero"),
        ],
        {"w": f(1, 6, 2), "r": f(1, 6, 2), "one": ints(1), "zero": ints(0)},
        (4, 3, 2),
    ),
    "attention, written out": (
        [
            node("Transpose", "x", "t", perm=[0, 2, 1]),
            node("MatMul", "x t", "g"),
            node("Softmax", "g", "s"),
            node("MatMul", "s x"),
        ],
        {},
        (4, 3, 2),
    ),
    "products in each row": ([node("Mul", "x x", "h"), node("ReduceProd", "h", axes=[1], keepdims=0)], {}, (4, 3, 2)),
    "an Einsum of two tensors": (
        [node("Tanh", "x", "t"), node("Einsum", "x w t", equation="bi,oij,bj->bo")],
        {"w": f(4, 2, 2)},
        (3, 2),
    ),
    "determinants": ([node("Det", "x", "d"), node("Unsqueeze", "d one")], {"one": ints(1)}, (3, 2, 2)),
    "sizes of a Resize": (
        [helper.make_node("Resize", ["x", "", "", "z"], ["y"], mode="nearest")],
        {"z": ints(3, 2, 6, 4)},
        (3, 2, 3, 2),
    ),
    "a softmax": ([*DENSE[:2], node("Gemm", "r v c", "l"), node("Softmax", "l", axis=1)], WEIGHTS, (4, 6)),
    "a mask for every row, all the same": (
        [node("Where", "m x zero", "h"), node("Gemm", "h w b")],
        {"m": np.tile([[True, False, True]], (4, 1)), "zero": np.float32(0), "w": f(3, 2), "b": f(2)},
        (4, 3),
    ),
    "a relu by a choice": (
        [node("Greater", "x zero", "c"), node("Where", "c x zero", "h"), node("Gemm", "h w b")],
        {"zero": np.float32(0), "w": f(3, 2), "b": f(2)},
        (4, 3),
    ),
    "a running sum along each row": ([node("CumSum", "x one")], {"one": np.int64(1)}, (4, 3)),
    "triangles": ([node("Trilu", "x", "h"), node("Flatten", "h")], {}, (3, 2, 2)),
    "an Einsum": ([node("Einsum", "x w", equation="bti,oi->bot")], {"w": f(5, 2)}, (3, 4, 2)),
    "an Einsum of one matrix for each row": (
        [node("Einsum", "x w", equation="bi,bio->bo")],
        {"w": np.tile(f(1, 2, 5), (3, 1, 1))},
        (3, 2),
    ),
    "entries picked in each row": (
        [node("GatherElements", "x i", axis=1)],
        {"i": np.tile(np.array([[2, 0, 1, 2]]), (3, 1))},
        (3, 3),
    ),
    "entries written in each row": (
        [node("ScatterElements", "x i n", axis=1)],
        {"i": np.tile(np.array([[2, 0]]), (3, 1)), "n": np.zeros((3, 2), np.float32)},
        (3, 3),
    ),
    "rows read backwards": (
        [node("ReverseSequence", "x l", batch_axis=0, time_axis=1)],
        {"l": ints(2, 2, 2)},
        (3, 4),
    ),
    "one grid for every image": (
        [node("GridSample", "x g", "h"), node("Flatten", "h")],
        {"g": np.tile(f(1, 2, 3, 2), (3, 1, 1, 1)) / 2},
        (3, 1, 4, 4),
    ),
    "the largest of each row": (
        [helper.make_node("TopK", ["x", "two"], ["y", "i"], axis=1)],
        {"two": ints(2)},
        (3, 4),
    ),
    "logarithms of a softmax": ([node("LogSoftmax", "x", "l", axis=1), node("Neg", "l")], {}, (3, 4)),
    "one matrix for every row, all the same": (
        [node("MatMul", "x w", "h"), node("Flatten", "h")],
        {"w": np.tile(f(1, 3, 2), (4, 1, 1))},
        (4, 2, 3),
    ),
}


@pytest.mark.parametrize("what", sorted(BATCHES))
def test_one_row_is_one_sample(tmp_path, what):
    nodes, constants, shape = BATCHES[what]
    path = saved(tmp_path, nodes, constants, shape)
    subject = open_subject(path)
    assert subject.model.input_shape == subject.info.input_shape == (1, *shape[1:])
    assert subject.model.output_shape[0] == 1
    check = check_agreement(subject, random_inputs(subject.model.n_inputs))
    assert check.max_rel_error < 1e-5
    assert inspect(path, ModelOptions()).model.input_shape == (1, *shape[1:])
    rows = random_inputs(subject.model.n_inputs, n=7)
    second = subject.second_opinion(Preprocessing(), rows)
    assert second is not None
    if second.network is not None:
        single = rows.astype(np.float32)
        np.testing.assert_allclose(second.network[1](single), subject.original(single), rtol=0, atol=1e-4)


# networks whose first axis is part of the sample
WHOLE = {
    "a matrix on the left": ([node("MatMul", "w x", "h"), node("Relu", "h")], {"w": f(4, 4)}, (4, 3)),
    "a mean over the rows": (
        [node("ReduceMean", "x", "m", axes=[0], keepdims=1), node("Sub", "x m")],
        {},
        (4, 3),
    ),
    "a transpose": ([node("Transpose", "x", "t", perm=[1, 0]), node("Relu", "t")], {}, (4, 4)),
    "rows in another order": ([node("Gather", "x i", axis=0)], {"i": ints(1, 0, 2)}, (3, 2)),
    "rows that are laid end to end": (
        [node("Reshape", "x s", "f"), node("MatMul", "f w")],
        {"s": ints(1, 12), "w": f(12, 4)},
        (4, 3),
    ),
    "a Reshape across rows": (
        [node("Reshape", "x s", "f"), node("MatMul", "f w", "h"), node("Reshape", "h t")],
        {"s": ints(6, 2), "w": f(2, 2), "t": ints(4, 3)},
        (4, 3),
    ),
    "a running sum over the rows": ([node("CumSum", "x zero")], {"zero": np.int64(0)}, (4, 3)),
    "one triangle": ([node("Trilu", "x")], {}, (3, 3)),
    "an Einsum over the rows": ([node("Einsum", "x w", equation="bi,cb->ci")], {"w": f(4, 4)}, (4, 3)),
    "an Einsum of each row with others": ([node("Einsum", "x x", equation="bi,ci->bc")], {}, (4, 3)),
    "a product of the batch with itself": ([node("Transpose", "x", "t"), node("MatMul", "x t")], {}, (4, 3)),
    "matrices of rows that meet": (
        [
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            node("Transpose", "t", "h", perm=[0, 2, 1]),
            node("MatMul", "t h"),
        ],
        {},
        (4, 3, 2),
    ),
    "rows in a list": (
        [
            helper.make_node("SplitToSequence", ["x"], ["s"], axis=0),
            node("SequenceAt", "s one", "r"),
            node("Add", "x r"),
        ],
        {"one": np.int64(1)},
        (4, 3),
    ),
    "masks of their own": (
        [node("Where", "m x zero")],
        {"m": np.eye(3, dtype=bool), "zero": np.float32(0)},
        (3, 3),
    ),
    "a row that is written": (
        [node("ScatterND", "x i n")],
        {"i": ints(1).reshape(1, 1), "n": np.zeros((1, 3), np.float32)},
        (4, 3),
    ),
    "a choice by another row": (
        [node("Gather", "x i", "g"), node("Greater", "x g", "c"), node("Where", "c x g")],
        {"i": ints(1, 0, 2)},
        (3, 2),
    ),
    "a bias of its own for every row": ([node("Add", "x b", "h"), node("Relu", "h")], {"b": f(4, 3)}, (4, 3)),
    "a weight for every row": ([node("Mul", "x b")], {"b": f(4, 1)}, (4, 3)),
    "a softmax over the rows": ([node("Softmax", "x", "s", axis=0), node("Neg", "s")], {}, (4, 3)),
    "rows one after the other": (
        [helper.make_node("RNN", ["x", "w", "r"], ["h"], hidden_size=4), node("Squeeze", "h one")],
        {"w": f(1, 4, 2), "r": f(1, 4, 4), "one": ints(1)},
        (5, 1, 2),
    ),
    "images without a batch": (
        [node("Unsqueeze", "x zero", "u"), node("Conv", "u k", "h"), node("Flatten", "h")],
        {"zero": ints(0), "k": f(3, 3, 2, 2)},
        (3, 4, 4),
    ),
}


# operators of newer sets
NEWER = {
    "rotated positions": (
        [node("RotaryEmbedding", "x c s", "h"), node("Flatten", "h")],
        {"c": np.tile(f(1, 3, 2), (2, 1, 1)), "s": np.tile(f(1, 3, 2), (2, 1, 1))},
        (2, 1, 3, 4),
    ),
    "a part that is written": (
        [helper.make_node("TensorScatter", ["d", "x", "w"], ["h"], axis=1), node("Flatten", "h")],
        {"d": np.zeros((2, 4, 3), np.float32), "w": ints(1, 1)},
        (2, 2, 3),
    ),
}


@pytest.mark.parametrize("what", sorted(NEWER))
def test_one_row_is_one_sample_in_newer_operator_sets(tmp_path, what):
    nodes, constants, shape = NEWER[what]
    subject = open_subject(saved(tmp_path, nodes, constants, shape, opset=24))
    assert subject.model.input_shape == (1, *shape[1:])
    assert check_agreement(subject, random_inputs(subject.model.n_inputs)).max_rel_error < 1e-5


@pytest.mark.parametrize("what", sorted(WHOLE))
def test_rows_that_meet_are_one_sample(tmp_path, what):
    nodes, constants, shape = WHOLE[what]
    subject = open_subject(saved(tmp_path, nodes, constants, shape))
    assert subject.model.input_shape == shape
    assert check_agreement(subject, random_inputs(subject.model.n_inputs)).max_rel_error < 1e-5


@pytest.mark.parametrize("dynamo", [True, False])
def test_what_torch_exports_for_a_batch(tmp_path, dynamo):
    """A conv net with .view(batch, -1), which bakes the batch into the file."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool, self.last = nn.Conv2d(1, 3, 3), nn.MaxPool2d(2), nn.Linear(27, 4)

        def forward(self, x):
            h = self.pool(torch.relu(self.conv(x)))
            return self.last(h.view(16, -1))

    subject = open_subject(exported(tmp_path, Net(), (16, 1, 8, 8), dynamo=dynamo))
    assert subject.model.input_shape == (1, 1, 8, 8)
    assert check_agreement(subject, random_inputs(64)).max_rel_error < 1e-5


def test_images_that_meet_are_refused_by_name(tmp_path):
    nodes = [node("Conv", "x k", "h"), node("ReduceMean", "h", "m", axes=[0], keepdims=1), node("Sub", "h m")]
    path = saved(tmp_path, nodes, {"k": f(1, 1, 2, 2)}, (4, 1, 3, 3))
    with pytest.raises(UnsupportedModelError, match=r"Conv node 'h' works on 4 images at a time .* batch size 1"):
        open_subject(path)


def test_an_operator_that_is_not_known_is_what_is_refused(tmp_path):
    nodes = [node("Conv", "x k", "h"), node("Bernoulli", "h", "s"), node("Flatten", "s")]
    with pytest.raises(UnsupportedModelError) as told:
        build_implicit(read_graph(saved(tmp_path, nodes, {"k": f(1, 1, 2, 2)}, (4, 1, 3, 3))))
    (problem,) = told.value.problems
    assert problem.startswith("Bernoulli node 's' draws random numbers")


FORM = InputForm((4, 3), np.float32, False)
ROWS = RNG.normal(size=(6, 3)).astype(np.float32)


def test_the_original_fills_batches_up():
    seen = []

    def run(batch):
        seen.append(batch.shape)
        return 2 * batch

    network = BatchedNetwork("twice", Path("m"), FORM, run)
    np.testing.assert_array_equal(network(ROWS), 2 * ROWS)
    assert seen == [(4, 3)] * 4  # two batches, and the first and last sample of the first among copies of themselves
    np.testing.assert_array_equal(network(ROWS[:1]), 2 * ROWS[:1])
    assert len(seen) == 5
    assert network(ROWS[:0]).shape == (0, 3)
    np.testing.assert_array_equal(network(ROWS[:4].reshape(1, 12)), 2 * ROWS[:4].reshape(1, 12))  # all as one sample
    with pytest.raises(DataError, match="rows of 12 numbers"):
        network(ROWS[:, :2])


@pytest.mark.parametrize(
    "run",
    [
        lambda batch: batch - batch.mean(axis=0),
        lambda batch: batch * np.arange(1, 5)[:, None],
        lambda batch: batch[::-1],
        lambda batch: batch[:2],
        lambda batch: batch.sum(),
    ],
)
def test_the_original_that_does_not_treat_samples_alike_is_refused(run):
    network = BatchedNetwork("odd", Path("m"), FORM, run)
    with pytest.raises(UnsupportedModelError, match=r"takes 4 samples at a time .* export it with batch size 1"):
        network(ROWS)
