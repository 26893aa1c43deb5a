"""A stand-in for a judge's endpoint, on loopback."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from serving import serving

GOOD = json.dumps({"grammar": 8, "creativity": 6, "consistency": 7, "plot": 5})


@contextmanager
def grader(behave):
    """Serve chat completions; yield (base URL, requests seen).

    behave(number, body) says what to do with request `number` from 0: a text to answer, a status, a pair of status and
    text, "hang" or "cut".
    """
    seen, lock, released = [], threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(seen)
                seen.append({**body, "authorization": self.headers["Authorization"], "path": self.path})
            what = behave(number, body)
            if what == "hang":
                released.wait(20)
            elif what == "cut":
                self.connection.close()
            elif isinstance(what, (int, tuple)):
                status, said = what if isinstance(what, tuple) else (what, "no")
                self.answer(status, {"error": {"message": said}})
            else:
                choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": what}}
                usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
                head = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
                self.answer(200, {**head, "choices": [choice], "usage": usage})

        def answer(self, status, document):
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Retry-After-Ms", "1")
            self.end_headers()
            self.wfile.write(data)

    with serving(Handler) as url:
        try:
            yield f"{url}/v1", seen
        finally:
            released.set()
