"""Which SSH keys are taken."""

import subprocess
from base64 import b64encode
from pathlib import Path

import pytest

from drycc.core import keys
from drycc.errors import Invalid


def make_key(file: Path, *options: str) -> str:
    argv = ["ssh-keygen", "-q", "-N", "", "-C", "me", "-f", str(file), *options]
    subprocess.run(argv, check=True, timeout=60)
    return file.with_suffix(".pub").read_text()


@pytest.mark.parametrize(
    "options",
    [
        ("-t", "ed25519"),
        ("-t", "rsa", "-b", "2048"),
        ("-t", "ecdsa", "-b", "256"),
        ("-t", "ecdsa", "-b", "521"),
    ],
)
def test_every_current_type_has_the_fingerprint_of_ssh_keygen(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    key = keys.parse(make_key(tmp_path / "key", *options))
    argv = ["ssh-keygen", "-l", "-f", str(tmp_path / "key.pub")]
    shown = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    assert key.sha256 == shown.split()[1]


def test_a_hardware_key_is_taken() -> None:
    def field(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    kind = b"sk-ssh-ed25519@openssh.com"
    blob = b64encode(field(kind) + field(b"\x07" * 32) + field(b"ssh:")).decode()
    assert keys.parse(f"{kind.decode()} {blob} me").sha256.startswith("SHA256:")


def test_short_rsa_and_dsa_keys_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="needs 2048 bits, this one has 1024; make one with `ssh-keygen"):
        keys.parse(make_key(tmp_path / "short", "-t", "rsa", "-b", "1024"))
    with pytest.raises(Invalid, match="DSA keys are no longer safe"):
        keys.parse("ssh-dss AAAAB3NzaC1kc3M= me")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", keys.BAD_BASE64),
        ("hello", keys.BAD_BASE64),
        ("ssh-ed25519 AAAA", "no complete ssh-ed25519 key"),
        ("ssh-foo AAAA", "ssh-foo is no supported type"),
        ("ssh-rsa-cert-v01@openssh.com AAAA", "no supported type"),
        ("ssh-ed25519 " + "A" * 20_000, "one key on one line"),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
            "one key on one line",
        ),
    ],
)
def test_what_is_no_key_says_why(text: str, why: str) -> None:
    with pytest.raises(Invalid, match=why) as refused:
        keys.parse(text)
    assert refused.value.field == "public"


def test_a_blob_of_another_type_is_refused(tmp_path: Path) -> None:
    _, blob, _ = make_key(tmp_path / "key", "-t", "ed25519").split()
    with pytest.raises(Invalid, match="no complete ssh-rsa key"):
        keys.parse(f"ssh-rsa {blob} me")
