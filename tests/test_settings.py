"""The table of settings: what is refused, with which sentence, and what the rest becomes."""

import os
import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from drycc.backends.objects import find_directory
from drycc.errors import Invalid
from drycc.settings import OTHERS, find_strange, load

SECONDS = [
    *("DEPLOY_TIMEOUT", "RELEASE_TIMEOUT", "BUILD_TIMEOUT", "BACKOFF", "BACKOFF_CAP", "LEASE"),
    *("IDLE_TIMEOUT", "LOG_AGE"),
]
COUNTS = ["BUILDS", "PUSH_LIMIT", "TREE_LIMIT", "LOG_BYTES", "LOG_TOTAL"]
PAUSES = ["GRACE", "BACKUP_EVERY"]
SQLITE = "sqlite+aiosqlite:///"
REFUSED = [
    *[(name, value, "is not a number above 0") for name in SECONDS for value in ("0", "-1", "nan", "inf")],
    *[(name, "1e300", "is not a number above 0") for name in SECONDS],
    *[(name, "soon", "'soon' is not a number") for name in SECONDS],
    *[(name, value, "is not a number from 1 up") for name in COUNTS for value in ("0", "-3", "9" * 40)],
    *[(name, value, f"'{value}' is not a whole number") for name in COUNTS for value in ("1.9", "", "many")],
    *[(name, value, "is not a number from 0") for name in PAUSES for value in ("-1", "nan")],
    *[("BACKUP_KEEP", value, "is not a number from 0") for value in ("-1", "9" * 40)],
    *[("DOMAIN", value, "is not a domain name") for value in ("a b", ".", "", "a..b", "-a", "A.b", "a" * 64)],
    *[("EDGE_LISTEN", value, "is not a host:port") for value in ("", "8000", "host:x", "a b:1", "h:70000")],
    *[("PYTHON", value, "is not a program") for value in ("/nope", "/etc", "/etc/passwd")],
    *[("DATABASE_URL", value, "is not sqlite") for value in ("nonsense", "mysql://x", f"{SQLITE}x.db")],
    *[("OBJECTS_URL", value, "is not file:///absolute") for value in ("file://x", "file:x")],
    *[("BACKUP_KEEP", value, "is not a number from 0 up") for value in ("-3", "9" * 40)],
    ("LOG_FORMAT", "xml", "'xml' is not text or json"),
    ("DATA", "/a\nb", "has a character in it"),
    ("DATA", "/a\udcff", "has a character in it"),
]


@pytest.mark.parametrize(("name", "value", "text"), REFUSED)
def test_values_that_make_no_sense_are_refused(name: str, value: str, text: str) -> None:
    with pytest.raises(Invalid) as refused:
        load({f"DRYCC_{name}": value})
    assert str(refused.value).startswith(f"DRYCC_{name}: ")
    assert text in str(refused.value)


def test_a_secret_is_in_no_sentence() -> None:
    with pytest.raises(Invalid) as refused:
        load({"DRYCC_DATABASE_URL": "mysql://ann:hunter2@db/x"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"deploy_timeout = true", "deploy_timeout: True is not a number"),
        (b"builds = 1.9", "builds: 1.9 is not a whole number"),
        (b"builds = true", "builds: True is not a whole number"),
        (b"builds = 0", "builds: 0 is not a number from 1 up"),
        (b'builds = "2"', "builds: '2' is not a whole number"),
        (b"domain = 7", "domain: 7 is not a text"),
        (b"deploy_timeout = nan", "deploy_timeout: nan is not a number above 0"),
        (b"admin_password = 7", "admin_password: the value is not a text"),
        (b"[domain]\na = 1", "domain: {'a': 1} is not a text"),
        (b"deploy_timoeut = 1", "there is no setting 'deploy_timoeut', the nearest is deploy_timeout"),
        (b"xyzzy = 1", "there is no setting 'xyzzy'; `dryccd settings` lists them"),
        (b"builds = ", "is no TOML: "),
        (b"\xff\xfe\x00", "is no TOML: "),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, content: bytes, text: str) -> None:
    config = tmp_path / "drycc.toml"
    config.write_bytes(content)
    with pytest.raises(Invalid) as refused:
        load({}, config)
    assert str(refused.value).startswith(str(config))
    assert text in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for config, text in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file or directory")):
        with pytest.raises(Invalid, match=f"{config} cannot be read: {text}"):
            load({}, config)


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "drycc.toml"
    config.write_text('deploy_timeout = 5\ndomain = "apps.example"\nbuilds = 3\n')
    chosen = load({"DRYCC_BUILDS": "4", "DRYCC_PYTHON": sys.executable, "DRYCC_GRACE": "0"}, config)
    assert (chosen.deploy_timeout, chosen.domain, chosen.builds) == (5.0, "apps.example", 4)
    assert type(chosen.deploy_timeout) is float
    assert chosen.python == sys.executable


@pytest.mark.parametrize("name", ["plain", "a?b", "a#b", "100%25", "two words", "ünï"])
def test_urls_lead_into_the_data_directory_whatever_its_name(tmp_path: Path, name: str) -> None:
    chosen = load({"DRYCC_DATA": str(tmp_path / name)})
    url = make_url(chosen.database_url)
    assert (url.database, dict(url.query)) == (f"{tmp_path}/{name}/drycc.db", {})
    assert find_directory(chosen.objects_url) == tmp_path / name / "objects"


def test_paths_do_not_depend_on_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = load({"DRYCC_DATA": "data", "DRYCC_KEYRING": "keys", "DRYCC_RUN": "run"})
    assert (chosen.data, chosen.keyring) == (f"{tmp_path}/data", f"{tmp_path}/keys")
    assert chosen.run == f"{tmp_path}/run"


def test_a_variable_that_nobody_reads_is_told_with_the_nearest() -> None:
    names = [f"DRYCC_{name}" for name in (*OTHERS, "BUILDS", "DEPLOY_TIMOUT", "XYZZY")]
    assert find_strange(dict.fromkeys([*names, "PATH"], "x")) == [
        "there is no setting DRYCC_DEPLOY_TIMOUT, the nearest is DRYCC_DEPLOY_TIMEOUT",
        "there is no setting DRYCC_XYZZY; `dryccd settings` lists them",
    ]
    assert find_strange({name: value for name, value in os.environ.items() if "DRYCC" not in name}) == []
