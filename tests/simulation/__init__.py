"""Whole clusters in one process, on virtual time, from one seed.

    seed -> script (faults, clients' work) -> nodes on simulated networks and disks -> trace

The nodes are real: sync host, bee store, mesh, corestore, replication, swarm, protomux and secret
stream. Simulated are what they stand on: `network` (TCP that delays, stalls, cuts and resets),
`disk` (a storage that forgets what was not synced), the clock, and the order in which trio runs
tasks (`determinism`). Clients speak cojson (`client`) and remember what was acknowledged.

    python -m tests.simulation --seeds 200
    python -m tests.simulation --seed 17 --trace
    python -m tests.simulation --seeds 20000 --failures FILE --counts
"""
