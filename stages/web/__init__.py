"""The web: one client (requests, addresses, codings), consent, politeness, URLs, frontier, links, sitemaps."""
