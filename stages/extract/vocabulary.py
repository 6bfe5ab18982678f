"""The words of pages: tags, ARIA roles, class and id words that say what a part of a page is for."""

from __future__ import annotations

import re


def word_set(*lines: str) -> frozenset[str]:
    """The words of the lines."""
    return frozenset(word for line in lines for word in line.split())


CAPTION_TAGS = frozenset(("figcaption", "caption"))
HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
PREFORMATTED = frozenset(("pre", "listing", "xmp", "plaintext"))
# Furniture by the page's own word.
TAGS = frozenset(("nav", "footer", "aside", "dialog", "search"))
CONTROLS = word_set("button input select textarea datalist label option optgroup output progress meter")
SILENT = word_set(
    "script style template title head iframe frameset noframes noembed canvas object embed applet audio video map",
    "rp rt link meta base param source track col colgroup",
)
ROLES = word_set("navigation banner contentinfo complementary search dialog alertdialog menu menubar toolbar tablist")
# Sectioning content: a <header> inside one is the heading of its text, not of the site.
SECTIONING = frozenset(("article", "main", "section", "blockquote", "figure", "td"))

# Whole class or id words.
EXACT = word_set(
    "nav navbar navigation menu subnav topbar breadcrumb breadcrumbs sidebar footer masthead site-info colophon",
    "pagination pager paging prev-next prevnext post-navigation nav-links pagelinks rst-footer-buttons edit-this-page",
    "social share sharing sharedaddy addtoany_share_save_container related jp-relatedposts newsletter",
    "cookie cookies advertisement advert adverts ads adsense sponsored promo popup modal wpcnt",
    "post-tags tag-cloud tagcloud",
    "toc toc-list table-of-contents toctree-wrapper sphinxsidebar sphinxsidebarwrapper rst-versions bd-toc bd-sidebar",
    "headerbar navheader navfooter mw-editsection mw-jump-link navbox catlinks printfooter",
    "skip-link skiplink screen-reader-text sr-only visually-hidden visuallyhidden noprint printonly print-only",
)
# What readers wrote below: often longer than what they wrote it about.
COMMENTS = word_set("comments comment-list commentlist comments-area comment-respond respond disqus_thread")
# Words inside a class or id, bounded by - or _ or a change of case.
PART = re.compile(
    r"(?:^|[-_])(?:cookies?|gdpr|consent|newsletter|subscribe|subscription|share|sharing|shareaholic|social"
    r"|breadcrumbs?"
    r"|navbar|nav|navigation|menu|sidebar|footer|pagination|pager|related|recommended|recommendations|promo|advert"
    r"|advertisement|sponsored|popup|modal|paywall|outbrain|taboola|skip-to|jumpbox)(?:[-_]|$)"
)
# What asks something of the reader rather than telling: such a block needs more to speak for itself.
ASKING = re.compile(
    r"(?:^|[-_])(?:cookies?|gdpr|consent|newsletter|subscribe|subscription|promo|advert|advertisement|adverts?|ads"
    r"|adsense|sponsored|popup|modal|paywall|share|sharing)(?:[-_]|$)"
)
# docutils and Sphinx put content into <aside>; a table of contents of the page is a "contents topic".
CONTENT_ASIDES = word_set("footnote footnote-list footnotes topic admonition note warning tip citation sidenote info")
# The same as a part of a class ("aside--tip"), or as what an aria-label says.
CALLOUTS = word_set(
    "callout admonition note notes notice tip tips hint warning caution danger attention important example definition",
    "footnote footnotes endnote endnotes sidenote marginnote citation remark",
)
CONTENT_ROLES = word_set(
    "note doc-tip doc-notice doc-footnote doc-endnote doc-endnotes doc-example doc-pullquote doc-glossary",
    "doc-bibliography doc-pullquote doc-qna",
)
# Elements that are hidden from a reader's software because a script shows them over the page, or a second time.
OVERLAYS = word_set(
    "modal popup dialog drawer overlay offcanvas canvas dropdown tooltip lightbox backdrop menu nav clone cloned",
    "duplicate sr-only",
)
# Headings behind which readers write ("27 Kommentare"), ...
COMMENTS_TITLE = re.compile(
    r"(?P<sure>(?:no|\d[\d.,]*|view|show|read|see|all|(?:leave|post|write|add)(?: an?)?|schreibe? einen?|ajouter un) )*"
    r"(?:comments?|kommentare?|leserkommentare|commentaires?|comentarios?|coment\u00e1rios|commenti|reacties"
    r"|kommentarer|komentarze|\u043a\u043e\u043c\u043c\u0435\u043d\u0442\u0430\u0440\u0438\u0438|\u30b3\u30e1\u30f3\u30c8"
    r"|\u8bc4\u8bba|\ub313\uae00|(?<=\d )(?:responses?|repl(?:y|ies)"
    r"|thoughts on .*))(?P<count>\s*[:(\[]?\s*\d+[)\]]?)?",
    re.IGNORECASE,
)
# ... and those of what else a site has to offer, in the languages of large sites.
OFFERS_TITLE = re.compile(
    r"(?:related|similar|recommended|popular|latest|recent|featured|trending|more|sponsored|promoted)"
    r"(?: (?:in|on|from|by|for)\b.{0,40}| (?:articles?|posts?|stories|news|content|links|reading|coverage|videos?"
    r"|now))*"
    r"|(?:you (?:may|might)|also) .{0,30}(?:like|enjoy|interest(?:ed)?)|editor.{0,3} (?:picks|recommendations)"
    r"|(?:most|must) (?:read|popular|viewed|shared|watched|commented)|(?:read|up|what to read) (?:more|next|also)"
    r"|(?:top|other) (?:stories|news|articles|posts)|around the web|partner offers|don.?t miss|in case you missed it"
    r"|from (?:the web|our (?:partners|sponsors))|mehr (?:zum thema|aus|von) ?.{0,30}|auch interessant|lesen sie auch"
    r"|das (?:k\u00f6nnte|thema).{0,20} interessier\w+|(?:verwandte|\u00e4hnliche|weitere)r? (?:artikel"
    r"|beitr\u00e4ge|themen)"
    r"|meistgelesen\w*|articles? (?:li\u00e9s?|similaires?|connexes?|r\u00e9cents?)|(?:\u00e0 )?lire (?:aussi"
    r"|\u00e9galement)"
    r"|sur le m\u00eame (?:sujet|th\u00e8me)|les plus lus|(?:art\u00edculos|noticias) relacionad[oa]s"
    r"|te puede interesar"
    r"|lo m\u00e1s (?:le\u00eddo|visto)|leia (?:tamb\u00e9m|mais)|(?:articoli|notizie) correlat[ei]|leggi anche"
    r"|lees ook"
    r"|\u95a2\u9023\u8a18\u4e8b|\u76f8\u5173(?:\u6587\u7ae0|\u9605\u8bfb|\u65b0\u95fb)",
    re.IGNORECASE,
)
# What a picture of an author or a reader is called, by itself or by the byline that it stands in.
PORTRAITS = word_set("avatar avatars gravatar userpic headshot byline author authors contributor commenter mugshot")
# Inline pieces that are not read: anchors of headings, line numbers, copy buttons, texts shown on hovering.
UNREAD = word_set(
    "headerlink viewcode-link viewcode-back permalink anchorjs-link hash-link anchor-link heading-anchor",
    "mw-editsection",
    "footnote-back fn-backref linenos lineno lineno-start gutter line-numbers copybtn clipboard-copy",
    "tooltip-content tooltiptext tooltip-text",
)
# Of these, what is no text of the page even where it is all that its block says.
SHOWN_ON_DEMAND = word_set("copybtn clipboard-copy tooltip-content tooltiptext tooltip-text mw-editsection")
BLOCKS = word_set("div section ul ol dl form p table td header span a li hgroup center article details menu")
MAIN_IDS = word_set(
    "content main maincontent main-content page-content primary mw-content-text article-body articlebody bodycontent"
)
MAIN_CLASSES = word_set(
    "post-content entry-content article-content article-body articlebody post-body story-body markdown-body",
    "documentwrapper main-content page-content rst-content theme-doc-markdown td-content",
)
