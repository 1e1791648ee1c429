"""Tokens of leases: a lease's number, and the beginning of its proof."""

from __future__ import annotations

import re
from typing import TypeGuard

from ledger.core.errors import InvalidInputError

_PROOF_BYTES = 8
"""How many bytes of a lease's proof its token holds."""
_TOKEN = re.compile(rf"([1-9]\d{{0,19}})-([0-9a-f]{{{2 * _PROOF_BYTES}}})", re.ASCII)


def is_proof(proof: object) -> TypeGuard[bytes]:
    """Tell whether a value may be a lease's proof, or the beginning of one from a token."""
    return type(proof) is bytes and len(proof) >= _PROOF_BYTES


def token_of(lease_id: int, proof: bytes | None) -> str:
    """Return the token of a lease.

    Raises:
        InvalidInputError: There is no proof.
    """
    if not is_proof(proof):
        raise InvalidInputError("lease.proof", "is missing; only managers make leases")
    return f"{lease_id}-{proof[:_PROOF_BYTES].hex()}"


def parse_token(token: object) -> tuple[int, bytes]:
    """Return the number and the beginning of the proof that a lease's token holds.

    Raises:
        InvalidInputError: It is no such token.
    """
    found = _TOKEN.fullmatch(token) if isinstance(token, str) else None
    if found is None:
        raise InvalidInputError(
            "lease",
            f"must be a lease's token ('17-3fa9c0d1e2b3a495'), not {token!r:.40}. A store that was "
            "restored may grant a number again: hand over lease.token, or take the lease from "
            "open_leases()",
        )
    return int(found[1]), bytes.fromhex(found[2])


def lost_key(token: str) -> str:
    """Return the idempotency key of the call of a lost lease with this token."""
    return f"lost:{token}"
