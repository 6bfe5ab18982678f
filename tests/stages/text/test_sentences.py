import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.row_function import RowFunction
from stages.text.sentences import WINDOW, SentenceSettings, SplitSentences, sentence_spans

DEFAULT = SentenceSettings()


def split(text: str, language: str | None = "en", options: SentenceSettings = DEFAULT) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text, language, options)]


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        (
            "en",
            "Dr. Smith paid $3.50 in Washington, D.C. on Jan. 5th. It was, e.g., cheap. See Fig. 3.",
            ["Dr. Smith paid $3.50 in Washington, D.C. on Jan. 5th.", "It was, e.g., cheap.", "See Fig. 3."],
        ),
        ("en", "pygame.draw.rect() draws. Open http://a.org/b.c?d=e. Done!",
         ["pygame.draw.rect() draws.", "Open http://a.org/b.c?d=e.", "Done!"]),
        ("en", "1. Cut it.\n2. Glue it\n(b) Wait.", ["1. Cut it.", "2. Glue it", "(b) Wait."]),
        ("zh", "我们去了北京。天气很好！你呢？", ["我们去了北京。", "天气很好！", "你呢？"]),
        ("ja-JP", "これはペンです。それは本です。", ["これはペンです。", "それは本です。"]),
        ("hi", "यह एक वाक्य है। यह दूसरा है।", ["यह एक वाक्य है।", "यह दूसरा है।"]),
        ("de", "Am 3. Mai ging er z.B. nach Hause. Gut.", ["Am 3. Mai ging er z.B. nach Hause.", "Gut."]),
        ("xx", "Unknown tongue. Still cut.", ["Unknown tongue.", "Still cut."]),
        (None, "No language given. Still cut.", ["No language given.", "Still cut."]),
        ("en", "Yan et al. [2004] proposed it. As Li et al. (2020) say, it works. [3] Others disagree.",
         ["Yan et al. [2004] proposed it.", "As Li et al. (2020) say, it works. [3]", "Others disagree."]),
        ("en", "See Fig. 12.18. In Eq. 2 it is small. Eqs. (3) and (4) follow, cf. Refs. [1-3] and Sec. 4.",
         ["See Fig. 12.18.", "In Eq. 2 it is small.", "Eqs. (3) and (4) follow, cf. Refs. [1-3] and Sec. 4."]),
        ("en", "See Fig. S1. and Eq. 3a. Vol. 2 says yes. Dr. No left.",
         ["See Fig. S1. and Eq. 3a.", "Vol. 2 says yes.", "Dr. No left."]),
        ("en", "1. Open it. 2. Save it.", ["1. Open it.", "2. Save it."]),
        ("zh", "\u89c1\u56fe3.2\u3002\u5982\u4e0b\uff1aA.B\u516c\u53f8\u3002",
         ["\u89c1\u56fe3.2\u3002", "\u5982\u4e0b\uff1aA.B\u516c\u53f8\u3002"]),
        ("ja", "\u300c\u672c\u3067\u3059\u3002\u300d\u3068\u8a00\u3063\u305f\u3002\u5c71\u3067\u3059\u3002",
         ["\u300c\u672c\u3067\u3059\u3002\u300d\u3068\u8a00\u3063\u305f\u3002", "\u5c71\u3067\u3059\u3002"]),
        ("fr", "M. Dupont est l\u00e0. Voir la fig. 3.", ["M. Dupont est l\u00e0.", "Voir la fig. 3."]),
        ("en", "  padded. \u3000 wide\u00a0blank.  *** \n — \n", ["padded.", "wide\u00a0blank."]),
        ("en", "", []),
    ],
)  # fmt: skip
def test_sentences_of_languages_lists_and_addresses(language: str | None, text: str, expected: list[str]) -> None:
    assert split(text, language) == expected


def test_a_line_break_is_a_boundary_unless_settings_say_so() -> None:
    text = "wrapped\nline. Next\n\nlast"
    assert split(text) == ["wrapped", "line.", "Next", "last"]
    assert split(text, options=SentenceSettings(line_breaks=False)) == ["wrapped\nline.", "Next", "last"]


