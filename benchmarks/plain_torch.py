"""SE-ResNet-50 in plain `torch.nn`, without Keras: what the networks of the zoo are timed and checked against.

The keys of the state dict are those of the authors' networks, so that the weights of one go into the other:

    network = SEResNet50(adaptive=True)
    load_arrays(network, zoo.to_torch_state_dict(zoo.se_resnet50(activation="aglu", gate="apa")))
"""

import torch
from torch import nn
from torch.nn import functional as F


def log_apa(x, kappa, lam):
    """Logarithm of the Adaptive Parametric Activation, `-softplus(log(lam) - kappa x) / lam` (ECCV 2024, Eq. 5)."""
    return -F.softplus(torch.log(lam) - kappa * x) / lam


class _Adaptive(nn.Module):
    """One learned pair of kappa and lambda; the start values are those of the authors."""

    def __init__(self, low, high):
        super().__init__()
        self.kappa_param = nn.Parameter(torch.empty(1).uniform_(low, high))
        self.lambda_param = nn.Parameter(torch.rand(1))


class APA(_Adaptive):
    """`(lambda exp(-kappa x) + 1) ** (-1 / lambda)`, the gate (Eq. 5)."""

    def __init__(self):
        super().__init__(-1.0, 0.0)

    def forward(self, x):
        return torch.exp(log_apa(x, self.kappa_param, self.lambda_param.clamp(min=1e-4)))


class AGLU(_Adaptive):
    """`x APA(x)`, the activation (Eq. 6)."""

    def __init__(self):
        super().__init__(0.8, 1.2)

    def forward(self, x):
        return x * torch.exp(log_apa(x, self.kappa_param, F.relu(self.lambda_param) + 1e-8))


def activation(adaptive):
    """A new activation of the network."""
    return AGLU() if adaptive else nn.ReLU(inplace=True)


class SqueezeExcite(nn.Module):
    """One factor a channel; with the APA gate a LayerNorm stands before and Dropout after the two dense layers."""

    def __init__(self, channels, adaptive, reduction_ratio=16):
        super().__init__()
        hidden = channels // reduction_ratio
        self.norm = nn.LayerNorm(channels) if adaptive else nn.Identity()
        self.excitation = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=False),
            nn.Dropout(0.1 if adaptive else 0.0),
        )
        self.uniact = APA() if adaptive else nn.Sigmoid()

    def forward(self, x):
        scale = self.uniact(self.excitation(self.norm(x.mean((2, 3)))))
        return x * scale[:, :, None, None]


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 to four times the width; the gate comes before the shortcut is added."""

    def __init__(self, channels, width, stride, adaptive):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.unirect1 = activation(adaptive)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.unirect2 = activation(adaptive)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.se = SqueezeExcite(4 * width, adaptive)
        self.unirect3 = activation(adaptive)
        self.downsample = None
        if stride != 1 or channels != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.unirect1(self.bn1(self.conv1(x)))
        x = self.unirect2(self.bn2(self.conv2(x)))
        x = self.se(self.bn3(self.conv3(x)))
        return self.unirect3(x + shortcut)


class SEResNet50(nn.Module):
    """SE-ResNet-50: images `(batch, 3, height, width)` to logits `(batch, classes)`.

    Args:
        adaptive: AGLU activations and APA gates with LayerNorm and Dropout; otherwise ReLU and sigmoid.
        classes: Columns of the logits.
    """

    def __init__(self, adaptive=False, classes=1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = activation(adaptive)  # the authors' name for the stem's, AGLU or not
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = 64
        for stage, (width, depth) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True), start=1):
            stage_blocks = []
            for block in range(depth):
                stride = 2 if stage > 1 and block == 0 else 1
                stage_blocks.append(Bottleneck(channels, width, stride, adaptive))
                channels = 4 * width
            self.add_module(f"layer{stage}", nn.Sequential(*stage_blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def load_arrays(network, arrays):
    """Load a state dict of numpy arrays, every key of it and no other."""
    network.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()}, strict=True)
