"""What a folder with a model must hold, before anything of it is read."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Any

from rectilinear.errors import ModelError, first_line
from rectilinear.reading import from_json

INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
MOST_LAYERS = 10_000  # where the number of weights is not known


def check_folder(path: Path) -> None:
    """Raise ModelError where a folder does not hold a configuration and all of its weights, as safetensors.

    Also where the configuration claims more layers than the files have weights: libraries would go through them all.
    """
    names = [p.name for p in path.iterdir()]
    if "config.json" not in names:
        raise ModelError(f"expected a model folder with a config.json, got {path}: it holds {len(names)} other files")
    _check_shards(path)
    if ADAPTER in names and "adapter_model.safetensors" not in names:
        raise ModelError(f"expected the weights of the adapter in {path} as adapter_model.safetensors, got none")
    if any(name.endswith(".safetensors") for name in names):
        _check_depth(path)
        return
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        raise ModelError(
            f"expected safetensors weights in {path}, got pickles only: they can run code and are not read; "
            "convert them with save_pretrained in a place that you trust"
        )
    raise ModelError(f"expected weights (*.safetensors) in {path}, got none")


def _check_shards(path: Path) -> None:
    """Raise ModelError where a file of weights that the index names is not there."""
    index = _document(path / INDEX)
    if index is None:
        return
    places = index.get("weight_map")
    if not isinstance(places, dict):
        raise ModelError(f"expected a weight_map in {path / INDEX}, got none")
    outside = [place for place in places.values() if not _inside(place)]
    if outside:
        raise ModelError(f"expected names of files in the folder itself in {path / INDEX}, got {outside[0]!r}")
    named = sorted(set(places.values()))
    missing = [name for name in named if not (path / name).is_file()]
    if missing:
        raise ModelError(
            f"expected {len(named)} files of weights in {path}, got {len(named) - len(missing)}: no {missing[0]}"
        )


def _inside(place: Any) -> bool:
    """Tell whether the name of a file, as an index gives it, is one in the folder or below."""
    if not isinstance(place, str) or not place.isprintable():
        return False
    path = PureWindowsPath(place)  # knows both kinds of slashes, and drives
    return bool(path.parts) and not path.anchor and ".." not in path.parts


def _check_depth(path: Path) -> None:
    """Raise ModelError where any number of layers in the configuration is beyond the number of weights."""
    config = _document(path / "config.json") or {}
    most, weights = _weights(path)
    if not most:
        raise ModelError(f"expected weights in the files of {path}, got none")
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for name, count in part.items():
            named = (name.endswith("layers") or name == "n_layer") and not name.startswith("max_")  # Qwen2: of windows
            if named and isinstance(count, int | float) and count > most:
                said = f"{most:,} weights" if weights else f"at most {most:,}"
                raise ModelError(f"expected a number of layers that fits {said} in {path / 'config.json'}: {name}")


def _weights(path: Path) -> tuple[int, bool]:
    """Return how many weights the files of a folder hold and True; a bound and False where a head is not readable."""
    from safetensors import SafetensorError, safe_open

    count = 0
    try:
        for file in path.glob("*.safetensors"):
            with safe_open(file, "numpy") as held:
                count += len(held.keys())
    except (OSError, SafetensorError):
        return MOST_LAYERS, False
    return count, True


def stored_bytes(path: Path) -> int | None:
    """Return how many bytes of weights the files of a folder hold, by their heads; None where one is not readable."""
    total = 0
    for file in path.glob("*.safetensors"):
        with file.open("rb") as held:
            head = held.read(8)
        total += file.stat().st_size - len(head) - int.from_bytes(head, "little")
    return total if total > 0 else None


def _document(path: Path) -> dict[str, Any] | None:
    """Return what a JSON file holds, None where there is none; raises ModelError where it is no object."""
    try:
        found = from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise ModelError(f"expected an object in {path}, got {type(found).__name__}")
    return found


def check_heads(path: Path, model: str) -> None:
    """Raise ModelError where a file of weights is cut short or damaged, as far as its head tells."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, "numpy"):
                pass
        except (OSError, SafetensorError) as error:
            raise ModelError(f"cannot read the weights of {model!r}, {file.name}: {first_line(error)}") from error


def tokenizer_place(source: str) -> str:
    """Return where a model's tokenizer is: that of a checkpoint without its own may lie in one of two folders above."""
    folder = Path(source)
    if folder.name.startswith("checkpoint-"):
        for place in (folder, *folder.absolute().parents[:2]):
            if (place / "tokenizer_config.json").is_file():
                return str(place)
    return source
