"""Who may do what on this node, and what it may cost; all of it off unless configured.

    opening [trio]  lists, tokens and usage from the disk, kept up to date
      gate          the sync engine's gatekeeper           lists, quotas, paces
        policy      which accounts' content is taken
        usage       what each account has stored           usage.json
        quotas      what each address sends in a minute
      door          the WebSocket server's                 tokens, addresses behind proxies

`people` says who is behind a session, `reasons` lists why something may be refused. All but
`opening`, `usage_file` and `lists` are pure.
"""
