"""The distributed hash table of Hyperswarm's peers: dht-rpc, and the record side of HyperDHT.

From the wire up: `messages` and `payloads` are the bytes; `tokens`, `pacing` and `requests` get
questions answered; `routing_table` and `query` find the nodes closest to a target; `records` is
what others stored with us, `responder` answers them; `nat` and `reachability` find out how the
world sees us; `engine` is one node made of all that. All of it is pure; `swarm.io.dht` moves the
datagrams.
"""
