"""Download a large file over an unreliable network: several addresses, resumed, checked."""

from __future__ import annotations

import hashlib
import os
import ssl
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from anomalyncd.errors import InputError
from anomalyncd.preparation.sources import RemoteFile
from anomalyncd.runtime.console import progress, say

_ATTEMPTS = 3  # at each address; each resumes where the one before stopped
_TIMEOUT = 30  # seconds without an answer
_CHUNK = 1 << 20
_RANGE_NOT_SATISFIABLE = 416


class _Unusable(Exception):
    """The address answers, but not with the file."""


def fetch(file: RemoteFile, path: Path, *, quiet: bool) -> None:
    """Download the file to `path`, unless it exists already.

    What was downloaded so far is kept in `<name>.part`. It is resumed only if a checksum can prove
    the result, since another address may offer other bytes.

    Raises:
        InputError: no address works, or `path` exists with other content.
    """
    if path.exists():
        if file.sha256 not in (None, _sha256(path)):
            raise InputError(
                f"{path}: not the published file (its SHA-256 differs); move it away to "
                "download it again, or use it as it is with --from"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    failures = []
    for address in file.addresses:
        reason = _fetch_from(address, part, file, quiet)
        if reason is None:
            os.replace(part, path)
            return
        failures.append(f"{address}: {reason}")
        if not quiet:
            say(f"Not from {failures[-1]}")
    raise InputError(f"{file.name}: no address works\n  " + "\n  ".join(failures))


def _fetch_from(address: str, part: Path, file: RemoteFile, quiet: bool) -> str | None:
    """Try one address; None if `part` is now the complete, correct file, else what went wrong."""
    reason = ""
    for _ in range(_ATTEMPTS):
        if file.sha256 is None:
            part.unlink(missing_ok=True)
        begun = part.stat().st_size if part.exists() else 0
        try:
            _stream(address, part, begun, file.name, quiet)
        except HTTPError as error:
            return f"{error.code} {error.reason}"
        except _Unusable as error:
            return str(error)
        except (URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            continue
        if file.sha256 in (None, _sha256(part)):
            return None
        part.unlink()
        reason = "not the published file (its SHA-256 differs)"
        if begun == 0:  # otherwise the earlier part may have been wrong: try again from the start
            break
    return reason


def _stream(address: str, part: Path, begun: int, title: str, quiet: bool) -> None:
    """Append what `part` lacks, or write all of it if the server cannot resume."""
    headers = {"User-Agent": "anomalyncd"}
    if begun:
        headers["Range"] = f"bytes={begun}-"
    try:
        answer = urlopen(Request(address, headers=headers), timeout=_TIMEOUT)
    except HTTPError as error:
        if begun and error.code == _RANGE_NOT_SATISFIABLE:
            return  # nothing is missing; the checksum will show whether it is correct
        raise
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise _Unusable("a web page, not a file")
        if answer.status != 206:
            begun = 0
        length = answer.headers["Content-Length"]
        total = begun + int(length) if length else None
        done = begun
        with (
            part.open("ab" if begun else "wb") as out,
            progress(title, (total or 0) // 10**6, quiet=quiet) as report,
        ):
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
                done += len(chunk)
                report(done // 10**6, "MB")
    if total is not None and done < total:
        raise ConnectionError(f"the connection closed after {done:,} of {total:,} bytes")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
