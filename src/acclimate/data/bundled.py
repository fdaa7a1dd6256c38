"""Data sets that need no download: rendered, handwritten and blended digits, and shapes cut from Perlin noise."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from acclimate.data.catalog.base import Card, Dataset, arrays
from acclimate.data.catalog.digits import DIGITS
from acclimate.data.domain import Domain
from acclimate.data.perlin import scenes
from acclimate.random import generator, key

SIDE = 28
Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]

_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
    "cmr10",
    "cmb10",
    "cmss10",
    "cmtt10",
)
_GLYPH = 4 * SIDE  # glyphs are drawn this large and sampled down
_COUNTS = {"train": 4000, "test": 1000}
_PATCHES = {"train": 3, "test": 2}
_LAYOUT = "nothing on the disk: made in memory"
_MATPLOTLIB = """\
@article{hunter2007,
  title = {Matplotlib: A {2D} graphics environment}, author = {Hunter, John D.},
  journal = {Computing in Science \\& Engineering}, volume = {9}, number = {3}, pages = {90--95}, year = {2007}
}"""
_OPTDIGITS = """\
@misc{alpaydin1998,
  title = {Optical Recognition of Handwritten Digits}, author = {Alpaydin, E. and Kaynak, C.},
  publisher = {UCI Machine Learning Repository}, year = {1998}, doi = {10.24432/C50P49}
}"""
_MNIST_M = """\
@article{ganin2016,
  title = {Domain-adversarial training of neural networks},
  author = {Ganin, Yaroslav and Ustinova, Evgeniya and Ajakan, Hana and Germain, Pascal and Larochelle, Hugo and
    Laviolette, Fran{\\c{c}}ois and Marchand, Mario and Lempitsky, Victor},
  journal = {Journal of Machine Learning Research}, volume = {17}, number = {59}, pages = {1--35}, year = {2016}
}"""
_PERLIN = """\
@article{perlin2002,
  title = {Improving noise}, author = {Perlin, Ken},
  journal = {ACM Transactions on Graphics}, volume = {21}, number = {3}, pages = {681--682}, year = {2002}
}"""


@functools.cache
def _glyphs() -> Tensor:
    """Digits of matplotlib's fonts ``(3, fonts, 10, 4 S, 4 S)`` in 0..1, centred, 2 S high: thin, plain, thick."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    glyphs = []
    for font in _FONTS:
        for digit in DIGITS:
            large = ImageFont.truetype(str(folder / f"{font}.ttf"), 2 * _GLYPH)
            left, top, right, bottom = large.getbbox(digit)
            canvas = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)))
            ImageDraw.Draw(canvas).text((-left, -top), digit, font=large, fill=255)
            width = max(1, round(canvas.width * 2 * SIDE / canvas.height))
            small = canvas.resize((width, 2 * SIDE), Image.Resampling.LANCZOS)
            square = Image.new("L", (_GLYPH, _GLYPH))
            square.paste(small, ((_GLYPH - width) // 2, SIDE))
            glyphs.append(np.asarray(square, np.float32) / 255)
    plain = torch.from_numpy(np.stack(glyphs)).reshape(len(_FONTS), 10, _GLYPH, _GLYPH)
    return torch.stack([-F.max_pool2d(-plain, 5, 1, 2), plain, F.max_pool2d(plain, 7, 1, 3)])


@functools.cache
def _rendered(count: int, split: str) -> Arrays:
    """Printed digits under random pose: rotation, shear, size, place and stroke width; white on black."""
    draw = generator("digits-rendered", split)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=draw)

    labels = torch.arange(count) % 10
    fonts = torch.randint(len(_FONTS), (count,), generator=draw)
    angle, shear = uniform(-0.3, 0.3), uniform(-0.25, 0.25)
    # The glyph is 2 S of 4 S high: at zoom 1 it covers half of the image, 14 of 28 pixels.
    zoom_x, zoom_y = uniform(1.0, 1.5), uniform(1.1, 1.5)
    right, down = uniform(-0.1, 0.1), uniform(-0.1, 0.1)
    width = uniform(-0.7, 1.0)
    kinds = _glyphs()
    extreme = kinds[1 + width.sign().long(), fonts, labels]
    glyphs = torch.lerp(kinds[1, fonts, labels], extreme, width.abs()[:, None, None])[:, None]
    cos, sin = angle.cos(), angle.sin()
    pose = torch.stack([cos / zoom_x, (sin + shear * cos) / zoom_x, right, -sin / zoom_y, cos / zoom_y, down], dim=1)
    grid = F.affine_grid(pose.reshape(count, 2, 3), [count, 1, 2 * SIDE, 2 * SIDE], align_corners=False)
    images = F.avg_pool2d(F.grid_sample(glyphs, grid, align_corners=False), 2)[:, 0]
    return (images * 255).round().clamp(0, 255).to(torch.uint8)[..., None].numpy(), labels.numpy()


@functools.cache
def _handwritten(split: str) -> Arrays:
    """The 1,797 digits of scikit-learn, 8 x 8 enlarged to 20 x 20 amid 28 x 28 black pixels, as in MNIST."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(key("digits-handwritten")).permutation(len(found.target))
    chosen = np.sort(order[:1297] if split == "train" else order[1297:])
    small = np.round(found.images[chosen] * 255 / 16).astype(np.uint8)
    images = [np.asarray(Image.fromarray(image).resize((20, 20), Image.Resampling.BICUBIC)) for image in small]
    return np.pad(np.stack(images), ((0, 0), (4, 4), (4, 4)))[..., None], found.target[chosen].astype(np.int64)


@functools.cache
def _photos() -> list[NDArray[np.uint8]]:
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)


def blend(images: NDArray[np.uint8], split: str, seed: int = 0) -> NDArray[np.uint8]:
    """|patch - digit| over random patches of two photos: ``(N, H, W, 1)`` to ``(N, H, W, 3)``.

    Patches for training come from the left three quarters of each photo, those for testing from the right quarter; each
    ``seed`` draws others. Recipe of MNIST-M: Ganin et al., JMLR 2016, section 5.2.4.
    """
    rng = np.random.default_rng(key("digits-blended", split, seed))
    blended = np.empty((*images.shape[:3], 3), np.uint8)
    for index, image in enumerate(images):
        photo = _photos()[rng.integers(len(_photos()))]
        border = photo.shape[1] * 3 // 4
        region = photo[:, :border] if split == "train" else photo[:, border:]
        top, left = (rng.integers(length - SIDE + 1) for length in region.shape[:2])
        patch = region[top : top + SIDE, left : left + SIDE]
        # uint8 would wrap around below zero.
        blended[index] = np.abs(patch.astype(np.int16) - image.astype(np.int16)).astype(np.uint8)
    return blended


@functools.cache
def _blended(split: str) -> Arrays:
    """The handwritten digits over photos: three patches for each one of the train split, two for each of the test."""
    (images, labels), times = _handwritten(split), _PATCHES[split]
    return blend(np.concatenate([images] * times), split), np.concatenate([labels] * times)


@functools.cache
def _shapes(name: str, split: str, inside: float, outside: float) -> Arrays:
    count = {"train": 300, "test": 100}[split]
    images, masks = scenes(count, 64, inside=inside, outside=outside, generator=generator(name, split))
    return images.numpy(), masks.numpy().astype(np.int64)


def _perlin(name: str, title: str, inside: float, outside: float) -> Dataset:
    card = Card(
        name=name,
        title=title,
        task="segmentation",
        classes=("background", "object"),
        splits=("train", "test"),
        layout=_LAYOUT,
        homepage="made by acclimate",
        licence="Apache-2.0, like acclimate",
        citation=_PERLIN,
        notes=f"Shapes cut from Perlin noise: white noise of mean {inside} inside and {outside} outside, standard "
        "deviation 0.15; 30 to 50 % of each image is object; 64 x 64 grey; 300 train, 100 test.",
    )
    return _bundle(card, lambda split: _shapes(name, split, inside, outside))


def _bundle(card: Card, made: Callable[[str], Arrays]) -> Dataset:
    def load(_: Path, split: str) -> Domain:
        # Copies, so that nobody's change to a domain reaches the cache.
        images, labels = made(split)
        return arrays(card, split, images.copy(), labels.copy())

    return Dataset(card, load)


RENDERED = _bundle(
    Card(
        name="digits-rendered",
        title="Rendered digits",
        task="classification",
        classes=DIGITS,
        splits=("train", "test"),
        layout=_LAYOUT,
        homepage="made by acclimate",
        licence="Apache-2.0, like acclimate; drawn with the free fonts that matplotlib ships",
        citation=_MATPLOTLIB,
        notes="19 fonts under random rotation, shear, size, place and stroke width; white on black; 28 x 28 grey; "
        "4,000 train, 1,000 test, equally many of each class.",
    ),
    lambda split: _rendered(_COUNTS[split], split),
)

HANDWRITTEN = _bundle(
    Card(
        name="digits-handwritten",
        title="Handwritten digits of scikit-learn",
        task="classification",
        classes=DIGITS,
        splits=("train", "test"),
        layout=_LAYOUT,
        homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        licence="CC BY 4.0",
        citation=_OPTDIGITS,
        notes="The test part of the UCI set, 1,797 images of 8 x 8, enlarged to 20 x 20 (bicubic) amid 28 x 28 grey "
        "pixels; split at random, the same way each time, into 1,297 train and 500 test.",
    ),
    _handwritten,
)

BLENDED = _bundle(
    Card(
        name="digits-blended",
        title="Handwritten digits blended over photos",
        task="classification",
        classes=DIGITS,
        splits=("train", "test"),
        layout=_LAYOUT,
        homepage="made by acclimate",
        licence="CC BY 4.0 (digits) and CC BY 2.0 (photos of scikit-learn by danielbuechele and vultilion, Flickr)",
        citation=_MNIST_M,
        notes="Made like MNIST-M: |patch - digit| for the handwritten digits, each over three patches of two photos "
        "(test: two); train patches come from the left three quarters of each photo, test patches from the rest, and "
        "test digits are not those of train; 28 x 28 colour; 3,891 train, 1,000 test.",
    ),
    _blended,
)

PERLIN_DARK = _perlin("perlin-dark", "Perlin shapes, dark", inside=0.5, outside=0.1)
PERLIN_BRIGHT = _perlin("perlin-bright", "Perlin shapes, brighter by 0.2", inside=0.7, outside=0.3)
