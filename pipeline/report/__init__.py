"""The report: one self-contained HTML page about a corpus. `python -m pipeline.report --corpus OUT`

`collect` reads a corpus, finished or not, into `data`, `render` draws that as a page.
"""

from __future__ import annotations

from pipeline.corpus.version import Corpus


def write_report(corpus: Corpus) -> str:
    """Write the page into the folder of the version, or of the build that made none; its path from the corpus root."""
    # Drawing libraries are not for everyone who imports a name of this package.
    from pipeline.report.collect import collect
    from pipeline.report.render import render
    from pipeline.spec.sections import ReportSettings

    settings = corpus.section("report", ReportSettings)
    corpus.storage.write(corpus.report, render(collect(corpus), int(settings.max_megabytes * 1e6)).encode())
    return corpus.report
