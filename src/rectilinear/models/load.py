"""Load a model and its tokenizer from the Hub, a folder, a GGUF file or the demo."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rectilinear.errors import ModelError, first_line, nearest
from rectilinear.hub import fault, limit_patience
from rectilinear.models.demo import demo_gguf, demo_place
from rectilinear.models.folders import check_folder, check_heads, tokenizer_place
from rectilinear.models.gguf import config_of, converted, folder_of
from rectilinear.models.quiet import quiet
from rectilinear.models.siblings import is_sibling, sibling_folder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DEMO = "demo"
PROBE = "One,  two\n\tand 1234.5: it's naïve – 語 😀 </s>"  # text that tokenizers cut each in their own way


def load(
    model: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    outputs: int | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return (model, tokenizer), the model in eval mode.

    model: `demo`, `demo:tiny`, a local folder, a .gguf file, or a Hub id. dtype: auto (the checkpoint's own; float16
    becomes float32 on a CPU), float32, bfloat16, float16. device: auto (CUDA, then MPS, then CPU), a torch device, or
    `balanced` to spread the layers over all GPUs. Weights are read from safetensors only; checkpoints with linear
    blocks need no trust. The dtype of the checkpoint is remembered for `save_model`. outputs: how many a
    head on the last real token gives, which takes the place of the one for language and starts from random numbers.
    Raises ModelError, one line each.
    """
    import torch
    from safetensors import SafetensorError

    from rectilinear.models.auto import register

    register()
    source = str(_resolve(model))
    where = device_of(device)
    common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with quiet():
        config = _config(model, source, common)
        chosen = _dtype(dtype, config, where)
        placed = {"device_map": "auto"} if where == "balanced" else {}
        kind, headed = (
            (_class(config, model), {}) if outputs is None else (_classifier(config, model), {"num_labels": outputs})
        )
        try:
            loaded = kind.from_pretrained(source, dtype=chosen, use_safetensors=True, **placed, **headed, **common)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"cannot load the weights of {model!r}: {_why(error)}") from error
        tokenizer = _tokenizer(model, source, common)
    if where != "balanced":
        loaded.to(torch.device(where))
    loaded.config._name_or_path = model  # not the folder in the cache
    loaded.stored_dtype = _own_dtype(config)
    return loaded.eval(), tokenizer


