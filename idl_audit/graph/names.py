"""Every name in a graph has one origin, which comes before all its uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from idl_audit.graph.ir import Body, Function, Node, shown
from idl_audit.values.errors import ModelFileError


def check_names(body: Body, functions: Iterable[Function], path: Path) -> None:
    """Check a model's graph, its subgraphs and its functions.

    Raises ModelFileError for a name with two origins, with none, or with one behind its use, and for a graph without
    inputs or outputs.
    """
    _check(body, frozenset(), path)
    for role, names in (("input", body.inputs), ("output", body.outputs)):
        if not names:
            raise ModelFileError(f"{path}: the graph has no {role}; export the model again")
    for function in functions:
        _check(function.body, frozenset(), path)


def _check(body: Body, around: frozenset[str], path: Path) -> None:
    """Check one graph that may read the names `around` it, and may hide them behind names of its own.

    What it hides is hidden everywhere in it, also before the node that makes its own value of that name.
    """
    own: set[str] = set()
    for name in (*body.constants, *body.inputs):
        _add(own, name, path)
    made = {name for node in body.nodes for name in node.outputs}
    around = around - made
    for node in body.nodes:
        _check_node(node, own, around, made, path)
        for name in filter(None, node.outputs):
            _add(own, name, path)
    for name in body.outputs:
        if name not in own and name not in around:
            raise ModelFileError(f"{path}: the output {shown(name)!r} is made nowhere; export the model again")


def _check_node(node: Node, own: set[str], around: frozenset[str], made: set[str], path: Path) -> None:
    for name in filter(None, node.inputs):
        if name not in own and name not in around:
            fault = "only made later" if name in made else "made nowhere"
            raise ModelFileError(
                f"{path}: {shown(node.label)} reads {shown(name)!r}, which is {fault}; export the model again"
            )
    if node.bodies:
        outside = around | own
        for body in node.bodies:
            _check(body, outside, path)


def _add(known: set[str], name: str, path: Path) -> None:
    if not name:
        raise ModelFileError(f"{path}: an input or a weight has no name; export the model again")
    if name in known:
        raise ModelFileError(f"{path}: two values are called {shown(name)!r}; export the model again")
    known.add(name)


def fresh_names(prefix: str, names: Iterable[str], taken: set[str]) -> Mapping[str, str]:
    """Return new names `prefix/name` for the given ones, none of them in `taken`, and put them there."""
    renamed = {"": ""}
    for name in names:
        if name:
            new = f"{prefix}/{name}"
            while new in taken:
                new += "'"
            taken.add(new)
            renamed[name] = new
    return renamed
