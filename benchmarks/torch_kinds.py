"""KINDS: about 70 small torch classifiers, one for each kind of layer that people export; four classes each.

Each entry makes a module with random weights and the shapes of its inputs. `export_table` exports them with both of
torch's exporters, at their usual and oldest operator sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

Shapes: TypeAlias = tuple[tuple[int, ...], ...]
Tensor: TypeAlias = torch.Tensor

VECTOR: Final[Shapes] = ((1, 8),)
IMAGE: Final[Shapes] = ((1, 2, 8, 8),)
SEQUENCE: Final[Shapes] = ((1, 5, 4),)


class Apply(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        """Take the function."""
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        """Apply it."""
        return self.function(*tensors)


def vectors(*middle: nn.Module, width: int = 6, out: int | None = None) -> nn.Module:
    """Return Linear, the layers, Linear."""
    return nn.Sequential(nn.Linear(8, width), *middle, nn.Linear(width if out is None else out, 4))


def images(*middle: nn.Module, features: int) -> nn.Module:
    """Return Conv2d with 4 channels, the layers, Linear."""
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *middle, nn.Flatten(), nn.Linear(features, 4))


def of(function: Callable[..., Tensor], **options: int) -> nn.Module:
    """Return a network of vectors with a function in the middle."""
    return vectors(Apply(function), **options)


class Recurrent(nn.Module):
    """A recurrent layer and a linear head on its last output."""

    def __init__(self, layer: nn.Module, features: int) -> None:
        """Take the layer, batch first."""
        super().__init__()
        self.layer, self.head = layer, nn.Linear(features, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the last step."""
        y, _ = self.layer(x)
        return self.head(y[:, -1])


class CellLoop(nn.Module):
    """LSTM cells in a loop."""

    def __init__(self) -> None:
        """Make the cell."""
        super().__init__()
        self.cell, self.head = nn.LSTMCell(4, 3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Run over the five steps."""
        h = c = torch.zeros(x.shape[0], 3)
        for t in range(5):
            h, c = self.cell(x[:, t], (h, c))
        return self.head(h)


class SelfAttention(nn.Module):
    """Multi-head attention and a linear head on the mean of its tokens."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Attend to itself."""
        y, _ = self.attention(x, x, x, need_weights=False)
        return self.head(y.mean(dim=1))


class Transformer(nn.Module):
    """A transformer layer and a linear head on the mean of its tokens."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Encode."""
        return self.head(self.layer(x).mean(dim=1))


class SwiGLU(nn.Module):
    """silu(W x) * V x."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.gate, self.value, self.head = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Gate."""
        return self.head(F.silu(self.gate(x)) * self.value(x))


class SqueezeExcite(nn.Module):
    """Channels weighted by a gate of their means."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.down, self.up = nn.Linear(4, 2), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels."""
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean(dim=(2, 3))))))
        return x * gate[:, :, None, None]


class UNet(nn.Module):
    """One step down, one up, with a skip connection."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.down, self.up = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.last, self.head = nn.Conv2d(4, 2, 3, padding=1), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Go down and up."""
        y = self.up(F.relu(self.down(x)))
        return self.head(torch.flatten(F.relu(self.last(torch.cat([x, y], dim=1))), 1))


class Bilinear(nn.Module):
    """x^T W_k y of two halves."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.layer, self.head = nn.Bilinear(4, 4, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Combine the halves."""
        return self.head(self.layer(x[:, :4], x[:, 4:]))


class GraphConvolution(nn.Module):
    """relu(A X W) with a constant adjacency."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.adjacency = nn.Parameter(torch.softmax(torch.randn(5, 5), dim=1), requires_grad=False)
        self.weight, self.head = nn.Linear(4, 3), nn.Linear(15, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Pass messages."""
        return self.head(torch.flatten(F.relu(self.adjacency @ self.weight(x)), 1))


