"""SSH keys through the API."""

import subprocess
from pathlib import Path
from urllib.parse import quote

from drycc.api.schemas.base import Listing
from drycc.api.schemas.keys import Key
from drycc.core import keys
from tests.api.conftest import Api


def make_key(directory: Path, name: str = "key", *options: str) -> str:
    options = options or ("-t", "ed25519")
    file = directory / name
    subprocess.run(
        ["ssh-keygen", "-q", "-N", "", "-C", "me@laptop", "-f", str(file), *options], check=True, timeout=60
    )
    return file.with_suffix(".pub").read_text()


def fingerprint(directory: Path, kind: str) -> str:
    argv = ["ssh-keygen", "-l", "-E", kind, "-f", str(directory / "key.pub")]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    return str(done.stdout.split()[1])


async def test_nm10_a_key_is_trimmed_and_shown_as_ssh_keygen_does(
    api: Api, alice: str, tmp_path: Path
) -> None:
    public = make_key(tmp_path)
    padded = f"  \t{public.strip()}\r\n"
    answer = await api.call(
        "POST", "/v2/keys/", {"id": " alice@laptop ", "public": padded, "name": "x"}, token=alice
    )
    assert answer.status == 201, answer
    key = Key.model_validate(answer.json())
    assert (key.id, key.owner, key.public) == ("alice@laptop", "alice", public.strip())
    assert f"MD5:{key.fingerprint}" == fingerprint(tmp_path, "md5")
    found = await keys.find_owner(api.db, fingerprint(tmp_path, "sha256"))
    assert found == api.users["alice"]
    assert await keys.find_owner(api.db, "SHA256:unknown") is None
    listed = Listing[Key].model_validate((await api.call("GET", "/v2/keys/", token=alice)).json())
    assert listed.results == [key]
    assert (await api.call("GET", "/v2/keys/alice@laptop", token=alice)).json() == answer.json()


async def test_nm10_a_key_belongs_to_one_id_and_one_user(
    api: Api, alice: str, bob: str, tmp_path: Path
) -> None:
    public = make_key(tmp_path)
    assert (await api.call("POST", "/v2/keys/", {"id": "a", "public": public}, token=alice)).status == 201
    kind, blob, _ = public.split()
    for token, id in ((alice, "b"), (bob, "b"), (bob, "a")):
        body = {"id": id, "public": f"{kind} {blob} another@comment"}
        answer = await api.call("POST", "/v2/keys/", body, token=token)
        assert (answer.status, answer.json()) == (400, {"public": ["Public Key is already in use"]})
    other = make_key(tmp_path, "other")
    answer = await api.call("POST", "/v2/keys/", {"id": "a", "public": other}, token=bob)
    assert (answer.status, answer.json()) == (400, {"id": ["SSH Key with this id already exists."]})
    assert (await api.call("GET", "/v2/keys/", token=bob)).json()["count"] == 0


ODD_IDS = ["me@laptop/home/id.pub", "a b.c@d", "schlüssel", "*.example.com", "x/y/", "100%", "a?b#c"]


async def test_nm08_an_id_may_hold_any_character(api: Api, alice: str, bob: str, tmp_path: Path) -> None:
    public = make_key(tmp_path)
    for id in ODD_IDS:
        for end in ("/",) if id.endswith("/") else ("", "/"):
            path = f"/v2/keys/{quote(id)}{end}"
            answer = await api.call("POST", "/v2/keys/", {"id": id, "public": public}, token=alice)
            assert answer.status == 201, answer
            assert (await api.call("DELETE", path, token=bob)).status == 404
            assert (await api.call("GET", path, token=alice)).json()["id"] == id
            assert (await api.call("DELETE", path, token=alice)).status == 204
            gone = await api.call("DELETE", path, token=alice)
            assert (gone.status, gone.json()) == (404, "No Key matches the given query.")


NO_KEYS: list[tuple[object, object]] = [
    ({}, {"id": ["This field is required."], "public": ["This field is required."]}),
    ({"id": "", "public": " "}, {key: ["This field may not be blank."] for key in ("id", "public")}),
    ({"id": None, "public": "x"}, {"id": ["This field may not be null."]}),
    ({"id": "a", "public": "ssh-rsa"}, {"public": [keys.BAD_BASE64]}),
    ({"id": "a", "public": "ssh-rsa !!!! me"}, {"public": [keys.BAD_BASE64]}),
    ({"id": "x" * 129, "public": "x"}, {"id": ["Ensure this field has no more than 128 characters."]}),
    ({"id": "a\0b", "public": "x"}, {"id": ["Null characters are not allowed."]}),
]


async def test_what_is_no_key(api: Api, alice: str) -> None:
    for body, answer in NO_KEYS:
        refused = await api.call("POST", "/v2/keys/", body, token=alice)
        assert (refused.status, refused.json()) == (400, answer), body


async def test_nm09_options_in_front_of_a_key_are_refused(api: Api, alice: str, tmp_path: Path) -> None:
    public = make_key(tmp_path)
    for options in ('no-pty,command="echo hi"', "restrict", 'from="10.0.0.1"', "cert-authority"):
        body = {"id": "a", "public": f"{options} {public}"}
        answer = await api.call("POST", "/v2/keys/", body, token=alice)
        assert answer.status == 400
        assert "Options" in answer.json()["public"][0]
    two = {"id": "a", "public": public + public}
    assert "one line" in (await api.call("POST", "/v2/keys/", two, token=alice)).json()["public"][0]
    assert (await api.call("GET", "/v2/keys/", token=alice)).json()["count"] == 0
