"""A file header with one value changed."""

from __future__ import annotations

import copy
from typing import Any


def tampered(header: Any, key: str, value: Any) -> Any:
    """A copy of a header with one value replaced, or removed where it is `...`."""
    header = copy.deepcopy(header)
    *above, last = key.split(".")
    group = header
    for name in above:
        group = group[name]
    if value is ...:
        del group[last]
    else:
        group[last] = value
    return header
