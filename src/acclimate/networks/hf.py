"""Networks of the transformers library (extra ``hf``): any backbone, or any model for semantic segmentation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from acclimate.errors import DataError, UsageError, missing_extra
from acclimate.networks.card import network
from acclimate.networks.contract import Network


class _Pooled(nn.Module):
    """The last feature map of a backbone, averaged over positions, and a linear head."""

    def __init__(self, backbone: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.channels[-1], classes)  # type: ignore[index, arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x).feature_maps[-1].mean((2, 3)))


@network("classification", 224)
def hf(
    classes: int,
    channels: int = 3,
    size: tuple[int, int] = (224, 224),
    *,
    model: str | None = None,
    config: Mapping[str, Any] | None = None,
    download: bool = False,
    task: Literal["classification", "segmentation"] = "classification",
    head: str | None = None,
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None,
    taps: Sequence[str] = (),
    lr_scales: Mapping[str, float] | None = None,
) -> Network:
    """Any backbone or segmentation model of the transformers library; with its weights, or fresh from a configuration.

    Args:
        model: a local folder with ``config.json`` and ``model.safetensors``, or, with ``download=True``, a hub id.
        config: instead of ``model``: settings with a ``model_type`` (``{"model_type": "resnet", "depths": [2, 2]}``);
            weights are then random.
        download: may open the network to fetch ``model``.
        task: ``classification`` averages the backbone's last map and adds a linear head; ``segmentation`` takes the
            whole model, whose last layer is replaced where its number of classes differs.
        head: name of the segmentation model's last layer; default ``decode_head.classifier`` (SegFormer, UperNet).
        normalisation: per-channel mean and std of the input; default: what the folder's ``preprocessor_config.json``
            says, else 0.5 and 0.5.
        taps: sub-modules whose maps methods of several levels shall read; of SegFormer for instance ``segformer.stages.2``
            (transformers 5) or ``decode_head.linear_fuse``.
        lr_scales: sub-module -> what its learning rate is multiplied by; ``{"segformer": 0.1}`` lets the decoder learn ten
            times as fast as the encoder.

    The ``recipe`` of the result holds the whole configuration, so that it can be built again without folder or network.
    Raises :class:`UsageError` without the extra or for settings that do not fit, :class:`DataError` for a folder that
    cannot be read.
    """
    try:
        from transformers import AutoBackbone, AutoConfig, AutoModelForSemanticSegmentation
    except ImportError as error:
        raise missing_extra("hf", "networks of the transformers library") from error
    if (model is None) == (config is None):
        raise UsageError("give either model= (a folder) or config= (settings with a model_type)")
    if task not in ("classification", "segmentation"):
        raise UsageError(f"task is classification or segmentation, not {task!r}")
    kind = AutoBackbone if task == "classification" else AutoModelForSemanticSegmentation
    labels = {} if task == "classification" else {"num_labels": classes}
    if config is not None:
        given = dict(config)
        if "model_type" not in given:
            raise UsageError('config needs a model_type, such as {"model_type": "resnet"}')
        settings = {**given, "num_channels": channels, **labels}
        if labels:
            # Names of the classes, where given, would win over their number.
            settings = {key: value for key, value in settings.items() if key not in ("id2label", "label2id")}
        try:
            made = kind.from_config(AutoConfig.for_model(**settings))
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(f"transformers cannot build {given['model_type']!r} for {task}: {error}") from error
    else:
        source = str(model)
        if not download and not Path(source).is_dir():
            raise UsageError(f"{model!r} is not a folder; give a folder, or download=True to fetch it from the hub")
        try:
            # AutoBackbone.from_pretrained asks the hub even for a folder; the class that it would choose does not.
            wanted = AutoConfig.from_pretrained(source, local_files_only=not download, **labels)
            made = type(kind.from_config(wanted)).from_pretrained(
                source,
                config=wanted,
                local_files_only=not download,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
            )
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{model}: transformers cannot load it for {task}: {error}") from error
        if getattr(made.config, "num_channels", channels) != channels:
            raise UsageError(f"{model} takes {made.config.num_channels} channels, not {channels}")
        normalisation = normalisation or _normalisation(Path(source), channels)
    name = "head" if task == "classification" else head or "decode_head.classifier"
    module = _Pooled(made, classes) if task == "classification" else made
    shape = (channels, *size)
    net = Network(module, name, input_shape=shape, taps=taps, normalisation=normalisation, lr_scales=lr_scales)
    if net.shapes["logits"][0] != classes:
        raise UsageError(f"{model or given['model_type']} gives {net.shapes['logits'][0]} classes, not {classes}")
    settings = {
        "classes": classes,
        "channels": channels,
        "size": list(size),
        "config": json.loads(made.config.to_json_string()),
        "task": task,
        "head": head,
        "normalisation": [list(values) for values in net.normalisation],
        "taps": list(taps),
        "lr_scales": net.lr_scales,
    }
    net.recipe = {"name": "hf", "settings": settings}
    return net


def _normalisation(folder: Path, channels: int) -> tuple[list[float], list[float]] | None:
    """Mean and std that a model's folder asks for, where it says so."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: it is not JSON; write it again or remove it") from error
    mean, std = found.get("image_mean"), found.get("image_std")
    return (mean, std) if mean and std and len(mean) == len(std) == channels else None
