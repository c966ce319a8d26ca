"""From sound to features: log-mel energies or cepstra of short frames, each seen with its neighbours."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.fft import dct
from scipy.signal import get_window

from firstlight.errors import DataError

_FLOOR = 1e-10  # energy below full scale at which the logarithm is cut: -100 dB


@dataclass(frozen=True, slots=True)
class FrameSpec:
    """How sound is cut and described.

    Attributes:
        window_s: Length of a frame in seconds.
        hop_s: Distance between the starts of two frames in seconds.
        mels: Number of mel bands.
        cepstra: Number of cepstral coefficients; 0 keeps the log-mel energies.
        context: Neighbouring frames on each side that are stacked beside a frame; edges repeat the last one.
    """

    window_s: float = 0.025
    hop_s: float = 0.010
    mels: int = 40
    cepstra: int = 0
    context: int = 5

    @property
    def features(self) -> int:
        """Entries of one stacked frame."""
        return (self.cepstra or self.mels) * (2 * self.context + 1)


def read_sound(content: bytes, where: str) -> tuple[npt.NDArray[np.float32], int]:
    """Decode a mono WAV or NIST SPHERE file.

    Returns:
        Samples in [-1, 1] and the sample rate in Hz.

    Raises:
        DataError: If it is truncated, not mono, or in a form that libsndfile cannot read.
    """
    try:
        import soundfile
    except ImportError:
        raise DataError(
            where,
            got="no soundfile library",
            expected="soundfile, which reads WAV and NIST SPHERE",
            action="Install it: pip install 'firstlight[lab]'.",
        ) from None
    declared = _declared_samples(content, where)
    try:
        read, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    except soundfile.SoundFileError as error:
        raise DataError(
            where, got=f"sound that cannot be read ({error})", expected="PCM WAV or NIST SPHERE", action=_HINT
        ) from None
    samples: npt.NDArray[Any] = read
    if samples.ndim != 1:
        raise DataError(where, got=f"{samples.shape[1]} channels", expected="one channel")
    if declared is not None and len(samples) != declared:
        raise DataError(
            where,
            got=f"{len(samples):,} samples: truncated",
            expected=f"{declared:,} samples, as its header declares",
            action="Copy the file again from its source.",
        )
    return samples, int(rate)


_HINT = "If it is compressed with shorten, unpack it first, for example with sph2pipe."


def _declared_samples(content: bytes, where: str) -> int | None:
    """How many samples the header of a SPHERE or WAV file promises; libsndfile passes over missing ones."""
    if content[:8] == b"NIST_1A\n":
        end = content.find(b"end_head")
        for line in content[: max(end, 0)].splitlines():
            if line.startswith(b"sample_count -i "):
                return int(line.split()[2])
        raise DataError(
            where,
            got=f"a SPHERE header of {len(content):,} bytes without its end or its sample_count",
            expected="a whole NIST SPHERE header",
            action="Copy the file again from its source.",
        )
    chunk = content.find(b"data", 12) if content[:4] == b"RIFF" else -1
    if chunk < 0 or len(content) < chunk + 8:
        return None
    frame_bytes = int.from_bytes(content[32:34], "little")
    return int.from_bytes(content[chunk + 4 : chunk + 8], "little") // max(frame_bytes, 1)


def features(samples: npt.NDArray[np.float32], rate: int, spec: FrameSpec) -> npt.NDArray[np.float32]:
    """Describe every frame of one recording.

    ln(mel @ |FFT(hann · frame)|²), then the cosine transform where cepstra are asked for, then the stack of
    2·context + 1 neighbours.

    Args:
        samples: Mono sound, shape (t,); shorter than one frame is padded with silence.
        rate: Samples per second.
        spec: How to cut and describe.

    Returns:
        Shape (frames, spec.features). Frame k covers samples k·hop … k·hop + window - 1.
    """
    width, hop = round(spec.window_s * rate), round(spec.hop_s * rate)
    if len(samples) < width:
        samples = np.pad(samples, (0, width - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, width)[::hop]
    size = 1 << (width - 1).bit_length()
    window = np.asarray(get_window("hann", width), dtype=np.float32)
    power = np.abs(np.fft.rfft(frames * window, size)) ** 2 / np.square(window).sum()
    bands = np.log(np.maximum(power @ _mel_filters(spec.mels, size, rate).T, _FLOOR))
    if spec.cepstra:
        bands = np.asarray(dct(bands, type=2, norm="ortho", axis=1))[:, : spec.cepstra]
    return stack_context(bands.astype(np.float32), spec.context)


def frame_centres(n_frames: int, rate: int, spec: FrameSpec) -> npt.NDArray[np.int64]:
    """The sample at the middle of each frame, by which a frame gets its label."""
    return np.arange(n_frames) * round(spec.hop_s * rate) + round(spec.window_s * rate) // 2


def stack_context(frames: npt.NDArray[np.float32], context: int) -> npt.NDArray[np.float32]:
    """Put each frame between its neighbours: (n, d) → (n, (2·context + 1)·d)."""
    rows = np.arange(len(frames))[:, None] + np.arange(-context, context + 1)[None, :]
    return frames[np.clip(rows, 0, len(frames) - 1)].reshape(len(frames), -1)


def to_mel(hertz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Mel scale of O'Shaughnessy, as in HTK: 2595 log10(1 + f/700)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hertz, dtype=np.float64) / 700.0)


def from_mel(mel: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Inverse of `to_mel`."""
    return 700.0 * (10.0 ** (np.asarray(mel, dtype=np.float64) / 2595.0) - 1.0)


@lru_cache(maxsize=8)
def _mel_filters(mels: int, size: int, rate: int) -> npt.NDArray[np.float64]:
    """Triangles of height 1, corners equally spaced in mel from 0 Hz to rate/2; (mels, size/2 + 1)."""
    corners = from_mel(np.linspace(0.0, float(to_mel(rate / 2)), mels + 2))
    hertz = np.fft.rfftfreq(size, 1.0 / rate)
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    return np.maximum(0.0, np.minimum((hertz - left) / (centre - left), (right - hertz) / (right - centre)))


def standardized_frames(
    train: npt.NDArray[np.float32], test: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Both parts with each feature at mean 0 and deviation 1 over the training part."""
    mean = train.mean(axis=0, dtype=np.float64)
    sd = np.maximum(train.std(axis=0, dtype=np.float64), 1e-6)
    return ((train - mean) / sd).astype(np.float32), ((test - mean) / sd).astype(np.float32)


Unit = Literal["frame", "utterance"]
