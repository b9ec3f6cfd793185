"""The Procfile's line grammar."""

import random

import pytest

from drycc.core.procfile import MOST_FAULTS, PATTERN, check_ptype, parse
from drycc.errors import Invalid


def faults(text: str | bytes) -> list[str]:
    with pytest.raises(Invalid) as refusal:
        parse(text)
    return str(refusal.value).split("\n")


@pytest.mark.parametrize(
    "data",
    [
        b"web: python app.py\r\nworker: python jobs.py\r\n",
        b"web: python app.py\nworker: python jobs.py\r\n",
        b"\xef\xbb\xbfweb: python app.py\r\r\nworker:\tpython jobs.py\r",
    ],
)
def test_pf01_no_carriage_return_gets_into_a_command(data: bytes) -> None:
    assert parse(data) == {"web": "python app.py", "worker": "python jobs.py"}


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n", "  \n"])
def test_pf02_a_missing_final_newline_changes_nothing(end: str) -> None:
    assert parse(f"web: ./run{end}") == {"web": "./run"}


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("web:python server.py", "python server.py"),
        ("web: echo a: b", "echo a: b"),
        ("web: @x `date` %s # no comment here", "@x `date` %s # no comment here"),
        ("web:\t ./a  --b 'c d'  ", "./a  --b 'c d'"),
        ("web: printf \N{SNOWMAN}", "printf \N{SNOWMAN}"),
        ("web:: x", ": x"),
    ],
)
def test_pf03_the_command_is_the_rest_of_the_line(line: str, command: str) -> None:
    assert parse(line) == {"web": command}


def test_pf04_comments_and_blank_lines_are_ignored_anywhere() -> None:
    lines = ["##########", "# web: old --cmd", "  # note", "", "\t", "#"]
    choose = random.Random(4)
    for _ in range(20):
        choose.shuffle(lines)
        at = choose.randrange(len(lines))
        assert parse("\n".join([*lines[:at], "web: node index.js", *lines[at:]])) == {"web": "node index.js"}


@pytest.mark.parametrize(("text", "line"), [("web", 1), ("# note\n\nweb", 3), ("web ./run\r\n", 1)])
def test_pf05_a_line_without_a_colon_is_named_with_the_expected_form(text: str, line: int) -> None:
    assert faults(text) == [f'Procfile:{line}: expected "<type>: <command>", as in "web: python3 app.py"']


def test_pf06_every_bad_line_is_named() -> None:
    first, second = faults("drycc ps:scale web=1\nweb:\nworker: ./ok\n")
    assert first.startswith("Procfile:1: 'drycc ps' has a blank in it")
    assert second == "Procfile:2: Command can't be empty for process type web"
    assert faults("web:   \r\n")[0].endswith("Command can't be empty for process type web")


def test_pf07_a_hyphen_belongs_to_a_name() -> None:
    assert parse("mail-sender: ./send\nweb: ./serve\n") == {"mail-sender": "./send", "web": "./serve"}


@pytest.mark.parametrize(
    ("name", "near"),
    [("invoice_out", "invoice-out"), ("Worker", "worker"), ("-abc", "abc"), ("web-", "web"), ("a--b", "a-b")],
)
def test_pf08_a_name_outside_the_pattern_is_refused_with_a_hint(name: str, near: str) -> None:
    (fault,) = faults(f"{name}: ./w")
    assert fault == (
        f"Procfile:1: Process types can only supports: {PATTERN}; write {near!r} instead of {name!r}"
    )


@pytest.mark.parametrize("name", ["", "w", "db", "x" * 64])
def test_names_have_three_to_sixty_three_letters(name: str) -> None:
    (fault,) = faults(f"{name}: ./w")
    assert fault.startswith("Procfile:1: The length of ptype must be between 3 and 63")
    check_ptype("abc")
    check_ptype("x" * 63)


def test_a_type_that_stands_twice_is_refused() -> None:
    assert faults("web: ./a\nworker: ./b\nweb: ./c") == [
        "Procfile:3: process type web stands here a second time; keep one of the lines"
    ]


def test_run_and_release_may_stand_in_a_procfile() -> None:
    text = "release: ./migrate\nrun: ./x\nweb: ./a"
    assert list(parse(text)) == ["release", "run", "web"]


@pytest.mark.parametrize("text", ["", "\n\n", "# web: x\n", b"\xef\xbb\xbf"])
def test_a_procfile_that_names_nothing_is_refused(text: str | bytes) -> None:
    assert faults(text)[0].startswith("Procfile: it names no process type")


def test_bytes_that_are_no_text_are_refused_with_their_line() -> None:
    assert faults(b"web: ./a\nworker: \xff\n")[0].startswith("Procfile:2: this is not UTF-8")
    assert "control character" in faults("web: a\0b")[0]
    assert "control character" in faults("web: a\rb")[0]


def test_a_long_list_of_faults_is_cut() -> None:
    lines = faults("x\n" * 10_000)
    assert len(lines) == MOST_FAULTS + 1
    assert lines[-1] == f"Procfile: and {10_000 - MOST_FAULTS} more"
