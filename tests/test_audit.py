"""`make check` looks for known holes where it can, and says where it cannot."""

import json

import audit
import pytest

import serving


@pytest.fixture
def database(request):
    """A server that gives one answer to everything, 404 where it is None."""
    with serving.answering(404 if request.param is None else 200, (request.param or "").encode()) as url:
        yield f"{url}/"


@pytest.mark.parametrize("database", [None, "<html>", json.dumps({"info": {}})], indirect=True)
def test_what_knows_of_no_holes_is_not_asked(database, capsys):
    assert audit.audit(database, lambda command: pytest.fail(str(command))) == 0
    assert f"audit skipped: {database}" in capsys.readouterr().out


@pytest.mark.parametrize("database", [json.dumps({"vulnerabilities": []})], indirect=True)
def test_holes_fail_the_check(database):
    commands = []

    def run(command):
        commands.append(command)
        return "pip_audit" in command

    assert audit.audit(database, run) == 1
    assert [command[2] for command in commands] == ["pip", "pip_audit"]
