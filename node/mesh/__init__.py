"""The protocol of nodes among themselves.

| modules                                           | what they are about                    |
|---------------------------------------------------|----------------------------------------|
| `mesh`, `mesh_host`, `serve`                      | the whole; what it needs; a connection |
| `session`, `outputs`                              | the channel `beemesh/1`, a machine     |
| `messages`, `trust_messages`, `hearsay_messages`  | its messages                           |
| `run_messages`, `fields`                          | the same; how their fields are read    |
| `member`, `acknowledgements`, `outbox`, `listing` | one member, and what is queued for it  |
| `member_statistics`                               | the same, for people                   |
| `conduct`, `conduct_watch`, `effort`, `suspects`  | how it behaves, and what it costs us   |
| `allowances`, `penalties`, `turns`                | what comes of that                     |
| `finding`, `inquiry`, `copy_questions`            | asking for a value                     |
| `answering`, `pushing`                            | answering                              |
| `telling`, `hearsay`                              | what moved here                        |
| `own_interest`, `announcements`, `announced`      | what moved elsewhere, as we want it    |
| `under_way`                                       | what is fetched already; who was slow  |
| `content_door`                                    | handing in what was fetched            |
| `screening`, `outline`, `fetch`, `fetch_report`   | bringing over what is held elsewhere   |
| `member_data`, `stalls`, `unreadable`             | the same: reading a member's log       |
| `read_slots`                                      | how much is read at the same time      |
| `follow`, `block_uses`, `provenance`              | reading logs; what is used; whence     |
| `replicas`, `follow_rules`, `owners`              | what is kept here                      |
| `policy_change`, `policy_file`                    | the same, as an operator says it       |
| `exchange`, `peer_rules`                          | what is exchanged with whom            |
| `ticket`, `ledger`, `mesh_key`                    | what admins sign, and what it means    |
| `membership`, `membership_file`, `member_book`    | where we belong; the members ever met  |
| `authorship`, `member_cores`                      | whose core is whose; opening it        |
| `trust`, `untimely`, `whereabouts`                | who is let in, now; where each is      |
| `safekeeping`                                     | logs of members that are away          |
| `own_log`, `recall`, `head_claims`, `runs`        | how long our own log is: not forking it |
| `witness`, `forked_cores`                         | forks of others                        |
| `sync_state`, `in_step`, `copy_watch`             | how far all of them are in step        |
"""
