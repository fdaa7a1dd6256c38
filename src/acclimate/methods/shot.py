"""SHOT: keep the source's classifier and move the target's features until it is sure of them, without the source."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from acclimate.data.streams import Batch
from acclimate.losses import entropy, marginal_entropy
from acclimate.methods.base import Card, Method, Need, Player, Progress, Stage, Sweep, Train, rounds
from acclimate.plan import Optimiser


class SHOT(Method):
    """Source hypothesis transfer (Liang et al., ICML 2020, eq. 3 to 7).

    The classifier C stays as the source left it, the features F learn on the target alone:
    min_F E_t H(p(x_t)) - w H(E_t p(x_t)) + gamma CE(C(F(x_t)), pseudo-label)
    Pseudo-labels, renewed now and then, are the nearest of the centroids c_k = sum_i p_ik f_i / sum_i p_ik by cosine, with
    f = [F(x); 1] of length 1, and then the nearest of the centroids of these labels.
    """

    name = "shot"
    needs = Need.TARGET | Need.SOURCE_MODEL
    optimiser = Optimiser(lr=0.01, weight_decay=1e-3, schedule="dann")
    card = Card(
        title="Source hypothesis transfer (SHOT)",
        paper="Liang et al., Do We Really Need to Access the Source Data? Source Hypothesis Transfer for Unsupervised "
        "Domain Adaptation, ICML 2020",
        year=2020,
        bibtex=(
            "@inproceedings{liang2020shot,\n  title={Do We Really Need to Access the Source Data? Source Hypothesis "
            "Transfer for Unsupervised Domain Adaptation},\n  author={Liang, Jian and Hu, Dapeng and Feng, Jiashi},\n"
            "  booktitle={International Conference on Machine Learning},\n  year={2020}\n}"
        ),
        when="A trained model and target images, no source. Classes in about equal shares, a network with BatchNorm, and a "
        "source model that is right on more than half of the target.",
        fails="Class shares that differ: the marginal entropy makes them equal (lower diversity). A weak source model: "
        "the centroids are then those of wrong predictions. Small batches: a batch must hold most classes.",
        deviations=(
            "The source model is the one that is given; the authors train theirs with label smoothing .1, a bottleneck of 256 "
            "features and a weight-normalised classifier, and keep the epoch that is best on source test images.",
            "Momentum without Nesterov's correction.",
            "Pseudo-labels are renewed at equal distances (refreshes) instead of after each epoch of a digit set.",
            "Only classes that the network predicts at least once can be pseudo-labels, as in the authors' code for objects; "
            "that for digits lets an empty class win.",
            "Target images are augmented as the plan says; the authors augment the digits of the source alone.",
            "gamma=.3 for objects (Office), .1 for digits, as the authors have them.",
            "Centroids lie in the head's input, and all of the head rests: with a head of several layers that is far from the "
            "authors' one layer on a bottleneck. Several processes compare only their own rows in H(mean p).",
            "A labelling keeps N (features + classes) floats in memory.",
        ),
        tasks=("classification",),
    )

    class Settings(Method.Settings):
        gamma: float = Field(0.1, ge=0)  # of the pseudo-labels
        diversity: float = Field(1.0, ge=0)  # w
        refreshes: int = Field(15, ge=1)  # labellings; each passes over the whole target, so short runs want fewer

    settings: Settings

    def players(self) -> Mapping[str, Player]:
        return {"features": self.net.body_parameters()}

    def train(self, mode: bool = True) -> SHOT:
        super().train(mode)
        self.net.head.eval()  # the hypothesis stays one function: its dropout rests, and its statistics
        return self

    def stages(self) -> Sequence[Stage]:
        stages: list[Stage] = []
        for r, (steps, part) in enumerate(rounds(self.plan.steps, self.settings.refreshes), 1):
            stages.append(Sweep(f"label {r}", "label", ("target",)))
            stages.append(Train(f"adapt {r}", "adapt", ("target",), steps, continues=r > 1, part=part))
        return stages

    def label(self, target: Iterator[Batch]) -> None:
        index, features, predictions = [], [], []
        for batch in target:
            out = self.net(batch.x)
            index.append(batch.index)
            features.append(functional.normalize(functional.pad(out.features.float().flatten(1), (0, 1), value=1.0)))
            predictions.append(out.logits.float().softmax(1))
        f, p = torch.cat(features), torch.cat(predictions)
        labels = self.nearest(f, p, p.argmax(1))
        labels = self.nearest(f, functional.one_hot(labels, p.shape[1]).float(), labels)
        self.keep(dataclasses.replace(batch, index=torch.cat(index)), label=labels)

    def nearest(self, f: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
        """The class of the centroid of ``f (N, D)`` under ``weights (N, K)`` with the largest cosine, among ``labels (N,)``."""
        known = self.total(torch.bincount(labels, minlength=weights.shape[1])) > 0
        centroids = functional.normalize(
            self.total(weights.T @ f)
        )  # a cosine does not see the division by the weights' sum
        return (f @ centroids.T).masked_fill(~known, -torch.inf).argmax(1)

    def adapt(self, target: Batch, at: Progress) -> dict[str, Tensor]:
        logits, label = self.net(target.x).logits, target.columns["label"]
        terms = {
            "entropy": entropy(logits),
            "diversity": -self.settings.diversity * marginal_entropy(logits),
            "pseudo-label": self.settings.gamma * self.task.loss(logits, label),
        }
        self.update(terms, "features")
        return {"agreement": (logits.argmax(1) == label).float().mean()}

    watch = {
        "agreement": (
            0.5,
            1.01,
            "predictions and pseudo-labels differ: the source model is too weak for this target; "
            "a high value proves nothing",
        )
    }
