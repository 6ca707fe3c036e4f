"""Commands made of their options; what does the work is imported when it is to be done: --help waits for nothing."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator, Mapping, MutableMapping
from functools import partial
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperArgument
from typer.main import get_command

from idl_audit.cli.options import given_to, signature_of
from idl_audit.cli.show import guarded
from idl_audit.commands.options import asked_of


class LazyCommands(MutableMapping[str, Any]):
    """The commands by name, each built on first use.

    Args:
        modules: command -> module of idl_audit.cli that has a function of that name (with underscores), which takes
            its options built or, where its argument is called so, as they are `given`.
        built: commands that exist already.
    """

    def __init__(self, modules: Mapping[str, str], built: Mapping[str, Any]) -> None:
        self._modules = dict(modules)
        self._built = dict(built)

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = self._build(name)
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        self._built.pop(name, None)
        self._modules.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._modules or name in self._built

    def __iter__(self) -> Iterator[str]:
        yield from self._modules
        yield from (name for name in self._built if name not in self._modules)

    def __len__(self) -> int:
        return len(self._modules.keys() | self._built.keys())

    def _build(self, name: str) -> Any:
        call: Any = guarded(partial(self._do, name))
        call.__annotations__, call.__signature__ = {}, signature_of(name)
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
        alone.command(name, help=_flowing(inspect.getdoc(asked_of(name)) or ""))(call)
        command = get_command(alone)
        for option in command.params:
            if isinstance(option, TyperArgument) and option.metavar is None:
                option.metavar = str(option.name).upper()
        return command

    def _do(self, name: str, ctx: typer.Context) -> None:
        given = given_to(ctx)
        function = getattr(import_module(f"idl_audit.cli.{self._modules[name]}"), name.replace("-", "_"))
        if not gc.isenabled():  # in a process of our own, see `__main__`: what is loaded by now stays
            gc.freeze()
            gc.enable()
        function(given if "given" in inspect.signature(function).parameters else given.build())


def _flowing(text: str) -> str:
    """Return a docstring's paragraphs without their line breaks: the terminal decides where lines end."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
