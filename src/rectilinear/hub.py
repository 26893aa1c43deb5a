"""The Hub answers in time or counts as away: its own client waits for ever."""

from __future__ import annotations

from functools import cache
from typing import Any

PATIENCE = 20.0  # seconds without a byte, where the environment (HF_HUB_DOWNLOAD_TIMEOUT) grants no more
WAITS = ("connect", "read", "write", "pool")


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

    most = max(PATIENCE, HF_HUB_DOWNLOAD_TIMEOUT)
    asked = request.extensions.get("timeout") or {}
    limits = {name: min(asked.get(name) or most, most) for name in WAITS}
    request.extensions = {**request.extensions, "timeout": limits}
