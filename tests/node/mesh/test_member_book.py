from __future__ import annotations

import json

from node.mesh.member_book import MAX_MET, MemberBook
from node.mesh.trust_messages import Introduction


def test_who_was_never_here_takes_the_place_of_nobody_who_was() -> None:
    """Found in review: with one ticket a writer may introduce thousands, and sign for each."""
    book = MemberBook()
    here = [number.to_bytes(32, "big") for number in range(MAX_MET)]
    for seen, id in enumerate(here[1:]):
        book.note(id.hex(), "somebody", "writer", float(seen))
    for number in range(100):
        made_up = (MAX_MET + number).to_bytes(32, "big")
        book.introduce(Introduction(made_up, bytes(32), "nobody", None), 1e9)
    book.note(here[0].hex(), "somebody", "writer", 1e9)
    assert {met.id for met in book} == {id.hex() for id in here}
    book.introduce(Introduction(bytes(31) + b"\x01", bytes(32), "somebody", None), 1e9)
    book.note("ff" * 32, "somebody", "writer", 1e9)
    assert len(list(book)) == MAX_MET
    assert book.get(here[1].hex()) is None, "who was not seen for longest"


def test_what_a_newer_version_wrote_of_a_member_stays() -> None:
    """Going back to this version and forward again must not lose what the newer one knew."""
    book = MemberBook()
    for id in ("aa" * 32, "bb" * 32):
        book.note(id, "somebody", "writer", 1.0)
    written = json.loads(book.encode())
    written[0]["mood"] = ["good", {"since": 12345678901234567890}]
    book = MemberBook.decode(json.dumps(written).encode())
    book.note("aa" * 32, "renamed", "reader", 2.0)
    other, renamed = json.loads(MemberBook.decode(book.encode()).encode())
    assert (renamed["name"], renamed["mood"]) == ("renamed", written[0]["mood"])
    assert other == written[1]