def test_long_sentences_are_cut_at_a_blank_and_long_texts_in_windows() -> None:
    words = "word " * 500
    pieces = split(words, options=SentenceSettings(max_chars=103))
    assert {len(piece) for piece in pieces[:-1]} == {99}
    assert " ".join(pieces) == words.strip()
    solid = "x" * (3 * WINDOW + 7)
    assert "".join(split(solid)) == solid


def test_quotes_that_never_close_cost_no_more_than_their_windows() -> None:
    # Quadratic in the library: 32 000 repeats take minutes when handed over whole.
    assert len(split("“a. " * 50_000)) > 0


def test_rows_keep_their_places_and_nulls_have_no_spans() -> None:
    function = SplitSentences()
    assert isinstance(function, RowFunction)
    table = pa.table({"text": ["One. Two.", None, "", "三。"], "language": ["en", "en", None, "zh"]})
    out = function(table)
    assert out.schema == function.output
    assert out.column("spans").to_pylist() == [
        [{"start": 0, "end": 4}, {"start": 5, "end": 9}], [], [], [{"start": 0, "end": 2}],
    ]  # fmt: skip
    assert out.column("error").null_count == 4


def test_a_program_is_one_sentence_where_its_tag_says_so() -> None:
    code = "def f(x):\n    return x. y\n\nprint(f(1))\n"
    table = pa.table({"text": [code, code, None], "language": ["en"] * 3, "tag": ["pre", "p", "pre"]})
    whole, split_up, nothing = SplitSentences()(table).column("spans").to_pylist()
    assert whole == [{"start": 0, "end": len(code.rstrip())}] and len(split_up) > 1 and nothing == []
    short = SplitSentences(SentenceSettings(max_chars=16))(table).column("spans").to_pylist()[0]
    assert [code[span["start"] : span["end"]] for span in short] == ["def f(x):", "return x. y", "print(f(1))"]
    lines = SplitSentences(SentenceSettings(whole_tags=()))(table).column("spans").to_pylist()[0]
    assert lines == split_up


def test_a_failure_of_the_splitter_is_one_row_not_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def brittle(language: str, text: str) -> list[dict[str, int]]:
        if "boom" in text:
            raise PanicException("end byte index 3\nmore")
        return [{"start_index": 0, "end_index": len(text)}]

    monkeypatch.setattr("stages.text.sentences.get_sentence_boundaries", brittle)
    out = SplitSentences()(pa.table({"text": ["fine", "boom", "fine"], "language": ["en"] * 3}))
    assert out.column("spans").to_pylist()[1] is None
    assert out.column("error").to_pylist() == [None, "the sentence splitter failed: end byte index 3", None]
    assert out.column("spans").to_pylist()[2] == [{"start": 0, "end": 4}]


def test_what_is_no_panic_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(language: str, text: str) -> list[dict[str, int]]:
        raise KeyboardInterrupt

    monkeypatch.setattr("stages.text.sentences.get_sentence_boundaries", interrupted)
    with pytest.raises(KeyboardInterrupt):
        split("text")


HOSTILE = st.text(st.sampled_from("aB1 .!?。！？\n\t\u3000\u2028\u200b\x00\"'“”()[]é🎉‍\u0301…;:-*।"), max_size=120)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(HOSTILE, st.sampled_from(["en", "de", "zh", "ru", "ar", "hi", "", None, "xx"]))
def test_spans_are_ordered_disjoint_stripped_and_hold_every_letter(text: str, language: str | None) -> None:
    spans = sentence_spans(text, language, DEFAULT)
    position = 0
    for start, end in spans:
        assert position <= start < end <= len(text)
        sentence = text[start:end]
        assert sentence == sentence.strip() and any(char.isalnum() for char in sentence)
        assert not any(char.isalnum() for char in text[position:start])
        position = end
    assert not any(char.isalnum() for char in text[position:])
