"""What clients ask for, in the forms in which they do."""

import json

import pytest

from drycc.errors import Invalid
from drycc.logs.asks import ALL_LINES, AppAsk, PodAsk, read_app_ask, read_pod_ask


def test_what_is_missing_has_its_default() -> None:
    assert read_app_ask("{}") == AppAsk(100, False, 300)
    assert read_pod_ask(b"{}") == PodAsk(300, False, "", False)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (0, 0),
        (50, 50),
        ("50", 50),
        (3000, 3000),
        (3001, 3000),
        (-1, 3000),
        ("x", 3000),
        (None, 3000),
        (1e400, 3000),
    ],
)
def test_lines_of_an_app_are_at_most_three_thousand(lines: object, expected: int) -> None:
    assert read_app_ask(json.dumps({"lines": lines})).lines == expected


@pytest.mark.parametrize(
    ("lines", "expected"), [(1, 1), (5000, 5000), (0, ALL_LINES), (-1, ALL_LINES), ([], ALL_LINES)]
)
def test_lines_of_a_pod_may_be_all(lines: object, expected: int) -> None:
    assert read_pod_ask(json.dumps({"lines": lines})).lines == expected


@pytest.mark.parametrize(
    ("timeout", "expected"), [(1, 1), ("20", 20), (300, 300), (301, 300), (0, 300), (-5, 300), ({}, 300)]
)
def test_nobody_follows_longer_than_five_minutes(timeout: object, expected: int) -> None:
    assert read_app_ask(json.dumps({"timeout": timeout})).timeout == expected


@pytest.mark.parametrize(
    ("follow", "expected"),
    [(True, True), ("true", True), ("1", True), (1, True), ("t", True), ("no", False), ([], False)],
)
def test_follow_is_a_go_boolean(follow: object, expected: bool) -> None:
    assert read_app_ask(json.dumps({"follow": follow})).follow is expected


@pytest.mark.parametrize(
    ("ask", "expected"),
    [({}, None), ({"cursor": ""}, ""), ({"cursor": None}, ""), ({"cursor": "a-1"}, "a-1")],
)
def test_a_cursor_may_be_empty_or_absent(ask: object, expected: str | None) -> None:
    assert read_app_ask(json.dumps(ask)).cursor == expected


@pytest.mark.parametrize(
    "message", ["", "null", "[]", "3", "{", b"\xff", "[" * 4000, '{"lines": "' + "x" * 5000 + '"}']
)
def test_anything_else_is_refused(message: str | bytes) -> None:
    for read in (read_app_ask, read_pod_ask):
        with pytest.raises(Invalid, match="JSON object"):
            read(message)
