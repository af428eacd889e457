"""What a coValue is, and where it is kept.

| modules                                               | what they are about                      |
|-------------------------------------------------------|------------------------------------------|
| `ids`, `header`, `content`, `known_state`             | the parts of a value                     |
| `canonical`, `transaction_json`, `transaction_shapes` | their JSON                               |
| `session_log`, `session_fork`                         | the log of one session                   |
| `dependencies`, `hazards`                             | what a value needs; what stops clients   |
| `group_changes`, `group_view`, `membership`           | one group: who got which role when       |
| `roles`, `role_judgment`                              | roles through all parents                |
| `store`, `pieces`, `gathering`, `totals`              | the seam of the stores                   |
| `bee_store`, `keys`, `records`, `record_shapes`       | values in a bee: keys and rows           |
| `session_rows`, `tails`, `short_values`               | the bee: rows that are changed           |
| `reading`, `text_reading`, `local_rows`               | the bee: reading; rows beside it         |
| `many_sessions`                                       | reading what takes long beside others    |
| `sqlite_store`, `sqlite_reader`, `sqlite_writer`      | values in cojson's SQLite file           |
| `sqlite_schema`, `sqlite_space`                       | the SQLite file: its tables, its room    |
| `hybrid_store`, `reconciling`                         | both stores at once                      |
| `local`, `reconciliation_lock`                        | what a cojson LocalNode wants of a store |
"""
