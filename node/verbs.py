"""What can be asked of a node or of its data directory, and how it may end.

Each verb is a record: the command line fills it in, the admin API carries it as JSON, and
`node.logs` or the running node carries it out. The answer is JSON-ready objects, one or many. Bytes
in results are text where they are printable UTF-8, else base64; `encoding` says which.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated, Literal, TypeAlias

import msgspec

from node.errors import NodeError

Result: TypeAlias = Mapping[str, object]
"""One JSON-ready object."""


MAX_REQUEST_BYTES = 64 * 2**20
"""A block or a value is given on a command line or in a file."""

MAX_USES = 1_000_000
"""Uses of one ticket; more is any number."""

MAX_EXPIRES_SECONDS = 1e11
"""Three thousand years: an end that still has a date."""


class ExitCode(IntEnum):
    """How a command ends; scripts depend on these."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_NODE = 3
    NOT_FOUND = 4
    TIMEOUT = 5
    CORRUPT = 6
    INTERRUPTED = 130


class VerbError(NodeError):
    """A verb that did not succeed: the text says what, why, and which command to try next."""

    def __init__(self, code: ExitCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One coValue, from here or from the mesh."""

    id: str
    timeout_seconds: float = 10.0


class ListValues(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The coValues held here; `details` costs a read of each."""

    prefix: str = ""
    details: bool = False


class CoreList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The cores that this directory names."""


class CoreInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    core: str
    timeout_seconds: float = 10.0


class CoreGet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    core: str
    index: int
    timeout_seconds: float = 10.0


class CoreProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Evidence that is checked offline: of a block, of the head alone, or of a fork."""

    core: str
    index: int | None = None
    fork: bool = False
    timeout_seconds: float = 10.0


class CoreVerify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that is stored against its signatures; `core` "" means every core of the store."""

    core: str = ""


class CoreAppend(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    core: str
    blocks: tuple[bytes, ...]


class CoreTruncate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Cut a core of ours back to `length` blocks, as a new fork."""

    core: str
    length: int


class CoreClear(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Give up the room of blocks [start, stop)."""

    core: str
    start: int
    stop: int


class CoreRecover(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Let a core whose newest blocks may be lost take more again.

    Waits until its peers know no more than is here; `alone` says that nobody else ever had it.
    """

    core: str
    alone: bool = False
    timeout_seconds: float = 60.0


class CorePurge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Remove a core and every trace of it, also from the files."""

    core: str


class BeeInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    core: str
    timeout_seconds: float = 10.0


class BeeGet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    core: str
    key: bytes
    timeout_seconds: float = 10.0


class BeePut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    core: str
    key: bytes
    value: bytes


class BeeList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Entries in key order; `limit` 0 means all of them."""

    core: str
    prefix: bytes = b""
    reverse: bool = False
    limit: int = 0
    timeout_seconds: float = 10.0


class BeeCompact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Give up what the present version does not need; `core` "" means the node's own data."""

    core: str = ""
    dry_run: bool = False
    prune: bool = False
    timeout_seconds: float = 3600.0


class ImportValues(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a cojson SQLite file holds, into this node's store; `file` is an absolute path."""

    file: str


class ExportValues(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this node's store holds, into a cojson SQLite file."""

    file: str


class BackUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Copy the data directory into another, given as an absolute path."""

    directory: str
    timeout_seconds: float = 24 * 3600.0


class ListForks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sessions and cores whose author signed two histories, with the evidence."""


class PeerChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is exchanged with a member, by id or name, or with all on the LAN or beyond it."""

    name: str
    direction: Literal["both", "down", "up", "off"] = "both"
    day_bytes: int = 0
    month_bytes: int = 0


class ShowPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the node keeps, and of whom."""


class ChangePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As `node.mesh.policy_change.PolicyChange`; answered like `ShowPolicy`."""

    pin: tuple[str, ...] = ()
    unpin: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()
    unfollow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    replicate: str | None = None
    max_value_bytes: int | None = None
    max_age_seconds: float | None = None
    peers: tuple[PeerChange, ...] = ()


class Explain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a coValue is here or not, and who else has it."""

    id: str
    timeout_seconds: float = 10.0


class AddMirror(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keep a core of somebody else's and serve it; `range` is `a:b`, "" is all of it."""

    key: str
    name: str = ""
    kind: Literal["", "bee", "core"] = ""
    range: str = ""
    peers: tuple[str, ...] = ()


class RemoveMirror(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Stop keeping a mirror, by its key or name."""

    mirror: str


class ListMirrors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The cores mirrored here, and how far they are."""


MirrorVerb: TypeAlias = AddMirror | RemoveMirror | ListMirrors
PolicyVerb: TypeAlias = ShowPolicy | ChangePolicy


class ShowSync(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far this node and the members of its mesh are in step."""


class WaitSync(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Wait until these values, or all, are here and on `min_copies` nodes; 0: as configured."""

    ids: tuple[str, ...] = ()
    min_copies: int = 0
    timeout_seconds: float = 60.0


SyncVerb: TypeAlias = ShowSync | WaitSync


class MeshInvite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ticket; `member` "" is for whoever bears it, `role` "" what is usual.

    `uses` is how many nodes it lets in, 0 any number.
    """

    role: str = ""
    member: str = ""
    expires_seconds: Annotated[float, msgspec.Meta(gt=0, le=MAX_EXPIRES_SECONDS)] | None = None
    uses: Annotated[int, msgspec.Meta(ge=0, le=MAX_USES)] = 0


class MeshRevoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shut out a member (id, the beginning of one, or its name), or those who bear a ticket.

    With `cascade`, what the member signed as an admin counts no longer.
    """

    subject: str
    reason: str = ""
    cascade: bool = False


class MeshMembers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everybody known to be, or to have been, in the mesh."""


class MeshInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The mesh as this node knows it; the key of encrypted data only if `secrets` are wanted."""

    secrets: bool = False


MeshVerb: TypeAlias = MeshInvite | MeshRevoke | MeshMembers | MeshInfo
TransferVerb: TypeAlias = ImportValues | ExportValues
LogVerb: TypeAlias = (
    CoreList
    | CoreInfo
    | CoreGet
    | CoreVerify
    | CoreAppend
    | CoreTruncate
    | CoreClear
    | CoreRecover
    | CorePurge
    | CoreProof
    | BeeInfo
    | BeeGet
    | BeePut
    | BeeList
    | BeeCompact
)
PostedVerb: TypeAlias = (
    LogVerb
    | TransferVerb
    | BackUp
    | ListForks
    | MeshVerb
    | SyncVerb
    | PolicyVerb
    | MirrorVerb
    | Explain
)
Verb: TypeAlias = Load | ListValues | PostedVerb

PATHS: Mapping[str, type[PostedVerb]] = {
    "core/ls": CoreList,
    "core/info": CoreInfo,
    "core/get": CoreGet,
    "core/proof": CoreProof,
    "core/append": CoreAppend,
    "core/truncate": CoreTruncate,
    "core/clear": CoreClear,
    "core/recover": CoreRecover,
    "core/purge": CorePurge,
    "core/verify": CoreVerify,
    "bee/info": BeeInfo,
    "bee/get": BeeGet,
    "bee/put": BeePut,
    "bee/ls": BeeList,
    "values/import": ImportValues,
    "values/export": ExportValues,
    "values/forks": ListForks,
    "node/backup": BackUp,
    "bee/compact": BeeCompact,
    "mirror/add": AddMirror,
    "mirror/remove": RemoveMirror,
    "mirror/ls": ListMirrors,
    "policy/show": ShowPolicy,
    "policy/change": ChangePolicy,
    "values/explain": Explain,
    "sync/status": ShowSync,
    "sync/wait": WaitSync,
    "mesh/invite": MeshInvite,
    "mesh/revoke": MeshRevoke,
    "mesh/members": MeshMembers,
    "mesh/info": MeshInfo,
}
"""Where the admin API takes them, below /api/v1/, by POST."""


def path_of(verb: PostedVerb) -> str:
    return next(path for path, kind in PATHS.items() if isinstance(verb, kind))


def encode_verb(verb: PostedVerb) -> bytes:
    return msgspec.json.encode(verb)


def decode_verb(path: str, body: bytes) -> PostedVerb:
    """Raises: VerbError for an unknown path or a body of the wrong shape."""
    kind = PATHS.get(path)
    if kind is None:
        raise VerbError(ExitCode.USAGE, f"no verb {path!r}; there are {', '.join(PATHS)}")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise VerbError(ExitCode.USAGE, f"{path}: {error}") from error


def encode_bytes(name: str, data: bytes) -> dict[str, str]:
    """`{name: text, "encoding": "utf-8"}`, or base64 for what is not printable text."""
    try:
        text = data.decode()
        if all(character.isprintable() or character in "\t\r\n" for character in text):
            return {name: text, "encoding": "utf-8"}
    except UnicodeDecodeError:
        pass
    return {name: base64.b64encode(data).decode(), "encoding": "base64"}


def decode_bytes(name: str, result: Result) -> bytes:
    """The inverse of `encode_bytes`.

    Raises: VerbError when the result has no such bytes.
    """
    text = str(result.get(name, ""))
    try:
        return base64.b64decode(text) if result.get("encoding") == "base64" else text.encode()
    except binascii.Error as error:
        raise VerbError(ExitCode.FAILED, f"the node answered with a bad {name}") from error


def check_size(request: bytes | bytearray) -> None:
    """Raises: VerbError for more than a node reads."""
    if len(request) > MAX_REQUEST_BYTES:
        text = f"more than {MAX_REQUEST_BYTES} bytes in one request: send less at once"
        raise VerbError(ExitCode.USAGE, text)
