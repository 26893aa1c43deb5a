import asyncio

import pytest

from rectilinear.app.guard import POLICY, Guard


async def page(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"here"})


def asked(path, host="127.0.0.1:7860", local=True, kind="http", **headers):
    """Return the status and the headers of the answer."""
    sent = []

    async def send(message):
        sent.append(message)

    named = [(b"host", host.encode()), *((name.encode(), value.encode()) for name, value in headers.items())]
    asyncio.run(Guard(page, local)({"type": kind, "path": path, "headers": named}, None, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize(
    "path", ["/", "/config", "/assets/index.js", "/gradio_api/queue/join", "/gradio_api/heartbeat/x"]
)
def test_the_page_and_its_questions_are_answered(path):
    status, headers = asked(path)
    assert status == 200 and headers["content-security-policy"] == POLICY and headers["a"] == "b"
    assert "http" not in POLICY  # nothing from elsewhere


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/upload",
        "/gradio_api/proxy=http://example.org",
        "/gradio_api/call/ask",
        "/gradio_api/run/ask",
        "/gradio_api/info",
        "/gradio_api/queue/join/../../file=/etc/passwd",
        "/assets/../../../../etc/passwd",
        "/monitoring",
        "/login",
        "",
    ],
)
def test_files_uploads_and_all_else_are_refused(path):
    assert asked(path)[0] == 404


def test_what_another_site_asks_for_is_refused():
    assert asked("/", origin="http://127.0.0.1:7860")[0] == 200
    assert asked("/", host="localhost:7860")[0] == asked("/", host="[::1]:7860")[0] == 200
    for origin in ("https://example.org", "http://127.0.0.1:9999", "null"):
        assert asked("/gradio_api/queue/join", origin=origin)[0] == 403
    assert asked("/", host="example.org")[0] == 403  # a name that leads here
    assert asked("/", host="some.gradio.live", local=False)[0] == 200
    assert asked("/", host="some.gradio.live", local=False, origin="https://example.org")[0] == 403
    assert asked("/", kind="websocket")[0] == 404
