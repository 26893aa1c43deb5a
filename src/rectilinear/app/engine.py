"""What the page asks: models, maps and prompts, one question at a time, with the last answers at hand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from rectilinear.data.text import read_text
from rectilinear.errors import ModelError, ResultError, TextError
from rectilinear.models.load import earlier_fingerprint, fingerprint, load, tokenizer_fingerprint
from rectilinear.ops.maps import FILE, Maps, facts_in, fit_maps
from rectilinear.ops.tokens import tokens
from rectilinear.ops.whatif import Reading, read
from rectilinear.report.folder import ARRAYS, DOCUMENT
from rectilinear.report.folder import load as load_scan
from rectilinear.results import MOMENTS, ScanResult, TokensResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FIT_TOKENS = 16_384
FIT = f"fit on {FIT_TOKENS:,} tokens of the demo text"
NEW_TOKENS = 16  # of a completion: it is to be watched
LONGEST = 512  # tokens of a prompt: the page is for looking closely
KEPT = 16  # answers


@dataclass(frozen=True)
class Question:
    """A prompt for a model and maps; `maps` is a name that `Engine.maps_of` gave."""

    model: str
    maps: str
    prompt: str


@dataclass
class _Loaded:
    """The model that is in memory, and its fingerprint.

    maps: those used last, by name; scans: what they come from, if that is a scan.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    maps: tuple[str, Maps] | None = None
    scans: dict[str, ScanResult | None] = field(default_factory=dict)


