"""Files whose weights can be trained and written back: ONNX, state dicts and safetensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.subject import Subject, open_subject
from idl_audit.commands.shared.whole_numbers import refuse_whole
from idl_audit.graph.ir import Graph
from idl_audit.graph.reader import sniff
from idl_audit.graph.torch_reader import as_saved
from idl_audit.graph.torch_weights import saved_names, write_weights
from idl_audit.graph.write_back import Written, initializers, write_back
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import OptionError


@dataclass(frozen=True, eq=False)
class TrainedFile:
    """The file whose weights are trained, as it keeps them."""

    graph: Graph
    output: str
    """The value of the graph that holds the scores."""
    names: frozenset[str]
    """Constants of the graph that the file can be given anew."""
    write: Callable[[Path, Mapping[str, FloatArray]], Written]
    """Writes a copy with other numbers."""


def open_trained(path: Path, options: ModelOptions) -> tuple[Subject, TrainedFile]:
    """Return a network and the file that its weights are written back into.

    Raises:
        OptionError: where it is no classifier with one input and without loops, or no file of weights.
    """
    subject = open_subject(path, options)
    refuse_whole(subject, "harden")
    graph = subject.graph
    kind = sniff(path)
    if graph is None or not (graph.provenance.format == "onnx" or kind in ("torch-zip", "safetensors")):
        raise OptionError(
            f"{path} is no file whose weights can be written back; give an ONNX file, or a state dict or safetensors "
            "with --arch"
        )
    if subject.model.n_outputs < 2:
        raise OptionError(f"{path} has one output; harden is for networks with an output for each class")
    if graph.parts or len(graph.inputs) != 1:
        raise OptionError(f"{path} has several inputs; harden is for networks with one")
    if not subject.model.is_feed_forward:
        raise OptionError(f"{path} has loops; harden is for feed-forward networks")
    if graph.provenance.format == "onnx":
        return subject, TrainedFile(graph, subject.output or "", initializers(path), partial(write_back, path))
    saved = as_saved(path, kind, options.torch)
    place = [value.name for value in graph.outputs].index(subject.output or "")

    def write(out: Path, weights: Mapping[str, FloatArray]) -> Written:
        write_weights(path, kind, out, weights)
        return Written(out, None)

    return subject, TrainedFile(saved, saved.outputs[place].name, saved_names(path, kind), write)
