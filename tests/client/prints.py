"""What the official client prints for the answers it gets: facts of its behaviour, told again in Python."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Facts = Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What came back for one call; header names are lower case. A websocket has messages, no text."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    messages: Sequence[str] = ()

    @property
    def data(self) -> Any:
        return json.loads(self.text)


Answers = Sequence[Answer]


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned, four blanks between; rows may be of different length."""
    width = [0] * max(map(len, rows))
    for row in rows:
        for index, cell in enumerate(row):
            width[index] = max(width[index], len(cell))
    lines = ["".join(cell.ljust(size + 4) for cell, size in zip(row, width, strict=False)) for row in rows]
    return "".join(line.rstrip() + "\n" for line in lines)


def table(head: str, rows: Sequence[Sequence[Any]]) -> str:
    return columns([head.split(), *([str(cell) or "<none>" for cell in row] for row in rows)])


def listed(answers: Answers) -> list[dict[str, Any]]:
    """The rows of a list; the client breaks when `results` is no array or `count` no number."""
    data = answers[0].data
    assert isinstance(data["results"], list), data
    assert isinstance(data["count"], int), data
    return data["results"]


def truth(value: bool) -> str:
    return "true" if value else "false"


# accounts


def versions(answers: Answers, facts: Facts) -> str:
    lines = {
        "Workflow CLI Version:": facts["client"],
        "Workflow CLI API Version:": "2.3",
        "Workflow Controller API Version:": answers[0].headers["drycc_api_version"],
    }
    return "".join(f"{title:<33}{value}\n" for title, value in lines.items())


def whoami(answers: Answers, facts: Facts) -> str:
    user = answers[0].data
    return f"""\
ID: {user.get("id", 0)}
Username: {user["username"]}
Email: {user["email"]}
First Name: {user["first_name"]}
Last Name: {user["last_name"]}
Last Login: {user["last_login"] or ""}
Is Superuser: {truth(user["is_superuser"])}
Is Staff: {truth(user["is_staff"])}
Is Active: {truth(user["is_active"])}
Date Joined: {user["date_joined"]}
"""


def tokens(answers: Answers, facts: Facts) -> str:
    names = ("uuid", "owner", "alias", "fuzzy_key", "created", "updated")
    rows = [[row[name] for name in names] for row in listed(answers)]
    return table("UUID OWNER ALIAS KEY CREATE UPDATED", rows)


def new_token(answers: Answers, facts: Facts, before: str) -> str:
    data = answers[1].data
    return before + table("USERNAME TOKEN", [[data["username"], data["token"]]])


def keys(answers: Answers, facts: Facts) -> str:
    rows = [[row["id"], row["owner"], short(row["public"])] for row in listed(answers)]
    return table("ID OWNER KEY", rows) if rows else "No any key found.\n"


def short(public: str) -> str:
    return f"{public[:16]}...{public[-10:]}"


# apps


def apps(answers: Answers, facts: Facts) -> str:
    rows = [[row[name] for name in ("id", "owner", "created", "updated")] for row in listed(answers)]
    return table("ID OWNER CREATED UPDATED", rows) if rows else "No apps found.\n"


def app(answers: Answers, facts: Facts) -> str:
    data, labels = answers[0].data, answers[4].data["label"] or {}
    processes, domains = listed(answers[2:]), listed(answers[3:])
    process = {"Name": "name", "Release": "release", "State": "state", "Ptype": "type", "Started": "started"}
    domain = {"Domain": "domain", "Created": "created", "Updated": "updated"}
    label = [{"name": name, "value": labels[name]} for name in sorted(labels)]
    rows = [
        ["App:", data["id"]],
        ["URL:", url(listed(answers[1:]), facts["controller"])],
        ["UUID:", data["uuid"]],
        ["Owner:", data["owner"]],
        ["Created:", data["created"]],
        ["Updated:", data["updated"]],
        *nested("Processes:", processes, process),
        *nested("Domains:", domains, domain),
        *nested("Labels:", label, {"Key": "name", "Value": "value"}),
    ]
    return columns(rows)


def no_domain(answers: Answers, facts: Facts) -> str:
    """With a domain the client would open a browser."""
    assert listed(answers) == []
    return ""


def url(domains: list[dict[str, Any]], controller: str) -> str:
    """The first domain; one without a dot takes the place of the first label of the controller's host."""
    first = str(domains[0]["domain"]) if domains else ""
    host = controller.split("://", 1)[1].rstrip("/")
    return ".".join([first, *host.split(".")[1:]]) if first and "." not in first else first


