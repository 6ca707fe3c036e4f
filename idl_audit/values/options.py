"""Options, each declared once: a field of a frozen dataclass that knows its help, its default and how its text is read.

From the dataclass of a command come its command line, the keys and the JSON Schema of the configuration file, its
environment variables, and the keyword arguments of the Python interface. A value is written the same way in all four
and read by the same function: `10`, `"10"` and `--limit 10` are one.
"""

from __future__ import annotations

import dataclasses
import inspect
import keyword
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from idl_audit.values.errors import OptionError

OTHER_NAMES: Final = MappingProxyType({"cardinality": "sparse", "methods": "method"})
"""What an option may be called as well -> its name, which alone is shown."""

REQUIRED: Final = dataclasses.MISSING

Chosen = TypeVar("Chosen")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Reader:
    """How a text becomes a value."""

    parse: Callable[[str, str], Any]
    """(what was typed, --option for messages) -> value; raises OptionError."""
    kind: Any = str
    """The type that help and completion speak of."""
    least: int | None = None
    choices: tuple[str, ...] = ()
    was_read: Callable[[Any], bool] = lambda value: False
    """Whether a value that no text stands for was read before."""
    placed: Callable[[Any, Path], Any] = lambda value, folder: value
    """What a value out of a file in this folder stands for: relative names of files start there."""
    schema: Any = None
    """JSON Schema of a value in a configuration file; None: a text, a number, or a list of them."""


@dataclass(frozen=True)
class Option:
    """One option or, with `positional`, one argument of a command."""

    help: str
    default: Any
    """As it would be typed, or None; REQUIRED where there is none."""
    reader: Reader
    flags: tuple[str, ...] = ()
    """Short names, and further long ones."""
    off: str | None = None
    """Of a switch that is on by default, what turns it off."""
    metavar: str | None = None
    panel: str | None = None
    rank: int = 0
    """Place among those of its panel in the help; equal ones stand as they are declared."""
    positional: bool = False
    several: bool = False
    """May be given several times."""
    typed: bool = True
    """Has a place on the command line."""
    in_file: bool = True
    in_environment: bool = True
    own: bool = False
    """Belongs to the command's own table of a configuration, though [defaults] has a key of that name."""
    name: str = ""

    @property
    def flag(self) -> str:
        """Return what messages call it."""
        return self.name.upper() if self.positional else f"--{self.key}"

    @property
    def key(self) -> str:
        """Return its name with dashes."""
        return self.name.rstrip("_").replace("_", "-")

    @property
    def required(self) -> bool:
        """Return whether nothing stands for it where it is left out."""
        return self.default is REQUIRED

    def read(self, value: Any) -> Any:
        """Return the value that a text, a number or a list stands for; a value that was read is itself.

        Raises:
            OptionError: where it makes no sense; the option is named.
        """
        if value is None:
            return None
        if self.several:
            return tuple(map(self._one, value if isinstance(value, list | tuple) else (value,)))
        return self._one(value)

    def _one(self, value: Any) -> Any:
        if self.reader.was_read(value):
            return value
        text = _typed(value)
        if text is None:
            raise OptionError(f"{self.flag} must be text, a number or a list of them, not {type(value).__name__}")
        return self.reader.parse(text, self.flag)


