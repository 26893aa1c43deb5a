"""The terminal, on which nothing that comes from data moves the cursor, takes a colour or renames the window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from rich import console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from rectilinear.report.text import visible

# What our tables draw with, in ASCII of the same width.
ASCII = str.maketrans("▁▂▃▄▅▆▇█▏▎▍▌▋▊▉·–—…×→±◆≤≥−’", "_.-~=+*#---====.--~x>~@<>-'")


class Console(console.Console):
    """Rich's console, with control characters in text written out as escapes.

    Tables do so themselves, where it counts for their widths; this is for what they forget.
    """

    plain: ClassVar[bool] = False  # no colours, nothing that moves, and our tables in ASCII

    def __init__(self, **options: Any) -> None:
        if self.plain:
            options |= {"color_system": None, "force_terminal": False}
        super().__init__(**options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render to segments: rich's own control codes, and text without any."""
        for segment in super().render(renderable, options):
            if not (segment.control or segment.text.isprintable()):
                segment = Segment("\n".join(visible(line) for line in segment.text.split("\n")), segment.style)
            yield Segment(segment.text.translate(ASCII), segment.style, segment.control) if self.plain else segment


@contextmanager
def plain() -> Iterator[None]:
    """Let all consoles made meanwhile be plain."""
    before, Console.plain = Console.plain, True
    try:
        yield
    finally:
        Console.plain = before
