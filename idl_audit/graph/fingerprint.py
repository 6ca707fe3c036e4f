"""The SHA-256 of what a graph computes: of networks that code makes, whose files do not say which function it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from idl_audit.graph.ir import Attribute, Graph
from idl_audit.values.arrays import AnyArray


def graph_sha256(graph: Graph) -> str:
    """Return the SHA-256 of a graph's operators, in order, with their attributes, wiring and constants.

    Names have no part in it: values are numbered as they appear, and constants stand for themselves.
    """
    found = hashlib.sha256()
    for part in _parts(graph):
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()


def array_sha256(array: AnyArray, name: str) -> str:
    """Return the SHA-256 of an array and its name."""
    found = hashlib.sha256(name.encode())
    for part in _array(array):
        found.update(part)
    return found.hexdigest()


def _parts(graph: Graph) -> Iterator[bytes | memoryview]:
    numbers = {"": -1} | {value.name: place for place, value in enumerate(graph.inputs)}
    yield repr((graph.opset, [(value.shape, value.dtype) for value in graph.inputs])).encode()

    def number(name: str) -> Iterator[bytes | memoryview]:
        if name not in numbers:
            numbers[name] = len(numbers)
            if name in graph.constants:  # what is not read may be missing
                yield from _array(graph.constants[name])
        yield str(numbers[name]).encode()

    for node in graph.nodes:
        yield node.op.encode()
        for name in node.inputs:
            yield from number(name)
        numbers.update((name, len(numbers) + k) for k, name in enumerate(node.outputs) if name)
        yield str(len(node.outputs)).encode()
        for key, value in sorted(node.attributes.items()):
            yield key.encode()
            yield from _attribute(value)
    for output in graph.outputs:
        yield from number(output.name)


def _attribute(value: Attribute) -> Iterator[bytes | memoryview]:
    if isinstance(value, np.ndarray):
        yield from _array(value)
    else:
        yield repr(value).encode()


def _array(array: AnyArray) -> Iterator[bytes | memoryview]:
    yield f"{array.dtype.str} {array.shape}".encode()
    yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
