"""Streams over UDP that the original's peers speak: ordered, reliable, and paced.

The map: `packet` is the wire. `receiver` puts in order what arrives, `sender` decides what to
send when: `flight` knows what is under way and finds what was lost (RACK), `round_trip` measures
time, `delivery_rate` and `congestion` find out how much the path carries (BBR), `mtu` how large
a packet may be. `stream` is the machine that joins the two halves, and `relay` the one that only
passes packets on. Their shell is `swarm.io.udp`.
"""
