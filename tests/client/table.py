"""The official client, as a table: what is typed, the requests that go out in order, and what is printed.
Written from the API's contract for `drycc` v1.10.2; the rows are in the order of one story."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.client import prints
from tests.client.prints import Answer, Facts

NOT_LOGGED_IN = """\
client configuration file not found at: {home}/.drycc/client.json
Are you logged in? Use 'drycc login' or 'drycc register' to get started"""

WARNING = """\
 !    WARNING: Make sure to copy your token now.
 !    You won't be able to see it again, please confirm whether to continue.
 !    To proceed, type "yes" !

> """


@dataclass(frozen=True)
class Call:
    """One request. Its method may be WS: then `body` is the first message. `{name}` stands for a fact."""

    method: str
    path: str
    body: Any = None  # None: no body at all
    status: int = 200
    learns: Mapping[str, str] = field(default_factory=dict)  # fact: where it stands in the answer
    is_bare: bool = False  # without Content-Type and token


@dataclass(frozen=True)
class Row:
    """One command. In `prints`, `{name}` is a fact and `{:kind}` anything of that kind; columns are folded.

    `shows` makes the print of the answers; without it the print doesn't depend on them.
    """

    typed: str
    calls: Sequence[Call] = ()
    prints: str = ""
    error: str = ""
    shows: Callable[[Sequence[Answer], Facts], str] | None = None
    answers: str = ""  # typed when it asks
    is_ordered: bool = True
    remotes: Mapping[str, str] | None = None  # the git remotes that there are afterwards


@dataclass(frozen=True)
class Push:
    """A commit of the app that answers `version`, pushed by git; it is live afterwards."""

    version: str


@dataclass(frozen=True)
class Settled:
    """Wait until a release is deployed `deployed` times, and its pods are these and no others."""

    release: int
    web: int
    deployed: int = 1
    pods_of: int | None = None  # the release of the pods, when this one changed nothing for them
    is_fresh: bool = False  # none of the pods was there before


Step = Row | Push | Settled

A = "/v2/apps/{app}"
REMOTE = {"drycc": "ssh://git@{builder}:2222/{app}.git"}
DONE_SOON = "{doing} process types... but first, coffee!\ndone in {{:seconds}}s\n"


def login(user: str, password: str, alias: str = "workflow-cli", token: str = "token") -> list[Call]:
    """The two requests that turn a password into a token."""
    body = {"username": user, "password": password}
    return [
        Call("POST", "/v2/auth/login/", body, learns={"key": "key"}),
        Call("GET", "/v2/auth/token/{key}/?alias=" + alias, learns={token: "token"}),
    ]


def config(*values: dict[str, str | None], status: int = 201) -> list[Call]:
    """What `config set` and `config unset` send."""
    return [
        Call("GET", A + "/settings/"),
        Call("POST", A + "/config/", {"values": list(values)}, status),
    ]


SIGNING_IN = [
    Row("version", prints="{client}\n"),
    Row("auth whoami", error=NOT_LOGGED_IN),
    Row(
        "auth login {controller} -u {user} -p wrong",
        [
            Call("GET", "/v2/", status=401, is_bare=True),
            Call("POST", "/v2/auth/login/", {"username": "{user}", "password": "wrong"}, 400),
        ],
        error="Unable to log in with provided credentials.",
    ),
    Row(
        "auth login {controller}/ -u {user} -p wrong",
        [
            Call("GET", "//v2/", status=401, is_bare=True),
            Call("POST", "/v2/auth/login/", {"username": "{user}", "password": "wrong"}, 400),
        ],
        error="Unable to log in with provided credentials.",
    ),
    Row(
        "auth login {controller} -u {user} -p {password}",
        [Call("GET", "/v2/", status=401, is_bare=True), *login("{user}", "{password}")],
        "Logged in as {user}\nConfiguration file written to {home}/.drycc/client.json\n",
    ),
    Row(
        "version -a",
        [Call("GET", "/healthz", is_bare=True)],
        """\
