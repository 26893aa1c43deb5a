"""The page: a prompt, where the model is not linear on it, and what if layers were not there or linear."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib.resources import files
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from rectilinear.app import views
from rectilinear.app.engine import FIT, Engine, Question
from rectilinear.app.guard import Guard
from rectilinear.core.spans import spans_of
from rectilinear.errors import RectilinearError, ResultError
from rectilinear.models.heap import few_arenas

PROMPT = "The capital of France is Paris, and the capital of Germany is"
LEAST, MOST = 1.0, 2.0  # relative error: where the slider begins, and its end
TITLE = """<h1>Where is it not linear?</h1>
<p class="note">A cell is one layer on one token: how far what the layer adds is from what its linear map says.</p>"""
WHAT_IF = """<h2>What if</h2>
<p class="note">some layers were not there, or added what their linear map of all tokens says?</p>"""
FONTS = ("system-ui", "sans-serif")
# A press on a cell of the heat map picks its layer and its token.
PICK = """
element.addEventListener("click", event => {
  const cell = event.target.closest(".heat tbody td");
  if (!cell || cell.cellIndex === cell.parentNode.cells.length - 1) return;
  trigger("select", {layer: cell.cellIndex - 1, token: cell.parentNode.sectionRowIndex});
});
"""


def serve(engine: Engine, *, port: int, share: bool = False) -> gr.Blocks:
    """Start the page on a loopback address and return it; `share` puts it on a public address of Gradio's too.

    Raises RectilinearError where the port is taken or the public address cannot be had.
    """
    _steady()
    blocks = build(engine)
    try:
        blocks.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=share,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            theme=gr.themes.Base(font=FONTS, font_mono=("ui-monospace", "monospace")),
            head=_head(),
            app_kwargs={"middleware": [Middleware(Guard, local=not share)]},
        )
    except OSError as error:
        raise RectilinearError(f"cannot serve on port {port}: it is in use; name another with --port") from error
    if share and blocks.share_url is None:
        blocks.close(verbose=False)
        raise RectilinearError("cannot get a public address from Gradio's servers: leave --share out to stay local")
    return blocks


def _steady() -> None:
    """Keep the server's memory level over any number of answers."""
    # Gradio keeps a record of ten thousand events: each holds back the memory that lies around it.
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "64")
    few_arenas()
    # Python looks for garbage when what is new is a quarter of what is old: torch and transformers are a lot.
    gc.collect()
    gc.freeze()


def _head() -> str:
    shared = files("rectilinear.report").joinpath("templates/prompt.css").read_text(encoding="utf-8")
    return f"<style>\n{shared}{_own('style.css')}</style>"


def _own(name: str) -> str:
    return files("rectilinear.app").joinpath(name).read_text(encoding="utf-8")


def build(engine: Engine) -> gr.Blocks:
    """Return the page, not yet served; loads the first model."""
    first = engine.models[0]
    layers, known = engine.open(first), engine.maps_of(first)
    if known[0] != FIT:
        engine.look(Question(first, known[0], PROMPT))  # so that the maps are at hand when the page is opened
    with gr.Blocks(analytics_enabled=False, title="rectilinear", fill_width=True) as blocks:
        _wire(blocks, _laid_out(engine.models, layers, known), Handlers(engine))
    return blocks


@dataclass(frozen=True)
class _Parts:
    """The components of the page."""

    question: gr.State
    prompt: gr.Textbox
    model: gr.Dropdown
    maps: gr.Dropdown
    look: gr.Button
    notice: gr.HTML
    heat: gr.HTML
    layer: gr.Slider
    token: gr.Slider
    least: gr.Slider
    table: gr.HTML
    lens: gr.HTML
    removed: gr.CheckboxGroup
    linear: gr.CheckboxGroup
    doubt: gr.HTML
    dense: gr.HTML
    changed: gr.HTML


