"""What stands for a part of a path in routes: `{app:appid}`, `{name:word}`, `{number:digits}`."""

from typing import Final

from starlette.convertors import Convertor, register_url_convertor

APP_PATH: Final = "/v2/apps/{app:appid}"


class _AppId(Convertor[str]):
    regex = "[a-z0-9-]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Word(_AppId):
    regex = r"[-_\w]+"


class _Digits(_AppId):
    regex = "[0-9]+"  # kept as text: a number may be longer than Python reads


register_url_convertor("digits", _Digits())
register_url_convertor("appid", _AppId())
register_url_convertor("word", _Word())
