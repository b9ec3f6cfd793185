"""The keyring's file, whole or absent, and what is masked in a line."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from drycc.core.secrets import Keyring, mask
from drycc.errors import Conflict

PEM = "-----BEGIN KEY-----\r\nMIIEvQIBADANBgkq\r\n  hkiG9w0BAQEFAASC\r\nabc=\r\n-----END KEY-----\r\n"
DYING = """
import os, sys
from pathlib import Path
from drycc.core.secrets import Keyring
os.{function} = lambda *_: os._exit(137)
Keyring.create(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("function", ["fsync", "link"])
def test_dying_while_the_keyring_is_written_leaves_none(tmp_path: Path, function: str) -> None:
    path = tmp_path / "keyring"
    done = subprocess.run([sys.executable, "-c", DYING.format(function=function), path])
    assert (done.returncode, path.exists()) == (137, False)
    made = Keyring.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    wrapped = made.new_data_key(uuid4())
    assert Keyring.load(path).has(wrapped)
    with pytest.raises(FileExistsError):
        Keyring.create(path)
    assert Keyring.load(path).has(wrapped)


BROKEN = [
    b"",
    b"{",
    b"[]",
    b"\xff\xfe",
    b'{"keys": {}}',
    b'{"keys": [], "newest": "a", "digest": ""}',
    b'{"keys": {"a": 1}, "newest": "a", "digest": ""}',
    b'{"keys": {"a": "%%"}, "newest": "a", "digest": ""}',
    b'{"keys": {}, "newest": "a", "digest": ""}',
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_keyring_is_named_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keyring"
    path.write_bytes(content)
    with pytest.raises(Conflict, match=f"{path}.* put back the one that was there"):
        Keyring.load(path)
    assert path.read_bytes() == content


def test_a_keyring_that_cannot_be_read_is_named_too(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "keyring")
    with pytest.raises(Conflict, match=f"{tmp_path}/keyring cannot be read: Is a directory"):
        Keyring.load(tmp_path / "keyring")


@pytest.mark.parametrize(
    ("line", "values", "shown"),
    [
        ("key=secret-1 secret-1", ["secret-1"], "key=[masked] [masked]"),
        ("key=secret-12345", ["secret", "secret-12345"], "key=[masked]"),
        ("key=secret-12345", ["secret-12345", "secret"], "key=[masked]"),
        ("x secret-123-tail y", ["secret-123", "123-tail"], "x [masked] y"),
        ("x ababababab y", ["abababab"], "x [masked] y"),
        ("hkiG9w0BAQEFAASC", [PEM], "[masked]"),
        ("  MIIEvQIBADANBgkq|", [PEM], "  [masked]|"),
        ("token", [" token-of-ours \n"], "token"),
        ("token-of-ours", [" token-of-ours \n"], "[masked]"),
        ("true 12345", ["true", "12345", ""], "true 12345"),
        ("a\u2028b of ours", ["a\u2028b of"], "[masked] ours"),
        ("at postgres://ann:pw@host/x", [], "at postgres://[masked]@host/x"),
    ],
)
def test_values_are_masked(line: str, values: list[str], shown: str) -> None:
    assert mask(line, values) == shown
