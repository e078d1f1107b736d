"""Sets of icons in iconify's form: by code point, for the emoji, and by name, for pictures of other things."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from minclip_torch.training.miniatures.drawing import document
from minclip_torch.training.miniatures.packages import LICENCES, Archive, PicturesError
from minclip_torch.training.miniatures.things import Drawn


class Icons:
    """One artist's set: bodies keyed by a slug, some with code points for the slugs."""

    def __init__(self, archive: Archive) -> None:
        self._set = archive.json("icons.json")
        self._codes = archive.json("chars.json")
        if "icons" not in self._set:
            raise PicturesError(f"{archive.path} holds no icons: the package's layout is not the one this script knows")

    def slug(self, code: str) -> str | None:
        """What this set calls a picture, if it knows code points at all."""
        lower = code.lower()
        return self._codes.get(lower) or self._codes.get(lower.replace("-fe0f", ""))

    def slugs(self) -> list[str]:
        """The names of all pictures but those that iconify hides: withdrawn ones."""
        return [slug for slug, icon in self._set["icons"].items() if not icon.get("hidden")]

    def drawing(self, slugs: set[str], code: str) -> str | None:
        """The picture that goes by its own slug, or else by one that other sets use."""
        own = self.slug(code)
        for slug in [own] if own else sorted(slugs):
            alias = self._set.get("aliases", {}).get(slug, {})
            icon = self._set["icons"].get(alias.get("parent", slug))
            if icon is not None:
                return self._document(icon)
        return None

    def named(self, slug: str) -> str:
        """The picture of that name."""
        return self._document(self._set["icons"][slug])

    def _document(self, icon: dict[str, object]) -> str:
        box = {**{k: self._set.get(k) for k in ("left", "top", "width", "height")}, **icon}
        sizes = (box.get("left") or 0, box.get("top") or 0, box["width"] or 16, box["height"] or 16)
        return document(str(icon["body"]), *sizes)


@dataclass(frozen=True)
class IconSet:
    """How to read the names of a set.

    emoji: it draws emoji; coloured: it is not of one colour; endings: of a picture's variants, the wanted one first;
    categories: the ones that picture things, empty for all; compounds: whether to take what no dictionary has, "broad
    dagger", where its last word is a thing.
    """

    emoji: bool = False
    coloured: bool = False
    endings: tuple[str, ...] = ()
    categories: str = ""
    compounds: bool = False


SETS = {
    "fxemoji": IconSet(emoji=True, coloured=True, categories="Nature; Objects; People; Places"),
    "streamline-emojis": IconSet(
        emoji=True,
        coloured=True,
        categories="Activity; Animals Nature; Food Drink; Objects; Smiley People; Travel Places",
    ),
    "fluent-emoji-high-contrast": IconSet(emoji=True),
    "emojione-monotone": IconSet(emoji=True),
    "game-icons": IconSet(compounds=True),
    "temaki": IconSet(compounds=True),
    "maki": IconSet(endings=("", "-15", "-11", "-stroked", "-stroked-15", "-stroked-11")),
    "healthicons": IconSet(
        endings=("", "-24px", "-outline", "-outline-24px", "-negative"),
        categories="Body; Devices; Exercise; Medications; Nutrition; Objects; People; Places; Ppe; Vehicles; Zoonoses",
    ),
    "fa6-solid": IconSet(),
    "mdi": IconSet(
        endings=("", "-variant", "-outline", "-variant-outline"),
        categories="Agriculture; Animal; Clothing; Drawing / Art; Food / Drink; Gaming / RPG; Hardware / Tools; "
        "Health / Beauty; Holiday; Home Automation; Medical / Hospital; Music; Nature; Photography; Places; "
        "Religion; Science; Sport; Transportation + Flying; Transportation + Other; Transportation + Road; "
        "Transportation + Water; Weather; Audio; Device / Tech",
    ),
    "ph": IconSet(endings=("-duotone", "-fill", "", "-bold", "-light", "-thin")),
    "tabler": IconSet(endings=("-filled", "")),
    "mingcute": IconSet(endings=("-fill", "-line", "")),
    "hugeicons": IconSet(),
    "icon-park": IconSet(
        coloured=True,
        categories="Animals; Baby; Build; Clothes; Foods; Game; Hardware; Health; Industry; Life; Makeups; "
        "Measurement; Music; Peoples; Sports; Travel; Weather; Time; Office; Energy",
    ),
    "flat-color-icons": IconSet(coloured=True),
    "meteocons": IconSet(coloured=True, endings=("-fill", "")),
    "marketeq": IconSet(coloured=True),
    "streamline-kameleon-color": IconSet(coloured=True, endings=("", "-duo"), compounds=True),
    "streamline-cyber-color": IconSet(coloured=True),
    "streamline-ultimate-color": IconSet(coloured=True),
    "streamline-plump-color": IconSet(coloured=True, endings=("", "-flat")),
    "streamline-flex-color": IconSet(coloured=True, endings=("", "-flat")),
    "streamline-sharp-color": IconSet(coloured=True, endings=("", "-flat")),
}

PREFIXES = ("food", "animal", "i", "ppe")  # what sets file things under: "food apple"


def icon_sets(archives: dict[str, Archive]) -> Iterator[Drawn]:
    """The pictures of the sets of `SETS`, one variant of each; the names are as the artists give them, plain words.

    archives: of each set. Raises PicturesError where a set is not openly licensed, or has another layout.
    """
    for artist, how in SETS.items():
        archive = archives[artist]
        check_licence(archive)
        icons = Icons(archive)
        kept = _of_categories(archive, how)
        best: dict[str, tuple[int, str]] = {}
        for slug in icons.slugs():
            if kept is None or slug in kept:
                stem, rank = _without_ending(slug, how.endings)
                best[stem] = min(best.get(stem, (rank, slug)), (rank, slug))
        for name, slug in _named(best).items():
            yield Drawn(artist, slug, (name,), icons.named(slug))


def check_licence(archive: Archive) -> None:
    """Raise PicturesError where a set's licence is not one of `LICENCES`."""
    licence = archive.json("info.json").get("license", {}).get("spdx")
    if licence not in LICENCES:
        raise PicturesError(f"{archive.path} is under {licence}, not one of {', '.join(LICENCES)}: take the set out")


def _of_categories(archive: Archive, how: IconSet) -> set[str] | None:
    """The pictures of the categories asked for; None for all."""
    if not how.categories:
        return None
    found = archive.json("metadata.json")["categories"]
    return {slug for category in how.categories.split("; ") for slug in found[category]}


def _without_ending(slug: str, endings: tuple[str, ...]) -> tuple[str, int]:
    """A name without its variant, and how much that variant is wanted, 0 the most."""
    found = [(ending, rank) for rank, ending in enumerate(endings) if ending and slug.endswith(ending)]
    ending, rank = max(found, key=lambda pair: len(pair[0]), default=("", 0 if "" in endings or not endings else 9))
    rank = endings.index("") if not ending and "" in endings else rank
    return slug.removesuffix(ending), rank


def _named(best: dict[str, tuple[int, str]]) -> dict[str, str]:
    """Plain words, without numbers and what a picture is filed under, and the first picture of that name."""
    named: dict[str, str] = {}
    for stem in sorted(best, key=lambda stem: (len(stem), stem)):
        words = [word for word in re.split(r"[^a-z]+", stem.lower()) if word]
        while len(words) > 1 and words[-1] in ("alt", "alternate", "variant", "solid", "o"):
            words.pop()
        words = words[1:] if len(words) > 1 and words[0] in PREFIXES else words
        if words:
            named.setdefault(" ".join(words), best[stem][1])
    return named
