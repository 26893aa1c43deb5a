"""Servers on loopback, for as long as a test needs one."""

import threading
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
