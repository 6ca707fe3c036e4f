"""PyTorch models -> ONNX -> Graph; the module itself stays the oracle. A door to torch.

Weights alone are safe to read. A pickled module, a TorchScript archive, an exported program and the factory that
--arch names are code: they are run only where the caller allows it.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from idl_audit.graph.files import ReadFile, combined_sha256, hashed
from idl_audit.graph.fingerprint import graph_sha256
from idl_audit.graph.inputs import AS_IT_IS, InputChoice, with_choice
from idl_audit.graph.ir import Graph, Provenance, Value, shown
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.graph.original import OriginalNetwork, batched, chosen_output, feeds, first_line
from idl_audit.graph.torch_options import TorchOptions
from idl_audit.graph.torch_weights import own_names, weights_in
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import ModelFileError, OptionError, UnsupportedModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.nn import Module

    __all__ = ["Module", "Tensor"]

Example: TypeAlias = "Tensor | Sequence[Tensor]"
"""An input of a module, or one for each of its arguments."""

TORCH_KINDS: Final = frozenset({"torch-zip", "torchscript", "torch-export", "pickle", "safetensors"})
"""The kinds of `reader.sniff` that this module reads."""

WHOLE_KINDS: Final = frozenset({"torchscript", "torch-export"})
"""Those that hold the network's code as well; of the others, a part lies in modules of Python."""

_EXPORT: Final = 'torch.onnx.export(model.eval(), (example_input,), "model.onnx")'


@dataclass(frozen=True)
class TorchNetwork:
    """A module as a graph, with the module itself as the oracle."""

    graph: Graph
    original: OriginalNetwork


def read_torch(
    path: Path,
    kind: str,
    options: TorchOptions,
    *,
    chosen: InputChoice = AS_IT_IS,
    output: str | None = None,
) -> TorchNetwork:
    """Return the network in a PyTorch file; `kind` is what `reader.sniff` says of it, the rest as in `network_of`.

    Raises:
        ModelFileError: where the file cannot be read, or would have to run code that is not allowed.
        OptionError: where --arch or --input-shape is missing or wrong, or there is no input of a chosen name.
        UnsupportedModelError: where no exporter turns the module into ONNX.
    """
    file = hashed(Path(path))
    module, examples = _module(Path(path), kind, options)
    if not examples and options.input_shape is not None:
        import torch

        examples = tuple(torch.zeros(shape) for shape in options.input_shape)
    if not examples:
        raise OptionError(
            f"{path} does not say what its input looks like; give --input-shape, such as 1,3,32,32, or for several "
            "inputs 1,3,32,32/1,5"
        )
    return network_of(module, examples, file=file, is_whole=kind in WHOLE_KINDS, chosen=chosen, output=output)


def network_of(
    module: nn.Module,
    example: Example,
    *,
    file: ReadFile | None = None,
    is_whole: bool = False,
    chosen: InputChoice = AS_IT_IS,
    output: str | None = None,
) -> TorchNetwork:
    """Return the graph of a module for inputs like `example` (one sample, batch axis of 1), module as the oracle.

    Args:
        module: the network.
        example: a sample, or several: one tensor, or one for each argument.
        file: where it was read from.
        is_whole: whether the file alone says which function it is.
        chosen: what is said of its inputs.
        output: name of the output that is asked for, where there are several.
    """
    import torch

    path = None if file is None else file.path
    what = path or Path(type(module).__name__)
    module = _in_evaluation(module)
    read = _as_read(module, (example,) if isinstance(example, torch.Tensor) else tuple(example), str(what))
    singles = tuple(one[:1] if one.ndim > 1 and not _is_static(module) else one for one in read)
    names = argument_names(module, len(singles))
    with tempfile.TemporaryDirectory(prefix="idl-audit-") as folder:
        exported = Path(folder) / "model.onnx"
        _export(module, singles, names, exported, str(what))
        graph = read_onnx(exported, chosen=InputChoice((), chosen.fixed), whole=False)
    names = names or [value.name for value in (*graph.inputs, *graph.fixed)]
    name = f"torch {torch.__version__}"
    provenance = Provenance(
        path=path,
        format="torch",
        sha256=_identity(graph, file, is_whole=is_whole),
        opset=graph.opset,
        producer=name,
        files=() if file is None else (file,),
    )
    graph = with_choice(replace(graph, provenance=provenance), chosen.names, what)
    free = {key: one.ndim > 1 and not _is_static(module) for key, one in zip(names, singles, strict=True)}
    graph = replace(graph, inputs=tuple(_with_batch_axis(value, free=free[value.name]) for value in graph.inputs))
    run = _Run(module, graph, dict(zip(names, singles, strict=True)), chosen_output(what, graph, output))
    return TorchNetwork(graph, batched(name, what, graph, run.output, run))


