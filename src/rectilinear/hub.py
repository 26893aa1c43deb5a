"""The Hub answers in time or counts as away: its own client waits for ever."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.request import getproxies

PATIENCE = 20.0  # seconds without a byte, where the environment (HF_HUB_DOWNLOAD_TIMEOUT) grants no more
WAITS = ("connect", "read", "write", "pool")
PAUSE = 40  # seconds between two tries, however long the Hub asks for: its client tries six times, so 200 in all
_FOUND: set[str] = set()  # hosts whose names were looked up
_SAID: set[str] = set()  # hosts that asked to wait, and were told of


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
    """Give every request of huggingface_hub in this process a limit, and every wait that the Hub asks for.

    Some requests have none, others a minute for each try; a wait is as long as the Hub says, a day too.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http  # the factory that is set has no public name

    made = _http._GLOBAL_CLIENT_FACTORY

    def client() -> Any:
        found = made()
        found.event_hooks["request"].append(_limit)  # not the client's own limit: some calls say None, and mean it
        found.event_hooks["response"].append(_shorten)
        return found

    set_client_factory(client)


def fault(error: BaseException) -> BaseException | None:
    """Return what kept the Hub from giving what it has, as its client raised it beneath `error`; None for nothing.

    Other libraries raise an error of their own over it, which may say that there is no such file.
    """
    from huggingface_hub.errors import HfHubHTTPError

    beneath: BaseException | None = error
    while beneath is not None:
        if isinstance(beneath, HfHubHTTPError):
            status = beneath.response.status_code
            if status in (408, 429) or status >= 500:
                return beneath
        if any(kind.__name__ == "TransportError" for kind in type(beneath).__mro__):  # of httpx or its successor
            return beneath
        beneath = beneath.__cause__ or beneath.__context__
    return None


def _limit(request: Any) -> None:
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT

    _look_up(request.url.host)
    most = max(PATIENCE, HF_HUB_DOWNLOAD_TIMEOUT)
    asked = request.extensions.get("timeout") or {}
    limits = {name: min(asked.get(name) or most, most) for name in WAITS}
    request.extensions = {**request.extensions, "timeout": limits}


def _shorten(response: Any) -> None:
    """Tell once of the wait that the Hub asks for, and let its client, which heeds it, wait no longer than PAUSE."""
    asked = _asked(response)
    if not asked:
        return
    host = response.request.url.host
    if host not in _SAID:
        _SAID.add(host)
        sys.stderr.write(
            f"The Hub ({host}) asks to wait {asked:,} seconds: it is asked again after {min(asked, PAUSE)}, and given "
            "up after six tries.\n"
        )
    if asked > PAUSE:
        for name in ("ratelimit", "retry-after"):
            response.headers.pop(name, None)
        response.headers["retry-after"] = str(PAUSE)


def _asked(response: Any) -> int:
    """Return the seconds that the client would wait for because the Hub asks for them; 0 where it does not ask."""
    from huggingface_hub.utils import parse_ratelimit_headers

    if response.status_code < 400:
        return 0  # each response tells the limits
    limits = parse_ratelimit_headers(response.headers) if response.status_code == 429 else None
    if limits is not None and limits.remaining == 0:
        return limits.reset_in_seconds
    later = response.headers.get("retry-after", "").strip()
    return int(later) if later.isdecimal() else 0


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
