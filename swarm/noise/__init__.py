"""Noise as the original's peers speak it: `cipher` has its primitives, `handshake` is the machine.

`sealed` is not part of Noise: short messages under a key that a handshake left to both ends.
"""
