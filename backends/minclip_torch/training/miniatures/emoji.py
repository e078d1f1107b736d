"""The emoji of the training set: what they are called in twenty-five languages, and seven artists' drawings of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from minclip_torch.training.miniatures.icons import Icons
from minclip_torch.training.miniatures.packages import Archive, PicturesError
from minclip_torch.training.miniatures.things import Annotations, Concept

ARTISTS = ("noto", "noto-v1", "twemoji", "fluent-emoji", "fluent-emoji-flat", "emojione")  # of @iconify-json
HELD_OUT = "openmoji"
LANGUAGES = (
    "en", "de", "fr", "es", "it", "pt", "nl", "pl", "sv", "tr", "vi", "id", "sw",
    "ru", "uk", "el", "ar", "he", "fa", "hi", "bn", "th", "ja", "ko", "zh",
)  # fmt: skip
# The 64 things of the small test "everyday".
EVERYDAY = (
    "🐕🐈🐎🐄🐖🐘🐟🦋🐢🐍🦆🌳🌵🌻🌹🍎🍌🍇🍓🥕🍕🍔🍞🧀🥚☕🍺🎂🚗🚲🚌🚂"
    "✈⛵🚀🏠⛺☂🌈⛄☀🌙⭐🔥❤⚽🎸🎹📷📱💻📚✏✂🔑🔨💡⏰🪑🚪👑👓🎁🎈"
)

Captions = dict[str, list[str]]  # language -> the name, then keywords


def concepts(archives: dict[str, Path]) -> tuple[list[Concept], list[set[str]]]:
    """The concepts, and in step with them what the sets of icons call them.

    They are the emoji that Noto, Twemoji, OpenMoji and every language of `LANGUAGES` have, but flags and components.

    archives: of every package. Raises PicturesError where one is damaged or has another layout.
    """
    try:
        found = list(_concepts(archives))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise PicturesError(f"the packages' layout is not the one this script knows ({error!r:.80})") from None
    if not found:
        raise PicturesError("the packages have no picture in common: their layout is not the one this script knows")
    return [concept for concept, _ in found], [{slug.replace("-", " ") for slug in slugs} for _, slugs in found]


def translations(known: Mapping[str, Annotations]) -> dict[str, Captions]:
    """English name -> captions in every language, for all that `cldr_names` names in all of `LANGUAGES`."""
    named = [emoji for emoji in known["en"] if _is_named(known, emoji)]
    return {known["en"][emoji]["tts"][0]: _all_captions(known, emoji) for emoji in named}


def cldr_names(archives: dict[str, Path]) -> dict[str, Annotations]:
    """CLDR's annotations of every language in `LANGUAGES`."""
    cldr = Archive(archives["cldr-annotations-full"])
    files = {language: cldr.json(f"annotations/{language}/annotations.json") for language in LANGUAGES}
    return {language: file["annotations"]["annotations"] for language, file in files.items()}


def _is_named(known: Mapping[str, Annotations], emoji: str) -> bool:
    return all("tts" in known[language].get(emoji, {}) for language in LANGUAGES)


def _all_captions(known: Mapping[str, Annotations], emoji: str) -> Captions:
    return {language: _captions(known[language][emoji]) for language in LANGUAGES}


def _concepts(archives: dict[str, Path]) -> Iterator[tuple[Concept, set[str]]]:
    known = cldr_names(archives)
    held_out = Archive(archives[HELD_OUT]).files
    icons = {artist: Icons(Archive(archives[f"@iconify-json/{artist}"])) for artist in ARTISTS}
    for entry in Archive(archives["emoji-datasource"]).json("emoji.json"):
        code = entry["unified"]
        bare = code.replace("-FE0F", "")
        emoji = "".join(chr(int(point, 16)) for point in bare.split("-"))
        open_art = held_out.get(f"color/svg/{code}.svg") or held_out.get(f"color/svg/{bare}.svg")
        drawn = entry["has_img_google"] and entry["has_img_twitter"] and open_art is not None
        if entry["category"] in ("Flags", "Component") or not (drawn and _is_named(known, emoji)):
            continue
        slugs = {slug for set_ in icons.values() if (slug := set_.slug(code))}
        drawings = {artist: svg for artist, set_ in icons.items() if (svg := set_.drawing(slugs, code))}
        if drawings:
            drawings[HELD_OUT] = (open_art or b"").decode()
            yield Concept(bare, emoji, entry["category"], _all_captions(known, emoji), drawings), slugs


def _captions(annotation: Mapping[str, list[str]]) -> list[str]:
    """The name, then the keywords that are not the name, in Unicode's composed form."""
    name, keywords = annotation["tts"][0], annotation.get("default", [])
    return list(dict.fromkeys(unicodedata.normalize("NFC", text) for text in [name, *keywords]))
