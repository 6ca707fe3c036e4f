"""Losses of certified training for people with their own loop: over boxes around samples, for modules of PyTorch.

    >>> import torch
    >>> from idl_audit import losses
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x, y = torch.rand(10, 4), torch.arange(10) % 3
    >>> loss = losses.mtl_ibp(net, x, y, eps=0.1, a=0.2, bounds=(0, 1)) + 1e-3 * losses.norm_of_S(net, x)
    >>> loss.backward()
    >>> bool(net[0].weight.grad.abs().sum() > 0)
    True

The module is exported once, for evaluation (batch norms use their running statistics), and what is computed then
follows its parameters: operators that cannot be trained through are refused by name. Nothing is claimed from a loss;
verdicts are for `idl_audit.certify`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from idl_audit.graph.torch_reader import unfused_graph
from idl_audit.training import losses as of_batches
from idl_audit.training.losses import Batch
from idl_audit.training.network import Twin
from idl_audit.training.spans import around

if TYPE_CHECKING:
    from torch.nn import Module

Bounds = tuple[float, float] | None

_TWINS: WeakKeyDictionary[Any, Twin] = WeakKeyDictionary()


def follow(module: Module, example: Tensor) -> Twin:
    """Return the twin of a module: its graph, whose weights are the module's own parameters; made once a module.

    Args:
        module: the network.
        example: an input with a batch axis, of whatever batch.

    Raises:
        UnsupportedModelError: where it cannot be exported, or has an operator that cannot be trained through.
    """
    if module not in _TWINS:
        mode = module.training
        graph = unfused_graph(module.eval(), example[:1].detach(), type(module).__name__)
        module.train(mode)
        twin = Twin.of(graph, graph.outputs[0].name, (1, *example.shape[1:]))
        own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        twin.constants.update({name: own[name] for name in twin.constants if name in own})
        twin.weights = {name: own[name] for name in twin.weights if name in own}
        _TWINS[module] = twin
    return _TWINS[module]


def ibp(module: Module, x: Tensor, y: Tensor, eps: float | Tensor, *, bounds: Bounds = None) -> Tensor:
    """Return the mean cross-entropy of the worst margins over boxes, by intervals (Gowal et al. 2018).

    Args:
        module: the network.
        x: samples, (n, ...), as the module reads them.
        y: their classes, (n,).
        eps: the radius in these units, or one for each entry of a sample.
        bounds: the valid range, which boxes are cut to.
    """
    return _of(module, x, y, eps, bounds, of_batches.ibp)


def adversarial(
    module: Module, x: Tensor, y: Tensor, eps: float | Tensor, *, bounds: Bounds = None, steps: int = 3, seed: int = 0
) -> Tensor:
    """Return the mean cross-entropy at attacked points (Madry et al. 2018). Arguments as of `mtl_ibp`."""
    return _of(module, x, y, eps, bounds, partial(of_batches.adversarial, steps=steps, generator=_chance(seed)))


def mtl_ibp(
    module: Module,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    a: float = 0.1,
    *,
    bounds: Bounds = None,
    steps: int = 1,
    seed: int = 0,
) -> Tensor:
    """Return (1 - a) times the loss at attacked points plus a times that of intervals (De Palma et al. 2024).

    Args:
        module: the network.
        x: samples, (n, ...), as the module reads them.
        y: their classes, (n,).
        eps: the radius in these units, or one for each entry of a sample.
        a: the share of intervals.
        bounds: the valid range, which boxes are cut to.
        steps: of the attack.
        seed: of the attack's start; give another one for every batch.
    """
    return _of(module, x, y, eps, bounds, partial(of_batches.mtl_ibp, a=a, steps=steps, generator=_chance(seed)))


def sabr(
    module: Module,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    a: float = 0.3,
    *,
    bounds: Bounds = None,
    steps: int = 3,
    seed: int = 0,
) -> Tensor:
    """Return the loss of intervals over boxes a times as wide around attacked points (Mueller et al. 2023)."""
    return _of(module, x, y, eps, bounds, partial(of_batches.sabr, a=a, steps=steps, generator=_chance(seed)))


def norm_of_S(module: Module, x: Tensor) -> Tensor:
    """Return ||S||_inf: how far a score moves at most where every input moves by 1, wherever it is (paper 4.3).

    Raises:
        UnsupportedModelError: where nothing bounds how far an operator moves its result.
    """
    return of_batches.PENALTIES["S"](follow(module, x), torch.ones(()))


def rho(module: Module, x: Tensor) -> Tensor:
    """Return the paper's bound (4.7) with the best scales, without its constant: the product of layers' norms.

    Raises:
        UnsupportedModelError: where nothing bounds how far an operator moves its result.
    """
    return of_batches.PENALTIES["rho"](follow(module, x), torch.ones(()))


def _of(
    module: Module, x: Tensor, y: Tensor, eps: float | Tensor, bounds: Bounds, loss: Callable[[Twin, Batch], Tensor]
) -> Tensor:
    radius = torch.as_tensor(eps, dtype=x.dtype)
    valid = None if bounds is None else (torch.tensor(float(bounds[0])), torch.tensor(float(bounds[1])))
    return loss(follow(module, x), Batch(x, y, *around(x, radius, 1.0, valid)))


def _chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
