"""--resume: weights alone are not the network; the code that --arch names is part of it."""

from __future__ import annotations

from dataclasses import replace

from idl_audit.audit.robustness import RobustnessOptions, _key
from idl_audit.audit.samples import DataOptions
from idl_audit.audit.subject import ModelOptions, open_subject
from idl_audit.data.numbers import parse_eps
from idl_audit.graph.torch_reader import TorchOptions
from tests.audit.test_jobs import DATA, MODEL


def test_the_key_of_a_journal_names_the_network_that_the_code_made():
    subject = open_subject(MODEL, ModelOptions())
    graph = subject.graph
    assert graph is not None
    options = RobustnessOptions(
        eps=parse_eps("0.01"), data=DataOptions(DATA), model=ModelOptions(torch=TorchOptions("made:here"))
    )

    def model_of(graph):
        return _key("certify", replace(subject, graph=graph), [], None, options)["model"]

    at = next(i for i, node in enumerate(graph.nodes) if node.op == "Relu")
    bent = [replace(node, op="Tanh") if i == at else node for i, node in enumerate(graph.nodes)]
    name = min(graph.constants)
    moved = {**graph.constants, name: graph.constants[name] + 1}
    assert model_of(graph) == model_of(replace(graph, nodes=tuple(graph.nodes)))
    assert model_of(replace(graph, nodes=tuple(bent))) != model_of(graph)
    assert model_of(replace(graph, constants=moved)) != model_of(graph)
