"""Codes of languages: those the model knows, and the nearest for what is none."""

from __future__ import annotations

import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from pydantic import ValidationError

from stages.filter.settings import DocumentRules, FilterSettings
from stages.text.language import LANGUAGES, OTHERS, require_languages
from stages.text.scores import ScoreTextSettings


@pytest.mark.slow
def test_the_codes_are_those_of_the_model() -> None:
    model = LanguageIdentifier.from_model_file(MODEL_FILE)
    assert {*LANGUAGES, *OTHERS} == set(model.nb_classes) and not set(LANGUAGES) & set(OTHERS)
    require_languages([*LANGUAGES, *OTHERS])


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("english", "did you mean 'en'?"),
        ("German", "did you mean 'de'?"),
        ("swedisch", "did you mean 'sv'?"),
        ("zh-CN", "did you mean 'zh'?"),
        ("EN", "did you mean 'en'?"),
        ("xx", "there are af, am, "),
        ("", "there are af, am, "),
    ],
)
def test_what_is_no_code_names_the_nearest(code: str, hint: str) -> None:
    for make in (ScoreTextSettings, DocumentRules):
        with pytest.raises(ValidationError, match="is no ISO 639-1 code") as caught:
            make(languages=("en", code))
        assert hint in str(caught.value)


def test_a_language_that_is_never_identified_cannot_be_kept() -> None:
    keep = DocumentRules(languages=("en", "eo"))
    with pytest.raises(ValidationError, match=r"keeps eo, which scores\.languages does not choose among"):
        FilterSettings(document=keep)
    assert FilterSettings(document=keep, scores=ScoreTextSettings(languages=("en", "eo", "fr"))).document is keep
