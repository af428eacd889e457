"""What msgspec reads and writes of one transaction.

It makes these classes from their annotations, which a compiled class lacks: so the modules that
use them are compiled (`setup.py`), and this one is not.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType


class TransactionJson(msgspec.Struct, rename="camel", gc=False):
    """The fields of both shapes, as they came."""

    privacy: str
    made_at: int | float
    encrypted_changes: str | None = None
    key_used: str | None = None
    changes: str | None = None
    meta: str | None = None


class PrivateText(msgspec.Struct, rename="camel", gc=False):
    """The fields of a private one, in the order in which they are written."""

    encrypted_changes: str
    key_used: str
    made_at: int
    meta: str | UnsetType = UNSET
    privacy: str = "private"


class TrustingText(msgspec.Struct, rename="camel", gc=False):
    """The fields of a trusting one, in that order, too."""

    changes: str
    made_at: int
    meta: str | UnsetType = UNSET
    privacy: str = "trusting"
