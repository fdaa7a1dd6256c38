"""Checks fire by chance in one of twenty, and where something moved."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import permutation_test
from torch import Tensor

from acclimate.data.perlin import scenes
from acclimate.diagnosis.checks import by_image, moved, moved_cloud
from acclimate.diagnosis.properties import PROPERTIES, measured
from acclimate.errors import DataError
from acclimate.networks import build
from acclimate.networks.activations import activations

MOST_ALARMS = 18  # of 200: a check of level 5 % exceeds it in one of two hundred


@pytest.fixture(scope="module")
def images() -> Tensor:
    x, _ = scenes(120, 32, generator=torch.Generator().manual_seed(5))
    return x.permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def clouds(images: Tensor) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build("unet", classes=2, channels=1, size=32, width=4, depth=2)
    return {name: found.values for name, found in activations(net, [images], positions=None).items()}


def split(repeat: int, count: int = 60) -> tuple[Tensor, Tensor]:
    order = torch.randperm(120, generator=torch.Generator().manual_seed(repeat))
    return order[: count // 2], order[count // 2 : count]


@pytest.mark.parametrize("name", [name for name in PROPERTIES if name not in ("saturation", "warmth")])
def test_property_check_is_silent_where_nothing_moved(name: str, images: Tensor) -> None:
    values = measured(images)[name]
    alarms = sum(moved(name, *(values[half] for half in split(repeat)), repeat).fires for repeat in range(200))
    assert alarms <= MOST_ALARMS


def test_layer_checks_are_silent_where_nothing_moved(clouds: dict[str, Tensor]) -> None:
    for name, values in clouds.items():
        alarms = sum(moved_cloud(name, *(values[half] for half in split(r)), r).fires for r in range(200))
        assert alarms <= MOST_ALARMS, name


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("brightness", lambda x: x + 0.05),
        ("contrast", lambda x: (x - 0.5) * 0.8 + 0.5),
        ("noise", lambda x: x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))),
        ("skew", lambda x: x**2),
        ("sharpness", lambda x: torch.nn.functional.avg_pool2d(x, 3, 1, 1)),
    ],
)
def test_power_is_nine_in_ten_on_stated_shifts(name: str, change: object, images: Tensor) -> None:
    here, there = measured(images)[name], measured(change(images))[name]  # type: ignore[operator]
    fired = 0
    for repeat in range(50):
        a, b = split(repeat)
        fired += moved(name, here[a], there[b], repeat).fires
    assert fired >= 45


def test_p_is_that_of_scipy() -> None:
    x, y = torch.randn(12, generator=torch.Generator().manual_seed(1)), torch.linspace(-0.5, 2, 9)
    found = moved("x", x, y)
    truth = permutation_test(
        (x.numpy(), y.numpy()), lambda a, b: abs(a.mean() - b.mean()), n_resamples=20_000, alternative="greater", rng=0
    )
    assert found.p == pytest.approx(truth.pvalue, abs=0.03)
    pooled = ((x.var() * 11 + y.var() * 8) / 19).sqrt()
    assert found.effect == pytest.approx(((y.mean() - x.mean()) / pooled).item(), rel=1e-5)


def test_grey_against_colour_has_a_finite_effect() -> None:
    found = moved("saturation", torch.zeros(10), torch.full((10,), 0.3))
    assert found.fires
    assert found.effect == pytest.approx(300)  # in units of at least .001


@pytest.mark.parametrize("sides", [(5, 64), (10, 32), (40, 40)])
def test_unequal_sides_and_many_channels_raise_no_false_alarms(sides: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(1)
    clouds = [torch.randn(sum(sides), 64, generator=draw) for _ in range(200)]
    assert sum(moved_cloud("x", c[: sides[0]], c[sides[0] :], i).fires for i, c in enumerate(clouds)) <= MOST_ALARMS


def test_verdict_is_the_same_with_twice_the_images(images: Tensor) -> None:
    here, there = measured(images)["brightness"], measured((images + 0.1).clamp(0, 1))["brightness"]
    one, two = (moved("brightness", here[:n], there[60 : 60 + n]) for n in (30, 60))
    assert one.fires
    assert two.fires
    assert two.floor < one.floor


def test_windows_of_one_image_are_one_witness() -> None:
    values, images = torch.tensor([1.0, 3.0, 10.0]), torch.tensor([7, 7, 2])
    assert by_image(values, images).tolist() == [10.0, 2.0]


def test_energy_statistic_by_hand() -> None:
    """Two points each: E|x - y| over the four pairs, within over the one pair, in deviations of all four."""
    source, target = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [5.0]])
    unit = 1 / torch.tensor([0.0, 1.0, 3.0, 5.0]).std().item()
    across = (3 + 5 + 2 + 4) / 4
    assert moved_cloud("x", source, target).effect == pytest.approx(unit * (2 * across - 1 - 2))


def test_too_few_images_are_refused() -> None:
    with pytest.raises(DataError, match="at least 2 of each"):
        moved("x", torch.zeros(1), torch.zeros(5))