class Engine:
    """Answers for the page. One model and one set of maps are in memory; only folders below `scans` are ever read.

    models: the names that may be asked for, the first one loaded on the first question; options: of `load`.
    """

    def __init__(self, models: Sequence[str], scans: Path, **options: Any) -> None:
        self.models = tuple(models)
        self._scans = scans
        self._options = options
        self._lock = RLock()
        self._loaded: _Loaded | None = None
        self._fitted: dict[str, Maps] = {}
        self._answers: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def open(self, model: str) -> int:
        """Load a model, if it is not the one in memory, and return its number of layers.

        Raises ModelError for one that was not named when the page was started, and as `load` does.
        """
        with self._lock:
            loaded = self._open(model)
            return int(loaded.model.config.get_text_config().num_hidden_layers)

    def maps_of(self, model: str) -> list[str]:
        """Return the names of the folders with maps of a model, and last the offer to fit some."""
        with self._lock:
            loaded = self._open(model)
            models = (loaded.fingerprint, earlier_fingerprint(loaded.model))
            cut_by = tokenizer_fingerprint(loaded.tokenizer)
            found = []
            for folder in self._folders():
                try:
                    facts = facts_in(folder)
                except ResultError:
                    continue
                if facts.get("fingerprint") in models and facts.get("tokenizer_fingerprint") == cut_by:
                    found.append(folder.name)
            return [*found, FIT]

    def look(
        self, asked: Question, token: int | None = None, on_progress: Callable[[int, int], None] | None = None
    ) -> TokensResult:
        """Return the prompt token by token, with the lenses of one token, by default the last.

        `on_progress` is told how far the fit is where maps are fitted first. Raises as `ops.tokens.tokens` does, and
        TextError for a prompt beyond LONGEST tokens.
        """
        with self._lock:
            loaded = self._open(asked.model)
            maps = self._maps(loaded, asked.maps, on_progress)
            count = len(loaded.tokenizer(asked.prompt, verbose=False)["input_ids"])
            if count > LONGEST:
                raise TextError(
                    f"expected a prompt of up to {LONGEST} tokens here, got {count:,}: use rectilinear tokens"
                )
            at = count - 1 if token is None else token
            return self._kept(
                ("look", asked, at),
                lambda: tokens(
                    loaded.model,
                    loaded.tokenizer,
                    asked.prompt,
                    maps=maps,
                    lenses=[at],
                    layers_path=self._layers_path,
                    known=loaded.fingerprint,
                ),
            )

    def read(self, asked: Question, removed: Sequence[int] = (), linear: Sequence[int] = ()) -> Reading:
        """Return what the model makes of the prompt without some layers, and with others linear; raises as `read`."""
        with self._lock:
            loaded = self._open(asked.model)
            maps = self._maps(loaded, asked.maps, None) if linear else None
            return self._kept(
                ("read", asked, tuple(removed), tuple(linear)),
                lambda: read(
                    loaded.model,
                    loaded.tokenizer,
                    asked.prompt,
                    maps=maps,
                    removed=removed,
                    linear=linear,
                    new_tokens=NEW_TOKENS,
                    layers_path=self._layers_path,
                    known=loaded.fingerprint,
                ),
            )

    def scan(self, asked: Question) -> ScanResult | None:
        """Return the scan that the maps come from, None where they come from elsewhere."""
        with self._lock:
            loaded = self._open(asked.model)
            if asked.maps not in loaded.scans:
                folder = next((folder for folder in self._folders() if folder.name == asked.maps), None)
                there = folder is not None and (folder / DOCUMENT).is_file()
                loaded.scans[asked.maps] = load_scan(folder) if folder is not None and there else None
            return loaded.scans[asked.maps]

    @property
    def _layers_path(self) -> str | None:
        return self._options.get("layers_path")

    def _open(self, name: str) -> _Loaded:
        if name not in self.models:
            raise ModelError(f"expected one of the models {', '.join(self.models)}, got {name!r}")
        if self._loaded is None or self._loaded.name != name:
            self._loaded = None  # before the next one is loaded
            self._answers.clear()
            model, tokenizer = load(name, **{k: v for k, v in self._options.items() if k != "layers_path"})
            self._loaded = _Loaded(name, model, tokenizer, fingerprint(model))
        return self._loaded

    def _maps(self, loaded: _Loaded, name: str, on_progress: Callable[[int, int], None] | None) -> Maps:
        if loaded.maps is None or loaded.maps[0] != name:
            loaded.maps = None  # before the next ones are read
            loaded.maps = name, self._fit(loaded, on_progress) if name == FIT else self._read(name)
        return loaded.maps[1]

    def _read(self, name: str) -> Maps:
        folders = {folder.name: folder for folder in self._folders()}
        if name not in folders:
            raise ResultError(f"expected maps of {', '.join(folders) or 'none'} or {FIT!r}, got {name!r}")
        return Maps.load(folders[name])

    def _fit(self, loaded: _Loaded, on_progress: Callable[[int, int], None] | None) -> Maps:
        if loaded.name not in self._fitted:
            source = read_text("demo")
            self._fitted[loaded.name] = fit_maps(
                loaded.model,
                loaded.tokenizer,
                source.documents(),
                tokens=FIT_TOKENS,
                layers_path=self._layers_path,
                provenance={"model": loaded.name, "text": source.id},
                on_progress=on_progress,
            )
        return self._fitted[loaded.name]

    def _folders(self) -> list[Path]:
        """Return the folders in that of the scans, but none that leads out of it by a link, its own or of its files."""
        return sorted(path for path in self._scans.iterdir() if path.is_dir() and self._inside(path))

    def _inside(self, folder: Path) -> bool:
        root = self._scans.resolve()
        files = [folder / name for name in (FILE, DOCUMENT, ARRAYS, MOMENTS)]
        files += (folder / MOMENTS).iterdir() if (folder / MOMENTS).is_dir() else []
        return all(path.resolve().is_relative_to(root) for path in (folder, *files))

    def _kept(self, key: tuple[Any, ...], answer: Callable[[], Any]) -> Any:
        if key not in self._answers:
            self._answers[key] = answer()
        self._answers.move_to_end(key)
        while len(self._answers) > KEPT:
            self._answers.popitem(last=False)
        return self._answers[key]
