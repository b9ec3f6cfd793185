"""Configs: never edited, replaced. What a change means, and the release that it makes."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.cluster.base import SHELLS_OWN
from drycc.backends.db import Database
from drycc.backends.nudges.base import Nudges
from drycc.core import jobs, releases
from drycc.core.identity import Identity
from drycc.core.models import App, Config
from drycc.core.secrets import HasDataKey, Keyring
from drycc.errors import Conflict, Invalid, Unprocessable

Value = dict[str, str]  # name, value, and group or ptype
Refs = dict[str, list[str]]  # process type → groups

GLOBAL = "global"  # the group that every process type has
KEY = re.compile(r"[A-z0-9_\-\.]+")
SEEN = re.compile(rf"(?!({'|'.join(SHELLS_OWN)})$)[A-Za-z_]\w*", re.ASCII)  # names that a shell hands on
PTYPE = re.compile(r"[a-z0-9]+(\-[a-z0-9]+)*")
LONGEST_VALUE = 131_072  # bytes of NAME=value and its NUL: what the kernel takes as one string
MOST_BYTES = 1_000_000  # of all values of one process type
LONGEST_SUMMARY = 1_000  # characters: an app gets it as one of its variables
LONGEST_SHOWN = 200  # characters of what could not be read
OURS = ("DRYCC_POD", "DRYCC_INSTANCE")
OVERRULED = ("PORT", "CONTAINER_IP")  # kept, but this cluster's own assignment wins
UNSUPPORTED = (
    "limits",
    "tags",
    "registry",
    "healthcheck",
    "termination_grace_period",
    "lifecycle",
    "lifecycle_post_start",
    "lifecycle_pre_stop",
)


@dataclass(frozen=True, slots=True)
class Change:
    """What was asked for, checked. A value None unsets; not `is_merged` drops the scopes it names first."""

    values: list[dict[str, str | None]] = field(default_factory=list, repr=False)
    refs: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    is_merged: bool = True


@dataclass(frozen=True, slots=True)
class Changed:
    """The new config, in clear."""

    row: Config
    values: list[Value] = field(repr=False)


def parse(body: Mapping[str, Any], *, is_merged: bool) -> Change:
    """Check what a client sent; raises `Invalid` with the contract's texts under the field at fault."""
    for name in UNSUPPORTED:
        if body.get(name):
            raise Invalid("not supported yet on this cluster", field=name)
    if not is_merged and body.get("values") is None:
        raise Invalid("This field is required.", field="values")
    values = body.get("values") or []
    if not isinstance(values, list):
        raise _unfit(values, "is not of type 'array'")
    checked = [_check_item(item) for item in values]
    return Change(checked, _check_refs(body.get("values_refs") or {}) if is_merged else {}, is_merged)


async def change(
    db: Database, nudges: Nudges, keyring: Keyring, app: UUID, user: Identity, change: Change
) -> Changed:
    """Replace the latest config; records a release and, with a build and autodeploy on, queues its deploy.

    Raises `Conflict` when nothing would change, `Unprocessable`, `Invalid` for values that are too long.
    """

    async def body(session: AsyncSession) -> Changed:
        row = await session.get_one(App, app)
        base = await releases.latest(session, row)
        old = await session.get_one(Config, base.config_uuid)
        old_values = open_values(keyring, row, old.uuid, old.sealed_values)
        values, refs = merge_values(old_values, change), merge_refs(old.values_refs, change.refs)
        check_sizes(values, refs)
        summary = summarize(user.username, (old_values, old.values_refs), (values, refs))
        if not summary:
            raise Conflict(f"{user.username} changed nothing - release stopped")
        made = make_config(keyring, row, user.id, values=values, refs=refs, limits=old.limits)
        session.add(made)
        await session.flush()
        release = await releases.record(
            session, app, user.id, build_id=base.build_id, config_uuid=made.uuid, summary=summary
        )
        if base.build_id is not None and row.autodeploy:
            await releases.queue_deploy(session, release)
        return Changed(made, values)

    changed = await db.write(body, app=app)
    await jobs.wake(nudges)
    return changed


