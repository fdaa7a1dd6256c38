"""Write packed research data into the layouts that the catalog reads.

    python benchmarks/convert.py [--packed ../shared/data] [--out .cache/data] [--only mnist usps]
    export ACCLIMATE_DATA=.cache/data

Each set is written to a temporary folder and renamed when it is complete; a set that is there already is left alone.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from acclimate.data.archives import is_complete, publish
from acclimate.data.catalog.camvid import CARD as CAMVID
from acclimate.data.catalog.office_31 import CARD as OFFICE_31
from acclimate.data.catalog.office_caltech_10 import CARD as OFFICE_CALTECH_10

REPOSITORY = Path(__file__).resolve().parent.parent


def mnist(packed: Path, out: Path) -> str:
    data = np.load(packed / "mnist" / "mnist.npz")
    for part, split in (("train", "train"), ("t10k", "test")):
        write_idx(out / f"{part}-images-idx3-ubyte.gz", data[f"x_{split}"])
        write_idx(out / f"{part}-labels-idx1-ubyte.gz", data[f"y_{split}"])
    return f"{len(data['y_train'])} + {len(data['y_test'])} images"


def usps(packed: Path, out: Path) -> str:
    data = np.load(packed / "usps" / "usps.npz")
    for split in ("train", "test"):
        values = data[f"x_{split}"].reshape(-1, 256) / 127.5 - 1
        table = np.column_stack([data[f"y_{split}"], values])
        with gzip.open(out / f"zip.{split}.gz", "wt", compresslevel=1) as stream:
            np.savetxt(stream, table, fmt=["%.4f"] + ["%.3f"] * 256)
    return f"{len(data['y_train'])} + {len(data['y_test'])} images"


def mnist_m(packed: Path, out: Path) -> str:
    data = module(packed, "load_mnistm").load_mnistm(
        packed / "mnistm" / "mnistm_recipe.npz", packed / "mnist/mnist.npz"
    )
    for split in ("train", "test"):
        (out / f"mnist_m_{split}").mkdir()
        lines = []
        for index, (image, label) in enumerate(zip(data[f"x_{split}"], data[f"y_{split}"])):
            name = f"{index:08d}.png"
            Image.fromarray(image).save(out / f"mnist_m_{split}" / name, compress_level=1)
            lines.append(f"{name} {label}\n")
        (out / f"mnist_m_{split}_labels.txt").write_text("".join(lines))
    return f"{len(data['y_train'])} + {len(data['y_test'])} images"


def gtsrb(packed: Path, out: Path) -> str:
    data = module(packed, "loaders").load_packed(packed / "gtsrb" / "gtsrb.npz")
    columns = ["Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"]
    images = out / "GTSRB" / "Final_Training" / "Images"
    for label in np.unique(data["y_train"]):
        folder = images / f"{label:05d}"
        folder.mkdir(parents=True)
        rows = []
        for i in np.flatnonzero(data["y_train"] == label):
            track, frame = data["track_train"][i]
            name = f"{track:05d}_{frame:05d}.ppm"
            Image.fromarray(data["x_train"][i]).save(folder / name)
            rows.append([name, 32, 32, *box(data["roi_train"][i]), label])
        write_csv(folder / f"GT-{label:05d}.csv", [columns, *rows])
    images = out / "GTSRB" / "Final_Test" / "Images"
    images.mkdir(parents=True)
    rows = []
    for i, (image, label) in enumerate(zip(data["x_test"], data["y_test"])):
        Image.fromarray(image).save(images / f"{i:05d}.ppm")
        rows.append([f"{i:05d}.ppm", 32, 32, *box(data["roi_test"][i]), label])
    write_csv(out / "GT-final_test.csv", [columns, *rows])
    return f"{len(data['y_train'])} (every third frame) + {len(data['y_test'])} images, 32 x 32"


def box(roi: np.ndarray) -> list[int]:
    """The box of a sign (width, height, left, top, right, bottom) in an image resized to 32 x 32."""
    width, height, left, top, right, bottom = roi.tolist()
    scaled = left * 32 / width, top * 32 / height, (right + 1) * 32 / width - 1, (bottom + 1) * 32 / height - 1
    return [min(max(round(value), 0), 31) for value in scaled]


def syn_signs(packed: Path, out: Path) -> str:
    data = module(packed, "loaders").load_packed(packed / "synsigns" / "synsigns.npz")
    (out / "synthetic_data" / "train").mkdir(parents=True)
    lines = []
    for image, label, index, angle in zip(data["x"], data["y"], data["index"], data["angle"]):
        name = f"train/{index:06d}.png"
        Image.fromarray(image).save(out / "synthetic_data" / name, compress_level=1)
        lines.append(f"{name} {label} {angle:.5f}\n")
    (out / "synthetic_data" / "train_labelling.txt").write_text("".join(lines))
    return f"{len(data['y'])} of 100,000 images"


def office_31(packed: Path, out: Path) -> str:
    data = dict(np.load(packed / "office" / "office.npz"))
    count = 0
    for domain in ("amazon", "dslr", "webcam"):
        for name in OFFICE_31.classes:
            (out / domain / "images" / name).mkdir(parents=True)
    for i in np.flatnonzero(data["in_office31_part"]):
        domain, label = data["domains"][data["domain"][i]], OFFICE_31.classes[data["label31"][i]]
        write_jpeg(data, i, out / str(domain) / "images" / label / Path(str(data["name"][i])).name)
        count += 1
    for domain in ("amazon", "dslr", "webcam"):
        if not any((out / domain).rglob("*.jpg")):
            shutil.rmtree(out / domain)
    return f"{count} images of {', '.join(sorted(path.name for path in out.iterdir()))}"


def office_caltech_10(packed: Path, out: Path) -> str:
    data = dict(np.load(packed / "office" / "office.npz"))
    chosen = np.flatnonzero(data["in_officecaltech10"])
    for i in chosen:
        domain = str(data["domains"][data["domain"][i]]).removesuffix("10")
        folder = out / domain / OFFICE_CALTECH_10.classes[data["label10"][i]]
        folder.mkdir(parents=True, exist_ok=True)
        write_jpeg(data, i, folder / Path(str(data["name"][i])).name)
    return f"{len(chosen)} images"


def office_caltech_10_surf(packed: Path, out: Path) -> str:
    from scipy.io import savemat

    data = np.load(packed / "office_caltech_features" / "features.npz")
    names = {"amazon": "amazon", "caltech10": "Caltech10", "dslr": "dslr", "webcam": "webcam"}
    for domain, name in names.items():
        content = {
            "fts": data[f"surf_{domain}_x"].astype(np.float64),
            "labels": data[f"surf_{domain}_y"][:, None] + 1.0,
        }
        savemat(out / f"{name}_SURF_L10.mat", content, do_compression=True)
    return " + ".join(str(len(data[f"surf_{domain}_y"])) for domain in names) + " histograms"


def camvid(packed: Path, out: Path) -> str:
    source = packed / "street_camvid"
    splits = json.loads((source / "splits.json").read_text())
    for split in ("train", "val", "test"):
        for folder in (split, f"{split}annot"):
            (out / "CamVid" / folder).mkdir(parents=True)
        for stem in splits[split]:
            Image.open(source / "images" / f"{stem}.jpg").save(out / "CamVid" / split / f"{stem}.png", compress_level=1)
            mask = np.array(Image.open(source / "masks" / f"{stem}.png"))
            mask[mask == 255] = len(CAMVID.classes)
            Image.fromarray(mask).save(out / "CamVid" / f"{split}annot" / f"{stem}.png")
    return ", ".join(f"{split} {len(splits[split])}" for split in ("train", "val", "test"))


def vnc(packed: Path, out: Path) -> str:
    source = packed / "em_vnc"
    (out / "stack1" / "raw").mkdir(parents=True)
    (out / "stack1" / "mitochondria").mkdir()
    images = sorted((source / "images").iterdir())
    for image in images:
        number = image.stem.removeprefix("s1_")
        Image.open(image).save(out / "stack1" / "raw" / f"{number}.tif")
        mask = np.array(Image.open(source / "masks" / image.name))
        Image.fromarray(mask * np.uint8(255)).save(out / "stack1" / "mitochondria" / f"{number}.png")
    return f"{len(images)} sections"


def lucchi(packed: Path, out: Path) -> str:
    source = packed / "em_lucchi"
    splits = json.loads((source / "splits.json").read_text())
    for split in ("train", "test"):
        images = [Image.open(source / "images" / f"{stem}.png") for stem in splits[split]]
        masks = [np.array(Image.open(source / "masks" / f"{stem}.png")) for stem in splits[split]]
        save_pages(out / f"{split}ing.tif", images)
        save_pages(out / f"{split}ing_groundtruth.tif", [Image.fromarray(mask * np.uint8(255)) for mask in masks])
    return f"{len(splits['train'])} + {len(splits['test'])} slices (every twelfth)"


def drive(packed: Path, out: Path) -> str:
    splits = json.loads((packed / "vessel_drive" / "splits.json").read_text())
    for split, part in (("train", "training"), ("test", "test")):
        for folder in ("images", "1st_manual", "mask"):
            (out / part / folder).mkdir(parents=True)
        for stem in splits[split]:
            image, mask = vessels(packed, "drive", stem)
            number = stem.partition("_")[0]
            image.save(out / part / "images" / f"{number}_{part}.tif")
            white(mask == 1).save(out / part / "1st_manual" / f"{number}_manual1.gif")
            white(mask != 255).save(out / part / "mask" / f"{number}_{part}_mask.gif")
    return f"{len(splits['train'])} + {len(splits['test'])} images"


def chase(packed: Path, out: Path) -> str:
    images = sorted((packed / "vessel_chase" / "images").iterdir())
    for path in images:
        shutil.copyfile(path, out / path.name)  # the field of view is found in its bytes
        white(vessels(packed, "chase", path.stem)[1] == 1).save(out / f"{path.stem}_1stHO.png")
    return f"{len(images)} images"


def stare(packed: Path, out: Path) -> str:
    (out / "stare-images").mkdir()
    (out / "labels-ah").mkdir()
    images = sorted((packed / "vessel_stare" / "images").iterdir())
    for path in images:
        image, mask = vessels(packed, "stare", path.stem)
        image.save(out / "stare-images" / f"{path.stem}.ppm")
        white(mask == 1).convert("L").save(out / "labels-ah" / f"{path.stem}.ah.ppm")
    return f"{len(images)} images"


def vessels(packed: Path, name: str, stem: str) -> tuple[Image.Image, np.ndarray]:
    """A photograph of the retina, and its mask: 1 vessel, 0 none, 255 outside of the field of view."""
    folder = packed / f"vessel_{name}"
    return Image.open(folder / "images" / f"{stem}.jpg"), np.array(Image.open(folder / "masks" / f"{stem}.png"))


def white(where: np.ndarray) -> Image.Image:
    """White on black, one bit per pixel."""
    return Image.fromarray(where)


SETS: dict[str, Callable[[Path, Path], str]] = {
    "mnist": mnist,
    "usps": usps,
    "mnist-m": mnist_m,
    "gtsrb": gtsrb,
    "syn-signs": syn_signs,
    "office-31": office_31,
    "office-caltech-10": office_caltech_10,
    "office-caltech-10-surf": office_caltech_10_surf,
    "camvid": camvid,
    "vnc": vnc,
    "lucchi": lucchi,
    "drive": drive,
    "chase": chase,
    "stare": stare,
}


def module(packed: Path, name: str) -> ModuleType:
    """A loader module that lies beside the packed data."""
    spec = importlib.util.spec_from_file_location(f"packed_{name}", packed / f"{name}.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{packed / name}.py cannot be loaded")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=1, mtime=0))


def write_csv(path: Path, rows: list[list[object]]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream, delimiter=";").writerows(rows)


def write_jpeg(data: dict[str, np.ndarray], index: int, path: Path) -> None:
    """The JPEG as it is packed, byte for byte."""
    if path.exists():
        raise SystemExit(f"two images would be named {path}")
    start, end = data["offset"][index : index + 2]
    path.write_bytes(data["jpeg"][start:end].tobytes())


def save_pages(path: Path, images: list[Image.Image]) -> None:
    images[0].save(path, save_all=True, append_images=images[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--packed", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=REPOSITORY / ".cache" / "data")
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS), metavar="SET")
    chosen = parser.parse_args()
    if not chosen.packed.is_dir():
        sys.exit(f"{chosen.packed} does not exist; give the folder of the packed data with --packed")
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.only:
        folder = chosen.out / name
        if is_complete(folder):
            print(f"{name:18} is there")
            continue
        if folder.exists():
            sys.exit(f"{folder} exists but was not written by this script; move it away")
        started = time.perf_counter()
        staging = Path(tempfile.mkdtemp(dir=chosen.out, prefix=f".{name}."))
        try:
            done = SETS[name](chosen.packed, staging)
            publish(staging, folder, {"converted from": str(chosen.packed), "content": done})
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        print(f"{name:18} {done} ({time.perf_counter() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
