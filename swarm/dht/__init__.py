"""The distributed hash table of Hyperswarm's peers: dht-rpc, and the record side of HyperDHT.

From the wire up: `messages` and `payloads` are the bytes, `hosts` says which addresses count;
`tokens`, `pacing` and `requests` get questions answered; `routing_table`, `neighborhood` and
`upkeep` keep who is near, `query` walks to a target, and `walks` are all of one node; `records` is
what others stored with us, `responder` answers them, within an `allowance`; `nat`, `reachability`
and `health` find out how we and the network are; `engine` is one node made of all that, and
`operations` what it is for. All of it is pure; `swarm.io.dht` moves the datagrams.
"""
