"""Phases, rules and kinds in words, for the report and for `explain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Rules by which something is left out because its owner asks for it.
CONSENT_RULES = frozenset(
    {
        *("robots", "ai_txt", "tdmrep", "content_signal", "rsl", "x_robots_tag", "meta_robots", "kept_back"),
        *("excluded", "forgotten", "withdrawn"),
    }
)

# "kind/rule" or rule -> what happened, as the end of a sentence that starts with the thing it happened to.
_RULES: dict[str, str] = {
    # fetching, pages and images alike
    "robots": "robots.txt forbids it, or could not be reached",
    "ai_txt": "the site's ai.txt forbids training on it",
    "tdmrep": "text and data mining is reserved (TDMRep)",
    "content_signal": "the site refuses training on it (Content-Signal, Content-Usage)",
    "rsl": "the site offers it under licence terms of its own (RSL)",
    "excluded": "not to be asked for",
    "forgotten": "to be forgotten, as somebody asked",
    "withdrawn": "allowed no longer, as a recheck found",
    "x_robots_tag": "the server asks not to use it (X-Robots-Tag)",
    "http_status": "the server answered with an error status",
    "timeout": "the server did not answer in time",
    "dns": "the host name does not resolve",
    "tls": "no secure connection could be made",
    "connection": "the connection was refused or broke",
    "protocol": "the answer is not HTTP",
    "private_address": "lies in a private network",
    "too_large": "more bytes than allowed",
    "content_encoding": "its compression cannot be undone",
    "too_many_redirects": "redirects too often",
    "bad_redirect": "redirects to nowhere",
    "bad_url": "its address is not a valid URL",
    "unexpected": "failed in an unexpected way",
    "data_uri": "its data: address cannot be read",
    "quarantine": "killed its worker and was set aside",
    # pages
    "page/not_html": "not an HTML page",
    "page/not_a_file": "not a file of the folder",
    "page/meta_robots": "the page asks not to be used (meta robots)",
    "page/extract": "could not be read as HTML",
    "page/max_pages": "beyond the cap on pages",
    "page/max_depth": "too many links away from the seeds",
    "page/sitemap": "a sitemap of which not everything could be used",
    "page/not_a_page": "a file to load down, no page",
    "page/max_levels_alike": "one of pages without end, as of a calendar",
    "page/max_queries_of_path": "one of too many queries to one path",
    "page/max_path_segments": "its path is too long",
    "page/max_repeated_segments": "its path goes round in circles",
    "page/host_down": "its host has stopped to answer",
    "page/sample": "outside the sample that was asked for",
    # documents that were extracted elsewhere
    "page/damaged_file": "its file is damaged",
    "page/unknown_layout": "its file is laid out in no way that is known",
    "page/not_json": "its line is not JSON",
    "page/bad_row": "its row does not hold a document",
    "page/no_url": "does not say of which page it is",
    "page/duplicate_id": "has the id of another document",
    "image/matched_text_index": "is matched to a sentence that is not there",
    "paragraph/end_of_document": "marks where another subject begins",
    "paragraph/bad_metadata": "says of the pictures what does not fit them",
    "paragraph/empty_text": "holds no text",
    "paragraph/unknown_kind": "neither a text nor a picture",
    # extraction and decoding of images
    "image/no_source": "names no file",
    "image/kept_back": "its page keeps its pictures back (noimageai, noimageindex)",
    "image/placeholder": "a placeholder, not the picture itself",
    "image/tracking_pixel": "a tracking pixel",
    "image/inline_svg": "a drawing inside the page, no file",
    "image/max_images": "beyond the cap on images of a page",
    "image/decode": "could not be decoded",
    "image/not_an_image": "not an image file",
    "image/svg": "a vector drawing",
    "image/empty": "an empty file",
    "image/truncated": "the file ends too early",
    "image/damaged": "the file is damaged",
    "image/too_many_pixels": "decodes to more pixels than is safe",
    "image/too_many_bytes": "more bytes than allowed",
    "image/too_many_frames": "an animation with too many frames",
    "image/too_many_scans": "a JPEG of too many passes over its pixels",
    "image/too_many_parts": "a file of too many small parts",
    "image/not_resizable": "cannot be resized",
    # image filters
    "image/status": "could not be fetched or decoded",
    "image/url_words": "its address names furniture: logo, icon, button …",
    "image/format": "not one of the accepted formats",
    "image/rendered_width": "shown too narrow or too wide on the page",
    "image/rendered_height": "shown too low or too high on the page",
    "image/original_width": "too narrow or too wide",
    "image/original_height": "too low or too high",
    "image/aspect_ratio": "too long and thin",
    "image/documents": "stands in too many documents to belong to one",
    "image/repeated_in_document": "stands a second time in its document",
    "image/similarity": "resembles no sentence of its document",
    "embed": "the encoder failed on it",
    # documents and paragraphs
    "document/same_url": "the same page under another address",
    "document/same_text": "the same text as another page",
    "document/near_duplicate": "nearly the same text as another page",
    "document/same_pictures": "the same pictures as another page",
    "document/leaks": "shares a picture across the border between training and held out",
    "document/num_images": "too few or too many pictures left",
    "document/num_words": "too few or too many words left",
    "document/language": "its language is not clear",
    "document/languages": "in a language that was not asked for",
    "document/score_text": "its text could not be scored",
    "document/minhash": "its text could not be compared",
    "paragraph/paragraph_documents": "repeated across the site",
    "paragraph/max_depth": "nested too deep",
    "outside_main": "outside the page's main content",
    "boilerplate": "the site's frame: menus, footers, notices",
    "appendage": "behind the text: headlines of other pages, offers, counters",
    "portrait": "a portrait of an author or a reader",
    "furniture": "part of a menu, footer or sidebar",
    "hidden": "hidden on the page",
    "num_words": "too few or too many words",
    "special_characters": "too many digits and symbols",
    "stop_words": "too few function words for running text",
    "flagged_words": "too many flagged words",
    "punctuation": "too little punctuation for running text",
    "spam_words": "too many words like share, cookie, subscribe",
    "character_repetition": "repeats the same characters",
    "word_repetition": "repeats the same words",
}

_PHASES = {
    "pages": "crawl",
    "documents": "extract",
    "scores": "text scores",
    "paragraphs": "repeated paragraphs",
    "text": "text filters",
    "signatures": "MinHash",
    "edges": "shared bands",
    "candidate_pairs": "pairs of copies",
    "similarities": "compare pairs",
    "clusters": "groups of copies",
    "fetched_images": "fetch images",
    "images": "decode images",
    "passed": "image filters",
    "choose": "duplicates",
    "shared_pictures": "shared pictures",
    "border": "border of the split",
    "kept": "train and held-out",
    "slices": "sentences",
    "embeddings": "embed",
    "pairs": "pair",
    "negatives": "mine negatives",
    "shards": "write shards",
}

_GUARDS = {
    "document": "stands in the same document",
    "cluster": "its document has nearly the same text",
    "split": "stands on the other side of the split",
    "content": "same text or picture as the true match",
    "phash": "its picture looks the same",
    "similarity": "too much like the true match",
}

# What the rows of a phase's table are: one, several.
_ROWS = {
    "pages": ("page", "pages"),
    "paragraphs": ("repeated paragraph", "repeated paragraphs"),
    "shared_pictures": ("shared picture", "shared pictures"),
    "border": ("border", "borders"),
    "edges": ("pair of documents", "pairs of documents"),
    "candidate_pairs": ("pair of documents", "pairs of documents"),
    "similarities": ("pair of documents", "pairs of documents"),
    "fetched_images": ("image URL", "image URLs"),
    "images": ("image URL", "image URLs"),
    "embeddings": ("image or sentence", "images, sentences"),
    "pairs": ("image or sentence", "images, sentences"),
}

# What a phase can drop.
_DROPS = {
    "documents": "pages, paragraphs, images",
    "scores": "documents",
    "text": "documents, paragraphs, images",
    "signatures": "documents",
    "passed": "documents, images",
    "choose": "documents, paragraphs",
    "kept": "documents",
    "slices": "paragraphs",
    "embeddings": "images, sentences",
    "pairs": "documents, images",
}

# What a decision did, where the rule's words leave it open.
_ACTIONS = {"quarantine": "set aside", "cut": "shortened"}

# Columns of the trainer's metrics: what they are called, and how to read them.
_CURVES = {
    "loss": ("both losses", ""),
    "generative": ("next word", "Next word: how surprised the model is by the text; lower is better."),
    "structure": (
        "structure",
        "Structure: how far cosines of retrieval vectors lie from those that alignment asks for; lower is better.",
    ),
    "effective_rank": (
        "effective rank",
        "In how many directions the vectors of a step spread: near 1 all are alike (collapse), and higher is better, "
        "up to the number of vectors in the step.",
    ),
}


def rule_words(kind: str, rule: str) -> str:
    """What a rule says, for people: "too few or too many words"."""
    return _RULES.get(f"{kind}/{rule}") or _RULES.get(rule) or rule.replace("_", " ")


def phase_words(phase: str) -> str:
    """A phase's short name for people."""
    return _PHASES.get(phase) or phase.replace("_", " ")


