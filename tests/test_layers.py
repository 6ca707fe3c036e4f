"""The order of the layers and the doors of the outside libraries, read from the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import idl_audit

PACKAGE = Path(idl_audit.__file__).parent

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"values"}),
    frozenset({"graph", "data"}),
    frozenset({"implicit"}),
    frozenset({"proof"}),
    frozenset({"measure"}),
    frozenset({"search"}),
    frozenset({"decide"}),
    frozenset({"training"}),
    frozenset({"report"}),
    frozenset({"gate"}),
    frozenset({"commands", "api", "api_training", "losses"}),
    frozenset({"config"}),
    frozenset({"cli", "testing", "plots", "reports", "__init__", "__main__"}),
)
"""A module imports its own layer and those before it."""

STRANGERS = tuple(frozenset({"data", other}) for other in ("graph", "implicit", "proof", "measure", "search"))
"""Two layers that do not import each other."""

CLOCKS = ("time", "datetime")
"""What no proof looks at."""

SCHEMA = ("values.errors", "values.arrays", "values.verdicts", "report.schema")
"""What the report's schema may import."""

FREE = frozenset({"numpy"})
"""Outside libraries that every module may import."""

DOORS: dict[str, tuple[str, ...]] = {
    "onnx": (
        "graph.onnx_reader",
        "graph.onnx_contents",
        "graph.schemas",
        "graph.tensors",
        "graph.inference",
        "graph.folding",
        "graph.onnx_writer",
        "graph.write_back",
        "graph.torch_copy",
    ),
    "ml_dtypes": ("graph.tensors", "graph.own_operators"),
    "google": ("graph.onnx_reader",),
    "onnxruntime": ("graph.original",),
    "onnx2torch": ("graph.torch_copy",),
    "torchvision": ("graph.torch_copy",),
    "torch": (
        "graph.torch_copy",
        "graph.original",
        "graph.torch_reader",
        "graph.torch_weights",
        "search.branching",
        "search.fast_gradients",
        "search.torch_maps",
        "search.device",
        "training",
        "commands.harden",
        "losses",
        "data.tensor_files",
    ),
    "PIL": ("data.image_folder",),
    "pyarrow": ("data.columns", "data.column_files"),
    "threadpoolctl": ("values.threads",),
    "safetensors": ("graph.torch_weights", "data"),
    "highspy": ("search.linprog",),
    "distributed": ("commands.shared.cluster", "commands.shared.relay"),
    "typer": ("cli",),
    "rich": ("report.terminal", "cli"),
    "pydantic": ("report.schema",),
    "scipy": ("implicit", "proof", "measure", "search"),
    "matplotlib": ("report.pictures", "plots"),
    "pandas": ("reports",),
    "jinja2": ("report.render",),
    "markupsafe": ("report.render",),
}
"""Outside library -> the modules (or packages) that may import it."""


@dataclass(frozen=True)
class Import:
    """One import: where it stands and what it names, in full."""

    importer: str
    """Inside the package: 'graph.ir', '__init__'."""
    line: int
    target: str


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


@cache
def imports_of(root: Path) -> tuple[Import, ...]:
    """Return every import below a package's folder: inside functions, for type checkers, by import_module too."""
    return tuple(_imports_of(root))


def _imports_of(root: Path) -> Iterator[Import]:
    for path in sorted(root.rglob("*.py")):
        importer = module_name(path, root)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            for target in targets(node, importer, path.name == "__init__.py"):
                yield Import(importer, node.lineno, target)  # type: ignore[attr-defined]


