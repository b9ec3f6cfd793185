"""How bytes become lines."""

import os
import random
from pathlib import Path

import pytest

from drycc.backends.logstore.base import CUT, LINE_BYTES
from drycc.logs.output import BEHIND_BYTES, KEPT_BYTES, PUNCH_BYTES, TURN_LINES, Output, split

MEBIBYTE = 1024 * 1024


def texts(data: bytes, *, is_end: bool = False) -> list[str]:
    return [piece.text for piece in split(data, 0, is_end)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"ok\n\x8e\xff\nstill here\n", ["ok", "\ufffd\ufffd", "still here"]),
        (b"\xe2\x82\n\xf0\x9f\x92\xa9\n", ["\ufffd", "\U0001f4a9"]),
        (b"\0\n\x1b[31mred\n", ["\0", "\x1b[31mred"]),
    ],
)
def test_sv02_bytes_that_are_no_text_stay_in_their_line(data: bytes, expected: list[str]) -> None:
    assert texts(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a\r\nb\n", ["a", "b"]),
        (b"10%\r20%\r100%\n", ["10%\r20%\r100%"]),
        (b"10%\r20%\r\n", ["10%\r20%"]),
        (b"\n\r\n", ["", ""]),
        (b"no newline at exit", ["no newline at exit"]),
        (b"a\nlast\r", ["a", "last"]),
        (b"", []),
    ],
)
def test_lg05_what_programs_for_terminals_print(data: bytes, expected: list[str]) -> None:
    assert texts(data, is_end=True) == expected


def test_an_unfinished_line_waits() -> None:
    assert texts(b"a\nunfin") == ["a"]
    assert texts(b"x" * LINE_BYTES) == []


@pytest.mark.parametrize("size", [LINE_BYTES, LINE_BYTES + 1, 3 * LINE_BYTES + 7, 200_000])
def test_a_long_line_is_kept_in_pieces(size: int) -> None:
    pieces = texts(b"x" * size + b"\nnext\n")
    assert pieces.pop() == "next"
    assert all(piece.endswith(CUT) for piece in pieces[:-1])
    assert "".join(piece.rstrip(CUT) for piece in pieces) == "x" * size
    assert max(map(len, pieces)) <= LINE_BYTES


def test_a_long_line_is_cut_between_characters() -> None:
    text = "aü€\U0001f4a9" * 5000
    pieces = texts(text.encode() + b"\n")
    assert "".join(piece.rstrip(CUT) for piece in pieces) == text


def test_a_turn_is_bounded_in_lines() -> None:
    pieces = split(b"\n" * 5000, 7, False)
    assert len(pieces) == TURN_LINES
    assert pieces[-1].end == 7 + TURN_LINES


@pytest.mark.parametrize("seed", range(20))
def test_lines_are_the_same_wherever_the_reader_stood(tmp_path: Path, seed: int) -> None:
    """A reader that starts again at any offset it has reached finds the rest, however the bytes came."""
    choose = random.Random(seed)
    parts = [b"x" * choose.choice([0, 1, 10, 300, LINE_BYTES, 40_000]) + b"\n" for _ in range(30)]
    data = b"".join(parts) + b"end"
    path = tmp_path / "out"
    path.touch()
    found: list[str] = []
    offset, written = 0, 0
    while written < len(data) or offset < len(data):
        size = choose.randrange(0, 60_000)
        with path.open("ab") as file:
            file.write(data[written : written + size])
        written += size
        output = Output(path, offset)
        turn = output.read(written >= len(data))
        output.close()
        found += [piece.text for piece in turn.pieces]
        offset = turn.end
    joined = "".join(text.removesuffix(CUT) + ("" if text.endswith(CUT) else "\n") for text in found)
    assert joined == data.decode() + "\n"


def test_the_space_behind_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"x" * 99 * 1024 + b"\n" + (b"y" * 1023 + b"\n") * 8192)
    output = Output(path, 0)
    output.offset = 6 * MEBIBYTE + 5
    before = path.stat()
    output.read(False)
    after = path.stat()
    assert after.st_size == before.st_size
    assert after.st_blocks * 512 <= before.st_blocks * 512 - 6 * MEBIBYTE + KEPT_BYTES + PUNCH_BYTES
    output.close()
    again = Output(path, 0)
    assert again.offset >= 5 * MEBIBYTE, "who knows no offset skips what is given back"
    assert set(again.read(False).pieces[1].text) == {"y"}
    again.close()


def test_what_outran_us_is_skipped_to_the_next_line(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb") as file:
        for _ in range(70):
            file.write((b"z" * 999 + b"\n") * 1049)
    output = Output(path, 0)
    turn = output.read(False)
    output.close()
    left = path.stat().st_size - turn.skipped
    assert left <= BEHIND_BYTES // 2
    assert turn.skipped % 1000 == 0
    assert turn.pieces[0].text == "z" * 999


def test_a_removed_file_did_not_grow(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"a\n")
    output = Output(path, 0)
    assert output.grew()
    output.read(False)
    assert not output.grew()
    os.unlink(path)
    assert not output.grew()
    output.close()
