"""Where a model lies: a shipped one, a folder, or one that the Hub's cache holds.

A name such as ``Helsinki-NLP/opus-mt-en-es`` is looked up in the cache that ``hf
download`` fills, and nowhere else: nothing is ever fetched unasked, so that the same
call does the same with a network and without one.
"""

from __future__ import annotations

import re
from pathlib import Path

SHIPPED = ("teacher", "student", "untaught")
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # OWNER/MODEL
# The same weights for other frameworks, several times the size of what is read here.
FOREIGN = ("*.h5", "*.ot", "*.msgpack", "*.onnx")


def model_folder(model: str | Path) -> Path:
    """The folder of a shipped model's name, of a cached Hub model, or the one given."""
    if str(model) in SHIPPED:
        return Path(__file__).parents[1] / "assets" / "models" / str(model)
    if not Path(model).exists() and is_hub_name(model):
        return cached_folder(str(model)) or Path(model)
    return Path(model)


def is_hub_name(model: str | Path) -> bool:
    """Whether it reads as OWNER/MODEL; a relative path of two parts does as well."""
    return isinstance(model, str) and NAME.fullmatch(model) is not None


def cached_folder(name: str) -> Path | None:
    """The newest revision of a Hub model that was downloaded, None where none was."""
    import huggingface_hub

    try:
        found = huggingface_hub.try_to_load_from_cache(name, "config.json")
    except huggingface_hub.errors.HFValidationError:  # "a--b/c" is a path at most
        return None
    return Path(found).parent if isinstance(found, str) else None


def download_command(name: str) -> str:
    """What to type, once and with a network, so that a Hub model is in the cache."""
    return f"hf download {name} " + " ".join(f"--exclude '{p}'" for p in FOREIGN)