@dataclass(frozen=True)
class _Run:
    """The module as a function of the input vector."""

    module: nn.Module
    graph: Graph
    arguments: Mapping[str, torch.Tensor]
    """An example of each, in order."""
    output: str

    def __call__(self, batch: AnyArray) -> AnyArray:
        import torch

        given = feeds(self.graph, self.output, batch)
        with torch.no_grad():
            found = self.module(
                *(
                    torch.from_numpy(np.ascontiguousarray(given[name])) if name in given else example
                    for name, example in self.arguments.items()
                )
            )
        return np.asarray(self._chosen(found).detach().numpy())

    def _chosen(self, found: Any) -> torch.Tensor:
        """Return the output that is asked for: of several, those of floats are the graph's."""
        several = list(_tensors_in(found))
        if len(self.graph.outputs) < len(several):
            several = [one for one in several if one.is_floating_point()]
        place = [value.name for value in self.graph.outputs].index(self.output)
        chosen: torch.Tensor = several[place]
        return chosen


def _tensors_in(found: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors that a module returns, in the order in which exporters make outputs of them."""
    import torch

    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, Mapping):
        for one in found.values():
            yield from _tensors_in(one)
    elif isinstance(found, Sequence) and not isinstance(found, str):
        for one in found:
            yield from _tensors_in(one)


def _with_batch_axis(value: Value, *, free: bool) -> Value:
    """Return an input whose first axis counts samples, as far as the module is concerned."""
    return replace(value, shape=(None, *(value.shape or ())[1:])) if free else value


def _is_static(module: nn.Module) -> bool:
    """Return whether a module is an exported program that takes the batch of its example alone."""
    import torch

    if not isinstance(module, torch.fx.GraphModule):
        return False
    shapes = [node.meta["val"].shape for node in module.graph.nodes if node.op == "placeholder" and "val" in node.meta]
    return bool(shapes) and all(isinstance(size, int) for shape in shapes for size in shape)


def argument_names(module: nn.Module, n: int) -> list[str]:
    """Return the names of the first n arguments of a module that has several; none for one, which exporters name."""
    if n == 1:
        return []
    given = inspect.signature(module.forward).parameters.values()
    names = [one.name for one in given if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return names[:n] if len(names) >= n else [f"input_{k}" for k in range(n)]


def _as_read(module: nn.Module, examples: Sequence[torch.Tensor], what: str) -> list[torch.Tensor]:
    """Return the examples in the type of the module's parameters, which is what it reads."""
    import torch

    kinds = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    read = []
    for example in examples:
        if len(kinds) == 1 and example.is_floating_point():
            example = example.to(next(iter(kinds)))
        if len(examples) == 1 and example.dtype not in (torch.float16, torch.float32, torch.float64):
            raise UnsupportedModelError(
                [f"{what} reads {str(example.dtype).removeprefix('torch.')}; convert it with module.float() first"]
            )
        read.append(example)
    return read


def _identity(graph: Graph, file: ReadFile | None, *, is_whole: bool) -> str:
    """Return the hash that says which function it is: weights in a file say nothing of the code that uses them."""
    if file is None:
        return graph_sha256(graph)
    return file.sha256 if is_whole else combined_sha256(file.sha256, [graph_sha256(graph)])


def _in_evaluation(module: nn.Module) -> nn.Module:
    try:
        return module.eval()
    except NotImplementedError:  # modules of exported programs are in the mode that they were exported in
        return module


def example_of(arrays: Sequence[AnyArray]) -> tuple[torch.Tensor, ...]:
    """Return the first of several samples, shapes (n, ...), as arguments of a module, float32 with a batch axis."""
    import torch

    return tuple(torch.from_numpy(np.array(samples[:1], np.float32)) for samples in arrays)


def as_saved(path: Path, kind: str, options: TorchOptions) -> Graph:
    """Return the graph of a network whose weights are in a file, its constants as they are saved and by these names.

    Raises:
        OptionError: where --arch or --input-shape is missing, or the file holds more than weights.
        UnsupportedModelError: where the module cannot be exported so.
    """
    import torch

    if options.arch is None or options.input_shape is None or len(options.input_shape) != 1:
        raise OptionError(f"{path}: training needs --arch and --input-shape for one input, such as 1,3,32,32")
    module = _in_evaluation(_module(path, kind, options)[0])
    return unfused_graph(module, torch.zeros(options.input_shape[0]), str(path))


def unfused_graph(module: nn.Module, example: torch.Tensor, what: str) -> Graph:
    """Return the graph of a module in evaluation mode, its constants those of the module and by their names.

    What exporters fuse otherwise, batch norms into convolutions, is left apart.

    Raises:
        UnsupportedModelError: where the module cannot be exported so.
    """
    import torch

    with tempfile.TemporaryDirectory(prefix="idl-audit-") as folder:
        exported = Path(folder) / "model.onnx"
        try:
            with _silence():
                torch.onnx.export(module, (example,), str(exported), dynamo=True, optimize=False)
        except Exception as error:  # the exporter raises whatever the module leads it to
            raise UnsupportedModelError([f"{what}: torch.onnx.export fails ({first_line(error)})"]) from error
        graph = read_onnx(exported, whole=False)
    return replace(graph, inputs=tuple(_with_batch_axis(value, free=True) for value in graph.inputs))


def _export(module: nn.Module, examples: tuple[torch.Tensor, ...], names: Sequence[str], file: Path, what: str) -> None:
    """Write the module as ONNX by today's exporter, or by the older one where that fails."""
    import torch

    reasons = []
    for dynamo in (True, False):
        try:
            with _silence():
                torch.onnx.export(module, examples, str(file), dynamo=dynamo, input_names=names or None)
            return
        except Exception as error:  # the exporters raise whatever the module leads them to
            reasons.append(f"{'new' if dynamo else 'old'} exporter: {first_line(error)}")
    raise UnsupportedModelError([f"{what}: torch.onnx.export fails ({'; '.join(reasons)})"])


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporters' progress, warnings and logging to themselves."""
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        quiet.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            quiet.setLevel(level)


def _module(path: Path, kind: str, options: TorchOptions) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Return the module in a file and, where the file knows them, an example of each argument."""
    if options.arch is not None:
        if not options.allow_code_execution:
            raise OptionError(
                f"--arch {options.arch} runs code of yours; say so with --allow-code-execution, or {_advice('it')}"
            )
        return _filled(_factory(options.arch), weights_in(path, kind), path), ()
    if not options.allow_code_execution:
        raise ModelFileError(_refusal(path, kind))
    return _loaded(path, kind)


def _advice(what: str) -> str:
    return f"export {what} to ONNX instead: {_EXPORT}"


def _refusal(path: Path, kind: str) -> str:
    """Say why a file is not loaded, what it would import, and what would work."""
    if kind == "safetensors":
        return (
            f"{path} holds weights without the network; give --arch MODULE:FACTORY --allow-code-execution, "
            f"or {_advice('the model')}"
        )
    if kind == "torchscript" or kind == "torch-export":
        return f"{path} is code ({kind}); load it with --allow-code-execution if you trust it, or {_advice('it')}"
    found = _imports(path)
    if found == []:
        return (
            f"{path} holds weights without the network; give --arch MODULE:FACTORY --allow-code-execution, "
            f"or {_advice('the model')}"
        )
    listed = "names that cannot be listed" if found is None else ", ".join(shown(name) for name in found[:20])
    return (
        f"{path} is a pickle, and loading it would run code: it imports {listed}; "
        f"load it with --allow-code-execution if you trust it, or {_advice('the model')}"
    )


def _imports(path: Path) -> list[str] | None:
    """Return what a checkpoint would import beyond plain weights, without running it; None where that fails."""
    import torch

    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # a file of torch before 1.6, which cannot be listed: plain weights load safely all the same
        pass
    try:
        torch.load(str(path), map_location="cpu", weights_only=True)
    except Exception:
        return None
    return []


def _factory(arch: str) -> nn.Module:
    """Return what the function MODULE:FACTORY returns. The caller has allowed code to run."""
    import torch

    module_name, colon, factory = arch.partition(":")
    if not colon or not re.fullmatch(r"[\w.]+", module_name) or not factory.isidentifier():
        raise OptionError(f"--arch must look like package.module:factory, not {arch!r}")
    sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module_name), factory)()
    except Exception as error:  # the user's code may raise anything
        raise OptionError(f"--arch {arch} fails: {type(error).__name__}: {first_line(error)}") from error
    finally:
        sys.path.remove(os.getcwd())
    if not isinstance(made, torch.nn.Module):
        raise OptionError(f"--arch {arch} must return a torch.nn.Module, not {type(made).__name__}")
    return made


def _filled(module: nn.Module, weights: Mapping[str, Any], path: Path) -> nn.Module:
    """Return the module with the weights; a prefix that all names share (`module.`) is taken off."""
    try:
        module.load_state_dict({own: weights[key] for own, key in own_names(weights).items()})
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise ModelFileError(
            f"the weights in {path} do not fit the architecture: {shown(lines, longest=400)}"
        ) from error
    return module


def _loaded(path: Path, kind: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Load a file that is code. The caller has allowed it."""
    import torch

    try:
        if kind == "torch-export":
            program = torch.export.load(str(path))
            args = program.example_inputs[0] if program.example_inputs else ()
            tensors = tuple(one for one in args if isinstance(one, torch.Tensor))
            return program.module(), tensors if len(tensors) == len(args) else ()
        if kind == "torchscript":
            return torch.jit.load(str(path), map_location="cpu"), ()  # type: ignore[no-untyped-call]
        content = torch.load(str(path), map_location="cpu", weights_only=False)
    except Exception as error:
        raise ModelFileError(f"{path} cannot be loaded: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(content, torch.nn.Module):
        raise ModelFileError(
            f"{path} holds a {type(content).__name__} and no network; give --arch MODULE:FACTORY for its weights"
        )
    return content, ()
