"""Reverse validation: the method trains back, from the target as labelled by the model to the source, which judges."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from acclimate.data.domain import Domain
from acclimate.engine.adapt import adapt
from acclimate.engine.evaluate import evaluate
from acclimate.engine.model import Model
from acclimate.engine.run import Observer
from acclimate.errors import UsageError
from acclimate.experiment import BASELINE
from acclimate.methods import Need
from acclimate.plan import Plan
from acclimate.selection.base import Score


def reverse_validation(
    model: Model,
    source: Domain,
    source_test: Domain,
    target: Domain,
    plan: Plan,
    *,
    device: torch.device | str | None = None,
    observer: Observer | None = None,
) -> float:
    """The task's primary score, in [0, 1], of the reversed model on ``source_test``; higher is better.

    1. The target's images get the labels that ``model`` predicts and become the source.
    2. The source's images lose their labels and become the target.
    3. The same method with the same settings trains a network that starts from the model's weights; a method that
       starts from a source model first gets one, by as many steps of source-only on the labelled target.
    4. The result is scored on labelled images of the source that neither training has seen.

    Zhong et al., ECML PKDD 2010; Ganin et al., JMLR 2016, section 5.1.2: 1 minus the reverse risk there. They train
    until the loss on held-out images rises, here it is a number of steps. Methods without a target (source-only) train
    on 1 alone. Predicted labels are kept in memory, one byte a pixel: fine for some thousand images.

    Args:
        source: labels are not read. target: labels are not read.
        plan: of each training.

    Raises :class:`UsageError` for methods that read target labels, which the source would have to give.
    """
    method, task = model.method, model.method.task
    if method.needs & (Need.TARGET_LABELS | Need.FEW_TARGET_LABELS):
        raise UsageError(
            f"{method.name} reads target labels, so it cannot run in reverse: it would learn from the source labels "
            "that judge it; compare models of other methods"
        )
    scale = model.preprocess.scale
    preprocess = model.preprocess.replace(scale=(scale[1], scale[0])) if isinstance(scale, tuple) else model.preprocess
    given: dict[str, Any] = {
        "plan": plan,
        "preprocess": preprocess,
        "task": task,
        "device": model.device if device is None else device,
        "observer": observer,
    }
    labelled, net = predicted(model, target), method.net
    if Need.SOURCE_MODEL in method.needs:
        net = adapt(net, labelled, None, BASELINE, **given).model.method.net
    settings = method.settings.model_dump(mode="json")
    adapted = adapt(net, labelled, source.unlabelled(), type(method), **given, **settings)
    return evaluate(dataclasses.replace(adapted.model, inference=model.inference), source_test, resamples=0).value


def predicted(model: Model, domain: Domain) -> Domain:
    """The domain with the classes that ``model`` predicts as its labels, at each image's own size."""
    task = model.method.task
    kind = np.uint8 if len(task.classes) <= 256 else np.int16
    found: dict[int, np.ndarray] = {}
    for index, logits in model.logits(domain):
        for i, labels in zip(index, logits.argmax(1).cpu().numpy()):
            found[i] = labels.astype(kind)
    labels = [found[i] for i in range(len(domain))]
    return dataclasses.replace(
        domain, name=f"{domain.name} as predicted", task=task.name, classes=task.classes, labels=labels
    )


REVERSE = Score(
    name="reverse-validation",
    title="Reverse validation",
    function=reverse_validation,
    better="high",
    paper="Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 2016",
    when="The way back is like the way there, and there is time to train every method once more.",
    fails="Errors that are made alike in both directions cancel: a method that swaps two classes on the target swaps them "
    "back on the source.",
)
"""Trains, so it is not among the registered scores, which look at what is there."""
