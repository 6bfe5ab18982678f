"""Fetching, on a synthetic web (benchmarks.web_server) that runs on this machine beside it.

python -m benchmarks.web images                  # pictures of documents: a second, in flight, processor time
python -m benchmarks.web images --peer           # and img2dataset on the same server, taking turns
python -m benchmarks.web warc                    # pages of a WARC file, from there to the pictures that are kept
python -m benchmarks.web crawl                   # one site's pages, found by their links
python -m benchmarks.web crawl --scrapy PYTHON   # and by scrapy, in the environment of that interpreter
python -m benchmarks.web recrawl                 # the same site crawled again under another snapshot, unchanged
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
import yaml

from benchmarks.web_server import host, page, texts
from pipeline.corpus.unfinished import open_corpus

app = typer.Typer(add_completion=False)


@contextlib.contextmanager
def served(latency: float, pages: int) -> Iterator[int]:
    """The port of a server for the time of the block."""
    command = [sys.executable, "-m", "benchmarks.web_server", "--latency", str(latency), "--pages", str(pages)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


def _asked(port: int, what: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{what}") as answer:
        return json.loads(answer.read() or "null")


@dataclass
class Run:
    """What a command took, with all processes that it started."""

    seconds: float
    processor_seconds: float
    megabytes: float  # of its largest process, at the most
    fetching: float  # processor seconds of the actors that fetch, from the start of their processes


# What Ray calls the processes that fetch.
_FETCHERS = ("ray::MapWorker(MapBatches(fetch_", "ray::_Member")


def timed(command: Sequence[str]) -> Run:
    """Run a command to its end."""
    used: dict[tuple[int, float], float] = {}
    fetchers: set[tuple[int, float]] = set()
    most = 0.0
    began = time.monotonic()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **_QUIET})
    errors: list[bytes] = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
    reader.start()
    while process.poll() is None:
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                one = each.pid, each.create_time()
                used[one] = sum(each.cpu_times()[:2])
                if (each.cmdline() or [""])[0].startswith(_FETCHERS):
                    fetchers.add(one)
                most = max(most, each.memory_info().rss / 1e6)
        time.sleep(0.2)
    reader.join()
    if process.returncode:
        sys.exit(b"".join(errors).decode()[-2000:])
    fetching = sum(used[one] for one in fetchers)
    return Run(time.monotonic() - began, sum(used.values()), most, fetching)


def _said(what: str, unit: str, run: Run, told: dict[str, int], seconds: float) -> str:
    """Lines about what a phase of so many seconds fetched, beside all of its command."""
    count, rate = told["urls"], told["requests_in_all"] / seconds
    return (
        f"{what}: {count / seconds:,.0f} {unit}s/s ({rate:,.0f} requests/s) in the phase's {seconds:.1f} s, "
        f"{count / run.seconds:,.0f}/s of the command's {run.seconds:.1f} s\n"
        f"  processor time of each {unit}: {1000 * run.fetching / count:.2f} ms in the actors that fetch, "
        f"{1000 * run.processor_seconds / count:.2f} ms in all, Ray's start included; "
        f"largest process {run.megabytes:.0f} MB\n  server: {told}"
    )


_QUIET = {"NO_ALBUMENTATIONS_UPDATE": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def _spec(folder: Path, source: dict[str, Any], concurrency: int, **more: Any) -> Path:
    crawl = {"allow_private_networks": True, "per_host_delay": 0, "concurrency": concurrency, **more}
    spec = {"name": "web", "output": {"url": str(folder / "out")}, "source": source, "crawl": crawl}
    path = folder / "web.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def _phase_seconds(folder: Path, phase: str) -> float:
    corpus, _ = open_corpus(str(folder / "out"))
    return float(corpus.table(phase).record.run["seconds"])


@app.command()
def images(
    count: Annotated[int, typer.Option("--images", min=4)] = 20_000,
    hosts: Annotated[int, typer.Option(min=1)] = 5_000,
    latency: Annotated[float, typer.Option(min=0)] = 0.05,
    concurrency: Annotated[int, typer.Option(min=1)] = 256,
    rounds: Annotated[int, typer.Option(min=1)] = 1,
    peer: Annotated[bool, typer.Option(help="Also img2dataset, taking turns.")] = False,
) -> None:
    """Pictures of documents that were made elsewhere: fetched, and with the peer decoded and resized too."""
    chance = random.Random(7)
    for _ in range(rounds):
        with served(latency, 1) as port, tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            urls = [f"http://{host(chance.randrange(hosts), port)}/i/{number}.jpg" for number in range(count)]
            _write_documents(folder / "documents.jsonl", urls)
            spec = str(_spec(folder, {"kind": "documents", "path": str(folder / "documents.jsonl")}, concurrency))
            build = [sys.executable, "-m", "pipeline.build", "--spec", spec, "--until"]
            before = timed([*build, "clusters"])
            _asked(port, "forget")
            run = timed([*build, "fetched_images"])
            told, seconds = _asked(port, "told"), _phase_seconds(folder, "fetched_images")
            print(_said("fetched", "image", run, told, seconds), flush=True)
            print(f"  largest process before: {before.megabytes:.0f} MB", flush=True)
            if peer:
                _asked(port, "forget")
                _img2dataset(folder, urls, concurrency)
                print(f"  server: {_asked(port, 'told')}", flush=True)


def _write_documents(path: Path, urls: Sequence[str]) -> None:
    """Four pictures a document, which the text rules let pass."""
    chance, paragraphs = random.Random(1), texts()
    with path.open("w") as file:
        for number in range(0, len(urls), 4):
            nodes: list[dict[str, Any]] = []
            for url in urls[number : number + 4]:
                text = " ".join(chance.sample(paragraphs, 2))
                nodes += [{"kind": "text", "tag": "p", "text": f"{text} Of {number}."}]
                nodes += [{"kind": "image", "tag": "img", "image_url": url, "alt": "a picture"}]
            file.write(json.dumps({"url": f"http://d{number}.example/", "title": "a title", "nodes": nodes}) + "\n")


def _img2dataset(folder: Path, urls: Sequence[str], concurrency: int) -> None:
    listed = folder / "urls.txt"
    listed.write_text("\n".join(urls))
    workers = os.cpu_count() or 1
    given = {
        "url_list": str(listed),
        "output_folder": str(folder / "img2dataset"),
        "input_format": "txt",
        "output_format": "webdataset",
        "image_size": 256,
        "resize_mode": "border",
        "processes_count": workers,
        "thread_count": concurrency // workers,
        "number_sample_per_shard": 1000,
    }
    run = timed([sys.executable, "-c", f"from img2dataset import download; download(**{given!r})"])
    print(
        f"img2dataset: {len(urls) / run.seconds:,.0f} images/s of {run.seconds:.1f} s, decoded, resized and written; "
        f"{1000 * run.processor_seconds / len(urls):.2f} ms of processor time each",
        flush=True,
    )


@app.command()
def warc(
    pages: Annotated[int, typer.Option(min=1)] = 6_000,
    hosts: Annotated[int, typer.Option(min=1)] = 5_000,
    latency: Annotated[float, typer.Option(min=0)] = 0.05,
    concurrency: Annotated[int, typer.Option(min=1)] = 256,
) -> None:
    """A WARC file of pages on many hosts, to the pictures that every rule lets pass."""
    with served(latency, pages) as port, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_warc(folder / "pages.warc.gz", pages, hosts, port)
        spec = _spec(folder, {"kind": "warc", "paths": [str(folder / "pages.warc.gz")]}, concurrency)
        run = timed([sys.executable, "-m", "pipeline.build", "--spec", str(spec), "--until", "kept"])
        corpus, _ = open_corpus(str(folder / "out"))
        kept = corpus.table("kept").record.rows
        print(f"{pages:,} pages on {hosts:,} hosts: {run.seconds:.1f} s to {kept:,} documents; {_asked(port, 'told')}")
        for phase in ("pages", "documents", "scores", "signatures", "fetched_images", "images", "kept"):
            print(f"  {phase:<16}{corpus.table(phase).record.run['seconds']:8.1f} s")


def write_warc(path: Path, pages: int, hosts: int, port: int) -> None:
    """A WARC file of response records, a gzip member each; page k lies on host k modulo their number."""
    paragraphs = texts()
    with path.open("wb") as file:
        for number in range(pages):
            place = host(number % hosts, port)
            body = page(number, 0, f"http://{place}", paragraphs)
            answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
            head = (
                f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://{place}/p/{number}.html\r\n"
                f"WARC-Date: 2026-01-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:{number:032x}>\r\n"
                f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(answer)}\r\n\r\n"
            )
            file.write(gzip.compress(head.encode() + answer + b"\r\n\r\n", 1))


# A spider that follows what the crawl follows and keeps the bodies: concurrency and politeness as ours, log off.
_SPIDER = """
import sys
import scrapy
from scrapy.crawler import CrawlerProcess

