"""Costs between slices: matrix products, never a (pairs, rows, columns, dimension) tensor."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from alignment.arguments import check_dimension, check_floats
from alignment.products import full_precision

Metric = Literal["sqeuclidean", "cosine"]


def check_metric(metric: str) -> None:
    """One of the metrics."""
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be one of {get_args(Metric)}, got {metric!r}")


def pairwise_cost(x: torch.Tensor, y: torch.Tensor, metric: Metric = "sqeuclidean") -> torch.Tensor:
    """Cost of every slice of x against every slice of y, pair by pair.

    x: (pairs, rows, dimension), y: (pairs, columns, dimension), float32 or float64. Returns (pairs,
    rows, columns): |x - y|^2, or 1 - cos. Differentiable; no tensor has all four axes, also not in
    the backward pass. What pads a document must be finite where gradients are asked for: 0 times NaN is NaN
    (`soft_dtw_divergence` and `soft_dtw_all_pairs` see to that themselves). Raises ValueError for other shapes,
    dtypes and metrics.
    """
    check_metric(metric)
    check_floats(x, "x", 3, "(pairs, rows, dimension)")
    check_floats(y, "y", 3, "(pairs, columns, dimension)")
    check_dimension(x, "x")
    if x.shape[0] != y.shape[0] or x.shape[2] != y.shape[2] or x.dtype != y.dtype:
        raise ValueError(
            f"x and y must agree in pairs, dimension and dtype, got {tuple(x.shape)} {x.dtype} "
            f"and {tuple(y.shape)} {y.dtype}"
        )
    with full_precision(x):
        if metric == "cosine":
            return 1.0 - unit(x) @ unit(y).mT
        # Distances do not see a common offset, but rounding does.
        offset = y.detach().mean((0, 1)).nan_to_num(0.0, 0.0, 0.0) if y.numel() else 0.0
        x, y = x - offset, y - offset
        squares = (x * x).sum(-1)[..., :, None] + (y * y).sum(-1)[..., None, :]
        return (squares - 2.0 * (x @ y.mT)).clamp(min=0.0)


def zeroed_beyond(documents: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """(pairs, slices, dimension) with zeros beyond each length, so that no gradient comes of what pads it."""
    if lengths is None:
        return documents
    place = torch.arange(documents.shape[1], device=documents.device)
    inside = place < lengths.to(documents.device)[:, None]
    return torch.where(inside[..., None], documents, 0.0)


class _Unit(torch.autograd.Function):
    """torch's normalize, with a gradient that takes half as many passes over the vectors."""

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor) -> torch.Tensor:
        lengths: torch.Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_min(1e-12)
        ctx.save_for_backward(vectors)
        ctx.lengths = lengths
        return vectors / lengths

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,), (vectors,) = gradients, ctx.saved_tensors
        if torch.is_grad_enabled():
            again = torch.nn.functional.normalize(vectors, dim=-1)
            return torch.autograd.grad(again, vectors, gradient, create_graph=True)
        with full_precision(vectors):
            along = torch.linalg.vecdot(gradient, vectors)[..., None] / ctx.lengths.square()
            return torch.addcmul(gradient, vectors, along, value=-1.0) / ctx.lengths


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors scaled to length 1; zero vectors stay zero. Lengths are at least 1e-12, and their squares finite."""
    found: torch.Tensor = _Unit.apply(vectors)
    return found


@dataclass(frozen=True)
class Slices:
    """Label embeddings of images and sentences, any leading axes.

    primary: (..., dimension), unit vectors that compare within a modality; where the encoders of the
    two modalities differ in dimension, pad the shorter with zeros. shared: (..., dimension), unit
    vectors that compare across modalities. is_image: (...), bool.
    """

    primary: torch.Tensor
    shared: torch.Tensor
    is_image: torch.Tensor

    def __post_init__(self) -> None:
        leading = self.is_image.shape
        if self.is_image.dtype != torch.bool:
            raise ValueError(f"is_image must be bool, got {self.is_image.dtype}")
        for name, vectors in (("primary", self.primary), ("shared", self.shared)):
            check_floats(vectors, name, len(leading) + 1, f"{tuple(leading)} + (dimension,)")
            if vectors.shape[:-1] != leading:
                raise ValueError(
                    f"{name} must have shape {tuple(leading)} + (dimension,) to match is_image, "
                    f"got {tuple(vectors.shape)}"
                )


def triple_kernel_cost(x: Slices, y: Slices) -> torch.Tensor:
    """Squared distance between slices, by the encoder that the two modalities share.

    Same modality: |primary_x - primary_y|^2; image and sentence: |shared_x - shared_y|^2 (Chow et
    al. 2024, Eq. 4). x and y: slices with shapes (..., rows) and (..., columns). Returns (..., rows,
    columns) in [0, 4], as 2 - 2 cos of three matrix products and a choice. The vectors must have
    length 1, which is not checked. Not positive definite across modalities.
    """
    with full_precision(x.primary):
        if x.is_image.dim() == 1 and y.is_image.dim() == 1:
            return _flat_triple_cost(x, y)
        within = x.primary @ y.primary.mT
        across = x.shared @ y.shared.mT
    same = x.is_image[..., :, None] == y.is_image[..., None, :]
    return (2.0 - 2.0 * torch.where(same, within, across)).clamp(0.0, 4.0)


def _flat_triple_cost(x: Slices, y: Slices) -> torch.Tensor:
    """Sorted by modality, each block needs one of the three products only."""
    result = x.primary.new_empty((len(x.is_image), len(y.is_image)))
    for x_image in (True, False):
        x_rows = torch.nonzero(x.is_image == x_image)[:, 0]
        blocks = []
        for y_image in (True, False):
            y_rows = torch.nonzero(y.is_image == y_image)[:, 0]
            name = "primary" if x_image == y_image else "shared"
            left, right = getattr(x, name)[x_rows], getattr(y, name)[y_rows]
            blocks.append((y_rows, left @ right.mT))
        order = torch.argsort(torch.cat([rows for rows, _ in blocks]))
        products = torch.cat([block for _, block in blocks], 1)[:, order]
        result = result.index_copy(0, x_rows, products)
    return (2.0 - 2.0 * result).clamp(0.0, 4.0)
