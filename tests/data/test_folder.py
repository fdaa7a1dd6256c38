"""Folders: which layout means what, labels that never shift, and errors that say what to write."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acclimate.data import decode
from acclimate.data.decode import UnusableFile
from acclimate.data.domain import Domain
from acclimate.data.folder import match_classes, open_folder, origin
from acclimate.errors import DataError, UsageError


def put(path: Path, array: object, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path, **options)
    return path


def flat(value: int, channels: int = 3, size: tuple[int, int] = (4, 6), dtype: type = np.uint8) -> np.ndarray:
    return np.full((*size, channels) if channels > 1 else size, value, dtype)


def pair(root: Path, name: str, ids: object, *, image: object = None) -> None:
    ids = np.asarray(ids, np.uint8)
    put(root / "images" / f"{name}.png", flat(9, 1, ids.shape[:2]) if image is None else image)
    put(root / "masks" / f"{name}.png", ids)


def classes_json(root: Path, **content: object) -> None:
    (root / "classes.json").write_text(json.dumps(content))


# Classification


def test_sub_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    put(tmp_path / "dog" / "b.png", flat(2))
    put(tmp_path / "cat" / "z.jpg", flat(1))
    put(tmp_path / "dog" / "a" / "deep.png", flat(3))
    domain = open_folder(tmp_path)
    assert domain.task == "classification"
    assert domain.classes == ("cat", "dog")
    assert domain.names == ["cat/z.jpg", "dog/a/deep.png", "dog/b.png"]
    assert list(domain.labels) == [0, 1, 1]
    assert [int(image.max()) for image in domain.images] == [1, 3, 2]
    assert all(image.shape == (4, 6, 3) and image.dtype == np.uint8 for image in domain.images)


def test_one_class_is_an_error_but_can_be_read_without_labels(tmp_path: Path) -> None:
    put(tmp_path / "only" / "a.png", flat(1))
    with pytest.raises(DataError, match="one class folder only"):
        open_folder(tmp_path)
    domain = open_folder(tmp_path, "unlabelled")
    assert domain.labels is None
    assert domain.task is None
    assert domain.names == ["only/a.png"]


def test_images_beside_class_folders_are_an_error(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "a.png", flat(1))
    put(tmp_path / "stray.png", flat(1))
    with pytest.raises(DataError, match=r"stray\.png"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    "name", ["umläut ☃.png", "two  spaces.png", "new\nline.png", "quote'\".png", "#1.png", "-rf.png"]
)
def test_names_may_be_anything(tmp_path: Path, name: str) -> None:
    put(tmp_path / "a" / name, flat(1))
    put(tmp_path / "b é" / name, flat(2))
    domain = open_folder(tmp_path)
    assert domain.names == [f"a/{name}", f"b é/{name}"]
    assert domain.images[1].max() == 2


def test_hidden_files_and_what_systems_leave_behind_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "a" / "x.png", flat(1))
    put(tmp_path / "b" / "x.png", flat(1))
    for junk in (".hidden.png", "a/._x.png", "__MACOSX/a/x.png", ".git/x.png", "a/Thumbs.db"):
        (tmp_path / junk).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / junk).write_bytes(b"junk")
    (tmp_path / "a" / "notes.txt").write_text("text")
    domain = open_folder(tmp_path)
    assert domain.names == ["a/x.png", "b/x.png"]
    assert domain.facts["other_files"] == 1


def test_a_loop_of_links_ends_and_a_dangling_link_is_named_when_read(tmp_path: Path) -> None:
    put(tmp_path / "a" / "x.png", flat(1))
    put(tmp_path / "b" / "x.png", flat(1))
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    domain = open_folder(tmp_path)
    assert domain.names[-2:] == ["b/gone.png", "b/x.png"]
    with pytest.raises(UnusableFile, match=r"gone\.png"):
        domain.images[len(domain) - 2]


def test_a_pipe_named_like_an_image_does_not_block(tmp_path: Path) -> None:
    put(tmp_path / "x.png", flat(1))
    os.mkfifo(tmp_path / "pipe.png")
    assert open_folder(tmp_path).names == ["x.png"]


def test_nothing_is_written_into_a_read_only_folder(tmp_path: Path) -> None:
    pair(tmp_path, "a", [[0, 1]])
    pair(tmp_path, "b", [[1, 2]])

    def state() -> list[tuple[str, int, int]]:
        return sorted((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in [tmp_path, *tmp_path.rglob("*")])

    before = state()
    domain = open_folder(tmp_path)
    assert [domain.labels[i].shape for i in range(2)] == [(1, 2), (1, 2)]
    assert domain.images[0].size
    assert state() == before


def test_many_files_are_listed_without_decoding_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty thousand links to one image: names and headers are enough."""
    original = put(tmp_path / "original.png", flat(1))
    (tmp_path / "many").mkdir()
    for number in range(20_000):
        os.link(original, tmp_path / "many" / f"{number}.png")
    decoded = []
    original_decoded = decode._decoded
    monkeypatch.setattr(decode, "_decoded", lambda *given: decoded.append(given) or original_decoded(*given))
    domain = open_folder(tmp_path / "many")
    assert (len(domain), len(decoded)) == (20_000, 0)
    assert domain.images[7].shape == (4, 6, 3)
    assert len(decoded) == 1


