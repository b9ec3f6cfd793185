"""SSH keys."""

from typing import Annotated

from pydantic import Field

from drycc.api.schemas.base import Answer, Body, Text


class KeyBody(Body):
    id: Annotated[Text, Field(max_length=128)]
    public: Text


class Key(Answer):
    uuid: str
    id: str
    owner: str
    public: str
    fingerprint: str
    created: str
    updated: str
