"""Servers on loopback, for as long as a test needs one."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(handler):
    """Serve by a request handler, in silence; yield the base URL."""

    class Silent(handler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        server.handle_error = lambda *_: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def answering(status, body=b""):
    """Answer everything alike, or hang up where the status is None; yield the base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if status is None:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

    with serving(Handler) as url:
        yield url


COMMIT = "a" * 40
ASKS = {"ratelimit": {"RateLimit": '"api";r=0;t=86400'}, "retry-after": {"Retry-After": "86400"}}


class Hub(BaseHTTPRequestHandler):
    """Stands in for the Hub, with the files of one model under the names of what goes wrong.

    org/whole: nothing. org/429, org/503: that status for all. org/ratelimit, org/retry-after: a 429 that asks to wait a
    day. org/hang-up: no answer. org/drop, org/stall: the connection ends, or nothing comes, in the middle of weights.
    """

    files: dict[str, bytes]

    def do_GET(self):
        wrong, _, rest = self.path.partition("org/")[2].partition("/")
        if wrong in ("429", "503"):
            self.give(int(wrong))
        elif wrong in ASKS:
            self.give(429, **ASKS[wrong])
        elif wrong == "hang-up":
            self.close_connection = True
        elif self.path.startswith("/api/models/org/") and "tree" not in rest:
            known = {"id": f"org/{wrong}", "sha": COMMIT, "siblings": [{"rfilename": file} for file in self.files]}
            self.give(200, json.dumps(known).encode(), **{"Content-Type": "application/json"})
        else:
            self.file(rest.rpartition("/")[2], wrong)

    do_HEAD = do_GET

    def file(self, name, wrong):
        body, tag = self.files.get(name), {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT}
        if body is None:
            self.give(404, **{"X-Error-Code": "EntryNotFound"})
        elif self.command == "HEAD" or name != "model.safetensors" or wrong == "whole":
            self.give(200, body, **tag)
        else:
            self.give(200, body[: len(body) // 2], **tag, **{"Content-Length": str(len(body))})
            if wrong == "stall":
                time.sleep(2)  # the test waits less
            self.close_connection = True

    def give(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextmanager
def hub(folder):
    """Serve a `Hub` that has the model in `folder`; yield the base URL."""

    class Here(Hub):
        files = {path.name: path.read_bytes() for path in folder.iterdir()}  # noqa: RUF012  a constant

    with serving(Here) as url:
        yield url
