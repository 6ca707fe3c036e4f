"""inspect: a static look at a model file; weights are checked but not read, and nothing is run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.subject import (
    chosen_inputs,
    describe_conversion,
    describe_model,
    named,
    open_subject,
    refuse_input_options,
)
from idl_audit.graph.inputs import check_chosen
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.graph.original import check_input, chosen_output
from idl_audit.graph.reader import read_graph, sniff
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.model import ImplicitModel
from idl_audit.report.schema import Report
from idl_audit.values.errors import MemoryLimitError, UnsupportedModelError


def inspect(path: Path, options: ModelOptions) -> Report:
    """Report on the operators, shapes, states, nonzeros and memory of a model file, and on what is unsupported.

    Raises:
        ModelFileError: where the file cannot be read, or must not be.
        UnsupportedModelError: where what stands in it cannot be told: tensors of unknown types, empty shapes.
    """
    clock = Clock()
    kind = sniff(path)
    if kind == "npz":
        refuse_input_options(path, options)
        subject = open_subject(path)
        section = describe_conversion(subject.model, None, None, subject.seconds)
        return framed_report("inspect", clock, model=subject.info, conversion=section)
    with clock.step("read"):
        chosen = chosen_inputs(options)
        read = partial(read_onnx, outline=True) if kind == "onnx" else read_graph
        graph = named(path, lambda: read(path, chosen=chosen, whole=False))
    problems: tuple[str, ...] = ()
    model: ImplicitModel | None = None
    with clock.step("shapes"):
        try:
            check_chosen(graph, options.input_name or (), chosen_output(path, graph, options.output_name), path)
            model = build_implicit(graph, output=options.output_name, max_bytes=options.max_bytes)
            if kind == "onnx":
                check_input(path, graph, options.output_name)
        except UnsupportedModelError as error:
            problems = error.problems
        except MemoryLimitError as error:
            problems = (str(error),)
    info = describe_model(path, graph, model, ModelOptions(output_name=options.output_name))
    seconds = clock.timing().total
    return framed_report(
        "inspect",
        clock,
        model=info.model_copy(update={"unsupported": problems}),
        conversion=None if model is None else describe_conversion(model, None, None, seconds),
    )
