"""What a change of a config means: checked, merged, summarised, resolved. No database in sight."""

from typing import Any

import pytest

from drycc.core import configs
from drycc.core.configs import Change, Value
from drycc.errors import Invalid, Unprocessable

PEM = "-----BEGIN KEY-----\n" + "".join(f"{'abc+/=' * 10}{n}\n" for n in range(25)) + "-----END KEY-----\n"
VERBATIM = {
    "CF01": "postgres://u:p@w0<=rd@10.0.0.5/db",
    "CF02": PEM,
    "CF03": "c\\na",
    "CF04": "it can't wait",
    "CF05": "EbM0^`ToW",
    "CF06_H": "$2a$12$mSNG",
    "CF06_S": "a$$b",
    "CF06_R": "$(id)",
    "CF06_V": "${HOME}",
    "CF07": "-Xmx1g  -Xms256m",
    "CF08": "abc",
    "QUOTES": "\"x\" # 'note'",
    "EDGES": "  blanks and a tab\t\r\n",
    "UNICODE": "schön 𝄞 \u202e",
}


def item(name: str, value: str | None, group: str = "global") -> dict[str, str | None]:
    return {"name": name, "value": value, "group": group}


def own(name: str, value: str | None, ptype: str) -> dict[str, str | None]:
    return {"name": name, "value": value, "ptype": ptype}


def parse(values: Any = None, **more: Any) -> Change:
    body = more if values is None else {"values": values, **more}
    return configs.parse(body, is_merged=True)


def merge(old: list[Value], *items: dict[str, str | None]) -> list[Value]:
    return configs.merge_values(old, parse(list(items)))


def test_cf01_to_cf08_values_arrive_byte_for_byte() -> None:
    values = merge([], *(item(name, value) for name, value in VERBATIM.items()))
    assert configs.resolve_environment(values, {}, "web") == VERBATIM


