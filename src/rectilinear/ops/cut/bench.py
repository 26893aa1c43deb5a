"""The bench that a model is cut on: options checked, calibration windows laid out, layers chosen."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rectilinear.core.spans import in_words
from rectilinear.data.windows import drawn_windows, joined_windows
from rectilinear.errors import ModelError, TextError, nearest
from rectilinear.models.load import fingerprint, model_id
from rectilinear.models.mode import eval_mode
from rectilinear.models.projection import output_projection
from rectilinear.models.runner import Runner
from rectilinear.models.stack import context_limit, decoder_stack
from rectilinear.ops.cut.judge import Judge
from rectilinear.ops.cut.registry import REPAIRS, SELECTORS
from rectilinear.ops.cut.repairs import RIDGE, Work
from rectilinear.ops.cut.selectors import Path, Search
from rectilinear.ops.cut.streams import Chunks, Teacher
from rectilinear.ops.cut.verdicts import Verdicts
from rectilinear.results import Loss, Plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS = 32_768
BATCH_TOKENS = 2048
JUDGE_TOKENS = 4096  # of the calibration text, which no repair is fitted on
SEARCH_TOKENS = 12_288  # that a selector looks at, the judge's among them
LEAST_PER_FEATURE = 0.25  # tokens; with fewer a refit would be noise
ENOUGH_PER_FEATURE = 2.0  # below, the ridge is raised
MAPS = ("linear", "patch")  # repairs that put affine maps in
EFFORTS = {"one-shot": 0, "balanced": 4, "thorough": 8}  # sets tried at each step of a search


@dataclass(frozen=True)
class Progress:
    """What is being done, in words, and how far: sets or layers done, of a total where it is known."""

    task: str
    done: int
    total: int | None = None


OnProgress = Callable[[Progress], None] | None


@dataclass(frozen=True)
class Options:
    """How to choose layers and repair what is left: the options of `prune`, where they are explained."""

    select: str = "kl"
    repair: str = "refit"
    refit_after: bool = False
    ridge: float = RIDGE
    rank: int | None = None
    tokens: int | None = TOKENS
    judge_tokens: int | None = JUDGE_TOKENS
    window: int = 512
    protect: tuple[int, ...] = ()
    effort: str = "balanced"
    seed: int = 0
    layers_path: str | None = None

    def checked(self) -> Options:
        """Return the options, a search that tries nothing under the name of what it comes down to.

        Raises ModelError for a name that is not known, or a ridge or rank that is none.
        """
        for value, known, what in (
            (self.select, SELECTORS, "a selector"),
            (self.repair, REPAIRS, "a repair"),
            (self.effort, EFFORTS, "an effort"),
        ):
            if value not in known:
                raise ModelError(f"expected {what} of {', '.join(known)}, got {value!r}.{nearest(value, known)}")
        if not (math.isfinite(self.ridge) and self.ridge > 0):
            raise ModelError(f"expected a ridge above 0, got {self.ridge}: 0.1 is the default")
        if self.rank is not None and (self.rank < 1 or self.repair not in MAPS):
            said = f"a rank of {self.rank}" if self.rank < 1 else f"one with the repair {self.repair}"
            raise ModelError(
                f"expected a rank of 1 or more, with a repair that puts maps in ({' or '.join(MAPS)}), got {said}"
            )
        return replace(self, select="linearity") if self.select == "kl" and not EFFORTS[self.effort] else self


class Bench:
    """A dense model, taken apart, with the windows to calibrate on; the first of them only judge."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        texts: Iterable[str],
        options: Options,
        *,
        judge_texts: Iterable[str] | None = None,
        journal: FilePath | None = None,
        on_progress: OnProgress = None,
    ) -> None:
        options = options.checked()
        devices = {str(device) for device in getattr(model, "hf_device_map", {}).values()}
        if len(devices) > 1:
            raise ModelError(f"expected a model on one device to cut, got one over {', '.join(sorted(devices))}")
        self.model = model
        self.options = options
        self.notes: list[str] = []
        self.stack: nn.ModuleList = decoder_stack(model, options.layers_path)
        self.runner = Runner(model, self.stack)
        self.fingerprint = fingerprint(model)
        self._on_progress = on_progress
        wrong = [i for i in options.protect if not 0 <= i < len(self.stack)]
        if wrong:
            raise ModelError(f"expected layers from 0 to {len(self.stack) - 1} to protect, got {wrong[0]}")
        limit = context_limit(model)
        self.window = min(options.window, limit or options.window)
        found = drawn_windows(tokenizer, texts, tokens=options.tokens, window=self.window, seed=options.seed)
        self.ids: Tensor = torch.from_numpy(found).to(model.device)
        if len(self.ids) < 2:
            raise TextError(f"expected two windows of {self.window} tokens or more, got {self.ids.numel()} tokens")
        self.batch = min(max(1, BATCH_TOKENS // self.window), max(1, len(self.ids) // 4))
        judge = min((options.judge_tokens or JUDGE_TOKENS) // self.window, len(self.ids) // 4)
        self.judging = max(1, judge // self.batch) * self.batch  # windows
        self.ridge = self._ridge()
        self.verdicts = Verdicts(journal, self._settings())
        self._apart: Tensor | None = None  # windows of another text to judge on
        self._apart_dense: Chunks = []
        if judge_texts is not None:
            cut = joined_windows(tokenizer, judge_texts, tokens=options.judge_tokens, window=self.window)
            self._apart = torch.from_numpy(cut).to(model.device)
            with evaluating(model):
                teacher = Teacher(self.runner, self._apart, batch=self.batch, keep=False)
                self._apart_dense = teacher.at(len(self.stack))

    @property
    def judges_apart(self) -> bool:
        """Whether the judge reads another text."""
        return self._apart is not None

    @property
    def judge(self) -> Judge:
        """The judge of what came out: on the other text if there is one, else on the windows no repair is fitted on."""
        return Judge(self.runner, self.ids[: self.judging] if self._apart is None else self._apart)

    def dense(self, teacher: Teacher) -> Chunks:
        """Return the last position of the dense stream on the judge's windows; `teacher` has that of the others."""
        return teacher.at(len(self.stack)) if self._apart is None else self._apart_dense

    def judged(self, work: Work, student: Chunks) -> Chunks:
        """Return the last position of the cut model's stream on the judge's windows; `student` has it of the others."""
        if self._apart is None:
            return student
        return work.through([self.runner.embed(part) for part in self._apart.split(self.batch)])

    @property
    def fit_tokens(self) -> int:
        """Tokens that repairs are fitted on."""
        return self.ids.numel() - self.judging * self.window

    @property
    def refit_after(self) -> bool:
        """Whether the kept layers above the first cut are refitted."""
        return self.options.refit_after and self.options.repair == "refit"

    def teacher(self) -> Teacher:
        """Return the dense streams of all windows, passing by."""
        return Teacher(self.runner, self.ids, batch=self.batch, keep=False)

    @cached_property
    def search_teacher(self) -> Teacher:
        """The dense streams of the windows that a search looks at, all positions kept; `release` lets go of them."""
        windows = max(SEARCH_TOKENS // self.window, 2 * self.judging)
        return Teacher(self.runner, self.ids[:windows], batch=self.batch, keep=True)

    def release(self) -> None:
        """Free the streams that a search kept."""
        vars(self).pop("search_teacher", None)

    def work(self, teacher: Teacher, removed: Iterable[int]) -> Work:
        """Return the work of cutting `removed`, with the fit windows that are the repairs' own."""
        count = len(self.stack)

        def on_layer(layer: int) -> None:
            self.tell("repairing", layer, count)

        return Work(
            self.runner,
            teacher,
            frozenset(removed),
            ridge=self.ridge,
            fit_from=self.judging // self.batch,
            rank=self.options.rank,
            on_layer=on_layer,
        )

    def path(self, count: int) -> tuple[Path, list[tuple[tuple[int, ...], float]]]:
        """Return what the selector would remove for every number of layers up to `count`, and the sets it tried."""
        tried: list[tuple[tuple[int, ...], float]] = []

        def on_try(removed: tuple[int, ...], verdict: float) -> None:
            tried.append((removed, verdict))
            self.tell("choosing layers", len(tried))

        self.tell("reading the dense model", 0)
        search = Search(
            self.runner,
            self.search_teacher,
            Judge(self.runner, self.ids[: self.judging]),
            frozenset(self.options.protect),
            repair=REPAIRS[self.options.repair],
            fit_from=self.judging // self.batch,
            width=EFFORTS[self.options.effort],
            ridge=self.ridge,
            seed=self.options.seed,
            on_try=on_try,
            verdicts=self.verdicts,
            asked=f"divergence after {self.options.repair}",
        )
        if len(search.layers) < count or count >= len(self.stack):
            raise ModelError(
                f"expected at most {min(len(search.layers), len(self.stack) - 1)} layers to remove of "
                f"{len(self.stack)}, {len(self.options.protect)} of them protected, got {count}"
            )
        path = SELECTORS[self.options.select](search, count)
        if count not in path:
            raise ModelError(f"the selector {self.options.select} finds no {count} layers beside the protected ones")
        return path, tried

    def number(self, remove: int | str) -> int:
        """Return how many layers a number or a share like "20%" is; raises ModelError for anything else."""
        said = str(remove).strip()
        try:
            count = math.floor(float(said[:-1]) / 100 * len(self.stack)) if said.endswith("%") else int(said)
        except (ValueError, OverflowError):
            raise ModelError(f"expected a number of layers, or a share like 20%, got {said!r}") from None
        if count < 1:
            raise ModelError(f"expected at least one of the {len(self.stack)} layers to remove, got {said}")
        return count

    def given(self, layers: Sequence[int]) -> tuple[int, ...]:
        """Return layers that were named, checked; raises ModelError for those that cannot go."""
        chosen = tuple(sorted(layers))
        wrong = [i for i in chosen if not 0 <= i < len(self.stack)]
        if wrong or len(set(chosen)) < len(chosen):
            said = f"{wrong[0]}" if wrong else "one of them twice"
            raise ModelError(f"expected layers from 0 to {len(self.stack) - 1}, each once, got {said}")
        if kept := sorted(set(chosen) & set(self.options.protect)):
            raise ModelError(f"expected layers that are not protected, got {in_words(kept)}")
        if not 0 < len(chosen) < len(self.stack):
            raise ModelError(f"expected 1 to {len(self.stack) - 1} layers to remove, got {len(chosen)}")
        return chosen

    def plan(self, removed: tuple[int, ...], *, given: bool) -> Plan:
        """Return the plan that the options and the choice amount to."""
        return Plan(
            remove=removed,
            layers=len(self.stack),
            select="given" if given else self.options.select,
            repair=self.options.repair,
            refit_after=self.refit_after,
            ridge=self.ridge,
            rank=self.options.rank,
            model=model_id(self.model),
            fingerprint=self.fingerprint,
            calibration={
                "tokens": self.ids.numel(),
                "kept_tokens": self.judging * self.window,
                "judge_tokens": self.judge.ids.numel(),
                "judge_apart": self.judges_apart,
                "window": self.window,
                "seed": self.options.seed,
            },
        )

    def tell(self, task: str, done: int, total: int | None = None) -> None:
        """Report progress."""
        if self._on_progress is not None:
            self._on_progress(Progress(task, done, total))

    def _settings(self) -> dict[str, Any]:
        """Return what verdicts depend on, beside the sets."""
        windows = hashlib.sha256(self.ids.to("cpu", torch.int64).numpy().tobytes()).hexdigest()[:16]
        facts = {"model": self.fingerprint, "text or seed": windows, "window": self.window, "ridge": self.ridge}
        return {**facts, "dtype": str(self.model.dtype), "judge_tokens": self.judging * self.window}

    def _features(self) -> int:
        return output_projection(self.stack[0]).in_features

    def _ridge(self) -> float:
        """Return the ridge, raised where the text is short; raises TextError where it is too short."""
        if self.options.repair != "refit":
            return self.options.ridge
        features = self._features()
        if self.fit_tokens < LEAST_PER_FEATURE * features:
            raise TextError(
                f"expected {math.ceil(LEAST_PER_FEATURE * features):,} tokens or more to refit {features:,} features "
                f"({ENOUGH_PER_FEATURE * features:,.0f} to do it well), got {self.fit_tokens:,}: give more --text"
            )
        short = ENOUGH_PER_FEATURE * features / self.fit_tokens
        if short > 1:
            self.notes.append(
                f"{self.fit_tokens:,} tokens are few to refit {features:,} features: the ridge is raised by "
                f"{short:.1f}; {ENOUGH_PER_FEATURE * features:,.0f} would do."
            )
        return self.options.ridge * max(1.0, short)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Keep dropout and the like switched off, and gradients away."""
    with torch.no_grad(), eval_mode(model):
        yield


def options_of(plan: Plan, **others: Any) -> Options:
    """Return the options that a plan was made with."""
    return Options(
        repair=plan.repair,
        refit_after=plan.refit_after,
        ridge=plan.ridge,
        rank=plan.rank,
        tokens=plan.calibration.get("tokens"),
        window=plan.calibration.get("window", 512),
        seed=plan.calibration.get("seed", 0),
        judge_tokens=plan.calibration.get("kept_tokens", JUDGE_TOKENS),
        **others,
    )


def judged(bench: Bench, work: Work, student: Chunks, dense: Chunks) -> tuple[Loss, Loss]:
    """Return what the dense and the cut model are worth to the bench's judge.

    student: the cut model's last position on the calibration windows; dense: the dense one's on the judge's.
    """
    judge, cut = bench.judge, bench.judged(work, student)
    return Loss(judge.perplexity(dense), 0.0), Loss(judge.perplexity(cut), judge.divergence(cut, dense))


def parameters(model: nn.Module) -> int:
    """Return the number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