# Plain images


def test_plain_images_have_no_labels(tmp_path: Path) -> None:
    put(tmp_path / "b.png", flat(1))
    put(tmp_path / "A.PNG", flat(2))
    domain = open_folder(tmp_path)
    assert (domain.task, domain.classes, domain.labels) == (None, (), None)
    assert domain.names == ["A.PNG", "b.png"]
    (tmp_path / "images").mkdir()
    put(tmp_path / "images" / "c.png", flat(3))
    assert open_folder(tmp_path).names == ["images/c.png"]


@pytest.mark.parametrize("task", [None, "unlabelled", "classification", "segmentation"])
def test_an_empty_or_missing_folder_is_an_error_that_names_it(tmp_path: Path, task: str | None) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with pytest.raises(DataError, match=name):
            open_folder(tmp_path / name, task)
    (tmp_path / "archive.zip").touch()
    with pytest.raises(DataError, match="extract"):
        open_folder(tmp_path / "archive.zip", task)


def test_the_wanted_task_has_to_fit_the_layout(tmp_path: Path) -> None:
    put(tmp_path / "x.png", flat(1))
    with pytest.raises(DataError, match="one sub-folder per class"):
        open_folder(tmp_path, "classification")
    with pytest.raises(UsageError, match="did you mean 'segmentation'"):
        open_folder(tmp_path, "segmentaton")


def test_pages_of_a_stack_are_images_of_their_own(tmp_path: Path) -> None:
    first, *rest = [Image.fromarray(flat(n, 1)) for n in (1, 2, 3)]
    first.save(tmp_path / "stack.tif", save_all=True, append_images=rest)
    put(tmp_path / "single.png", flat(7, 1))
    domain = open_folder(tmp_path)
    assert domain.names == ["single.png", "stack.tif#0", "stack.tif#1", "stack.tif#2"]
    assert [int(image.max()) for image in domain.images] == [7, 1, 2, 3]


def test_mixed_channels_become_colour_and_grey_alone_stays_grey(tmp_path: Path) -> None:
    put(tmp_path / "grey.png", flat(5, 1))
    assert open_folder(tmp_path).images[0].shape == (4, 6, 1)
    put(tmp_path / "colour.png", flat(6))
    domain = open_folder(tmp_path)
    assert [image.shape for image in domain.images] == [(4, 6, 3)] * 2
    assert domain.images[1].tolist() == flat(5).tolist()
    assert domain.facts["channels"] == 3


