"""FDA's terms against plain functions of the same batch."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from runs import network, plan, small, start
from scipy.stats import entropy as scipy_entropy
from torch.nn import functional

from acclimate.data.preprocess import Preprocess
from acclimate.engine.update import Updater
from acclimate.methods import find
from acclimate.methods.base import Progress
from acclimate.plan import Optimiser
from acclimate.transforms.fourier import amplitude_swap


def one_step(fraction: float = 0.5, **more: Any) -> tuple[Any, Any, Any, dict[str, torch.Tensor]]:
    """The method before its first step, the step's batches, and the terms."""
    kind, caught = find("fda"), []

    class Watched(kind):  # type: ignore[misc, valid-type]
        def step(self, source: Any, target: Any, at: Any) -> Any:
            caught.extend([copy.deepcopy(self), source, target])
            return super().step(source, target, Progress("adapt", round(100 * fraction), 100))

        def update(self, terms: Any, *players: str) -> None:
            assert players == ("net",)
            caught.append({name: term.detach().clone() for name, term in terms.items()})
            super().update(terms, *players)

    start(Watched, "segmentation", how=plan(steps=1), **more)
    return tuple(caught)  # type: ignore[return-value]


def test_minimises_the_terms_of_its_formula() -> None:
    method, source, target, terms = one_step(beta=0.2, entropy=0.7, eta=1.5)
    x = amplitude_swap(source.x, target.x, 0.2)
    assert (x - source.x).abs().max() > 0.1
    zs, zt = method.net(x).logits, method.net(target.x).logits
    p = zt.detach().double().softmax(1).movedim(1, -1).flatten(0, -2).numpy()
    unsure = ((scipy_entropy(p, axis=1, base=2) ** 2 + 1e-6) ** 1.5).mean()
    assert set(terms) == {"translated", "entropy"}
    torch.testing.assert_close(terms["translated"], functional.cross_entropy(zs, source.y, ignore_index=-1).detach())
    assert terms["entropy"].item() == pytest.approx(0.7 * unsure, rel=1e-5)


@pytest.mark.parametrize(("fraction", "begin", "counts"), [(0.3, 0.4, False), (0.4, 0.4, True), (0.0, 0.0, True)])
def test_the_entropy_counts_from_the_share_of_steps_that_begin_says(
    fraction: float, begin: float, counts: bool
) -> None:
    assert (one_step(fraction, begin=begin)[3]["entropy"].item() > 0) is counts


def test_running_statistics_are_the_targets() -> None:
    """One step moves them by a tenth towards the target's batch, whatever the source's is."""
    method, _, target, _ = one_step()
    first = method.net.module.body[0](target.x).detach().transpose(0, 1).flatten(1).mean(1)
    kind = find("fda")
    made = start(kind, "segmentation", how=plan(steps=1)).model.method
    torch.testing.assert_close(made.net.module.body[1].running_mean, 0.1 * first, rtol=1e-4, atol=1e-5)


def test_translates_to_the_first_target_image() -> None:
    source, target, _ = small("segmentation")
    method = start("fda", "segmentation", how=plan(steps=1), beta=0.1).model.method
    xs, xt = (torch.from_numpy(np.asarray(d.images)).permute(0, 3, 1, 2) / 127.5 - 1 for d in (source, target))
    torch.testing.assert_close(method.reference, xt[:1])
    torch.testing.assert_close(method.translate(xs[:3]), amplitude_swap(xs[:3], xt[:1], 0.1))
    assert method.translate(xs[:2, :, :16, :24]).shape == (2, 1, 16, 24)
    assert abs(method.translate(xs).mean() - xt[0].mean()) < 0.01 < (xs.mean() - xt[0].mean()).abs()


def test_target_images_of_another_size_are_brought_to_the_sources() -> None:
    """Whole images, the target's twice as large: each pixel four times, so that halving them gives them back."""
    source, target, _ = small("segmentation")
    large = dataclasses.replace(target, images=np.asarray(target.images).repeat(2, 1).repeat(2, 2))
    found = [one_step(pair=(source, t), preprocess=Preprocess(channels=1))[3]["translated"] for t in (target, large)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_has_the_rate_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: dict[str, Any] = {}
    update = Updater.update

    def watched(self: Updater, terms: Any, players: Any) -> None:
        rates.update({name: o.settings for name, o in self.optimisers.items()})
        update(self, terms, players)

    monkeypatch.setattr(Updater, "update", watched)
    start("fda", "segmentation", how=plan(steps=1, optimiser=None))
    assert rates == {"net": Optimiser(lr=2.5e-4, momentum=0.9, weight_decay=5e-4, schedule="poly")}


def test_works_from_a_trained_network() -> None:
    trained = start("source-only", "segmentation", net=network("segmentation")).model.method.net
    history = start("fda", "segmentation", net=trained).history
    assert 0 < history[-1]["target entropy"] < 0.6932
