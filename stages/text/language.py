"""Language of a text, by py3langid (naive Bayes over byte n-grams; Lui and Baldwin 2012, refreshed)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
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
# The others that the model knows: dialects, creoles and small languages, to be asked for by name.
_OTHERS = (
    "as br eo fy gd ha ht ig jv ku ky la lg ln mg om or qu sa so ug xh yo zu zxx ace bcl dz ext gcf gom "
    "grc gug hbo kik nso pcm rw se sn st an ary crh fo fuv gcr guw kab lb lij ltg uzs wa sdh arz ba mt nn "
    "oc tg tk tt vec vo wuu yue"
)
OTHERS = tuple(_OTHERS.split())
# English names of LANGUAGES, in their order: what people write where a code belongs.
_NAMES = (
    "afrikaans, amharic, arabic, azerbaijani, belarusian, bulgarian, bengali, bosnian, catalan, czech, welsh, "
    "danish, german, greek, english, spanish, estonian, basque, persian, finnish, french, irish, galician, "
    "gujarati, hebrew, hindi, croatian, hungarian, armenian, indonesian, icelandic, italian, japanese, georgian, "
    "kazakh, khmer, kannada, korean, lao, lithuanian, latvian, macedonian, malayalam, mongolian, marathi, malay, "
    "burmese, nepali, dutch, norwegian, punjabi, polish, pashto, portuguese, romanian, russian, sinhala, slovak, "
    "slovenian, albanian, serbian, swedish, swahili, tamil, telugu, thai, tagalog, turkish, ukrainian, urdu, uzbek, "
    "vietnamese, chinese"
)
# More text does not change the answer, it only costs; half from the start, half from the middle.
_HALF = 1_000


def require_languages(codes: Iterable[str]) -> None:
    """ValueError, one line, for a code that `identify` does not know; it names the nearest."""
    for code in codes:
        if code not in LANGUAGES and code not in OTHERS:
            named = dict(zip(_NAMES.split(", "), LANGUAGES, strict=True))
            near = difflib.get_close_matches(code.lower().partition("-")[0], [*named, *LANGUAGES], 1)
            hint = f"did you mean {named.get(near[0], near[0])!r}?" if near else f"there are {', '.join(LANGUAGES)}"
            raise ValueError(f"{code!r} is no ISO 639-1 code of a language that is identified; {hint}")


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
