"""A teacher's top-k logits on disk: one safetensors file a window, so that a window seen before needs no teacher."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from rectilinear.core.distillation import TopK
from rectilinear.errors import ResultError
from rectilinear.files import write_whole, writing
from rectilinear.reading import read_json
from rectilinear.results import SCHEMA

MANIFEST = "cache.json"


class TeacherCache:
    """The folder, bound to one teacher, k and temperature; each window goes by its own tokens.

    Texts may share a folder: a window that is in it is found whatever text it comes from. Raises ResultError where the
    folder was made for another teacher, k or temperature, cannot be read or cannot be written.
    """

    def __init__(self, folder: Path, fingerprint: str, k: int, temperature: float) -> None:
        self.folder = folder
        wanted = {
            "schema": SCHEMA,
            "kind": "teacher-cache",
            "fingerprint": fingerprint,
            "top_k": k,
            "temperature": temperature,
        }
        manifest = folder / MANIFEST
        try:
            if not manifest.exists():
                folder.mkdir(parents=True, exist_ok=True)
                if any(folder.iterdir()):
                    raise ResultError(
                        f"expected a cache of teacher logits or an empty folder, got {folder}: name another"
                    )
                write_whole(manifest, (json.dumps(wanted, indent=1) + "\n").encode())
        except OSError as error:
            raise ResultError(f"cannot use the cache {folder}: {error}") from error
        found = read_json(manifest, "name another --cache-teacher")
        unlike = [name for name in wanted if found.get(name) != wanted[name]]
        if unlike:
            expected, got = (", ".join(f"{n} {d.get(n)}" for n in unlike) for d in (wanted, found))
            raise ResultError(
                f"expected a cache of teacher logits with {expected}, got one with {got} in {folder}: "
                "name another --cache-teacher"
            )

    def get(self, ids: Tensor) -> TopK | None:
        """Return what is kept of a window ids [w], None where it is not; rows [w]."""
        path = self._path(ids)
        try:
            kept = load(path.read_bytes())
            rows = TopK(kept["values"], kept["tokens"].long(), kept["rest"])
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError) as error:
            raise ResultError(f"cannot read {path}: {error}; delete it") from error
        if not rows.values.shape[:1] == rows.indices.shape[:1] == rows.rest.shape == ids.shape or (
            rows.values.shape != rows.indices.shape or rows.values.dim() != 2
        ):
            raise ResultError(f"expected logits of {len(ids)} tokens in {path}, got other shapes; delete it")
        return rows

    def put(self, ids: Tensor, rows: TopK) -> None:
        """Keep the rows [w] of a window ids [w]."""
        kept = {"values": rows.values.float(), "tokens": rows.indices.to(torch.int32), "rest": rows.rest.float()}
        path = self._path(ids)
        with writing(path):
            write_whole(path, save({name: tensor.contiguous().cpu() for name, tensor in kept.items()}))

    def _path(self, ids: Tensor) -> Path:
        digest = hashlib.sha256(ids.to("cpu", torch.int64).numpy().tobytes()).hexdigest()
        return self.folder / f"{digest[:24]}.safetensors"
