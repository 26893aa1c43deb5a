"""What a scan has gathered, as files: written while it runs or by a shard of it, read to go on or to be merged.

A folder holds a file for every layer, one for the stream, one for the spans if they are gathered, and a document that
comes last and names them with their digests: without it the folder is not whole. Everything adds up, so reading one
state on top of another merges them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rectilinear.core.grams import Grams
from rectilinear.core.moments import Moments
from rectilinear.core.tails import LogHistogram
from rectilinear.digests import AGAIN, FILES, check_digest, check_seal, sealed
from rectilinear.errors import ResultError, first_line
from rectilinear.files import write_whole, writing
from rectilinear.ops.carriers import Carried
from rectilinear.ops.layers import GEOMETRY, Gatherer, Layer
from rectilinear.ops.pair import GROUPS, Pair
from rectilinear.ops.pairs import Spans
from rectilinear.ops.parts import NAMES, Part, Submodules
from rectilinear.ops.passage import Kept
from rectilinear.ops.positions import Position
from rectilinear.ops.sinks import NamedSinks, Sink
from rectilinear.reading import from_json, read_json
from rectilinear.results import SCHEMA
from rectilinear.results.checked import DAMAGED

KIND = "scan state"
DOCUMENT, STREAM, SPANS = "state.json", "stream.safetensors", "spans.safetensors"
SETS = ("fitted", "heldout")  # of spans
MOST = 1 << 20  # rows of nothing: a tensor [n, 0] takes no bytes in a file, but is n lists

Tensors = dict[str, Tensor]
Saved = tuple[Tensors, dict[str, Any]]  # tensors, and what JSON holds


def save_state(
    folder: str | Path,
    gatherer: Gatherer,
    parts: Submodules | None = None,
    *,
    facts: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
) -> None:
    """Write what was gathered into a folder, which is made; `facts` go into its document.

    files: others that belong to the state and lie in the folder already, by name, with their digests. Raises
    ResultError where it cannot be written.
    """
    folder = Path(folder)
    known = dict(files or {})
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)

        def write(name: str, saved: Saved) -> None:
            known[name] = _write(folder / name, saved)

        for index, layer in enumerate(gatherer.layers):
            if layer is not None:
                write(_layer_file(index), _layer_saved(layer, parts, index))
        write(STREAM, _stream_saved(gatherer))
        if gatherer.spans is not None:
            write(SPANS, _spans_saved(gatherer.spans))
        document = sealed({"schema": SCHEMA, "kind": KIND, **facts, FILES: known})
        write_whole(folder / DOCUMENT, f"{json.dumps(document, indent=1)}\n".encode())


def state_facts(folder: str | Path, remedy: str = AGAIN) -> dict[str, Any]:
    """Return the document of a state; raises ResultError where there is none, or it is damaged or of another schema."""
    file = Path(folder) / DOCUMENT
    document = read_json(file, "scan again")
    if (document.get("schema"), document.get("kind")) != (SCHEMA, KIND):
        raise ResultError(f"expected the state of a scan of schema {SCHEMA} in {file}, got another; scan again")
    check_seal(file, document, remedy)
    return document


def load_state(
    folder: str | Path, gatherer: Gatherer, parts: Submodules | None = None, remedy: str = AGAIN
) -> dict[str, Any]:
    """Add the state in a folder to what a gatherer and its parts hold, a layer at a time; return its document.

    An empty gatherer is then as it was when the state was saved, but on the CPU until rows come from elsewhere; into
    others the state is merged. Raises ResultError, with what to do (`remedy`), where it is not whole, damaged, or of
    another schema.
    """
    folder = Path(folder)
    document = state_facts(folder, remedy)
    known = document.get(FILES)  # None: of an earlier version

    def read(name: str) -> Saved:
        file = folder / name
        if known is not None:
            check_digest(file, known[name], remedy)
        return _read(file)

    try:
        for index in range(len(gatherer.layers)):
            name = _layer_file(index)
            if name in known if known is not None else (folder / name).exists():
                layer = _layer_loaded(read(name), parts, index)
                before = gatherer.layers[index]
                layer = gatherer.layers[index] = layer if before is None else before.merge(layer)
                gatherer.hold(layer.pair, layer.outputs)
        _add_stream(read(STREAM), gatherer)
        if gatherer.spans is not None:
            gatherer.spans.merge_(_spans_loaded(read(SPANS), gatherer.spans))
    except (OSError, RuntimeError, *DAMAGED) as error:
        raise ResultError(f"cannot read the state in {folder}: {first_line(error)}; scan again") from error
    return document


def _layer_file(index: int) -> str:
    return f"layer-{index:03}.safetensors"


def _write(file: Path, saved: Saved) -> str:
    """Write a file and return its digest, taken of what is in memory."""
    from safetensors.torch import save

    tensors, facts = saved
    whole: Tensors = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.data_ptr()
        # Both maps of a pair may share a center: safetensors wants each in a place of its own.
        whole[name] = tensor.clone() if place in seen else tensor.cpu().contiguous()
        seen.add(place)
    data = save(whole, {"facts": json.dumps(facts)})
    write_whole(file, data)  # safetensors' own writer hides a full disk
    return sha256(data).hexdigest()


def _read(file: Path) -> Saved:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
            facts = from_json(opened.metadata()["facts"])
    except SafetensorError as error:
        raise ValueError(f"{file.name} is damaged: {error}") from error
    if any(not tensor.numel() and max(tensor.shape) > MOST for tensor in tensors.values()):
        raise ValueError(f"{file.name} is damaged: no numbers in a tensor of more than {MOST} rows")
    return tensors, facts


def _named(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Tensors) -> Tensors:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _pair_saved(pair: Pair) -> Tensors:
    groups = {name: getattr(pair, name) for name in GROUPS}
    found: Tensors = {}
    for name, group in groups.items():
        if group is not None:
            found |= _named(name, group.to_tensors())
    return found


def _pair_loaded(tensors: Tensors) -> Pair:
    d = len(tensors["ordinary.shift_x"])
    pair = Pair(d, torch.device("cpu"))
    for name, kind in GROUPS.items():
        held = _under(name, tensors)
        setattr(pair, name, kind.from_tensors(held) if held else None)
    return pair


def _layer_saved(layer: Layer, parts: Submodules | None, index: int) -> Saved:
    carried, sinks = layer.carried, layer.sinks
    tensors = _named("pair", _pair_saved(layer.pair)) | _named("errors", layer.errors.to_tensors())
    tensors |= {
        "carried.counts": torch.from_numpy(carried.counts),
        "carried.squares": torch.from_numpy(carried.squares),
    }
    tensors |= {f"sample.{batch}": rows for batch, rows in layer.sample.items()}
    for name, errors in carried.errors.items():
        tensors |= _named(f"kinds.{name}", errors.to_tensors())
    if layer.outputs is not None:
        tensors |= _named("outputs", layer.outputs.to_tensors())
    facts: dict[str, Any] = {
        "geometry": {name: getattr(layer, name) for name in GEOMETRY},
        "carried": {"sinks": carried.sinks, "sink_squares": carried.sink_squares, "errors": list(carried.errors)},
        "triggers": layer.triggers,
        "sinks": {"count": sinks.count, "kinds": [(kind, astuple(sink)) for kind, sink in sinks.kinds.items()]},
        "parts": {},
    }
    for name in () if parts is None else NAMES:
        assert parts is not None
        part = parts.parts.get((index, name))
        if part is not None:
            tensors |= _named(name, _pair_saved(part.pair))
            facts["parts"][name] = {"ratio_sum": part.ratio_sum, "count": part.count}
    return tensors, facts


def _layer_loaded(saved: Saved, parts: Submodules | None, index: int) -> Layer:
    tensors, facts = saved
    known = facts["carried"]
    carried = Carried(
        tensors["carried.counts"].numpy(), tensors["carried.squares"].numpy(), known["sinks"], known["sink_squares"]
    )
    for name in known["errors"]:
        carried.errors[name] = LogHistogram.from_tensors(_under(f"kinds.{name}", tensors))
    kinds = {tuple(kind): Sink(count, norm, tuple(first)) for kind, (count, norm, first) in facts["sinks"]["kinds"]}
    outputs = _under("outputs", tensors)
    for name, part in facts["parts"].items() if parts is not None else ():
        assert parts is not None
        parts.merge_((index, name), Part(_pair_loaded(_under(name, tensors)), **part))
    return Layer(
        pair=_pair_loaded(_under("pair", tensors)),
        outputs=Moments.from_tensors(outputs) if outputs else None,
        errors=LogHistogram.from_tensors(_under("errors", tensors)),
        carried=carried,
        triggers=[(*trigger[:-1], tuple(trigger[-1])) for trigger in facts["triggers"]],
        sinks=NamedSinks(facts["sinks"]["count"], kinds),
        sample={int(batch): rows for batch, rows in _under("sample", tensors).items()},
        **facts["geometry"],
    )


def _stream_saved(gatherer: Gatherer) -> Saved:
    tensors: Tensors = {}
    for index, position in enumerate(gatherer.positions):
        tensors |= _named(f"norms.{index}", position.norms.to_tensors())
    passage = gatherer.passage
    tensors["passage.token"] = torch.from_numpy(np.ascontiguousarray(passage.token))
    tensors |= {f"passage.{name}": torch.from_numpy(array) for name, array in passage.arrays().items()}
    if gatherer.kinds is not None:
        tensors["kinds"] = torch.from_numpy(gatherer.kinds.table)
    thresholds = [position.threshold for position in gatherer.positions]
    return tensors, {"thresholds": thresholds, "passage": {"batch": passage.batch, "place": passage.place}}


def _add_stream(saved: Saved, gatherer: Gatherer) -> None:
    tensors, facts = saved
    for index, threshold in enumerate(facts["thresholds"]):
        found = Position(LogHistogram.from_tensors(_under(f"norms.{index}", tensors)), threshold)
        gatherer.positions[index] = gatherer.positions[index].merge(found)
    passage = Kept(facts["passage"]["batch"], tuple(facts["passage"]["place"]), tensors["passage.token"].numpy())
    if passage.batch is not None:
        passage.error = list(tensors["passage.passage_error"].numpy())
        passage.sink = list(tensors["passage.passage_sink"].numpy())
    gatherer.passage = gatherer.passage.merge(passage)
    if gatherer.kinds is not None and "kinds" in tensors:
        gatherer.kinds.merge_(tensors["kinds"].numpy())


def _spans_saved(spans: Spans) -> Saved:
    tensors: Tensors = {}
    for name in SETS:
        grams = getattr(spans, name)
        if grams is not None:
            tensors |= _named(name, grams.to_tensors())
    return tensors, {}


def _spans_loaded(saved: Saved, like: Spans) -> Spans:
    tensors, _ = saved
    found = {name: _under(name, tensors) for name in SETS}
    sets = {name: Grams.from_tensors(held) if held else None for name, held in found.items()}
    return Spans(like.layers, like.width, sets["fitted"], sets["heldout"])
