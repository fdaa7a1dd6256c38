"""The network for feature vectors: what reaches its hidden layer is what papers make of histograms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.data.streams import Stream
from acclimate.engine.adapt import adapt, default_preprocess
from acclimate.engine.evaluate import evaluate
from acclimate.engine.model import Model
from acclimate.errors import UsageError
from acclimate.experiment import score_facts
from acclimate.networks import build, norm
from acclimate.plan import Plan
from acclimate.tasks import Classification


def histograms(count: int, seed: int, words: int = 30) -> Domain:
    """Two classes whose words differ, in images of one pixel's height; the second is three times as long."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    rates = np.where(labels[:, None] == np.arange(words) % 2, 2.0, 0.5) * np.where(labels, 3, 1)[:, None]
    counts = rng.poisson(rates).astype(np.uint8)[:, None, :, None]
    return Domain("histograms", "classification", ("a", "b"), counts, labels, [str(i) for i in range(count)])  # type: ignore[arg-type]


def standardised(counts: np.ndarray) -> np.ndarray:
    """As in the authors' MATLAB: fts ./ sum(fts, 2), then zscore."""
    shares = counts / counts.sum(1, keepdims=True)
    return (shares - shares.mean(0)) / shares.std(0)


def test_the_hidden_layer_sees_standardised_shares():
    domain = histograms(80, 0)
    net = build("mlp", classes=2, channels=1, size=(1, 30), counts=True)
    preprocess = default_preprocess(net, Classification(domain.classes))
    assert (preprocess.mean, preprocess.std, preprocess.channels, preprocess.size) == (0.0, 1.0, 1, (1, 30))
    stream = Stream(domain, "target", "classification", preprocess, batch=80)
    with torch.no_grad():
        norm.restat(net, (batch.x for batch in stream.sweep()))
        net.eval()
        [batch] = stream.sweep()
        seen = net.module.input(batch.x)
    counts = np.asarray(domain.images)[:, 0, :, 0][batch.index.numpy()].astype(float)
    # restat's variances are the unbiased ones, and BatchNorm adds 1e-5 to them.
    np.testing.assert_allclose(seen.numpy(), standardised(counts), rtol=0.02, atol=1e-3)


def test_only_shares_matter_where_values_are_counts():
    x = torch.rand(4, 1, 1, 12)
    net = build("mlp", classes=3, channels=1, size=(1, 12), counts=True).eval()
    torch.testing.assert_close(net(x).logits, net(x * 0.1).logits)
    plain = build("mlp", classes=3, channels=1, size=(1, 12)).eval()
    assert not torch.allclose(plain(x).logits, plain(x * 0.1).logits)
    assert torch.isfinite(net(torch.zeros(2, 1, 1, 12)).logits).all()


def test_sizes_and_mistakes():
    net = build("mlp", classes=5, channels=3, size=(2, 7), width=11, dropout=0.0)
    assert net.shapes["features"] == (11,)
    assert sum(p.numel() for p in net.parameters()) == 3 * 2 * 7 * 11 + 2 * 11 + (11 + 1) * 5
    with pytest.raises(UsageError, match="at least 1, not 0"):
        build("mlp", classes=2, width=0)


@pytest.mark.parametrize("method", ["adabn", "dan", "deep-coral", "dann", "self-training", "shot"])
def test_methods_take_images_of_one_pixel_height(method, tmp_path):
    net = build("mlp", classes=2, channels=1, size=(1, 30), width=8, counts=True)
    source, target = histograms(40, 1), histograms(40, 2)
    plan = Plan(steps=4, batch=8, precision="float32")
    preprocess = Preprocess(size=(1, 30), channels=1, mean=0.0, std=1.0)
    done = adapt(net, source, target, method, plan=plan, preprocess=preprocess, folder=tmp_path / "run", device="cpu")
    done.model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model", "cpu")
    assert score_facts(evaluate(again, target)) == score_facts(evaluate(done.model, target))