class EinsumConstant(nn.Module):
    """einsum with a constant."""

    def __init__(self) -> None:
        """Make the weights."""
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.randn(4, 3)), nn.Linear(15, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Contract."""
        return self.head(torch.flatten(torch.relu(torch.einsum("btc,cd->btd", x, self.weight)), 1))


class TwoInputs(nn.Module):
    """Two vectors, joined."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 4), nn.Linear(3, 4), nn.Linear(8, 4)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Join."""
        return self.head(F.relu(torch.cat([self.first(a), self.second(b)], dim=1)))


class Embedding(nn.Module):
    """A vector of soft choices times a table of embeddings."""

    def __init__(self) -> None:
        """Make the table."""
        super().__init__()
        self.table, self.head = nn.Embedding(8, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the rows of the table."""
        return self.head(F.relu(x @ self.table.weight))


class SignNet(nn.Module):
    """A hidden layer of signs."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.first, self.head = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Take signs."""
        return self.head(torch.sign(self.first(x)))


class ArgMax(nn.Module):
    """The class instead of the scores."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.layers = vectors(nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Name the class."""
        return torch.argmax(self.layers(x), dim=1)


class TopK(nn.Module):
    """The sum of the largest two beside all scores."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.first, self.head = nn.Linear(8, 6), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Take the largest."""
        return self.head(torch.topk(self.first(x), 2, dim=1).values)


class CosineSimilarity(nn.Module):
    """Cosines with four prototypes."""

    def __init__(self) -> None:
        """Make the prototypes."""
        super().__init__()
        self.first, self.prototypes = nn.Linear(8, 6), nn.Parameter(torch.randn(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        """Compare."""
        return F.cosine_similarity(self.first(x)[:, None, :], self.prototypes[None], dim=2)


class Standardised(nn.Module):
    """(x - mean) / standard deviation of each sample."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.first, self.head = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Standardise."""
        z = self.first(x)
        return self.head((z - z.mean(dim=1, keepdim=True)) / (z.std(dim=1, keepdim=True) + 1e-3))


def _positive(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """Return a network with a function of numbers above 1/2."""
    return of(lambda z: function(torch.sigmoid(z) + 0.5))


Make: TypeAlias = Callable[[], nn.Module]

_OF_VECTORS: Final[Mapping[str, Make]] = {
    "softmax in the middle": lambda: vectors(nn.Softmax(dim=1)),
    "log-softmax in the middle": lambda: vectors(nn.LogSoftmax(dim=1)),
    "softmin": lambda: vectors(nn.Softmin(dim=1)),
    "SwiGLU": SwiGLU,
    "GLU": lambda: vectors(nn.GLU(dim=1), out=3),
    "layer norm": lambda: vectors(nn.LayerNorm(6), nn.ReLU()),
    "RMS norm": lambda: vectors(nn.RMSNorm(6), nn.ReLU()),
    "batch norm": lambda: vectors(nn.BatchNorm1d(6), nn.ReLU()),
    "sin": lambda: of(torch.sin),
    "cos": lambda: of(torch.cos),
    "tan": lambda: of(lambda z: torch.tan(torch.tanh(z))),
    "atan": lambda: of(torch.atan),
    "square": lambda: of(torch.square),
    "cube": lambda: of(lambda z: z**3),
    "x * x": lambda: of(lambda z: z * z),
    "product of neighbours": lambda: of(lambda z: z[:, :-1] * z[:, 1:], out=5),
    "exp": lambda: of(torch.exp),
    "log": lambda: _positive(torch.log),
    "sqrt": lambda: _positive(torch.sqrt),
    "reciprocal": lambda: _positive(torch.reciprocal),
    "division": lambda: of(lambda z: z / (1 + z.abs().sum(dim=1, keepdim=True))),
    "sign network": SignNet,
    "step": lambda: of(lambda z: (z > 0).to(z.dtype)),
    "where": lambda: of(lambda z: torch.where(z > 0.3, z, -z)),
    "floor": lambda: of(lambda z: torch.floor(4 * z)),
    "round": lambda: of(lambda z: torch.round(4 * z)),
    "argmax": ArgMax,
    "top-k": TopK,
    "cumsum": lambda: of(lambda z: torch.relu(torch.cumsum(z, dim=1))),
    "cosine similarity": CosineSimilarity,
    "bilinear layer": Bilinear,
    "embedding": Embedding,
    "ReLU6": lambda: vectors(nn.ReLU6()),
    "hardtanh": lambda: vectors(nn.Hardtanh()),
    "hardswish": lambda: vectors(nn.Hardswish()),
    "GELU": lambda: vectors(nn.GELU()),
    "GELU by tanh": lambda: vectors(nn.GELU(approximate="tanh")),
    "SiLU": lambda: vectors(nn.SiLU()),
    "Mish": lambda: vectors(nn.Mish()),
    "softplus": lambda: vectors(nn.Softplus()),
    "ELU": lambda: vectors(nn.ELU()),
    "log-sigmoid": lambda: vectors(nn.LogSigmoid()),
    "tanhshrink": lambda: vectors(nn.Tanhshrink()),
    "softshrink": lambda: vectors(nn.Softshrink()),
    "hardshrink": lambda: vectors(nn.Hardshrink()),
    "RReLU": lambda: vectors(nn.RReLU()),
    "maxima of two layers": lambda: of(lambda z: torch.maximum(z[:, :3], z[:, 3:]), out=3),
    "mean and standard deviation": Standardised,
}

_OF_IMAGES: Final[Mapping[str, Make]] = {
    "group norm": lambda: images(nn.GroupNorm(2, 4), nn.ReLU(), features=256),
    "instance norm": lambda: images(nn.InstanceNorm2d(4, affine=True), nn.ReLU(), features=256),
    "local response norm": lambda: images(nn.LocalResponseNorm(3), nn.ReLU(), features=256),
    "squeeze and excitation": lambda: images(SqueezeExcite(), nn.ReLU(), features=256),
    "U-Net": UNet,
    "pooling with ceil": lambda: images(nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), features=64),
    "Lp pooling": lambda: images(nn.ReLU(), nn.LPPool2d(1, 2), features=64),
    "dilated convolution": lambda: images(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=2, dilation=2), features=256),
    "depthwise convolution": lambda: images(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4), features=256),
    "bilinear up-sampling": lambda: images(nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear"), features=1024),
    "adaptive pooling": lambda: images(nn.ReLU(), nn.AdaptiveAvgPool2d(2), features=16),
}

_OF_SEQUENCES: Final[Mapping[str, Make]] = {
    "LSTM": lambda: Recurrent(nn.LSTM(4, 3, batch_first=True), 3),
    "bidirectional LSTM": lambda: Recurrent(nn.LSTM(4, 3, batch_first=True, bidirectional=True), 6),
    "GRU": lambda: Recurrent(nn.GRU(4, 3, batch_first=True), 3),
    "RNN (tanh)": lambda: Recurrent(nn.RNN(4, 3, batch_first=True), 3),
    "RNN (relu)": lambda: Recurrent(nn.RNN(4, 3, batch_first=True, nonlinearity="relu"), 3),
    "LSTM cells in a loop": CellLoop,
    "multi-head attention": SelfAttention,
    "transformer layer": Transformer,
    "graph convolution": GraphConvolution,
    "einsum with a constant": EinsumConstant,
}

KINDS: Final[Mapping[str, tuple[Make, Shapes]]] = MappingProxyType(
    {
        **{name: (make, VECTOR) for name, make in _OF_VECTORS.items()},
        **{name: (make, IMAGE) for name, make in _OF_IMAGES.items()},
        **{name: (make, SEQUENCE) for name, make in _OF_SEQUENCES.items()},
        "3-D convolution": (
            lambda: nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)),
            ((1, 1, 4, 4, 4),),
        ),
        "two inputs": (TwoInputs, ((1, 8), (1, 3))),
    }
)
"""Kind -> (what makes a module, the shapes of its inputs)."""


def made(kind: str) -> tuple[nn.Module, Shapes]:
    """Return a module of a kind in evaluation mode, with the same random weights each time."""
    make, shapes = KINDS[kind]
    torch.manual_seed(0)
    return make().eval(), shapes
