"""What happened to a page or an image, phase by phase, as the tables and decisions of a corpus tell it."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.version import Corpus
from pipeline.corpus.words import bounds_words, counted, number, phase_words, rule_words, sample_words
from pipeline.engine.mistake import UserMistake
from stages.sources.sample import in_sample
from stages.web.urls import canonicalize_image

Row = dict[str, Any]
WIDTH = 100
# Known URLs that are compared letter by letter with an unknown one.
COMPARED = 2000


def explain(corpus: Corpus, url: str) -> Iterator[str]:
    """Lines that tell what happened to the page or image of a URL, phase by phase, as far as the build came.

    The URL is looked for in its canonical form as a page asked for, as where a page was redirected to, as a page's
    own canonical address, and as an image. UserMistake names the nearest known URLs when it is none of them.
    """
    try:
        url.encode()
    except UnicodeEncodeError:
        raise UserMistake(f"--url {url}: not UTF-8") from None
    names = _spellings(url)
    pages = _find(corpus, "pages", ("url", "final_url"), names)
    if not pages:
        ids = [row["page_id"] for row in _find(corpus, "documents", ("url", "canonical_url"), names)]
        pages = _find(corpus, "pages", ("page_id",), ids)
    images = _find(corpus, "images", ("url",), names)
    nodes = _standing(corpus, names)
    left_out = _left_out(corpus, names)
    if not pages and not images and not nodes and not left_out:
        near = _nearest(corpus, url)
        hint = f"; the nearest known are {', '.join(near)}" if near else ""
        hint = _outside_sample(corpus, names) + hint
        which = f"{corpus.called} ({corpus.caveat})" if corpus.ahead else "this corpus"
        raise UserMistake(f"--url {url}: neither a page nor an image of {which}{hint}")
    for page in pages:
        yield from _page(corpus, page)
    if images or nodes:
        yield from _image(corpus, url, images, nodes)
    elif left_out:
        yield url
    shown_by = _find(corpus, "pages", ("page_id",), sorted({row["document_id"] for row in left_out}))
    url_of = {page["page_id"]: page["url"] for page in shown_by}
    for row in left_out:
        yield f"  in {url_of[row['document_id']]}: left out by {phase_words(row['phase'])}: {_why(row)}"
    yield from _remedies(corpus, [*pages, *images])


def _outside_sample(corpus: Corpus, names: list[str]) -> str:
    """What a sample has to do with a page that is unknown."""
    source = corpus.manifest.spec["source"]
    share = sample_words(source)
    if not share or any(in_sample(name, float(source["sample"])) for name in names):
        return ""
    return f"; as a page it would lie outside the sample of {share} (source.sample)"


def _remedies(corpus: Corpus, fetched: list[Row]) -> Iterator[str]:
    """Commands that may change what was told, whole."""
    if any(row["retryable"] for row in fetched):
        yield f"to fetch again what may pass: {corpus.command('--retry-failed')}"
    if corpus.ahead:
        yield f"to go on with the build: {corpus.command()}"


def _left_out(corpus: Corpus, names: list[str]) -> list[Row]:
    """Decisions about images that extraction found and made no node of."""
    wanted = pa.array(names, pa.string())
    found: list[Row] = []
    for table in corpus.table("documents").decisions() if "documents" in corpus.phases else ():
        mine = pc.and_(pc.equal(table.column("kind"), "image"), pc.is_in(table.column("url"), value_set=wanted))
        found += table.filter(mine).to_pylist()
    return found


def _spellings(url: str) -> list[str]:
    """The URL as given and in canonical form."""
    try:
        return sorted({url, canonicalize_image(url)})
    except ValueError:
        return [url]


def _find(corpus: Corpus, phase: str, columns: tuple[str, ...], values: list[str]) -> list[Row]:
    """Rows of a phase's table where one of the columns holds one of the values; [] without such a phase."""
    found: list[Row] = []
    if phase not in corpus.phases or not values:
        return found
    wanted = pa.array(values, pa.string())
    for part in corpus.table(phase).read_all():
        hit = pc.is_in(part.column(columns[0]), value_set=wanted)
        for column in columns[1:]:
            hit = pc.or_(hit, pc.is_in(part.column(column), value_set=wanted))
        found.extend(part.filter(hit).to_pylist())
    return found


