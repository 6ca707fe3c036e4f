"""The network once more, by onnx2torch: a clean copy for it to convert, and its import where torchvision is broken.

onnx2torch turns node names into Python source, so a crafted name would run code: it only ever sees clean copies.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import onnx
import torch

from idl_audit.graph.ir import Graph
from idl_audit.graph.onnx_writer import clean_model, with_fresh_names
from idl_audit.graph.original import first_line
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import UnsupportedModelError

# No one version suits all models: these together convert 147 of 155 public ones.
_OTHER_OPSETS: Final = (17, 13, 11, 9)

_TORCHVISION_NAMES: Final = ("nms", "roi_align", "box_convert")


def torch_function(path: Path, graph: Graph, output: str, *, double: bool = False) -> Callable[[AnyArray], AnyArray]:
    """Return the function from the network's input to its output `output`, both arrays of the file's own shapes.

    With `double`, it computes in float64 whatever the file says.
    Raises UnsupportedModelError where onnx2torch can convert no version of the model.
    """
    return _function(_converted(path, graph, output, double=double))


def torch_slopes(path: Path, graph: Graph, output: str) -> Callable[[AnyArray, AnyArray], AnyArray]:
    """Return the function (u, w) -> d(w . y)/du for arrays u and w of the shapes of the input and the output, float32.

    Raises as `torch_function` does; what it returns raises UnsupportedModelError where there is no slope.
    """
    module = _converted(path, graph, output)

    def pulled(points: AnyArray, weights: AnyArray) -> AnyArray:
        u = torch.from_numpy(points.astype("float32")).requires_grad_()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                y = module(u)
                (y.reshape(-1) * torch.from_numpy(weights.astype("float32")).reshape(-1)).sum().backward()
        except Exception as error:  # an operator without a slope, whatever torch calls it
            raise UnsupportedModelError([f"{path}: torch finds no slope ({first_line(error)})"]) from error
        found: AnyArray = torch.zeros_like(u).numpy() if u.grad is None else u.grad.numpy()
        return found

    return pulled


def _converted(path: Path, graph: Graph, output: str, *, double: bool = False) -> Any:
    """Return the network as a module of torch. Raises as `torch_function` does."""
    try:
        onnx2torch = _import_onnx2torch()
    except Exception as error:  # whatever an installation can be broken by
        raise UnsupportedModelError([f"onnx2torch cannot be imported here ({first_line(error)})"]) from error
    model = clean_model(graph, output, double=double)
    reasons: list[str] = []
    for version, candidate in _candidates(model, graph.opset, reasons):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = onnx2torch.convert(candidate).eval()
                module = module.double() if double else module
        except Exception as error:  # NotImplementedError, KeyError, AssertionError, whatever its converters meet
            reasons.append(f"{version}: {first_line(error)}")
            continue
        return module
    raise UnsupportedModelError([f"{path}: onnx2torch cannot convert the model (operator set {reasons[0]})"])


def _candidates(model: onnx.ModelProto, opset: int, reasons: list[str]) -> Iterator[tuple[int, onnx.ModelProto]]:
    """Yield the model as it is, then in other operator set versions, each with names of our own."""
    yield opset, model
    for version in _OTHER_OPSETS:
        if version == opset:
            continue
        try:
            converted = onnx.version_converter.convert_version(model, version)
        except Exception as error:  # the converter is C++ and raises many kinds
            reasons.append(f"{version}: {first_line(error)}")
            continue
        yield version, with_fresh_names(converted)


def _function(module: Any) -> Callable[[AnyArray], AnyArray]:
    def run(batch: AnyArray) -> AnyArray:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how onnx2torch writes its torch, not about the network
            found: AnyArray = module(torch.from_numpy(batch.copy())).numpy()
        return found

    return run


def _import_onnx2torch() -> Any:
    """Import onnx2torch; where torchvision cannot load, stand-ins take the place of the names that it asks for.

    pip may pair a torchvision built for CUDA with a torch built for the CPU: the import then fails, although only
    detection networks, which have no implicit form, need what it lacks.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "onnx2torch" in sys.modules:
            return sys.modules["onnx2torch"]
        return importlib.import_module("onnx2torch") if _torchvision_loads() else _import_with_stand_ins()


def _torchvision_loads() -> bool:
    """Return whether the names that onnx2torch asks torchvision for are there."""
    try:
        ops = importlib.import_module("torchvision.ops")
    except Exception:  # ImportError, OSError, RuntimeError ("operator torchvision::nms does not exist")
        return False
    return all(hasattr(ops, name) for name in _TORCHVISION_NAMES)


def _import_with_stand_ins() -> Any:
    vision, ops = types.ModuleType("torchvision"), types.ModuleType("torchvision.ops")
    for name in _TORCHVISION_NAMES:
        setattr(ops, name, _absent)
    vision.ops = ops  # type: ignore[attr-defined]  # a module made by hand
    stand_ins = {"torchvision": vision, "torchvision.ops": ops}
    hidden = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("onnx2torch")
    finally:
        # Whoever imports torchvision later shall meet its own error, not our stand-in.
        for name in stand_ins:
            del sys.modules[name]
        sys.modules.update(hidden)


def _absent(*_: object, **__: object) -> None:
    raise NotImplementedError("torchvision cannot be loaded here; install the build that belongs to this torch")
