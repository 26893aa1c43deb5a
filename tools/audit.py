"""Look for known holes in what is installed, where the database of them can be asked: `make check` calls this.

pip-audit asks PyPI for each package; mirrors of PyPI, and machines without a network, have nothing to tell.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable

ASKED = "https://pypi.org/pypi/pip/24.0/json"  # any package's answer shows whether there is a database
PATIENCE = 5.0  # seconds


def reachable(url: str = ASKED) -> bool:
    """Tell whether the database answers."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return "vulnerabilities" in json.load(answer)
    except (OSError, ValueError):
        return False


def audit(url: str = ASKED, run: Callable[[list[str]], int] = subprocess.call) -> int:
    """Return pip-audit's exit status, 0 where there is nothing to ask."""
    if not reachable(url):
        print(f"audit skipped: {url} does not tell of known holes here")
        return 0
    python = [sys.executable, "-m"]
    installed = run([*python, "pip", "install", "--quiet", "--disable-pip-version-check", "pip-audit"])
    return installed or run([*python, "pip_audit", "--progress-spinner", "off", "--skip-editable"])


if __name__ == "__main__":
    sys.exit(audit())