def targets(node: ast.AST, importer: str, is_package: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if node.level:
            above = f"idl_audit.{importer}".split(".")
            above = above[: len(above) - node.level + is_package]
            module = ".".join([*above, *([module] if module else [])])
        if module == "idl_audit":
            yield from (f"idl_audit.{alias.name}" for alias in node.names)
        else:
            yield module
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
            yield node.args[0].value


def layer_of(module: str) -> int | None:
    top = module.split(".")[0]
    return next((rank for rank, layer in enumerate(LAYERS) if top in layer), None)


def layer_violations(root: Path) -> list[str]:
    """Return every module without a layer and every import against the order."""
    found = []
    for path in sorted(root.iterdir()):
        is_module = path.suffix == ".py" or (path.is_dir() and any(path.rglob("*.py")))
        if is_module and layer_of(path.stem) is None:
            found.append(f"{path.stem} has no layer")
    for one in imports_of(root):
        if one.importer.startswith("proof.") and one.target in CLOCKS:
            found.append(f"{one.importer}:{one.line} imports {one.target}: proofs have no clock")
        if not one.target.startswith("idl_audit.") or one.target == "idl_audit.__version__":
            continue
        target = one.target.removeprefix("idl_audit.")
        if not (root / target.split(".")[0]).exists() and not (root / f"{target.split('.')[0]}.py").exists():
            target = "__init__"  # a name of the package itself
        own, other = layer_of(one.importer), layer_of(target)
        if one.importer.startswith("proof.") and target.startswith("values.budget"):
            found.append(f"{one.importer}:{one.line} imports {one.target}, which has a clock")
            continue
        tops = {one.importer.split(".")[0], target.split(".")[0]}
        if own is None or other is None or other > own or any(tops == pair for pair in STRANGERS):
            found.append(f"{one.importer}:{one.line} imports {one.target}")
        elif one.importer.startswith("report.schema") and not target.startswith(SCHEMA):
            found.append(f"{one.importer}:{one.line} imports {one.target}: the schema imports only errors, arrays")
    return found


def door_violations(root: Path) -> list[str]:
    """Return every import of an outside library that does not stand at its door."""
    found = []
    for one in imports_of(root):
        library = one.target.split(".")[0]
        if library in sys.stdlib_module_names or library in FREE or library == "idl_audit":
            continue
        doors = DOORS.get(library, ())
        if not any(one.importer == door or one.importer.startswith(f"{door}.") for door in doors):
            found.append(f"{one.importer}:{one.line} imports {one.target}")
    return found


def test_modules_import_only_their_own_layer_and_those_before_it() -> None:
    assert layer_violations(PACKAGE) == []


def test_outside_libraries_enter_through_their_doors() -> None:
    assert door_violations(PACKAGE) == []


def test_every_outside_library_has_at_least_one_user() -> None:
    used = {one.target.split(".")[0] for one in imports_of(PACKAGE)}
    assert set(DOORS) - {"torchvision", "onnx2torch", "onnxruntime", "google"} <= used


def package(folder: Path, sources: dict[str, str]) -> Path:
    for name, text in sources.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


WRONG_ORDER = [
    ({"values/box.py": "from idl_audit.graph import ir\n", "graph/ir.py": ""}, "values.box:1 imports idl_audit.graph"),
    ({"graph/ir.py": "def f():\n    from idl_audit.implicit import m\n", "implicit/m.py": ""}, "graph.ir:2 imports"),
    (
        {
            "data/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import idl_audit.cli.app\n",
            "cli/app.py": "",
        },
        "data.a:3 imports idl_audit.cli.app",
    ),
    ({"data/a.py": "from idl_audit.search import b\n", "search/b.py": ""}, "data.a:1 imports idl_audit.search"),
    ({"search/b.py": "from idl_audit.data import a\n", "data/a.py": ""}, "search.b:1 imports idl_audit.data"),
    (
        {"proof/check.py": "from idl_audit.search import b\n", "search/b.py": ""},
        "proof.check:1 imports idl_audit.search",
    ),
    ({"proof/check.py": "from idl_audit.values.budget import Budget\n", "values/budget.py": ""}, "has a clock"),
    ({"proof/check.py": "import time\n"}, "proof.check:1 imports time"),
    ({"graph/ir.py": "from ..cli import app\n", "cli/app.py": ""}, "graph.ir:1 imports idl_audit.cli"),
    ({"graph/__init__.py": "from ..cli import app\n", "cli/app.py": ""}, "graph:1 imports idl_audit.cli"),
    ({"implicit/m.py": "from idl_audit import load\n", "__init__.py": ""}, "implicit.m:1 imports idl_audit.load"),
    ({"graph/ir.py": "import_module('idl_audit.commands.x')\n", "commands/x.py": ""}, "graph.ir:1 imports"),
    ({"report/schema/a.py": "import idl_audit.values.box\n", "values/box.py": ""}, "the schema imports only"),
    ({"surprise.py": ""}, "surprise has no layer"),
    ({"surprise/deep/m.py": ""}, "surprise has no layer"),
]


@pytest.mark.parametrize(("sources", "complaint"), WRONG_ORDER)
def test_imports_against_the_order_are_found(sources: dict[str, str], complaint: str, tmp_path: Path) -> None:
    found = layer_violations(package(tmp_path, sources))
    assert len(found) == 1
    assert complaint in found[0]


def test_imports_in_order_are_not_complained_of(tmp_path: Path) -> None:
    sources = {
        "values/errors.py": "import math\nimport numpy\n",
        "values/box.py": "from idl_audit.values.errors import X\nfrom idl_audit import __version__\n",
        "graph/ir.py": "from . import reader\nfrom ..values.box import Box\nfrom .reader import read\n",
        "graph/reader.py": "import onnx_of_mine\n",
        "report/schema/a.py": "from idl_audit.report.schema.b import c\nfrom idl_audit.values.arrays import d\n",
        "values/arrays.py": "",
        "notes.txt": "import idl_audit.cli",
    }
    assert layer_violations(package(tmp_path, sources)) == []


WRONG_DOOR = [
    ({"graph/ir.py": "import onnx\n"}, "graph.ir:1 imports onnx"),
    ({"graph/onnx_reader_too.py": "import onnx.helper\n"}, "graph.onnx_reader_too:1 imports onnx.helper"),
    ({"implicit/m.py": "def f():\n    import torch.nn\n"}, "implicit.m:2 imports torch.nn"),
    ({"search/m.py": "from highspy import Highs\n"}, "search.m:1 imports highspy"),
    ({"graph/ir.py": "if TYPE_CHECKING:\n    import scipy.sparse as sp\n"}, "graph.ir:2 imports scipy.sparse"),
    ({"commands/x.py": "importlib.import_module('onnx2torch')\n"}, "commands.x:1 imports onnx2torch"),
    ({"data/x.py": "import something_new\n"}, "data.x:1 imports something_new"),
    ({"report/wording.py": "from pydantic import BaseModel\n"}, "report.wording:1 imports pydantic"),
]


@pytest.mark.parametrize(("sources", "complaint"), WRONG_DOOR)
def test_imports_beside_the_doors_are_found(sources: dict[str, str], complaint: str, tmp_path: Path) -> None:
    assert door_violations(package(tmp_path, sources)) == [complaint]


def test_imports_at_the_doors_are_not_complained_of(tmp_path: Path) -> None:
    sources = {
        "graph/onnx_reader.py": "import onnx\nfrom google.protobuf.message import DecodeError\nimport os, json\n",
        "search/linprog.py": "import highspy\nimport numpy as np\nimport scipy.sparse\n",
        "cli/app.py": "import typer\nfrom rich.console import Console\nimport idl_audit\n",
    }
    assert door_violations(package(tmp_path, sources)) == []


HEAVY = ("torch", "onnx", "highspy", "onnxruntime", "onnx2torch", "matplotlib")


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("idl_audit", HEAVY),
        ("idl_audit.values.errors", HEAVY),
        ("idl_audit.report.schema", HEAVY),
        ("idl_audit.data.samples", HEAVY),
        ("idl_audit.cli.app", (*HEAVY, "numpy", "pydantic")),
    ],
)
def test_light_modules_stay_light(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import {module}, sys; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
