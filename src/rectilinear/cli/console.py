"""The terminal, on which nothing that comes from data moves the cursor, takes a colour or renames the window."""

from __future__ import annotations

from collections.abc import Iterable

from rich import console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from rectilinear.report.text import visible


class Console(console.Console):
    """Rich's console, with control characters in text written out as escapes.

    Tables do so themselves, where it counts for their widths; this is for what they forget.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render to segments: rich's own control codes, and text without any."""
        for segment in super().render(renderable, options):
            yield segment if segment.control or segment.text.isprintable() else _plain(segment)


def _plain(segment: Segment) -> Segment:
    return Segment("\n".join(visible(line) for line in segment.text.split("\n")), segment.style)
