"""`make check` looks for known holes where it can, and says where it cannot."""

import http.server
import importlib.util
import json
import threading
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "audit.py"


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("audit", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def database(request):
    """A server that gives one answer to everything, 404 where it is None."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404 if request.param is None else 200)
            self.end_headers()
            self.wfile.write((request.param or "").encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("database", [None, "<html>", json.dumps({"info": {}})], indirect=True)
def test_what_knows_of_no_holes_is_not_asked(tool, database, capsys):
    assert tool.audit(database, lambda command: pytest.fail(str(command))) == 0
    assert f"audit skipped: {database}" in capsys.readouterr().out


@pytest.mark.parametrize("database", [json.dumps({"vulnerabilities": []})], indirect=True)
def test_holes_fail_the_check(tool, database):
    commands = []

    def run(command):
        commands.append(command)
        return "pip_audit" in command

    assert tool.audit(database, run) == 1
    assert [command[2] for command in commands] == ["pip", "pip_audit"]
