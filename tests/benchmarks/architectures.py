"""Architectures of the published networks in the data folder, for state dicts that come without one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut that drops pixels and adds channels of zeros (He et al., option A)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self._stride, self._extra = stride, channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self._extra or self._stride > 1:
            half = self._extra // 2
            x = functional.pad(x[:, :, :: self._stride, :: self._stride], (0, 0, 0, 0, half, self._extra - half))
        return functional.relu(out + x)


class ResNet20(nn.Module):
    """ResNet-20 for 32x32 images, 10 classes; 188,416 ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = self._layer(16, 16, 1), self._layer(16, 32, 2), self._layer(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def _layer(channels_in: int, channels: int, stride: int) -> nn.Sequential:
        blocks = [_BasicBlock(channels_in, channels, stride)]
        return nn.Sequential(*blocks, *(_BasicBlock(channels, channels, 1) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(out.mean(dim=(2, 3)))


def resnet20() -> nn.Module:
    """Return an untrained ResNet-20."""
    return ResNet20().eval()


def mnist_mlp(hidden_layers: int) -> nn.Module:
    """Return Flatten, Linear 784-40, ReLU, ..., Linear 40-10 with the given number of hidden layers of 40."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(784, 40), nn.ReLU()]
    for _ in range(hidden_layers - 1):
        layers += [nn.Linear(40, 40), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(40, 10)).eval()


def mnist_mlp_d3() -> nn.Module:
    """Return the architecture of mnist_mlp_d3.pt."""
    return mnist_mlp(2)


def mnist_mlp_d10() -> nn.Module:
    """Return the architecture of mnist_mlp_d10.pt."""
    return mnist_mlp(9)


def load_resnet20(path: str) -> nn.Module:
    """Return ResNet-20 with the weights of a checkpoint whose names carry the prefix `module.`."""
    model = resnet20()
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return model.eval()
