"""The servers that clients and operators connect to.

`jazz` is the WebSocket server of Jazz clients: `text_frames` reads what they send most,
`socket_outbox` writes to them, and `tcp` is what lies below. `admin` serves probes, `metrics`,
the API and the status `page`; `status` has the records that it shows, `summary` and `tables` what
page and terminal say of them, in the words of `wording`.
"""