def _decisions(corpus: Corpus, column: str, value: str) -> list[Row]:
    """Decisions about a document or an image, in build order."""
    found: list[Row] = []
    for table in corpus.decisions():
        found.extend(table.filter(pc.equal(table.column(column), value)).to_pylist())
    return found


def _page(corpus: Corpus, page: Row) -> Iterator[str]:
    yield page["url"]
    yield f"  crawl: {_fetched(page)}"
    if page["final_url"] and page["final_url"] != page["url"]:
        yield f"  redirected to {page['final_url']}"
    yield from _consent(page)
    document_id = page["page_id"]
    about = _decisions(corpus, "subject_id", document_id)
    inside = [row for row in _decisions(corpus, "document_id", document_id) if row["kind"] not in ("page", "document")]
    documents = _find(corpus, "documents", ("document_id",), [document_id])
    for row in about:
        if row["kind"] == "page" and page["status"] == "ok":
            yield f"  {phase_words(row['phase'])}: {_why(row)}"
    if not documents:
        read = page["status"] == "ok" and not any(row["kind"] == "page" for row in about)
        not_yet = read and "documents" in corpus.ahead
        yield f"  result: {_still(corpus)}" if not_yet else "  result: no document was made of it"
        return
    nodes = documents[0]["nodes"]
    images = sum(node["kind"] == "image" for node in nodes)
    title = documents[0]["title"]
    yield f"  extract: {counted(len(nodes) - images, 'paragraph')} and {counted(images, 'image')}" + (
        f', titled "{_plain(title)}"' if title else ""
    )
    fate = [row for row in about if row["kind"] == "document"]
    for row in fate:
        yield f"  {phase_words(row['phase'])}: dropped, {_why(row)}{_kept_copy(corpus, row)}"
    yield from _shard_lines(corpus, document_id, fate)
    yield from _nodes(corpus, document_id, nodes, inside, bool(fate))


def _fetched(row: Mapping[str, Any]) -> str:
    """How fetching went, for a page or an image."""
    if row["status"] == "ok":
        facts = [f"HTTP {row['http_status']}" if row.get("http_status") else "read", row.get("content_type") or ""]
        if row.get("depth") is not None:
            facts.append(f"{counted(row['depth'], 'link')} from the seeds")
        return ", ".join(fact for fact in facts if fact)
    again = "; may pass when it is tried again" if row["retryable"] else ""
    if row["reason"] == "robots":
        return f"not used, {_robots(row)}{again}"
    kind = "page" if "page_id" in row else "image"
    said = f" ({_plain(row['detail'])})" if row["detail"] else ""
    outcome = "not used" if row["status"] == "refused" else row["status"].replace("error", "failed")
    return f"{outcome}, {rule_words(kind, row['reason'] or '')}{said}{again}"


def _robots(row: Mapping[str, Any]) -> str:
    """What robots.txt said: no, or nothing, which may pass (stages.web.robots)."""
    source = (row["consent"] or {}).get("robots_source")
    if row["retryable"]:
        # "http://h/robots.txt connection", or a status as the last word
        url, _, cause = (source or "").rpartition(" ")
        cause = f"HTTP {cause}" if cause.isdigit() else rule_words("page", cause)
        why = f" ({_plain(url)}: {_plain(cause)})" if source else ""
        return f"robots.txt could not be reached{why}, and without its word nothing may be fetched (RFC 9309)"
    said = f" ({_plain(row['detail'])})" if row["detail"] else ""
    return f"refused by the site's robots.txt{said}" + (f", by {_plain(source)}" if source else "")


def _consent(row: Mapping[str, Any]) -> Iterator[str]:
    """What was said of use, and what of it decided; nothing where only robots.txt was silent."""
    consent = row["consent"] or {}
    if by := consent.get("decided_by"):
        source = f", {consent['decided_source']}" if consent.get("decided_source") else ""
        yield f"  consent: decided by {_plain(consent['decided_rule'] or by)} [{by}]{_plain(source)}"
    said = [*(consent.get("x_robots_tag") or "").splitlines()]
    said = [f"X-Robots-Tag: {line}" for line in said] + [each["said"] for each in consent.get("signals") or ()]
    if said:
        yield f"  consent: told {_plain('; '.join(said))}"
    if consent.get("license"):
        yield f"  consent: licence {_plain(consent['license'])}"


