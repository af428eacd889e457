"""What a cojson LocalNode expects of its storage, over any `CoValueStore`.

`storage.open_local_storage` is the front; the rest are its parts: what is held (`held_states`),
what continues it (`continuation`), loading with dependencies (`loading`), who has synced what
(`sync_notes`, `sync_tracker`), `locks`, and erasing by a schedule (`eraser`, `erasure_schedule`).
A node does not use it: its sync engine works on the store itself.
"""
