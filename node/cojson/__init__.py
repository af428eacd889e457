"""The protocol of Jazz clients: what they send is judged, stored and passed on.

    client -> serve -> client_link -> host -> sync -> intake -> committer -> store
                                       |                            |-> change_feed -> mesh
                                       |-> outbox -> client

| modules                                             | what they are about                       |
|-----------------------------------------------------|-------------------------------------------|
| `host`, `host_options`, `reports`                   | the one engine of a node, and its tasks   |
| `serve`, `client_link`, `outbox`, `pinging`         | one client: its socket, what waits for it |
| `slow_lane`                                         | clients that take much time               |
| `messages`, `line_shapes`                           | the messages, as JSON lines               |
| `crypto`, `base58`                                  | hashes, ids, signatures                   |
| `sync`, `outputs`, `engine_state`                   | the engine, a machine; what it wants done |
| `client_table`, `peer_view`                         | clients, and what each is known to have   |
| `value_table`, `recent`                             | the values in use, in memory              |
| `intake`, `waiting_room`                            | content from its arrival to its commit    |
| `judgment`, `foresight`                             | is it what its author signed?             |
| `rights`, `appeals`, `group_reading`                | may the author do that?                   |
| `gatekeeper`, `admission`                           | does the operator let it in?              |
| `hazardous_values`, `withholding`                   | content that stops clients                |
| `signature_checks`, `signature_worker`              | checking signatures in another process    |
| `commits`, `committer`, `change_feed`               | storing, and who hears of it              |
| `receipts`, `room`                                  | what became of it; is there room?         |
| `asking`, `claims`, `searches`                      | what is missing, and who is asked for it  |
| `offers`, `reconcile`, `store_reader`               | what clients are sent                     |
| `cut_streams`, `cut_streams_file`, `stream_journal` | downloads that broke off                  |
| `copies`                                            | waiting until other nodes have it, too    |
| `deletion`, `eraser`                                | deleted values                            |
| `fork_watch`, `fork_check`, `fork_evidence`         | authors that sign two continuations       |
"""