Workflow CLI Version: {client}
Workflow CLI API Version: 2.3
Workflow Controller API Version: 2.3
""",
        shows=prints.versions,
    ),
    Row("auth whoami", prints="You are {user} at {controller}\n"),
    Row(
        "whoami -a",
        [Call("GET", "/v2/auth/whoami/")],
        """\
ID: {:number}
Username: {user}
Email:{:text}
First Name:{:text}
Last Name:{:text}
Last Login:{:text}
Is Superuser: false
Is Staff: false
Is Active: true
Date Joined: {:time}
""",
        shows=prints.whoami,
    ),
]

TOKENS_AND_KEYS = [
    Row(
        "tokens list",
        [Call("GET", "/v2/tokens/?limit=100", learns={"token_id": "results/alias=workflow-cli/uuid"})],
        """\
UUID OWNER ALIAS KEY CREATE UPDATED
{token_id} {user} workflow-cli {:fuzzy} {:time} {:time}
""",
        shows=prints.tokens,
    ),
    Row(
        "tokens add laptop -u {user} -p {password}",
        login("{user}", "{password}", "laptop", "laptop_token"),
        WARNING + "USERNAME TOKEN\n{user} {laptop_token:token}\n",
        shows=partial(prints.new_token, before=WARNING),
        answers="yes\n",
    ),
    Row(
        "tokens list",
        [Call("GET", "/v2/tokens/?limit=100", learns={"laptop_id": "results/alias=laptop/uuid"})],
        """\
UUID OWNER ALIAS KEY CREATE UPDATED
{token_id} {user} workflow-cli {:fuzzy} {:time} {:time}
{laptop_id} {user} laptop {:fuzzy} {:time} {:time}
""",
        shows=prints.tokens,
        is_ordered=False,
    ),
    Row(
        "tokens remove {laptop_id} --confirm yes",
        [Call("DELETE", "/v2/tokens/{laptop_id}/", status=204)],
        "done\n",
    ),
    Row(
        "tokens remove {laptop_id} --confirm yes",
        [Call("DELETE", "/v2/tokens/{laptop_id}/", status=404)],
        error='"No Token matches the given query."',
    ),
    Row("keys list", [Call("GET", "/v2/keys/?limit=100")], "No any key found.\n", shows=prints.keys),
    Row(
        "keys add {key_file}",
        [Call("POST", "/v2/keys/", {"id": "{key_name}", "public": "{public}\n"}, 201)],
        "Uploading {key_base} to drycc... done\n",
    ),
    Row(
        "keys add other {key_file}",
        [Call("POST", "/v2/keys/", {"id": "other", "public": "{public}\n"}, 400)],
        "Uploading {key_base} to drycc...\n",
        'Unknown Error (400): {{"public":["Public Key is already in use"]}}',
    ),
    Row(
        "keys list",
        [Call("GET", "/v2/keys/?limit=100")],
        "ID OWNER KEY\n{key_name} {user} {key_short}\n",
        shows=prints.keys,
    ),
]

A_NEW_APP = [
    Row("apps list", [Call("GET", "/v2/apps/?limit=0")], "No apps found.\n", shows=prints.apps),
    Row(
        "apps create {app}",
        [Call("POST", "/v2/apps/", {"id": "{app}"}, 201)],
        "Creating Application... done, created {app}\nGit remote drycc successfully created for app {app}.\n",
        remotes=REMOTE,
    ),
    Row(
        "apps create {app} --no-remote",
        [Call("POST", "/v2/apps/", {"id": "{app}"}, 400)],
        "Creating Application... ",
        "Application with this id already exists.",
    ),
    Row(
        "apps create --no-remote",
        [Call("POST", "/v2/apps/", status=201, learns={"other": "id"})],
        """\
Creating Application... done, created {other:generated}
If you want to add a git remote for this app later, use `drycc git remote -a {other}`
""",
    ),
    Row(
        "apps list",
        [Call("GET", "/v2/apps/?limit=0")],
        """\
