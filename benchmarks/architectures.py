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
        return functional.relu(self.bn2(self.conv2(out)) + self._beside(x))

    def _beside(self, x: Tensor) -> Tensor:
        if not self._extra and self._stride == 1:
            return x
        half = self._extra // 2
        return functional.pad(x[:, :, :: self._stride, :: self._stride], (0, 0, 0, 0, half, self._extra - half))


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


class _Projected(_BasicBlock):
    """Two 3x3 convolutions beside a shortcut, a strided 1x1 convolution where the shape changes (option B)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__(channels_in, channels, stride)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels_in != channels:
            strided = nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(strided, nn.BatchNorm2d(channels))

    def _beside(self, x: Tensor) -> Tensor:
        return self.shortcut(x)


class ResNet18(nn.Module):
    """ResNet-18 for 32x32 images, 10 classes; of width 4 it has 44,622 parameters."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        layers: list[nn.Module] = []
        channels = width
        for stage in range(4):
            for place in range(2):
                layers.append(_Projected(channels, width << stage, 2 if stage and not place else 1))
                channels = width << stage
        self.layers, self.linear = nn.Sequential(*layers), nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layers(out).mean(dim=(2, 3)))


def resnet18(width: int, seed: int = 0) -> nn.Module:
    """Return a ResNet-18 with random weights."""
    torch.manual_seed(seed)
    model = ResNet18(width)
    random_batch_norms(model)
    return model.eval()


def image_to_image(seed: int = 0) -> nn.Module:
    """Return four convolutions with random weights, 28x28 to 28x28 pixels: a network of many outputs."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for channels_in, channels in ((1, 16), (16, 32), (32, 32), (32, 1)):
        layers += [nn.Conv2d(channels_in, channels, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


class _Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut, which is a strided 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(channels_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels_in != channels:
            strided = nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(strided, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = functional.relu(self.bn2(self.conv2(out)))
        return functional.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class BottleneckNet(nn.Module):
    """A residual network of bottleneck blocks behind a 7x7 convolution and a 3x3 max-pool."""

    def __init__(self, blocks: tuple[int, ...], width: int = 64, n_outputs: int = 1000) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        layers: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks):
            for place in range(count):
                layers.append(_Bottleneck(channels, width << stage, 2 if stage and not place else 1))
                channels = 4 * width << stage
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(channels, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = self.pool(functional.relu(self.bn1(self.conv1(x))))
        return self.linear(self.layers(out).mean(dim=(2, 3)))


def random_batch_norms(module: nn.Module) -> None:
    """Give every batch norm random statistics and weights, as training would."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
            layer.get_buffer("running_mean").normal_(std=0.1)
            layer.get_buffer("running_var").uniform_(0.5, 1.5)


def learn_statistics(model: nn.Module, images: Tensor) -> nn.Module:
    """Return the network with the statistics of some images in its batch norms, as before the first training step."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    with torch.no_grad():
        model.train()(images)
    return model.eval()


class Scaled(nn.Module):
    """A network behind (u - mean) / std, a number a channel."""

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x - self.get_buffer("mean")) / self.get_buffer("std"))


def resnet50(seed: int = 0) -> nn.Module:
    """Return a network of ResNet-50's size with random weights: 224x224 images, 1,000 outputs."""
    torch.manual_seed(seed)
    model = BottleneckNet((3, 4, 6, 3))
    random_batch_norms(model)
    return model.eval()
