"""A SIGTERM, to the process of the tests, which it ends as it ends a command, by an exception; and to a command."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest


class Terminated(BaseException):
    pass


@contextmanager
def terminated():
    """Expect that what runs within is ended by a SIGTERM."""

    def end(number, frame):
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(Terminated):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def sigterm():
    """Send it: the handler runs before this returns."""
    os.kill(os.getpid(), signal.SIGTERM)


MAIN = "from rectilinear.cli.main import main; main()"


def in_forward(call, number, where="True"):
    """Return code after which a process sends itself a signal in its forward pass of that count, if `where` holds."""
    return f"""
import os, signal
from rectilinear.ops import passes
forward, calls = passes.forward, []
def interrupted(*arguments):
    calls.append(1)
    if {where} and len(calls) == {call}:
        os.kill(os.getpid(), signal.{number})
    forward(*arguments)
passes.forward = interrupted
"""


def preempted(*arguments):
    """Return a command that was sent a SIGTERM in its fourth forward pass, in a process of its own."""
    command = [sys.executable, "-c", in_forward(4, "SIGTERM") + MAIN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
