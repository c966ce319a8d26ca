"""The Free Spoken Digit Dataset: ten digits, six speakers, the open stand-in for TIMIT."""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from firstlight.errors import DataError, InputError
from firstlight.lab.data.dataset import Dataset, Splits
from firstlight.lab.data.places import find_folder, roots
from firstlight.lab.data.speech import FrameSpec, Unit, features, read_sound, standardized_frames

_NAME = re.compile(r"^(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<index>\d+)\.wav$")
_TEST_BELOW = 5  # the set's own rule: recordings 0-4 of each digit and speaker are the test part
_ARCHIVE = "fsdd_recordings.tar.gz"
_UTTERANCE_FRAMES = 32


def load_spoken_digits(
    data: str | Path | None = None, *, unit: Unit = "frame", spec: FrameSpec | None = None
) -> Splits:
    """Read the recordings and describe them by log-mel features.

    Args:
        data: The only folder to look in; by default $FIRSTLIGHT_DATA and then the cache. It holds `fsdd/`
            with ``fsdd_recordings.tar.gz`` or a folder ``recordings/`` of WAV files.
        unit: "frame": each frame with its context is a sample, labelled with the digit of its recording (as
            in TIMIT's frame classification, frames of silence included). "utterance": each recording is one
            sample of 32 frames, evenly spaced over its length, without further context.
        spec: How sound is cut and described; by default 20 mel bands of 25 ms every 10 ms with ±5 frames.

    Returns:
        Training (2,700 recordings) and test part (300), x of shape (n, features), each feature standardized.

    Raises:
        DataError: If the set is not there, or a recording is damaged or misnamed.
    """
    if unit not in ("frame", "utterance"):
        raise InputError("unit", got=repr(unit), expected='"frame" or "utterance"')
    spec = spec or FrameSpec(mels=20)
    if unit == "utterance":
        spec = FrameSpec(spec.window_s, spec.hop_s, spec.mels, spec.cepstra, context=0)
    parts: dict[str, list[npt.NDArray[np.float32]]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    folder, recordings = _find(data)
    for name, content in recordings:
        match = _NAME.match(name)
        if match is None:
            raise DataError(
                f"{folder}: {name}",
                got="a file name of another form",
                expected="<digit>_<speaker>_<index>.wav",
                action="Remove the file, or check that this is the Free Spoken Digit Dataset.",
            )
        split = "test" if int(match["index"]) < _TEST_BELOW else "train"
        samples, rate = read_sound(content, f"{folder}: {name}")
        rows = features(samples, rate, spec)
        if unit == "utterance":
            rows = rows[np.linspace(0, len(rows) - 1, _UTTERANCE_FRAMES).round().astype(int)].reshape(1, -1)
        parts[split].append(rows)
        labels[split].extend([int(match["digit"])] * len(rows))
    if not parts["train"] or not parts["test"]:
        raise DataError(
            str(folder),
            got=f"{len(parts['train'])} training and {len(parts['test'])} test recordings",
            expected="recordings with index 0-4 (test) and from 5 on (training)",
        )
    train, test = standardized_frames(*(np.concatenate(parts[split]) for split in ("train", "test")))
    source = f"Free Spoken Digit Dataset (8 kHz, log-mel {unit}s), read from {folder}"
    return Splits(
        *(
            Dataset("spoken-digits", split, x, np.array(labels[split]), tuple("0123456789"), source)
            for split, x in (("train", train), ("test", test))
        )
    )


def _find(data: str | Path | None) -> tuple[Path, Iterator[tuple[str, bytes]]]:
    searched, names = roots(data), ("fsdd", "free-spoken-digit-dataset")
    folder = find_folder(searched, tuple(f"{name}/recordings" for name in (*names, ".")), "*.wav")
    if folder is not None:
        return folder, ((path.name, path.read_bytes()) for path in sorted(folder.glob("*.wav")))
    folder = find_folder(searched, names, _ARCHIVE)
    if folder is not None:
        return folder / _ARCHIVE, _from_archive(folder / _ARCHIVE)
    raise DataError(
        "Free Spoken Digit Dataset",
        got="nothing in " + ", ".join(str(root) for root in searched),
        expected=f"a folder fsdd/ with {_ARCHIVE} or recordings/*.wav",
        action="Fetch it: git clone https://github.com/Jakobovski/free-spoken-digit-dataset fsdd, "
        "and give the folder above it with --data or $FIRSTLIGHT_DATA.",
    )


def _from_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every WAV file of the archive; nothing is unpacked to disk."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.name.endswith(".wav") else None
                if stream is not None:
                    yield Path(member.name).name, stream.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            str(path),
            got=f"a damaged archive ({error})",
            expected="a whole .tar.gz of WAV files",
            action="Fetch it again.",
        ) from None
