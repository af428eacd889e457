"""Data and output shared by all benchmarks: bit for bit what `js/lib.js` makes."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from array import array
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

POOL_BYTES = 1 << 20
_BASE_58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_MASK = 0xFFFFFFFF


def _xorshift(x: int) -> int:
    x ^= x << 13 & _MASK
    x ^= x >> 17
    return x ^ x << 5 & _MASK


@cache
def _pool() -> bytes:
    words = array("I")
    x = 1
    for _ in range(POOL_BYTES // 4):
        x = _xorshift(x)
        words.append(x)
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def prepare() -> None:
    """Make what blocks are cut from, before anything is measured."""
    _pool()


def block(index: int, size: int) -> bytes:
    start = (index * 7919) % (POOL_BYTES - size)
    return _pool()[start : start + size]


def base58(seed: int, length: int) -> str:
    x = (seed + 1) * 2654435761 & _MASK or 1
    letters = []
    for _ in range(length):
        x = _xorshift(x)
        letters.append(_BASE_58[x % 58])
    return "".join(letters)


def co_id(number: int) -> str:
    return "co_z" + base58(number, 27)


SESSION = "co_z" + base58(999999, 27) + "_session_z" + base58(888888, 11)


def tx_key(co_value: int, index: int) -> str:
    return f"{co_id(co_value)}:tx:{SESSION}:{index:08d}"


def key_order(n: int, order: str = "interleaved", per_co: int = 100) -> list[str]:
    """Keys in order of insertion: round robin over coValues, grouped by coValue, or sorted."""
    count = max(1, -(-n // per_co))
    ids = [co_id(number) for number in range(count)]
    if order == "interleaved":
        return [f"{ids[i % count]}:tx:{SESSION}:{i // count:08d}" for i in range(n)]
    keys = [f"{ids[i // per_co]}:tx:{SESSION}:{i % per_co:08d}" for i in range(n)]
    return sorted(keys) if order == "sorted" else keys


class Rng:
    """The xorshift32 generator of the JavaScript side."""

    def __init__(self, seed: int) -> None:
        self._x = seed & _MASK or 1

    def below(self, n: int) -> int:
        self._x = _xorshift(self._x)
        return self._x % n


def temporary(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"beemesh-bench-{name}-"))


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def disk_usage(path: Path) -> tuple[int, int]:
    """Apparent and allocated bytes below `path`."""
    stats = [file.stat() for file in path.rglob("*") if file.is_file()]
    return sum(s.st_size for s in stats), sum(s.st_blocks * 512 for s in stats)


def rss_mb() -> float:
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return round(pages * resource.getpagesize() / 1048576, 1)


def cpu_seconds() -> float:
    """Of this process and of those that it runs."""
    seconds = time.process_time()
    for tasks in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # this thread, or that process, has just ended
            for child in (tasks / "children").read_text().split():
                times = Path("/proc", child, "task").glob("*/schedstat")
                seconds += sum(int(text.read_text().split()[0]) for text in times) / 1e9
    return seconds


def written_bytes() -> int:
    """Bytes this process passed to write(2) so far."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("wchar: "):
            return int(line[7:])
    return 0


now = time.perf_counter


def emit(fields: dict[str, Any]) -> None:
    line = {"peer": "python", **fields, "load1": round(os.getloadavg()[0], 2)}
    print(json.dumps(line, separators=(",", ":")), flush=True)


def line(case: str, n: int, seconds: float, size: int, **extra: Any) -> None:
    emit(
        {
            "case": case,
            "n": n,
            "seconds": round(seconds, 6),
            "ops_per_s": round(n / seconds, 1),
            "mb_per_s": round(size / seconds / 1e6, 2) if size else None,
            "rss_mb": rss_mb(),
            **extra,
        }
    )


def disk_line(case: str, n: int, path: Path, blocks: int) -> None:
    apparent, allocated = disk_usage(path)
    emit(
        {
            "case": case,
            "n": n,
            "bytes": apparent,
            "bytes_per_block": round(apparent / blocks, 1),
            "alloc_per_block": round(allocated / blocks, 1),
        }
    )


def percentile(values: Sequence[float], p: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * p))]


def latency(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "min_ms": round(percentile(seconds, 0) * 1e3, 3),
        "median_ms": round(percentile(seconds, 0.5) * 1e3, 3),
        "p99_ms": round(percentile(seconds, 0.99) * 1e3, 3),
        "max_ms": round(percentile(seconds, 1) * 1e3, 3),
    }


def random_name() -> str:
    return f"{os.getpid()}-{random.randrange(1 << 32):08x}"
