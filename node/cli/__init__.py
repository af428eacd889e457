"""The command line: arguments in, exit codes out; one module per group of verbs.

Modules of verbs are imported when their verb is called, and import what is heavy (the event loop,
the store, tables) inside the functions that need it: `beemesh --help` must not wait for RocksDB.
"""
