"""Replication of a core with its peers: pure machines that schedule, and tasks that do the work.

    messages -> session -> replicator -> reception -> downloads -> intake -> one commit for all
                               |             |-> uploads
                               |-> outputs -> session -> messages

| modules                                         | what they are about                      |
|-------------------------------------------------|------------------------------------------|
| `replicator`                                    | the scheduler: who is asked, who is told |
| `outputs`, `settings`                           | what it wants done; what it may be told  |
| `messages`, `block_messages`, `capability`      | the channel `hypercore/alpha`, its bytes |
| `channel`, `log_channel`, `replicated_log`      | what it runs over, and what it serves    |
| `session`, `served_peers`, `served_peer`        | its tasks: a core, its peers, one peer   |
| `arrivals`, `departures`, `resting`, `refusals` | peers that come, go, rest or are refused |
| `greetings`, `early_data`                       | the first words                          |
| `remote`, `beyond_end`                          | what is known of a peer                  |
| `newcomers`, `activity`                         | peers that are new; is the core in use?  |
| `reception`, `effort`                           | taking its messages; what they may cost  |
| `demand`, `wanted_blocks`, `prefetched`         | which blocks are wanted here             |
| `downloads`, `block_requests`, `inflight`       | asking for them                          |
| `hotswap`, `seeks`                              | asking another peer; asking by byte      |
| `heads`, `head_wait`                            | asking for newer heads                   |
| `forks`, `conflicts`                            | another history: a later fork, or a lie  |
| `intake`, `accepted`                            | verifying answers, and storing them      |
| `uploads`, `announcements`                      | answering, and telling what is here      |
| `wants`, `paced_wants`                          | of which windows that is asked           |
| `pushes`, `received_push`, `expected`           | blocks that are sent without a request   |
| `extensions`, `peer_handle`                     | messages of what is built on a core      |
| `statistics`, `report`                          | what it has done so far                  |
"""
