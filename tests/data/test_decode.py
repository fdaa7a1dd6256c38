"""Decoding: the pixels that a person sees, ids as they are stored, and a clear word about every bad file."""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acclimate.data.decode import (
    MAX_PIXELS,
    SUFFIXES,
    UnusableFile,
    header,
    image_size,
    limit16,
    orientation,
    pages,
    read_image,
    read_mask,
)
from acclimate.errors import DataError


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def grey_png(path: Path, values: np.ndarray, bits: int) -> Path:
    """A greyscale PNG of 1, 2 or 4 bits, which Pillow reads but does not write."""
    height, width = values.shape
    rows = b""
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".ppm"])
def test_colour_and_grey_keep_their_values_and_channels(tmp_path: Path, suffix: str) -> None:
    colour, grey = noise(5, 7, 3), noise(5, 7)
    np.testing.assert_array_equal(read_image(save(tmp_path / f"c{suffix}", colour)), colour)
    np.testing.assert_array_equal(read_image(save(tmp_path / f"g{suffix}", grey)), grey[..., None])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_values_are_scaled_and_never_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 100, 1000, 4095]], np.uint16)
    path = save(tmp_path / f"deep{suffix}", values)
    image = read_image(path, scale16=4096)
    assert image.dtype == np.uint8
    assert image[0, :, 0].tolist() == [0, 6, 62, 255]  # convert("RGB") gives 0, 100, 255, 255
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 4, 16]
    assert header(path).deep


@pytest.mark.parametrize(
    ("largest", "scale"), [(0, 256), (255, 256), (4095, 4096), (4096, 4096), (4097, 8192), (65535, 65536)]
)
def test_scale_of_a_domain_is_the_power_of_two_above_its_largest_value(
    tmp_path: Path, largest: int, scale: int
) -> None:
    first = save(tmp_path / "a.png", np.array([[0, 3]], np.uint16))
    second = save(tmp_path / "b.tif", np.array([[largest]], np.uint16))
    assert limit16([(str(first), 0), (str(second), 0)]) == scale


def test_big_endian_16_bit_tiff(tmp_path: Path) -> None:
    Image.fromarray(np.array([[256, 4095]], ">u2").astype(">u2")).save(tmp_path / "be.tif")
    assert read_mask(tmp_path / "be.tif").tolist() == [[256, 4095]]


def test_transparent_pixels_are_laid_on_black_whatever_colour_hides_below(tmp_path: Path) -> None:
    array = np.zeros((1, 3, 4), np.uint8)
    array[0] = [[200, 100, 50, 255], [255, 255, 255, 0], [200, 100, 50, 128]]
    image = read_image(save(tmp_path / "a.png", array))
    assert image[0, 0].tolist() == [200, 100, 50]
    assert image[0, 1].tolist() == [0, 0, 0]
    np.testing.assert_allclose(image[0, 2], [100, 50, 25], atol=1)


def test_grey_with_alpha_stays_grey(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "la.png", np.array([[[200, 255], [200, 0]]], np.uint8)))
    assert image.shape == (1, 2, 1)
    assert image.ravel().tolist() == [200, 0]


def test_palettes_become_their_colours_and_grey_palettes_one_channel(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2]], np.uint8)
    for name, palette in (("colour", [10, 20, 30, 40, 50, 60, 70, 80, 90]), ("grey", [5, 5, 5, 9, 9, 9, 7, 7, 7])):
        image = Image.fromarray(indices)
        image = image.convert("L").copy()
        image.putpalette(palette)
        image.save(tmp_path / f"{name}.png")
    assert read_image(tmp_path / "colour.png").tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    assert read_image(tmp_path / "grey.png").tolist() == [[[5], [9], [7]]]


