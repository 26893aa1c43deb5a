"""What `rectilinear scan` does once its options are read: load, scan, write, print."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rectilinear.cli.console import Console
from rectilinear.cli.progress import Show, hint, progress_bar
from rectilinear.cli.say import answer, note
from rectilinear.errors import ResultError, TextError
from rectilinear.files import discard, under_way

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rectilinear.data.text import Text
    from rectilinear.ops.passes import Progress
    from rectilinear.ops.ranks import Ranks
    from rectilinear.ops.resume import Checkpoints
    from rectilinear.results import ScanResult, TextsResult


@dataclass
class Work:
    """What a scan is asked for. target: None where nothing is written."""

    model: str
    loading: dict[str, Any]
    sources: dict[str, Text]
    wishes: dict[str, Any]
    facts: dict[str, Any]
    target: Path | None
    force: bool
    json: bool

    def scan(self, ranks: Ranks | None, keep_moments: bool, checkpoints: Checkpoints | None) -> None:
        """Scan, write the report and print the table, each in the first of several processes."""
        first = ranks is None or not ranks.rank
        with (
            _kept(checkpoints if first else None),
            _progress(first) as show,
            beside(self.target, keep_moments) as moments,
        ):
            loaded, tokenizer = self._load(show, ranks)
            more = {"keep_moments": moments, "ranks": ranks, "checkpoints": checkpoints}
            result = self._result(loaded, tokenizer, show, more)
            if self.target is not None:
                show("writing the report", 0, None, "")
                result.save(self.target, force=self.force)
        if first:
            self._say(result)

    def shard(self, share: tuple[int, int], maps: Path | None, checkpoints: Checkpoints | None) -> None:
        """Gather one share of the scan, and write it."""
        from rectilinear.ops.shards import DOCUMENT, Shard, scan_shard
        from rectilinear.report.folder import write_folder

        ((name, source),) = self.sources.items()
        assert self.target is not None

        def fill(folder: Path) -> None:
            with _progress(True) as show:
                loaded, tokenizer = self._load(show, None)
                scan_shard(
                    loaded,
                    tokenizer,
                    source.documents(),
                    folder,
                    number=share[0],
                    of=share[1],
                    maps=maps,
                    provenance={**self.facts, "text": source.id},
                    on_progress=partial(_tell, show, name),
                    checkpoints=checkpoints,
                    **self.wishes,
                )

        with _kept(checkpoints):
            write_folder(self.target, fill, force=self.force, marker=DOCUMENT)
        if self.json:
            sys.stdout.write((self.target / DOCUMENT).read_text(encoding="utf-8"))
        held = Shard.load(self.target)
        part, step = ("held-out", "merge it with the others") if held.heldout else ("fit", "merge the fit part")
        note(f"Share {share[0]} of {share[1]} of the {part} part: {self.target}; {step}")

    def _load(self, show: Show, ranks: Ranks | None) -> tuple[Any, Any]:
        from rectilinear.models.load import load

        show(f"loading {self.model}", 0, None, "")
        if ranks is None:
            return load(self.model, **self.loading)
        from rectilinear.ops.ranks import device_here

        if any(source.id == "stdin" for source in self.sources.values()):
            raise TextError("expected a text that every process can read, got standard input: give a file")
        with ranks.in_turn():
            return load(self.model, **{**self.loading, "device": device_here(self.loading["device"])})

    def _result(self, model: Any, tokenizer: Any, show: Show, more: dict[str, Any]) -> ScanResult | TextsResult:
        show("scanning", 0, None, "reading text")
        if len(self.sources) > 1:
            from rectilinear.ops.texts import scan_texts

            return scan_texts(
                model,
                tokenizer,
                {name: source.documents() for name, source in self.sources.items()},
                provenance={name: {**self.facts, "text": source.id} for name, source in self.sources.items()},
                on_progress=partial(_tell, show),
                **self.wishes,
                **more,
            )
        from rectilinear.ops.scan import scan as run

        ((name, source),) = self.sources.items()
        return run(
            model,
            tokenizer,
            source.documents(),
            provenance={**self.facts, "text": source.id},
            on_progress=partial(_tell, show, name),
            **self.wishes,
            **more,
        )

    def _say(self, result: ScanResult | TextsResult) -> None:
        page = "texts.html" if len(self.sources) > 1 else "report.html"
        answer(result, table_of, json=self.json, place=self.target and self.target / page)


def _progress(shown: bool) -> AbstractContextManager[Show]:
    """Give a progress bar, one that shows nothing where another process has it."""
    return progress_bar(Console(stderr=True, force_terminal=None if shown else False))


def _tell(show: Show, name: str, state: Progress) -> None:
    said = "fitting" if state.score is None else f"mean held-out score {state.score:.4f}"
    show(f"scanning {name}".strip(), state.done, state.total, said)


def checkpoints_of(
    target: Path, every: tuple[float, Literal["minutes", "tokens"]], *, resume: bool, force: bool
) -> Checkpoints:
    """Return where a scan keeps its state on the way to the folder `target`.

    Raises ResultError where an earlier scan's is there that is neither to be taken up nor, by `force`, to go.
    """
    from rectilinear.ops.resume import Checkpoints

    kept = Checkpoints(under_way(target), *every)
    if kept.there() and not resume:
        if not force:
            raise ResultError(f"{kept.folder} keeps an earlier scan: add --resume to go on, or --force to start again")
        discard(kept.folder)
        if kept.there():
            raise ResultError(f"cannot remove {kept.folder}: remove it by hand")
    return kept


@contextmanager
def _kept(checkpoints: Checkpoints | None) -> Iterator[None]:
    """Take away in the end what was kept on the way; where there is no end, say what is there to go on from."""

    def kept() -> str:
        if checkpoints is None or not checkpoints.there():
            return ""
        return f"What was gathered is kept in {checkpoints.folder}: go on with --resume"

    with hint(kept):
        yield
    if checkpoints is not None:
        discard(checkpoints.folder)


@contextmanager
def beside(target: Path | None, wanted: bool) -> Iterator[Path | None]:
    """Give a folder beside `target` for moments, if any are wanted, and take it away in the end."""
    if not wanted or target is None:
        yield None
        return
    from rectilinear.report.swap import neighbour

    target.parent.mkdir(parents=True, exist_ok=True)
    with neighbour(target) as folder:
        yield folder


def table_of(result: ScanResult | TextsResult) -> RenderableType:
    """Return what a terminal shows of a result."""
    from rectilinear.results import ScanResult

    if isinstance(result, ScanResult):
        from rectilinear.report.terminal import layers_table

        return layers_table(result)
    from rectilinear.report.texts import transfer_table

    return transfer_table(result)