def test_cf09_a_value_has_the_kernels_limit() -> None:
    room = configs.LONGEST_VALUE - len("KEY=") - 1
    configs.check_sizes([{"name": "KEY", "value": "x" * room, "group": "global"}], {})
    for value in ("x" * (room + 1), "ü" * (room // 2 + 1), "x" * 1_000_000):
        size = len(value.encode()) + 5
        with pytest.raises(Invalid, match=f"KEY takes {size} bytes .* may take 131072") as refused:
            configs.check_sizes([{"name": "KEY", "value": value, "ptype": "web"}], {})
        assert refused.value.field == "values"


def test_cf09_all_values_of_a_process_type_have_a_limit() -> None:
    def ten(scope: str, name: str) -> list[Value]:
        return [{"name": f"{name}{n}", "value": "x" * 99_000, scope: name} for n in range(10)]

    configs.check_sizes(ten("group", "a") + ten("group", "b"), {"web": ["a"], "worker": ["b"]})
    with pytest.raises(Invalid, match="values of worker take 19"):
        configs.check_sizes(ten("group", "a") + ten("group", "b"), {"web": ["a"], "worker": ["b", "a"]})
    with pytest.raises(Invalid, match="may take 1000000"):
        configs.check_sizes(ten("group", "global") + ten("ptype", "clock"), {})


def test_a_touched_item_moves_to_the_end_and_an_emptied_one_goes() -> None:
    old = merge([], item("A", "1"), item("B", "2"), own("A", "3", "web"))
    assert [i["value"] for i in merge(old, item("A", "9"))] == ["2", "3", "9"]
    assert merge(old, item("A", None), item("B", "")) == [own("A", "3", "web")]
    assert merge(old, item("C", None)) == old
    assert merge(old, item("C", ""))[-1] == item("C", "")
    assert merge(old, own("A", "x", "clock"))[-1] == own("A", "x", "clock")


def test_without_merge_the_named_scopes_lose_their_old_values() -> None:
    old = merge([], item("A", "1"), item("B", "2", "db"), own("C", "3", "web"))
    asked = configs.parse({"values": [item("X", "9"), own("Y", None, "web")]}, is_merged=False)
    assert configs.merge_values(old, asked) == [item("B", "2", "db"), item("X", "9")]
    with pytest.raises(Invalid, match="required"):
        configs.parse({"values_refs": {"web": ["db"]}}, is_merged=False)


def test_groups_keep_their_order_and_are_appended() -> None:
    refs = configs.merge_refs({"web": ["b", "a"], "worker": ["c"]}, {"web": ["c", "a"], "clock": ["x"]})
    assert refs == {"web": ["b", "a", "c"], "worker": ["c"], "clock": ["x"]}
    assert configs.merge_refs(refs, {"web": [], "clock": None}) == {"worker": ["c"]}
    with pytest.raises(Unprocessable, match=r"^nope does not exist under values_refs$"):
        configs.merge_refs(refs, {"nope": None})


def test_scopes_in_their_order_and_later_ones_win() -> None:
    values = merge(
        [],
        own("A", "own", "web"),
        item("A", "second", "second"),
        item("A", "first", "first"),
        item("A", "global"),
        item("B", "second", "second"),
        item("B", "first", "first"),
        item("C", "global"),
        item("D", "elsewhere", "third"),
    )
    refs = {"web": ["first", "second"], "worker": ["second", "first"]}
    assert configs.resolve_environment(values, refs, "web") == {"A": "own", "B": "second", "C": "global"}
    assert configs.resolve_environment(values, refs, "worker")["B"] == "first"
    assert configs.resolve_environment(values, refs, "clock") == {"A": "global", "C": "global"}


def test_a_summary_says_what_changed() -> None:
    old = merge([], item("A", "1"), item("B", "2"), item("C", "3"))
    new = merge(old, item("A", "9"), item("B", None), item("X", "1"), own("Y", "2", "web"))
    assert configs.summarize("alice", (old, {}), (new, {})) == (
        "alice added values X, Y, changed values A, deleted values B"
    )
    refs = {"web": ["db"]}
    assert configs.summarize("alice", (old, {}), (old, refs)) == "alice added values_refs web"
    both = configs.summarize("alice", (old, refs), (merge(old, item("A", "9")), {}))
    assert both == "alice deleted values_refs webalice changed values A"
    assert configs.summarize("alice", (old, refs), (merge(old, item("A", "1")), {"web": ["db"]})) == ""


def test_a_summary_fits_into_a_variable_and_names_what_is_overruled() -> None:
    many = merge([], *(item(f"NAME_{n}", "x") for n in range(5000)))
    assert len(configs.summarize("alice", ([], {}), (many, {}))) == configs.LONGEST_SUMMARY
    port = merge([], item("PORT", "8000"), own("CONTAINER_IP", "10.0.0.1", "web"))
    said = configs.summarize("alice", ([], {}), (port, {}))
    assert said.startswith("alice added values PORT, CONTAINER_IP (PORT, CONTAINER_IP: this cluster sets")
    assert configs.summarize("alice", (port, {}), (merge(port, item("PORT", None)), {})) == (
        "alice deleted values PORT"
    )


def test_a_summary_names_what_no_process_will_see() -> None:
    names = ("a-b.c", "a[b]", "1", "IFS", "PWD", "^", "pod", "OLDPWD", "PWD2", "_1")
    said = configs.summarize("alice", ([], {}), (merge([], *(item(name, "x") for name in names)), {}))
    assert said == (
        f"alice added values {', '.join(names)}"
        " (a-b.c, a[b], 1, IFS, PWD, ^: no shell hands on such a name, so no process sees it)"
    )


SHAPE = "could not validate "
KEY = r"Config key can only supports: ^[A-z0-9_\-\.]+$"
FAULTS: list[tuple[Any, str]] = [
    ("text", SHAPE),
    ({"A": "1"}, SHAPE),
    (["A=1"], SHAPE),
    ([{"name": "A", "value": "1"}], SHAPE),
    ([{"name": "A", "value": "1", "ptype": "web", "group": "db"}], SHAPE),
    ([{"name": "A", "value": "1", "group": "db", "more": 1}], SHAPE),
    ([{"name": "A", "group": "db"}], SHAPE),
    ([{"name": "A", "value": 1, "group": "db"}], SHAPE),
    ([{"name": 1, "value": "1", "group": "db"}], SHAPE),
    ([{"name": "A", "value": "1", "group": None}], SHAPE),
    ([item("A B", "1")], KEY),
    ([item("A=B", "1")], KEY),
    ([item("", "1")], KEY),
    ([item("A\n", "1")], KEY),
    ([item("A", "1", "a/b")], KEY),
    ([item("PORT", "http")], "PORT can only be a numeric value"),
    ([item("PORT", "8000\n")], "PORT can only be a numeric value"),
    ([item("PORT", "٨")], "PORT can only be a numeric value"),
    ([item("PORT", "0")], "PORT needs to be between 1 and 65535"),
    ([item("PORT", "65536")], "PORT needs to be between 1 and 65535"),
    ([item("PORT", "9" * 9999)], "PORT needs to be between 1 and 65535"),
    ([item("DRYCC_POD", "x")], "DRYCC_POD is set by the platform"),
    ([own("DRYCC_INSTANCE", "x", "web")], "DRYCC_INSTANCE is set by the platform"),
    ([item("A", "a\0b")], "A: no variable can hold a NUL"),
    ([item("A", "\ud800")], "A: no variable can hold a NUL or half a character"),
]


@pytest.mark.parametrize(("values", "text"), FAULTS)
def test_values_that_are_refused(values: Any, text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(values)
    assert str(refused.value).startswith(text)
    assert refused.value.field == "values"
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("refs", "text"),
    [
        (["web"], SHAPE),
        ({"web": "db"}, SHAPE),
        ({"web": [1]}, SHAPE),
        ({"Web": ["db"]}, r"Process types can only supports: ^(?P<type>[a-z0-9]+(\-[a-z0-9]+)*)$"),
        ({"": ["db"]}, "Process types can only supports: "),
        ({"web\n": ["db"]}, "Process types can only supports: "),
        ({"ab": ["db"]}, "The length of ptype must be between 3 and 63"),
        ({"w" * 64: ["db"]}, "The length of ptype must be between 3 and 63"),
        ({"web": ["a b"]}, KEY),
    ],
)
def test_refs_that_are_refused(refs: Any, text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(values_refs=refs)
    assert str(refused.value).startswith(text)
    assert refused.value.field == "values_refs"


def test_names_that_are_taken() -> None:
    for name in ("A", "a.b-c_D", "1", "[x]", "A^", "DRYCC_APP"):
        assert parse([item(name, "1", "my-group.v1")]).values[0]["name"] == name
    assert parse([item("DRYCC_POD", None), item("PORT", None), item("PORT", "")]).values
    assert parse({}) == parse() == Change()


@pytest.mark.parametrize("name", configs.UNSUPPORTED)
def test_what_is_not_supported_yet_is_refused_and_not_stored(name: str) -> None:
    with pytest.raises(Invalid, match=r"^not supported yet on this cluster$") as refused:
        parse([item("A", "1")], **{name: {"web": {"x": "y"}}})
    assert refused.value.field == name
    assert parse([item("A", "1")], **{name: {}}).values
