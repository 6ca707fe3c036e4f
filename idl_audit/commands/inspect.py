"""inspect: a static look at a model file; weights are checked but not read, and nothing is run."""

from __future__ import annotations

from pathlib import Path

from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.subject import describe_conversion, describe_model, named, open_subject
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.graph.reader import read_graph, sniff
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.model import ImplicitModel
from idl_audit.report.schema import Report
from idl_audit.values.errors import MemoryLimitError, UnsupportedModelError


def inspect(path: Path, options: ModelOptions) -> Report:
    """Report on the operators, shapes, states, nonzeros and memory of a model file, and on what is unsupported.

    Raises:
        ModelFileError: where the file cannot be read, or must not be.
        UnsupportedModelError: where it has parts that are not read: other domains, open control flow.
    """
    clock = Clock()
    kind = sniff(path)
    if kind == "npz":
        subject = open_subject(path)
        section = describe_conversion(subject.model, None, None, subject.seconds)
        return framed_report("inspect", clock, model=subject.info, conversion=section)
    with clock.step("read"):
        graph = named(path, lambda: read_onnx(path, outline=True) if kind == "onnx" else read_graph(path))
    problems: tuple[str, ...] = ()
    model: ImplicitModel | None = None
    with clock.step("shapes"):
        try:
            model = build_implicit(graph, output=options.output_name, max_bytes=options.max_bytes)
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
