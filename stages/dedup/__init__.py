"""Duplicates: same URL or text, repeated paragraphs, near text, components, and the split that keeps them together."""
