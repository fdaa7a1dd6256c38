"""FCN-8s on VGG-16: the first fully convolutional network, with the file names of torchvision's VGG."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.errors import UsageError
from acclimate.networks.card import network
from acclimate.networks.contract import Network
from acclimate.networks.foreign import load_weights
from acclimate.networks.pretrained import IMAGENET, check_weights

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of 3x3 convolutions before each pooling."""

LAYERS = ("pool1", "pool2", "pool3", "pool4", "pool5", "fc6", "fc7")
"""What a file of weights fills; the head is new."""


class FCN8s(nn.Module):
    """Logits ``(N, K, H, W)`` of images ``(N, C, H, W)``.

    Sub-modules: ``pool1`` to ``pool5`` (the convolutions of a stage and its pooling), ``fc6``, ``fc7``, ``head`` (1x1, at 1/8).
    """

    def __init__(self, classes: int, channels: int, width: float, dropout: float, skip_scales: Sequence[float]) -> None:
        super().__init__()
        self.skip_scales = tuple(skip_scales)  # of pool4, pool3
        inputs, skips = channels, 0
        for number, (full, count) in enumerate(STAGES, 1):
            outputs = round(full * width)
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            self.add_module(f"pool{number}", nn.Sequential(*layers, nn.MaxPool2d(2)))
            skips += outputs if number in (3, 4) else 0
        dense = round(4096 * width)
        for number, kernel in ((6, 7), (7, 1)):
            conv = nn.Conv2d(inputs, dense, kernel, padding=kernel // 2)
            self.add_module(f"fc{number}", nn.Sequential(conv, nn.ReLU(), nn.Dropout(dropout)))
            inputs = dense
        self.head = nn.Conv2d(dense + skips, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module is not self.head:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % 32 or width % 32:
            x = F.pad(x, (0, -width % 32, 0, -height % 32), mode="replicate")
        found = {}
        for name in LAYERS:
            x = found[name] = getattr(self, name)(x)
        pool4, pool3 = (scale * found[name] for scale, name in zip(self.skip_scales, ("pool4", "pool3")))
        x = torch.cat([_doubled(torch.cat([_doubled(x), pool4], dim=1)), pool3], dim=1)
        logits = self.head(x)
        return F.interpolate(logits, scale_factor=8, mode="bilinear", align_corners=False)[:, :, :height, :width]


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


@network("segmentation", 512)
def fcn8s(
    classes: int,
    channels: int = 3,
    size: tuple[int, int] = (512, 512),
    *,
    width: float = 1.0,
    dropout: float = 0.5,
    skip_scales: Sequence[float] = (1.0, 1.0),
    weights: str | None = None,
    body_lr: float | None = None,
) -> Network:
    """FCN-8s: VGG-16 without BatchNorm, its dense layers as convolutions, skips from pool4 and pool3; 134 M weights.

    Args:
        width: what the paper's numbers of channels (64 to 512, and 4,096) are multiplied by; 1/16 for a CPU.
        dropout: after fc6 and fc7.
        skip_scales: of pool4 and pool3 before they are scored. The released voc-fcn8s-atonce has .01 and .0001, for
            input in units of 0..255; here the input has unit variance, and its activations need no such reduction.
        weights: a ``.pth`` or ``.safetensors`` file with torchvision's names of VGG-16, for instance
            https://download.pytorch.org/models/vgg16-397923af.pth. Its last dense layer is left aside. For one channel the
            first layer's filters are summed over colours. Without it all weights are random.
        body_lr: what the learning rate of all layers but the head is multiplied by; default 0.1 with weights, else 1.

    The paper scores fc7, pool4 and pool3 each by a 1x1 convolution, doubles bilinearly and adds. A 1x1 convolution and bilinear
    up-sampling commute, so the maps are doubled and laid side by side, and one convolution scores them: the same
    function, with a head that reads all its features. Up-sampling rests, as in the released network; at
    the border it repeats the last value. The taps are ``pool3``, ``pool4`` and ``fc7`` (4,096 channels at 1/32), at which
    methods align. fc6 is padded by 3 and the image by replication to a multiple of 32, where the paper pads it by
    100 pixels of zeros; the logits are cropped. The input is normalised as ImageNet's; the ``recipe`` holds no path.

    Raises :class:`UsageError` for a width below 1/64, :class:`DataError` for a file that does not fit.
    Long, Shelhamer and Darrell, CVPR 2015; Shelhamer et al., TPAMI 2017, section 4.3 (all at once).
    """
    if width < 1 / 64:
        raise UsageError(f"width is a share of VGG-16's channels of at least 1/64, not {width}")
    if len(skip_scales) != 2:
        raise UsageError(f"skip_scales are two numbers, of pool4 and pool3, not {skip_scales}")
    module = FCN8s(classes, channels, width, dropout, skip_scales)
    if weights is not None:
        _fill(module, weights, channels)
    if body_lr is None:
        body_lr = 1.0 if weights is None else 0.1
    net = Network(
        module,
        "head",
        input_shape=(channels, *size),
        taps=("pool3", "pool4", "fc7"),
        align="fc7",
        normalisation=IMAGENET.get(channels),
        lr_scales={} if body_lr == 1 else dict.fromkeys(LAYERS, body_lr),
    )
    settings = {
        "classes": classes,
        "channels": channels,
        "size": list(size),
        "width": width,
        "dropout": dropout,
        "skip_scales": list(skip_scales),
        "body_lr": body_lr,
    }
    net.recipe = {"name": "fcn8s", "settings": settings}
    return net


def _fill(module: FCN8s, path: str, channels: int) -> None:
    """Copy the body's weights from a file. Raises :class:`DataError` for one that is not VGG-16's."""
    found = {name: value for name, value in load_weights(path).items() if not name.startswith("classifier.6.")}
    own: dict[str, Tensor] = {}
    place = 0
    for name in LAYERS[:5]:
        stage = module.get_submodule(name)
        own |= {f"features.{place + int(key.partition('.')[0])}.{key.partition('.')[2]}": value
                for key, value in stage.state_dict().items()}  # fmt: skip
        place += len(list(stage.children()))
    for name, number in (("fc6", 0), ("fc7", 3)):
        own |= {f"classifier.{number}.{kind}": module.state_dict()[f"{name}.0.{kind}"] for kind in ("weight", "bias")}
    first = found.get("features.0.weight")
    if channels == 1 and first is not None and first.ndim == 4:
        found["features.0.weight"] = first.sum(1, keepdim=True)
    for name, value in found.items():
        if name.startswith("classifier.") and value.ndim == 2 and name in own and value.numel() == own[name].numel():
            found[name] = value.view(own[name].shape)  # a dense layer on 7x7 positions is a 7x7 convolution
    check_weights(
        path, found, own, f"VGG-16 for {channels} channels", "give VGG-16's own file, 3 or 1 channels, width 1"
    )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(found[name])
