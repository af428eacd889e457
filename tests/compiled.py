"""The compiled modules, tested as the others are: `python -m tests.compiled`, a step of `check`.

They are built beside the sources, in `build/compiled`, anew when one of them has changed. It must
be the C code that is tested, and blocks must be those that the original makes.

With `--installed` nothing is built: it is the installed beemesh that must be compiled, and is
tested. So wheels are, from a directory that has the tests without the sources.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "compiled"
PACKAGES = ("bee", "hypercore", "node", "swarm")
TESTS = [
    "bee/test_bee_vectors.py",
    "bee/test_corrupt.py",
    "bee/test_messages.py",
    "bee/test_on_core.py",
    "bee/test_protobuf.py",
    "hypercore/replication/test_asked_pushes.py",
    "hypercore/replication/test_beyond_end.py",
    "hypercore/replication/test_chance.py",
    "hypercore/replication/test_conflicts.py",
    "hypercore/replication/test_forks.py",
    "hypercore/replication/test_gaps.py",
    "hypercore/replication/test_hotswap.py",
    "hypercore/replication/test_inflight.py",
    "hypercore/replication/test_late_forks.py",
    "hypercore/replication/test_messages.py",
    "hypercore/replication/test_mutated_messages.py",
    "hypercore/replication/test_premature_requests.py",
    "hypercore/replication/test_remote.py",
    "hypercore/replication/test_repeated_wants.py",
    "hypercore/replication/test_replicator.py",
    "hypercore/replication/test_seeks.py",
    "hypercore/replication/test_serving.py",
    "hypercore/replication/test_session.py",
    "hypercore/replication/test_several_peers.py",
    "hypercore/replication/test_wants.py",
    "hypercore/replication/test_withdrawn_requests.py",
    "hypercore/test_bitfield.py",
    "hypercore/test_encoding.py",
    "hypercore/test_flat_tree.py",
    "hypercore/test_held_blocks.py",
    "hypercore/test_log.py",
    "hypercore/test_long_append.py",
    "hypercore/test_proof.py",
    "hypercore/test_spoiled_proofs.py",
    "hypercore/test_storage_layout.py",
    "hypercore/test_stored_log.py",
    "node/cojson/test_asking.py",
    "node/cojson/test_asking_ahead.py",
    "node/cojson/test_claims.py",
    "node/cojson/test_crypto.py",
    "node/cojson/test_cut_streams.py",
    "node/cojson/test_deletion.py",
    "node/cojson/test_foresight.py",
    "node/cojson/test_messages.py",
    "node/cojson/test_offers.py",
    "node/cojson/test_outbox.py",
    "node/cojson/test_recent.py",
    "node/cojson/test_rights.py",
    "node/cojson/test_sync.py",
    "node/covalue/test_hazards.py",
    "node/covalue/test_header.py",
    "node/covalue/test_records.py",
    "node/covalue/test_session_log.py",
    "node/covalue/test_text_reading.py",
    "node/test_web_text_frames.py",
    "swarm/test_frames.py",
    "swarm/test_io_mux.py",
    "swarm/test_mux.py",
    "swarm/test_stream_cipher.py",
]

_CHECK = """
import importlib, pathlib
for package in ("bee", "hypercore", "node", "swarm"):
    top = pathlib.Path(importlib.import_module(package).__path__[0])
    paths = [*top.rglob("*.so")]
    assert paths, f"{package} in {top} is not compiled"
    for path in paths:
        folders = path.parent.relative_to(top.parent).parts
        name = ".".join([*folders, path.name.partition(".")[0]])
        assert importlib.import_module(name).__file__ == str(path), name
"""


def build() -> None:
    """Have the packages as they are now in `BUILD`, with some of their modules compiled."""
    digest = hashlib.sha256(f"{sys.version} {version('mypy')}".encode())
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    for path in (ROOT / "setup.py", *sorted(sources)):
        digest.update(path.read_bytes())
    stamp = BUILD / "stamp"
    if stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return
    shutil.rmtree(BUILD, ignore_errors=True)
    for package in PACKAGES:
        caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, BUILD / package, ignore=caches)
    shutil.copy(ROOT / "setup.py", BUILD)
    # How well it is optimized changes nothing but the time.
    environment = os.environ | {"BEEMESH_COMPILE": "1", "BEEMESH_COMPILE_LEVEL": "0"}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--parallel", "2"]
    subprocess.run(command, cwd=BUILD, env=environment, check=True)
    stamp.write_text(digest.hexdigest())


def main() -> None:
    place = ROOT
    if sys.argv[1:] != ["--installed"]:
        build()
        place = BUILD
    subprocess.run([sys.executable, "-c", _CHECK], cwd=place, check=True)
    # Appended, so that the packages in the working directory are found before those of the root.
    pytest = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--import-mode=append",
        "-p",
        "no:cacheprovider",
    ]
    tests = [str(ROOT / "tests" / test) for test in TESTS]
    rules = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    sys.exit(subprocess.run([*pytest, *rules, *tests], cwd=place, check=False).returncode)


if __name__ == "__main__":
    main()
