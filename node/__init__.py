"""The mesh node: coValues for Jazz clients, shared with other nodes.

| module | what |
|---|---|
| `daemon` | builds and owns everything: `open_node(config)` |
| `running`, `reporting` | the `Node` that it yields, and what its parts counted as records |
| `cojson/`, `covalue/` | the protocol of Jazz clients, and what they store |
| `mesh/` | the protocol of nodes among themselves; `joining` picks the mesh at a start |
| `web/`, `listening` | the WebSocket and admin servers, and where they listen |
| `cli/`, `client`, `verbs` | the command, how it asks a running node, and what can be asked |
| `logs` | the `core` and `bee` verbs, on an open store |
| `config`, `settings`, `notation` | what a node was told, and how it is written |
| `identity`, `private_file` | the key file, and how such files are written |
| `collector`, `open_files` | the process: its garbage, how much it may have open |
| `failures` | how a failure is told, by the command and by a node |
| `journal`, `tally` | log output, counts |
| `visible_text` | text of others, as a terminal shows it |

Nothing is re-exported here: every start of the command imports this module, and `--help` must not
wait for an event loop and a database. Write `from node.daemon import open_node`.

The admin client blocks and has no event loop, for the same reason.
"""