def make_config(
    keyring: Keyring, app: App, user_id: int, *, values: Sequence[Value], refs: Refs, limits: dict[str, Any]
) -> Config:
    """A new row with its values sealed."""
    uuid = uuid4()
    sealed = keyring.seal(app, json.dumps(values).encode(), _place(uuid))
    return Config(
        uuid=uuid,
        app_uuid=app.uuid,
        user_id=user_id,
        sealed_values=sealed,
        values_refs=refs,
        limits=limits,
    )


def open_values(keyring: Keyring, app: HasDataKey, config: UUID, sealed: bytes) -> list[Value]:
    """The values of a config of the app, in clear."""
    values: list[Value] = json.loads(keyring.unseal(app, sealed, _place(config)))
    return values


def resolve_environment(
    values: Iterable[Mapping[str, str]], refs: Mapping[str, Sequence[str]], ptype: str
) -> dict[str, str]:
    """What users gave a process type: global variables, its groups' in order, its own; later ones win."""
    scopes = [("group", GLOBAL), *(("group", group) for group in refs.get(ptype, ())), ("ptype", ptype)]
    held = list(values)
    return {item["name"]: item["value"] for kind, name in scopes for item in held if item.get(kind) == name}


def merge_values(old: Iterable[Value], change: Change) -> list[Value]:
    """Old values with the change applied; a touched one moves to the end, an emptied one goes."""
    mentioned = set() if change.is_merged else {_identity(item)[1:] for item in change.values}
    kept = {_identity(item): item for item in old if _identity(item)[1:] not in mentioned}
    for item in change.values:
        is_known = kept.pop(_identity(item), None) is not None
        if item["value"] or (item["value"] == "" and not is_known):
            kept[_identity(item)] = {key: text for key, text in item.items() if text is not None}
    return list(kept.values())


def merge_refs(old: Mapping[str, Sequence[str]], change: Mapping[str, Sequence[str] | None]) -> Refs:
    """Groups are appended; none at all drops the process type. Raises `Unprocessable` for an unknown one."""
    refs = {ptype: list(groups) for ptype, groups in old.items()}
    for ptype, groups in change.items():
        if groups:
            refs[ptype] = list(dict.fromkeys([*refs.get(ptype, []), *groups]))
        elif refs.pop(ptype, None) is None:
            raise Unprocessable(f"{ptype} does not exist under values_refs")
    return refs


def check_sizes(values: Sequence[Value], refs: Refs) -> None:
    """Raises `Invalid` for what the kernel would refuse when the app starts."""
    for item in values:
        size = _count_bytes(item["name"], item["value"])
        if size > LONGEST_VALUE:
            text = f"{item['name']} takes {size} bytes with its name; one value may take {LONGEST_VALUE}"
            raise Invalid(text, field="values")
    for ptype in {"web", *refs, *(item["ptype"] for item in values if "ptype" in item)}:
        size = sum(_count_bytes(*pair) for pair in resolve_environment(values, refs, ptype).items())
        if size > MOST_BYTES:
            text = f"The values of {ptype} take {size} bytes together; they may take {MOST_BYTES}"
            raise Invalid(text, field="values")


def summarize(
    username: str, old: tuple[Iterable[Value], Mapping[str, Any]], new: tuple[Iterable[Value], Refs]
) -> str:
    """What a release says of its config, "" when nothing differs. `old` and `new` are values and refs."""
    before, after = ({_identity(item): item["value"] for item in values} for values, _ in (old, new))
    text = _describe(username, "values_refs", old[1], new[1]) + _describe(username, "values", before, after)
    touched = dict.fromkeys(key[0] for key in after if after[key] != before.get(key))
    if overruled := [name for name in OVERRULED if name in touched]:
        text += f" ({', '.join(overruled)}: this cluster sets its own, which wins)"
    if unseen := [name for name in touched if not SEEN.fullmatch(name)]:
        text += f" ({', '.join(unseen)}: no shell hands on such a name, so no process sees it)"
    return text if len(text) <= LONGEST_SUMMARY else text[: LONGEST_SUMMARY - 1] + "…"


