"""Messages and frames: what is well-formed passes, everything else is refused in words and nothing else happens."""

from __future__ import annotations

import json
import math
import random
import string

import numpy as np
import pytest

from firstlight.errors import InputError
from firstlight.playground.mailbox import Mailbox
from firstlight.playground.points import MAX_POINTS, Points
from firstlight.playground.protocol import (
    COMMANDS,
    MAX_CSV_BYTES,
    MAX_MESSAGE_BYTES,
    dump,
    pack,
    parse_command,
    unpack,
)


def test_frames_come_back_as_they_were():
    arrays = {
        "a": np.array([[1.0, math.nan], [math.inf, -math.inf]], dtype=np.float32),
        "b": np.arange(5, dtype=np.uint8),
        "c": np.empty((0, 3), dtype=np.int32),
        "d": np.array([1e300, 2.0]),
    }
    with np.errstate(over="ignore"):
        header, back = unpack(pack({"type": "frame", "x": math.nan, "name": "Σ1/n"}, arrays))
    assert header == {"type": "frame", "x": None, "name": "Σ1/n"}
    for name in "abc":
        np.testing.assert_array_equal(back[name], arrays[name])
        assert back[name].shape == arrays[name].shape
    assert np.isinf(back["d"][0])  # beyond float32: shown as overflow


def test_what_is_no_frame_is_refused():
    for frame in (b"", b"FL0", b"nonsense" * 10):
        with pytest.raises(InputError):
            unpack(frame)


def test_json_has_neither_nan_nor_infinity():
    text = dump({"a": [math.nan, {"b": math.inf}], "c": np.float32(2.5)})
    assert json.loads(text) == {"a": [None, {"b": None}], "c": 2.5}


@pytest.mark.parametrize(
    "text",
    [
        b"\x00\x01",
        "",
        "nonsense",
        "[]",
        "null",
        '"play"',
        "{}",
        '{"type": 3}',
        '{"type": "eval", "code": "1"}',
        '{"type": "play", "now": 1}',
        '{"type": "configure"}',
        '{"type": "configure", "runs": {}}',
        '{"type": "step", "count": true}',
        '{"type": "step", "count": 1.5}',
        '{"type": "ping", "sent": NaN}',
        '{"type": "speed", "value": Infinity}',
        "[" * 100_000,
        '{"type": "csv", "text": "' + "1" * MAX_MESSAGE_BYTES + '"}',
    ],
)
def test_malformed_messages_are_refused(text):
    with pytest.raises(InputError):
        parse_command(text)


def random_message(rng: random.Random) -> str | bytes:
    """Random bytes, random text, broken JSON, or a known command with random fields."""

    def value(depth: int = 0):
        kinds = [
            lambda: rng.randint(-(2**70), 2**70),
            lambda: rng.randint(-3, 30),
            lambda: rng.uniform(-1e308, 1e308),
            lambda: rng.choice([True, False, None, "max", "he", "own", ""]),
            lambda: "".join(rng.choices(string.printable, k=rng.randint(0, 30))),
            lambda: [value(depth + 1) for _ in range(rng.randint(0, 4))] if depth < 3 else 0,
            lambda: {rng.choice(["depth", "scheme", "x", "__class__"]): value(depth + 1)} if depth < 3 else 0,
        ]
        return rng.choice(kinds)()

    kind = rng.random()
    if kind < 0.15:
        return rng.randbytes(rng.randint(0, 60))
    if kind < 0.3:
        return "".join(rng.choices(string.printable, k=rng.randint(0, 80)))
    name = rng.choice([*COMMANDS, "", "eval", "__init__"])
    fields = {f: value() for f in COMMANDS.get(name, {})} if rng.random() < 0.8 else {"q": value()}
    text = json.dumps({"type": name, **fields})
    return text if kind < 0.9 else text[: rng.randint(0, len(text))]


