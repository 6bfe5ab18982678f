"""Local folders as a source."""

import os
from pathlib import Path

import pytest

from schemas.consent import CONSENT
from stages.sources.folder import FOLDER_FETCHED, fingerprint, list_files, local_url, read_folder, read_local
from stages.web.fetched import FETCHED

BASE = "http://site.test/docs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name, text in {
        "index.html": "<p>index",
        "b/Page.HTM": "<p>page",
        "b/ä b?#%.html": "<p>odd name",
        "a.xhtml": "<html/>",
        "style.css": "p {}",
        "img/x.png": "png",
        "img/x y.png": "png with a blank",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "secret.html").write_text("<p>secret")
    (root / "out.html").symlink_to(tmp_path / "secret.html")
    (root / "loop").symlink_to(root)
    return root


def test_files_are_sorted_and_stay_inside(folder: Path) -> None:
    assert list_files(folder, ["*.html", "*.htm"]) == ["b/Page.HTM", "b/ä b?#%.html", "index.html"]
    assert "style.css" in list_files(folder)
    assert "out.html" not in list_files(folder)
    with pytest.raises(ValueError, match="no such folder"):
        list_files(folder / "none")


def test_pages_are_rows_with_urls_below_the_base(folder: Path) -> None:
    tables = list(read_folder(folder, BASE, max_bytes=9, batch_rows=2))
    assert [len(table) for table in tables] == [2, 2, 1]
    assert all(table.schema.equals(FOLDER_FETCHED) for table in tables)
    rows = {row["file"]: row for table in tables for row in table.to_pylist()}
    assert list(rows) == ["a.xhtml", "b/Page.HTM", "b/ä b?#%.html", "index.html", "out.html"]
    page = rows["b/Page.HTM"]
    assert page["url"] == page["final_url"] == "http://site.test/docs/b/Page.HTM"
    assert (page["status"], page["body"], page["modified"], page["http_status"]) == ("ok", b"<p>page", None, None)
    assert page["consent"] == {**{field.name: None for field in CONSENT}, "signals": []}
    assert rows["b/ä b?#%.html"]["url"] == "http://site.test/docs/b/%C3%A4%20b%3F%23%25.html"
    assert (rows["b/ä b?#%.html"]["status"], rows["b/ä b?#%.html"]["reason"]) == ("refused", "too_large")


def left_out(folder: Path) -> dict[str, tuple[str, str, str]]:
    """file -> (status, reason, detail) of the rows that are not ok."""
    rows = [row for table in read_folder(folder, BASE, max_bytes=100) for row in table.to_pylist()]
    assert len({row["url"] for row in rows}) == len(rows) and all(row["url"].startswith(BASE + "/") for row in rows)
    return {row["file"]: (row["status"], row["reason"], row["detail"]) for row in rows if row["status"] != "ok"}


