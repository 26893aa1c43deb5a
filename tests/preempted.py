"""A SIGTERM to the process of the tests, which ends what runs under it as it ends a command: by an exception."""

import os
import signal
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
