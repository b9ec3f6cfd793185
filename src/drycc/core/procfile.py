"""The Procfile: one `type: command` a line, read by the same parser at check, build and run."""

import re

from drycc.errors import Invalid

PATTERN = r"^[a-z0-9]+(\-[a-z0-9]+)*$"
SHORTEST, LONGEST = 3, 63
ONE_OFF = "run"  # may stand in a Procfile, and is never scaled
FORM = 'expected "<type>: <command>", as in "web: python3 app.py"'
MOST_FAULTS = 20  # named in one refusal

_name = re.compile(PATTERN)
_control = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def parse(text: str | bytes) -> dict[str, str]:
    """Process type → command, in the file's order.

    Raises `Invalid` whose text has one line for each bad line of the file: `Procfile:<line>: …`.
    """
    found: dict[str, str] = {}
    faults: list[str] = []
    for number, line in _lines(_decode(text)):
        try:
            ptype, command = _split(line)
            if ptype in found:
                raise Invalid(f"process type {ptype} stands here a second time; keep one of the lines")
            found[ptype] = command
        except Invalid as fault:
            faults.append(f"Procfile:{number}: {fault}")
    if not found and not faults:
        faults = [f"Procfile: it names no process type; {FORM}"]
    if faults:
        raise Invalid("\n".join(_shorten(faults)), field="procfile")
    return found


def check_ptype(ptype: str) -> None:
    """Raises `Invalid` with the contract's text, and a name that would do where one is near."""
    if not SHORTEST <= len(ptype) <= LONGEST:
        raise Invalid(f"The length of ptype must be between {SHORTEST} and {LONGEST}: {ptype[:LONGEST]!r}")
    if not _name.fullmatch(ptype):
        raise Invalid(f"Process types can only supports: {PATTERN}{_hint(ptype)}")


def _decode(text: str | bytes) -> str:
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        raise Invalid(f"Procfile:{line}: this is not UTF-8; save the file as UTF-8") from None


def _lines(text: str) -> list[tuple[int, str]]:
    """Lines that say something, with their numbers."""
    numbered = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    return [(number, line) for number, line in numbered if line and not line.startswith("#")]


def _split(line: str) -> tuple[str, str]:
    ptype, colon, command = line.partition(":")
    if not colon:
        raise Invalid(FORM)
    if re.search(r"\s", ptype):
        raise Invalid(f"{ptype[:LONGEST]!r} has a blank in it and is no process type; {FORM}")
    check_ptype(ptype)
    command = command.strip()
    if not command:
        raise Invalid(f"Command can't be empty for process type {ptype}")
    if _control.search(command):
        raise Invalid(f"the command of {ptype} has a control character in it; remove it")
    return ptype, command


def _hint(ptype: str) -> str:
    near = re.sub(r"[^a-z0-9]+", "-", ptype.lower()).strip("-")
    is_near = near != ptype and SHORTEST <= len(near) <= LONGEST
    return f"; write {near!r} instead of {ptype!r}" if is_near else ""


def _shorten(faults: list[str]) -> list[str]:
    rest = len(faults) - MOST_FAULTS
    return [*faults[:MOST_FAULTS], f"Procfile: and {rest} more"] if rest > 0 else faults
