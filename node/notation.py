"""How sizes, times and addresses are written in settings and on the command line."""

from __future__ import annotations

import re

_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_TIME_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(value: object) -> int:
    """A number of bytes, or text with a unit: `512KiB`, `32 MB`.

    Raises: ValueError.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([A-Za-z]*)", str(value).strip())
    unit = _SIZE_UNITS.get(match.group(2).upper()) if match else None
    if match is None or unit is None or not (size := round(float(match.group(1)) * unit)):
        raise ValueError(f"{value!r} is no size; write 33554432 or 32MiB")
    return size


def parse_duration(value: object) -> float:
    """Seconds, or text with units: `250ms`, `1m30s`.

    Raises: ValueError.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    text = str(value).strip()
    if re.fullmatch(r"\d{1,9}(?:\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d{1,9}(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{value!r} is no duration; write 10, 250ms or 1m30s")
    return sum(float(number) * _TIME_UNITS[unit] for number, unit in parts)


def parse_period(text: str) -> float:
    """As `parse_duration`, but with a unit: whoever writes 7 for what lasts may mean days.

    Raises: ValueError.
    """
    seconds = parse_duration(text)
    if seconds and not text.strip()[-1].isalpha():
        raise ValueError(f"{text!r} has no unit; write {text.strip()}d, {text.strip()}h or so")
    return seconds


def parse_address(text: str, default_host: str | None = None) -> tuple[str, int]:
    """`HOST:PORT`, `[IPv6]:PORT`, and with a default host also `PORT` and `:PORT`.

    Raises: ValueError.
    """
    match = re.fullmatch(r"(?:(?:\[([^\]]+)\]|([^:\[\]\s]*)):)?(\d{1,5})", text.strip())
    if match is None or (port := int(match.group(3))) > 65535:
        raise ValueError(f"{text!r} is no HOST:PORT")
    host = match.group(1) or match.group(2) or default_host
    if not host:
        raise ValueError(f"{text!r} lacks a host; write HOST:{port}")
    return host, port


def format_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
