"""VNN-LIB 2 files, plain or gzipped: text becomes a `Specification`, checked as the standard asks.

Read is all of the grammar of the standard's version 2.1: one `vnnlib-version`, networks, assertions, in this order.
Checked are names (each once in the file), shapes and indices, `equal-to` and `isomorphic-to`, and types: both sides of
a comparison have one element type, a number takes that of the entries beside it, and nothing is converted. A whole
number stands for a value of every numeric type, one with a decimal point for none of the integers.

The file may come from anywhere: its size, depth, numbers and tensors are limited, and nothing here calls itself.
"""

from __future__ import annotations

import contextlib
import gc
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn, cast

from idl_audit.data.property_text import property_text
from idl_audit.data.vnnlib2.assertions import JUNCTIONS, Assertions
from idl_audit.data.vnnlib2.limits import MAX_BYTES, MAX_CHARACTERS, MAX_DIMENSIONS, MAX_ENTRIES, MAX_VARIABLES
from idl_audit.data.vnnlib2.syntax import REAL, Formula, Kind, Network, Place, Relation, Specification, Variable
from idl_audit.data.vnnlib2.tokens import (
    HINTS,
    TOKEN,
    Lines,
    Match,
    bracketed,
    raw,
    shown,
    start,
    unquoted,
    whole_numbers,
)
from idl_audit.data.vnnlib2.types import ELEMENT_TYPES, suggestion
from idl_audit.values.errors import DataError

VERSIONS: Final = ((2, 0), (2, 1))
"""Those that are read, (major, minor)."""

_RELATIONS: Final = frozenset({"equal-to", "isomorphic-to"})
_DECLARATIONS: Final[dict[str, Kind]] = {
    "declare-input": "input",
    "declare-hidden": "hidden",
    "declare-output": "output",
}
"""In the order in which they must come."""


def read_specification(path: Path) -> Specification:
    """Return the query in a file, plain or gzipped (told apart by content).

    Raises:
        DataError: where it cannot be read, is no VNN-LIB 2, breaks one of the standard's rules, or exceeds a limit.
    """
    return parse_specification(property_text(path, MAX_BYTES), source=str(path))


def is_version_2(path: Path) -> bool:
    """Return whether a file says that it is VNN-LIB 2, or a later version; False where it cannot be read."""
    try:
        text = property_text(path, MAX_BYTES)
    except DataError:
        return False
    found = _SAYS_VERSION.match(text)
    return found is not None and int(found[1]) >= 2


_SAYS_VERSION: Final = re.compile(r"(?:\s|;[^\n]*\n)*\(\s*vnnlib-version\s*<\s*(\d{1,9})")


