"""Child processes that do not outlive us."""

from __future__ import annotations

import os
import signal
import sys

_TIE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[2]))
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""PR_SET_PDEATHSIG, then exec. A script instead of `preexec_fn`, which is unsafe in a program with threads."""


def tied(command: list[str], when_we_die: signal.Signals) -> list[str]:
    """The command line that runs `command` (an absolute path and its arguments) so that the kernel sends it a signal
    when the thread that started it ends."""
    return [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), str(int(when_we_die)), *command]
