"""A scan in shards: shares of it gathered by processes that know nothing of each other, merged from their files.

The fit part comes first: its shares, merged, give the maps. Then the shares of the held-out part are judged by them.
Shares of both parts make the scan whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rectilinear.data.pieces import Share
from rectilinear.digests import check_digest, check_seal, digest, sealed
from rectilinear.errors import ResultError, TextError
from rectilinear.models.load import kept_tokenizer
from rectilinear.ops.carriers import Kinds
from rectilinear.ops.conclude import concluded
from rectilinear.ops.kept import Keeper
from rectilinear.ops.layers import Gatherer
from rectilinear.ops.pairs import Spans
from rectilinear.ops.parts import Submodules
from rectilinear.ops.passes import Progress
from rectilinear.ops.provenance import run_facts
from rectilinear.ops.resume import Checkpoints, going_on
from rectilinear.ops.scan import ready
from rectilinear.ops.state import load_state, save_state
from rectilinear.reading import read_json
from rectilinear.results import SCHEMA, ScanResult
from rectilinear.results.checked import DAMAGED, checked

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KIND, DOCUMENT, TOKENIZER = "shard", "shard.json", "tokenizer"
MOST, MOST_LAYERS = 10_000, 2_000  # shards of a scan, and layers: more are damage, and take memory
PARTS = {"fit": "the fit part", "heldout": "the held-out part"}  # a folder each
CALLED = {  # what shards of one scan agree in
    "fingerprint": "model",
    "tokenizer_fingerprint": "tokenizer",
    "dtype": "dtype",
    "of": "number of shards",
    "tokens": "number of tokens",
    "window": "window",
    "holdout": "holdout",
    "windows": "text",
    "sink_multiple": "sink multiple",
    "submodules": "choice of submodules",
    "span": "longest span",
    "measured": "choice of layers",
    "batch_tokens": "number of tokens in a batch",
    "seed": "seed",
}


@dataclass(frozen=True)
class Shard:
    """Some shares of a scan in a folder.

    fit, heldout: the numbers of the shares of either part that it holds, from 1. same: what it has in common with all
    shards of the scan. facts, notes, kinds: of the result, known before it is. layers: L. files: digests of the
    tokenizer's files by name, None where an earlier version wrote them; the states have their own.
    """

    fit: tuple[int, ...]
    heldout: tuple[int, ...]
    layers: int
    same: dict[str, Any]
    facts: dict[str, Any]
    notes: list[str]
    kinds: list[str]
    files: dict[str, str] | None = None

    def save(self, folder: Path) -> None:
        """Write the document that makes a folder a shard, after all else; raises OSError where that fails."""
        place = folder / TOKENIZER
        files = {path.relative_to(place).as_posix(): digest(path) for path in place.rglob("*") if path.is_file()}
        document = sealed({"schema": SCHEMA, "kind": KIND, **asdict(self), "files": files})
        (folder / DOCUMENT).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Shard:
        """Read the document of a shard; raises ResultError where a folder is none, or of another schema."""
        file = Path(folder) / DOCUMENT
        if not file.is_file():
            raise ResultError(
                f"expected a folder written by `rectilinear scan --shard` or `merge`, got {folder}: no {DOCUMENT} there"
            )
        document = read_json(file, "scan again")
        try:
            found = document["schema"], document["kind"]
            if found != (SCHEMA, KIND):
                raise ResultError(f"expected a shard of schema {SCHEMA} in {file}, got {found}; scan again")
            check_seal(file, document)
            document = {name: value for name, value in document.items() if name not in ("schema", "kind")}
            document |= {part: tuple(document[part]) for part in PARTS}
            return _sound(checked(cls(**document)))
        except DAMAGED as error:
            raise ResultError(f"cannot read {file}: {error}; scan again") from error


@dataclass(frozen=True)
class _Same:
    """What a merge works with of what its shards have in common."""

    of: int
    sink_multiple: float
    submodules: bool
    span: int | None
    seed: int
    measured: list[int]


def _sound(shard: Shard) -> Shard:
    """Return a shard; raises one of `DAMAGED` where it lacks what a merge works with."""
    same = checked(_Same(**{name: shard.same[name] for name in _Same.__annotations__}))
    lacks = [*(CALLED.keys() - shard.same.keys()), *({"tokens_heldout", "seconds"} - shard.facts.keys())]
    if lacks or not (0 < same.of <= MOST and 0 < shard.layers <= MOST_LAYERS and shard.facts["seconds"] >= 0):
        raise ValueError(f"expected {lacks[0] if lacks else f'1 to {MOST_LAYERS} layers and {MOST} shards'}")
    if any(not 0 <= layer < shard.layers for layer in same.measured):
        raise ValueError(f"expected layers below {shard.layers}, got others")
    return shard


@dataclass(frozen=True)
class Shards:
    """Shards of one scan, each share in one of them."""

    members: dict[Path, Shard]

    @classmethod
    def of(cls, folders: Iterable[str | Path]) -> Shards:
        """Read the documents of shards; raises ResultError where one is none, of another scan, or has another's share.

        Folders may come in any order; a shard may be the merge of others.
        """
        members: dict[Path, Shard] = {}
        for folder in map(Path, folders):
            if folder in members:
                raise ResultError(f"expected each shard once, got {folder} twice")
            members[folder] = Shard.load(folder)
        if not members:
            raise ResultError("expected folders of shards to merge, got none")
        (place, first), *rest = members.items()
        for folder, shard in rest:
            check_same(shard.same, folder, first.same, place)
        for part, called in PARTS.items():
            seen: dict[int, Path] = {}
            for folder, shard in members.items():
                for number in getattr(shard, part):
                    if number in seen:
                        raise ResultError(
                            f"share {number} of {called} is in both {seen[number]} and {folder}: leave one out"
                        )
                    seen[number] = folder
        return cls(members)

    @property
    def first(self) -> Shard:
        """One of them: for what all agree in."""
        return next(iter(self.members.values()))

    @property
    def whole(self) -> bool:
        """Whether they make up the scan."""
        return not any(self.missing(part) for part in PARTS)

    def held(self, part: str) -> tuple[int, ...]:
        """Return the numbers of the shares of a part that are there."""
        return tuple(sorted(number for shard in self.members.values() for number in getattr(shard, part)))

    def missing(self, part: str) -> tuple[int, ...]:
        """Return the numbers of the shares of a part that are not there."""
        if part == "heldout" and not self.first.facts["tokens_heldout"]:
            return ()
        held = self.held(part)
        return tuple(number for number in range(1, self.first.same["of"] + 1) if number not in held)

    def lack(self) -> str:
        """Return in words what is missing, "" where nothing is."""
        found = ((", ".join(map(str, self.missing(part))), called) for part, called in PARTS.items())
        shares = self.first.same["of"]
        return " and ".join(f"{numbers} of {shares} of {called}" for numbers, called in found if numbers)

    def save(self, folder: Path, on_shard: Callable[[int], None] = lambda done: None) -> None:
        """Write the shares into an existing folder, as one shard; raises ResultError or OSError where that fails."""
        first, done, tokenizer = self.first, 0, self._tokenizer()
        for part in PARTS:
            if self.held(part):
                gatherer, parts = _empty(first, tokenizer)
                done = self._load(part, gatherer, parts, done, on_shard)
                save_state(folder / part, gatherer, parts, facts={})
        if tokenizer is not None:
            tokenizer.save_pretrained(folder / TOKENIZER)
        facts = {**first.facts, "seconds": self._seconds()}
        held: dict[str, Any] = {part: self.held(part) for part in PARTS}
        Shard(**held, layers=first.layers, same=first.same, facts=facts, notes=first.notes, kinds=first.kinds).save(
            folder
        )

    def result(
        self,
        *,
        keep_moments: str | Path | None = None,
        provenance: Mapping[str, Any] | None = None,
        on_shard: Callable[[int], None] = lambda done: None,
    ) -> ScanResult:
        """Return the result of the scan that the shares make up.

        keep_moments: a new or empty folder for the moments, as of `scan`. provenance: entries to add to the result's.
        on_shard is told how many shards have been read. Raises ResultError where shares are missing or damaged.
        """
        if not self.whole:
            raise ResultError(f"expected all shares of the scan, got none of {self.lack()}: scan and add them")
        first, tokenizer = self.first, self._tokenizer()
        gatherer, parts = _empty(first, tokenizer)
        done = self._load("fit", gatherer, parts, 0, on_shard)
        if keep_moments is not None:
            gatherer.keeper = Keeper(keep_moments)
            gatherer.keeper.fitted(gatherer.pairs())
        self._load("heldout", gatherer, parts, done, on_shard)
        facts = {**first.facts, **run_facts(), "shards": first.same["of"], "seconds": self._seconds()}
        return concluded(gatherer, parts, tokenizer, {**facts, **(provenance or {})}, list(first.notes))

    def _tokenizer(self) -> PreTrainedTokenizerBase | None:
        kept = next(iter(self.members)) / TOKENIZER
        for name, expected in (self.first.files or {}).items():
            check_digest(kept / name, expected)
        return kept_tokenizer(kept) if kept.is_dir() else None

    def _load(
        self, part: str, gatherer: Gatherer, parts: Submodules | None, done: int, on_shard: Callable[[int], None]
    ) -> int:
        for folder, shard in self.members.items():
            if getattr(shard, part):
                load_state(folder / part, gatherer, parts)
                done += 1
                on_shard(done)
        return done

    def _seconds(self) -> float:
        return round(sum(shard.facts["seconds"] for shard in self.members.values()), 3)


def scan_shard(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    texts: Iterable[str] | None,
    folder: str | Path,
    *,
    number: int,
    of: int,
    maps: str | Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    checkpoints: Checkpoints | None = None,
    **options: Any,
) -> Shard:
    """Gather share `number` (from 1) of `of` of a scan of `model`, and write it into an existing folder.

    Without `maps` it is the share of the fit part; with the folder of the merged fit part, that of the held-out part,
    judged by its maps. `texts` and the options are those of `scan`, and the same for all shares; `checkpoints` are this
    share's own. Raises as `scan` does, TextError for a number that is none, and ResultError where `maps` are not whole
    or of another scan.
    """
    if not 1 <= number <= of:
        raise TextError(f"expected a share from 1 to {of}, got {number}")
    started = time.perf_counter()
    folder = Path(folder)
    fitted = None if maps is None else Shards.of([maps])
    work = ready(model, tokenizer, texts, **options)
    same = {**work.same(), "of": of}
    part = "fit" if fitted is None else "heldout"
    if fitted is not None:
        _check_maps(fitted, same)
    if checkpoints is not None:
        checkpoints = replace(checkpoints, share={"part": part, "share": number, "of": of})
    with (
        going_on(checkpoints, work, work.passed(Share(number - 1, of), on_progress)) as whole,
        whole.watching(),
    ):
        if fitted is None:
            whole.fit()
        else:
            if not whole.fitted:
                load_state(Path(next(iter(fitted.members))) / "fit", work.gatherer, work.parts)
                whole.start_heldout()
                whole.empty_()
            whole.judge()
            for pair in whole.pairs():
                pair.forget_maps_()
    save_state(folder / part, work.gatherer, work.parts, facts={})
    if tokenizer is not None:
        tokenizer.save_pretrained(folder / TOKENIZER)
    before = 0.0 if checkpoints is None else checkpoints.before
    facts = {**work.facts, "seconds": round(before + time.perf_counter() - started, 3)}
    held: dict[str, Any] = {name: (number,) if name == part else () for name in PARTS}
    kinds = [] if work.parts is None else list(work.parts.kinds)
    shard = Shard(**held, layers=len(work.stack), same=same, facts=facts, notes=work.notes, kinds=kinds)
    shard.save(folder)
    return shard


def check_same(same: Mapping[str, Any], place: str | Path, other: Mapping[str, Any], other_place: str | Path) -> None:
    """Raise ResultError, naming what differs, where two shards are not of one scan."""
    for name, called in CALLED.items():
        if same[name] != other[name]:
            raise ResultError(
                f"expected shards of one scan, got another {called} in {place} ({same[name]}) than in {other_place} "
                f"({other[name]})"
            )


def _check_maps(fitted: Shards, same: Mapping[str, Any]) -> None:
    place = next(iter(fitted.members))
    check_same(same, "this scan", fitted.first.same, place)
    if fitted.missing("fit"):
        shares = ", ".join(map(str, fitted.missing("fit")))
        raise ResultError(f"expected the whole fit part in {place}, got none of its shares {shares}: merge them first")
    if not fitted.first.facts["tokens_heldout"]:
        raise TextError("expected a holdout above 0 to judge maps, got a scan of the fit part alone")


def _empty(shard: Shard, tokenizer: PreTrainedTokenizerBase | None) -> tuple[Gatherer, Submodules | None]:
    """Return what gathers the states of a scan."""
    gatherer = Gatherer(
        shard.layers,
        sink_multiple=shard.same["sink_multiple"],
        sample_per_batch=0,
        seed=shard.same["seed"],
        measured=shard.same["measured"],
    )
    gatherer.kinds = None if tokenizer is None else Kinds(tokenizer)
    if shard.same["span"] is not None:
        gatherer.spans = Spans(shard.layers, shard.same["span"])
    return gatherer, Submodules(gatherer, shard.kinds) if shard.same["submodules"] else None