def test_16_bit_images_of_a_domain_share_one_recorded_scale(tmp_path: Path) -> None:
    put(tmp_path / "dark.png", flat(1000, 1, dtype=np.uint16))
    put(tmp_path / "light.png", flat(4000, 1, dtype=np.uint16))
    domain = open_folder(tmp_path)
    assert domain.facts["scale16"] == 4096
    assert [int(image.max()) for image in domain.images] == [62, 249]
    fixed = open_folder(tmp_path, scale16=8192)
    assert fixed.facts["scale16"] == 8192
    assert int(fixed.images[1].max()) == 125


def test_the_pixel_limit_of_a_domain_is_recorded(tmp_path: Path) -> None:
    put(tmp_path / "x.png", flat(1))
    domain = open_folder(tmp_path, max_pixels=10)
    assert domain.facts["max_pixels"] == 10
    with pytest.raises(UnusableFile, match="max_pixels"):
        domain.images[0]


def test_a_broken_file_does_not_stop_the_listing_and_shifts_nothing(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("c", 3)):
        put(tmp_path / "x" / f"{name}.png", flat(value))
    put(tmp_path / "y" / "d.png", flat(4))
    (tmp_path / "x" / "b.png").touch()
    domain = open_folder(tmp_path)
    assert domain.names == ["x/a.png", "x/b.png", "x/c.png", "y/d.png"]
    assert list(domain.labels) == [0, 0, 0, 1]
    assert domain.images[2].max() == 3
    with pytest.raises(UnusableFile, match=r"b\.png"):
        domain.images[1]


def test_a_domain_can_be_sent_to_a_worker(tmp_path: Path) -> None:
    pair(tmp_path, "a", [[0, 1], [2, 255]])
    domain = pickle.loads(pickle.dumps(open_folder(tmp_path)))
    assert domain.labels[0].tolist() == [[0, 1], [2, -1]]
    assert domain.images[0].shape == (2, 2, 1)


# Segmentation


def test_ids_found_in_the_masks_are_the_classes(tmp_path: Path) -> None:
    pair(tmp_path, "a", [[0, 1], [1, 255]])
    pair(tmp_path, "sub/b", [[0, 4], [0, 0]])
    domain = open_folder(tmp_path)
    assert domain.task == "segmentation"
    assert domain.classes == ("0", "1", "4")
    assert domain.names == ["images/a.png", "images/sub/b.png"]
    assert domain.labels[0].tolist() == [[0, 1], [1, -1]]
    assert domain.labels[1].tolist() == [[0, 2], [0, 0]]
    assert np.issubdtype(domain.labels[0].dtype, np.signedinteger)


def test_0_and_255_alone_are_an_error_whose_advice_works(tmp_path: Path) -> None:
    pair(tmp_path, "a", [[0, 255]])
    with pytest.raises(DataError, match=r"classes\.json") as caught:
        open_folder(tmp_path)
    text = str(caught.value)
    (tmp_path / "classes.json").write_text(text[text.index('{"classes"') :])
    domain = open_folder(tmp_path)
    assert domain.labels[0].tolist() == [[0, 1]]
    assert domain.classes == ("background", "object")


def test_classes_json_maps_values_and_ignores(tmp_path: Path) -> None:
    pair(tmp_path, "a", [[0, 255, 128, 90]])
    classes_json(tmp_path, classes=["background", "mitochondria"], values={"255": "mitochondria"}, ignore=[128, 90])
    assert open_folder(tmp_path).labels[0].tolist() == [[0, 1, -1, -1]]


def test_a_class_that_values_gives_another_value_loses_its_own(tmp_path: Path) -> None:
    pair(tmp_path, "a", [[0, 1]])
    classes_json(tmp_path, classes=["background", "mitochondria"], values={"255": 1})
    with pytest.raises(UnusableFile, match="unknown ids: 1"):
        open_folder(tmp_path).labels[0]