def parse_specification(text: str, *, source: str = "the query") -> Specification:
    """Return the query that a text holds. Raises DataError as `read_specification` does; `source` names the text."""
    with _without_collection():
        return _Reader(text, source).specification()


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Let the collector of cycles rest: reading makes none, and it would pass over all that is kept again and again."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Reader:
    """Reads one text from its beginning to its end."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._matches = TOKEN.finditer(text)
        self._place = Lines(text).place
        self._minor = 0
        self._networks: dict[str, Network] = {}
        self._variables: dict[str, Variable] = {}
        self._lines: dict[str, int] = {}
        self._entries = 0

    def specification(self) -> Specification:
        """Return all of it."""
        version = self._version()
        match = self._take()
        while match["operator"] == "declare-network":
            self._network(match)
            match = self._take()
        if not self._networks:
            self._refuse_command(match, "a network: (declare-network N (declare-input X ...) (declare-output Y ...))")
        assertions = Assertions(self._text, self._variables, self._matches, self._place, self._fail)
        made: list[Formula] = []
        while match["operator"] == "assert":
            made.append(assertions.formula(match))
            match = self._take()
        if match.lastgroup != "end" or not made:
            self._refuse_command(match, "an assertion: (assert (<= X[0] 1.0))")
        return Specification(self._source, version, tuple(self._networks.values()), tuple(made))

    # --- what is common to all parts ---------------------------------------------------------------------------------

    def _fail(self, where: int | Place, problem: str) -> NoReturn:
        place = Lines(self._text).place(where) if isinstance(where, int) else where
        raise DataError(f"{self._source}: line {place.line}, column {place.column}: {problem}")

    def _take(self) -> Match:
        """Return the next word; behind the last one stands the end of the text."""
        return next(self._matches)

    def _expect(self, kind: str, wanted: str) -> Match:
        match = self._take()
        if match.lastgroup != kind:
            self._refuse(match, wanted)
        return match

    def _refuse(self, match: Match, wanted: str) -> NoReturn:
        """Raise for a word where another is expected."""
        if match.lastgroup == "end":
            self._fail(start(match), f"the file ends where {wanted} is expected; it is truncated or lacks a ')'")
        self._fail(start(match), f"{shown(raw(match))} stands where {wanted} is expected")

    def _refuse_command(self, match: Match, wanted: str) -> NoReturn:
        """Raise for a command that is unknown or comes out of order."""
        command = match["operator"]
        if command in HINTS:
            self._fail(start(match), f"there is no {shown(command)} in VNN-LIB 2; {HINTS[command]}")
        if command == "declare-network":
            self._fail(start(match), "a network is declared behind an assertion; declare all networks first")
        if match.lastgroup == "end":
            self._fail(start(match), f"the file ends without {wanted}")
        self._refuse(match, wanted)

    def _version(self) -> str:
        match = self._take()
        if match["operator"] != "vnnlib-version":
            if match["operator"] in ("declare-const", "declare-fun"):
                self._fail(start(match), "this is VNN-LIB 1; idl-audit convert-property translates it to version 2")
            self._refuse(match, "(vnnlib-version <2.0>), the beginning of every file of version 2,")
        match = self._expect("version", "<2.0> or <2.1>")
        digits = (match["major"], match["minor"])
        if max(map(len, digits)) > 9 or tuple(map(int, digits)) not in VERSIONS:
            other = "; idl-audit convert-property translates version 1" if match["major"] == "1" else ""
            self._fail(start(match), f"this is VNN-LIB {shown(match['version'])}, and read are 2.0 and 2.1{other}")
        self._minor = int(match["minor"])
        self._expect("close", "')'")
        return f"{match['major']}.{match['minor']}"

    # --- networks ----------------------------------------------------------------------------------------------------

    def _network(self, opening: Match) -> None:
        place = self._place(start(opening))
        name = self._name("the network's name")
        relation, other, position = self._relation_of(match := self._take(), name)
        if relation is not None:
            match = self._take()
        found: dict[Kind, list[Variable]] = {"input": [], "hidden": [], "output": []}
        stage: Kind = "input"
        order = tuple(found)
        while match.lastgroup == "open":
            kind = _DECLARATIONS.get(match["operator"])
            if kind is None:
                self._refuse_in_network(match, relation)
            if order.index(kind) < order.index(stage):
                self._fail(start(match), f"this {kind} tensor is behind {stage} ones; write inputs, hidden, outputs")
            stage = kind
            found[kind].append(self._variable(kind, self._place(start(match))))
            match = self._take()
        missing = next((kind for kind in ("input", "output") if not found[kind]), None)
        if missing is not None and match.lastgroup == "close":
            self._fail(start(match), f"network {name} has no {missing}; add (declare-{missing} ...)")
        if match.lastgroup != "close":
            self._refuse(match, f"a declaration or the ')' of network {name}")
        made = Network(
            name, tuple(found["input"]), tuple(found["hidden"]), tuple(found["output"]), place, relation, other
        )
        if other is not None:
            self._check_relation(made, self._networks[other], position)
        self._networks[name] = made

    def _refuse_in_network(self, match: Match, relation: Relation | None) -> NoReturn:
        if match["operator"] in _RELATIONS:
            where = "already has one" if relation else "has it behind a variable; it comes first"
            self._fail(start(match), f"a network has one equal-to or isomorphic-to at most, and this one {where}")
        self._refuse(match, "(declare-input ...), (declare-hidden ...) or (declare-output ...)")

    def _name(self, wanted: str) -> str:
        """Return a name that the file has not used before."""
        match = self._expect("entry", wanted)
        name = match["name"]
        if match["index"] is not None:
            self._fail(start(match), f"{shown(raw(match))} stands where {wanted} is expected, without indices")
        if len(name) > MAX_CHARACTERS:
            self._fail(start(match), f"a name is longer than {MAX_CHARACTERS:,} characters; shorten it")
        if name in JUNCTIONS or (name == "initialized" and self._minor):
            self._fail(start(match), f"{name!r} is a word of the language; choose another name")
        if name in self._lines:
            self._fail(start(match), f"{name!r} is already declared in line {self._lines[name]}; choose another name")
        self._lines[name] = self._place(start(match)).line
        return name

    def _relation_of(self, match: Match, name: str) -> tuple[Relation | None, str | None, int]:
        """Return what a network says it is to which one, if it does, and where."""
        if match["operator"] not in _RELATIONS:
            return None, None, 0
        relation = cast(Relation, match["operator"])
        target = self._expect("entry", "the name of a network")
        other, position = target["entry"], start(target)
        if other == name:
            self._fail(position, f"network {name} is {relation} itself; name another network, declared before it")
        if other not in self._networks:
            what = "is a variable" if other in self._variables else "is not declared before this"
            self._fail(position, f"{shown(other)} {what}; {relation} takes the name of a network above")
        if (further := self._networks[other].relation) is not None:
            named = self._networks[other].other
            self._fail(position, f"network {other} is itself {further} {named}; write ({relation} {named})")
        self._expect("close", "')'")
        return relation, other, position

    def _check_relation(self, made: Network, other: Network, position: int) -> None:
        """Check that two networks have the same inputs and outputs; isomorphic ones may differ in element types.

        Hidden tensors of equal networks that have one name in the model are the same tensor, so they agree as well.
        """
        typed = made.relation == "equal-to"
        for kind, own, others in (("input", made.inputs, other.inputs), ("output", made.outputs, other.outputs)):
            if len(own) != len(others):
                self._fail(
                    position,
                    f"network {made.name} has {len(own)} {kind}s and {other.name} has {len(others)}; "
                    f"{made.relation} asks for the same number",
                )
            for one, two in zip(own, others, strict=True):
                self._check_pair(made, one, two, position, typed=typed)
        if typed:
            named = {variable.onnx_name: variable for variable in other.hidden}
            for variable in made.hidden:
                if variable.onnx_name in named:
                    self._check_pair(made, variable, named[variable.onnx_name], position, typed=True)

    def _check_pair(self, made: Network, one: Variable, two: Variable, position: int, *, typed: bool) -> None:
        if one.shape == two.shape and (one.element == two.element or not typed):
            return
        what = "element types and shapes" if typed else "shapes"
        told = " and ".join(f"{v.name} is {v.element} {list(v.shape)}" for v in (one, two))
        self._fail(position, f"{told}; {made.relation} asks for the same {what}")

    def _variable(self, kind: Kind, place: Place) -> Variable:
        """Return the variable that a declaration declares, its opening words already read."""
        if len(self._variables) >= MAX_VARIABLES:
            self._fail(start(self._take()), f"there are more than {MAX_VARIABLES:,} variables; split the query")
        named = f"the name of the {kind}" if kind != "hidden" else "the name of the hidden tensor"
        name = self._name(named)
        match = self._expect("entry", "an element type such as float32")
        element = match["name"]
        if element not in ELEMENT_TYPES:
            self._fail(start(match), f"{shown(element)} is no element type; {suggestion(element)}")
        first = next(iter(self._variables.values()), None)
        if first is not None and (first.element == REAL) != (element == REAL):
            self._fail(
                start(match),
                f"{name} is {element} and {first.name} is {first.element}; declare all variables of a query as real, "
                "or none",
            )
        shape = self._shape(match)
        onnx_name = None
        match = self._take()
        if kind == "hidden":
            if match.lastgroup != "quoted":
                self._refuse(match, 'the tensor\'s name in the model, in quotation marks ("conv1/out"),')
            if len(match["quoted"]) > MAX_CHARACTERS:
                self._fail(
                    start(match), f"a name is longer than {MAX_CHARACTERS:,} characters; shorten it in the model"
                )
            onnx_name = unquoted(match["quoted"])
            match = self._take()
        initialized = kind == "input" and match["entry"] == "initialized"
        if initialized:
            if not self._minor:
                self._fail(start(match), "'initialized' belongs to version 2.1; write (vnnlib-version <2.1>)")
            match = self._take()
        if match.lastgroup != "close":
            self._refuse(match, f"the ')' behind {name}")
        made = Variable(name, kind, element, shape, place, onnx_name, initialized)
        self._variables[name] = made
        return made

    def _shape(self, match: Match) -> tuple[int, ...]:
        """Return the shape behind an element type; the expression of words takes `float32 [1,3]` for an entry."""
        if match["index"] is None:
            match = self._take()
            if match["other"] != "[":
                self._refuse(match, "a shape such as [1,3], or [] for a scalar,")
            self._expect_end_of_scalar(match)
            return ()
        dimensions = whole_numbers(match["index"])
        if len(dimensions) > MAX_DIMENSIONS:
            self._fail(match.start("index"), f"a tensor has {MAX_DIMENSIONS} dimensions at most; this has more")
        shape = tuple(int(digits) if len(digits) < 20 else MAX_ENTRIES + 1 for digits in dimensions)
        if 0 in shape:
            self._fail(
                match.start("index"), "a dimension is 0; dimensions are 1 or more, and a scalar has the shape []"
            )
        self._entries += math.prod(shape)
        if self._entries > MAX_ENTRIES:
            self._fail(match.start("index"), f"the tensors have more than {MAX_ENTRIES:,} entries together")
        return shape

    def _expect_end_of_scalar(self, bracket: Match) -> None:
        if self._take()["other"] != "]":
            self._fail(
                start(bracket),
                f"{shown(bracketed(self._text, start(bracket)))} is no shape; write whole numbers with commas, such as "
                "[1,3], or [] for a scalar",
            )
