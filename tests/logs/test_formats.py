"""Lines as the client prints them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from drycc.backends.logstore.base import Line, Source
from drycc.logs.formats import CHUNK_CHARACTERS, join_chunks, show_line

AT = datetime(2016, 10, 18, 20, 29, 38, 999999, UTC)


@pytest.mark.parametrize(
    ("pod", "origin"),
    [
        ("foo-web-123456789-nzf60", "web.v2.nzf60"),
        ("my-long-app-web-123456789-abcde", "web.v2.abcde"),
        ("foo-run-abcde", "web.v2"),
        ("foo-web--abcde", "web.v2"),
        ("", "web.v2"),
    ],
)
def test_an_apps_line_names_its_process(pod: str, origin: str) -> None:
    line = Line(AT, "app", "test message", "web", 2, pod)
    assert show_line("foo", line) == f"2016-10-18T20:29:38+00:00 foo[{origin}]: test message\n"


@pytest.mark.parametrize(
    ("source", "text", "shown"),
    [
        (
            "platform",
            "INFO admin created initial release",
            "drycc[controller]: INFO admin created initial release",
        ),
        ("platform", "WARN 3 lines are no longer kept", "drycc[controller]: WARN 3 lines are no longer kept"),
        ("platform", "admin deployed v2", "drycc[controller]: INFO admin deployed v2"),
        ("platform", "INFORMATION", "drycc[controller]: INFO INFORMATION"),
        ("access", "GET / 200", "foo[edge]: GET / 200"),
    ],
)
def test_other_lines_name_who_wrote_them(source: Source, text: str, shown: str) -> None:
    at = AT.astimezone(timezone(timedelta(hours=2)))
    assert show_line("foo", Line(at, source, text)) == f"2016-10-18T20:29:38+00:00 {shown}\n"


def test_messages_are_whole_lines_of_bounded_size() -> None:
    lines = [f"{n} {'x' * (n % 500)}\n" for n in range(2000)]
    chunks = list(join_chunks(lines))
    assert "".join(chunks) == "".join(lines)
    assert all(chunk.endswith("\n") and len(chunk) < CHUNK_CHARACTERS + 600 for chunk in chunks)
    assert list(join_chunks([])) == []
