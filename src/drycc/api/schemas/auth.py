"""Logins, tokens and users."""

from drycc.api.schemas.base import Answer, Body, RawText


class LoginBody(Body):
    username: RawText | None = None
    password: RawText | None = None


class LoginKey(Answer):
    key: str


class NewToken(Answer):
    uuid: str
    token: str
    username: str


class Token(Answer):
    uuid: str
    owner: str
    alias: str
    fuzzy_key: str
    created: str
    updated: str


class User(Answer):
    id: int
    email: str
    username: str
    first_name: str
    last_name: str
    is_superuser: bool
    is_staff: bool
    groups: list[str]
    user_permissions: list[str]
    last_login: str | None
    date_joined: str
    is_active: bool
