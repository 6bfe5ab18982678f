"""Hard negatives mined for one slice of one document."""

import pyarrow as pa

# kind: what is searched for, read anchor -> candidate.
KINDS = ("image_to_sentence", "sentence_to_image")

NEGATIVE = pa.struct(
    [
        pa.field("slice", pa.int32()),  # index of the anchor in the document's slices
        pa.field("kind", pa.string()),  # one of KINDS
        pa.field("document_id", pa.string()),  # of the candidate
        pa.field("candidate", pa.int32()),  # index of the candidate in its document's slices
        pa.field("score", pa.float32()),  # cosine of shared vectors, anchor to candidate
        pa.field("guard", pa.float32()),  # same-modality cosine of candidate to the anchor's true match, or null
    ]
)
