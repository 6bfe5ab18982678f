"""Filters: settings, the rules over text and image scores, and verdicts as decision rows."""
