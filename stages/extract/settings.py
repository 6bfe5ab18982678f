"""Settings of extraction."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.row_function import Settings


class ExtractSettings(Settings):
    """What of a page becomes nodes, and what a hostile page may cost."""

    max_bytes: int = Field(default=16 << 20, ge=1024)
    """Bytes of HTML; a larger body is an error. Default: ours, four times the largest of 500 real pages looked at."""
    max_nodes: int = Field(default=250_000, ge=100)
    """Elements of a page; the rest is cut off with a `dropped` row. Default: ours, as the HTML living standard's own
    single page has about 200,000."""
    max_depth: int = Field(default=512, ge=32)
    """Levels of nested elements; tags opened below it are ignored. Default: Chromium's 512."""
    max_images: int = Field(default=2_000, ge=1)
    """Image nodes of a page; later ones are dropped with rule "max_images". Default: ours, far above the 30 that
    OBELICS lets a document keep; it only bounds what a hostile page costs."""
    target_width: int = Field(default=1_024, ge=1)
    """Pixels. Of several candidates (srcset, picture) the largest not wider than this is taken, else the smallest
    above. Default: ours, more than any encoder here reads (384), little enough to download."""
    image_types: tuple[str, ...] = Field(default=("jpeg", "png", "webp"), strict=False)
    """Formats preferred when a `picture` offers several. Default: OBELICS' jpg, jpeg, png, webp."""
    data_uris: Literal["keep", "drop"] = "keep"
    """Images inside the page (`data:` URIs): "keep" makes them nodes, "drop" drops them with a reason. Default: ours,
    they are pictures as others are (OBELICS skips them)."""
    max_data_uri: int = Field(default=1 << 20, ge=0)
    """Characters of a `data:` URI that is kept; longer ones are dropped. Default: ours, 1 MiB of base64 is a picture of
    768 KiB, larger than pages embed."""
    min_data_uri: int = Field(default=512, ge=0)
    """Characters below which a `data:` URI is a placeholder or spacer and is dropped. Default: ours, as a blank GIF has
    about 80 and no photograph fits into 512."""
    main_content: Literal["auto", "page"] = "auto"
    """What of a page is read: "auto", only the page's marked main part (main, role=main, article, ...) where it is
    trustworthy, and in it not what hangs on to the text (blocks of links, headlines, forms or hardly a paragraph behind
    the element that holds most paragraphs); "page", the whole body less furniture, as OBELICS does. Default: ours,
    menus and teasers are mostly outside a marked main part or behind the text."""
