"""Virtual adversarial loss against the closed form of a softmax regression, and what it must leave alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from runs import assert_same, network
from torch import Tensor, nn
from torch.nn import functional

from acclimate.losses import divergence, virtual_adversarial
from acclimate.networks.norm import held

SHAPE = (5, 3, 4, 4)


def watched(predict: Callable[[Tensor], Tensor]) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """The function, and the images it was called with."""
    seen: list[Tensor] = []

    def called(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return predict(x)

    return called, seen


def images(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images, and the weights of a softmax regression on them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randn(4, 48, generator=generator, dtype=torch.float64).to(dtype)


def test_divergence_equals_torch_and_spares_the_teacher() -> None:
    torch.manual_seed(0)
    teacher, student = (torch.randn(3, 4, 5, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    rows = [z.movedim(1, -1).flatten(0, -2).log_softmax(1) for z in (student, teacher)]
    expected = functional.kl_div(*rows, reduction="batchmean", log_target=True)
    loss = divergence(teacher, student)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert teacher.grad is None
    assert torch.autograd.gradcheck(lambda z: divergence(teacher, z), student)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_direction_is_the_power_step_of_the_closed_form(dtype: torch.dtype) -> None:
    """Of p = softmax(W x), KL(p(x) || p(x + d)) has the Hessian W' (diag p - p p') W at d = 0; r is along H d0."""
    x, w = images(dtype)
    predict, seen = watched(lambda x: x.flatten(1) @ w.T)
    torch.manual_seed(1)
    d0 = torch.randn_like(x).double().flatten(1)
    torch.manual_seed(1)
    loss = virtual_adversarial(predict, x, predict(x), radius=2.5)
    _, tried, moved = seen
    torch.testing.assert_close(
        (tried - x).flatten(1).norm(dim=1), torch.full((5,), 1e-2, dtype=dtype), rtol=1e-3, atol=0
    )
    p = (x.double().flatten(1) @ w.double().T).softmax(1)
    hessian = torch.einsum("ka,nkl,lb->nab", w.double(), torch.diag_embed(p) - p[:, :, None] * p[:, None], w.double())
    expected = 2.5 * functional.normalize((hessian @ d0[:, :, None]).squeeze(2))
    found = (moved - x).double().flatten(1)
    torch.testing.assert_close(found.norm(dim=1), torch.full((5,), 2.5, dtype=torch.float64), rtol=1e-5, atol=0)
    assert functional.cosine_similarity(found, expected).min() > 0.99
    q = moved.double().flatten(1) @ w.double().T
    torch.testing.assert_close(loss.double(), (p * (p.log() - q.log_softmax(1))).sum(1).mean(), rtol=1e-4, atol=1e-6)


def test_adversary_changes_more_than_chance() -> None:
    net = network("classification").eval()
    x = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = net(x).logits
    found = virtual_adversarial(lambda x: net(x).logits, x, z)
    with torch.no_grad():
        directions = [functional.normalize(torch.randn(32, 768)).view_as(x) for _ in range(20)]
        chance = [divergence(z, net(x + 3.5 * d).logits).item() for d in directions]
    assert found.item() > 2 * max(chance)


def test_every_image_is_moved_by_the_radius_whatever_the_size_of_its_gradient() -> None:
    """Sure predictions have gradients whose squares vanish in float32."""
    x, w = images(torch.float32)
    scale = torch.tensor([1.0, 1e-3, 1e-12, 1e-24, 0.0])

    def scaled(x: Tensor) -> Tensor:
        return scale[:, None] * (x.flatten(1) @ w.T)

    predict, seen = watched(scaled)
    far = torch.roll(scaled(x), 1, dims=1) + torch.tensor([1.0, 0, 0, 0])  # another reference: gradients of first order
    virtual_adversarial(predict, x, far)
    assert (seen[1] - x).flatten(1).norm(dim=1).tolist() == pytest.approx([3.5, 3.5, 3.5, 3.5, 0], rel=1e-5)


def test_gradient_reaches_the_weights_through_the_perturbed_pass_alone() -> None:
    x, w = images()
    w.requires_grad_()
    x.requires_grad_()
    predict, seen = watched(lambda x: x.flatten(1) @ w.T)
    reference = predict(x)
    (found,) = torch.autograd.grad(virtual_adversarial(predict, x.detach(), reference), w)
    (expected,) = torch.autograd.grad(divergence(reference.detach(), seen[-1].flatten(1) @ w.T), w)
    torch.testing.assert_close(found, expected)
    assert found.norm() > 0


def test_passes_draw_noise_of_their_own_and_move_no_statistics() -> None:
    net = copy.deepcopy(network("classification")).train()
    net.module.body.append(nn.Dropout(0.5))
    masks: list[Tensor] = []
    net.module.body[-1].register_forward_hook(lambda module, inputs, output: masks.append(output == 0))
    x = torch.randn(8, 3, 16, 16)
    z = net(x).logits
    before = {name: value.clone() for name, value in net.state_dict().items() if "running" in name}
    with held(net):
        virtual_adversarial(lambda x: net(x).logits, x, z).backward()
    assert_same({name: net.state_dict()[name] for name in before}, before)
    assert net.training
    assert len(masks) == 3
    assert not any(torch.equal(masks[a], masks[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_direction_is_sought_in_float32_under_autocast() -> None:
    """In bfloat16 x + d would be x, and the adversary would stand still."""
    net = network("classification").eval()
    x = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    kinds: list[torch.dtype] = []

    def predict(x: Tensor) -> Tensor:
        kinds.append((logits := net(x).logits).dtype)
        return logits

    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = virtual_adversarial(predict, x, predict(x))
    assert kinds == [torch.bfloat16, torch.float32, torch.bfloat16]
    assert loss.dtype == torch.float32
    with torch.no_grad():
        assert loss.item() > 0.5 * virtual_adversarial(lambda x: net(x).logits, x, net(x).logits).item()
