"""Run a command as a user would: for what it says when it fails, and for what it loads."""

import subprocess
import sys

import pytest

from rectilinear.cli.main import main


def fails(arguments, capsys, monkeypatch):
    """Return standard error of a command that must end with exit code 2 and no traceback."""
    monkeypatch.setattr(sys, "argv", ["rectilinear", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert "Traceback" not in said
    return said


def loaded_by(arguments):
    """Return the top-level modules that a command has loaded when it ends well."""
    code = (
        f"import sys; sys.argv = ['rectilinear', *{list(map(str, arguments))!r}]\n"
        "from rectilinear.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stderr.splitlines()[-1].split())
