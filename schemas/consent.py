"""The consent record: what a site said about use of a page or image and what decided, kept for re-checking."""

import pyarrow as pa

# One thing that was said beside robots.txt's verdict and X-Robots-Tag, obeyed or not.
SIGNAL = pa.struct(
    [
        # ai_txt | tdmrep | content_signal | rsl | meta_robots: the rule of the decisions that it may lead to
        pa.field("signal", pa.string()),
        pa.field("said", pa.string()),  # as sent, one line: "tdm-reservation: 0", "Content-Signal: ai-train=no"
    ]
)

# What shards hold of it, and what tables of earlier releases do: all of these were allowed.
VERDICT = pa.struct(
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

CONSENT = pa.struct(
    [
        *VERDICT,
        pa.field("signals", pa.list_(SIGNAL)),  # null where an earlier release asked for none
        # The signal that decided: robots, x_robots_tag, or one of SIGNAL's; null where nothing speaks of it.
        pa.field("decided_by", pa.string()),
        pa.field("decided_rule", pa.string()),  # its line, e.g. "Disallow: /private/", "X-Robots-Tag: noai"
        pa.field("decided_source", pa.string()),  # the file it stands in and its status, null for headers and tags
        pa.field("license", pa.string()),  # absolute URL of a header Link with rel="license", or null
    ]
)
