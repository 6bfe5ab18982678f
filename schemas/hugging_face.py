"""Features of a schema as Hugging Face `datasets` reads them: what makes a picture's bytes come back as a picture.

https://huggingface.co/docs/datasets/about_dataset_features; without them decoding is lost without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

# An encoded picture as `datasets.Image` stores it; bytes are `binary`, as it decodes no `large_binary`.
PICTURE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

_NAMES = {pa.float16(): "float16", pa.float32(): "float32", pa.float64(): "float64"}


def feature(kind: pa.DataType) -> dict[str, Any]:
    """One Arrow type as a feature: structs by field, lists, PICTURE as an image, all else as a value."""
    if kind == PICTURE:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {field.name: feature(field.type) for field in kind}
    if pa.types.is_list(kind):
        return {"feature": feature(kind.value_type), "_type": "List"}
    return {"dtype": _NAMES.get(kind, str(kind)), "_type": "Value"}


def features_metadata(fields: Iterable[pa.Field]) -> dict[bytes, bytes]:
    """Schema metadata that tells `datasets` the features of a file's columns."""
    info = {"info": {"features": {field.name: feature(field.type) for field in fields}}}
    return {b"huggingface": json.dumps(info).encode()}
