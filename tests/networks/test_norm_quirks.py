"""What others' BatchNorm adaptation gets wrong or leaves out, each shown to be so, and what is done here."""

from __future__ import annotations

import pytest
import torch
from runs import plan, small, start
from torch import nn
from torch.testing import assert_close

from acclimate.engine.evaluate import evaluate
from acclimate.networks.norm import restat

# Slices of a volume: bright ones come first, and the last batch is small.
LEVELS = torch.tensor([5.0] * 8 + [0.0] * 8 + [-9.0] * 2).view(-1, 1, 1, 1)
VOLUME = LEVELS + torch.randn(18, 2, 6, 6, generator=torch.Generator().manual_seed(0))
EIGHTS = VOLUME.split(8)


def layer(mean: float = 0.0, variance: float = 1.0) -> nn.Sequential:
    norm = nn.BatchNorm2d(2)
    with torch.no_grad():
        norm.running_mean.fill_(mean)  # type: ignore[union-attr]
        norm.running_var.fill_(variance)  # type: ignore[union-attr]
    return nn.Sequential(norm)


def truth(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    variance, mean = torch.var_mean(x.double(), (0, 2, 3))
    return mean.float(), variance.float()


def test_pytorchs_cumulative_average_loses_the_variance_between_batches_and_ours_does_not() -> None:
    """``momentum=None`` averages the variances of the batches, and a last batch of 2 weighs as much as one of 8."""
    theirs, ours = layer(), layer()
    theirs[0].momentum = None
    theirs[0].reset_running_stats()
    theirs.train()
    with torch.no_grad():
        for x in EIGHTS:
            theirs(x)
    means, variances = (torch.stack(of) for of in zip(*(truth(x) for x in EIGHTS)))
    assert_close(theirs[0].running_mean, means.mean(0))  # each batch weighs the same
    assert_close(theirs[0].running_var, variances.mean(0))
    mean, variance = truth(VOLUME)
    assert (theirs[0].running_var < variance / 10).all()
    assert (theirs[0].running_mean - mean).abs().min() > 1

    restat(ours, EIGHTS)
    assert_close(ours[0].running_mean, mean)
    assert_close(ours[0].running_var, variance)


@pytest.mark.parametrize("mixture", [{"alpha": 0.25}, {"prior": 3.0 * len(VOLUME)}])
def test_a_mixture_is_the_published_one_which_is_narrower_than_the_pool(mixture: dict[str, float]) -> None:
    """Schneider et al. (and their code) and You et al. mix variances as they mix means.

    The values of both domains together have rho (1 - rho) (mu_s - mu_t)^2 more, which is added nowhere. Without a
    mixture, the default, there is no such term.
    """
    source_mean, source_variance, share = 8.0, 2.0, 0.25
    mixed = layer(source_mean, source_variance)
    restat(mixed, EIGHTS, **mixture)
    mean, variance = truth(VOLUME)
    assert_close(mixed[0].running_mean, (1 - share) * source_mean + share * mean)
    assert_close(mixed[0].running_var, (1 - share) * source_variance + share * variance)

    source = source_mean + source_variance**0.5 * _standardised(3 * len(VOLUME))
    pooled = truth(torch.cat([source, VOLUME]))[1]
    lacking = share * (1 - share) * (source_mean - mean) ** 2
    assert_close(pooled - mixed[0].running_var, lacking, rtol=5e-3, atol=0)
    assert lacking.min() > 2

    plain = layer(source_mean, source_variance)
    restat(plain, EIGHTS)
    assert_close(plain[0].running_var, variance)


def _standardised(count: int) -> torch.Tensor:
    x = torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    variance, mean = torch.var_mean(x, (0, 2, 3), keepdim=True)
    return (x - mean) / variance.sqrt()


def test_scoring_moves_nothing_even_where_a_model_was_left_in_training_mode() -> None:
    """Released code that scores in ``train()`` adapts BatchNorm to every image that it scores."""
    model, domain = start("source-only", "segmentation", how=plan(steps=2)).model, small("segmentation")[2]
    before = {name: value.clone() for name, value in model.method.state_dict().items()}
    wanted = evaluate(model, domain).value
    model.method.train()
    assert evaluate(model, domain).value == wanted
    assert all(torch.equal(value, before[name]) for name, value in model.method.state_dict().items())
