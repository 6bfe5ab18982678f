"""The web: one client (requests, addresses, codings), consent (robots, tags), politeness, URLs, frontier, links."""
