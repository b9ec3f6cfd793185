"""Output cut into lines: the same ones however it comes, bounded, and without secrets."""

import random

import pytest

from drycc.backends.logstore.base import LINE_BYTES
from drycc.core.build_log import Printed
from drycc.core.output import BESIDE, Lines


def cut(data: bytes, pieces: list[int] | None = None, *secrets: str, offset: int = 0) -> list[Printed]:
    """The lines of `data`, which comes in pieces of these sizes."""
    lines = Lines(offset, secrets)
    found: list[Printed] = []
    for size in pieces or []:
        found += lines.feed(data[:size])
        data = data[size:]
    return [*found, *lines.feed(data), *lines.flush()]


def texts(data: bytes, *secrets: str) -> list[str]:
    return [line.text for line in cut(data, None, *secrets)]


def test_lines_are_the_same_however_the_bytes_come_and_wherever_somebody_goes_on() -> None:
    choose = random.Random(1)
    parts = [b"", b"\r", b"plain", "grüße".encode(), b"\xff\xfe", b"x" * (2 * LINE_BYTES), b"a\0b", b"tab\t"]
    data = b"\n".join(choose.choices(parts, k=60))
    whole = cut(data)
    assert [line.end for line in whole[:2]] == [
        data.index(b"\n") + 1,
        data.index(b"\n", data.index(b"\n") + 1) + 1,
    ]
    assert whole[-1].end == len(data)
    for _ in range(50):
        assert cut(data, [choose.randrange(3 * LINE_BYTES) for _ in range(40)]) == whole
        number = choose.randrange(len(whole))
        offset = whole[number].end
        assert cut(data[offset:], [7], offset=offset) == whole[number + 1 :]


def test_what_a_text_cannot_hold_is_replaced() -> None:
    assert texts(b"a\0b\r\n\xff\xe2\x82\n\ntail") == ["a\ufffdb", "\ufffd\ufffd", "", "tail"]


def test_a_long_line_is_cut_and_says_its_length() -> None:
    (line,) = cut(b"\xe2\x82\xac" * 4_000_000, [65536] * 100)
    assert line.end == 12_000_000
    assert line.text.endswith("€… (a line of 12,000,000 bytes)")
    assert len(line.text) < LINE_BYTES + 100
    assert texts(b"x" * LINE_BYTES) == ["x" * LINE_BYTES]


@pytest.mark.parametrize(
    "url", ["https://u:s3cret@host/r.git", "git+ssh://u:s3cret@host", "HTTPS://s3cret@h"]
)
def test_se02_a_password_in_a_url_is_masked_wherever_the_line_is_cut(url: str) -> None:
    assert "s3cret" not in texts(f"Cloning {url} into x".encode())[0]
    for kept in range(len(url) + 2):
        for edge in (LINE_BYTES, LINE_BYTES + BESIDE):
            for after in (b"", b" and more" * 1000):
                line = b"x" * (edge - kept - 1) + b" " + url.encode() + after
                assert "s3cre" not in texts(line)[0][LINE_BYTES - 100 :], (kept, edge, len(after))


def test_se03_values_are_masked_line_by_line_the_longest_first() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADAN\n-----END KEY-----"
    shown = texts(f"{key}\ntoken-1 and token-1-of-many\n".encode(), key, "token-1", "token-1-of-many")
    assert shown == ["[masked]", "[masked]", "[masked]", "[masked] and [masked]"]


def test_se03_a_value_is_masked_wherever_the_line_is_cut() -> None:
    secret = "".join(random.Random(2).choices("abcdefghijk", k=3000))
    for kept in (0, 1, 10, 1500, 2999, 3000):
        for edge in (LINE_BYTES, LINE_BYTES + len(secret)):
            data = b"-" * (edge - kept) + secret.encode() * 8 + b"!"
            (text,) = texts(data, secret)
            assert not any(secret[at : at + 6] in text for at in (0, 5, 100, 1490, 2990)), (kept, edge)