def _why(row: Mapping[str, Any]) -> str:
    """A decision in words: the rule, the measured value and what would have passed."""
    words = rule_words(row["kind"], row["rule"])
    bounds = bounds_words(row["low"], row["high"])
    measured = f": {number(row['value'])}, accepted {bounds}" if row["value"] is not None and row["high"] != 0 else ""
    return f"{words}{measured if bounds else ''} [{row['rule']}]"


def _kept_copy(corpus: Corpus, row: Mapping[str, Any]) -> str:
    """The URL of the copy that was kept instead, where a decision names it."""
    for word in (row["detail"] or "").replace(",", " ").split():
        if len(word) == 32 and word != row["subject_id"]:
            kept = _find(corpus, "documents", ("document_id",), [word])
            if kept:
                # A rule that can speak only of what was chosen may have dropped it since: the split, or pairing.
                later = [each for each in _decisions(corpus, "subject_id", word) if each["kind"] == "document"]
                went = f", which went later: {_why(later[0])}" if later else ""
                return f"; kept is {kept[0]['url']}{went}"
    return f"; {_plain(row['detail'])}" if row["detail"] else ""


def _shard_lines(corpus: Corpus, document_id: str, fate: list[Row]) -> Iterator[str]:
    rows = _find(corpus, "shards", ("document_id",), [document_id])
    for row in rows:
        yield (
            f"  result: in {corpus.folder}/{row['file']}, row {row['row']}, {row['split'].replace('_', ' ')}: "
            f"{counted(row['num_images'], 'image')} ({row['num_matched_images']} with a sentence), "
            f"{counted(row['num_sentences'], 'sentence')}, {counted(row['num_negatives'], 'negative')}"
        )
    if not rows and not fate and corpus.ahead:
        yield f"  result: {_still(corpus)}"
    elif not rows:
        yield "  result: not in the shards" + ("" if fate else "; no rule says why, which is a fault of interloom")


def _still(corpus: Corpus) -> str:
    """Of what nothing has dropped in a build that is not finished."""
    return f"still in after {phase_words(corpus.phases[-1])}; {phase_words(corpus.ahead[0])} has not been done"


def _left(corpus: Corpus, document_id: str) -> set[int] | None:
    """Positions of a document's nodes that the last filter which is finished let through; None before the first."""
    for phase in ("kept", "passed", "text"):
        if phase in corpus.phases:
            rows = _find(corpus, phase, ("document_id",), [document_id])
            return set(rows[0]["positions"]) if rows else set()
    return None


def _nodes(corpus: Corpus, document_id: str, nodes: list[Row], inside: list[Row], dropped: bool) -> Iterator[str]:
    """Each node in reading order with what happened to it, then what extraction left out."""
    at: dict[int, list[Row]] = {}
    for row in inside:
        if row["position"] is not None:
            at.setdefault(row["position"], []).append(row)
    matches = {
        row["position"]: row
        for row in _find(corpus, "pairs", ("document_id",), [document_id])
        if row["kind"] == "image"
    }
    left = _left(corpus, document_id)
    # What is not in the shards yet was not dropped yet, no more.
    stays = "still in" if corpus.ahead else "kept"
    for position, node in enumerate(nodes):
        first = node["text"] if node["kind"] == "text" else node["image_url"]
        name = "paragraph" if node["kind"] == "text" else "image"
        if position in at:
            said = "; ".join(f"{'cut' if row['action'] == 'cut' else 'dropped'}, {_why(row)}" for row in at[position])
        elif position in matches:
            match = matches[position]
            similarity = "" if match["similarity"] is None else f", cosine {match['similarity']:.2f}"
            said = (
                f"{stays}, no sentence" if match["matched"] is None else f"{stays}, matched to a sentence{similarity}"
            )
        else:
            gone = dropped or (left is not None and position not in left)
            said = "went with its document" if gone else stays
        yield f"  {position:>4} {name}: {said}"
        yield f"       {_plain(first or '')}"
    for row in inside:
        if row["position"] is None:
            yield f"     - {row['kind']} left out by {phase_words(row['phase'])}: {_why(row)}"
            if row["detail"]:
                yield f"       {_plain(row['detail'])}"