ID OWNER CREATED UPDATED
{app} {user} {:time} {:time}
{other} {user} {:time} {:time}
""",
        shows=prints.apps,
        is_ordered=False,
    ),
    Row(
        "apps destroy -a {other} --confirm {other}",
        [Call("DELETE", "/v2/apps/{other}/", status=204)],
        "Destroying {other}...\ndone in {:seconds}s\n",
        remotes=REMOTE,
    ),
    Row(
        "apps info -a {app}",
        [
            Call("GET", A + "/"),
            Call("GET", A + "/domains/?limit=1"),
            Call("GET", A + "/pods/?limit=-1"),
            Call("GET", A + "/domains/?limit=-1"),
            Call("GET", A + "/settings/"),
        ],
        """\
App: {app}
URL:
UUID: {:uuid}
Owner: {user}
Created: {:time}
Updated: {:time}
Processes: <none>
Domains: <none>
Labels: <none>
""",
        shows=prints.app,
    ),
    Row(
        "apps open -a {app}",
        [Call("GET", A + "/domains/?limit=1")],
        error="no domain assigned to {app}",
        shows=prints.no_domain,
    ),
    Row(
        "builds info -a {app}",
        [Call("GET", A + "/build/")],
        "App:\nSha:\nUUID:\nOwner:\nImage:\nStack:\nCreated:\nUpdated:\n",
        shows=prints.build,
    ),
    Row("builds fetch -a {app}", [Call("GET", A + "/build/")], "", shows=prints.procfile),
    Row("config info -a {app}", [Call("GET", A + "/config/")], "\n", shows=prints.config),
    Row("config pull -a {app}", [Call("GET", A + "/config/")], "", shows=prints.variables),
    Row(
        "releases list -a {app}",
        [Call("GET", A + "/releases/?limit=100")],
        """\
OWNER STATE VERSION CREATED SUMMARY
{user} created v1 {:time} {user} created initial release
""",
        shows=prints.releases,
    ),
    Row(
        "releases info 1 -a {app}",
        [Call("GET", A + "/releases/v1/")],
        """\
App: {app}
UUID: {:uuid}
State: created
Owner: {user}
Build:
Config: {:uuid}
Created: {:time}
Updated: {:time}
Summary: {user} created initial release
Version: v1
""",
        shows=prints.release,
    ),
    Row(
        "releases deploy -a {app} --confirm yes",
        [Call("POST", A + "/releases/deploy/", {"ptypes": "", "force": False}, 400)],
        "Deploying process types... but first, coffee!\n",
        'Unknown Error (400): {{"detail":"there are no builds available for deploy"}}',
    ),
    Row(
        "releases rollback web 1 -a {app}",
        [Call("POST", A + "/releases/rollback/", {"version": 1, "ptypes": "web"}, 400)],
        "Rolling back to v1... ",
        'Unknown Error (400): {{"detail":"Cannot roll back to initial release."}}',
    ),
    Row(
        "releases rollback web 0 -a {app}",
        [Call("POST", A + "/releases/rollback/", {"version": 0, "ptypes": "web"}, 400)],
        "Rolling back to v0... ",
        "The given version is invalid",
    ),
    Row(
        "ps list -a {app}",
        [Call("GET", A + "/pods/?limit=1000")],
        "No processes found in {app} app.\n",
        shows=prints.pods,
    ),
    Row(
        "pts list -a {app}",
        [Call("GET", A + "/ptypes/?limit=1000")],
        "No processes found in {app} app.\n",
        shows=prints.ptypes,
    ),
    Row(
        "autodeploy info -a {app}",
        [Call("GET", A + "/settings/")],
        "Autodeploy is enabled.\n",
        shows=partial(prints.switch, name="autodeploy"),
    ),
    Row(
        "autorollback info -a {app}",
        [Call("GET", A + "/settings/")],
        "Autorollback is enabled.\n",
        shows=partial(prints.switch, name="autorollback"),
    ),
    Row(
        "routing info -a {app}",
        [Call("GET", A + "/settings/")],
        "Routing is enabled.\n",
        shows=partial(prints.switch, name="routable", title="Routing"),
    ),
    Row(
        "labels list -a {app}",
        [Call("GET", A + "/settings/")],
        "No labels found in {app} app.\n",
        shows=prints.labels,
    ),
]

GIT_REMOTES = [
    Row(
        "git remote -a {app}",
        prints="Remote drycc already exists and is correctly configured for app {app}.\n",
        remotes=REMOTE,
    ),
    Row(
        "git remote -a {app} -r second",
        prints="Git remote second successfully created for app {app}.\n",
        remotes=REMOTE | {"second": REMOTE["drycc"]},
    ),
    Row("git remove -a {app}", prints="Git remotes for app {app} removed.\n", remotes={}),
    Row(
        "git remote -a {app}",
        prints="Git remote drycc successfully created for app {app}.\n",
        remotes=REMOTE,
    ),
]

BEFORE_THE_PUSH = [
    Row(
        "config set GREETING=hello -a {app} --confirm yes",
        config({"group": "global", "name": "GREETING", "value": "hello"}),
        "Creating config... done\n\n",
    ),
    Row(
        "config set GREETING=hello -a {app} --confirm yes",
        config({"group": "global", "name": "GREETING", "value": "hello"}, status=409),
        "Creating config... ",
        'Unknown Error (409): {{"detail":"{user} changed nothing - release stopped"}}',
    ),
]

A_PUSHED_APP: Sequence[Step] = [
    Push("v1"),
    Settled(3, web=1),
    Row(
        "builds info -a {app}",
        [Call("GET", A + "/build/")],
        """\
