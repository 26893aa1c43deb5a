"""A SIGTERM that waits until what was done is kept: a node that is taken back leaves a job some seconds."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Seconds in which another SIGTERM is the same one told twice: Slurm signals every process of a step, and torchrun,
# which is one of them, passes its own on to its workers at once.
REPEATS = 10.0


class Leaving:
    """Whether this process was asked to end by a SIGTERM, which is put off until it is at a place to go on from."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None  # what hears a SIGTERM that is not put off

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Let a SIGTERM within do no more than ask.

        One that comes more than REPEATS seconds after the first ends at once, and so does the end of this.
        """
        here = threading.current_thread() is threading.main_thread()  # which alone hears signals
        before = signal.getsignal(signal.SIGTERM)
        if not here or before in (signal.SIG_IGN, None):
            yield
            return

        first = 0.0

        def ask(number: int, _frame: object) -> None:
            nonlocal first
            now = time.monotonic()
            if not self.asked:
                self.asked, first = True, now
            elif now - first > REPEATS:
                self.go()

        self._before = before
        signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGTERM) is ask:  # what ended this may have set another, deaf one
                signal.signal(signal.SIGTERM, before)
        if self.asked:
            self.go()

    def go(self) -> None:
        """End as the SIGTERM would have ended the process."""
        self.asked = False
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        signal.raise_signal(signal.SIGTERM)
