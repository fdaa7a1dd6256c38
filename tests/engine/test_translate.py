"""Translated images: un-normalised, of their own size, grey where they were grey, with their labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from runs import network, small
from torch import Tensor
from toys import PREPROCESS

import acclimate
from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.engine.model import Model
from acclimate.engine.translate import translate, translations
from acclimate.errors import NumericError, UsageError
from acclimate.methods import Method, find
from acclimate.plan import Plan
from acclimate.tasks import build


class Same(Method):
    """Gives back what it gets."""

    name = "same"

    def translate(self, x: Tensor) -> Tensor:
        return x


def model(kind: type[Method], task: str = "segmentation", **preprocess: object) -> Model:
    classes = ("ground", "cell") if task == "segmentation" else ("bar", "cross", "ring")
    return Model(kind(network(task), build(task, classes), Plan()), Preprocess(**preprocess), torch.device("cpu"))


def images(*sizes: tuple[int, ...]) -> Domain:
    rng = np.random.default_rng(0)
    made = [rng.integers(0, 256, size, np.uint8) for size in sizes]
    labels = [rng.integers(-1, 2, size[:2]).astype(np.int16) for size in sizes]
    return Domain("d", "segmentation", ("ground", "cell"), made, labels, [f"{i}" for i in range(len(sizes))])


@pytest.mark.parametrize(
    ("mean", "std"), [(0.5, 0.5), (0.0, 1.0), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))], ids=str
)
def test_what_is_not_redrawn_comes_back_to_the_last_bit(mean, std):
    domain = images((20, 31, 1), (17, 16, 3), (8, 8))
    found = translate(model(Same, mean=mean, std=std), domain)
    for image, same in zip(domain.images, found.images):
        assert same.dtype == np.uint8
        np.testing.assert_array_equal(same, image if image.ndim == 3 else image[..., None])
    assert found.labels is domain.labels
    assert (found.names, found.task, found.classes) == (domain.names, "segmentation", domain.classes)


def test_values_outside_of_the_range_are_clamped_and_others_rounded():
    class Louder(Same):
        def translate(self, x: Tensor) -> Tensor:
            return 3 * x

    image = np.array([[[0], [100], [128], [200]]], np.uint8)
    domain = Domain("d", "segmentation", ("ground", "cell"), [image], None, ["a"])
    found = translate(model(Louder, channels=1), domain)
    by_hand = [min(255, max(0, round((3 * (v / 127.5 - 1) + 1) * 127.5))) for v in (0, 100, 128, 200)]
    assert found.images[0].ravel().tolist() == by_hand == [0, 45, 129, 255]


def test_a_generator_that_loses_pixels_is_refused_at_once():
    seen = []

    class Shrinking(Same):
        def translate(self, x: Tensor) -> Tensor:
            seen.append(tuple(x.shape[2:]))
            return x[:, :, 1:]

    with pytest.raises(UsageError, match=r"makes \(1, 7, 8\) of an image of \(1, 8, 8\); .* must keep the size"):
        translate(model(Shrinking, channels=1), images((8, 8, 1)))
    assert seen == [(8, 8)]


def test_the_source_s_scale_is_what_the_method_sees_and_labels_still_fit():
    seen = []

    class Watched(Same):
        def translate(self, x: Tensor) -> Tensor:
            seen.append(tuple(x.shape[2:]))
            return x

    found = translate(model(Watched, channels=1, scale=(0.5, 2.0)), images((20, 30, 1)))
    assert seen == [(10, 15)]
    assert found.images[0].shape[:2] == found.labels[0].shape == (20, 30)


def test_classified_images_have_the_networks_size():
    found = translate(model(Same, "classification", size=(16, 16)), small("classification")[0].subset([0, 1]))
    assert [image.shape for image in found.images] == [(16, 16, 3)] * 2


def test_chance_goes_by_the_images_name():
    class Dice(Same):
        def translate(self, x: Tensor) -> Tensor:
            return torch.rand_like(x)

    asked, domain = model(Dice, channels=1), images((6, 6, 1), (6, 6, 1), (6, 6, 1))
    state = torch.get_rng_state()
    whole, part = translate(asked, domain).images, translate(asked, domain.subset([2])).images
    np.testing.assert_array_equal(whole[2], part[0])
    assert not np.array_equal(whole[0], whole[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_one_image_after_another_is_read():
    read = []

    class Counted(list):
        def __getitem__(self, i):
            read.append(i)
            return super().__getitem__(i)

    source = small("segmentation")[0]
    domain = Domain("d", "segmentation", source.classes, Counted(source.images), None, source.names)
    stream = translations(model(Same, **PREPROCESS["segmentation"].model_dump(exclude={"views", "geometry"})), domain)
    next(stream)
    assert read == [0]


def test_values_that_are_not_finite_are_an_error_that_names_the_image():
    class Broken(Same):
        def translate(self, x: Tensor) -> Tensor:
            return x / 0

    with pytest.raises(NumericError, match="for 0"):
        translate(model(Broken, channels=1), images((4, 4, 1)))


def test_methods_that_do_not_translate_say_which_do(monkeypatch):
    monkeypatch.setattr(find("dann"), "translate", lambda self, x: x)
    with pytest.raises(UsageError, match=r"source-only does not redraw images.*\bdann\b"):
        acclimate.translate(model(find("source-only"), channels=1), images((4, 4, 1)))