App: {app}
Sha: {sha7}{:text}
UUID: {:uuid}
Owner: {user}
Image: {:word}
Stack: {:word}
Created: {:time}
Updated: {:time}
""",
        shows=prints.build,
    ),
    Row(
        "builds info -a {app} -v 2",
        [Call("GET", A + "/build/?version=v2")],
        "App:\nSha:\nUUID:\nOwner:\nImage:\nStack:\nCreated:\nUpdated:\n",
        shows=prints.build,
    ),
    Row(
        "builds fetch -a {app}",
        [Call("GET", A + "/build/")],
        "---\n# Source: Procfile\nweb: python3 web.py\n\n",
        shows=prints.procfile,
    ),
    Row(
        "ps list -a {app}",
        [Call("GET", A + "/pods/?limit=1000", learns={"pod": "results/type=web/name"})],
        """\
NAME RELEASE STATE PTYPE READY RESTARTS STARTED
{pod} v3 up web 1/1 0 {:time}
""",
        shows=prints.pods,
    ),
    Row(
        "pts list -a {app}",
        [Call("GET", A + "/ptypes/?limit=1000")],
        """\
NAME RELEASE READY UP-TO-DATE AVAILABLE STARTED GARBAGE
web v3 1/1 1 1 {:time} false
""",
        shows=prints.ptypes,
    ),
    Row(
        "apps info -a {app}",
        [
            Call("GET", A + "/"),
            Call("GET", A + "/domains/?limit=1"),
            Call("GET", A + "/pods/?limit=-1"),
            Call("GET", A + "/domains/?limit=-1"),
            Call("GET", A + "/settings/"),
        ],
        """\
App: {app}
URL:
UUID: {:uuid}
Owner: {user}
Created: {:time}
Updated: {:time}
Processes:
 Name: {pod}
 Release: v3
 State: up
 Ptype: web
 Started: {:time}
Domains: <none>
Labels: <none>
""",
        shows=prints.app,
    ),
    Row(
        "ps logs {pod} -a {app}",
        [
            Call(
                "WS",
                A + "/pods/{pod}/logs/",
                {"lines": 300, "follow": False, "container": "", "previous": False},
                101,
            )
        ],
        "web is listening\n",
        shows=prints.messages,
    ),
    Row(
        "apps logs -a {app} -n 50",
        [Call("WS", A + "/logs", {"lines": 50, "follow": False, "timeout": 300}, 101)],
        "{:lines}{:text}web is listening\n{:lines}",
        shows=prints.messages,
    ),
    Row(
        "releases list web -a {app}",
        [Call("GET", A + "/releases/?ptypes=web&limit=100")],
        "OWNER STATE VERSION CREATED SUMMARY\n{user} succeed v3 {:time} {user} deployed {sha7}\n",
        shows=prints.releases,
    ),
    Row(
        "releases list -a {app}",
        [Call("GET", A + "/releases/?limit=100")],
        """\