def guard_words(guard: str) -> str:
    """Why a guard took a candidate out."""
    return _GUARDS.get(guard) or guard.replace("_", " ")


def row_words(phase: str, count: int) -> str:
    """What `count` rows of a phase's table are: "documents"."""
    one, several = _ROWS.get(phase, ("document", "documents"))
    return one if count == 1 else several


def drop_words(phase: str) -> str:
    """Kinds of things that a phase can drop: "documents, images"; "" for one that drops nothing."""
    return _DROPS.get(phase, "")


def action_words(action: str) -> str:
    """What became of something, where it is more than dropped or not used."""
    return _ACTIONS.get(action, "")


def curve_words(column: str) -> str:
    """A column of the trainer's metrics."""
    return _CURVES[column][0] if column in _CURVES else column.replace("_", " ")


def curve_note(column: str) -> str:
    """How to read a column of the trainer's metrics; "" when nothing needs saying."""
    return _CURVES[column][1] if column in _CURVES else ""


def counted(count: int, one: str, several: str = "") -> str:
    """A number of things: "1 fetch", "1,234 fetches"."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def number(value: float | None) -> str:
    """A score, short: whole numbers whole, others with three significant digits."""
    if value is None:
        return ""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def sample_words(source: Mapping[str, Any]) -> str:
    """The share of the pages that a source's section asks for: "1%"; "" for all of them."""
    share = float(source.get("sample", 1))
    return f"{number(100 * share)}%" if share < 1 else ""


def bounds_words(low: float | None, high: float | None) -> str:
    """The accepted range: "at least .3", "150 to 20,000"."""
    if low is not None and high is not None:
        return f"{number(low)} to {number(high)}"
    if low is not None:
        return f"at least {number(low)}"
    if high is not None:
        return "must not occur" if high == 0 else f"at most {number(high)}"
    return ""


def duration(seconds: float) -> str:
    """Seconds for people: "0.4 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def signal_words(spec: Mapping[str, Any]) -> list[str]:
    """What a resolved spec keeps to besides robots.txt, headers and tags; specs of earlier releases knew of none."""
    source, crawl = spec["source"]["kind"], spec["crawl"]
    found = []
    if crawl.get("obey_ai_txt") and crawl["obey_robots"] and source in ("site", "urls"):
        found.append("ai.txt")
    if crawl.get("obey_tdmrep"):
        found.append("TDMRep")
    if uses := crawl.get("content_signals"):
        found.append(f"Content-Signal and Content-Usage ({', '.join(uses)})")
    if crawl.get("obey_rsl") and crawl["obey_robots"] and source in ("site", "urls"):
        found.append("RSL")
    return found
