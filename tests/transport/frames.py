"""Events as Amazon frames them in its streams."""

from __future__ import annotations

import base64
import binascii
import json
import struct


def event(kind: str, content: object, *, of: str = "event") -> bytes:
    """Return an event as AWS frames it."""
    named = {":message-type": of, f":{of}-type": kind, ":content-type": "application/json"}
    headers = b"".join(
        struct.pack("!B", len(name))
        + name.encode()
        + struct.pack("!BH", 7, len(value))
        + value.encode()
        for name, value in named.items()
    )
    body = json.dumps(content).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    framed = prelude + struct.pack("!I", binascii.crc32(prelude)) + headers + body
    return framed + struct.pack("!I", binascii.crc32(framed))


def chunk(content: object) -> bytes:
    """Return an event that holds one of the model's maker."""
    return event("chunk", {"bytes": base64.b64encode(json.dumps(content).encode()).decode()})
