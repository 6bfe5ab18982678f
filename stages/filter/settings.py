"""The `filter:` section of a spec: bounds over scores, for paragraphs, images and documents.

OBELICS below means its config_filter_web_documents.yaml (Laurençon et al. 2023), MMC4 the paper (Zhu et al. 2023).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from stages.row_function import Settings
from stages.text.language import LANGUAGES, require_languages
from stages.text.scores import ScoreTextSettings

# What pictures.decoding tells apart.
ImageFormat = Literal["jpeg", "png", "webp", "gif", "bmp", "tiff", "ico", "avif", "jp2"]


class Bounds(Settings):
    """Smallest and largest value that passes; both ends pass, null means unbounded."""

    min: float | None = None
    """Smallest value that passes, in the unit of what is bounded. Default: ours, null: an end that is not named is
    open."""
    max: float | None = None
    """Largest value that passes, in the unit of what is bounded. Default: ours, null: an end that is not named is
    open."""

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class ParagraphRules(Settings):
    """Rules for text nodes, in the order they are applied; the first that fails decides."""

    num_words: Bounds = Bounds(min=4, max=1000)
    """Words of the paragraph. Default: OBELICS, 4..1000."""
    special_characters: Bounds = Bounds(max=0.3)
    """Share of characters that are no letters (digits, punctuation, symbols, blanks). Default: OBELICS, .3."""
    stop_words: Bounds = Bounds(min=0.3)
    """Share of words that are stop words, for languages with a list. Default: OBELICS, .3."""
    flagged_words: Bounds = Bounds(max=0.01)
    """Share of words on the list of flagged words, for languages with a list. Default: OBELICS, .01."""
    punctuation: Bounds = Bounds(min=0.001)
    """Punctuation marks as a share of words and marks. Default: OBELICS, .001."""
    punctuation_min_words: int = Field(default=12, ge=0)
    """Words below which `punctuation` does not apply. Default: OBELICS, 12."""
    spam_words: Bounds = Bounds(max=0.12)
    """Share of words on the list of spam words (share, cookie, subscribe), for languages with a list. Default: OBELICS,
    .12."""
    character_repetition: Bounds = Bounds(max=0.1)
    """Share of the most frequent character 10-grams. Default: OBELICS, .1."""
    word_repetition: Bounds = Bounds(max=0.1)
    """Share of word 5-grams that repeat. Default: OBELICS, .1."""


class ImageRules(Settings):
    """Rules for image nodes; the first that fails drops the image, not the document."""

    url_words: tuple[str, ...] = Field(default=("logo", "button", "icon", "plugin", "widget", "avatar"), strict=False)
    """Substrings of an image URL's path (lower case) that mark furniture. Default: MMC4's list, and avatar of
    MINT-1T."""
    formats: tuple[ImageFormat, ...] = Field(default=("jpeg", "png", "webp"), strict=False)
    """Formats kept, judged by the file name's ending before the fetch and by the bytes after. Default: OBELICS' jpg,
    jpeg, png, webp."""
    rendered_width: Bounds = Bounds(min=150, max=20_000)
    """CSS pixels, where the page gives them. Default: OBELICS, 150..20000."""
    rendered_height: Bounds = Bounds(min=150, max=20_000)
    """CSS pixels, where the page gives them. Default: OBELICS, 150..20000."""
    original_width: Bounds = Bounds(min=150, max=20_000)
    """Pixels of the file. Default: OBELICS, 150..20000 (MMC4: from 150)."""
    original_height: Bounds = Bounds(min=150, max=20_000)
    """Pixels of the file. Default: OBELICS, 150..20000 (MMC4: from 150)."""
    aspect_ratio: Bounds = Bounds(min=0.5, max=2.0)
    """Width over height of the file, a ratio. Default: OBELICS and MMC4, 1/2..2."""
    documents: Bounds = Bounds(max=10)
    """Documents of the corpus that show the image; more is furniture. Default: OBELICS, 10 (it counts URLs, we count
    contents)."""


class DocumentRules(Settings):
    """Rules for whole documents, over what paragraph and image rules have left; the first that fails decides."""

    languages: tuple[str, ...] | None = Field(default=None, strict=False)
    """ISO 639-1 codes kept; null keeps all. Default: ours, no language is refused unasked (OBELICS and MMC4 keep
    English only)."""
    language: Bounds = Bounds(min=0.8)
    """Probability of the identified language, over the whole text. Default: OBELICS, .8."""
    num_images: Bounds = Bounds(min=1, max=30)
    """Images left. Default: OBELICS, 1..30 (MMC4 core: 2..15)."""
    num_words: Bounds = Bounds(min=10, max=2000)
    """Words left. Default: OBELICS, 10..2000."""
    character_repetition: Bounds = Bounds(max=0.1)
    """Share as for paragraphs, over all prose as extracted. Default: OBELICS, .1."""
    word_repetition: Bounds = Bounds(max=0.2)
    """Share as for paragraphs, over all prose as extracted. Default: OBELICS, .2."""
    special_characters: Bounds = Bounds(max=0.275)
    """Share as for paragraphs, over the text left. Default: OBELICS, .275."""
    stop_words: Bounds = Bounds(min=0.35)
    """Share as for paragraphs, over the text left. Default: OBELICS, .35."""
    flagged_words: Bounds = Bounds(max=0.01)
    """Share as for paragraphs, over the text left. Default: OBELICS, .01."""
    punctuation: Bounds = Bounds(min=0.03)
    """Share as for paragraphs, over the text left. Default: OBELICS, .03."""

    @field_validator("languages")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        require_languages(value or ())
        return value


class FilterSettings(Settings):
    """All rules. Scores know nothing of them: changing one recomputes no score."""

    paragraph: ParagraphRules = ParagraphRules()
    """Text nodes."""
    image: ImageRules = ImageRules()
    """Image nodes."""
    document: DocumentRules = DocumentRules()
    """Documents."""
    scores: ScoreTextSettings = ScoreTextSettings()
    """How text is measured; unlike the rules, a change here scores every text anew."""

    @model_validator(mode="after")
    def _identified(self) -> FilterSettings:
        never = sorted(set(self.document.languages or ()) - set(self.scores.languages or LANGUAGES))
        if never:
            raise ValueError(
                f"document.languages keeps {', '.join(never)}, which scores.languages does not choose among: "
                "name all languages to choose among there"
            )
        return self
