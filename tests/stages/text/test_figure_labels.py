"""What captions are called, and what sentences refer to."""

from __future__ import annotations

import pytest

from stages.text.figure_labels import caption_label, names, referred


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Figure 3: A loom", ("figure", "3")),
        ("Fig. 3.2. A loom", ("figure", "3.2")),
        ("FIG 7a) A loom", ("figure", "7a")),
        ("Figure 2-1 The loom", ("figure", "2.1")),
        ("Figure S1. A loom", ("figure", "s1")),
        ("Figure IV. A loom", ("figure", "iv")),
        ("Abbildung 4: Ein Webstuhl", ("figure", "4")),
        ("\u0420\u0438\u0441. 5. \u0421\u0445\u0435\u043c\u0430", ("figure", "5")),
        ("\u56fe3 \u7535\u8def", ("figure", "3")),
        ("\u8868 2\uff1a\u7ed3\u679c", ("table", "2")),
        ("Photo 3 \u2013 A loom", ("picture", "3")),
        ("Figure 17.312.", ("figure", "17.312")),
        ("Figure 3 shows a loom", None),
        ("Figure out 3 of them", None),
        ("Bild 3 zeigt einen Webstuhl", None),
        ("A loom (Figure 3)", None),
        ("", None),
    ],
)
def test_captions_are_called(text: str, label: tuple[str, str] | None) -> None:
    assert caption_label(text) == label


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("as Fig. 3 shows", ["3"]),
        ("see Figs. 2 and 4", ["2", "4"]),
        ("(Fig. 7b, 8)", ["7b", "8"]),
        ("Figures 2-4 are alike", ["2", "3", "4"]),
        ("Fig. 3-5 is one", ["3.5"]),
        ("In Figure 12.18 the warp", ["12.18"]),
        ("\u5982\u56fe3\u6240\u793a", ["3"]),
        ("Abb. 3 und 4", ["3", "4"]),
        ("a configuration of 3", []),
        ("Figures 1-999 are too many", [str(number) for number in range(1, 21)] + ["999"]),
    ],
)
def test_sentences_refer_to_figures(text: str, numbers: list[str]) -> None:
    assert referred(text) == [("figure", number) for number in numbers]


def test_a_panel_names_its_figure_and_kinds_are_counted_apart() -> None:
    assert names(referred("see Fig. 7b"), ("figure", "7"))
    assert not names(referred("see Fig. 7"), ("figure", "7b"))
    assert not names(referred("see Table 7"), ("figure", "7"))
    assert not names(referred("see Fig. 17"), ("figure", "7"))