class Pages(scrapy.Spider):
    name = "pages"
    start_urls = [sys.argv[1]]

    def parse(self, response):
        yield {"url": response.url, "body": response.text}
        for href in response.css("a::attr(href)").getall():
            yield response.follow(href, self.parse)

concurrency = int(sys.argv[2])
process = CrawlerProcess({
    "ROBOTSTXT_OBEY": True, "CONCURRENT_REQUESTS": concurrency, "CONCURRENT_REQUESTS_PER_DOMAIN": concurrency,
    "DOWNLOAD_DELAY": 0, "LOG_ENABLED": False, "TELNETCONSOLE_ENABLED": False,
    "FEEDS": {sys.argv[3]: {"format": "jsonlines"}},
})
process.crawl(Pages)
process.start()
"""


@app.command()
def crawl(
    pages: Annotated[int, typer.Option(min=1)] = 10_000,
    latency: Annotated[float, typer.Option(min=0)] = 0.0,
    concurrency: Annotated[int, typer.Option(min=1)] = 64,
    scrapy: Annotated[str | None, typer.Option(help="An interpreter whose environment has scrapy.")] = None,
) -> None:
    """One site of pages that link on, politeness off: by the build up to its pages, and by the peer."""
    with served(latency, pages) as port, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seed = f"http://{host(0, port)}/p/0.html"
        source = {"kind": "site", "seeds": [seed]}
        more = {"per_host_concurrency": concurrency, "max_pages": pages}
        spec = _spec(folder, source, concurrency, **more)
        run = timed([sys.executable, "-m", "pipeline.build", "--spec", str(spec), "--until", "pages"])
        told, seconds = _asked(port, "told"), _phase_seconds(folder, "pages")
        print(_said("crawled", "page", run, told, seconds), flush=True)
        if scrapy is not None:
            _asked(port, "forget")
            (folder / "spider.py").write_text(_SPIDER)
            spider = [scrapy, str(folder / "spider.py"), seed, str(concurrency), str(folder / "scrapy.jsonl")]
            peer = timed(spider)
            told = _asked(port, "told")
            print(
                f"scrapy: {told['urls'] / peer.seconds:,.0f} pages/s of {peer.seconds:.1f} s; "
                f"{1000 * peer.processor_seconds / told['urls']:.2f} ms of processor time each\n  server: {told}",
                flush=True,
            )


@app.command()
def recrawl(
    pages: Annotated[int, typer.Option(min=1)] = 10_000,
    latency: Annotated[float, typer.Option(min=0)] = 0.0,
    concurrency: Annotated[int, typer.Option(min=1)] = 64,
) -> None:
    """One site crawled under two snapshots, of which the second finds every page as it was."""
    with served(latency, pages) as port, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = {"kind": "site", "seeds": [f"http://{host(0, port)}/p/0.html"]}
        spec = _spec(folder, source, concurrency, per_host_concurrency=concurrency, max_pages=pages)
        found: dict[str, tuple[float, dict[str, float], str]] = {}
        for snapshot in ("first", "second"):
            _asked(port, "forget")
            build = [sys.executable, "-m", "pipeline.build", "--spec", str(spec), "--until", "pages"]
            run = timed([*build, "--set", f"source.snapshot={snapshot}"])
            told, seconds = _asked(port, "told"), _phase_seconds(folder, "pages")
            found[snapshot] = seconds, told, open_corpus(str(folder / "out"))[0].table("pages").record.digest
            print(_said(snapshot, "page", run, told, seconds), flush=True)
        (before, told, table), (after, again, same) = found.values()
        print(
            f"second against first: {again['megabytes'] / told['megabytes']:.1%} of the bytes, "
            f"{after / before:.0%} of the phase's time; {'the same' if table == same else 'another'} table"
        )


if __name__ == "__main__":
    app()
