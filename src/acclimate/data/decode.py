"""Image and mask files to arrays: safely, fully, and always in the same way."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from acclimate.errors import DataError

MAX_PIXELS = 89_478_485
"""The largest image that is decoded unless a data set asks for more: a small file can hold a huge empty image."""

SUFFIXES: dict[str, frozenset[str]] = {
    "PNG": frozenset({".png", ".apng"}),
    "JPEG": frozenset({".jpg", ".jpeg", ".jpe"}),
    "TIFF": frozenset({".tif", ".tiff"}),
    "BMP": frozenset({".bmp"}),
    "GIF": frozenset({".gif"}),
    "WEBP": frozenset({".webp"}),
    "PPM": frozenset({".ppm", ".pgm", ".pbm", ".pnm"}),
}
"""The formats that are read. The others that Pillow knows stay shut: its EPS reader, for one, starts a program."""

IMAGE_SUFFIXES = frozenset().union(*SUFFIXES.values())

_ANIMATIONS = {"PNG", "GIF", "WEBP"}
_GREY = {"1", "L", "LA", "La", "I", "F"}
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8", b"RIFF")
_RESTORE = "restore it from the original, or remove it from the data set"
_IDS = "save it as an 8-bit grey or palette PNG of class ids"
_SAME_SCALE = "save it with 8 or 16 bits, scaled the same way in all files"
_limit_lock = threading.Lock()


class UnusableFile(DataError):
    """One file that cannot be used: which, what kind of trouble (``"truncated"``, ...), and what to do."""

    def __init__(self, path: str | os.PathLike[str], kind: str, problem: str, advice: str) -> None:
        self.path, self.kind, self.problem, self.advice = os.fspath(path), kind, problem, advice
        super().__init__(f"{self.path}: {problem}; {advice}")

    def __reduce__(self) -> tuple[Any, ...]:  # it has to reach the main process from a worker
        return type(self), (self.path, self.kind, self.problem, self.advice)


@dataclasses.dataclass(frozen=True)
class Header:
    """What the first bytes of an image file say, without decoding it."""

    format: str  # a key of SUFFIXES
    mode: str  # Pillow's word: "L", "RGB", "P", "I;16", ...
    channels: int  # 1 or 3, as read_image will give them
    bits: int  # 8 or 16 per value
    pages: int
    animated: bool
    transparent: bool  # it has an alpha channel or a transparent colour

    @property
    def deep(self) -> bool:
        """Grey values that do not fit in 8 bits."""
        return self.channels == 1 and self.bits > 8


def header(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Header:
    """The header of an image file.

    Raises :class:`UnusableFile` where the file is empty, unreadable, no image, or larger than ``max_pixels``.
    """
    with opened(path, max_pixels) as image:
        animated = image.format in _ANIMATIONS and getattr(image, "is_animated", False)
        return Header(
            format="JPEG" if image.format == "MPO" else str(image.format),
            mode=image.mode,
            channels=1 if _is_grey(image) else 3,
            bits=16 if image.mode[0] in "IF" or ";16" in str(image.tile) else 8,
            pages=getattr(image, "n_frames", 1) if image.format == "TIFF" else 1,
            animated=animated,
            transparent=image.has_transparency_data,
        )


def pages(path: str | os.PathLike[str]) -> int:
    """The number of images in a file: the slices of a multi-page TIFF, otherwise 1.

    Raises :class:`UnusableFile` for a file that cannot be opened and for an animation (GIF, WebP, APNG).
    """
    found = header(path)
    if found.animated:
        raise _animated(path)
    return found.pages


def orientation(path: str | os.PathLike[str]) -> int:
    """The EXIF orientation of an image file, 1 to 8; 1 where there is none or it makes no sense."""
    with opened(path) as image:
        return _early_orientation(image)


def image_size(path: str | os.PathLike[str], page: int = 0, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width of an image as :func:`read_image` gives it, mostly without decoding it."""
    with opened(path, max_pixels) as image:
        if page:
            image.seek(page)
        width, height = image.size
        if _early_orientation(image) > 4:
            width, height = _decoded(path, page, max_pixels)[0].size
        return height, width


