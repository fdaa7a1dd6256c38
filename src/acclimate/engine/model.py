"""A model that can be kept: the method's state, and how an image becomes its input."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from acclimate import __version__, networks, tasks
from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.data.streams import Stream
from acclimate.engine.checkpoint import load_weights, read_tensors, write_tensors
from acclimate.engine.inference import PLAIN, Inference, averaged
from acclimate.errors import DataError, UsageError
from acclimate.files import read_json, write_json
from acclimate.methods import Method, find
from acclimate.plan import Plan

FORMAT = 1


@dataclasses.dataclass
class Model:
    """An adapted method ready to predict.

    Raises :class:`UsageError` for windows or scales of a classification.
    """

    method: Method
    preprocess: Preprocess
    device: torch.device
    inference: Inference = PLAIN

    def __post_init__(self) -> None:
        sized = self.inference.window is not None or self.inference.scales != (1.0,)
        if sized and self.method.task.name == "classification":
            raise UsageError("windows and scales are for segmentation; to classify, leave them out (flip may stay)")

    @torch.no_grad()
    def logits(self, domain: Domain, memory_budget: float = 0.0) -> Iterator[tuple[list[int], Tensor]]:
        """Predictions for all images of a domain, in its order where sizes are equal.

        Yields pairs of indices and float32 logits ``(N, K)`` or ``(N, K, H, W)`` at each image's own size, under
        ``inference``. Labels are never read.
        """
        stream = Stream(
            domain.unlabelled(),
            "predict",
            self.method.task.name,
            self.preprocess,
            batch=1,
            device=self.device,
            memory_budget=memory_budget,
            workers=0,
        )
        self.method.eval()
        own = self.preprocess.of("target").scale == 1  # the network gets each image at its own size
        for index, x in stream.pictures(range(len(domain))):
            if self.method.task.name == "classification":
                yield index, averaged(self.method.predict, x, self.inference)
                continue
            if self.inference == PLAIN:
                out = self.method.predict(x).float()
                if own:
                    yield index, out
                    continue
                for i, one in zip(index, out):  # images of different sizes may have become equal
                    size = tuple(domain.images[i].shape[:2])
                    yield [i], functional.interpolate(one[None], size, mode="bilinear", align_corners=False)
                continue
            for i, one in zip(index, x):
                size = tuple(one.shape[1:] if own else domain.images[i].shape[:2])
                yield [i], averaged(self.method.predict, one[None], self.inference, size)

    def save(self, folder: Path) -> None:
        """``model.safetensors`` and ``model.json``. Raises :class:`UsageError` for a network that has no recipe."""
        if self.method.net.recipe is None:
            raise UsageError(
                "this network was made by hand, so a file cannot say how to build it again; "
                "save net.state_dict() yourself, or register the network under the entry point acclimate.networks"
            )
        write_tensors(folder / "model.safetensors", self.method.state_dict())
        write_json(folder / "model.json", self.description())

    def description(self) -> dict[str, Any]:
        """All that is needed to build the model again, as JSON."""
        return {
            "format": FORMAT,
            "acclimate": __version__,
            "method": self.method.name,
            "settings": self.method.settings.model_dump(mode="json"),
            "network": self.method.net.recipe,
            "task": self.method.task.name,
            "classes": list(self.method.task.classes),
            "preprocess": self.preprocess.model_dump(mode="json"),
            **({} if self.inference == PLAIN else {"inference": self.inference.model_dump(mode="json")}),
        }

    @staticmethod
    def load(folder: Path, device: torch.device | str = "cpu") -> Model:
        """Raises :class:`DataError` if the files are missing, damaged, or do not fit each other."""
        if not (folder / "model.json").exists():
            raise DataError(f"{folder} holds no model (no model.json); give a finished run or an imported model")
        facts = read_json(folder / "model.json")
        if facts.get("format") != FORMAT:
            raise DataError(f"{folder}/model.json has format {facts.get('format')}; this version reads {FORMAT}")
        with torch.random.fork_rng(devices=[]):
            net = networks.build(facts["network"]["name"], **facts["network"]["settings"])
            task = tasks.build(facts["task"], facts["classes"])
            method = find(facts["method"])(net, task, Plan(), **facts["settings"])
        load_weights(method, read_tensors(folder / "model.safetensors"), str(folder / "model.safetensors"))
        device = torch.device(device)
        inference = Inference(**facts.get("inference", {}))
        return Model(method.to(device).eval(), Preprocess(**facts["preprocess"]), device, inference)