def _standing(corpus: Corpus, names: list[str]) -> list[tuple[Row, int]]:
    """(document, position) of every extracted image node with one of the URLs."""
    found: list[tuple[Row, int]] = []
    if "documents" not in corpus.phases:
        return found
    wanted = pa.array(names, pa.string())
    for part in corpus.table("documents").read_all():
        column = part.column("nodes").combine_chunks()
        hits = pc.is_in(pc.struct_field(column.flatten(), "image_url"), value_set=wanted)
        parents = pc.list_parent_indices(column).filter(hits).unique()
        for row in part.take(parents).select(["document_id", "url", "nodes"]).to_pylist():
            found += [(row, index) for index, node in enumerate(row["nodes"]) if node["image_url"] in names]
    return found


def _image(corpus: Corpus, url: str, images: list[Row], nodes: list[tuple[Row, int]]) -> Iterator[str]:
    yield images[0]["url"] if images else url
    if not images and "images" in corpus.ahead:
        yield "  not fetched yet"
    elif not images:
        yield "  not fetched: no document that shows it passed the text filters, or the image itself was dropped before"
    for image in images:
        if image["status"] == "ok":
            yield (
                f"  fetched: {image['original_format']}, {image['original_width']} x {image['original_height']} pixels"
                f", stored as {image['format']} {image['width']} x {image['height']}, sha256 {image['sha256']}"
            )
        else:
            yield f"  fetch: {_fetched(image)}"
        yield from _consent(image)
        shown = counted(image["num_documents"], "document")
        yield f"  shown by {shown} that passed the text filters, copies of each other counted once"
    image_ids = {node["nodes"][position]["image_id"] for node, position in nodes} | {i["image_id"] for i in images}
    said: dict[tuple[str | None, int | None], list[Row]] = {}
    for image_id in sorted(image_ids):
        for row in _decisions(corpus, "subject_id", image_id):
            said.setdefault((row["document_id"], row["position"]), []).append(row)
    for row in said.pop((None, None), []):
        yield f"  {phase_words(row['phase'])}: {_why(row)}"
    fates = _fates(corpus, sorted({document["document_id"] for document, _ in nodes}))
    for document, position in nodes:
        here = said.get((document["document_id"], position), [])
        yield f"  in {document['url']}, node {position}"
        if here:
            yield from (f"       {phase_words(row['phase'])}: dropped, {_why(row)}" for row in here)
        else:
            yield f"       {fates[document['document_id']]}"


def _fates(corpus: Corpus, document_ids: list[str]) -> dict[str, str]:
    """What became of documents, in a few words each."""
    told = f"its document is {_still(corpus)}" if corpus.ahead else "its document is not in the shards"
    fates = dict.fromkeys(document_ids, told)
    wanted = pa.array(document_ids, pa.string())
    for table in corpus.decisions():
        mine = pc.and_(
            pc.is_in(table.column("subject_id"), value_set=wanted), pc.equal(table.column("kind"), "document")
        )
        for row in table.filter(mine).to_pylist():
            fates[row["subject_id"]] = f"went with its document: {phase_words(row['phase'])}, {_why(row)}"
    for row in _find(corpus, "shards", ("document_id",), document_ids):
        fates[row["document_id"]] = f"in {corpus.folder}/{row['file']}, row {row['row']}"
    return fates


def _nearest(corpus: Corpus, url: str) -> list[str]:
    """Up to three known page and image URLs that look most like one: same host first, then letters."""
    host = urlsplit(url).netloc.lower() if "//" in url else ""

    def known() -> Iterator[str]:
        for phase in ("pages", "images"):
            if phase in corpus.phases:
                for part in corpus.table(phase).read_all():
                    yield from part.column("url").to_pylist()

    def likeness(other: str) -> tuple[bool, int]:
        same = sum(1 for a, b in zip(reversed(url), reversed(other), strict=False) if a == b)
        return bool(host) and urlsplit(other).netloc == host, same

    candidates = heapq.nlargest(COMPARED, known(), key=likeness)
    return difflib.get_close_matches(url, [other for other in candidates if len(other) < 500], 3, cutoff=0.5)


def _plain(text: str) -> str:
    """One line of at most WIDTH characters without control characters: pages are hostile, terminals obey."""
    flat = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return flat if len(flat) <= WIDTH else f"{flat[: WIDTH - 2]} …"
