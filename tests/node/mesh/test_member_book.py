from __future__ import annotations

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
