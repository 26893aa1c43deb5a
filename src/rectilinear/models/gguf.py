"""GGUF files, converted once to folders that transformers loads in seconds."""

from __future__ import annotations

import errno
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rectilinear.errors import ModelError, first_line
from rectilinear.models.demo import cache_dir
from rectilinear.models.quiet import quiet
from rectilinear.models.save import forget_quantisation_
from rectilinear.models.weights import NO_ADAPTER, check_whole, missing_weights

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def folder_of(gguf: Path) -> Path:
    """Return where in the cache a GGUF file's conversion belongs: another one as soon as the file changes."""
    stat = gguf.stat()
    key = hashlib.sha256(f"{gguf.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    return cache_dir() / "gguf" / f"{gguf.stem}-{key}"


def converted(gguf: Path, target: Path) -> Path:
    """Return the folder `target` with the de-quantised model, made on first use: reading GGUF takes a minute.

    Raises ModelError where the file is damaged or lacks weights, or the cache cannot be written; nothing half-made
    stays.
    """
    if (target / "config.json").is_file():
        return target
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=".converting-"))
    except OSError as error:
        raise _unkept(error) from error
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
            kind: Any = AutoModelForCausalLM
            model, told = kind.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                trust_remote_code=False,
                output_loading_info=True,
                adapter_kwargs={"subfolder": NO_ADAPTER},
            )
            check_whole(str(gguf), missing_weights(model, told))
            forget_quantisation_(model)
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
        if not target.exists():  # another process may have been faster
            part.replace(target)
    except ModelError:
        raise
    except Exception as error:  # a damaged file makes the reader raise almost any kind
        if isinstance(error, OSError) and error.errno is not None and error.errno != errno.ENOENT:
            raise _unkept(error) from error
        raise _damaged(gguf, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def config_of(gguf: Path) -> PreTrainedConfig:
    """Return the configuration in a GGUF file, without its weights; raises ModelError where it is damaged."""
    from transformers import AutoConfig

    try:
        with quiet():
            return AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    except Exception as error:
        raise _damaged(gguf, error) from error


def _unkept(error: Exception) -> ModelError:
    return ModelError(f"cannot keep the converted model in {cache_dir()}: {first_line(error)}; set RECTILINEAR_CACHE")


def _damaged(gguf: Path, error: Exception) -> ModelError:
    return ModelError(f"cannot read {gguf} as a GGUF model: {first_line(error)}")