def test_unknown_ids_name_the_mask_and_the_ids(tmp_path: Path) -> None:
    pair(tmp_path, "good", [[0, 1]])
    pair(tmp_path, "bad", [[0, 9]])
    classes_json(tmp_path, classes=["a", "b"])
    domain = open_folder(tmp_path)
    assert domain.labels[1].tolist() == [[0, 1]]
    with pytest.raises(UnusableFile, match=r"bad\.png.*9"):
        domain.labels[0]


def test_a_mask_of_another_size_is_named_when_it_is_read(tmp_path: Path) -> None:
    pair(tmp_path, "good", [[0, 1]])
    pair(tmp_path, "bad", [[0, 1]], image=flat(1, 1, (3, 5)))
    domain = open_folder(tmp_path)
    with pytest.raises(UnusableFile, match=r"masks/bad\.png.*2 x 1.*5 x 3"):
        domain.labels[0]


def test_the_size_of_a_rotated_photograph_is_the_one_people_see(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    put(tmp_path / "images" / "a.jpg", flat(1, size=(8, 16)), exif=exif)
    put(tmp_path / "masks" / "a.png", np.arange(16 * 8).reshape(16, 8).astype(np.uint8) % 2)
    domain = open_folder(tmp_path)
    assert domain.images[0].shape[:2] == domain.labels[0].shape == (16, 8)


def test_missing_masks_missing_images_and_equal_names_are_errors(tmp_path: Path) -> None:
    pair(tmp_path, "a", [[0, 1]])
    put(tmp_path / "masks" / "extra.png", np.array([[0, 1]], np.uint8))
    assert open_folder(tmp_path).facts["masks_without_image"] == 1
    put(tmp_path / "images" / "lonely.png", flat(1))
    with pytest.raises(DataError, match=r"lonely\.png.*1 of 2"):
        open_folder(tmp_path)
    (tmp_path / "images" / "lonely.png").rename(tmp_path / "images" / "a.bmp")
    with pytest.raises(DataError, match=r"a\.bmp|a\.png"):
        open_folder(tmp_path)
    (tmp_path / "masks").rename(tmp_path / "elsewhere")
    (tmp_path / "images").rename(tmp_path / "masks")
    with pytest.raises(DataError, match="no images/"):
        open_folder(tmp_path)


def test_stacks_of_images_and_masks_go_together(tmp_path: Path) -> None:
    for part, count in (("images", 3), ("masks", 3)):
        (tmp_path / part).mkdir()
        first, *rest = [Image.fromarray(np.array([[0, n]], np.uint8)) for n in range(count)]
        first.save(tmp_path / part / "s.tif", save_all=True, append_images=rest)
    domain = open_folder(tmp_path)
    assert [label.tolist() for label in domain.labels] == [[[0, 0]], [[0, 1]], [[0, 2]]]
    first.save(tmp_path / "masks" / "s.tif", save_all=True, append_images=rest[:1])
    with pytest.raises(DataError, match="2 page"):
        open_folder(tmp_path)


def test_masks_that_hold_no_classes_are_an_error(tmp_path: Path) -> None:
    pair(tmp_path, "grey", np.arange(100).reshape(10, 10))
    with pytest.raises(DataError, match="100 different ids"):
        open_folder(tmp_path)
    pair(tmp_path, "grey", np.zeros((10, 10)))
    with pytest.raises(DataError, match="1 different ids"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[1]", "expected"),
        ('{"classes": ["a"]}', "classes"),
        ('{"classes": ["a", "a"]}', "twice"),
        ('{"classes": ["a", "b"], "values": {"255": "c"}}', "'c'"),
        ('{"classes": ["a", "b"], "values": {"255": 2}}', "2"),
        ('{"classes": ["a", "b"], "values": {"70000": 1}}', "70000"),
        ('{"classes": ["a", "b"], "ignore": -1}', "-1"),
        ('{"classes": ["a", "b"], "ignore": 1}', "'b' too"),
        ('{"classes": ["a", "b"], "value": {"255": 1}}', "did you mean 'values'"),
    ],
)
def test_mistakes_in_classes_json_are_named(tmp_path: Path, content: str, words: str) -> None:
    pair(tmp_path, "a", [[0, 1]])
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(DataError, match=r"classes\.json") as caught:
        open_folder(tmp_path)
    assert words in str(caught.value)


