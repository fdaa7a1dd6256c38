"""Slips of published code for segmentation that are not repeated here, one test for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from runs import plan, small, start
from toys import SmallSegmenter

from acclimate.methods import find
from acclimate.methods.base import Progress
from acclimate.networks.contract import Network
from acclimate.tasks import build
from acclimate.transforms.fourier import amplitude_swap


def two_levels() -> Any:
    torch.manual_seed(0)
    net = Network(SmallSegmenter(), "head", input_shape=(1, 64, 64), taps=("body.6",))
    return find("adaptsegnet")(net, build("segmentation", ("a", "b")), plan(), auxiliary="body.6", critic_width=4)


def test_adaptsegnets_second_classifier_sums_all_four_dilations() -> None:
    """A ``return`` inside the loop makes the released two-level network sum the first two."""
    auxiliary = two_levels().auxiliary
    x = torch.zeros(1, 12, 64, 64)
    x[0, 0, 32, 32] = 1  # the answer to a point is non-zero where a branch's taps lie
    with torch.no_grad():
        for branch in auxiliary.branches:
            branch.weight.fill_(1.0)
        answer = (auxiliary(x) - auxiliary(0 * x))[0, 0]  # without the biases
    points = [answer[32 + d, 32 - d] for d in (0, 6, 12, 18, 24)]
    torch.testing.assert_close(torch.stack(points), torch.tensor([4.0, 1.0, 1.0, 1.0, 1.0]))


def test_adaptsegnets_classifier_trains_all_its_dilations() -> None:
    """So do the gradients: no branch rests."""
    auxiliary = two_levels().auxiliary
    auxiliary(torch.rand(1, 12, 64, 64)).square().sum().backward()
    assert all(branch.weight.grad.any() for branch in auxiliary.branches)


def test_adaptsegnet_and_cellseguda_never_ask_for_target_labels_to_choose_a_step() -> None:
    """The released code keeps the checkpoint that scores best on labelled target images; here the last one is kept."""
    target = small("segmentation")[1]
    blind = target.unlabelled()
    for name in ("adaptsegnet", "cellseguda"):
        ended = [start(name, "segmentation", pair=(small("segmentation")[0], t)).model.method for t in (target, blind)]
        assert all(torch.equal(a, b) for a, b in zip(*(method.state_dict().values() for method in ended)))


def test_adaptsegnets_critics_do_not_learn_while_they_are_fooled() -> None:
    """Code that switches ``requires_grad`` by hand forgets it once; here only named players move, and no switch is touched."""
    moved: list[bool] = []

    class Watched(find("adaptsegnet")):  # type: ignore[misc]
        def update(self, terms: Any, *players: str) -> None:
            before = [p.clone() for p in self.critics.parameters()]
            super().update(terms, *players)
            moved.append(any(not torch.equal(a, b) for a, b in zip(before, self.critics.parameters())))

        def step(self, source: Any, target: Any, at: Progress) -> Any:
            found = super().step(source, target, at)
            assert all(p.requires_grad for p in self.parameters())
            return found

    start(Watched, "segmentation", how=plan(steps=2))
    assert moved == [False, True, False, True]


def test_fdas_window_is_symmetric_so_that_images_stay_real() -> None:
    """The released torch code swaps frequencies -b..b-1: not Hermitian, and its inverse keeps the real part alone."""
    rng = np.random.default_rng(0)
    source, target = (torch.from_numpy(rng.random((1, 1, 24, 24), np.float32)) for _ in range(2))
    found = np.abs(np.fft.fft2(amplitude_swap(source, target, 0.1)[0, 0].double().numpy()))
    fs, ft = (np.abs(np.fft.fft2(x[0, 0].double().numpy())) for x in (source, target))
    for ky in range(-4, 5):
        for kx in range(-4, 5):
            expected = ft if max(abs(ky), abs(kx)) <= 2 else fs
            np.testing.assert_allclose(found[ky, kx], expected[ky, kx], atol=1e-3)