def read_image(
    path: str | os.PathLike[str], page: int = 0, scale16: int | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decode one image fully, to ``uint8`` ``(H, W, C)`` with C = 1 for grey and 3 for colour.

    A camera's EXIF rotation is applied, transparent pixels are laid on black, palettes and CMYK become RGB. Grey values
    ``v`` of 16 bits become ``v * 255 / scale16`` (65536 if not given), so that one number, the same for all images of
    a domain, keeps them comparable; 16-bit colour keeps its upper 8 bits.

    Raises :class:`UnusableFile`, which names the file and what to do.
    """
    image, _ = _decoded(path, page, max_pixels)
    if image.mode[0] == "I":
        return _scaled(_integers(image, path), scale16 or 1 << 16)[..., None]
    if image.mode == "F":
        raise UnusableFile(path, "depth", "its values are floating-point numbers", _SAME_SCALE)
    if image.mode == "LAB":
        raise UnusableFile(path, "mode", "its colours are stored as L*a*b*", "save it as an RGB image")
    mode = "L" if _is_grey(image) else "RGB"
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    array = np.array(image.convert(mode))
    return array[..., None] if array.ndim == 2 else array


def read_mask(
    path: str | os.PathLike[str], page: int = 0, ignore: int | None = 255, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decode one mask to the ids stored in it, ``int32`` ``(H, W)``, with the id ``ignore`` given as -1.

    Palette masks keep their indices, whatever colours these have; 1-bit masks hold 0 and 1; colour masks are read only
    where their three channels are equal.

    Raises :class:`UnusableFile`, which names the file and what to do.
    """
    image, rawmode = _decoded(path, page, max_pixels)
    if rawmode == "JPEG":
        raise UnusableFile(path, "mask", "JPEG changes the values of pixels, and so class ids", _IDS)
    if image.mode in ("P", "L"):
        ids = np.array(image, dtype=np.int32)
        # Pillow stretches grey values of 2 and 4 bits over 0..255; ids must not be.
        ids //= 85 if "'L;2" in rawmode else 17 if "'L;4" in rawmode else 1
    elif image.mode == "1":
        ids = np.array(image, dtype=np.int32)
    elif image.mode[0] == "I":
        ids = _integers(image, path)
    elif image.mode in ("RGB", "RGBA", "LA", "PA"):
        ids = _equal_channels(np.array(image), image.mode, path)
    else:
        raise UnusableFile(path, "mask", f"a mask cannot be {image.mode}", _IDS)
    if ignore is not None:
        ids[ids == ignore] = -1
    return ids


def limit16(files: Iterable[tuple[str, int]], max_pixels: int = MAX_PIXELS) -> int:
    """The scale of a domain of 16-bit grey images: the power of two that is at least the largest value in it.

    ``files`` are (path, page) pairs. Files that cannot be decoded are passed over: reading them raises soon enough.
    """
    largest = 0
    for path, page in files:
        with contextlib.suppress(UnusableFile):
            image, _ = _decoded(path, page, max_pixels)
            if image.mode[0] == "I":
                largest = max(largest, int(_integers(image, path).max()))
    return 1 << max(8, (largest - 1).bit_length())


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Iterator[ImageFile.ImageFile]:
    """The file, opened and its size checked; whatever goes wrong inside becomes an :class:`UnusableFile`."""
    try:
        with _open(path, max_pixels) as image:
            _check_size(path, image, max_pixels)
            yield image
    except DataError:
        raise
    except FileNotFoundError as error:
        raise UnusableFile(path, "missing", "there is no such file", _RESTORE) from error
    except PermissionError as error:
        raise UnusableFile(path, "permission", "permission denied", f"make it readable: chmod u+r {path}") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error), max_pixels) from error
    except Exception as error:  # a damaged file makes a decoder raise almost anything
        raise _damaged(path, error) from error


