"""The command line: arguments in, exit codes out; one module per group of verbs.

Modules of verbs are imported when their verb is called, and import what is heavy (the event loop,
the store, tables) inside the functions that need it: `beemesh --help` must not wait for RocksDB.

| modules                                       | are                                         |
|-----------------------------------------------|---------------------------------------------|
| `app`, `completion`                           | the command; its verbs as a shell sees them |
| `options`, `perform`, `output`, `watch`, `qr` | what verbs share: carrying out, printing    |
| `up`, `foreground`, `backup`, `transfer`      | a node: running it, its data                |
| `values`, `policy`, `explain`, `sync`         | coValues: what is here, kept, and in step   |
| `core`, `bee`, `proof`, `verify`, `mirror`    | logs                                        |
| `mesh`, `network`                             | members; the network they are found through |
"""
