"""Moments kept on disk, a file for every layer and group: written while a scan runs, read for maps and for merging."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectilinear.core.moments import Moments
from rectilinear.digests import AGAIN, FILES, check_digest, check_seal, digest, sealed
from rectilinear.errors import ResultError
from rectilinear.files import writing
from rectilinear.ops.pair import Pair
from rectilinear.reading import read_json
from rectilinear.results import MOMENTS, MOMENTS_DOCUMENT, SCHEMA
from rectilinear.results.checked import DAMAGED, checked
from rectilinear.results.document import link_files

KIND = "moments"
PARTS, TOKENS = ("fit", "heldout"), ("ordinary", "sink")
MODEL_FACTS = ("model", "fingerprint", "tokenizer_fingerprint", "d")
KEEPING = "keep moments in"  # what a full disk hinders
FACTS = (*MODEL_FACTS, "text", "tokens", "documents", "window", "sink_multiple")  # of a result's provenance


@dataclass(frozen=True)
class Group:
    """One group of a layer's tokens. part: "fit" or "heldout"; tokens: "ordinary" or "sink"."""

    part: str
    tokens: str

    def file(self, layer: int) -> str:
        """Return the name of the file of one layer, 0-based."""
        return f"layer-{layer:03}.{self.part}.{self.tokens}.safetensors"


GROUPS = tuple(Group(part, tokens) for part in PARTS for tokens in TOKENS)


class Keeper:
    """Writes the moments of a scan's layers into a folder, one group of one layer at a time.

    What was held out is what came after the first part, read back: no moments are held twice in memory. The document
    comes last; without it the folder is not whole.
    """

    def __init__(self, folder: str | Path) -> None:
        """Make the folder; raises ResultError where it holds something or cannot be made."""
        self.folder = Path(folder)
        self.files: dict[str, str] = {}  # digests of what is written, by name
        self._parted = False
        with writing(folder, KEEPING):
            self.folder.mkdir(parents=True, exist_ok=True)
            held = any(self.folder.iterdir())
        if held:
            raise ResultError(f"expected a new or empty folder for the moments, got {folder}: choose another")

    def copy(self, folder: Path) -> None:
        """Give the groups of the first part, if they are written, a place in a new folder too; raises OSError."""
        if self._parted:
            link_files(self.folder, folder)

    def take_up(self, folder: Path, files: Mapping[str, str] | None, remedy: str = AGAIN) -> None:
        """Take over a folder made by `copy`, whose digests are `files` (None: of an earlier version, taken now).

        Raises ResultError where that cannot be done or, with what to do, where a file is not as it was written.
        """
        for name, expected in (files or {}).items():
            check_digest(folder / name, expected, remedy)
        with writing(self.folder, KEEPING):
            shutil.rmtree(self.folder)
            link_files(folder, self.folder)
            self.files = dict(files or {path.name: digest(path) for path in self.folder.iterdir()})
        self._parted = True

    def fitted(self, pairs: Sequence[Pair]) -> None:
        """Write the groups of the first part, before anything held out is added to them."""
        self._parted = True
        for layer, pair in enumerate(pairs):
            for group, moments in _groups(pair, PARTS[0]):
                self._write(group.file(layer), moments)

    def finish(self, pairs: Sequence[Pair], provenance: Mapping[str, Any], thresholds: Sequence[float]) -> None:
        """Write what was held out, and the document: some of the result's `provenance`, and each position's threshold.

        A threshold is the norm above which a token is a sink, [L + 1].
        """
        if not self._parted:
            self.fitted(pairs)
        else:
            for layer, pair in enumerate(pairs):
                for group, moments in _groups(pair, PARTS[1]):
                    before = self.folder / Group(PARTS[0], group.tokens).file(layer)
                    late = _since(moments, Moments.load(before)) if before.exists() else moments
                    if late.n:
                        self._write(group.file(layer), late)
        facts = {name: provenance[name] for name in FACTS}
        document = {"schema": SCHEMA, "kind": KIND, "layers": len(pairs), **facts, "sink_thresholds": thresholds}
        document = sealed({**document, FILES: self.files})
        with writing(self.folder, KEEPING):
            (self.folder / MOMENTS_DOCUMENT).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def _write(self, name: str, moments: Moments) -> None:
        moments.save(self.folder / name)
        with writing(self.folder, KEEPING):
            self.files[name] = digest(self.folder / name)  # it is in the system's memory still


def _since(moments: Moments, earlier: Moments) -> Moments:
    """Return the moments of later rows; those of merged shards may be about other shifts than before."""
    earlier = earlier.to(moments.xx.device)  # what was read is on the CPU
    return moments.about(earlier.shift_x, earlier.shift_z).since(earlier)


def _groups(pair: Pair, part: str) -> Iterator[tuple[Group, Moments]]:
    for tokens in TOKENS:
        moments = getattr(pair, tokens)
        if moments is not None and moments.n:
            yield Group(part, tokens), moments


@dataclass(frozen=True)
class KeptMoments:
    """The moments of a scan on disk; a layer is read when it is asked for.

    facts: model, fingerprint, tokenizer_fingerprint, d, text, tokens, documents, window, sink_multiple.
    thresholds: norm above which a token is a sink, at each of the L + 1 positions. files: digests of the files by name,
    None where an earlier version wrote them.
    """

    folder: Path
    layers: int
    facts: dict[str, Any]
    thresholds: tuple[float, ...]
    files: dict[str, str] | None = None

    def groups(self, layer: int) -> dict[Group, Moments]:
        """Return the moments of the groups that have rows; raises ResultError for a file that is damaged or missing."""
        found = {}
        for group in GROUPS:
            name = group.file(layer)
            file = self.folder / name
            if name in self.files if self.files is not None else file.exists():
                if self.files is not None:
                    check_digest(file, self.files[name])
                found[group] = Moments.load(file)
        return found

    def merged(self, layer: int) -> tuple[Moments, Moments | None]:
        """Return the moments of all ordinary tokens of a layer, and of its sinks, None where it has none."""
        found: dict[str, Moments] = {}
        for group, moments in self.groups(layer).items():
            known = found.get(group.tokens)
            found[group.tokens] = moments if known is None else known.merge(moments)
        if "ordinary" not in found:
            raise ResultError(f"expected the moments of layer {layer} in {self.folder}, got none; scan again")
        return found["ordinary"], found.get("sink")

    @classmethod
    def load(cls, folder: str | Path) -> KeptMoments:
        """Open the moments in a folder written by `rectilinear scan --keep-moments`.

        Raises ResultError where the scan kept none, or where their document is damaged or of another schema.
        """
        place = Path(folder) / MOMENTS
        file = place / MOMENTS_DOCUMENT
        if not file.is_file():
            raise ResultError(f"expected the moments of a scan in {folder}, got none: scan again with --keep-moments")
        document = read_json(file, "scan again")
        try:
            if (document["schema"], document["kind"]) != (SCHEMA, KIND):
                raise ResultError(f"expected moments of schema {SCHEMA} in {file}; scan again")
            check_seal(file, document)
            facts = {name: document[name] for name in FACTS}
            files = dict(document[FILES]) if FILES in document else None
            return checked(cls(place, document["layers"], facts, tuple(document["sink_thresholds"]), files))
        except DAMAGED as error:
            raise ResultError(f"cannot read {file}: {error}; scan again") from error
