"""Text: normal form, language, scores, sentences."""
