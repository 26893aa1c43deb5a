"""Run by test_checkpoints in a process of its own, where rectilinear cannot be imported: load checkpoints, save logits.

Arguments: a file of token ids, a file to write the logits to, and the folders.
"""

import sys
from pathlib import Path

sys.modules["rectilinear"] = None  # type: ignore[assignment]

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402
from transformers.utils import logging  # noqa: E402

logging.set_verbosity_error()
logging.disable_progress_bar()
ids, out, *folders = sys.argv[1:]
tokens, logits = load_file(ids)["ids"], {}
with torch.inference_mode():
    for folder in map(Path, folders):
        own_code = (folder / "modeling_rectilinear.py").exists()
        if own_code:
            try:
                AutoConfig.from_pretrained(folder, trust_remote_code=False)
            except ValueError as error:
                assert "trust_remote_code" in str(error)
            else:
                raise AssertionError(f"{folder} loads without its own code")
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=own_code)
        logits[folder.name] = model(tokens).logits
save_file(logits, out)