OWNER STATE VERSION CREATED SUMMARY
{user} succeed v3 {:time} {user} deployed {sha7}
{user} created v2 {:time} {user} added values GREETING
{user} created v1 {:time} {user} created initial release
""",
        shows=prints.releases,
    ),
    Row(
        "releases info v3 -a {app}",
        [Call("GET", A + "/releases/v3/")],
        """\
App: {app}
UUID: {:uuid}
State: succeed
Owner: {user}
Build: {:uuid}
Config: {:uuid}
Created: {:time}
Updated: {:time}
Summary: {user} deployed {sha7}
Version: v3
Conditions:
 - created: {:time}
 state: succeed
 action: pipeline
 ptypes: web
 exception: <none>
""",
        shows=prints.release,
    ),
]

ITS_CONFIG: Sequence[Step] = [
    Row(
        "config set GREETING=bye COLOUR=blue -a {app} --confirm yes",
        config(
            {"group": "global", "name": "GREETING", "value": "bye"},
            {"group": "global", "name": "COLOUR", "value": "blue"},
        ),
        "Creating config... done\n\n",
    ),
    Settled(4, web=1),
    Row(
        "config set PASSWORD=s3cret -g db -a {app} --confirm yes",
        config({"group": "db", "name": "PASSWORD", "value": "s3cret"}),
        "Creating config... done\n\n",
    ),
    Settled(5, web=1, pods_of=4),
    Row(
        "config attach web db -a {app}",
        [Call("POST", A + "/config/", {"values_refs": {"web": ["db"]}}, 201)],
        "Attach config... done\n\n",
    ),
    Settled(6, web=1),
    Row(
        "config set MODE=fast -p web -a {app} --confirm yes",
        config({"ptype": "web", "name": "MODE", "value": "fast"}),
        "Creating config... done\n\n",
    ),
    Settled(7, web=1),
    Row(
        "config unset COLOUR -a {app} --confirm yes",
        config({"group": "global", "name": "COLOUR", "value": None}),
        "Removing config... done\n\n",
    ),
    Settled(8, web=1),
    Row(
        "config unset COLOUR -a {app} --confirm yes",
        config({"group": "global", "name": "COLOUR", "value": None}, status=409),
        "Removing config... ",
        'Unknown Error (409): {{"detail":"{user} changed nothing - release stopped"}}',
    ),
    Row(
        "config info -a {app}",
        [Call("GET", A + "/config/")],
        """\
---
# Group: db
PASSWORD=s3cret

---
# Group: global
GREETING=bye

---
# Ptype web config
## env
MODE=fast

## ref
- db
- global

""",
        shows=prints.config,
    ),
    Row(
        "config info -a {app} -p web",
        [Call("GET", A + "/config/")],
        "---\n# Ptype web config\n## env\nMODE=fast\n\n## ref\n- db\n- global\n\n",
        shows=partial(prints.config, ptype="web"),
    ),
    Row(
        "config info -a {app} -g global -v 4",
        [Call("GET", A + "/config/?version=v4")],
        "---\n# Group: global\nCOLOUR=blue\nGREETING=bye\n\n",
        shows=partial(prints.config, group="global"),
    ),
    Row("config pull -a {app}", [Call("GET", A + "/config/")], "GREETING=bye\n", shows=prints.variables),
    Row(
        "config pull -a {app} -p web",
        [Call("GET", A + "/config/")],
        "MODE=fast\n",
        shows=partial(prints.variables, ptype="web"),
    ),
]

ITS_PODS: Sequence[Step] = [
    Row(
        "pts scale web=2 -a {app}",
        [Call("POST", A + "/ptypes/scale/", {"web": 2}, 204)],
        DONE_SOON.format(doing="Scaling"),
    ),
    Settled(8, web=2),
    Row(
        "ps list -a {app}",
        [Call("GET", A + "/pods/?limit=1000")],
        """\
NAME RELEASE STATE PTYPE READY RESTARTS STARTED
{:name} v8 up web 1/1 0 {:time}
{:name} v8 up web 1/1 0 {:time}
""",
        shows=prints.pods,
    ),
    Row(
        "pts list -a {app}",
        [Call("GET", A + "/ptypes/?limit=1000")],
        """\