def load_tokenizer(
    model: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Return the tokenizer that `load` would, without the model; raises ModelError where there is none."""
    with quiet():
        return _tokenizer(model, str(_resolve(model)), {"revision": revision, "trust_remote_code": trust_remote_code})


def kept_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return a tokenizer from where `save_pretrained` put it, without a model; raises ModelError where it is none."""
    with quiet():
        return _tokenizer(str(folder), str(folder), {})


def check_found(model: str, *, revision: str | None = None, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Return the configuration of a model; raises the ModelError of `load` now, not after an hour of other work.

    Of weights only the heads of local files are read, which tell whether a file is whole.
    """
    from rectilinear.models.auto import register

    register()
    place = _resolve(model)
    with quiet():
        config = _config(model, str(place), {"revision": revision, "trust_remote_code": trust_remote_code})
        _class(config, model)
    if isinstance(place, Path):
        check_heads(place, model)
    return config


def skeleton(
    model: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Return the model that `load` would, without its weights: built from its configuration on torch's meta device.

    Options as for `load`. Nothing is converted, and nothing fetched but a configuration from the Hub. Raises ModelError
    where `load` would, weights and tokenizer aside, and where the demo has not been fetched yet.
    """
    import torch

    from rectilinear.models.auto import register

    register()
    where = device_of(device)
    common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    if model == DEMO and not demo_place().is_file():
        raise ModelError("the demo model is not here yet: run `rectilinear scan demo` once, which fetches it")
    with quiet():
        config = _config_alone(model, common)
        chosen = _dtype(dtype, config, where)
        if chosen == "auto":
            chosen = _own_dtype(config) or torch.float32
        with torch.device("meta"):
            return _class(config, model).from_config(config, dtype=chosen, trust_remote_code=trust_remote_code)


def model_id(model: PreTrainedModel) -> str:
    """Return the name a model was loaded by, its class where it has none."""
    return getattr(model.config, "_name_or_path", "") or type(model).__name__


def fingerprint(model: PreTrainedModel) -> str:
    """Return 16 hex digits that tell models apart: the configuration's and a few values of every weight.

    The dtype that the weights are loaded in does not count, but for what it rounds off.
    """
    import torch

    config = _without_dtype(model.config.to_dict())
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in model.named_parameters():
        digest.update(name.encode())
        values = weight.detach()
        if values.device.type != "meta" and type(values) is torch.Tensor:  # quantisers' own kinds show none
            digest.update(values.flatten()[:8].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return 16 hex digits that tell tokenizers apart: by the vocabulary, and by how some text is cut."""
    vocabulary = tokenizer.get_vocab()
    by_id = "\0".join(sorted(vocabulary, key=vocabulary.__getitem__))
    cut = tokenizer(PROBE, verbose=False)["input_ids"]
    return hashlib.sha256(f"{by_id}\0{cut}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _without_dtype(config: dict[Any, Any]) -> dict[str, Any]:
    named = {str(k): v for k, v in config.items()}
    kept = {k: v for k, v in named.items() if not k.startswith(("_", "transformers_version")) and k != "dtype"}
    return {k: _without_dtype(v) if isinstance(v, dict) else v for k, v in kept.items()}


def _resolve(model: str) -> Path | str:
    """Return a folder or Hub id that transformers can read, converting GGUF on first use."""
    place = _gguf(model)
    if place is not None:
        return converted(demo_gguf() if model == DEMO else place[0], place[1])
    if is_sibling(model):
        return sibling_folder(model)
    path = Path(model).expanduser()
    if path.is_file():
        raise ModelError(f"expected a folder, a .gguf file or a Hub id, got the file {model}")
    if path.is_dir():
        check_folder(path)
        return path
    if model.endswith(".gguf") or model.startswith(("/", ".", "~")) or model.count("/") > 1:
        there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ModelError(f"no such model folder or file: {model}.{nearest(path.name, there)}")
    limit_patience()
    return model


def _gguf(model: str) -> tuple[Path, Path] | None:
    """Return a GGUF file and the folder of its conversion; None where the model is no such file."""
    if model == DEMO:
        return demo_place(), demo_place().with_name("SmolLM2-135M-Instruct")
    path = Path(model).expanduser()
    return (path, folder_of(path)) if path.suffix == ".gguf" and path.is_file() else None


def _tokenizer(model: str, source: str, common: dict[str, Any]) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(tokenizer_place(source), **common)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot load the tokenizer of {model!r}: {_why(error)}") from error


def _config(model: str, source: str, common: dict[str, Any]) -> PreTrainedConfig:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source, **common)
    except (OSError, ValueError, KeyError) as error:
        said = _why(error)
        if "gated" in said.lower():
            raise ModelError(f"the model {model!r} is gated: accept its terms on the Hub and log in") from error
        if "trust_remote_code" in str(error):
            raise ModelError(f"the model {model!r} brings its own code: add --trust-remote-code to run it") from error
        raise ModelError(
            f"cannot find the model {model!r} ({said}); a local folder, a .gguf file and 'demo' work without a network"
        ) from error


def _why(error: BaseException) -> str:
    """Return what an error of transformers says or, where it speaks of files and the Hub is to blame, what that did."""
    met = fault(error)
    return first_line(error) if met is None else f"the Hub failed: {first_line(met)}; try again later"


def _config_alone(model: str, common: dict[str, Any]) -> PreTrainedConfig:
    """Return the configuration of a model, converting nothing."""
    place = _gguf(model)
    if place is None:
        return _config(model, str(_resolve(model)), common)
    file, folder = place
    return _config(model, str(folder), {}) if (folder / "config.json").is_file() else config_of(file)


def _class(config: PreTrainedConfig, model: str) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    named = " ".join(config.architectures or [])
    # Encoders (BERT) are in both tables, and so are encoder-decoders (BART), whose decoder is meant.
    encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(
        config, "is_encoder_decoder", False
    )
    if encoder and "CausalLM" not in named and "LMHead" not in named:
        return AutoModelForMaskedLM
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or getattr(config, "auto_map", None):
        return AutoModelForCausalLM
    raise ModelError(f"expected a text model, got {model!r} of type {config.model_type!r}")


def _classifier(config: PreTrainedConfig, model: str) -> Any:
    from transformers import AutoModelForSequenceClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    if config.model_type in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        return AutoModelForSequenceClassification
    raise ModelError(
        f"expected a model of a family with a classification head, got {model!r} of type {config.model_type!r}"
    )


def device_of(device: str) -> str:
    """Return the device that a name means; raises ModelError for one that this machine has not."""
    import torch

    if device == "balanced":
        return device
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"expected a device of this machine, got {device!r}: {first_line(error)}") from error
    return device


def _dtype(dtype: str, config: PreTrainedConfig, device: str) -> Any:
    import torch

    if dtype in ("float32", "bfloat16", "float16"):
        return getattr(torch, dtype)
    if dtype != "auto":
        raise ModelError(f"expected dtype auto, float32, bfloat16 or float16, got {dtype!r}")
    return torch.float32 if device == "cpu" and _own_dtype(config) == torch.float16 else "auto"


def _own_dtype(config: PreTrainedConfig) -> Any:
    """Return the dtype that the checkpoint names, None where it names none."""
    import torch

    own = config.get_text_config().dtype or config.dtype
    return getattr(torch, own) if isinstance(own, str) else own
