"""How much memory some work may take."""

import os
import re
import resource
from contextlib import contextmanager
from pathlib import Path

MOST = 200 << 20  # bytes of memory for one file
BEYOND = 2 << 30  # where a reader is stopped before it takes the machine's
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def in_use(name):
    return int(re.search(rf"{name}:\s+(\d+)", STATUS.read_text())[1]) << 10


@contextmanager
def bounded():
    """Raise AssertionError where what is done within takes more memory than `MOST`; only where Linux tells."""
    if not os.access(CLEAR, os.W_OK):
        yield
        return
    CLEAR.write_text("5")  # the most so far is what is in use now
    before, limits = in_use("VmRSS"), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (in_use("VmSize") + BEYOND, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    taken = in_use("VmHWM") - before
    assert taken < MOST, f"{taken >> 20} MiB taken"