def nested(title: str, items: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[list[str]]:
    """A title, then the items as indented pairs with an empty line between two of them."""
    if not items:
        return [[title, "<none>"]]
    rows = [[title]]
    for index, item in enumerate(items):
        rows += [[""]] if index else []
        rows += [["", f"{label}:", str(item[name])] for label, name in names.items()]
    return rows


def switch(answers: Answers, facts: Facts, name: str, title: str = "") -> str:
    is_on = answers[0].data[name] is not False
    return f"{title or name.capitalize()} is {'enabled' if is_on else 'disabled'}.\n"


def labels(answers: Answers, facts: Facts) -> str:
    settings = answers[0].data
    rows = [[settings["owner"], name, value] for name, value in sorted((settings["label"] or {}).items())]
    return table("OWNER KEY VALUE", rows) if rows else f"No labels found in {facts['app']} app.\n"


def messages(answers: Answers, facts: Facts) -> str:
    return "".join(message.rstrip("\r\n") + "\n" for message in answers[0].messages)


# builds and config


def build(answers: Answers, facts: Facts) -> str:
    data = answers[0].data
    names = ("app", "sha", "uuid", "owner", "image", "stack", "created", "updated")
    titles = {name: f"{name.capitalize()}:" for name in names} | {"uuid": "UUID:"}
    return columns([[titles[name], data.get(name) or ""] for name in names])


def procfile(answers: Answers, facts: Facts) -> str:
    """Only plain commands: nothing here needs YAML's quotes."""
    types = answers[0].data["procfile"] or {}
    lines = "".join(f"{name}: {command}\n" for name, command in sorted(types.items()))
    return f"---\n# Source: Procfile\n{lines}\n" if lines else ""


def config(answers: Answers, facts: Facts, ptype: str = "", group: str = "") -> str:
    data = answers[0].data
    values, refs = data["values"], data["values_refs"]
    groups = {value["group"] for value in values if value.get("group")}
    ptypes = {value["ptype"] for value in values if value.get("ptype")} | {
        name for name in refs if refs[name]
    }
    blocks = [
        f"# Group: {name}\n{pairs(values, 'group', name)}\n"
        for name in sorted(groups)
        if not ptype and group in ("", name)
    ]
    for name in sorted(ptypes):
        if group or ptype not in ("", name):
            continue
        env = pairs(values, "ptype", name)
        attached = [*refs[name], *({"global"} & groups)] if refs.get(name) else []
        ref = "".join(f"- {one}\n" for one in attached)
        block = f"# Ptype {name} config\n"
        block += f"## env\n{env}\n" if env else ""
        block += f"## ref\n{ref}\n" if ref else ""
        blocks.append(block)
    return "".join(f"---\n{block}" for block in blocks) or "\n"


def variables(answers: Answers, facts: Facts, ptype: str = "") -> str:
    scope = ("ptype", ptype) if ptype else ("group", "global")
    return pairs(answers[0].data["values"], *scope)


def pairs(values: Sequence[Mapping[str, Any]], scope: str, name: str) -> str:
    chosen = sorted((value["name"], value["value"]) for value in values if value.get(scope) == name)
    return "".join(f"{key}={value}\n" for key, value in chosen)


# releases, pods, process types


def releases(answers: Answers, facts: Facts) -> str:
    rows = [
        [row["owner"], row["state"], f"v{row['version']}", row["created"], cut(row["summary"])]
        for row in listed(answers)
    ]
    head = "OWNER STATE VERSION CREATED SUMMARY"
    return table(head, rows) if rows else f"No releases found in {facts['app']} app.\n"


def cut(summary: str) -> str:
    return summary if len(summary) <= 64 else f"{summary[:64]}[...]"


def release(answers: Answers, facts: Facts) -> str:
    data = answers[0].data
    exception = [["Exception:", data["exception"]]] if data["exception"] else []
    rows = [
        ["App:", data["app"]],
        ["UUID:", data["uuid"]],
        ["State:", data["state"]],
        ["Owner:", data["owner"]],
        ["Build:", data["build"] or ""],
        ["Config:", data["config"]],
        ["Created:", data["created"]],
        ["Updated:", data["updated"]],
        ["Summary:", data["summary"]],
        *exception,
        ["Version:", f"v{data['version']}"],
    ]
    conditions = [["Conditions:"]]
    for one in data["conditions"]:
        conditions += [
            ["  - created:", one["created"]],
            ["    state:", one["state"]],
            ["    action:", one["action"]],
            ["    ptypes:", ",".join(one["ptypes"])],
            ["    exception:", one.get("exception") or "<none>"],
        ]
    return columns(rows) + (columns(conditions) if data["conditions"] else "")


def rolled_back(answers: Answers, facts: Facts, to: int) -> str:
    return f"Rolling back to v{to}... done, v{answers[0].data['version']}\n"


def pods(answers: Answers, facts: Facts) -> str:
    names = ("name", "release", "state", "type", "ready", "restarts", "started")
    found = sorted(listed(answers), key=lambda row: (row["type"], row["name"]))
    head = "NAME RELEASE STATE PTYPE READY RESTARTS STARTED"
    rows = [[row[name] for name in names] for row in found]
    return table(head, rows) if rows else f"No processes found in {facts['app']} app.\n"


def ptypes(answers: Answers, facts: Facts) -> str:
    names = ("name", "release", "ready", "up_to_date", "available_replicas", "started")
    found = sorted(listed(answers), key=lambda row: str(row["name"]))
    head = "NAME RELEASE READY UP-TO-DATE AVAILABLE STARTED GARBAGE"
    rows = [[*(row[name] for name in names), truth(row["garbage"])] for row in found]
    return table(head, rows) if rows else f"No processes found in {facts['app']} app.\n"
