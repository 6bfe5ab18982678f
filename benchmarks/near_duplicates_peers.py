"""The same documents by datatrove and by text-dedup, whole commands in environments of their own, and by us.

python -m benchmarks.near_duplicates_peers --datatrove PYTHON --text-dedup PYTHON

Each reads one JSON lines file of the documents of `benchmarks.near_duplicates`, in one process, and says how many are
left: 14 bands of 8 values of word 5-grams for all. datatrove (its local executor) takes what shares a band for copies;
text-dedup and we compare pairs, from .7 on. Processor seconds count starting and reading.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.near_duplicates import texts

_DATATROVE = """
import sys
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

folder = sys.argv[1]
config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
reader = JsonlReader(folder, glob_pattern="documents.jsonl")

def run(*steps, tasks=1):
    LocalPipelineExecutor(list(steps), tasks=tasks, workers=1).run()

if __name__ == "__main__":
    run(reader, MinhashDedupSignature(f"{folder}/signatures", config))
    run(MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config), tasks=14)
    run(MinhashDedupCluster(f"{folder}/buckets", f"{folder}/remove", config=config))
    run(reader, MinhashDedupFilter(f"{folder}/remove"), JsonlWriter(f"{folder}/left", compression=None))
"""

_OURS = """
import sys
import numpy as np
import pyarrow as pa
import pyarrow.json as json
from benchmarks.near_duplicates import ours, sign

rows = json.read_json(f"{sys.argv[1]}/documents.jsonl", read_options=json.ReadOptions(block_size=1 << 26))
column = rows.column("text").cast(pa.large_string())
_, roots = ours(pa.chunked_array([made for chunk in column.chunks for made in sign(chunk).chunks]))
open(f"{sys.argv[1]}/ours.txt", "w").write(str(len(np.unique(roots))))
"""


def _timed(command: list[str], folder: Path | None = None) -> float:
    """Processor seconds of a command and of what it started, once it has ended well."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)  # datatrove writes logs where it is
    if done.returncode:
        sys.exit(done.stderr[-2000:] + done.stdout[-500:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(
    documents: Annotated[int, typer.Option(help="How many.")] = 10_000,
    datatrove: Annotated[str, typer.Option(help="Interpreter of an environment with it.")] = "",
    text_dedup: Annotated[str, typer.Option(help="Interpreter of an environment with it.")] = "",
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "documents.jsonl").open("w") as file:
            for batch in texts(documents):
                file.writelines(
                    json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(batch.to_pylist())
                )
        seconds = {"interloom": _timed([sys.executable, "-c", _OURS, name])}
        left = {"interloom": int((folder / "ours.txt").read_text())}
        if datatrove:
            (folder / "peer.py").write_text(_DATATROVE)
            seconds["datatrove"] = _timed([datatrove, str(folder / "peer.py"), name], folder)
            left["datatrove"] = sum(len(path.read_text().splitlines()) for path in (folder / "left").glob("*.jsonl"))
        if text_dedup:
            command = [text_dedup, "-m", "text_dedup.minhash", "--path", "json", "--data_files"]
            command += [str(folder / "documents.jsonl"), "--split", "train", "--column", "text", "--num_proc", "1"]
            command += ["--output", f"{name}/kept", "--cache_dir", f"{name}/cache", "--ngram", "5", "--num_perm", "112"]
            command += ["--b", "14", "--r", "8", "--threshold", "0.7", "--hash_func", "xxh3"]
            seconds["text-dedup"] = _timed(command, folder)
            count = f"import datasets; print(len(datasets.load_from_disk({str(folder / 'kept')!r})))"
            found = subprocess.run([text_dedup, "-c", count], capture_output=True, text=True, check=True)
            left["text-dedup"] = int(found.stdout)
        for each, took in seconds.items():
            ratio = took / seconds["interloom"]
            print(f"{each}: {took:.1f} s of processor, {ratio:.1f}x; {documents - left[each]:,} of {documents:,} go")


if __name__ == "__main__":
    typer.run(main)
