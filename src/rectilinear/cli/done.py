"""`--resume` where nothing is left to do: the same command may be given again and again."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from rectilinear.cli.hold import hold
from rectilinear.cli.say import note, typed
from rectilinear.errors import ResultError
from rectilinear.files import discard, under_way
from rectilinear.reading import read_json

BESIDE = {"--resume", "--json", "--plain"}  # what an answer may be asked for with


def is_done(target: Path, document: str, *, json: bool, first: bool = True) -> bool:
    """Tell whether a folder's document says that this very command made it; if so, say that it is done.

    With `json` the document is printed. first: of several processes, the one that speaks, and removes what a kill has
    left beside the folder.
    """
    file = target / document
    made, asked = _command(file), _told(typed())
    if made is None or _told(made) != asked or "-" in asked:  # standard input may be another by now
        return False
    if first:
        finished(file, json=json)
    return True


def finished(file: Path, *, json: bool) -> None:
    """Say that the folder of a document is done, and remove what was kept on the way to it."""
    target = file.parent
    hold(target)
    discard(under_way(target))
    under_way(target, ".jsonl").unlink(missing_ok=True)
    if json:
        sys.stdout.write(file.read_text(encoding="utf-8"))
    note(f"{target} is done, by this command: nothing is left to do")


def _command(file: Path) -> str | None:
    """Return the command that a document says it was made by, None where none can be read."""
    try:
        document = read_json(file, "make it again")
        facts = document.get("provenance") or document.get("facts") or {}
        return str(facts["command"])
    except (ResultError, KeyError, AttributeError, TypeError):
        return None


def _told(command: str) -> list[str]:
    """Return what a command was told but for what decides no figures."""
    try:
        return [part for part in shlex.split(command) if part not in BESIDE]
    except ValueError:  # a quotation that does not end
        return []
