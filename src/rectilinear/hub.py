"""The Hub answers in time or counts as away: its own client waits for ever."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.request import getproxies

PATIENCE = 20.0  # seconds without a byte, where the environment (HF_HUB_DOWNLOAD_TIMEOUT) grants no more
WAITS = ("connect", "read", "write", "pool")
_FOUND: set[str] = set()  # hosts whose names were looked up


@contextmanager
def quiet_client() -> Iterator[None]:
    """Let the Hub's client not tell of its tries within: what comes of them is told in one line."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@cache
def limit_patience() -> None:
    """Give every request of huggingface_hub in this process a limit: some have none, others a minute for each try."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http  # the factory that is set has no public name

    made = _http._GLOBAL_CLIENT_FACTORY

    def client() -> Any:
        found = made()
        found.event_hooks["request"].append(_limit)  # not the client's own limit: some calls say None, and mean it
        return found

    set_client_factory(client)


def _limit(request: Any) -> None:
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT

    _look_up(request.url.host)
    most = max(PATIENCE, HF_HUB_DOWNLOAD_TIMEOUT)
    asked = request.extensions.get("timeout") or {}
    limits = {name: min(asked.get(name) or most, most) for name in WAITS}
    request.extensions = {**request.extensions, "timeout": limits}


def _look_up(host: str) -> None:
    """Raise what is not tried again where no such host is known: half a minute of tries would be in vain."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if host in _FOUND or getproxies():  # a proxy knows more names
        return
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise OfflineModeIsEnabled(f"{host} is not known here: {error}") from error
    _FOUND.add(host)
