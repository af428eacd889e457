"""Streams over UDP that the original's peers speak: ordered, reliable, and paced.

The map: `packet` is the wire. `receiver` puts in order what arrives. `sender` decides which of
what is `outgoing` leaves when: `flight` knows what is under way and finds what was lost (RACK),
`known_ranges` what was told of, `round_trip` measures time, `delivery_rate`, `window_filter` and
`congestion` find out how much the `path` carries (BBR), `mtu` how large a packet may be, and
`pacer` spreads packets over time. `stream` is the machine that joins the two halves, `outputs` are
what it wants done and `statistics` what it tells. `relay` only passes packets on. Their shell is
`swarm.io.udp`.
"""