def _typed(value: Any) -> str | None:
    """Return what would be typed for a value; None where nothing would."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if isinstance(value, Real):
        return str(int(value)) if isinstance(value, Integral) else repr(float(value))
    if isinstance(value, list | tuple | range):
        texts = [_typed(entry) for entry in value]
        return None if None in texts else ",".join(text for text in texts if text is not None)
    return None


def option(default: Any, reader: Reader, help: str, *flags: str, **more: Any) -> Any:
    """Return a dataclass field that is an option; `more` as in `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(help, default, reader, flags, **more)})


def group(kind: type, *, without: Iterable[str] = (), **more: Any) -> Any:
    """Return a dataclass field whose options are those of another dataclass.

    Args:
        kind: the dataclass.
        without: names of options that are left at their defaults here.
        more: when, (what was given, by name) -> whether there is such a group, else the field is None;
            otherwise, what is wrong with its options where there is none; missing, what to do where one is left out
            that it needs; make, (the group) -> what the field holds.
    """
    found = _Group(kind, frozenset(without), **more)
    if found.when is None and any(one.required for one in options_of(kind).values()):
        return dataclasses.field(metadata={"group": found})
    return dataclasses.field(default_factory=found.usual, metadata={"group": found})


@dataclass(frozen=True)
class _Group:
    kind: type
    without: frozenset[str]
    when: Callable[[Mapping[str, Any]], bool] | None = None
    otherwise: str = ""
    missing: str = ""
    make: Callable[[Any], Any] = lambda made: made

    def usual(self) -> Any:
        return None if self.when is not None else self.make(self.kind())


@dataclass(frozen=True)
class Declared:
    """What a command is asked for: texts among its fields are read, and refused with one sentence."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if "option" in field.metadata:
                read = _named(field).read(getattr(self, field.name))
                object.__setattr__(self, field.name, read)


def _named(field: Any) -> Option:
    found: Option = field.metadata["option"]
    return found if found.name else dataclasses.replace(found, name=field.name)


def options_of(kind: type) -> Mapping[str, Option]:
    """Return the options of a dataclass and its groups by name; one that several groups have is one option."""
    return _options_of(kind)


@cache
def _options_of(kind: Any) -> Mapping[str, Option]:
    found: dict[str, Option] = {}
    some: list[frozenset[str]] = []  # what groups need that are there or not: needed if there are several, and all do
    for field in dataclasses.fields(kind):
        if "option" in field.metadata:
            named = _named(field)
            found.setdefault(named.name, named)
        elif "group" in field.metadata:
            inner: _Group = field.metadata["group"]
            chosen = {name: one for name, one in options_of(inner.kind).items() if name not in inner.without}
            if inner.when is not None:
                some.append(frozenset(name for name, one in chosen.items() if one.required))
            for name, one in chosen.items():
                found.setdefault(name, one)
    always = frozenset.intersection(*some) if len(some) > 1 else frozenset()
    for name in frozenset().union(*some) - always:
        if found[name].required:
            found[name] = dataclasses.replace(found[name], default=None)
    return MappingProxyType(found)


def build(
    kind: type[Chosen], given: Mapping[str, Any], typed: Iterable[str] | None = None, missing: str = ""
) -> Chosen:
    """Return a dataclass with what is given by option name; what is None or left out has its default.

    Args:
        kind: the dataclass.
        given: values, read or as they would be typed.
        typed: those that are refused where the group that they belong to is left out; all unless given.
        missing: what to do where one is left out that is needed.

    Raises:
        OptionError: where a value makes no sense, one is missing, or one belongs to a group that is left out.
    """
    given = {name: value for name, value in given.items() if value is not None}
    _refuse_idle(kind, given, given if typed is None else typed)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if "option" in field.metadata:
            one = _named(field)
            if one.name in given:
                values[field.name] = one.read(given[one.name])
            elif one.required:
                raise OptionError(f"{one.flag} is missing: {missing or f'give {one.metavar or one.key.upper()}'}")
        elif "group" in field.metadata:
            inner: _Group = field.metadata["group"]
            chosen = {name: value for name, value in given.items() if name not in inner.without}
            if inner.when is None or inner.when(given):
                values[field.name] = inner.make(build(inner.kind, chosen, typed, inner.missing or missing))
    return kind(**values)


def _refuse_idle(kind: type, given: Mapping[str, Any], typed: Iterable[str]) -> None:
    """Refuse options of groups that are left out: they would silently do nothing."""
    groups = [field.metadata["group"] for field in dataclasses.fields(kind) if "group" in field.metadata]
    used = {name for one in groups if one.when is None or one.when(given) for name in _names(one)}
    used |= {_named(field).name for field in dataclasses.fields(kind) if "option" in field.metadata}
    for one in groups:
        idle = [options_of(kind)[name].flag for name in _names(one) if name in given and name in set(typed) - used]
        if idle and one.when is not None:
            raise OptionError(f"{', '.join(idle)} {one.otherwise}")


def _names(one: _Group) -> list[str]:
    return [name for name in options_of(one.kind) if name not in one.without]


def by_keywords(kind: type, options: Mapping[str, Any], call: str) -> dict[str, Any]:
    """Return the keyword arguments of a Python call by option name. Raises TypeError as Python does for wrong ones."""
    known, given = options_of(kind), {}
    for word, value in options.items():
        name = OTHER_NAMES.get(word, word).rstrip("_")
        if name not in known or name in given:
            raise TypeError(f"{call}() got an unexpected keyword argument '{word}'")
        given[name] = value
    return given


def asking(kind: type, *, without: Iterable[str] = ()) -> Callable[[Function], Function]:
    """Return what gives a function, whose keyword arguments are the options of a dataclass, a signature with them."""

    def told(function: Function) -> Function:
        own = [one for one in inspect.signature(function).parameters.values() if one.kind is not one.VAR_KEYWORD]
        more = (_keyword(name, one) for name, one in options_of(kind).items() if name not in without)
        plain: Any = function
        plain.__signature__ = inspect.signature(function).replace(parameters=[*own, *more])
        return function

    return told


def _keyword(name: str, one: Option) -> inspect.Parameter:
    default = inspect.Parameter.empty if one.required else one.default
    word = f"{name}_" if keyword.iskeyword(name) else name
    return inspect.Parameter(word, inspect.Parameter.KEYWORD_ONLY, default=default)


# --- readers ----------------------------------------------------------------------------------------------------------


def _path(text: str, flag: str) -> Path:
    if not text:
        raise OptionError(f"{flag} must name a file or folder, not ''")
    return Path(text)


def _switch(text: str, flag: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.strip().lower() not in words:
        raise OptionError(f"{flag} must be true or false, not {text!r}")
    return words[text.strip().lower()]


def _name(text: str, flag: str) -> str:
    if not text.strip():
        raise OptionError(f"{flag} must not be empty")
    return text


def whole(least: int | None = None) -> Reader:
    """Return how a whole number is read, at least `least`."""

    def parse(text: str, flag: str) -> int:
        digits = text.strip().removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
            raise OptionError(f"{flag} must be a whole number, not {text[:40]!r}")
        if least is not None and int(text) < least:
            raise OptionError(f"{flag} must be {least} or more, not {int(text)}")
        return int(text)

    return Reader(parse, int, least, schema={"type": "integer"} | ({} if least is None else {"minimum": least}))


def _seconds(text: str, flag: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise OptionError(f"{flag} must be a positive number of seconds, not {text[:40]}")
    return value


def one_of(*names: str, noun: str = "") -> Reader:
    """Return how one of several names is read."""

    def parse(text: str, flag: str) -> str:
        if text not in names:
            known = ", ".join(names)
            told = (
                f"there is no {noun} {text!r}; known are {known}" if noun else f"must be one of {known}, not {text!r}"
            )
            raise OptionError(told if noun else f"{flag} {told}")
        return text

    return Reader(parse, choices=() if noun else names, schema={"enum": list(names)})


def several_of(names: tuple[str, ...], noun: str, order: tuple[str, ...] = ()) -> Reader:
    """Return how a list of names is read; it is put into `order` and has none twice where there is one."""

    def parse(text: str, flag: str) -> tuple[str, ...]:
        found = tuple(name.strip() for name in text.split(",") if name.strip())
        if not found:
            raise OptionError(f"{flag} must name at least one of {', '.join(names)}")
        for name in found:
            if name not in names:
                raise OptionError(f"there is no {noun} '{name}'; known are {', '.join(names)}")
        return tuple(name for name in order if name in found) if order else found

    return Reader(parse)


TEXT: Final = Reader(_name, schema={"type": "string"})
PATH: Final = Reader(
    _path,
    Path,
    placed=lambda value, folder: folder / value,
    schema={"type": "string", "format": "path", "minLength": 1},
)
SWITCH: Final = Reader(_switch, bool, schema={"type": "boolean"})
SECONDS: Final = Reader(_seconds, float, schema={"type": "number", "exclusiveMinimum": 0})
