"""The integrity check: every kind of trouble has a name, and nothing is found in clean data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acclimate.data.check import Finding, check, usable
from acclimate.data.domain import Domain
from acclimate.data.folder import open_folder
from acclimate.errors import DataError, UsageError


def put(path: Path, array: object, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path, **options)
    return path


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (9, 9, 3), dtype=np.uint8)


def clean(root: Path, start: int = 0) -> Path:
    for number in range(4):
        put(root / "ab"[number % 2] / f"{number}.png", noise(start + number))
    return root


def kinds(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(finding.kind, finding.severity) for finding in findings}


def test_clean_domains_have_no_findings(tmp_path: Path) -> None:
    assert check(clean(tmp_path / "x"), clean(tmp_path / "y", 100)) == []


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    put(path.with_suffix(".jpg"), noise(50), exif=exif)


def half(path: Path) -> None:
    put(path, noise(50, 40, 40, 3))
    path.write_bytes(path.read_bytes()[:900])


def animation(path: Path) -> None:
    first, second = (Image.fromarray(noise(n)) for n in (50, 51))
    first.save(path.with_suffix(".gif"), save_all=True, append_images=[second])


TROUBLE = {
    "zero-byte": ("error", lambda path: path.touch()),
    "unreadable": ("error", lambda path: path.write_text("hello")),
    "truncated": ("error", half),
    "animated": ("error", animation),
    "missing": ("error", lambda path: path.symlink_to("nowhere")),
    "depth": ("error", lambda path: put(path.with_suffix(".tif"), np.ones((3, 3), np.float32))),
    "wrong-extension": ("warning", lambda path: put(path, noise(50), format="JPEG")),
    "cmyk": ("warning", lambda path: Image.new("CMYK", (5, 5), (1, 2, 3, 4)).save(path.with_suffix(".jpg"))),
    "transparent": ("warning", lambda path: put(path, noise(50, 5, 5, 4))),
    "1x1": ("warning", lambda path: put(path, noise(50, 1, 1, 3))),
    "16-bit": ("note", lambda path: put(path, noise(50, 5, 5).astype(np.uint16) * 200)),
    "exif-rotated": ("note", rotated),
}


@pytest.mark.parametrize("kind", TROUBLE)
def test_each_kind_of_trouble_is_named_with_its_file(tmp_path: Path, kind: str) -> None:
    severity, make = TROUBLE[kind]
    make(clean(tmp_path) / "a" / "odd.png")
    findings = check(tmp_path)
    assert kinds(findings) == {(kind, severity)}
    assert "odd." in findings[0].file
    assert findings[0].message
    assert findings[0].advice


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_0_is_named(tmp_path: Path) -> None:
    put(clean(tmp_path) / "a" / "odd.png", noise(9)).chmod(0)
    assert kinds(check(tmp_path)) == {("permission", "error")}


def test_errors_come_first_and_progress_is_told(tmp_path: Path) -> None:
    clean(tmp_path)
    put(tmp_path / "a" / "0a.png", noise(50, 1, 1, 3))
    (tmp_path / "b" / "z.png").touch()
    told: list[tuple[int, int]] = []
    findings = check(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert [finding.severity for finding in findings] == ["error", "warning"]
    assert told == [(n, 6) for n in range(1, 7)]


def test_masks_with_unknown_ids_and_other_sizes(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [1, 0]], np.uint8)
    for number, (mask, image) in enumerate(
        [(ids, (2, 2, 3)), (ids * 9, (2, 2, 3)), (ids, (3, 3, 3)), (ids * 0 - 1, (2, 2, 3))]
    ):
        put(tmp_path / "masks" / f"{number}.png", mask.astype(np.uint8))
        put(tmp_path / "images" / f"{number}.png", noise(number, *image))
    (tmp_path / "classes.json").write_text('{"classes": ["x", "y"]}')
    findings = check(tmp_path)
    assert [(finding.kind, finding.severity, Path(finding.file).name) for finding in findings] == [
        ("mask", "error", "1.png"),
        ("mask", "error", "2.png"),
        ("mask", "warning", "3.png"),
    ]


def test_a_folder_that_cannot_be_opened_is_a_finding(tmp_path: Path) -> None:
    put(tmp_path / "only" / "x.png", noise(1))
    findings = check(tmp_path)
    assert kinds(findings) == {("layout", "error")}
    with pytest.raises(UsageError):
        check("no-such-set")


def test_copies_within_and_across_domains(tmp_path: Path) -> None:
    clean(tmp_path / "x")
    clean(tmp_path / "y", 100)
    put(tmp_path / "x" / "a" / "copy.bmp", noise(0))
    put(tmp_path / "x" / "b" / "conflict.png", noise(2))
    put(tmp_path / "y" / "b" / "leak.tif", noise(1))
    findings = {finding.kind: finding.message for finding in check(tmp_path / "x", tmp_path / "y")}
    assert set(findings) == {"duplicate", "label-conflict", "leakage"}
    assert "a/0.png = a/copy.bmp" in findings["duplicate"]
    assert "a/2.png = b/conflict.png" in findings["label-conflict"]
    assert "b/1.png = b/leak.tif" in findings["leakage"]


def test_a_grey_image_and_its_colour_copy_are_the_same(tmp_path: Path) -> None:
    grey = noise(1, 6, 6)
    put(tmp_path / "x" / "a.png", grey)
    put(tmp_path / "y" / "b.png", np.repeat(grey[..., None], 3, axis=2))
    assert kinds(check(tmp_path / "x", tmp_path / "y")) == {("leakage", "warning")}


def domain(name: str, classes: tuple[str, ...], labels: list[int], seed: int = 0) -> Domain:
    images = [noise(seed + n) for n in range(len(labels))]
    return Domain(name, "classification", classes, images, labels, [str(n) for n in range(len(labels))])


def test_classes_that_are_missing_uneven_alone_or_different() -> None:
    assert kinds(check(domain("one", ("a", "b"), [0, 0]))) == {("single-class", "error")}
    assert kinds(check(domain("gap", ("a", "b", "c"), [0, 1]))) == {("class-missing", "warning")}
    assert kinds(check(domain("uneven", ("a", "b"), [0] * 21 + [1]))) == {("imbalance", "note")}
    assert kinds(check(domain("even", ("a", "b"), [0] * 20 + [1]))) == set()
    findings = check(domain("x", ("a", "b"), [0, 1]), domain("y", ("b", "c"), [0, 1], 50))
    assert kinds(findings) == {("classes-differ", "error"), ("classes-differ", "note")}
    assert "--map c=ignore" in findings[0].advice


def test_unlabelled_domains_are_not_asked_for_classes() -> None:
    assert check(domain("x", ("a", "b"), [0, 1]), domain("y", ("c", "d"), [0, 0], 50).unlabelled()) == []


def with_bad(tmp_path: Path) -> Domain:
    clean(tmp_path)
    (tmp_path / "a" / "1bad.png").touch()
    half(tmp_path / "b" / "2bad.png")
    return open_folder(tmp_path)


def test_skip_fixes_the_list_before_training_and_records_it(tmp_path: Path) -> None:
    before = with_bad(tmp_path)
    after = usable(before, "skip")
    assert after.names == ["a/0.png", "a/2.png", "b/1.png", "b/3.png"]
    assert list(after.labels) == [0, 0, 1, 1]
    for image, seed in zip(after.images, (0, 2, 1, 3)):
        np.testing.assert_array_equal(image, noise(seed))
    assert after.facts["unusable"] == {
        "policy": "skip",
        "checked": 6,
        "left_out": 2,
        "files": ["a/1bad.png", "b/2bad.png"],
    }


def test_error_stops_at_the_first_and_list_names_all(tmp_path: Path) -> None:
    bad = with_bad(tmp_path)
    with pytest.raises(DataError, match=r"1bad\.png") as caught:
        usable(bad)
    assert "2bad" not in str(caught.value)
    with pytest.raises(DataError, match=r"2 of 6") as caught:
        usable(bad, "list")
    assert "1bad.png" in str(caught.value)
    assert "2bad.png" in str(caught.value)
    with pytest.raises(UsageError, match="did you mean 'skip'"):
        usable(bad, "skipp")


def test_nothing_left_is_an_error_and_a_clean_domain_is_kept(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    with pytest.raises(DataError, match="1 of 1"):
        usable(open_folder(tmp_path), "skip")
    whole = usable(domain("x", ("a", "b"), [0, 1]), "list")
    assert whole.facts["unusable"]["left_out"] == 0
    assert len(whole) == 2


def test_a_mask_in_memory_is_compared_with_its_image() -> None:
    images = [noise(0, 4, 4, 3), noise(1, 4, 4, 3)]
    masks = [np.zeros((4, 4), int), np.zeros((4, 5), int)]
    bad = Domain("m", "segmentation", ("a", "b"), images, masks, ["first", "second"])
    with pytest.raises(DataError, match="second"):
        usable(bad)
    assert usable(bad, "skip").names == ["first"]


def masks_with(root: Path, values: list[tuple[int, int]], class_file: str = "") -> Path:
    for i, (low, high) in enumerate(values):
        mask = np.full((10, 10), low, np.uint8)
        mask[:2, :3] = high
        put(root / "images" / f"{i}.png", noise(i, 10, 10))
        put(root / "masks" / f"{i}.png", mask)
    if class_file:
        (root / "classes.json").write_text(class_file)
    return root


def test_a_value_of_a_single_mask_is_no_silent_class(tmp_path: Path) -> None:
    odd = [(0, 1)] * 11 + [(0, 254)]
    (found,) = check(masks_with(tmp_path / "odd", odd))
    assert (found.kind, found.severity) == ("stray-value", "warning")
    assert "the value 254 occurs in 1 of 12 masks (0.5% of the pixels)" in found.message
    assert "11.png" in found.message
    named = '{"classes": ["ground", "object"], "values": {"254": 1, "1": 1}}'
    assert check(masks_with(tmp_path / "named", odd, named)) == []
    assert check(masks_with(tmp_path / "even", [(0, 1)] * 6 + [(0, 254)] * 6)) == []
    assert check(masks_with(tmp_path / "few", [(0, 1)] * 2 + [(0, 254)])) == []  # of three, one is no exception