def _open(path: str | os.PathLike[str], max_pixels: int) -> ImageFile.ImageFile:
    formats = list(SUFFIXES)
    if max_pixels <= MAX_PIXELS:
        return Image.open(path, formats=formats)
    with _limit_lock:  # Pillow's own limit is one number for the whole process
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            return Image.open(path, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _decoded(path: str | os.PathLike[str], page: int, max_pixels: int) -> tuple[Image.Image, str]:
    """One decoded page, upright, and how its pixels are stored: "JPEG", or what Pillow says of them."""
    with opened(path, max_pixels) as image:
        if image.format in _ANIMATIONS and getattr(image, "is_animated", False):
            raise _animated(path)
        if page:
            image.seek(page)
            _check_size(path, image, max_pixels)
        rawmode = "JPEG" if image.format in ("JPEG", "MPO") else str(image.tile)
        image.load()
        upright = image if _orientation(image) == 1 else ImageOps.exif_transpose(image)
        return upright, rawmode


def _check_size(path: str | os.PathLike[str], image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_large(path, f"it has {width} x {height} pixels", max_pixels)


def _too_large(path: str | os.PathLike[str], problem: str, max_pixels: int) -> UnusableFile:
    advice = f"cut it into tiles, or allow more than {max_pixels} pixels for this data set with max_pixels"
    return UnusableFile(path, "too large", problem, advice)


def _animated(path: str | os.PathLike[str]) -> UnusableFile:
    return UnusableFile(path, "animated", "it is an animation", "save its frames as separate images")


def _damaged(path: str | os.PathLike[str], error: Exception) -> UnusableFile:
    if os.path.isdir(path):
        return UnusableFile(path, "unreadable", "it is a folder, not an image", "name a file")
    with open(path, "rb") as stream:
        start = stream.read(4)
    if not start:
        return UnusableFile(path, "zero-byte", "the file is empty", _RESTORE)
    if isinstance(error, UnidentifiedImageError):
        if start.startswith(_MAGIC):  # the table of contents of a TIFF is at its end
            return UnusableFile(path, "truncated", "it begins like an image and then breaks off", _RESTORE)
        problem = f"it is no image in a known format ({', '.join(SUFFIXES)})"
        return UnusableFile(path, "unreadable", problem, "convert it, or remove it from the data set")
    if "truncated" in str(error).lower() or isinstance(error, EOFError):
        return UnusableFile(path, "truncated", f"the file ends too early ({error})", _RESTORE)
    return UnusableFile(path, "unreadable", f"it cannot be decoded ({error})", _RESTORE)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # EXIF blocks are often malformed; the pixels are fine all the same
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _early_orientation(image: Image.Image) -> int:
    """The orientation before decoding: an EXIF block behind the pixels of a PNG, where nobody writes it, is missed."""
    return 1 if image.format == "PNG" and "exif" not in image.info else _orientation(image)


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        colours = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((colours == colours[:, :1]).all())
    return image.mode in _GREY or image.mode.startswith("I;")


def _integers(image: Image.Image, path: str | os.PathLike[str]) -> np.ndarray:
    values = np.array(image).astype(np.int32)
    if values.min() < 0 or values.max() > 65535:
        problem = f"its values run from {values.min()} to {values.max()}"
        raise UnusableFile(path, "depth", problem, _SAME_SCALE)
    return values


def _scaled(values: np.ndarray, limit: int) -> np.ndarray:
    return np.minimum((values * 255 + limit // 2) // limit, 255).astype(np.uint8)


def _equal_channels(array: np.ndarray, mode: str, path: str | os.PathLike[str]) -> np.ndarray:
    if mode.endswith("A"):
        if (array[..., -1] != 255).any():
            raise UnusableFile(path, "mask", "the mask has transparent pixels", _IDS)
        array = array[..., :-1]
    if (array != array[..., :1]).any():
        raise UnusableFile(path, "mask", "the mask is coloured, and colours are not class ids", _IDS)
    return array[..., 0].astype(np.int32)
