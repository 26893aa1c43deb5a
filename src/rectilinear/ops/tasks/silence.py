"""Keep the harness silent where rectilinear speaks."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from rectilinear.models.quiet import quiet

LOGGERS = ("lm_eval", "datasets", "evaluate", "huggingface_hub")
ALONE = "DISABLE_MULTIPROC"  # asks the harness to bootstrap in this process: copies of one that holds a model are dear


@contextmanager
def silence() -> Iterator[None]:
    """Silence the harness and its libraries: logs, bars, warnings, and what it prints to standard output."""
    before = os.environ.get(ALONE)
    os.environ[ALONE] = "1"
    try:
        with quiet(), _mute(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        del os.environ[ALONE]
        if before is not None:
            os.environ[ALONE] = before


@contextmanager
def _mute() -> Iterator[None]:
    """Mute the loggers; within `quiet`, which sets the Hub's to errors."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
