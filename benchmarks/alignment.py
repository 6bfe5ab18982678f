"""soft-DTW and global alignment kernels against tslearn, pysdtw, a Maghoumi-style kernel and plain torch.

    python -m benchmarks.alignment                 # everything, five minutes on two cores
    python -m benchmarks.alignment --only recursion --rounds 15 --out alignment.json

Contenders take turns within every round, so that other work on the machine hits all of them; reported are
median and best wall-clock times and median processor times, with their ratios. Results are compared with
float64 before anything is timed.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

# Spinning OpenMP threads would take the cores from whichever contender runs next.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numba
import numpy as np
import pysdtw
import torch
from tslearn.metrics import cdist_gak
from tslearn.metrics.soft_dtw_loss_pytorch import _SoftDTWLossPyTorch

from alignment import (
    LabelSettings,
    Slices,
    expected_alignment,
    gak_labels,
    log_gak_all_pairs,
    soft_dtw,
    soft_dtw_all_pairs,
)
from alignment.costs import unit
from alignment.products import product_with_transposed
from benchmarks.alignment_peers import maghoumi_style, plain_torch

Call = Callable[[], Any]
OURS = "interloom"


class Times(NamedTuple):
    """Milliseconds: median and best of the clock, and median of the processor time of all threads.

    Where others use the machine too, only the processor time is the contender's own.
    """

    median: float
    best: float
    cpu: float

    def scaled(self, factor: float) -> "Times":
        return Times(self.median * factor, self.best * factor, self.cpu * factor)


def take_turns(contenders: dict[str, Call], rounds: int, least_seconds: float = 0.02) -> dict[str, Times]:
    """Milliseconds of one call of each; short calls are repeated inside a turn."""
    repeats = {}
    for name, call in contenders.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(least_seconds / max(1e-6, time.perf_counter() - start)))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start, worked = time.perf_counter(), time.process_time()
            for _ in range(repeats[name]):
                call()
            spent = (time.perf_counter() - start, time.process_time() - worked)
            times[name].append((spent[0] / repeats[name] * 1e3, spent[1] / repeats[name] * 1e3))
    result = {}
    for name, values in times.items():
        wall, cpu = zip(*values, strict=True)
        result[name] = Times(statistics.median(wall), min(wall), statistics.median(cpu))
    return result


def forward_backward(function: Callable[[torch.Tensor], torch.Tensor], cost: torch.Tensor) -> Call:
    """One step of training on the recursion alone: values, then the gradient of their sum."""

    def step() -> torch.Tensor:
        leaf = cost.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(function(leaf).sum(), leaf)
        return gradient

    return step


def recursion_peers(n: torch.Tensor, m: torch.Tensor, gamma: float, ragged: bool) -> dict[str, Callable[..., Any]]:
    """The same on every peer; tslearn and the Maghoumi style know one length only."""
    lengths = torch.stack((n, m), 1)
    peers: dict[str, Callable[..., Any]] = {
        OURS: lambda cost: soft_dtw(cost, gamma, n, m),
        "pysdtw": lambda cost: pysdtw.SoftDTWcpu.apply(cost, lengths, gamma, 0.0),
        "plain torch": lambda cost: plain_torch(cost, gamma, n, m),
    }
    if not ragged:
        # tslearn writes into the cost it is given.
        peers["tslearn"] = lambda cost: _SoftDTWLossPyTorch.apply(cost.clone(), gamma)
        peers["Maghoumi style"] = lambda cost: maghoumi_style(cost, gamma)
    return peers


def recursion(rounds: int, gamma: float = 0.1) -> list[dict[str, Any]]:
    """Forward and backward on given costs, float32."""
    rows = []
    shapes = [(256, 8, False), (256, 16, False), (256, 32, False), (256, 64, False), (256, 64, True)]
    shapes += [(32, 512, False), (4, 2000, False)]
    for pairs, length, ragged in shapes:
        generator = torch.Generator().manual_seed(0)
        cost = torch.rand((pairs, length, length), generator=generator) * 2
        n = m = torch.full((pairs,), length)
        if ragged:
            n, m = (torch.randint(8, length + 1, (pairs,), generator=generator) for _ in range(2))
        reference = expected_alignment(cost.double(), gamma, n, m, backend="wavefront" if length < 100 else "lanes")
        calls, errors = {}, {}
        for name, function in recursion_peers(n, m, gamma, ragged).items():
            if name == "plain torch" and length > 512:
                continue  # 16 GB of saved tensors
            calls[name] = forward_backward(function, cost)
            error = (calls[name]().double() - reference).norm() / reference.norm()
            errors[name] = float(error)
        shape = f"B={pairs}, {'8 to ' if ragged else ''}{length}"
        rows.append(row("recursion", shape, take_turns(calls, 4 * rounds if length < 100 else 3), errors))
    return rows


def precision() -> list[dict[str, Any]]:
    """Error of float32 gradients at gamma .01 and length 64: relative norm against float64.

    64 against 40 slices with an offset: every path has to leave the diagonal, sums are in the thousands.
    """
    generator = torch.Generator().manual_seed(0)
    n = torch.full((64,), 64)
    rows = []
    for name, cost in (
        ("64 x 64, costs in [0, 2]", torch.rand((64, 64, 64), generator=generator) * 2),
        ("64 x 40, costs in [100, 102]", torch.rand((64, 64, 40), generator=generator) * 2 + 100),
    ):
        reference = expected_alignment(cost.double(), 0.01, backend="wavefront")
        errors = {}
        for peer, function in recursion_peers(n, torch.full((64,), cost.shape[2]), 0.01, False).items():
            found = forward_backward(function, cost)().double()
            errors[peer] = float((found - reference).norm() / reference.norm())
        rows.append({"section": "precision", "shape": name, "errors": errors})
    return rows


def documents(count: int, low: int, high: int, dimension: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn((count, high, dimension), generator=generator)
    return torch.nn.functional.normalize(vectors, dim=-1), torch.randint(low, high + 1, (count,), generator=generator)


def all_pairs(rounds: int, gamma: float = 0.1, dimension: int = 512) -> list[dict[str, Any]]:
    """Every document with every other, costs included, forward and backward to the vectors.

    The per-pair formulation expands both batches to pairs and multiplies pair by pair; 512 x 512 of it
    do not fit, so it takes the rows of some documents at a time, and only some are timed.
    """
    rows = []
    for count, low, high, sample in ((64, 32, 32, 64), (64, 8, 64, 64), (512, 8, 64, 8)):
        x, n = documents(count, low, high, dimension)
        y, m = x.flip(0).contiguous(), n.flip(0)
        ragged = low != high

        def ours(x: Any = x, y: Any = y, n: Any = n, m: Any = m) -> Any:
            leaves = [x.detach().requires_grad_(True), y.detach().requires_grad_(True)]
            values = soft_dtw_all_pairs(*leaves, gamma, n, m, metric="cosine")
            return torch.autograd.grad(values.sum(), leaves)

        def by_pair(peer: str, x: Any = x, y: Any = y, n: Any = n, m: Any = m, some: Any = (sample, ragged)) -> Any:
            sample, ragged = some
            leaves = [x.detach().requires_grad_(True), y.detach().requires_grad_(True)]
            step = min(sample, max(1, 4096 // len(y)))
            gradients = [torch.zeros_like(x), torch.zeros_like(y)]
            for first in range(0, sample, step):
                # Normalised before they are expanded: the cheapest way to write it.
                wide_x = unit(leaves[0][first : first + step]).repeat_interleave(len(y), 0)
                wide_y = unit(leaves[1]).repeat(step, 1, 1)
                pair_n, pair_m = n[first : first + step].repeat_interleave(len(y)), m.repeat(step)
                cost = 1.0 - wide_x @ wide_y.mT
                function = recursion_peers(pair_n, pair_m, gamma, ragged)[peer]
                for total, found in zip(gradients, torch.autograd.grad(function(cost).sum(), leaves), strict=True):
                    total += found
            return gradients

        names = ["pysdtw"] if ragged else ["tslearn", "pysdtw", "Maghoumi style"]
        calls: dict[str, Call] = {OURS: ours}
        for name in [OURS, *names]:
            label = "interloom, pair by pair" if name == OURS else f"{name}, pair by pair"
            calls[label] = lambda name=name: by_pair(name)
        times = take_turns(calls, 3 if sample < count else 9)
        scaled = {name: value.scaled(count / sample if name != OURS else 1.0) for name, value in times.items()}
        shape = f"{count} x {count}, {low}" + (f" to {high}" if ragged else "")
        rows.append(row("all pairs", shape + (" (peers: sample)" if sample < count else ""), scaled, {}))
    return rows


def products(rounds: int) -> list[dict[str, Any]]:
    """The matrix product of 64 x 64 documents of 32 slices with 512 dimensions."""
    x, y = (documents(64, 32, 32, 512)[0].view(-1, 512) for _ in range(2))
    torch.testing.assert_close(product_with_transposed(x, y), x @ y.mT, atol=1e-5, rtol=0.0)
    times = take_turns({OURS: lambda: product_with_transposed(x, y), "torch": lambda: x @ y.mT}, 2 * rounds)
    return [row("products", "(2048, 512) with (2048, 512)", times, {})]


def labels(rounds: int) -> list[dict[str, Any]]:
    """Normalised kernels of all pairs of documents, and of all pairs of their prefixes."""
    x, n = documents(64, 8, 64, 768)
    series = np.full(x.shape, np.nan)
    for number, length in enumerate(n.tolist()):
        series[number, :length] = x[number, :length].numpy()

    def ours() -> torch.Tensor:
        log = log_gak_all_pairs(x, None, 2.0, n)
        own = log.diagonal()
        return torch.exp(log - (own[:, None] + own[None, :]) / 2)

    wanted = cdist_gak(series[:6], sigma=2.0)
    np.testing.assert_allclose(ours()[:6, :6].numpy(), wanted, rtol=1e-3, atol=1e-5)
    times = take_turns({OURS: ours, "tslearn cdist_gak": lambda: cdist_gak(series, sigma=2.0)}, 3)
    rows = [row("labels", "64 x 64 documents of 8 to 64, d=768", times, {})]

    slices = Slices(x, x, torch.arange(64)[None, :].expand(64, -1) % 3 == 0)
    document = torch.arange(64).repeat_interleave(4)
    end = (torch.rand(256, generator=torch.Generator().manual_seed(2)) * n[document]).long()
    prefixes = [series[int(d), : int(e) + 1] for d, e in zip(document, end, strict=True)]
    sample = 16
    padded = np.full((sample, 64, 768), np.nan)
    for number, prefix in enumerate(prefixes[::sample]):
        padded[number, : len(prefix)] = prefix
    settings = LabelSettings(span="prefix")
    windows = LabelSettings()
    times = take_turns(
        {
            OURS: lambda: gak_labels(slices, n, document, end, settings),
            "interloom, windows of 6": lambda: gak_labels(slices, n, document, end, windows),
            "tslearn cdist_gak": lambda: cdist_gak(padded, sigma=2.0),
        },
        3,
    )
    times["tslearn cdist_gak"] = times["tslearn cdist_gak"].scaled((256 / sample) ** 2)
    rows.append(row("labels", "256 prefixes of 64 documents (tslearn: sample, one encoder)", times, {}))
    return rows


def memory() -> list[dict[str, Any]]:
    """Peak resident growth of one all-pairs step, in a process of its own, by dimension. Linux."""
    code = (
        "import pathlib, re, sys, torch; from alignment import soft_dtw_all_pairs;"
        "status = lambda name: int(re.search(name + r':\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1]);"
        "small = torch.randn((16, 8, 4), requires_grad=True);"
        "soft_dtw_all_pairs(small).sum().backward();"
        "x = torch.randn((128, 32, int(sys.argv[1])), requires_grad=True);"
        # 5 sets the peak back to what is resident now (proc(5)).
        "pathlib.Path('/proc/self/clear_refs').write_text('5'); before = status('VmRSS');"
        "soft_dtw_all_pairs(x, None, 1.0).sum().backward(); print((status('VmHWM') - before) / 1024)"
    )
    import subprocess
    import sys

    rows = []
    for dimension in (64, 1024):
        result = subprocess.run(
            [sys.executable, "-c", code, str(dimension)], capture_output=True, text=True, check=True
        )
        expanded = 128 * 128 * 32 * 32 * dimension * 4 / 2**20
        rows.append(
            {
                "section": "memory",
                "shape": f"128 x 128 documents of 32, d={dimension}",
                "megabytes": {OURS: float(result.stdout), "(pairs, n, m, d) tensor": expanded},
            }
        )
    return rows


def row(section: str, shape: str, times: dict[str, Times], errors: dict[str, float]) -> dict[str, Any]:
    # Our own kernel called pair by pair is one of the ways to do it.
    peers = {name: value for name, value in times.items() if not name.startswith(OURS) or "pair by pair" in name}
    ratios = {}
    for kind in Times._fields:
        fastest = min(peers, key=lambda name: getattr(peers[name], kind))
        ratios[kind] = (fastest, getattr(peers[fastest], kind) / getattr(times[OURS], kind))
    milliseconds = {name: value._asdict() for name, value in times.items()}
    return {"section": section, "shape": shape, "milliseconds": milliseconds, "ratios": ratios, "errors": errors}


def show(rows: list[dict[str, Any]]) -> None:
    for entry in rows:
        print(f"\n{entry['section']}: {entry['shape']}")
        for name, value in entry.get("milliseconds", {}).items():
            error = entry["errors"].get(name)
            relative = "" if error is None else f"   relative error of the gradient {error:.1e}"
            numbers = "".join(f"{kind} {value[kind]:11.3f} ms   " for kind in Times._fields)
            print(f"  {name:32s} {numbers}{relative}")
        for kind, (fastest, ratio) in entry.get("ratios", {}).items():
            print(f"  by {kind}: {ratio:.1f} times as fast as {fastest}")
        if "milliseconds" not in entry:
            for name, value in entry.get("errors", entry.get("megabytes", {})).items():
                print(f"  {name:32s} {value:12.3g}{' MB' if 'megabytes' in entry else ''}")
    print(end="", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = {"recursion": recursion, "products": products, "all_pairs": all_pairs, "labels": labels}
    parser.add_argument("--only", choices=[*sections, "precision", "memory"], help="one section")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=pathlib.Path, help="write the numbers as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    numba.set_num_threads(options.threads)
    cpu = platform.processor() or platform.machine()
    lines = pathlib.Path("/proc/cpuinfo")
    if lines.exists():
        cpu = next(line.split(":")[1].strip() for line in lines.read_text().splitlines() if "model name" in line)
    header = {
        "date": datetime.date.today().isoformat(),
        "processor": cpu,
        "threads": options.threads,
        "torch": torch.__version__,
        "numba": numba.__version__,
    }
    print(header)
    rows: list[dict[str, Any]] = []
    for name, section in sections.items():
        if options.only in (None, name):
            found = section(options.rounds)
            show(found)
            rows += found
    for name, short in (("precision", precision), ("memory", memory)):
        if options.only in (None, name):
            found = short()
            show(found)
            rows += found
    if options.out:
        options.out.write_text(json.dumps({**header, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
