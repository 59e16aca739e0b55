"""Where a run that is made from another one lies, and whose folder it is."""

from __future__ import annotations

import re
from pathlib import Path

from anomalyncd.errors import InputError
from anomalyncd.storage.run_folder import RunFolder
from anomalyncd.storage.run_record import RUN_NAME


def beside(root: Path, made_of: str) -> Path:
    """<variant>+<hash>/seed-<n> beside <variant>/seed-<n>, where `anomalyncd status` finds it."""
    root = root.resolve()
    if not RUN_NAME.fullmatch(root.name):
        return root.with_name(f"{_first(root.name)}+{made_of[:8]}")
    variant = root.parent
    return variant.with_name(f"{_first(variant.name)}+{made_of[:8]}") / root.name


def require_ours(folder: RunFolder, role: str, made_of: str, what: str) -> None:
    """A folder that exists is the one that would be made, finished or not.

    Args:
        folder: where it would be.
        role: of the digest in its inputs.json.
        made_of: digest of all that it is computed from.
        what: it would be, for the message.

    Raises:
        InputError: it holds something else.
    """
    if not folder.root.exists() or not any(folder.root.iterdir()):
        return
    if (folder.inputs or {}).get(role, {}).get("made_of") != made_of:
        raise InputError(f"{folder.root}: holds something else than {what}; set another --output")


def _first(name: str) -> str:
    """Without the hash of an extension."""
    return re.sub(r"\+[0-9a-f]{8}$", "", name)
