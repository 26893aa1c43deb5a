"""What may be asked of the server: the page and its questions, from this machine; no files, uploads or other sites."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HERE = frozenset({"127.0.0.1", "localhost", "::1"})
PAGES = frozenset({"/", "/config", "/theme.css", "/favicon.ico", "/robots.txt"})
QUESTIONS = frozenset(
    f"/gradio_api/{name}" for name in ("startup-events", "queue/join", "queue/data", "cancel", "reset")
)
BELOW = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/")
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # as Gradio's page needs it
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self' data:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """ASGI middleware: refuses what is not on the list, and what another site asks for in a reader's browser.

    Gradio's server can also hand out files and take uploads: none of that is on the list. local: the page is for this
    machine, so other host names are refused too: a site could give its own name this address.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], local: bool) -> None:
        self._app = app
        self._local = local

    async def __call__(self, scope: Scope, receive: Callable[..., Awaitable[Any]], send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is not None:
            await send(
                {"type": "http.response.start", "status": refused, "headers": [(b"content-type", b"text/plain")]}
            )
            await send({"type": "http.response.body", "body": b"refused"})
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        await self._app(scope, receive, guarded)

    def _refused(self, scope: Scope) -> int | None:
        """Return the status that a request is refused with, None where it is not."""
        if scope["type"] != "http" or not _listed(scope["path"]):
            return 404
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc != host
        if foreign or (self._local and urlsplit(f"//{host}").hostname not in HERE):
            return 403
        return None


def _listed(path: str) -> bool:
    return path in PAGES | QUESTIONS or (path.startswith(BELOW) and ".." not in path)
