"""Which commit of a push is deployed."""

import pytest

from drycc.build.refs import MOST_REFS, NOTHING, Update, check_options, choose, parse_update
from drycc.build.terminal import LONGEST_LINE, make_lines
from drycc.errors import PushRejected

A, B = "a" * 40, "b" * 40


def updates(*refs: str) -> list[Update]:
    return [Update(NOTHING, A if number else B, ref) for number, ref in enumerate(refs)]


def refusal(*refs: str) -> list[str]:
    with pytest.raises(PushRejected) as error:
        choose(updates(*refs))
    return str(error.value).split("\n")


@pytest.mark.parametrize(
    ("refs", "branch", "others"),
    [
        (("refs/heads/topic",), "topic", []),
        (("refs/heads/x/y",), "x/y", []),
        (("refs/heads/ünïcode",), "ünïcode", []),
        (("refs/heads/topic", "refs/heads/main", "refs/tags/v1"), "main", ["topic", "refs/tags/v1"]),
        (("refs/heads/master", "refs/heads/a"), "master", ["a"]),
        (("refs/heads/master", "refs/heads/main"), "main", ["master"]),
        (("refs/tags/v1", "refs/notes/commits", "refs/heads/a"), "a", ["refs/tags/v1", "refs/notes/commits"]),
        (("refs/heads/-x", "refs/heads/a"), "a", ["-x"]),
    ],
)
def test_gp08_one_branch_is_deployed_and_the_others_are_told(
    refs: tuple[str, ...], branch: str, others: list[str]
) -> None:
    choice = choose(updates(*refs))
    assert choice.branch == branch
    assert [other.split(": not deployed")[0] for other in choice.others] == others


def test_gp08_without_a_choice_each_is_told_how_to_choose() -> None:
    one, two, tag = refusal("refs/heads/one", "refs/heads/two", "refs/tags/v1")
    assert one.startswith("one: one push deploys one branch")
    assert two.startswith("two: one push deploys one branch")
    assert "git push <remote> 'v1^{commit}:refs/heads/main'" in tag


@pytest.mark.parametrize(
    "ref", ["refs/tags/v1", "refs/notes/commits", "refs/foo/bar", "HEAD", "refs/heads/-x"]
)
def test_what_is_no_branch_is_not_deployed(ref: str) -> None:
    (line,) = refusal(ref)
    assert "git push <remote>" in line


def test_a_deletion_is_refused_whatever_comes_with_it() -> None:
    asked = [Update(NOTHING, A, "refs/heads/main"), Update(A, NOTHING, "refs/heads/old")]
    with pytest.raises(PushRejected, match=r"^old: nothing can be deleted here"):
        choose(asked)


def test_a_push_names_a_bounded_number_of_references() -> None:
    with pytest.raises(PushRejected, match="push the branch to deploy alone"):
        choose(updates(*(f"refs/heads/b{number}" for number in range(MOST_REFS + 1))))


def test_a_line_of_the_hook_is_read_as_bytes() -> None:
    assert parse_update(f"{A} {B} refs/heads/a b".encode() + b"\xff\n") == Update(
        A, B, "refs/heads/a b\ufffd"
    )


def test_se02_an_unknown_option_is_refused_without_its_value() -> None:
    check_options(["keep"])
    with pytest.raises(PushRejected) as error:
        check_options(["token=s3cret"])
    assert str(error.value) == "there is no push option 'token'; known ones: keep"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("\x1b[1;31mred\x1b[0m\tand \x1b]0;title\x07plain\r", ["red\tand plain"]),
        ("\x1b[2J\x1b[1Gx\x00\x08y\u2028z", ["xyz"]),
        ("a\nb", ["ab"]),
        ("", [""]),
        ("lone \ud800 surrogate", ["lone ? surrogate"]),
    ],
)
def test_text_cannot_drive_a_terminal(text: str, lines: list[str]) -> None:
    assert make_lines(text) == lines


def test_a_long_line_is_cut_and_nothing_of_it_lost() -> None:
    for text in ("x" * 10_001, "\N{SNOWMAN}" * 999):
        pieces = make_lines(text)
        assert "".join(pieces) == text
        assert max(len(piece.encode()) for piece in pieces) <= LONGEST_LINE
