"""A corpus as its readers see it: version, card, summary, expectations, the words for rules and phases."""