def test_what_is_named_like_a_page_and_is_no_file_of_the_folder_is_a_row(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.html").write_text("<p>secret")
    (folder / "dangling.html").symlink_to("nothing.html")
    (folder / "circle.html").symlink_to("circle.html")
    (folder / "inside.html").symlink_to("index.html")
    (folder / "site").symlink_to(tmp_path / "elsewhere")
    (folder / "folder.html").mkdir()
    (folder / "linked.html").symlink_to("b")
    (folder / "no.css").symlink_to("nothing.css")
    os.mkfifo(folder / "pipe.html")
    (folder / "locked").mkdir()
    given = os.listdir

    def listdir(path: str) -> list[str]:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return given(path)

    monkeypatch.setattr(os, "listdir", listdir)
    elsewhere = ("refused", "not_a_file", "a link to a folder, which is not followed")
    assert left_out(folder) == {
        "circle.html": ("error", "unreadable", "Too many levels of symbolic links"),
        "dangling.html": ("refused", "not_a_file", "a link to nothing"),
        "linked.html/": elsewhere,
        "locked/": ("error", "unreadable", "Permission denied"),
        "out.html": ("refused", "not_a_file", "a link that leads out of the folder"),
        "pipe.html": ("refused", "not_a_file", "a pipe, a socket or a device"),
        "site/": elsewhere,
    }
    assert "inside.html" in list_files(folder) and "pipe.html" not in list_files(folder)
    seen = fingerprint(folder)
    assert seen == fingerprint(folder)
    (folder / "dangling.html").unlink()
    assert fingerprint(folder) != seen
    images = [f"{BASE}/{name}" for name in ("circle.html", "pipe.html", "a" * 300 + ".png", "index.html/x.png")]
    assert read_local(images, folder, BASE, max_bytes=100)["reason"].to_pylist() == ["missing"] * 4


def test_a_path_too_long_for_a_url_is_a_row_beside_the_others(tmp_path: Path) -> None:
    deep = tmp_path / "root" / "/".join(["é" * 120] * 12)
    deep.mkdir(parents=True)
    (deep / "a.html").write_text("<p>a")
    (tmp_path / "root" / "b.html").write_text("<p>b")
    (row,) = left_out(tmp_path / "root").values()
    assert row[:2] == ("error", "bad_url") and row[2].startswith("URL longer than 8192 characters: ")
    assert len(fingerprint(tmp_path / "root")) == 32


@pytest.mark.slow
def test_folders_as_deep_as_a_path_can_be(tmp_path: Path) -> None:
    (tmp_path / "b.html").write_text("<p>b")
    deep = str(tmp_path)
    for _ in range(1050):
        deep += "/d"
        os.mkdir(deep)
    Path(deep, "a.html").write_text("<p>a")
    assert [file.count("/") for file in list_files(tmp_path)] == [0, 1050]
    # What removes the test's folder afterwards goes down a level a call.
    Path(deep, "a.html").unlink()
    os.removedirs(deep)


def test_images_are_read_from_the_folder_by_url(folder: Path) -> None:
    urls = [
        BASE + "/img/x.png",
        BASE + "/img/./x.png#again",
        BASE + "/img/x%20y.png?v=2",
        BASE + "/img/none.png",
        BASE + "/img",
        BASE + "/img/%2e%2e%2f..%2fsecret.html",
        BASE + "/..%2fsecret.html",
        BASE + "//etc/passwd",
        BASE + "/out.html",
        BASE + "/a%00b",
        "http://site.test/docs2/x.png",
        "https://other.test/docs/x.png",
        "nonsense",
    ]
    table = read_local(urls, folder, BASE + "/", max_bytes=100)
    assert table.schema.equals(FETCHED)
    assert table["reason"].to_pylist() == [
        None, None, "missing", "missing", "missing", "missing", "missing", "missing", "missing",
        "not_local", "not_local", "bad_url",
    ]  # fmt: skip
    assert table["body"].to_pylist()[:2] == [b"png", b"png with a blank"]
    assert table["status"].to_pylist()[0] == "ok"
    assert len(table["content_hash"].to_pylist()[0]) == 32


def test_every_listed_file_is_found_again_by_its_url(folder: Path) -> None:
    files = list_files(folder)
    table = read_local([local_url(file, BASE) for file in files], folder, BASE, max_bytes=100)
    assert table["status"].to_pylist() == ["ok"] * len(files)


def test_an_unreadable_file_is_a_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    row = read_local([BASE + "/img/x.png"], folder, BASE, max_bytes=100).to_pylist()[0]
    assert (row["status"], row["reason"], row["detail"]) == ("error", "unreadable", "Permission denied")


def test_the_fingerprint_of_plain_files_and_of_one_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.html").write_text("<p>a")
    assert fingerprint(tmp_path) == "08239091142181c472bd8b4c065b4391"

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert fingerprint(tmp_path) not in ("08239091142181c472bd8b4c065b4391", fingerprint(tmp_path, ["*.css"]))


def test_the_fingerprint_sees_every_byte_and_name_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    seen = [fingerprint(folder)]
    os.utime(folder / "index.html", (1, 1))
    assert fingerprint(folder) == seen[0]
    (folder / "style.css").write_text("p{} ")
    seen.append(fingerprint(folder))
    (folder / "style.css").rename(folder / "style2.css")
    seen.append(fingerprint(folder))
    (folder / "new.txt").write_bytes(b"")
    seen.append(fingerprint(folder))
    assert len(set(seen)) == len(seen)
    assert fingerprint(folder, ["*.html"]) != fingerprint(folder)
