"""How a pod's leader is started: in the pod's tree, and as the parent of all orphans below it.

Two things are out of a shell's reach and survive `exec`, so another program does them first. Where perl is,
it takes 3 ms instead of Python's 15.
"""

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from drycc.backends.cluster.local.directory import PodDirectory

SHELL = "/bin/sh"
PERL = "/usr/bin/perl"
PRCTL = {"x86_64": 157, "aarch64": 167, "riscv64": 167}  # the number of the system call, by machine
BECOME = "syscall(%d,36,1,0,0,0);chdir(shift)||exit 126;exec{$ARGV[0]}@ARGV;exit 126"
PYTHON = (sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")))


def lead(
    directory: PodDirectory, tree: Path | None, argv: Sequence[str], env: Mapping[str, str]
) -> list[str]:
    """The command line that runs `argv` below a leader, in a copy of `tree` or in an empty directory."""
    script = str(Path(__file__).with_name("leader.sh"))
    leader = (SHELL, script, str(directory.path), str(tree or ""))
    return [*_choose_launcher(env), str(directory.root), *leader, *argv]


def _choose_launcher(env: Mapping[str, str]) -> Sequence[str]:
    """Perl, unless the app has variables that are perl's own, such as PERL5OPT."""
    number = PRCTL.get(platform.machine())
    if number is None or not os.access(PERL, os.X_OK) or any(name.startswith("PERL") for name in env):
        return PYTHON
    return PERL, "-e", BECOME % number
