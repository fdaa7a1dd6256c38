"""Drawn images: shown by class in 0..255, and shown to an oracle whose answers are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import toys
from torch import Tensor, nn

from acclimate import tasks
from acclimate.data.preprocess import Preprocess
from acclimate.engine.generated import class_fidelity, generated_grid
from acclimate.engine.model import Model
from acclimate.errors import UsageError
from acclimate.methods import Method
from acclimate.networks.contract import Network
from acclimate.plan import Plan

NORMALISATION = ((0.2, 0.4, 0.6), (0.5, 0.25, 0.1))
CLASSES = ("a", "b", "c")


class Painter(Method):
    """Draws class k with a grey value of 50 (k + 1) / 255 and a z of one grey value or none; every fourth "a" and every
    "c" it draws as "b"."""

    def generate(self, labels: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        place = torch.arange(len(labels))
        shown = torch.where((labels == 2) | ((labels == 0) & (place % 4 == 0)), 1, labels)
        grey = (50.0 * (shown + 1) + torch.randint(2, (len(labels),))) / 255
        mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in NORMALISATION)
        return (grey.view(-1, 1, 1, 1).expand(-1, 3, 16, 16) - mean) / std


class Judge(Method):
    """Reads the class from the grey value of the first channel."""

    def predict(self, x: Tensor) -> Tensor:
        assert not self.training
        grey = 255 * (x[:, 0].mean((1, 2)) * 0.5 + 0.2)
        return nn.functional.one_hot((grey / 50).floor().long() - 1, len(CLASSES)).float()


def model(kind: type[Method], classes: tuple[str, ...] = CLASSES, **network: Any) -> Model:
    given: dict[str, Any] = {"input_shape": (3, 16, 16), "normalisation": NORMALISATION, **network}
    net = Network(toys.SmallNet(len(classes)), **given)
    method = kind(net, tasks.build("classification", classes), Plan())
    return Model(method.train(), Preprocess(size=(16, 16)), torch.device("cpu"))


@pytest.mark.parametrize("count", [100, 4, 250])
def test_class_fidelity_is_the_share_that_the_oracle_recognises(count: int) -> None:
    found = class_fidelity(model(Painter), model(Judge), count)
    assert found is not None
    wrong = sum(index % 100 % 4 == 0 for index in range(count))  # a hundred are drawn at a time
    assert found.by_class == [1 - wrong / count, 1.0, 0.0]
    assert found.share == pytest.approx((2 - wrong / count) / 3)
    assert found.images == count


def test_a_grid_holds_pixels_and_a_column_one_z() -> None:
    found = generated_grid(model(Painter), columns=8)
    assert found is not None
    assert found.classes == [0, 1, 2]
    assert found.images.shape == (3, 8, 16, 16, 3)
    assert found.images.dtype == torch.uint8
    values = found.images[:, :, 0, 0, 0].int()
    assert torch.equal(found.images.int(), values[..., None, None, None].expand_as(found.images))
    level = torch.tensor([50, 100, 100])[:, None].expand(3, 8).clone()
    level[0, ::4] = 100
    z = values - level
    assert set(z.flatten().tolist()) == {0, 1}
    assert torch.equal(z[0], z[1])
    assert torch.equal(z[0], z[2])


def test_draws_are_the_same_each_time_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = generated_grid(model(Painter))
    torch.manual_seed(5)
    class_fidelity(painter := model(Painter), model(Judge), 4)
    second = generated_grid(painter)
    torch.manual_seed(5)
    generated_grid(painter)
    class_fidelity(painter, painter, 4)
    assert torch.equal(torch.rand(3), expected)
    assert first is not None
    assert second is not None
    assert torch.equal(first.images, second.images)


def test_of_many_classes_a_choice_is_shown_the_same_each_time() -> None:
    names = tuple(f"class {k}" for k in range(31))
    grids = [generated_grid(model(Painter, names), columns=1) for _ in range(2)]
    assert grids[0] is not None
    assert grids[1] is not None
    assert grids[0].classes == grids[1].classes == sorted(set(grids[0].classes))
    assert len(grids[0].classes) == 10
    assert grids[0].classes != list(range(10))


def test_a_method_without_a_generator_has_neither() -> None:
    assert generated_grid(model(Method)) is None
    assert class_fidelity(model(Method), model(Judge)) is None


def test_what_is_not_finite_or_outside_is_still_a_picture() -> None:
    class Wild(Method):
        def generate(self, labels: Tensor) -> Tensor:
            x = torch.full((len(labels), 3, 16, 16), 1e9)
            x[:, 1], x[:, 2] = -1e9, float("nan")
            return x

    found = generated_grid(model(Wild))
    assert found is not None
    assert found.images.flatten(0, 3).unique(dim=0).tolist() == [[255, 0, 0]]


@pytest.mark.parametrize(
    ("other", "what"),
    [({"classes": ("a", "b", "d")}, "classes"), ({"normalisation": None}, "normalisation")],
)
def test_an_oracle_of_another_experiment_is_refused(other: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=f"the oracle has the {what}"):
        class_fidelity(model(Painter), model(Judge, **other))
