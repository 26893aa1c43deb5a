"""A SIGTERM that waits until what was done is kept: a node that is taken back leaves a job some seconds."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Leaving:
    """Whether this process was asked to end by a SIGTERM, which is put off until it is at a place to go on from."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Let a SIGTERM within do no more than ask. A second one ends at once, and so does the end of this."""
        here = threading.current_thread() is threading.main_thread()  # which alone hears signals
        before = signal.getsignal(signal.SIGTERM)
        if not here or before in (signal.SIG_IGN, None):
            yield
            return

        def ask(number: int, _frame: object) -> None:
            self.asked = True
            signal.signal(number, before)

        signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
        if self.asked:
            self.go()

    def go(self) -> None:
        """End as the SIGTERM would have ended the process."""
        self.asked = False
        signal.raise_signal(signal.SIGTERM)
