"""The platform's own errors.

Three doors translate them, once each: `kit/http.py` into status and body, `build/ssh.py` into
lines for the pusher, `worker` into retry or give up.
"""

from typing import ClassVar


class DryccError(Exception):
    """An expected failure; its text is a sentence for the user."""

    code: ClassVar[str] = "error"


class NotFound(DryccError):
    """The named thing does not exist, or the asker may not know that it does."""

    code = "not_found"


class Conflict(DryccError):
    """The thing exists already, is unchanged, or is busy."""

    code = "conflict"


class Invalid(DryccError):
    """The input breaks a rule.

    `field` names the offending input where there is one; the API answers `{field: [text]}` with
    it, else `{"detail": text}`; `more` are further texts for the same field.
    """

    code = "invalid"

    def __init__(self, text: str, *more: str, field: str | None = None) -> None:
        super().__init__(text)
        self.field = field
        self.texts = (text, *more)


class Unprocessable(DryccError):
    """The input is well formed and cannot be carried out: the unset of something absent."""

    code = "unprocessable"


class Forbidden(DryccError):
    """The asker is known and may not do this."""

    code = "forbidden"


class Unauthenticated(DryccError):
    """No credentials, or none that hold; `scheme` is what the asker used."""

    code = "unauthenticated"

    def __init__(self, text: str, *, scheme: str = "token") -> None:
        super().__init__(text)
        self.scheme = scheme


class Unavailable(DryccError):
    """Something that we stand on does not answer; the same call may be repeated."""

    code = "unavailable"


class NoSpace(Unavailable):
    """A disk is full; the same call works when there is space again."""

    code = "no_space"


class Throttled(DryccError):
    """Too many attempts; the asker may come back in `seconds`."""

    code = "throttled"

    def __init__(self, text: str, *, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


class PushRejected(DryccError):
    """A push that is refused after its data came in; git shows it as `remote rejected`."""

    code = "push_rejected"


class BuildFailed(DryccError):
    """A build that ended without an image."""

    code = "build_failed"
