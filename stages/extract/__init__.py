"""Extraction: a page's bytes become text and images in reading order.

source (bytes that are safe to parse) -> tree (flat lists) -> head, furniture, images -> walk (nodes) -> pages.
"""

from stages.extract.pages import OUTPUT, Extract
from stages.extract.settings import ExtractSettings

__all__ = ["OUTPUT", "Extract", "ExtractSettings"]
