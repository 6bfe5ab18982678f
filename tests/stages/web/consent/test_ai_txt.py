"""ai.txt: patterns of endings, whatever addresses look like."""

from typing import Literal

import pytest

from stages.web.consent.ai_txt import deciding
from stages.web.consent.robots_txt import RobotsTxt

PICTURES = "User-Agent: *\nDisallow: *.jpg\nDisallow: *.png\nAllow: *.html\nAllow: *.txt\n"
TEXTS = "User-Agent: *\nAllow: *.jpg\nAllow: *.png\nDisallow: *.html\nDisallow: *.txt\n"


@pytest.mark.parametrize(
    ("file", "path", "kind", "told"),
    [
        (PICTURES, "/a.jpg", "image", "Disallow: *.jpg"),
        (PICTURES, "/A.JPG", "image", "Disallow: *.jpg"),
        (PICTURES, "/a.jpg?w=200", "image", "Disallow: *.jpg"),
        (PICTURES, "/picture?id=3", "image", "Disallow: *.jpg"),
        (PICTURES, "/a.gif", "image", None),
        (PICTURES, "/", "page", "Allow: *.html"),
        (PICTURES, "/a.html", "page", "Allow: *.html"),
        (TEXTS, "/", "page", "Disallow: *.html"),
        (TEXTS, "/essays/one", "page", "Disallow: *.html"),
        (TEXTS, "/essays/v1.2", "page", "Disallow: *.html"),
        (TEXTS, "/a.html", "page", "Disallow: *.html"),
        (TEXTS, "/a.php", "page", "Disallow: *.html"),
        (TEXTS, "/a.jpg", "image", "Allow: *.jpg"),
        ("User-Agent: *\nDisallow: /\nDisallow: *", "/a.jpg", "image", "Disallow: /"),
        ("User-Agent: *\nAllow: /", "/a.jpg", "image", "Allow: /"),
        ("User-Agent: otherbot\nDisallow: /", "/a.jpg", "image", None),
        ("User-Agent: interloom\nAllow: /\nUser-Agent: *\nDisallow: /", "/a.jpg", "image", "Allow: /"),
        ("# a Markdown file of that name\n\nWe make *.jpg", "/a.jpg", "image", None),
        ("", "/a.jpg", "image", None),
    ],
)
def test_what_decides(file: str, path: str, kind: Literal["page", "image"], told: str | None) -> None:
    rule = deciding(RobotsTxt(file.encode()), f"http://h{path}", kind, "interloom")
    assert (rule and rule.line) == told
