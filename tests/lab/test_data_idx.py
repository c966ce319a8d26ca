"""IDX files and the image sets made of them, on files that the tests write."""

from __future__ import annotations

import gzip
import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from firstlight.errors import DataError, InputError
from firstlight.lab.data import load
from firstlight.lab.data.catalogue import load_or_digits
from firstlight.lab.data.idx import read_idx
from firstlight.lab.data.images import MNIST, ImageSet, load_images
from firstlight.lab.data.places import RemoteFile, cache_dir, download, roots


def idx(array: np.ndarray, code: int = 0x08, dtype: str = ">u1") -> bytes:
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(dtype).tobytes()


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the machine's own data or cache, and none reaches a network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.delenv("FIRSTLIGHT_DATA", raising=False)

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr("firstlight.lab.data.places.urlopen", refuse)


def small_set(folder: Path, *, labels: list[int] | None = None, packed: bool = True) -> ImageSet:
    """Write a set of 6 + 4 images of 3 × 3 and return its description with the right checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    contents = [
        idx(rng.integers(0, 256, (6, 3, 3))),
        idx(np.array(labels or [0, 1, 2, 3, 4, 9])),
        idx(rng.integers(0, 256, (4, 3, 3))),
        idx(np.array([9, 8, 7, 6])),
    ]
    files = []
    for file, plain in zip(MNIST.files, contents, strict=True):
        content = gzip.compress(plain)
        (folder / (file.name if packed else file.name.removesuffix(".gz"))).write_bytes(content if packed else plain)
        sums = (hashlib.md5(data).hexdigest() for data in (content, plain))
        files.append(RemoteFile(file.name, *sums, len(content)))
    return replace(MNIST, files=tuple(files))


@pytest.mark.parametrize(
    ("code", "dtype", "value"),
    [
        (0x08, ">u1", 200),
        (0x09, ">i1", -100),
        (0x0B, ">i2", -30000),
        (0x0C, ">i4", 70000),
        (0x0E, ">f8", 0.1),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_reads_every_element_type(tmp_path: Path, code: int, dtype: str, value: float, packed: bool) -> None:
    array = np.full((2, 3), value)
    array[1, 2] = 1
    content = idx(array, code, dtype)
    path = tmp_path / "a.idx"
    path.write_bytes(gzip.compress(content) if packed else content)
    read = read_idx(path)
    np.testing.assert_array_equal(read, array.astype(dtype))
    assert read.dtype.isnative


@pytest.mark.parametrize(
    ("content", "got", "expected"),
    [
        (b"", "begins with nothing", "an IDX file"),
        (b"\x89PNG....", "begins with 89 50 4e 47", "an IDX file"),
        (b"\0\0\x08\x03\0\0", "6 bytes", "a header of 16 bytes"),
        (idx(np.zeros((5, 4)))[:-1], "31 bytes: truncated", "32 bytes for the shape (5, 4)"),
        (idx(np.zeros((5, 4))) + b"x", "33 bytes: too long", "32 bytes"),
        (gzip.compress(idx(np.arange(500)))[:-40], "damaged gzip data", "a whole file"),
        (b"\x1f\x8bnonsense", "damaged gzip data", "a whole file"),
        (
            bytes([0, 0, 8, 3]) + b"\xff" * 12,
            "truncated",
            "for the shape (4294967295, 4294967295, 4294967295)",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes, got: str, expected: str) -> None:
    path = tmp_path / "bad.idx"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert caught.value.where == str(path)
    assert got in caught.value.got
    assert expected in caught.value.expected


def test_missing_file_and_exchanged_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_idx(tmp_path / "absent")
    (tmp_path / "labels").write_bytes(idx(np.arange(3)))
    with pytest.raises(DataError, match="images and labels"):
        read_idx(tmp_path / "labels", axes=3)
    with pytest.raises(DataError, match="expected a readable file"):
        read_idx(tmp_path)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("layout", ["mnist", "MNIST/raw", "."])
def test_loads_a_set_from_any_usual_layout(tmp_path: Path, packed: bool, layout: str) -> None:
    which = small_set(tmp_path / layout, packed=packed)
    train, test = load_images(which, tmp_path)
    assert (train.x.shape, test.x.shape) == ((6, 3, 3), (4, 3, 3))
    assert train.x.dtype == np.float32
    assert 0.0 <= train.x.min() < train.x.max() <= 1.0
    assert test.y.tolist() == [9, 8, 7, 6]
    assert str(tmp_path) in train.source


def test_wrong_checksum(tmp_path: Path) -> None:
    which = small_set(tmp_path / "mnist")
    path = tmp_path / "mnist" / which.files[2].name
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    with pytest.raises(DataError) as caught:
        load_images(which, tmp_path)
    assert caught.value.where == str(path)
    assert which.files[2].md5 in caught.value.expected
    assert hashlib.md5(path.read_bytes()).hexdigest() in caught.value.got


def test_wrong_folder_missing_file_and_label_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not there"):
        load("mnist", tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="which is a file"):
        load("mnist", tmp_path / "file")
    with pytest.raises(DataError, match=r"no train-images-idx3-ubyte\(\.gz\) in"):
        load("mnist", tmp_path)
    which = small_set(tmp_path / "mnist", labels=[0, 1, 2, 3, 4, 10])
    with pytest.raises(DataError, match=r"labels from 0 to 10; expected labels from 0 to 9"):
        load_images(which, tmp_path)
    (tmp_path / "mnist" / which.files[3].name).unlink()
    with pytest.raises(DataError, match="no such file, packed or unpacked"):
        load_images(which, tmp_path)


def test_environment_before_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("FIRSTLIGHT_DATA", str(tmp_path / "own"))
    assert roots() == (tmp_path / "own", cache_dir())
    assert roots(tmp_path) == (tmp_path,)
    monkeypatch.setenv("FIRSTLIGHT_DATA", str(tmp_path / "absent"))
    with pytest.raises(DataError, match=r"\$FIRSTLIGHT_DATA: got"):
        roots()


class _Answer:
    """What urlopen would give: the content, or an interruption in its middle."""

    def __init__(self, content: bytes, breaks: BaseException | None = None) -> None:
        self.chunks = [content[:10], content[10:], b""]
        self.breaks = breaks

    def __enter__(self) -> _Answer:
        return self

    def __exit__(self, *args: object) -> None:
        return None

    def read(self, size: int) -> bytes:
        if self.breaks is not None and len(self.chunks) < 3:
            raise self.breaks
        return self.chunks.pop(0)


def test_download_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"0123456789abcdef"
    file = RemoteFile("f.gz", hashlib.md5(content).hexdigest(), "", len(content))
    folder = tmp_path / "into"
    answers = [_Answer(b"something else"), _Answer(content)]
    monkeypatch.setattr("firstlight.lab.data.places.urlopen", lambda *a, **k: answers.pop(0))
    arrived: list[int] = []
    # the first mirror holds another file, the second the right one
    assert download(file, folder, ("http://a/", "http://b/"), arrived.append).read_bytes() == content
    assert sum(arrived) == len(b"something else") + len(content)
    assert [path.name for path in folder.iterdir()] == ["f.gz"]

    (folder / "f.gz").unlink()
    monkeypatch.setattr("firstlight.lab.data.places.urlopen", lambda *a, **k: _Answer(b"something else"))
    with pytest.raises(DataError, match="no usable answer"):
        download(file, folder, ("http://a/",))
    for interruption in (KeyboardInterrupt(), ConnectionResetError("reset")):
        monkeypatch.setattr(
            "firstlight.lab.data.places.urlopen", lambda *a, why=interruption, **k: _Answer(content, why)
        )
        with pytest.raises((KeyboardInterrupt, DataError)):
            download(file, folder, ("http://a/",))
        assert list(folder.iterdir()) == []


def test_interrupted_download_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    which = small_set(tmp_path / "server")
    served = {file.name: (tmp_path / "server" / file.name).read_bytes() for file in which.files}
    asked: list[str] = []

    def answer(request: object, timeout: float) -> _Answer:
        name = request.full_url.rsplit("/", 1)[1]  # type: ignore[attr-defined]
        asked.append(name)
        return _Answer(served[name])

    monkeypatch.setattr("firstlight.lab.data.places.urlopen", answer)
    here = cache_dir() / "mnist"
    here.mkdir(parents=True)
    (here / which.files[0].name).write_bytes(served[which.files[0].name])
    train, _ = load_images(which)
    assert len(train) == 6
    assert asked == [file.name for file in which.files[1:]]
    load_images(which)
    assert len(asked) == 3


def test_digits_stand_in_only_for_what_is_nowhere(tmp_path: Path) -> None:
    train, test = load_or_digits("mnist")
    assert "scikit-learn" in train.source
    assert "mnist is on no disk" in train.source
    assert train.x.shape[1:] == (8, 8)
    assert len(train) + len(test) == 1797
    with pytest.raises(DataError, match="no train-images"):
        load_or_digits("mnist", tmp_path)  # a folder that was asked for
    small_set(cache_dir() / "mnist")
    with pytest.raises(DataError, match="MD5"):
        load_or_digits("mnist")  # there, but not MNIST
    with pytest.raises(InputError, match="Did you mean 'mnist'"):
        load_or_digits("mnits")
