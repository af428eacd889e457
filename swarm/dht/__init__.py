"""The distributed hash table of Hyperswarm's peers: dht-rpc, and the record side of HyperDHT.

| modules, from the wire up                       | are                                          |
|-------------------------------------------------|----------------------------------------------|
| `messages`, `payloads`, `hosts`                 | the bytes; which addresses count             |
| `tokens`, `pacing`, `requests`                  | getting questions answered                   |
| `routing_table`, `neighborhood`, `upkeep`       | who is near                                  |
| `query`, `walks`, `purposes`                    | walking to a target; all walks, and what for |
| `records`, `topic_keys`, `expiring`             | what others store with us                    |
| `responder`, `allowance`                        | our answers                                  |
| `nat`, `reachability`, `health`                 | the state of this node and of the network    |
| `bootstrap`, `startup`                          | from knowing nobody to being a node          |
| `interface`, `engine`                           | one node made of all that                    |
| `operations`                                    | what it is for                               |
| `peer_messages`, `peer_noise`, `introduction`   | what two peers say before they are connected |
| `router`, `reception`, `holepunch`              | passing that on; being met; through the NATs |

All of it is pure; `swarm.io.dht` moves the datagrams.
"""
