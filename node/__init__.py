"""The mesh node: coValues for Jazz clients, shared with other nodes.

| module | what |
|---|---|
| `daemon` | builds and owns everything: `open_node(config)` |
| `running`, `reporting` | the `Node` that it yields, and what its parts counted as records |
| `cojson/`, `covalue/` | the protocol of Jazz clients, and what they store |
| `access/` | who may do what here, and how much |
| `mesh/` | the protocol of nodes among themselves |
| `joining`, `keeping`, `introducing` | which mesh; what is known of it; making members meet |
| `strangers`, `followers` | peers that are no members; how far those that read our log have come |
| `table`, `relaying` | the hash table that nodes are found through; being a relay |
| `web/`, `listening` | the WebSocket and admin servers, and where they listen |
| `storing`, `compacting` | opening the store that the configuration names; getting room back |
| `mirrors`, `mirror_file`, `block_cache` | cores of others: kept, and given up again |
| `stuck_forks` | cores of others that cannot follow their writer |
| `disk_guard`, `pausing` | is there room on the disk? |
| `cli/`, `client`, `verbs` | the command, how it asks a running node, and what can be asked |
| `logs`, `auditing` | the `core` and `bee` verbs, on an open store |
| `values`, `transfer`, `explaining` | verbs about coValues |
| `policies`, `syncing`, `governing` | verbs about what is kept, how far it is, and members |
| `backup`, `examination` | a copy to start a node from; what the network lets a node do |
| `config`, `settings`, `notation` | what a node was told, and how it is written |
| `identity`, `private_file` | the key file, and how such files are written |
| `busy_store` | who has the store open, where no node answers |
| `collector`, `open_files` | the process: its garbage, how much it may have open |
| `service_manager` | what systemd is told of it |
| `errors`, `failures` | what can go wrong, and how it is told |
| `foreign_fields` | what a newer version wrote into a file of ours |
| `journal`, `tally` | log output, counts |
| `visible_text` | text of others, as a terminal shows it |

Nothing is re-exported here: every start of the command imports this module, and `--help` must not
wait for an event loop and a database. Write `from node.daemon import open_node`.

The admin client blocks and has no event loop, for the same reason.
"""
