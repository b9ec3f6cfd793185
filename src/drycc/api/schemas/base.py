"""Pieces of all schemas: text as clients may send it, the list's envelope, documented errors."""

from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints
from pydantic_core import PydanticCustomError

T = TypeVar("T")


def _check_text(text: str) -> str:
    if not text:
        raise PydanticCustomError("blank", "This field may not be blank.")
    if "\0" in text:
        raise PydanticCustomError("null_characters", "Null characters are not allowed.")
    return text


CHECKED = AfterValidator(_check_text)
RawText = Annotated[str, CHECKED]
Text = Annotated[str, StringConstraints(strip_whitespace=True), CHECKED]


class Body(BaseModel):
    """A request's body: unknown keys are ignored."""


class Answer(BaseModel):
    """An answer's object: exactly these keys."""

    model_config = ConfigDict(extra="forbid")


class Listing(Answer, Generic[T]):
    count: int
    next: str | None
    previous: str | None
    results: list[T]


class ShortListing(Answer, Generic[T]):
    results: list[T]
    count: int


class Detail(Answer):
    detail: str


Responses = dict[int | str, dict[str, Any]]

ERRORS: Responses = {
    400: {"description": "The input breaks a rule: texts by field, or a `detail`"},
    401: {"description": "No token, or none that holds", "model": Detail},
}
APP_ERRORS: Responses = ERRORS | {
    403: {"description": "No permission on the app", "model": Detail},
    404: {"description": "There is no such thing; a JSON string", "model": str},
}


def answers(model: Any, status: int = 200) -> Responses:
    """How a route answers when all is well."""
    return {status: {"model": model}} if model else {status: {"description": "Done; no body"}}
