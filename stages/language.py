"""Language of a text, by py3langid (naive Bayes over byte n-grams; Lui and Baldwin 2012, refreshed)."""

from __future__ import annotations

from functools import lru_cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

# py3langid knows 140 languages, among them dialects and creoles that take short or technical English, German or
# Chinese ("hello world" is Fula to it). These are the languages that corpora of web pages have in any number.
LANGUAGES = (
    *("af", "am", "ar", "az", "be", "bg", "bn", "bs", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "eu", "fa"),
    *("fi", "fr", "ga", "gl", "gu", "he", "hi", "hr", "hu", "hy", "id", "is", "it", "ja", "ka", "kk", "km", "kn", "ko"),
    *("lo", "lt", "lv", "mk", "ml", "mn", "mr", "ms", "my", "ne", "nl", "no", "pa", "pl", "ps", "pt", "ro", "ru", "si"),
    *("sk", "sl", "sq", "sr", "sv", "sw", "ta", "te", "th", "tl", "tr", "uk", "ur", "uz", "vi", "zh"),
)
# More text does not change the answer, it only costs; half from the start, half from the middle.
_HALF = 1_000


def identify(text: str, languages: tuple[str, ...] = LANGUAGES) -> tuple[str | None, float]:
    """(ISO 639-1 code, probability 0..1) of the most likely of `languages`; (None, 0.0) for text without letters.

    ValueError for a language the model does not know.
    """
    middle = max(_HALF, len(text) // 2)
    sample = text[:_HALF] + text[middle : middle + _HALF]
    if not any(map(str.isalpha, sample)):
        return None, 0.0
    language, probability = _identifier(languages).classify(sample)
    return str(language), float(probability)


@lru_cache(maxsize=4)
def _identifier(languages: tuple[str, ...]) -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(languages))
    return identifier
