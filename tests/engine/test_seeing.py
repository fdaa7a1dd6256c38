"""Images as a network gets them: in pieces, at each domain's scale, under the statistics of one domain."""

from __future__ import annotations

import numpy as np
import pytest
import runs as short
import torch
import toys

from acclimate.engine import seeing
from acclimate.engine.model import Model
from acclimate.networks.contract import Network


@pytest.fixture
def source():
    return short.small("segmentation")[0]


@pytest.fixture
def model():
    """Source-only after a few steps, on images of 32 x 32 pixels."""
    return short.start("source-only", "segmentation").model


def test_pieces_cover_a_large_image_and_its_label(model, source, monkeypatch):
    whole = torch.cat([piece.x for piece in seeing.pieces(model, source, "source")])
    monkeypatch.setattr(seeing, "PIECE", 16)
    parts = list(seeing.pieces(model, source, "source"))
    assert len(parts) == 4 * len(source)
    label = np.asarray(source.labels[0])
    for part, (top, left) in zip(parts, ((0, 0), (0, 16), (16, 0), (16, 16))):
        assert (part.index, part.corner, part.size) == ([0], (top, left), (32, 32))
        assert torch.equal(part.x[0], whole[0, :, top : top + 16, left : left + 16])
        np.testing.assert_array_equal(part.label(source.labels[0]), label[top : top + 16, left : left + 16])


def test_small_images_pass_together(model, source, monkeypatch):
    monkeypatch.setattr(seeing, "PIECE", 64)  # four images of 32 x 32 pixels
    parts = list(seeing.pieces(model, source, "source"))
    assert [len(part.index) for part in parts] == [min(4, len(source) - first) for first in range(0, len(source), 4)]
    assert [i for part in parts for i in part.index] == list(range(len(source)))


def test_each_domain_is_seen_at_its_own_scale(model, source):
    scaled = Model(model.method, model.preprocess.replace(scale=(0.5, 2.0)), model.device)
    for name, side in (("source", 16), ("target", 64)):
        assert next(seeing.pieces(scaled, source, name)).size == (side, side)


class _Counting(torch.nn.Module):
    """A BatchNorm layer before the toy network, and how many pixels pass at once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.then, self.pixels = torch.nn.BatchNorm2d(1), toys.SmallSegmenter(), []

    def forward(self, x):
        self.pixels.append(x.shape[0] * x.shape[2] * x.shape[3])
        return self.then(self.first(x))


def test_statistics_of_a_domain_come_from_all_its_pieces_and_the_model_stays_as_it_was(source, monkeypatch):
    net = Network(_Counting(), head="then.head", input_shape=(1, 32, 32))
    model = short.start("source-only", "segmentation", net=net).model
    before = {name: value.clone() for name, value in model.method.state_dict().items()}
    monkeypatch.setattr(seeing, "PIECE", 16)
    seen = seeing.on_own_statistics(model, source, "source")
    (counting,) = (layer for layer in seen.method.net.modules() if isinstance(layer, _Counting))
    assert max(counting.pixels[-4 * len(source) :]) == 16 * 16
    x = torch.cat([x for _, x in seeing.inputs(model, source, "source")]).double()
    assert float(counting.first.running_mean) == pytest.approx(x.mean().item(), rel=1e-4)
    assert float(counting.first.running_var) == pytest.approx(x.var().item(), rel=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in model.method.state_dict().items())


def test_without_batchnorm_there_is_nothing_to_replace():
    source = short.small("classification")[0]
    model = short.start("source-only", "classification", net=short.network("classification", norm=False)).model
    assert seeing.on_own_statistics(model, source, "source") is model


def test_label_maps_are_resampled_by_the_nearest_pixel():
    label = np.array([[0, 1], [2, -1]])
    np.testing.assert_array_equal(seeing.resampled(label, 4, 4), label.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(seeing.resampled(label.repeat(3, 0).repeat(3, 1), 2, 2), label)
