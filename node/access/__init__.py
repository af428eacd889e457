"""Who may do what on this node, and what it may cost; all of it off unless configured.

    open_access [trio] lists, tokens and usage from the disk, kept up to date
      Gate             the sync engine's gatekeeper           lists, quotas, paces
        AccessPolicy   which accounts' content is taken
        Usage          what each account has stored           usage.json
        Paces          what each address sends in a minute
      Door             the WebSocket server's                 tokens, addresses behind proxies

Everything but `opening`, `usage_file` and `lists` is pure.
"""