def test_one_bit_and_cmyk(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bit.png")
    assert read_image(tmp_path / "bit.png").ravel().tolist() == [255, 0]
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    red = read_image(tmp_path / "cmyk.jpg")
    assert red.shape == (4, 4, 3)
    assert red[0, 0, 0] > 240
    assert red[0, 0, 1:].max() < 15


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_exif_rotation_is_applied(tmp_path: Path, suffix: str) -> None:
    array = np.zeros((8, 16, 3), np.uint8)
    array[:, :8] = 255  # the left half is white; turned by 90 degrees clockwise it is the upper half
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(array).save(path, exif=exif)
    image = read_image(path)
    assert image.shape == (16, 8, 3)
    assert image[:6].min() > 200
    assert image[10:].max() < 50
    assert orientation(path) == 6
    assert image_size(path) == (16, 8)


def test_multi_page_tiff(tmp_path: Path) -> None:
    slices = [noise(4, 5) // (n + 1) for n in range(3)]
    first, *rest = map(Image.fromarray, slices)
    first.save(tmp_path / "stack.tif", save_all=True, append_images=rest)
    assert pages(tmp_path / "stack.tif") == 3
    for number, expected in enumerate(slices):
        np.testing.assert_array_equal(read_image(tmp_path / "stack.tif", number)[..., 0], expected)
        np.testing.assert_array_equal(read_mask(tmp_path / "stack.tif", number, ignore=None), expected)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_animations_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(noise(4, 4, 3) // n) for n in (1, 2)]
    path = tmp_path / f"film{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    for call in (pages, read_image, read_mask):
        with pytest.raises(UnusableFile, match="animation") as caught:
            call(path)
        assert caught.value.kind == "animated"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".gif", ".ppm"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str, share: float) -> None:
    path = save(tmp_path / f"cut{suffix}", noise(40, 40, 3))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnusableFile, match=f"cut{suffix}") as caught:
        read_image(path)
    assert caught.value.kind == "truncated"


def test_a_compressed_tiff_whose_table_of_contents_is_gone_counts_as_truncated(tmp_path: Path) -> None:
    path = save(tmp_path / "cut.tif", noise(40, 40, 3), compression="tiff_lzw")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UnusableFile) as caught:
        read_image(path)
    assert caught.value.kind == "truncated"


def test_every_other_bad_file_has_its_kind_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tif")
    kinds = {"empty.png": "zero-byte", "text.png": "unreadable", "folder.png": "unreadable", "float.tif": "depth"}
    for name, kind in {**kinds, "gone.png": "missing"}.items():
        with pytest.raises(UnusableFile) as caught:
            read_image(tmp_path / name)
        assert caught.value.kind == kind
        assert name in str(caught.value)
        assert caught.value.advice


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    path = save(tmp_path / "locked.png", noise(2, 2))
    path.chmod(0)
    with pytest.raises(UnusableFile, match="chmod") as caught:
        read_image(path)
    assert caught.value.kind == "permission"


def test_a_program_in_an_image_costume_is_not_started(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    with pytest.raises(UnusableFile, match="no image in a known format"):
        read_image(tmp_path / "page.png")
    assert "EPS" not in SUFFIXES


def test_decompression_bombs_are_refused_and_the_limit_can_be_raised(tmp_path: Path) -> None:
    path = save(tmp_path / "large.png", np.zeros((60, 50), np.uint8))
    with pytest.raises(UnusableFile, match="max_pixels") as caught:
        read_image(path, max_pixels=2999)
    assert caught.value.kind == "too large"
    assert read_image(path, max_pixels=3000).shape == (60, 50, 1)
    grey_png(tmp_path / "bomb.png", np.zeros((1, 1), int), 1)
    content = bytearray((tmp_path / "bomb.png").read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(UnusableFile) as caught:
        read_image(tmp_path / "bomb.png")
    assert caught.value.kind == "too large"


def test_raising_the_limit_for_one_file_leaves_pillows_own_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "large.png", np.zeros((60, 50), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_image(path, max_pixels=MAX_PIXELS + 1).shape == (60, 50, 1)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_the_error_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(UnusableFile("a.png", "truncated", "it ends", "restore it")))
    assert isinstance(error, DataError)
    assert (error.path, error.kind, str(error)) == ("a.png", "truncated", "a.png: it ends; restore it")


def test_palette_masks_keep_their_ids(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 7, 255]], np.uint8)
    image = Image.fromarray(ids)
    image.putpalette(np.random.default_rng(1).integers(0, 255, 768, dtype=np.uint8).tobytes())
    image.save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    assert mask.tolist() == [[0, 1, 7, -1]]
    assert np.issubdtype(mask.dtype, np.signedinteger)
    assert read_mask(tmp_path / "m.png", ignore=None).tolist() == [[0, 1, 7, 255]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_keep_their_ids(tmp_path: Path, bits: int) -> None:
    ids = np.arange(1 << bits)[None]
    path = grey_png(tmp_path / "m.png", ids, bits)
    np.testing.assert_array_equal(read_mask(path), ids)


def test_deep_and_colour_masks(tmp_path: Path) -> None:
    deep = np.array([[0, 300, 65535]], np.uint16)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "deep.png", deep)), deep)
    ids = noise(3, 4)
    equal = save(tmp_path / "equal.png", np.repeat(ids[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_mask(equal, ignore=None), ids)
    for name, array in {"colour.png": noise(3, 4, 3), "alpha.png": noise(3, 4, 4)}.items():
        with pytest.raises(UnusableFile, match="class ids") as caught:
            read_mask(save(tmp_path / name, array))
        assert caught.value.kind == "mask"


def test_jpeg_masks_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.zeros((8, 8), np.uint8), format="JPEG")
    with pytest.raises(UnusableFile, match="JPEG"):
        read_mask(path)
