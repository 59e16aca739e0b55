"""Call the user's own code, named by a setting: `module:name`."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from anomalyncd.errors import InputError


def call_target(key: str, target: str, options: dict[str, Any], expected: str) -> Any:
    """Import what the setting names, and call it.

    Args:
        key: the setting, such as `detector.target`.
        target: `module:name`; the module is in the current folder, or
            installed.
        options: arguments by name.
        expected: what is expected, for the error message.

    Raises:
        InputError: it cannot be imported, does not exist, does not accept these arguments, or
            fails.
    """
    module, _, name = target.partition(":")
    if (here := os.getcwd()) not in sys.path:  # Python adds only the script's folder
        sys.path.append(here)
    try:
        return getattr(import_module(module), name)(**options)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InputError(f"{key}={target}: {error}; expected {expected}") from error
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{key}={target}: {type(error).__name__}: {reason} (debug=true shows where)"
        ) from error
