"""Which of a stock trainer's checkpoints can be gone on from.

transformers writes the files of a checkpoint one after the other and goes on from the
folder with the highest number, also where a kill left half of it.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

STATE = "trainer_state.json"  # written last


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint in a trainer's folder that is whole, or None."""
    found = [p for p in Path(folder).glob("checkpoint-*") if p.name[11:].isdigit()]
    for path in sorted(found, key=lambda p: int(p.name[11:]), reverse=True):
        if _is_whole(path):
            return str(path)
    return None


def _is_whole(checkpoint: Path) -> bool:
    """Its last file was written, and none of its archives is cut or altered."""
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        with safe_open(checkpoint / "model.safetensors", "pt"):
            pass  # it opens where header and length agree
        archives = [checkpoint / "optimizer.pt", *checkpoint.glob("rng_state*.pth")]
        return not any(zipfile.ZipFile(path).testzip() for path in archives)
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile):
        return False
