"""The choices behind labels of positions (Chow et al. 2024): what is compared, by which kernel, under which rules."""

from dataclasses import dataclass
from typing import Literal, get_args

from alignment.arguments import check_band, check_sigma, check_triangular

Span = Literal["window", "prefix"]
Kernel = Literal["gak", "soft_dtw", "mean_similarity", "shuffled"]
Normalization = Literal["cosine", "path_mean", "none"]
Bandwidth = Literal["global", "pair", "paper"]
SameDocument = Literal["one", "kernel", "ignore"]
SingleSlices = Literal["cosine", "document"]
UnequalLengths = Literal["ignore", "keep"]


@dataclass(frozen=True)
class LabelSettings:
    """What is compared and how; each field is one choice that the paper leaves open or that differs."""

    span: Span = "window"
    """`window`: the last `window` slices; `prefix`: all slices so far (the paper)."""
    window: int = 6
    """Slices a window; a position with fewer uses what there is."""
    unequal_lengths: UnequalLengths = "ignore"
    """Windows of different length: `ignore` marks the label invalid, `keep` compares them. Prefixes are
    always kept."""
    kernel: Kernel = "gak"
    """`gak`; `soft_dtw`: without the divisible local kernel; `mean_similarity`: mean cosine over slice
    pairs; `shuffled`: gak after every slice was replaced by a random one of its modality, the control."""
    normalization: Normalization = "cosine"
    """`cosine`: K_xy / sqrt(K_xx K_yy), in [0, 1]; `path_mean`: K over what it is where all distances are
    zero, which without `triangular` is the number of paths (inside the band), hence the mean over paths,
    and with it their weighted mean; `none`: K itself."""
    sigma: Bandwidth = "global"
    """`global`: delta * sqrt(`sigma_length`); `pair`: delta * sqrt((N + M) / 2) with the lengths of the
    whole documents; `paper`: the same with the lengths of the two spans."""
    delta: float = 1.0
    """Scale of the bandwidth; the median distance of unrelated unit vectors is 1.0 to 1.3."""
    sigma_length: float | None = None
    """Length in the global bandwidth, slices; None: `window`, so full windows get what `paper` gives them."""
    band: int | None = None
    """Sakoe-Chiba band, slices, widened by the difference of the two lengths."""
    triangular: float | None = None
    """T of the weights (1 - |i - j| / T)_+ on the Gaussian exp(-t), slices; with every kernel that has paths."""
    same_document: SameDocument = "one"
    """Two positions of one document: label 1, the kernel, or no label."""
    single_slices: SingleSlices = "cosine"
    """Two spans of one slice each in one document: `cosine`, the plain cosine, as between documents;
    `document`, what `same_document` says."""

    def __post_init__(self) -> None:
        for name, kind in (
            ("span", Span),
            ("unequal_lengths", UnequalLengths),
            ("kernel", Kernel),
            ("normalization", Normalization),
            ("sigma", Bandwidth),
            ("same_document", SameDocument),
            ("single_slices", SingleSlices),
        ):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {get_args(kind)}, got {getattr(self, name)!r}")
        if self.window < 1:
            raise ValueError(f"window must be at least 1 slice, got {self.window}")
        check_sigma(self.delta, "delta")
        if self.sigma_length is not None:
            check_sigma(self.sigma_length, "sigma_length")
        check_band(self.band)
        check_triangular(self.triangular)

    @property
    def global_sigma(self) -> float:
        """The bandwidth of sigma `global`."""
        length = self.window if self.sigma_length is None else self.sigma_length
        return float(self.delta * length**0.5)
