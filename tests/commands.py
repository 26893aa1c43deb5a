"""Run a command as a user would, for what it says when it fails."""

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
