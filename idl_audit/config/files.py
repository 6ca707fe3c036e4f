"""Reading a configuration; what is wrong in it is told with its key, and the key that was meant."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from idl_audit.config.finding import FILE, PROJECT
from idl_audit.config.settings import Settings, Table
from idl_audit.values.errors import OptionError
from idl_audit.values.text import decoded

_LARGEST: Final = 10**6
_ADVICE: Final = "write a configuration with `idl-audit init MODEL DATA`"

_OF_MODELS: Final = ("model", "scale", "mean", "std", "output-name", "arch", "input-shape", "max-memory", "seed")
"""Defaults of commands that ask about a model at all inputs: they have samples only where they are told so."""

_PATHS: Final = frozenset(
    {"model", "data", "labels", "sigma", "save", "certificates", "images", "witness", "baseline", "output", "reports"}
)

_COMMAND_LINE_ONLY: Final = frozenset({"allow-code-execution"})


@dataclass(frozen=True)
class Configuration:
    """A configuration and the file that it comes from."""

    path: Path
    settings: Settings

    def options(self, command: str) -> dict[str, Any]:
        """Return the option values that the file has for a command, by option name without dashes.

        Relative files start at the configuration's folder.
        """
        shared = self.settings.defaults.given()
        chosen: dict[str, Any] = {}
        on_samples = command == "sensitivity" and self.settings.sensitivity.eps is not None
        if on_samples or command in ("certify", "attack", "bounds", "run"):
            chosen = shared
        elif command in ("sensitivity", "convert", "inspect"):
            chosen = {key: value for key, value in shared.items() if key in _OF_MODELS}
        return self._placed(chosen) | self.table(command)

    def table(self, name: str) -> dict[str, Any]:
        """Return what the file says in the table of a command, by key."""
        found = getattr(self.settings, name, None)
        return self._placed(found.given()) if isinstance(found, Table) else {}

    def _placed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self._place(value) if key in _PATHS else value for key, value in values.items()}

    def _place(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._place(entry) for entry in value)
        return str(self.path.parent / value)


def read_configuration(path: Path) -> Configuration:
    """Return the configuration in a file.

    Raises:
        OptionError: where it cannot be read, is no TOML, or has unknown keys or values that make no sense; all of
            them are named.
    """
    document = _document(path)
    if path.name == PROJECT:
        tool = document.get("tool")
        if not isinstance(tool, dict) or "idl-audit" not in tool:
            raise OptionError(f"{path} has no table [tool.idl-audit]; write one, or make {FILE} with `idl-audit init`")
        document = tool["idl-audit"]
    try:
        return Configuration(path, Settings.model_validate(document))
    except ValidationError as error:
        raise OptionError(f"{path}: {'; '.join(_complaints(error))}") from None


def _document(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise OptionError(f"{path} is no regular file; give a configuration such as {FILE}")
        if path.is_file() and os.path.getsize(path) > _LARGEST:
            raise OptionError(f"{path} is longer than {_LARGEST} bytes; no configuration is")
        return tomllib.loads(decoded(path.read_bytes(), path, _ADVICE, OptionError))
    except FileNotFoundError:
        raise OptionError(f"{path}: no such file; {_ADVICE}") from None
    except OSError as error:
        raise OptionError(f"{path} cannot be read ({error.strerror}); give another file") from None
    except RecursionError:
        raise OptionError(f"{path} is nested too deeply; no configuration is") from None
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"{path} is no TOML: {error}; mend it there") from None


def _complaints(error: ValidationError) -> Iterator[str]:
    for found in error.errors(include_url=False, include_input=False, include_context=False):
        where = [str(part) for part in found["loc"]]
        if found["type"] == "extra_forbidden":
            yield _unknown(where)
        else:
            name = ".".join(where) or "the whole"
            yield f"{name} is refused ({found['msg'].removeprefix('Value error, ')})"


def _unknown(where: list[str]) -> str:
    *tables, key = where
    if key in _COMMAND_LINE_ONLY or key.replace("_", "-") in _COMMAND_LINE_ONLY:
        option = key.replace("_", "-")
        return f"{option} is never taken from a file; give --{option} on the command line where you trust the code"
    model: type[Table] = type(getattr(Settings(), tables[0])) if tables else Settings
    known = [field.alias or name for name, field in model.model_fields.items()]
    near = difflib.get_close_matches(key.replace("_", "-").lower(), known, n=1)
    place = f"[{'.'.join(tables)}]" if tables else "the file"
    if near:
        return f"{place} has the unknown key '{key}'; did you mean '{near[0]}'?"
    homes = [name for name in Settings.model_fields if key in _keys(getattr(Settings(), name))]
    if homes:
        return f"{place} has the unknown key '{key}'; it belongs to [{homes[0]}]"
    return f"{place} has the unknown key '{key}'; known are {', '.join(known)}"


def _keys(table: Table) -> list[str]:
    return [field.alias or name for name, field in type(table).model_fields.items()]
