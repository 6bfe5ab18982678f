"""Every document of one batch against every document of another: costs and recursion together.

One matrix multiplication a block, in the layout the kernel reads; the gradient is two more. Nothing
grows with pairs * dimension, and only a block of products exists at a time.
"""

from typing import Any

import torch

from alignment.arguments import (
    Lengths,
    check_band,
    check_dimension,
    check_floats,
    check_gamma,
    check_lengths,
    check_sigma,
    check_triangular,
    full_lengths,
)
from alignment.costs import Metric, check_metric, pairwise_cost, unit
from alignment.dispatch import Backend, choose_backend
from alignment.gak import divisible_cost
from alignment.grid import Recursion, row_blocks, run_grid, weighed
from alignment.lanes import limits_of
from alignment.packing import pack_columns, pack_rows
from alignment.products import product_with_transposed
from alignment.recursion import soft_dtw

# Gradients of the products up to this many bytes are kept from forward to backward; above, the
# products are computed again.
KEEP_BYTES = 256 * 2**20
VALUES, GRADIENT = 0, 1


class _Grid:
    """Packed vectors and biases of one call."""

    def __init__(
        self,
        x: torch.Tensor,
        y: torch.Tensor | None,
        lengths_x: torch.Tensor,
        lengths_y: torch.Tensor,
        recursion: Recursion,
        metric: Metric,
    ) -> None:
        self.recursion = recursion
        self.metric = metric
        self.symmetric = y is None
        other = x if y is None else y
        self.lanes = int(limits_of(x.dtype)[0])
        self.rows = pack_rows(lengths_x, x.shape[1])
        self.columns = pack_columns(lengths_y, other.shape[1], x.dtype)
        self.x = x.detach().reshape(-1, x.shape[2])[self.rows.slices]
        self.y = other.detach().reshape(-1, x.shape[2])[self.columns.slices]
        self.has_padding = bool(self.columns.padded.any())
        if self.has_padding:
            self.y.masked_fill_(self.columns.padded[:, None], 0.0)
        scale = abs(recursion.slope)
        if metric == "cosine":
            self.row_bias = self.x.new_full((len(self.x),), scale)
            self.column_bias = self.x.new_zeros(len(self.y))
        else:
            # Distances do not see a common offset, but rounding does.
            offset = self.x.mean(0)
            self.x -= offset
            self.y -= offset
            self.row_bias = (self.x * self.x).sum(1) * (scale / 2.0)
            self.column_bias = (self.y * self.y).sum(1) * (scale / 2.0)

    def refuse_invalid(self) -> None:
        """ValueError for vectors that are not finite."""
        for name, vectors in (("x", self.x), ("x" if self.symmetric else "y", self.y)):
            # NaN is the least and the largest of whatever it is among.
            if not bool(torch.isfinite(torch.stack(torch.aminmax(vectors))).all()):
                raise ValueError(f"{name} has NaN or infinite numbers inside its lengths")

    def blocks(self) -> Any:
        return row_blocks(self.rows, self.columns, self.lanes, self.x.element_size(), self.symmetric)

    def rows_of(self, block: tuple[int, int, int]) -> slice:
        first, stop, _ = block
        return slice(int(self.rows.starts[first]), int(self.rows.starts[stop]))

    def run(
        self, block: tuple[int, int, int], mode: int, incoming: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Values of a block, and its products as the kernel left them."""
        first, stop, group = block
        column = int(self.columns.group_starts[group])
        rows = self.rows_of(block)
        products = product_with_transposed(self.x[rows], self.y[column:])
        values = run_grid(
            products,
            self.recursion,
            self.row_bias[rows],
            self.column_bias[column:],
            self.rows,
            self.columns,
            first,
            stop,
            group,
            self.symmetric,
            mode,
            incoming,
        )
        return values, products

    def unsort(self, values: torch.Tensor) -> torch.Tensor:
        """From places to documents; the other triangle of a symmetric grid is its mirror image."""
        values = values[:, : self.columns.places]
        if self.symmetric:
            values = torch.triu(values) + torch.triu(values, 1).mT
        result = torch.empty_like(values)
        result[self.rows.order[:, None], self.columns.order[None, :]] = values
        return result

    def sort(self, gradient: torch.Tensor) -> torch.Tensor:
        """From documents to places, filled up with zeros; a symmetric pair counts once."""
        sorted_gradient = gradient[self.rows.order[:, None], self.columns.order[None, :]]
        if self.symmetric:
            sorted_gradient = torch.triu(sorted_gradient) + torch.tril(sorted_gradient, -1).mT
        missing = len(self.columns.lengths) - self.columns.places
        return torch.nn.functional.pad(sorted_gradient, (0, missing))

    def pull_back(
        self, rows: slice, group: int, slopes: torch.Tensor, grad_x: torch.Tensor, grad_y: torch.Tensor
    ) -> None:
        """Write the gradient of some rows to grad_x, and add that of the columns from `group` on to grad_y.

        slopes: (rows, columns), gradients of the costs times the recursion's slope.
        """
        columns = slice(int(self.columns.group_starts[group]), None)
        x, y = self.x[rows], self.y[columns]
        grad_x[rows] = product_with_transposed(slopes, y.mT)
        # Small matrices are turned, the large one is read as it lies.
        found = product_with_transposed(x.mT.contiguous(), slopes.mT).mT
        # The first rows meet all columns.
        if rows.start == 0:
            grad_y.copy_(found)
        else:
            grad_y[columns] += found
        if self.metric == "sqeuclidean":
            grad_x[rows].addcmul_(slopes.sum(1)[:, None], x, value=-1.0)
            grad_y[columns].addcmul_(slopes.sum(0)[:, None], y, value=-1.0)


class _AllPairs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        y: torch.Tensor | None,
        lengths_x: torch.Tensor,
        lengths_y: torch.Tensor,
        recursion: Recursion,
        metric: Metric,
    ) -> torch.Tensor:
        grid = _Grid(x, y, lengths_x, lengths_y, recursion, metric)
        grid.refuse_invalid()
        size = len(grid.x) * len(grid.y) * grid.x.element_size()
        keep = any(ctx.needs_input_grad) and size <= KEEP_BYTES
        values, kept = [], []
        ones = x.new_ones((len(grid.rows.order), len(grid.columns.lengths))) if keep else None
        for block in grid.blocks():
            first, stop, _ = block
            mode = GRADIENT if keep else VALUES
            some, slopes = grid.run(block, mode, None if ones is None else ones[first:stop])
            values.append(some)
            if keep:
                kept.append(slopes)
        ctx.save_for_backward(x, y, lengths_x, lengths_y, *kept)
        ctx.grid = grid if keep else None
        ctx.recursion, ctx.metric = recursion, metric
        return grid.unsort(torch.cat(values))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, y, lengths_x, lengths_y, *kept = ctx.saved_tensors
        (gradient,) = gradients
        if torch.is_grad_enabled():
            values = _plain(x, y, lengths_x, lengths_y, ctx.recursion, ctx.metric, "wavefront")
            wanted = [x] if y is None else [x, y]
            wanted = [one for one in wanted if one.requires_grad]
            found = iter(torch.autograd.grad(values, wanted, gradient, create_graph=True))
            both = [next(found) if one is not None and one.requires_grad else None for one in (x, y)]
            return *both, None, None, None, None
        grid = ctx.grid or _Grid(x, y, lengths_x, lengths_y, ctx.recursion, ctx.metric)
        incoming = grid.sort(gradient * grid.recursion.slope)
        grad_x, grad_y = torch.empty_like(grid.x), torch.empty_like(grid.y)
        for number, block in enumerate(grid.blocks()):
            first, stop, group = block
            rows = grid.rows_of(block)
            if kept:
                for some, slopes in weighed(kept[number], incoming, grid.rows.places[rows], grid.columns, group):
                    chosen = slice(rows.start + some.start, rows.start + some.stop)
                    grid.pull_back(chosen, group, slopes, grad_x, grad_y)
            else:
                _, slopes = grid.run(block, GRADIENT, incoming[first:stop])
                grid.pull_back(rows, group, slopes, grad_x, grad_y)
        if grid.has_padding:
            grad_y.masked_fill_(grid.columns.padded[:, None], 0.0)
        flat_x = x.new_zeros((x.shape[0] * x.shape[1], x.shape[2]))
        flat_x[grid.rows.slices] = grad_x
        if y is None:
            flat_x.index_add_(0, grid.columns.slices, grad_y)
            return flat_x.view(x.shape), None, None, None, None, None
        flat_y = y.new_zeros((y.shape[0] * y.shape[1], y.shape[2]))
        flat_y.index_add_(0, grid.columns.slices, grad_y)
        return flat_x.view(x.shape), flat_y.view(y.shape), None, None, None, None


def _plain(
    x: torch.Tensor,
    y: torch.Tensor | None,
    lengths_x: torch.Tensor,
    lengths_y: torch.Tensor,
    recursion: Recursion,
    metric: Metric,
    backend: Backend,
) -> torch.Tensor:
    """The same from batched costs, one row document at a time: any device, differentiable twice."""
    other = x if y is None else y
    scale = abs(recursion.slope) / (2.0 if metric == "sqeuclidean" else 1.0)
    result = []
    for document in range(len(x)):
        n = int(lengths_x[document])
        wide = x[document : document + 1, :n].expand(len(other), -1, -1)
        cost = scale * pairwise_cost(wide, other, metric)
        rows = lengths_x[document].expand(len(other))
        if recursion.divisible:
            cost = divisible_cost(cost, recursion.triangular)
        result.append(soft_dtw(cost, recursion.gamma, rows, lengths_y, band=recursion.band, backend=backend))
    return torch.stack(result)


def _run(
    x: torch.Tensor,
    y: torch.Tensor | None,
    lengths_x: Lengths,
    lengths_y: Lengths,
    recursion: Recursion,
    metric: Metric,
    backend: Backend,
) -> torch.Tensor:
    check_floats(x, "x", 3, "(documents, slices, dimension)")
    check_dimension(x, "x")
    n = check_lengths(lengths_x, "lengths_x", x.shape[0], x.shape[1])
    if y is None:
        if lengths_y is not None:
            raise ValueError("lengths_y must be None when y is None: x is compared with itself")
        other, m = x, n
    else:
        check_floats(y, "y", 3, "(documents, slices, dimension)")
        if y.shape[2] != x.shape[2] or y.dtype != x.dtype or y.device != x.device:
            raise ValueError(
                f"x and y must agree in dimension, dtype and device, got {tuple(x.shape)} {x.dtype} "
                f"on {x.device} and {tuple(y.shape)} {y.dtype} on {y.device}"
            )
        other, m = y, check_lengths(lengths_y, "lengths_y", y.shape[0], y.shape[1])
    if x.shape[1] == 0 or other.shape[1] == 0:
        raise ValueError("x and y must have at least one slice a document")
    if x.shape[0] == 0 or other.shape[0] == 0:
        return (x.sum() + other.sum()) * x.new_zeros((x.shape[0], other.shape[0]))
    full_n = full_lengths(n, x.shape[0], x.shape[1])
    full_m = full_lengths(m, other.shape[0], other.shape[1])
    if metric == "cosine":
        x = unit(x)
        y = None if y is None else unit(y)
    if choose_backend(x, backend) != "lanes":
        return _plain(x, y, full_n, full_m, recursion, metric, backend)
    values: torch.Tensor = _AllPairs.apply(x, y, full_n, full_m, recursion, metric)
    return values


def soft_dtw_all_pairs(
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    gamma: float = 1.0,
    lengths_x: Lengths = None,
    lengths_y: Lengths = None,
    *,
    metric: Metric = "sqeuclidean",
    band: int | None = None,
    backend: Backend = "auto",
) -> torch.Tensor:
    """soft-DTW of every document of x with every document of y, costs included.

    x: (documents, slices, dimension), y likewise or None for x against itself (half the work), float32
    or float64; what lies beyond the lengths is never used. metric: |x - y|^2 or 1 - cos. Returns
    (documents of x, documents of y). gamma, lengths and band as in `soft_dtw`. Differentiable twice in
    x and y; memory grows with slices^2 at most up to 256 MB, then with blocks only, never with
    pairs * dimension. Raises ValueError as `soft_dtw` does.
    """
    check_metric(metric)
    slope = -2.0 if metric == "sqeuclidean" else -1.0
    recursion = Recursion(check_gamma(gamma), slope, False, check_band(band), None)
    return _run(x, y, lengths_x, lengths_y, recursion, metric, backend)


def log_gak_all_pairs(
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    sigma: float = 1.0,
    lengths_x: Lengths = None,
    lengths_y: Lengths = None,
    *,
    metric: Metric = "sqeuclidean",
    band: int | None = None,
    triangular: float | None = None,
    backend: Backend = "auto",
) -> torch.Tensor:
    """log of the global alignment kernel of every document of x with every document of y.

    Arguments, returned shape, gradients and errors as for `soft_dtw_all_pairs`; sigma, band and
    triangular as in `log_gak`. With metric "cosine" the squared distance is 1 - cos.
    """
    check_metric(metric)
    slope = (-2.0 if metric == "sqeuclidean" else -1.0) / (2.0 * check_sigma(sigma) ** 2)
    recursion = Recursion(1.0, slope, True, check_band(band), check_triangular(triangular))
    return -_run(x, y, lengths_x, lengths_y, recursion, metric, backend)
