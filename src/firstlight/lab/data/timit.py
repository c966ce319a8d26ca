"""TIMIT, from the user's own licensed copy (LDC93S1): frames of speech labelled with phones.

The corpus is not distributed here. The loader reads the LDC's files as they are: NIST SPHERE ``.WAV`` beside
``.PHN`` (start sample, end sample, phone), in folders ``TRAIN|TEST/DR1…8/<speaker>/``, upper or lower case.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from firstlight.errors import DataError, InputError
from firstlight.lab.data.dataset import Dataset, Splits
from firstlight.lab.data.places import ENVIRONMENT, roots
from firstlight.lab.data.speech import FrameSpec, features, frame_centres, read_sound, standardized_frames

# The core test set of the corpus documentation: two men and one woman of each dialect region.
_CORE_TEST = (
    "mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0 "
    "mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0 mnjm0 fdhc0 mjln0 mpam0 fmld0"
)
CORE_TEST = frozenset(_CORE_TEST.split())
_TRAINING_SPEAKERS = 462
_PHONES = (
    "aa ae ah ao aw ax ax-h axr ay b bcl ch d dcl dh dx eh el em en eng epi er ey f g gcl h# hh hv ih ix iy "
    "jh k kcl l m n ng nx ow oy p pau pcl q r s sh t tcl th uh uw ux v w y z zh"
)
PHONES = tuple(_PHONES.split())
# Lee & Hon (1989): 61 phones to 39 classes; the glottal stop q is left out.
_FOLDED = {
    **{"ao": "aa", "ax": "ah", "ax-h": "ah", "axr": "er", "hv": "hh", "ix": "ih", "el": "l", "em": "m"},
    **{"en": "n", "nx": "n", "eng": "ng", "zh": "sh", "ux": "uw"},
    **dict.fromkeys(("pcl", "tcl", "kcl", "bcl", "dcl", "gcl", "h#", "pau", "epi"), "sil"),
}
_DROPPED = "q"


def classes(phones: int = 39) -> tuple[str, ...]:
    """The names of the 61 phones, or of the 39 classes into which Lee & Hon fold them."""
    if phones == 61:
        return PHONES
    if phones == 39:
        return tuple(sorted({_FOLDED.get(phone, phone) for phone in PHONES if phone != _DROPPED}))
    raise InputError("phones", got=str(phones), expected="39 (folded) or 61")


def load_timit(data: str | Path | None = None, *, phones: int = 39, spec: FrameSpec | None = None) -> Splits:
    """Read the standard training part (462 speakers) and the core test part (24), SA sentences excluded.

    Args:
        data: The corpus folder or one above it; by default $FIRSTLIGHT_DATA and then the cache.
        phones: 39 folded classes or all 61 phones.
        spec: How sound is cut and described; by default 40 mel bands of 25 ms every 10 ms with ±5 frames.

    Returns:
        Both parts, one sample per frame labelled by the phone at its centre, each feature standardized.

    Raises:
        DataError: If the corpus is not there, or a file is missing, damaged, truncated or wrongly labelled.
    """
    spec, names = spec or FrameSpec(), classes(phones)
    corpus = _find(roots(data))
    index = {name: number for number, name in enumerate(names)}
    sounds = [_sentences(corpus, split) for split in ("train", "test")]
    parts = [_part(paths, index, phones, spec) for paths in sounds]
    x_train, x_test = standardized_frames(parts[0][0], parts[1][0])
    there = [len({path.parent for path in paths}) for paths in sounds]
    source = (
        f"TIMIT ({phones} phone classes; {there[0]} of {_TRAINING_SPEAKERS} training and {there[1]} of "
        f"{len(CORE_TEST)} core test speakers), read from {corpus}"
    )
    return Splits(
        Dataset("timit", "train", x_train, parts[0][1], names, source),
        Dataset("timit", "test", x_test, parts[1][1], names, source),
    )


def _sentences(corpus: Path, split: str) -> list[Path]:
    """The sound of each sentence that counts; where a copy holds SX9.WAV and SX9.WAV.wav, the first of them."""
    sounds: dict[tuple[Path, str], Path] = {}
    for path in sorted(_child(corpus, split).rglob("*"), key=lambda p: (p.parent, len(p.name), p.name)):
        if (
            path.suffix.lower() == ".wav"
            and not path.name.lower().startswith("sa")
            and (split == "train" or path.parent.name.lower() in CORE_TEST)
        ):
            sounds.setdefault((path.parent, _stem(path)), path)
    if not sounds:
        wanted = "of the core test speakers" if split == "test" else "of the training speakers"
        raise DataError(
            f"{corpus} ({split})",
            got="no sentences",
            expected=f"SX and SI sentences {wanted}, <region>/<speaker>/<sentence>.WAV",
            action="Check that the copy of the corpus is whole.",
        )
    return list(sounds.values())


def _part(
    sounds: list[Path], index: dict[str, int], phones: int, spec: FrameSpec
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    x, y = zip(*(_utterance(path, index, phones, spec) for path in sounds), strict=True)
    return np.concatenate(x), np.concatenate(y)


def _utterance(
    path: Path, index: dict[str, int], phones: int, spec: FrameSpec
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    samples, rate = read_sound(path.read_bytes(), str(path))
    segments = _segments(_beside(path, ".phn"))
    rows = features(samples, rate, spec)
    centres = frame_centres(len(rows), rate, spec)
    ends = np.array([end for _, end, _ in segments])
    which = np.searchsorted(ends, centres, side="right")
    folded = [_fold(phone, phones) for _, _, phone in segments]
    numbers = np.array([*(index.get(name, -1) for name in folded), -1])  # -1: dropped, or past the last label
    labels = numbers[which]
    labels[centres < segments[0][0]] = -1
    return rows[labels >= 0], labels[labels >= 0].astype(np.int64)


def _fold(phone: str, phones: int) -> str:
    return _FOLDED.get(phone, phone) if phones == 39 else phone


def _segments(path: Path) -> list[tuple[int, int, str]]:
    segments: list[tuple[int, int, str]] = []
    for number, line in enumerate(path.read_text(encoding="ascii", errors="replace").splitlines(), start=1):
        fields = line.split()
        previous = segments[-1][1] if segments else 0
        if (
            len(fields) != 3
            or not (fields[0].isdigit() and fields[1].isdigit())
            or not previous <= int(fields[0]) < int(fields[1])
            or fields[2] not in PHONES
        ):
            raise DataError(
                f"{path}, line {number}",
                got=repr(line[:60]),
                expected="start and end sample, ascending, and one of TIMIT's 61 phones",
                action="Copy the file again from the corpus.",
            )
        segments.append((int(fields[0]), int(fields[1]), fields[2]))
    if not segments:
        raise DataError(str(path), got="no labels", expected="at least one labelled segment")
    return segments


def _beside(path: Path, suffix: str) -> Path:
    stem = _stem(path)
    for other in path.parent.iterdir():
        if other.name.lower() == stem + suffix:
            return other
    raise DataError(
        str(path),
        got=f"no {suffix.upper()} file beside it",
        expected=f"{stem.upper()}{suffix.upper()}",
        action="",
    )


def _stem(path: Path) -> str:
    return path.name.split(".", 1)[0].lower()  # copies are about whose sounds are called SX9.WAV.wav


def _child(folder: Path, name: str) -> Path:
    return next(path for path in folder.iterdir() if path.is_dir() and path.name.lower() == name)


def _find(searched: tuple[Path, ...]) -> Path:
    for root in searched:
        for folder in (
            root,
            *_children(root, ("timit", "data")),
            *_children(root / "timit", ("timit", "data")),
        ):
            if {"train", "test"} <= {path.name.lower() for path in _folders(folder)}:
                return folder
    raise DataError(
        "TIMIT",
        got="no folder with TRAIN/ and TEST/ in " + ", ".join(str(root) for root in searched),
        expected="your licensed copy of TIMIT (LDC93S1)",
        action=f"Give its folder with --data or ${ENVIRONMENT}; the spoken digits are the open stand-in.",
    )


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _children(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [path for path in _folders(folder) if path.name.lower() in names]