NAME RELEASE READY UP-TO-DATE AVAILABLE STARTED GARBAGE
web v8 2/2 2 2 {:time} false
""",
        shows=prints.ptypes,
    ),
    Row(
        "pts restart web -a {app} --confirm yes",
        [Call("POST", A + "/ptypes/restart/", {"ptypes": "web"}, 204)],
        DONE_SOON.format(doing="Restarting"),
    ),
    Settled(8, web=2, is_fresh=True),
    Row(
        "pts restart nosuch -a {app}",
        [Call("POST", A + "/ptypes/restart/", {"ptypes": "nosuch"}, 400)],
        "Restarting process types... but first, coffee!\n",
        'Unknown Error (400): {{"detail":"process type nosuch is not included in procfile"}}',
    ),
    Row(
        "releases deploy web -a {app} -f",
        [Call("POST", A + "/releases/deploy/", {"ptypes": "web", "force": True}, 204)],
        DONE_SOON.format(doing="Deploying"),
    ),
    Settled(8, web=2, deployed=2),
    Row(
        "releases deploy nosuch -a {app}",
        [Call("POST", A + "/releases/deploy/", {"ptypes": "nosuch", "force": False}, 400)],
        "Deploying process types... but first, coffee!\n",
        'Unknown Error (400): {{"detail":"process type nosuch is not exists"}}',
    ),
    Row(
        "releases rollback web 3 -a {app}",
        [Call("POST", A + "/releases/rollback/", {"version": 3, "ptypes": "web"}, 201)],
        "Rolling back to v3... done, v9\n",
        shows=partial(prints.rolled_back, to=3),
    ),
    Settled(9, web=2),
    Row("config pull -a {app}", [Call("GET", A + "/config/")], "GREETING=hello\n", shows=prints.variables),
    Row(
        "releases list -a {app}",
        [Call("GET", A + "/releases/?limit=100")],
        """\
OWNER STATE VERSION CREATED SUMMARY
{user} succeed v9 {:time} {user} rolled back to v3
{user} succeed v8 {:time} {user} deleted values COLOUR
{user} succeed v7 {:time} {user} added values MODE
{user} succeed v6 {:time} {user} added values_refs web
{user} succeed v5 {:time} {user} added values PASSWORD
{user} succeed v4 {:time} {user} added values COLOUR, changed values GREETING
{user} succeed v3 {:time} {user} deployed {sha7}
{user} created v2 {:time} {user} added values GREETING
{user} created v1 {:time} {user} created initial release
""",
        shows=prints.releases,
    ),
]

THE_END = [
    Row(
        "apps destroy --confirm {app}",
        [Call("DELETE", A + "/", status=204)],
        "Destroying {app}...\ndone in {:seconds}s\nGit remotes for app {app} removed.\n",
        remotes={},
    ),
    Row(
        "apps info -a {app}",
        [Call("GET", A + "/", status=404)],
        error='"No App matches the given query."',
    ),
    Row(
        "keys remove {key_name}",
        [Call("DELETE", "/v2/keys/{key_name}", status=204)],
        "Removing {key_name} SSH Key... done\n",
    ),
    Row(
        "keys remove {key_name}",
        [Call("DELETE", "/v2/keys/{key_name}", status=404)],
        "Removing {key_name} SSH Key...\n",
        '"No Key matches the given query."',
    ),
    Row(
        "tokens remove {token_id} --confirm yes",
        [Call("DELETE", "/v2/tokens/{token_id}/", status=204)],
        "done\n",
    ),
    Row(
        "whoami -a",
        [Call("GET", "/v2/auth/whoami/", status=401)],
        error="Unauthorized: Missing or Invalid Token",
    ),
    Row("auth logout", prints="Logged out\n"),
    Row("auth whoami", error=NOT_LOGGED_IN),
]

STORY: Sequence[Step] = [
    *SIGNING_IN,
    *TOKENS_AND_KEYS,
    *A_NEW_APP,
    *GIT_REMOTES,
    *BEFORE_THE_PUSH,
    *A_PUSHED_APP,
    *ITS_CONFIG,
    *ITS_PODS,
    *THE_END,
]
