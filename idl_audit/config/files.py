"""Configurations: every key is an option without its dashes; what is wrong is told with the key that was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from idl_audit.commands.options import COMMANDS, asked_of
from idl_audit.commands.options.everywhere import EverywhereOptions
from idl_audit.commands.options.reading import DataOptions
from idl_audit.config.finding import CONFIGURED, FILE, PROJECT
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.values.errors import OptionError
from idl_audit.values.options import OTHER_NAMES, Option, options_of
from idl_audit.values.text import read_toml

_LARGEST: Final = 10**6
_ADVICE: Final = "write a configuration with `idl-audit init MODEL DATA`"

SHARED: Final = "defaults"
"""The table of the options that `run` has; a command's own table has those of its options that are not among them."""

_AT_ALL_INPUTS: Final = ("sensitivity", "convert")
"""Commands that ask about a model at all inputs: they have samples only where they are told so."""

_OF_SAMPLES: Final = (options_of(DataOptions).keys() - options_of(Preprocessing).keys()) | {"bounds", "eps"}


AUDITS: Final = "audit"
"""The list of tables [[audit]]: what `run` does several times, each with keys before those of the file."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAMES: Final = "letters, digits, dots, dashes and underscores, 64 at most"


WHOLE: Final = "everywhere"
"""The table of what is asked of whole ranges: by the step of `run` of that name, and by certify --everywhere."""

TABLES: Final = (SHARED, *(name for name in CONFIGURED if name != "inspect"), WHOLE)


@cache
def keys_of(table: str) -> Mapping[str, Option]:
    """Return the options of a table by key."""
    if table == SHARED:
        return {one.key: one for one in options_of(asked_of("run")).values() if one.in_file and not one.own}
    if table == WHOLE:  # --monotone is not taken from [certify], whose samples are then asked something else
        some = [one for one in options_of(EverywhereOptions).values() if one.in_file or one.name == "monotone"]
        return {one.key: one for one in some if one.own or one.key not in keys_of(SHARED)}
    declared = options_of(asked_of(table)).values()
    return {one.key: one for one in declared if one.in_file and (one.own or one.key not in keys_of(SHARED))}


Tables: TypeAlias = "Mapping[str, Mapping[str, Any]]"
"""Table -> option by name -> value, read; relative files start at the configuration's folder."""


@dataclass(frozen=True)
class Audit:
    """One of several audits: what it has other than the rest of the file."""

    name: str
    tables: Tables


@dataclass(frozen=True)
class Configuration:
    """A configuration and the file that it comes from."""

    path: Path
    tables: Tables
    audits: tuple[Audit, ...] = ()

    def of(self, audit: Audit) -> Configuration:
        """Return the configuration of one audit: its own keys before the file's."""
        names = dict.fromkeys((*self.tables, *audit.tables))
        return Configuration(self.path, {name: self.table(name) | dict(audit.tables.get(name, {})) for name in names})

    def options(self, command: str) -> dict[str, Any]:
        """Return what the file has for a command, by option."""
        if command not in CONFIGURED:
            return {}
        own, known = self.table(command), options_of(asked_of(command))
        left_out = _OF_SAMPLES if command in _AT_ALL_INPUTS and "eps" not in own else ()
        usual = self.table(SHARED).items()
        return {name: value for name, value in usual if name in known and name not in left_out} | own

    def table(self, name: str) -> dict[str, Any]:
        """Return what the file says in a table, by option."""
        return dict(self.tables.get(name, {}))


def read_configuration(path: Path) -> Configuration:
    """Return the configuration in a file.

    Raises:
        OptionError: where it cannot be read, is no TOML, or has unknown keys or values that make no sense; all of
            them are named.
    """
    document = read_toml(path, "configuration", _ADVICE, most=_LARGEST)
    if path.name == PROJECT:
        tool = document.get("tool")
        if not isinstance(tool, dict) or "idl-audit" not in tool:
            raise OptionError(f"{path} has no table [tool.idl-audit]; write one, or make {FILE} with `idl-audit init`")
        document = tool["idl-audit"]
    tables: dict[str, dict[str, Any]] = {}
    audits: list[Audit] = []
    wrong = list(_read_tables(document, tables, path.parent, audits))
    if wrong:
        raise OptionError(f"{path}: {'; '.join(wrong)}")
    return Configuration(path, tables, tuple(audits))


