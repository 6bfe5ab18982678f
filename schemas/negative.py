"""Hard negatives of one slice of one document: slices of other documents, or texts that are wrong on purpose."""

import pyarrow as pa

# Where a negative comes from. mined: a slice of another document that resembles the anchor. counterfactual: a text that
# was made from the anchor's true match and says something false. A reader leaves out kinds that it does not know.
KINDS = ("mined", "counterfactual")

# What is searched for, read anchor -> candidate.
DIRECTIONS = ("image_to_sentence", "sentence_to_image")

NEGATIVE = pa.struct(
    [
        pa.field("slice", pa.int32()),  # index of the anchor in the document's slices
        pa.field("kind", pa.string()),  # one of KINDS
        pa.field("direction", pa.string()),  # one of DIRECTIONS
        pa.field("document_id", pa.string()),  # of the candidate; null where the negative is a text
        pa.field("candidate", pa.int32()),  # index of the candidate in its document's slices; null with document_id
        pa.field("text", pa.string()),  # counterfactual: the negative itself; null where it is a slice
        pa.field("score", pa.float32()),  # cosine of shared vectors, anchor to candidate; null where not measured
        pa.field("guard", pa.float32()),  # same-modality cosine of candidate to the anchor's true match, or null
    ]
)
