"""A model as one ONNX file that normalises its input itself."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acclimate.engine.model import Model
from acclimate.errors import ConditionError, UsageError, missing_extra
from acclimate.files import write_bytes
from acclimate.random import generator

OPSET, MULTIPLE = 18, 32


class Raw(nn.Module):
    """Images with values 0..255, as they are in a file, to logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.method = model.method
        shape = (1, -1, 1, 1)
        for name in ("mean", "std"):
            value = torch.tensor(getattr(model.preprocess, name), dtype=torch.float32)
            self.register_buffer(name, value.reshape(-1).expand(model.preprocess.channels).reshape(shape).clone())

    def forward(self, images: Tensor) -> Tensor:
        return self.method.predict((images / 255 - self.mean) / self.std)


def export_onnx(model: Model, path: Path, *, tolerance: float = 1e-4) -> dict[str, Any]:
    """Write ``path`` if onnxruntime gives the model's logits, and return what the file is.

    The batch is dynamic; so are height and width of a segmentation network that can do with any. ``tolerance`` is
    relative to the largest logit.

    Raises :class:`UsageError` without the extra ``export``, :class:`ConditionError` where the logits differ.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it and says so at length)
    except ImportError as error:
        raise missing_extra("export", "ONNX export") from error
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file, such as {path / 'model.onnx'}")
    raw = Raw(Model(model.method.cpu().eval(), model.preprocess, torch.device("cpu"))).eval()
    for parameter in raw.parameters():
        parameter.requires_grad_(False)
    free = model.preprocess.size is None
    height, width = model.preprocess.size or model.preprocess.crop or model.method.net.input_shape[1:]
    if free:
        height, width = (max(2, round(side / MULTIPLE)) * MULTIPLE for side in (height, width))
    content = _exported(raw, (model.preprocess.channels, height, width), free)
    if content is None:
        free = False
        content = _exported(raw, (model.preprocess.channels, height, width), free)
    if content is None:
        raise ConditionError(
            f"torch cannot export {model.method.name} with this network to ONNX; predict with acclimate"
        )
    proto = onnx.load_from_string(content)
    facts = _facts(model, (height, width), free)
    onnx.helper.set_model_props(
        proto, {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    )
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, _quiet(onnxruntime), providers=["CPUExecutionProvider"])
    difference = largest = 0.0
    sizes = [(1, height, width), (3, height, width)] + ([(2, height + 2 * MULTIPLE, width + MULTIPLE)] if free else [])
    for seed, (count, *size) in enumerate(sizes):
        shape = (count, model.preprocess.channels, *size)
        images = torch.randint(0, 256, shape, generator=generator("export", seed)).float()
        with torch.no_grad():
            ours = raw(images).numpy()
        (theirs,) = session.run(None, {"images": images.numpy()})
        difference = max(difference, float(np.abs(ours - theirs).max()))
        largest = max(largest, float(np.abs(ours).max()))
    if not difference <= tolerance * max(1.0, largest):  # also where it is NaN
        raise ConditionError(
            f"the exported model differs from the original by {difference:.1e} (logits up to {largest:.1f}); nothing "
            "was written. Allow more with --tolerance if that is good enough"
        )
    write_bytes(path, content)
    return {**facts, "bytes": len(content), "difference": difference, "largest": largest}


def _exported(raw: Raw, shape: tuple[int, ...], free: bool) -> bytes | None:
    """The file's content, or None where the exporter fails, with height and width free or fixed."""
    batch = torch.export.Dim("batch")
    dynamic: dict[int, Any] = {0: batch}
    if free:
        # Multiples, so that a network that pads to them need not decide anything for a size it does not know.
        dynamic |= {axis: MULTIPLE * torch.export.Dim(name, min=1, max=1024) for axis, name in ((2, "h"), (3, "w"))}
    images = torch.zeros(2, *shape)
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                copy.deepcopy(raw),  # the exporter puts other objects in place of attributes that forward changes
                (images,),
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes={"images": dynamic},
                opset_version=OPSET,
                verbose=False,
            )
            assert program is not None
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "model.onnx"
                program.save(file, external_data=False)
                return file.read_bytes()
        except Exception:  # the exporter raises whatever the network's operations make it raise
            return None
        finally:
            logger.setLevel(before)


def _facts(model: Model, size: tuple[int, int], free: bool) -> dict[str, Any]:
    """What a user of the file has to know; it becomes the file's metadata."""
    preprocess, task = model.preprocess, model.method.task
    sides = f"H x W (multiples of {MULTIPLE})" if free else f"{size[0]} x {size[1]}"
    order = "RGB" if preprocess.channels == 3 else "grey"
    zoom = preprocess.scale_of("target")
    scale = f", scaled by {zoom:g}" if zoom != 1 else ""
    return {
        "producer": "acclimate",
        "method": model.method.name,
        "task": task.name,
        "classes": list(task.classes),
        "input": f"images: float32 N x {preprocess.channels} x {sides}, {order}, values 0 to 255{scale}",
        "preprocess": preprocess.model_dump(mode="json"),
        "opset": OPSET,
    }


def _quiet(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options