def _read_tables(
    document: Any, tables: dict[str, dict[str, Any]], folder: Path, audits: list[Audit] | None = None
) -> Iterator[str]:
    """Fill `tables` and, where there may be some, `audits`, and yield what is wrong."""
    if not isinstance(document, dict):
        yield "the whole is refused (tables are needed)"
        return
    for name, entries in document.items():
        if name == AUDITS and audits is not None:
            yield from _read_audits(entries, audits, folder)
        elif name not in TABLES:
            yield _unknown("the file", name, TABLES)
        elif not isinstance(entries, dict):
            yield f"{name} is refused (a table is needed: write [{name}])"
        else:
            tables[name] = {}
            yield from _read_table(name, entries, tables[name], folder)


def _read_audits(entries: Any, audits: list[Audit], folder: Path) -> Iterator[str]:
    """Fill `audits`, and yield what is wrong."""
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries) or not entries:
        yield f"{AUDITS} is refused (a list of tables is needed: write [[{AUDITS}]])"
        return
    for number, entry in enumerate(entries, 1):
        name = entry.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            yield f"[[{AUDITS}]] number {number} needs a name of its own: name = '...', of {_NAMES}"
            continue
        if name.lower() in [one.name.lower() for one in audits]:  # reports are files called like it
            yield f"[[{AUDITS}]] has the name '{name}' twice; give each its own"
        flat = {key: value for key, value in entry.items() if key != "name" and not isinstance(value, dict)}
        own = {key: value for key, value in flat.items() if OTHER_NAMES.get(key, key) in keys_of("run")}
        tables = {key: value for key, value in entry.items() if isinstance(value, dict)}
        tables["run"] = {**tables.get("run", {}), **own}
        tables[SHARED] = {**tables.get(SHARED, {}), **{key: flat[key] for key in flat if key not in own}}
        found: dict[str, dict[str, Any]] = {}
        yield from (f"{AUDITS} '{name}': {one}" for one in _read_tables(tables, found, folder))
        audits.append(Audit(name, found))


def _read_table(table: str, entries: Mapping[str, Any], found: dict[str, Any], folder: Path) -> Iterator[str]:
    for key, value in entries.items():
        one = keys_of(table).get(OTHER_NAMES.get(key, key))
        if one is None:
            yield _unknown(f"[{table}]", key, keys_of(table))
        elif one.name in found:
            yield f"{table} is refused ({one.key} and {key} are two names of the same option: leave {key} out)"
        else:
            try:
                found[one.name] = _placed(one, one.read(value), folder)
            except OptionError as error:
                yield f"{table}.{key} is refused ({error})"


def _placed(one: Option, value: Any, folder: Path) -> Any:
    place = one.reader.placed
    return tuple(place(entry, folder) for entry in value) if one.several else place(value, folder)


def _unknown(place: str, key: str, known: Iterable[str]) -> str:
    plain = key.replace("_", "-")
    only = [one for name in COMMANDS for one in options_of(asked_of(name)).values() if not one.in_environment]
    if plain in [one.key for one in only if one.typed]:
        return f"{plain} is never taken from a file; give --{plain} on the command line where you trust the code"
    if plain == "everywhere":
        return (
            "statements over whole ranges are asked by the step everywhere of run, or by certify MODEL --everywhere; "
            "write what is asked, such as never and features, in a table [everywhere]"
        )
    near = difflib.get_close_matches(plain.lower(), list(known), n=1)
    if near:
        return f"{place} has the unknown key '{key}'; did you mean '{near[0]}'?"
    homes = [table for table in TABLES if key in keys_of(table)]
    if homes:
        return f"{place} has the unknown key '{key}'; it belongs to [{homes[0]}]"
    return f"{place} has the unknown key '{key}'; known are {', '.join(known)}"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration."""
    tables = {name: _object({key: _described(one) for key, one in keys_of(name).items()}) for name in TABLES}
    named = {"type": "string", "pattern": f"^{_NAME.pattern}$", "description": f"Of {_NAMES}; its report is NAME.json."}
    flat = {key: _described(one) for name in (SHARED, "run") for key, one in keys_of(name).items()}
    audit = {**_object({"name": named, **flat, **tables}), "required": ["name"]}
    audits = {
        "type": "array",
        "minItems": 1,
        "description": "What run does for each model and data set.",
        "items": audit,
    }
    whole = {**tables, AUDITS: audits}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "idl-audit.toml", **_object(whole)}


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _described(one: Option) -> dict[str, Any]:
    plain = {"type": ["string", "number"]}
    value = one.reader.schema or {"anyOf": [plain, {"type": "array", "items": plain}]}
    if one.several:
        value = {"anyOf": [value, {"type": "array", "items": value}]}
    usual = {} if one.default is None or one.required or one.default == () else {"default": one.default}
    return {"description": one.help.replace("\\[", "["), **value, **usual}
