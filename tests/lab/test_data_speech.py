"""Speech: features of known sounds, spoken digits, and TIMIT's forms on SPHERE files that the tests write."""

from __future__ import annotations

import io
import tarfile
import tomllib
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firstlight.errors import DataError, InputError
from firstlight.lab.data import load
from firstlight.lab.data.speech import FrameSpec, features, from_mel, read_sound, stack_context, to_mel
from firstlight.lab.data.timit import CORE_TEST, PHONES, classes, load_timit
from firstlight.lab.experiments import _tasks, sussillo_2014

RATE = 16_000


def tone(hertz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype("<i2")


def sphere(samples: np.ndarray, **changes: str) -> bytes:
    """A NIST SPHERE file as the LDC writes it: 1,024 bytes of text, then PCM."""
    fields = {
        "sample_count": f"-i {len(samples)}",
        "sample_n_bytes": "-i 2",
        "channel_count": "-i 1",
        "sample_byte_format": "-s2 01",
        "sample_rate": f"-i {RATE}",
        "sample_coding": "-s3 pcm",
        **changes,
    }
    text = "NIST_1A\n   1024\n" + "".join(f"{key} {value}\n" for key, value in fields.items()) + "end_head\n"
    return text.encode().ljust(1024, b"\0") + samples.astype("<i2").tobytes()


def wav(samples: np.ndarray, rate: int = 8000, channels: int = 1) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return stream.getvalue()


def test_sphere_and_wav_give_the_same_samples() -> None:
    samples = tone(440, 0.1)
    for content, rate in ((sphere(samples), RATE), (wav(samples), 8000)):
        read, got_rate = read_sound(content, "x")
        assert got_rate == rate
        np.testing.assert_array_equal(read, samples / np.float32(32768))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (sphere(tone(440, 0.1))[:-100], "1,550 samples: truncated; expected 1,600 samples"),
        (sphere(tone(440, 0.1))[:700], "expected PCM WAV or NIST SPHERE"),
        (sphere(tone(440, 0.1))[:60], "SPHERE header of 60 bytes"),
        (wav(tone(440, 0.1, 8000))[:-100], "750 samples: truncated; expected 800 samples"),
        (wav(tone(440, 0.1, 8000), channels=2), "2 channels; expected one channel"),
        (sphere(tone(440, 0.1), sample_coding="-s26 pcm,embedded-shorten-v2.00"), "shorten"),
        (b"not sound", "sound that cannot be read"),
        (b"", "sound that cannot be read"),
    ],
)
def test_damaged_sound_is_named(content: bytes, text: str) -> None:
    with pytest.raises(DataError, match=r"^sx1\.wav: ") as caught:
        read_sound(content, "sx1.wav")
    assert text in str(caught.value)


def test_a_tone_lights_its_own_mel_band() -> None:
    spec = FrameSpec(mels=20, context=0)
    bands = features((tone(1000, 0.5) / 32768).astype(np.float32), RATE, spec)
    assert bands.shape == (48, 20)  # 1 + (8000 - 400) // 160
    centres = from_mel(np.linspace(0.0, float(to_mel(RATE / 2)), 22))[1:-1]
    assert set(bands.argmax(axis=1).tolist()) == {int(np.abs(centres - 1000).argmin())}
    np.testing.assert_allclose(from_mel(to_mel([50.0, 4000.0])), [50.0, 4000.0])


def test_energy_follows_loudness_and_silence_is_finite() -> None:
    spec = FrameSpec(mels=12, context=0)
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * np.float32(0.1)
    quiet, loud = features(noise, RATE, spec), features(10 * noise, RATE, spec)
    np.testing.assert_allclose(loud - quiet, np.log(100.0), rtol=1e-4)
    assert np.isfinite(features(np.zeros(100, np.float32), RATE, spec)).all()  # shorter than one frame


def test_context_and_cepstra() -> None:
    frames = np.arange(4, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(stack_context(frames, 1), [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]])
    spec = FrameSpec(mels=26, cepstra=13, context=2)
    cepstra = features((tone(300, 0.2) / 32768).astype(np.float32), RATE, spec)
    assert cepstra.shape[1] == spec.features == 65
    log_mel = features((tone(300, 0.2) / 32768).astype(np.float32), RATE, FrameSpec(mels=26, context=0))
    # the first cepstrum is the orthonormal mean of the log energies
    np.testing.assert_allclose(cepstra[:, 26], log_mel.sum(axis=1) / np.sqrt(26), rtol=1e-4)


