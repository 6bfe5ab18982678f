"""The consent record: what a site said about use of a page or an image, kept so it can be re-checked."""

import pyarrow as pa

CONSENT = pa.struct(
    [
        # robots.txt (RFC 9309) verdict for our agent; null when the source was not crawled (html, warc, documents).
        pa.field("robots_allowed", pa.bool_()),
        # The robots.txt URL and status that decided, e.g. "http://h/robots.txt 404".
        pa.field("robots_source", pa.string()),
        # The X-Robots-Tag response header as sent, or null.
        pa.field("x_robots_tag", pa.string()),
        # The user agent the verdicts are for.
        pa.field("agent", pa.string()),
    ]
)
