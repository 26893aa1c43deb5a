"""YAML as it comes in files: what JSON could say as well, and no few lines that stand for endless ones."""

from __future__ import annotations

from typing import Any

import yaml

from rectilinear.errors import first_line
from rectilinear.reading import DEEPEST

ALIASES = 100  # in a document
LARGEST = 1 << 63  # whole number


def from_yaml(text: str) -> Any:
    """Return what a YAML document says.

    Raises ValueError, one line, for what is none, for more than `ALIASES` aliases or one within what another names, for
    what nests more than `DEEPEST` deep, and for whole numbers of `LARGEST` or more.
    """
    try:
        return yaml.load(text, _Plain)
    except Exception as error:  # tags raise almost any kind: "!!bool x" a KeyError, "!!timestamp x" an AttributeError
        raise ValueError(_said(error)) from error


class _Plain(yaml.SafeLoader):
    """PyYAML's safe loader, within bounds: what it makes is at most ALIASES times as large as the text.

    Aliases of aliases would double it with every line, be it where they are walked or where a merge key copies them.
    """

    _aliases = _depth = _named = 0  # so many so far; deep now; anchored parts that we are in

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._named or self._aliases > ALIASES:
                self._refuse(f"expected at most {ALIASES} aliases, and none within what another names")
            return super().compose_node(parent, index)
        if self._depth > DEEPEST:
            self._refuse(f"expected no more than {DEEPEST} parts within each other")
        named = self.peek_event().anchor is not None
        self._depth += 1
        self._named += named
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._named -= named
        return node

    def whole(self, node: yaml.ScalarNode) -> int:
        """Return a whole number."""
        found = int(super().construct_yaml_int(node))
        if not -LARGEST < found < LARGEST:
            raise ValueError("expected whole numbers of up to 63 bits")
        return found

    def _refuse(self, said: str) -> None:
        raise yaml.MarkedYAMLError(said, problem_mark=self.peek_event().start_mark)


_Plain.add_constructor("tag:yaml.org,2002:int", _Plain.whole)


def _said(error: Exception) -> str:
    """Return what is wrong in one line, with the place where it is known."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        return f"{error.problem or error.context}{place}"
    known = isinstance(error, (ValueError, yaml.YAMLError))
    return first_line(error) if known else f"a tag that its value does not fit ({error!r})"
