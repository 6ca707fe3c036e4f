"""idl-audit inspect."""

from __future__ import annotations

from idl_audit.cli import options as o
from idl_audit.cli.show import check_output, command, deliver
from idl_audit.commands.inspect import InspectOptions
from idl_audit.commands.inspect import inspect as run


@command
def inspect(
    model: o.ModelArgument,
    output_name: o.OutputNameOption = None,
    format: o.FormatOption = o.Format.TABLE,
    output: o.OutputOption = None,
    quiet: o.QuietOption = False,  # the only note, where defaults are taken from, is told before we are called
    verbose: o.VerboseOption = False,
    max_memory: o.MaxMemoryOption = None,
) -> None:
    """Look at a model file without running it: operators, shapes, states, memory, and what is unsupported."""
    check_output(output, read=(model,))
    chosen = InspectOptions(output_name=output_name, max_bytes=o.parse_memory(max_memory))
    deliver(run(model, chosen), format=format, output=output, verbose=verbose)
