"""Keep the libraries below silent where rectilinear speaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rectilinear.hub import quiet_client


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers, the Hub's client and tqdm while a model loads or is saved; settings are restored."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), are_progress_bars_disabled()
    had_bar = logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)  # what it logs as an error it raises too, and the log is not escaped
    logging.disable_progress_bar()
    disable_progress_bars()
    try:
        with quiet_client(), _no_bars():
            yield
    finally:
        logging.set_verbosity(before)
        if had_bar:
            logging.enable_progress_bar()
        if not bars:
            enable_progress_bars()


@contextmanager
def _no_bars() -> Iterator[None]:
    """Switch off every bar of tqdm: some libraries take it as it is, past all settings."""
    from tqdm import tqdm  # the base of all its kinds

    before = tqdm.__init__

    def disabled(bar: Any, *arguments: Any, **options: Any) -> None:
        before(bar, *arguments, **{**options, "disable": True})

    tqdm.__init__ = disabled
    try:
        yield
    finally:
        tqdm.__init__ = before
