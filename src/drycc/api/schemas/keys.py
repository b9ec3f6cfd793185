"""SSH keys."""

from typing import Annotated

from pydantic import StringConstraints

from drycc.api.schemas.base import CHECKED, Answer, Body, Text


class KeyBody(Body):
    id: Annotated[str, StringConstraints(strip_whitespace=True, max_length=128), CHECKED]
    public: Text


class Key(Answer):
    uuid: str
    id: str
    owner: str
    public: str
    fingerprint: str
    created: str
    updated: str
