"""Conversations of model clients with a sync server, from one seed: with ours and with cojson's.

    seed -> script (what people do, and what goes wrong) -> clients <-> server -> outcome

`client` is a cojson client as a machine, `ledger` what all of them have ever written, `script` what
happens, `party` carries it out, lets all come to rest and judges. A server is whatever `Server` in
`party` says: `engine` is our sync engine with a disk that takes its time, `original` is cojson's
server in a process of its own. The same script held with both must leave every client with the
same, and must not cost much more with ours.

    python -m tests.conversations --seeds 1000 --start 0
    python -m tests.conversations --seeds 1000 --original
    python -m tests.conversations --seed 17 --trace
"""
