"""One ONNX file that holds a second ONNX model.

A photograph becomes regions between two networks, by steps that no graph expresses. So the file is
the network of the regions, an ordinary ONNX model, with the detector's model in a field that ONNX
does not use and that its readers skip, as Protocol Buffers require.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from anomalyncd.errors import InputError

_FIELD = 1000  # of onnx.ModelProto: its own are below 30
_BYTES = 2  # wire type of texts, bytes and messages
_SIZES = {1: 8, 5: 4}  # of the wire types of constant size


def joined(outer: bytes, inner: bytes) -> bytes:
    """The outer model with the inner one inside."""
    return outer + _varint(_FIELD << 3 | _BYTES) + _varint(len(inner)) + inner


def split(path: Path) -> tuple[bytes, bytes | None]:
    """The outer model and the inner one, None if there is none.

    Raises:
        InputError: the file cannot be read, or is no ONNX model.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        for number, start, begin, end in _fields(content):
            if number == _FIELD:
                return content[:start] + content[end:], content[begin:end]
    except (ValueError, IndexError):
        raise InputError(f"{path}: not an ONNX model, or damaged; export the run again") from None
    return content, None


def _fields(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Number of each field of a message, where it starts, where its content does, and its end."""
    place = 0
    while place < len(content):
        start = place
        tag, place = _read_varint(content, place)
        kind = tag & 7
        if kind == _BYTES:
            size, place = _read_varint(content, place)
        elif kind == 0:
            size = _read_varint(content, place)[1] - place
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise ValueError(f"wire type {kind}")
        if place + size > len(content):
            raise ValueError("truncated")
        yield tag >> 3, start, place, place + size
        place += size


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes(found) + bytes([value])


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError("a number of more than 64 bits")