def _laid_out(models: Sequence[str], layers: int, known: Sequence[str]) -> _Parts:
    """Return the components, in their places on the page."""
    _html("title", TITLE)
    with gr.Row():
        with gr.Column(scale=3):
            prompt = gr.Textbox(PROMPT, label="Prompt (Shift + Enter to look)", lines=5, max_lines=12, elem_id="prompt")
        with gr.Column(scale=1, min_width=260):
            model = gr.Dropdown(list(models), value=models[0], label="Model", elem_id="model")
            maps = gr.Dropdown(list(known), value=known[0], label="Linear maps", elem_id="maps")
            look = gr.Button("Look", variant="primary", elem_id="look")
    notice, heat = _html("notice"), _html("heat", js_on_load=PICK)
    with gr.Row():
        layer = gr.Slider(0, layers - 1, value=layers // 2, step=1, label="Layer", elem_id="layer")
        token = gr.Slider(0, 1, value=0, step=1, label="Token", elem_id="token")
        least = gr.Slider(0, MOST, value=LEAST, step=0.05, label="Threshold of the relative error", elem_id="least")
    with gr.Row():
        table, lens = _column("table"), _column("lens")
    _html("what-if", WHAT_IF)
    numbers = list(range(layers))
    removed = gr.CheckboxGroup(numbers, label="Removed", elem_id="removed", elem_classes="layers")
    linear = gr.CheckboxGroup(numbers, label="Linear", elem_id="linear", elem_classes="layers")
    doubt = _html("doubt")
    with gr.Row():
        dense, changed = _column("dense"), _column("changed")
    return _Parts(
        question=gr.State(None),
        prompt=prompt,
        model=model,
        maps=maps,
        look=look,
        notice=notice,
        heat=heat,
        layer=layer,
        token=token,
        least=least,
        table=table,
        lens=lens,
        removed=removed,
        linear=linear,
        doubt=doubt,
        dense=dense,
        changed=changed,
    )


def _html(name: str, value: str = "", **options: Any) -> gr.HTML:
    return gr.HTML(value, elem_id=name, apply_default_css=False, **options)


def _column(name: str) -> gr.HTML:
    with gr.Column(min_width=380):
        return _html(name)


class Handlers:
    """What happens when something is pressed: from the values of components to those of others."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def choose(self, model: str) -> tuple[Any, ...]:
        """Return question, maps, layer, removed and linear for another model, and nothing for what is shown of it."""
        layers = self._engine.open(model)
        known = self._engine.maps_of(model)
        fresh = [gr.CheckboxGroup(list(range(layers)), value=[]) for _ in range(2)]
        layer = gr.Slider(maximum=layers - 1, value=layers // 2)
        return None, gr.Dropdown(known, value=known[0]), layer, *fresh, *[""] * 5

    def ask(
        self,
        model: str,
        maps: str,
        prompt: str,
        layer: int,
        least: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio looks for it there
    ) -> tuple[Any, ...]:
        """Return question, token, heat map, table and lens for a prompt, looked at from its last token."""

        def tell(done: int, total: int) -> None:
            progress((done, total), desc="fitting maps", unit="tokens")

        asked = Question(model, maps, prompt)
        result = self._engine.look(asked, on_progress=tell)
        last = len(result.tokens) - 1
        token = gr.Slider(maximum=max(last, 1), value=last)
        return asked, token, views.prompt_view(result), *self.show(asked, layer, last, least)

    def opened(self, model: str, maps: str, *values: Any) -> tuple[Any, ...]:
        """Ask for what stands on the page as it is opened, but where maps would have to be fitted first."""
        if maps == FIT:
            raise ResultError(
                f"no maps of {model} were found: Look fits some first, which takes minutes; those of "
                "`rectilinear scan --keep-moments` are there at once"
            )
        return self.ask(model, maps, *values)

    def show(self, asked: Question | None, layer: int, token: int, least: float) -> tuple[Any, ...]:
        """Return table and lens for a layer, a token and a threshold."""
        if asked is None:
            return gr.skip(), gr.skip()
        result = self._engine.look(asked, token)
        table = views.layer_view(result, layer, least, self._engine.scan(asked))
        return table, views.token_view(result, layer, min(token, len(result.tokens) - 1))

    def pick(self, asked: Question | None, least: float, event: gr.EventData) -> tuple[Any, ...]:
        """Return layer, token, table and lens for the cell that was pressed."""
        layer, token = int(event.layer), int(event.token)
        return layer, token, *self.show(asked, layer, token, least)

    def compare(self, asked: Question | None, removed: list[int], linear: list[int]) -> tuple[Any, ...]:
        """Return what the dense model makes of the prompt, and what it does with stand-ins for layers."""
        if asked is None:
            return gr.skip(), gr.skip()
        dense = self._engine.read(asked)
        changed = self._engine.read(asked, sorted(removed), sorted(linear))
        wishes = {"removed": removed, "linear": linear}
        said = " · ".join(
            f"{', '.join(map(str, spans_of(layers)))} {what}" for what, layers in wishes.items() if layers
        )
        return views.reading_view("Dense", dense), views.reading_view(said or "Nothing changed yet", changed, dense)


def _wire(blocks: gr.Blocks, parts: _Parts, handlers: Handlers) -> None:
    """Say what is called when."""
    shown = [parts.table, parts.lens]
    picked = [parts.layer, parts.token, parts.least]
    mark: dict[str, Any] = {"fn": None, "inputs": picked, "js": _own("mark.js")}
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "always_last"}
    compare: dict[str, Any] = {
        "fn": _told(handlers.compare, parts.doubt),
        "inputs": [parts.question, parts.removed, parts.linear],
        "outputs": [parts.doubt, parts.dense, parts.changed],
        "api_visibility": "private",
        "trigger_mode": "always_last",
    }

    def ask(on: Sequence[Any], handler: Callable[..., Any]) -> None:
        gr.on(
            on,
            _told(handler, parts.notice),
            [parts.model, parts.maps, parts.prompt, parts.layer, parts.least],
            [parts.notice, parts.question, parts.token, parts.heat, *shown],
            show_progress_on=[parts.heat],
            api_visibility="private",
        ).then(**mark).then(**compare)

    ask([parts.look.click, parts.prompt.submit], handlers.ask)
    ask([blocks.load], handlers.opened)
    for slider in picked:
        slider.input(**mark)
        slider.input(_told(handlers.show, parts.notice), [parts.question, *picked], [parts.notice, *shown], **quiet)
    parts.heat.select(
        _told(handlers.pick, parts.notice),
        [parts.question, parts.least],
        [parts.notice, parts.layer, parts.token, *shown],
        **quiet,
    ).then(**mark)
    for here, there in ((parts.removed, parts.linear), (parts.linear, parts.removed)):
        # A layer is either: what is switched on in one place is switched off in the other.
        here.input(_without, [here, there], there, **quiet).then(**compare)
    fresh = [parts.question, parts.maps, parts.layer, parts.removed, parts.linear]
    cleared = [parts.heat, *shown, parts.dense, parts.changed]
    parts.model.input(
        _told(handlers.choose, parts.notice), parts.model, [parts.notice, *fresh, *cleared], api_visibility="private"
    )


def _without(here: list[int], there: list[int]) -> list[int]:
    return [layer for layer in there if layer not in here]


def _told(handler: Callable[..., tuple[Any, ...]], notice: gr.HTML) -> Callable[..., Any]:
    """Return the handler with `notice` before its outputs: what the user can mend, or nothing."""

    @wraps(handler)
    def told(*values: Any) -> Any:
        try:
            return "", *handler(*values)
        except RectilinearError as error:
            return {notice: views.notice(str(error))}

    return told
