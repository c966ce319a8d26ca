"""MNIST and Fashion-MNIST: 60,000 + 10,000 grey images of 28 × 28, with entries in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from firstlight.errors import DataError
from firstlight.lab.data.dataset import Dataset, Splits
from firstlight.lab.data.idx import read_idx
from firstlight.lab.data.places import RemoteFile, cache_dir, check_md5, download, find_folder, roots


@dataclass(frozen=True, slots=True)
class ImageSet:
    """One published set of four IDX files.

    Attributes:
        name: "mnist".
        title: For captions.
        folders: Folder names under which it is looked for.
        files: Training images and labels, then test images and labels.
        mirrors: Addresses that hold the files.
        classes: Names of the ten classes.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    files: tuple[RemoteFile, RemoteFile, RemoteFile, RemoteFile]
    mirrors: tuple[str, ...]
    classes: tuple[str, ...]


# MD5 of the published .gz (LeCun; zalandoresearch/fashion-mnist) and of the same file unpacked.
MNIST = ImageSet(
    name="mnist",
    title="MNIST",
    folders=("mnist", "MNIST", "MNIST/raw"),
    files=(
        RemoteFile(
            "train-images-idx3-ubyte.gz",
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "6bbc9ace898e44ae57da46a324031adb",
            9_912_422,
        ),
        RemoteFile(
            "train-labels-idx1-ubyte.gz",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "a25bea736e30d166cdddb491f175f624",
            28_881,
        ),
        RemoteFile(
            "t10k-images-idx3-ubyte.gz",
            "9fb629c4189551a2d022fa330f9573f3",
            "2646ac647ad5339dbf082846283269ea",
            1_648_877,
        ),
        RemoteFile(
            "t10k-labels-idx1-ubyte.gz",
            "ec29112dd5afa0611ce80d1b7f02629c",
            "27ae3e4e09519cfbb04c329615203637",
            4_542,
        ),
    ),
    mirrors=(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    classes=tuple("0123456789"),
)
FASHION = ImageSet(
    name="fashion-mnist",
    title="Fashion-MNIST",
    folders=("fashion-mnist", "FashionMNIST", "FashionMNIST/raw"),
    files=(
        RemoteFile(
            "train-images-idx3-ubyte.gz",
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            26_421_880,
        ),
        RemoteFile(
            "train-labels-idx1-ubyte.gz",
            "25c81989df183df01b3e8a0aad5dffbe",
            "9018921c3c673c538a1fc5bad174d6f9",
            29_515,
        ),
        RemoteFile(
            "t10k-images-idx3-ubyte.gz",
            "bef4ecab320f06d8554ea6380940ec79",
            "8181f5470baa50b63fa0f6fddb340f0a",
            4_422_102,
        ),
        RemoteFile(
            "t10k-labels-idx1-ubyte.gz",
            "bb300cfdad3c16e7a12a480ee83cd310",
            "15d484375f8d13e6eb1aabb0c3f46965",
            5_148,
        ),
    ),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),  # serves no https; MD5 decides
    classes=(
        "T-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
)


def load_images(which: ImageSet, data: str | Path | None = None, *, fetch: bool = True) -> Splits:
    """Read a set from disk, fetching it into the cache first where it is on no disk and there is a network.

    Args:
        which: `MNIST` or `FASHION`.
        data: The only folder to look in; by default $FIRSTLIGHT_DATA and then the cache.
        fetch: Whether to download what is missing (never when `data` is given).

    Returns:
        Training and test part, x of shape (n, 28, 28).

    Raises:
        DataError: If the set is nowhere, or a file is damaged, truncated or another version.
    """
    searched = roots(data)
    folder = find_folder(searched, which.folders, "train-images-idx3-ubyte*")
    if folder is None:
        if data is not None or not fetch:
            raise DataError(
                which.title,
                got="no train-images-idx3-ubyte(.gz) in " + ", ".join(str(root) for root in searched),
                expected=f"the four IDX files of {which.title} in a folder {which.folders[0]}/",
                action="Give the folder that holds them with --data or $FIRSTLIGHT_DATA.",
            )
        folder = _fetch(which)
    elif fetch and folder == cache_dir() / which.folders[0]:
        _fetch(which)  # what an interrupted download left out
    images_train, labels_train, images_test, labels_test = (_verified(folder, file) for file in which.files)
    source = f"{which.title}, read from {folder}"
    return Splits(
        _dataset(which, "train", images_train, labels_train, source),
        _dataset(which, "test", images_test, labels_test, source),
    )


def _verified(folder: Path, file: RemoteFile) -> Path:
    packed, plain = folder / file.name, folder / file.name.removesuffix(".gz")
    if packed.is_file():
        return check_md5(packed, file.md5)
    if plain.is_file():
        return check_md5(plain, file.md5_plain)
    raise DataError(
        str(packed),
        got="no such file, packed or unpacked",
        expected=f"{file.name} beside the other files of the set",
        action="Add the missing file, or remove the folder to have the set fetched whole.",
    )


def _dataset(which: ImageSet, split: str, images: Path, labels: Path, source: str) -> Dataset:
    x = read_idx(images, axes=3).astype(np.float32)
    x /= np.float32(255.0)
    return Dataset(which.name, split, x, read_idx(labels, axes=1).astype(np.int64), which.classes, source)


def _fetch(which: ImageSet) -> Path:
    folder = cache_dir() / which.folders[0]
    missing = [
        file
        for file in which.files
        if not (folder / file.name).is_file() and not (folder / file.name.removesuffix(".gz")).is_file()
    ]
    if missing:
        with _progress(f"Fetching {which.title}", sum(file.size for file in missing)) as advance:
            for file in missing:
                download(file, folder, which.mirrors, advance)
    return folder


@contextmanager
def _progress(text: str, total: int) -> Iterator[Callable[[int], object]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda n: bar.advance(task, n)
