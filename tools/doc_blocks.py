"""What stands in the documentation's pages: fenced blocks, the commands in them, and links.

A block below the line `<!-- run -->` is one that runs: it becomes a cell of the page's notebook.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from dataclasses import dataclass

FENCED = re.compile(r"^(<!-- run -->\n)?```(\w*)\n(.*?)^```$\n?", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`(rectilinear [^`\n]+(?:\n[^`\n]+)?)`")
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, whether it runs, and where it stands, as offsets into the page."""

    language: str
    code: str
    runs: bool
    start: int
    stop: int


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [Block(match[2], match[3], bool(match[1]), *match.span()) for match in FENCED.finditer(page)]


def spans(page: str) -> list[str]:
    """Return the commands of ours that stand in running text, between single backticks."""
    return SPAN.findall(FENCED.sub("", page))


def links(page: str) -> list[str]:
    """Return the files that a page links to, anchors left out, as seen from its folder."""
    return [link.partition("#")[0] for link in LINK.findall(FENCED.sub("", page))]


def commands(code: str) -> list[list[str]]:
    """Return the words of each command in a block of shell: comments left out, pipes and `&&` taken apart."""
    found: list[list[str]] = []
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        words.whitespace_split = True
        found.append([])
        for word in words:
            if set(word) <= set("|&;"):
                found.append([])
            else:
                found[-1].append(word)
    return [command for command in found if command]


def relink(page: str, old: str, new: str) -> str:
    """Return a page that stood in folder `old`, with its relative links as they are from folder `new`."""

    def moved(match: re.Match[str]) -> str:
        path, mark, anchor = match[1].partition("#")
        return f"]({posixpath.relpath(posixpath.join(old, path), new)}{mark}{anchor})"

    return LINK.sub(moved, page)
