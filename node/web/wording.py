"""Sizes, shares, times and roles as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def format_size(size: float) -> str:
    """Bytes for people: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_share(part: float, whole: float = 1.0) -> str:
    """How much of something, for people: 50 %. A whole one only where nothing is missing."""
    percent = 100 * part / whole
    return f"{percent if percent >= 100 else min(99.0, percent):.0f} %"


def format_age(seconds: float) -> str:
    """A span of time for people, in its two largest units: 3 d 4 h."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= length or (unit == "s" and not parts):
            parts.append(f"{left // length} {unit}")
            left %= length
    return " ".join(parts[:2])


def format_moment(unix_seconds: object) -> str:
    """A time for people, to the minute; `-` for none."""
    if not isinstance(unix_seconds, int | float):
        return "-"
    try:
        return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return "never"  # beyond the calendar


def describe_role(role: str, expiry: object) -> str:
    """What a member may do, and until when."""
    if not role:
        return "none"
    return role if expiry is None else f"{role} until {format_moment(expiry)} UTC"
