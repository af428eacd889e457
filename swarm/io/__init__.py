"""[trio] The tasks, sockets and streams around the pure machines of `swarm`.

| modules                                             | what they are about                      |
|-----------------------------------------------------|------------------------------------------|
| `swarm`, `sessions`, `swarm_report`                 | the whole: topics in, connections out    |
| `dialer`, `topics`, `mdns`                          | whom to connect to, and who finds whom   |
| `entrance`, `crowd`, `duplicates`                   | who comes in, and which connections stay |
| `connection`, `mux`, `channel`                      | an encrypted stream, and channels on it  |
| `tcp`, `websocket`                                  | streams that it runs over                |
| `udp`, `udx_transport`, `udx_relay`, `datagrams`    | streams over UDP                         |
| `dht`, `dht_driver`, `answers`, `carrier`           | a node of the hash table                 |
| `hyperdht`, `announcer`, `peer_server`, `peer_dial` | connecting by public key                 |
| `peer_sockets`, `punching`, `punch_talk`            | making holes into NATs                   |
| `direct_search`, `way`                              | from a relay to a direct way             |
| `relay_client`, `relay_server`                      | meeting at a blind relay, and being one  |
| `network_watch`                                     | another network, sleep                   |
| `tasks`, `alarms`                                   | nurseries, wake-ups, timers              |
"""