_REFERENCE = tomllib.loads((Path(__file__).parents[1] / "reference/speech.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("sound", _REFERENCE["sounds"], ids=lambda sound: f"{sound['rate']} Hz")
def test_features_are_those_of_librosa(sound: dict[str, Any]) -> None:
    rate, mels = sound["rate"], sound["mels"]
    t = np.arange(rate // 4) / rate
    chirp = (np.sin(2 * np.pi * (200 * t + 900 * t**2)) * np.linspace(0, 1, len(t), endpoint=False)).astype(np.float32)
    log = features(chirp, rate, FrameSpec(mels=mels, context=0))[sound["frames"]].astype(float)
    expected = np.array(sound["log_mel"])
    # samples are rounded to single precision: an error of eps·√(energy of the frame) in each band's amplitude, of which
    # the energy's error is twice the product with the amplitude; the reference has five decimals
    band = np.exp(expected)
    rounding = 2 * np.finfo(np.float32).eps * np.sqrt(band.sum(1, keepdims=True) / band) + 0.5e-5
    assert (np.abs(log - expected) <= 4 * rounding).all()
    assert expected.min() < -12 < -3 < expected.max()  # from silence to the chirp
    cepstra = features(chirp, rate, FrameSpec(mels=mels, cepstra=13, context=0))[sound["frames"]]
    assert (np.abs(cepstra - np.array(sound["cepstra"])) <= 4 * np.sqrt((rounding**2).sum(1, keepdims=True))).all()


def write_digits(folder: Path, names: list[str], packed: bool) -> None:
    (folder / "fsdd" / "recordings").mkdir(parents=True)
    for number, name in enumerate(names):
        (folder / "fsdd" / "recordings" / name).write_bytes(wav(tone(200 + 50 * number, 0.2, 8000)))
    if packed:
        with tarfile.open(folder / "fsdd" / "fsdd_recordings.tar.gz", "w:gz") as archive:
            archive.add(folder / "fsdd" / "recordings", "recordings")
        for path in (folder / "fsdd" / "recordings").iterdir():
            path.unlink()


@pytest.mark.parametrize("packed", [False, True])
def test_spoken_digits(tmp_path: Path, packed: bool) -> None:
    write_digits(tmp_path, ["3_ann_0.wav", "3_ann_4.wav", "7_ann_5.wav", "8_bob_12.wav", "8_bob_49.wav"], packed)
    train, test = load("spoken-digits", tmp_path)
    assert set(test.y.tolist()) == {3}
    assert set(train.y.tolist()) == {7, 8}
    assert train.features == 220  # 20 bands, ±5 frames
    np.testing.assert_allclose(train.x.std(axis=0).max(), 1.0, rtol=1e-3)
    train, test = load("spoken-digits", tmp_path, unit="utterance")
    assert (train.x.shape, test.x.shape) == ((3, 640), (2, 640))
    with pytest.raises(InputError, match="utterance"):
        load("spoken-digits", tmp_path, unit="word")


def test_spoken_digits_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="git clone"):
        load("spoken-digits", tmp_path)
    write_digits(tmp_path, ["3_ann_0.wav", "3_ann_9.wav"], packed=True)
    archive = tmp_path / "fsdd" / "fsdd_recordings.tar.gz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="a damaged archive"):
        load("spoken-digits", tmp_path)
    archive.unlink()
    (tmp_path / "fsdd" / "recordings" / "speech.wav").write_bytes(wav(tone(100, 0.1, 8000)))
    with pytest.raises(DataError, match=r"<digit>_<speaker>_<index>\.wav"):
        load("spoken-digits", tmp_path)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two speakers, each with an SA sentence, and a test speaker outside the core set."""
    names = {
        "train/dr1/fcjf0": ("sa1", "sx37", "si648"),
        "test/dr1/mdab0": ("sa1", "sx49"),
        "test/dr1/faks0": ("sx43",),
    }
    for folder, sentences in names.items():
        place = tmp_path / "TIMIT" / folder.upper()
        place.mkdir(parents=True)
        for sentence in sentences:
            (place / f"{sentence.upper()}.WAV").write_bytes(sphere(tone(500, 0.5)))
            (place / f"{sentence.upper()}.PHN").write_text("0 3200 h#\n3200 4800 ix\n4800 5600 q\n5600 7600 zh\n")
    return tmp_path


def test_timit_frames_take_the_phone_at_their_centre(corpus: Path) -> None:
    train, test = load_timit(corpus, spec=FrameSpec(mels=10, context=1))
    assert len(train.classes) == 39
    assert train.x.shape[1] == 30
    # two sentences for training (the SA one left out), one of the core test speaker
    assert len(train) == 2 * len(test)
    counts = {test.classes[label]: int(n) for label, n in enumerate(np.bincount(test.y, minlength=39)) if n}
    # frames of 400 samples every 160: centres 200 + 160 k, k = 0 … 47, those in q and past 7600 left out
    centres = 200 + 160 * np.arange(48)
    expected = {
        name: int(((centres >= start) & (centres < end)).sum())
        for name, start, end in (("sil", 0, 3200), ("ih", 3200, 4800), ("sh", 5600, 7600))
    }
    assert counts == expected
    assert "1 of 462 training and 1 of 24 core test speakers" in train.source
    whole = load_timit(corpus, phones=61).test
    assert len(whole.classes) == 61
    assert {whole.classes[label] for label in whole.y} == {"h#", "ix", "q", "zh"}


def test_a_sentence_that_a_copy_holds_in_two_forms_counts_once(corpus: Path) -> None:
    spec = FrameSpec(mels=10, context=1)
    once = load_timit(corpus, spec=spec)
    for path in list(corpus.rglob("*.WAV")):
        (path.parent / f"{path.name}.wav").write_bytes(wav(tone(500, 0.5), RATE))
    twice = load_timit(corpus, spec=spec)
    assert [len(part) for part in twice] == [len(part) for part in once]
    for path in list(corpus.rglob("*.WAV")):
        path.unlink()
    converted = load_timit(corpus, spec=spec)
    for a, b in zip(once, converted, strict=True):
        np.testing.assert_array_equal(a.x, b.x)
        np.testing.assert_array_equal(a.y, b.y)


def test_experiments_run_on_the_users_own_timit(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in corpus.rglob("*.WAV"):  # a low phone and a high one
        path.write_bytes(sphere(np.concatenate([tone(300, 0.25), tone(3000, 0.25)])))
    monkeypatch.setenv("FIRSTLIGHT_DATA", str(corpus))
    learning = sussillo_2014.Learning(
        "timit", depth=3, width=8, scheme="looks-linear", rates=(0.1,), steps=40, batch=20, reports=2
    )
    try:
        (rows,) = sussillo_2014.learning(learning, [0])
        _, _, outputs, loss = _tasks.task_data("timit-autoencoder")
    finally:
        _tasks._arrays.cache_clear()  # the corpus goes with this test
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert (outputs, loss) == (FrameSpec().features, "mse")


def test_phone_tables() -> None:
    assert len(PHONES) == len(set(PHONES)) == 61
    assert len(classes(39)) == 39
    assert len(CORE_TEST) == 24
    assert sum(name.startswith("m") for name in CORE_TEST) == 16
    with pytest.raises(InputError, match="39"):
        classes(48)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("0 3200 h#\n3200 abc ix\n", "line 2"),
        ("0 3200 h#\n3100 4800 ix\n", "ascending"),
        ("0 3200 hx\n", "one of TIMIT's 61 phones"),
        ("", "no labels"),
    ],
)
def test_timit_wrong_labels(corpus: Path, content: str, text: str) -> None:
    path = corpus / "TIMIT/TRAIN/DR1/FCJF0/SX37.PHN"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        load("timit", corpus)
    assert text in str(caught.value)
    assert str(path) in caught.value.where


def test_timit_missing_and_truncated(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="LDC93S1"):
        load("timit", tmp_path / "empty")
    sound = corpus / "TIMIT/TRAIN/DR1/FCJF0/SI648.WAV"
    whole = sound.read_bytes()
    sound.write_bytes(whole[:-2000])
    with pytest.raises(DataError, match="7,000 samples: truncated"):
        load("timit", corpus)
    sound.write_bytes(whole)
    sound.with_suffix(".PHN").unlink()
    with pytest.raises(DataError, match=r"no \.PHN file beside it"):
        load("timit", corpus)
    sound.unlink()
    for path in (corpus / "TIMIT/TEST/DR1/MDAB0").glob("SX*"):
        path.unlink()
    with pytest.raises(DataError, match="core test speakers"):
        load("timit", corpus)
