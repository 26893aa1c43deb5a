"""The demo text: Python's own documentation, so that a first run needs no download."""

from __future__ import annotations

from collections.abc import Iterator


def demo_documents() -> Iterator[str]:
    """Yield Python's language reference, one topic a document, in the order of their names."""
    from pydoc_data.topics import topics  # type: ignore[import-untyped]

    for name in sorted(topics):
        yield topics[name]
