"""Text scores: counts and ratios of a document and of each of its paragraphs, which every rule over words reads."""

import pyarrow as pa

PARAGRAPH_SCORES = pa.struct(
    [
        pa.field("position", pa.int32()),  # node index in the document
        pa.field("paragraph_hash", pa.string()),  # xxh3-128 hex of the text
        pa.field("characters", pa.int32()),
        pa.field("words", pa.int32()),
        pa.field("special_characters", pa.int32()),  # of characters: digits, punctuation, symbols, blanks
        pa.field("punctuation", pa.int32()),  # of words + punctuation: marks of Unicode category P
        pa.field("stop_words", pa.int32()),  # of words; null where the language has no list
        pa.field("flagged_words", pa.int32()),
        pa.field("spam_words", pa.int32()),
        pa.field("character_repetition", pa.float32()),  # 0..1
        pa.field("word_repetition", pa.float32()),  # 0..1
    ]
)
TEXT_SCORES = pa.schema(
    [
        pa.field("language", pa.string()),  # ISO 639-1, null without letters
        pa.field("language_probability", pa.float32()),
        # over all prose (not code and table rows, which repeat by nature); not additive, so they stay as they are
        # when paragraphs are dropped
        pa.field("character_repetition", pa.float32()),
        pa.field("word_repetition", pa.float32()),
        pa.field("paragraphs", pa.list_(PARAGRAPH_SCORES)),
    ]
)
