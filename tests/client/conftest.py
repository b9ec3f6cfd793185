"""Collects the official client's test only where an executable `drycc` is found (DRYCC_CLIENT, or PATH)."""

import os
import shutil

import pytest

PROGRAM = os.environ.get("DRYCC_CLIENT") or shutil.which("drycc")

collect_ignore = [] if PROGRAM else ["test_official.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not PROGRAM:
        terminalreporter.write_line("no official client (DRYCC_CLIENT, PATH): the twin alone stands for it")


@pytest.fixture
def program() -> str:
    assert PROGRAM is not None
    return PROGRAM
