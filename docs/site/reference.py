"""Pages of reference, made of the code when the site is built: commands, messages, operators, reports.

Each function returns pages: the name of a file below docs/ -> its Markdown. Nothing of them is committed.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import typer

from idl_audit.cli.app import app
from idl_audit.cli.exits import codes_of
from idl_audit.cli.first_steps import EXAMPLES
from idl_audit.cli.options import parameter_of, signature_of, variables_of
from idl_audit.commands.options import COMMANDS, asked_of
from idl_audit.config.files import TABLES, keys_of
from idl_audit.implicit import as_written
from idl_audit.implicit.lowering import LOWERINGS
from idl_audit.implicit.lowering.refusals import REFUSED
from idl_audit.implicit.lowering.sequences import SEQUENCES
from idl_audit.report.codes import CODES, WORDS, Code
from idl_audit.values.options import Option, options_of

FAMILIES = {
    "1": "Samples, labels and units",
    "2": "Verdicts",
    "3": "Sensitivity and conversion",
    "4": "Bounds",
    "5": "Properties",
    "6": "Training",
}
"""First digit of a diagnostic code -> what it is about."""


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, in a cell of a table as well."""
    return re.sub(r"([\\`*_{}\[\]|#])", r"\\\1", html.escape(text, quote=False))


def prose(text: str) -> str:
    """Return a help or a message in Markdown: pieces in backticks and options are code, all else is as it is."""
    parts = re.split(r"`([^`]+)`|(?<![\w-])(--[a-z][\w-]*)", text)
    plain, pieces = parts[::3], [one or other for one, other in zip(parts[1::3], parts[2::3], strict=True)]
    return "".join(escaped(between) + code(piece) for between, piece in zip(plain, pieces, strict=False)) + escaped(
        plain[-1]
    )


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """Return text as a piece of code, in a cell of a table as well."""
    return f"`{text}`".replace("|", "\\|")


# --- commands ---------------------------------------------------------------------------------------------------------


def commands() -> dict[str, str]:
    """Return a page for each command."""
    found = typer.main.get_command(app).commands
    return {f"commands/{name}.md": command_page(name, str(found[name].help)) for name in COMMANDS}


def command_page(name: str, help: str) -> str:
    """Return the page of a command: what it does, examples, options, exit codes."""
    options = {parameter_of(one.name): one for one in options_of(asked_of(name)).values()}
    declared = [options[parameter] for parameter in signature_of(name).parameters if parameter in options]
    parts = [f"# {name}", *(prose(part) for part in help.split("\n\n"))]
    if name in EXAMPLES:
        parts.append("```\n" + "\n".join(EXAMPLES[name]) + "\n```")
    arguments = [one for one in declared if one.positional]
    if arguments:
        rows = ([code(one.name.upper()), "yes" if one.required else "", prose(one.help)] for one in arguments)
        parts += ["## Arguments", table(("argument", "needed", ""), rows)]
    for panel in dict.fromkeys(one.panel for one in declared if not one.positional):
        rows = (_option_row(one) for one in declared if one.panel == panel and not one.positional)
        parts += [f"## {panel or 'Options'}", table(("option", "default", ""), rows)]
    parts += ["## Exit codes", table(("code", "means"), ([f"{c:d}", prose(t)] for c, t in codes_of(name).items()))]
    parts += _other_ways(name, declared)
    return "\n\n".join(parts) + "\n"


def _option_row(one: Option) -> list[str]:
    flags = [f"--{one.key}", *one.flags, *([one.off] if one.off else [])]
    value = one.metavar or "\\|".join(one.reader.choices)
    shown = ", ".join(map(code, flags)) + (f" {escaped(value)}" if value and "\\|" not in value else "")
    choices = f" One of: {', '.join(map(code, one.reader.choices))}." if one.reader.choices else ""
    default = "needed" if one.required else "" if one.default in (None, False, ()) else code(_text(one.default))
    return [shown, default, prose(one.help) + choices]


def _text(value: object) -> str:
    return "on" if value is True else str(value)