def _describe(username: str, what: str, old: Mapping[Any, Any], new: Mapping[Any, Any]) -> str:
    kinds = {
        "added": [key for key in new if key not in old],
        "changed": [key for key in new if key in old and old[key] != new[key]],
        "deleted": [key for key in old if key not in new],
    }
    shown = {kind: dict.fromkeys(map(_name, keys)) for kind, keys in kinds.items() if keys}
    parts = [f"{kind} {what} {', '.join(names)}" for kind, names in shown.items()]
    return f"{username} {', '.join(parts)}" if parts else ""


def _name(key: str | tuple[str, ...]) -> str:
    return key if isinstance(key, str) else key[0]


def _identity(item: Mapping[str, str | None]) -> tuple[str, str, str]:
    return item["name"] or "", item.get("ptype") or "", item.get("group") or ""


def _place(config: UUID) -> str:
    return f"configs.sealed_values.{config}"


def _count_bytes(name: str, value: str) -> int:
    return len(name.encode()) + len(value.encode()) + 2  # the equals sign and the NUL


def _check_item(item: Any) -> dict[str, str | None]:
    if not isinstance(item, dict):
        raise _unfit(item, "is not of type 'object'")
    scopes = [scope for scope in ("ptype", "group") if scope in item]
    if len(scopes) != 1 or set(item) != {"name", "value", scopes[0]}:
        raise _unfit(item, "has not exactly the keys name, value and one of ptype or group")
    for key in ("name", "value", scopes[0]):
        if not isinstance(item[key], str) and not (key == "value" and item[key] is None):
            raise _unfit(item, f"{key} is not of type 'string'")
    _check_key(item["name"], "values")
    if scopes[0] == "group":
        _check_key(item["group"], "values")
    if item["value"] is not None:
        _check_value(item["name"], item["value"])
    return {"name": item["name"], "value": item["value"], scopes[0]: item[scopes[0]]}


def _check_value(name: str, value: str) -> None:
    if name in OURS:
        raise Invalid(f"{name} is set by the platform for each pod; choose another name", field="values")
    if re.search("[\0\ud800-\udfff]", value):
        raise Invalid(f"{name}: no variable can hold a NUL or half a character", field="values")
    if name == "PORT" and value:
        if not re.fullmatch(r"[0-9]+", value):
            raise Invalid("PORT can only be a numeric value", field="values")
        if len(value) > 5 or not 1 <= int(value) <= 65535:
            raise Invalid("PORT needs to be between 1 and 65535", field="values")


def _check_refs(refs: Any) -> dict[str, list[str] | None]:
    if not isinstance(refs, dict):
        raise _unfit(refs, "is not of type 'object'", "values_refs")
    for ptype, groups in refs.items():
        _check_ptype(ptype)
        if groups is not None and not isinstance(groups, list):
            raise _unfit(groups, "is not of type 'array'", "values_refs")
        for group in groups or ():
            if not isinstance(group, str):
                raise _unfit(group, "is not of type 'string'", "values_refs")
            _check_key(group, "values_refs")
    return refs


def _check_ptype(ptype: str) -> None:
    if not PTYPE.fullmatch(ptype):
        text = r"Process types can only supports: ^(?P<type>[a-z0-9]+(\-[a-z0-9]+)*)$"
        raise Invalid(text, field="values_refs")
    if not 3 <= len(ptype) <= 63:
        raise Invalid("The length of ptype must be between 3 and 63", field="values_refs")


def _check_key(key: str, where: str) -> None:
    if not KEY.fullmatch(key):
        raise Invalid(r"Config key can only supports: ^[A-z0-9_\-\.]+$", field=where)


def _unfit(value: Any, reason: str, where: str = "values") -> Invalid:
    return Invalid(f"could not validate {repr(value)[:LONGEST_SHOWN]}: {reason}", field=where)