def test_ten_thousand_random_messages_are_parsed_or_refused():
    rng, passed, refusals = random.Random(0), 0, []
    for _ in range(10_000):
        try:
            parse_command(random_message(rng))
            passed += 1
        except InputError as error:
            refusals.append(error)
    assert all(refusal.expected for refusal in refusals)
    assert passed > 200  # the fuzz reaches the handlers too, not the front door alone


def test_a_slow_page_gets_the_newest_frame_and_all_texts():
    calls: list[int] = []
    box = Mailbox()
    box.put_text("first")
    box.subscribe(lambda: calls.append(1))
    for number in range(100):
        box.put_frame("run0", b"%d" % number)
    box.put_text("second")
    assert box.take() == ["first", "second", b"99"]
    assert box.take() == []
    assert box.dropped == 99
    assert len(calls) == 102


def test_a_replaced_frame_does_not_overtake_what_came_before_it():
    box = Mailbox()
    box.put_frame("strip", b"of old settings")
    box.put_frame("open0", b"new settings")  # on which the page forgets the strip
    box.put_frame("strip", b"of new settings")
    assert box.take() == [b"new settings", b"of new settings"]
    assert box.dropped == 1


class TestPoints:
    def test_a_table_with_names_and_text_classes(self):
        points = Points.from_csv("x,y,kind\n1,2,cat\n3,4,dog\n-1,0.5,cat\n")
        assert points.labels == ("cat", "dog")
        np.testing.assert_array_equal(points.y, [0, 1, 0])
        assert points.x.shape == (3, 2)

    def test_the_mark_of_a_spreadsheet_is_no_part_of_the_first_number(self):
        assert len(Points.from_csv("\ufeff1,2,cat\n3,4,dog\n").x) == 2

    def test_a_decimal_comma_is_read_where_it_separates_nothing(self):
        points = Points.from_csv("x;y;kind\n0,5;-1,25;a,b\n0,7;2;c\n")
        np.testing.assert_array_equal(points.x, np.array([[0.5, -1.25], [0.7, 2]], dtype=np.float32))
        assert points.labels == ("a,b", "c")

    def test_too_few_points_are_not_told_to_be_sampled(self):
        with pytest.raises(InputError, match=r"got 1 point;.*Add some"):
            Points.from_csv("1,2,a")

    @pytest.mark.parametrize("mark", [",", ";", "\t"])
    def test_other_separators(self, mark):
        text = "\n".join(mark.join(("1.5", "2", k)) for k in "abab")
        assert Points.from_csv(text).x.shape == (4, 2)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "a,b,c",
            "1,2,a\n3,4,a",
            "1,2,a\n3,b",
            "1,2,a\n3,nan,b",
            "1,2,a\n3,inf,b",
            "1,2,a\n3,1e39,b",
            "\0\0\0",
            "\ud800",
            "1\n2\n3",
            "\n".join(f"{i},{i},{i}" for i in range(30)),
            "1,2,a\n2,3,b\n" * MAX_POINTS,
            "9" * (MAX_CSV_BYTES + 1),
            ",".join("1" * 80) + ",a\n" + ",".join("1" * 80) + ",b",
        ],
    )
    def test_tables_that_cannot_be_used(self, text):
        with pytest.raises(InputError):
            Points.from_csv(text)

    @pytest.mark.parametrize(
        ("x", "y"),
        [
            ([], []),
            ([[0, 0]], [0, 1]),
            ([[0, 0], [1]], [0, 1]),
            ([[0, 0], [1, math.nan]], [0, 1]),
            ([[0, 0], [1, "1"]], [0, 1]),
            ([[0, 0], [1, 10**400]], [0, 1]),
            ([[0, 0], [1, 1]], [0, 0]),
            ([[0, 0], [1, 1]], [0, 1.5]),
            ([[0, 0]] * 1_000_000, [0] * 1_000_000),
        ],
    )
    def test_drawings_that_cannot_be_used(self, x, y):
        with pytest.raises(InputError):
            Points.from_lists(x, y)