def _other_ways(name: str, declared: list[Option]) -> Iterator[str]:
    """Say where else the options can be given."""
    yield "## In a file, the environment, Python"
    variables = next((found[0] for one in declared if (found := variables_of(name, one))), None)
    told = "Every option has the same name, default and spelling everywhere."
    if variables is not None:
        told += f" In the environment: `{variables}` and so on."
    if name in TABLES:
        told += f" In [`idl-audit.toml`](../ci.md#the-configuration): under `[{name}]`, without the dashes."
        absent = [one.key for one in declared if not one.positional and one.key not in _keys(name)]
        if absent:
            told += f" On the command line alone: {', '.join(code(f'--{key}') for key in absent)}."
    yield told


def _keys(name: str) -> set[str]:
    return {key for place in (name, "defaults") for key in keys_of(place)}


# --- messages ---------------------------------------------------------------------------------------------------------


def messages() -> dict[str, str]:
    """Return a page for each diagnostic code, one for the words of verdicts, and the list of all."""
    pages = {f"codes/{name}.md": f"# {name}: {entry.title}\n\n{_explained(entry)}\n" for name, entry in CODES.items()}
    pages["codes/words.md"] = "# Words of verdicts\n\nA verdict, and why one is unknown.\n\n" + "\n\n".join(
        f"## {escaped(name)}\n\n{_explained(entry)}" for name, entry in WORDS.items()
    )
    pages["codes/README.md"] = code_list()
    return pages


def _explained(entry: Code) -> str:
    return f"{prose(entry.meaning)}\n\n**What to do.** {prose(entry.advice)}"


def code_list() -> str:
    """Return the list of all diagnostic codes."""
    parts = [
        "# Messages",
        "A warning or a report names a code, and `idl-audit explain CODE` prints its entry. The words of verdicts, "
        "such as `node_limit`, have [a page of their own](words.md).",
    ]
    for digit, family in FAMILIES.items():
        rows = [
            [f"[{name}]({name}.md)", escaped(entry.title)]
            for name, entry in CODES.items()
            if name.startswith(f"IDL{digit}")
        ]
        parts += [f"## {family}", table(("code", ""), rows)]
    return "\n\n".join(parts) + "\n"


# --- operators and reports --------------------------------------------------------------------------------------------


def operators() -> dict[str, str]:
    """Return the table of every operator that is read, and of every one that is refused."""
    lists = dict.fromkeys(SEQUENCES, "sequences")
    read = {name: lowering.__module__.rsplit(".", 1)[1] for name, lowering in LOWERINGS.items()} | lists
    rows = ([name, read[name].replace("_", " "), "yes" if name in as_written._RULES else "no"] for name in sorted(read))
    refused = ([name, prose(why.what), prose(why.instead)] for name, why in sorted(REFUSED.items()))
    return {
        "operators-a-z.md": "\n\n".join(
            (
                "# Operators from A to Z",
                f"{len(read)} operators are read. [What is read](operators.md) has them by family, with limits.",
                table(("operator", "family", "float32 rounding is bounded"), rows),
                "## Refused",
                "A model that has one of these on the way from its inputs to its output is refused, with this advice.",
                table(("operator", "what it does", "what would work"), refused),
            )
        )
        + "\n"
    }


def reports(folder: Path) -> dict[str, str]:
    """Return the list of the committed reports."""
    rows = []
    for path in sorted(folder.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        made = re.search(r"`(python -m [^`]+)`", text)
        rows.append([f"[{text.splitlines()[0].lstrip('# ')}]({path.name})", code(made[1]) if made else ""])
    audits = [f"[{path.stem}]({path.name})" for path in sorted(folder.glob("*.txt"))]
    return {
        "reports/README.md": "\n\n".join(
            (
                "# Reports",
                "What the scripts in `benchmarks/` wrote, each with the machine and the versions that it names.",
                table(("report", "made by"), rows),
                "Audits as they look on a terminal: " + ", ".join(audits) + ".",
            )
        )
        + "\n"
    }


def pages(root: Path) -> Mapping[str, str]:
    """Return all pages of reference."""
    return {**commands(), **messages(), **operators(), **reports(root / "reports")}
