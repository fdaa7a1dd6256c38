"""MNIST: handwritten digits, 28 x 28, grey."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from acclimate.data.catalog.base import Card, Dataset, Remote, arrays, inside
from acclimate.data.catalog.digits import DIGITS
from acclimate.data.domain import Domain
from acclimate.errors import DataError

_MIRROR = "https://storage.googleapis.com/cvdf-datasets/mnist/"

CARD = Card(
    name="mnist",
    title="MNIST handwritten digits",
    task="classification",
    classes=DIGITS,
    splits=("train", "test"),
    layout="""\
train-images-idx3-ubyte.gz    60,000 images (with or without .gz)
train-labels-idx1-ubyte.gz
t10k-images-idx3-ubyte.gz     10,000 images
t10k-labels-idx1-ubyte.gz""",
    homepage="http://yann.lecun.com/exdb/mnist/",
    licence="not stated",
    citation="""\
@article{lecun1998gradient,
  title = {Gradient-based learning applied to document recognition},
  author = {LeCun, Yann and Bottou, L{\\'e}on and Bengio, Yoshua and Haffner, Patrick},
  journal = {Proceedings of the IEEE}, volume = {86}, number = {11}, pages = {2278--2324}, year = {1998}
}""",
    files=(
        Remote(
            _MIRROR + "train-images-idx3-ubyte.gz",
            "train-images-idx3-ubyte.gz",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            9_912_422,
        ),
        Remote(
            _MIRROR + "train-labels-idx1-ubyte.gz",
            "train-labels-idx1-ubyte.gz",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            28_881,
        ),
        Remote(
            _MIRROR + "t10k-images-idx3-ubyte.gz",
            "t10k-images-idx3-ubyte.gz",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            1_648_877,
        ),
        Remote(
            _MIRROR + "t10k-labels-idx1-ubyte.gz",
            "t10k-labels-idx1-ubyte.gz",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            4_542,
        ),
    ),
    notes="The checksums are those of the copy that TensorFlow Datasets uses.",
)


def load(folder: Path, split: str) -> Domain:
    part = {"train": "train", "test": "t10k"}[split]
    files = [f"{part}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
    images, labels = (read_idx(inside(CARD, folder, name + ".gz", name)) for name in files)
    return arrays(CARD, split, images, labels.astype(np.int64))


def read_idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in an IDX file, packed with gzip or not.

    Raises :class:`DataError` for a damaged file.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); get it again") from error
    rank = content[3] if content[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(content, ">i4", rank, 4).tolist() if len(content) >= 4 + 4 * rank else []
    values = np.frombuffer(content, np.uint8, offset=min(4 + 4 * rank, len(content)))
    if not shape or values.size != np.prod(shape):
        raise DataError(f"{path} is no complete IDX file of bytes; get it again")
    return values.reshape(shape)


MNIST = Dataset(CARD, load)
