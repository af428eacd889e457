"""Compiles the modules in which a node spends its time, for who asks for it; see README.

`BEEMESH_COMPILE=1 pip install .` needs a C compiler; pip brings what translates to C. Without the
variable, and wherever what was compiled does not fit the interpreter, the same files run as Python.
"""

import os
import sys
import tomllib
from pathlib import Path

from setuptools import Extension, setup

LOGS = [
    "bee/btree.py",
    "bee/cache.py",
    "bee/changes.py",
    "bee/descent.py",
    "bee/history.py",
    "bee/lone_put.py",
    "bee/messages.py",
    "bee/neighbors.py",
    "bee/node_reader.py",
    "bee/pending_blocks.py",
    "bee/protobuf.py",
    "bee/ranges.py",
    "bee/tree.py",
    "hypercore/encoding.py",
    "hypercore/flat_tree.py",
    "hypercore/log.py",
    "hypercore/merkle.py",
]
COVALUES = [
    "node/cojson/admission.py",
    "node/cojson/asking.py",
    "node/cojson/claims.py",
    "node/cojson/client_table.py",
    "node/cojson/commits.py",
    "node/cojson/crypto.py",
    "node/cojson/cut_streams.py",
    "node/cojson/deletion.py",
    "node/cojson/engine_state.py",
    "node/cojson/foresight.py",
    "node/cojson/hazardous_values.py",
    "node/cojson/intake.py",
    "node/cojson/judgment.py",
    "node/cojson/messages.py",
    "node/cojson/offers.py",
    "node/cojson/outbox.py",
    "node/cojson/outputs.py",
    "node/cojson/peer_view.py",
    "node/cojson/recent.py",
    "node/cojson/reconcile.py",
    "node/cojson/rights.py",
    "node/cojson/sync.py",
    "node/cojson/value_table.py",
    "node/cojson/waiting_room.py",
    "node/covalue/canonical.py",
    "node/covalue/content.py",
    "node/covalue/dependencies.py",
    "node/covalue/gathering.py",
    "node/covalue/hazards.py",
    "node/covalue/header.py",
    "node/covalue/ids.py",
    "node/covalue/keys.py",
    "node/covalue/known_state.py",
    "node/covalue/records.py",
    "node/covalue/session_log.py",
    "node/covalue/session_rows.py",
    "node/covalue/short_values.py",
    "node/covalue/tails.py",
    "node/covalue/text_reading.py",
    "node/covalue/transaction_json.py",
    "node/web/text_frames.py",
]

REPLICATION = [
    "hypercore/bitfield.py",
    "hypercore/block_sets.py",
    "hypercore/held_blocks.py",
    "hypercore/proof.py",
    "hypercore/proof_request.py",
    "hypercore/stored_log.py",
    "hypercore/stored_tree.py",
    "hypercore/replication/accepted.py",
    "hypercore/replication/announcements.py",
    "hypercore/replication/arrivals.py",
    "hypercore/replication/beyond_end.py",
    "hypercore/replication/block_messages.py",
    "hypercore/replication/block_requests.py",
    "hypercore/replication/conflicts.py",
    "hypercore/replication/demand.py",
    "hypercore/replication/downloads.py",
    "hypercore/replication/expected.py",
    "hypercore/replication/forks.py",
    "hypercore/replication/heads.py",
    "hypercore/replication/hotswap.py",
    "hypercore/replication/inflight.py",
    "hypercore/replication/intake.py",
    "hypercore/replication/messages.py",
    "hypercore/replication/newcomers.py",
    "hypercore/replication/outputs.py",
    "hypercore/replication/paced_wants.py",
    "hypercore/replication/pushes.py",
    "hypercore/replication/received_push.py",
    "hypercore/replication/reception.py",
    "hypercore/replication/remote.py",
    "hypercore/replication/replicator.py",
    "hypercore/replication/seeks.py",
    "hypercore/replication/statistics.py",
    "hypercore/replication/uploads.py",
    "hypercore/replication/wanted_blocks.py",
    "hypercore/replication/wants.py",
    "hypercore/storage/core_storage.py",
    "hypercore/storage/layout.py",
    "hypercore/storage/records.py",
    "swarm/frames.py",
    "swarm/mux.py",
    "swarm/stream_cipher.py",
]


def requires() -> list[str]:
    """What must be there to compile: mypyc, and the types of all that is imported."""
    project = tomllib.loads((Path(__file__).parent / "pyproject.toml").read_text())["project"]
    return ["mypy[mypyc]==2.4.*", *project["dependencies"]]


def extensions() -> list[Extension]:
    from mypyc.build import mypycify

    # What these import is looked at, too, and where that needs a library it may be missing here.
    options = ["--config-file=", "--ignore-missing-imports", "--hide-error-context"]
    level = os.environ.get("BEEMESH_COMPILE_LEVEL", "3")
    # Libraries, which compile side by side.
    groups: list[tuple[list[str], str | None]] = [
        (LOGS, "beemesh_logs"),
        (COVALUES, "beemesh_covalues"),
        (REPLICATION, "beemesh_replication"),
    ]
    return mypycify(
        [*options, *LOGS, *COVALUES, *REPLICATION],
        opt_level=level,
        debug_level="0",
        separate=groups,
    )


if os.environ.get("BEEMESH_COMPILE") != "1":
    setup()
elif {"build_ext", "bdist_wheel"} & set(sys.argv):
    setup(ext_modules=extensions(), options={"build_ext": {"parallel": os.cpu_count()}})
else:  # pip asks for what is needed, and for names, before it builds
    setup(setup_requires=requires())
