"""Pictures: outlines, stripes, formats, and the budget."""

from __future__ import annotations

import base64
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from acclimate.report.pictures import CHANGES, changes, data_uri, disagreement, overlay, within
from acclimate.report.schema import Became


@pytest.mark.parametrize(("side", "kind"), [(28, "png"), (200, "webp")])
def test_small_images_are_kept_without_loss(side, kind):
    picture = np.random.default_rng(0).integers(0, 255, (side, side, 1), np.uint8)
    head, content = data_uri(picture).split(",")
    assert head == f"data:image/{kind};base64"
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("L"))
    assert back.shape == (side, side)
    assert kind == "webp" or np.array_equal(back, picture[..., 0])


def test_two_classes_outline_the_second_only():
    image, labels = np.full((32, 32, 1), 100, np.uint8), np.zeros((32, 32), np.int16)
    labels[8:24, 8:24] = 1
    drawn = overlay(image, labels, 2)
    assert drawn.shape == (224, 224, 3)
    assert (drawn[:50] == 100).all()
    assert tuple(drawn[56, 112]) == (213, 94, 0)  # the outline
    assert not (drawn[112, 112] == 100).all()  # the tint


def test_what_is_ignored_is_striped_and_many_classes_are_numbered():
    image, labels = np.full((64, 64, 3), 100, np.uint8), np.full((64, 64), 2, np.int16)
    labels[:32] = -1
    drawn = overlay(image, labels, 5)
    assert len(np.unique(drawn[:80].reshape(-1, 3), axis=0)) >= 2
    assert drawn[96:].min(-1).max() > 220  # the white of the number


def test_quality_falls_and_rows_go_until_the_budget_holds():
    noise = np.random.default_rng(0).integers(0, 255, (6, 200, 200, 3), np.uint8)
    rows = [[picture] for picture in noise]
    whole = within(10**9, rows)
    cut = within(60_000, rows)
    assert len(whole) == 6
    assert 0 < len(cut) < 6
    assert sum(len(uri) for row in cut for uri in row) <= 60_000


BEFORE = np.array([[0, 0, 0, 0, 1, 1]], np.int16)
AFTER = np.array([[0, 1, 1, 1, 0, 2]], np.int16)
TRUTH = np.array([[0, 1, 0, -1, 0, 0]], np.int16)


def test_what_became_of_changed_pixels():
    """Same; corrected; newly wrong; not labelled; corrected; wrong before and after."""
    assert changes(BEFORE, AFTER, TRUTH).tolist() == [[-1, 0, 1, 3, 0, 2]]
    assert changes(BEFORE, AFTER, None).tolist() == [[-1, 3, 3, 3, 3, 3]]
    assert list(CHANGES) == ["corrected", "newly_wrong", "still_wrong", "not_labelled"] == list(Became.model_fields)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_disagreement_is_coloured_and_agreement_is_grey(labelled):
    image = np.full((1, 6, 1), 200, np.uint8)
    drawn = disagreement(image, BEFORE, AFTER, TRUTH if labelled else None)
    cell = drawn.shape[1] // 6
    colours = [{tuple(colour) for colour in drawn[:, k * cell : (k + 1) * cell].reshape(-1, 3)} for k in range(6)]
    blue, vermilion, black, grey, green = (0, 114, 178), (213, 94, 0), (17, 17, 17), (118, 118, 118), (0, 158, 115)
    hatched = {vermilion, (255, 255, 255)}
    expected = [{blue}, hatched, {grey}, {blue}, {black}] if labelled else [{vermilion}] * 3 + [{blue}, {green}]
    assert colours == [{(220, 220, 220)}, *expected]


def test_the_colours_of_changes_differ_for_the_colour_blind():
    """In lightness (Rec. 709 luma), or by the hatching, which one of the two has."""

    def luma(colour: str) -> float:
        return sum(w * int(colour[i : i + 2], 16) for w, i in ((0.2126, 1), (0.7152, 3), (0.0722, 5)))

    plain = sorted(luma(colour) for name, colour in CHANGES.items() if name != "newly_wrong")
    assert min(b - a for a, b in itertools.pairwise(plain)) > 20