# Matching


def labelled(classes: tuple[str, ...], labels: list[object], task: str = "classification") -> Domain:
    images = [np.zeros((1, 3, 1), np.uint8)] * len(labels)
    return Domain("_".join(classes), task, classes, images, labels, [str(i) for i in range(len(labels))])


def test_labels_are_matched_by_the_names_of_the_classes() -> None:
    source, target = labelled(("cat", "dog", "fox"), [0, 1, 2]), labelled(("fox", "cat"), [0, 1, 0, -1])
    matched = match_classes(source, target)
    assert matched.classes == source.classes
    assert list(matched.labels) == [2, 0, 2, -1]


def test_masks_are_matched_too_and_ignore_stays_ignore() -> None:
    source = labelled(("a", "b"), [np.zeros((1, 3))], "segmentation")
    target = labelled(("b", "junk", "a"), [np.array([[0, 1, 2], [-1, 2, 1]], np.int16)], "segmentation")
    matched = match_classes(source, target, {"junk": "ignore"})
    assert matched.labels[0].tolist() == [[1, -1, 0], [-1, 0, -1]]


def test_unmatched_classes_are_an_error_that_says_how_to_map_them() -> None:
    source, target = labelled(("cat", "dog"), [0, 1]), labelled(("cat", "dogs", "zebra"), [0, 1, 2])
    with pytest.raises(DataError, match=r"--map dogs=dog --map zebra=ignore"):
        match_classes(source, target)
    matched = match_classes(source, target, {"dogs": "dog", "zebra": "ignore"})
    assert list(matched.labels) == [0, 1, -1]
    with pytest.raises(UsageError, match="did you mean 'zebra'"):
        match_classes(source, target, {"zebr": "dog"})
    with pytest.raises(UsageError, match="no class 'wolf'"):
        match_classes(source, target, {"dogs": "wolf"})


def test_matching_needs_one_task_and_no_labels() -> None:
    source = labelled(("a", "b"), [0, 1])
    with pytest.raises(DataError, match="segmentation"):
        match_classes(source, labelled(("a", "b"), [np.zeros((1, 3))], "segmentation"))
    assert match_classes(source, labelled(("x", "y"), [0, 1]).unlabelled()).classes == ("a", "b")


def test_the_file_behind_an_image_is_found_through_subsets_and_relabelling(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        pair(tmp_path, name, [[0, 1]])
    domain = open_folder(tmp_path).subset([2, 0]).subset([1])
    assert origin(domain.images, 0) == str(tmp_path / "images" / "a.png")
    assert origin(domain.labels, 0) == str(tmp_path / "masks" / "a.png")
    assert origin([np.zeros((1, 1, 1))], 0) is None


def test_the_file_behind_an_image_is_found_in_joined_domains(tmp_path: Path) -> None:
    for part, names in (("one", ("a", "b")), ("two", ("c",))):
        for name in names:
            pair(tmp_path / part, name, [[0, 1]])
    joined = open_folder(tmp_path / "one").joined(open_folder(tmp_path / "two"))
    for domain, order in ((joined, "abc"), (joined.subset([2, 0]), "ca")):
        assert [Path(str(origin(domain.images, i))).name for i in range(len(domain))] == [f"{n}.png" for n in order]
        assert [Path(str(origin(domain.labels, i))).parent.name for i in range(len(domain))] == ["masks"] * len(order)
    assert origin(joined.images, 2) == str(tmp_path / "two" / "images" / "c.png")
