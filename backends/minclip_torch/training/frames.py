"""Captions as people write them: a name in a short phrase of its language, a capital letter, a full stop.

    dog -> a dog        abeille -> L'abeille.        собака -> На фото собака        犬 -> これは犬です。

The phrases are chosen so that the name stands as in a dictionary: no case, no agreement. An article of the wrong gender
now and then ("un fleur") is the price of names whose gender nobody noted.
"""

from __future__ import annotations

import re

import numpy as np

# Language: its frames, `{}` for the name. The first is the plain sentence that evaluation uses.
FRAMES: dict[str, tuple[str, ...]] = {
    "en": ("a {}", "the {}", "a picture of a {}", "a photo of a {}", "a drawing of a {}", "an icon of a {}",
           "this is a {}", "a picture of {}"),
    "de": ("ein {}", "eine {}", "der {}", "die {}", "das {}", "das ist ein {}", "ein Bild von einem {}",
           "eine Zeichnung von einer {}"),
    "fr": ("un {}", "une {}", "le {}", "la {}", "une photo de {}", "un dessin de {}", "une image de {}", "c'est un {}"),
    "es": ("un {}", "una {}", "el {}", "la {}", "una foto de {}", "un dibujo de {}", "una imagen de {}",
           "esto es una {}"),
    "it": ("un {}", "una {}", "il {}", "la {}", "una foto di {}", "un disegno di {}", "questo è un {}",
           "questa è una {}"),
    "pt": ("um {}", "uma {}", "o {}", "a {}", "uma foto de {}", "um desenho de {}", "uma imagem de {}",
           "isto é uma {}"),
    "nl": ("een {}", "de {}", "het {}", "dit is een {}", "een foto van een {}", "een tekening van een {}",
           "een afbeelding van {}"),
    "pl": ("to jest {}", "to {}", "oto {}", "rysunek: {}", "zdjęcie: {}", "obrazek: {}", "na zdjęciu: {}"),
    "sv": ("en {}", "ett {}", "det här är en {}", "det här är ett {}", "en bild på en {}", "en bild på ett {}",
           "en teckning av en {}", "ett foto av {}"),
    "tr": ("bir {}", "bu bir {}", "{} resmi", "{} çizimi", "{} fotoğrafı", "bir {} resmi", "resimde bir {} var"),
    "vi": ("một {}", "một con {}", "một chiếc {}", "đây là {}", "hình ảnh {}", "bức ảnh một {}", "hình vẽ một {}"),
    "id": ("sebuah {}", "seekor {}", "ini {}", "ini adalah {}", "gambar {}", "foto {}", "gambar sebuah {}"),
    "sw": ("hii ni {}", "huyu ni {}", "ni {}", "picha ya {}", "mchoro wa {}", "hii ni picha ya {}"),
    "ru": ("это {}", "вот {}", "рисунок: {}", "фото: {}", "картинка: {}", "на картинке {}", "на фото {}"),
    "uk": ("це {}", "ось {}", "малюнок: {}", "фото: {}", "зображення: {}", "на малюнку {}", "на фото {}"),
    "el": ("ένα {}", "ένας {}", "μια {}", "το {}", "ο {}", "η {}", "αυτό είναι ένα {}", "εικόνα: {}", "σχέδιο: {}"),
    "ar": ("هذا {}", "هذه {}", "ال{}", "صورة {}", "رسم {}", "صورة: {}", "في الصورة {}"),
    "he": ("זה {}", "זאת {}", "ה{}", "תמונה של {}", "ציור של {}", "הנה {}", "בתמונה {}"),
    "fa": ("یک {}", "این یک {} است", "این {} است", "عکس {}", "تصویر {}", "نقاشی {}", "عکسی از یک {}"),
    "hi": ("एक {}", "यह एक {} है", "यह {} है", "चित्र: {}", "तस्वीर: {}", "तस्वीर में एक {}", "चित्र में {}"),
    "bn": ("একটি {}", "একটা {}", "এটি একটি {}", "এটা {}", "ছবি: {}", "ছবিতে একটি {}", "আঁকা ছবি: {}"),
    "th": ("นี่คือ{}", "ภาพ{}", "รูป{}", "ภาพวาด{}", "ภาพถ่าย{}", "รูปถ่าย{}"),
    "ja": ("これは{}です", "{}です", "{}の絵", "{}の写真", "{}のイラスト", "{}の画像"),
    "ko": ("이것은 {}입니다", "{}입니다", "{} 그림", "{} 사진", "{} 이미지", "{}의 그림", "{}의 사진"),
    "zh": ("一个{}", "一只{}", "这是{}", "这是一个{}", "{}的图片", "{}的照片", "一张{}的照片", "一幅{}的画"),
}  # fmt: skip

# Language: patterns of names, and what the frame's end before such a name becomes.
VOWEL = r"(?i)[aeiouàâäèéêëîïôöùûüœæáíóúì]"
ENDINGS: dict[str, tuple[tuple[str, dict[str, str]], ...]] = {
    "en": (
        (r".*[^sui]s$", {"a ": ""}),  # cherries
        (r"(?i)hour|heir|x-|(?!uni|eu|us|ut|uk|ufo|one\b|one-|once)[aeiou]", {"a ": "an "}),
    ),
    "fr": ((VOWEL, {"le ": "l'", "la ": "l'", "de ": "d'"}),),
    "it": (
        (VOWEL, {"il ": "l'", "la ": "l'", "una ": "un'"}),
        (r"(?i)z|s[^aeiouàèéìòù\W]|gn|ps|pn|x|y", {"il ": "lo ", "un ": "uno "}),
    ),
    "ar": ((r".*\s", {"ال": ""}),),  # of several words, more than the first may take the article
    "he": ((r".*\s", {"ה": ""}),),
}

STOPS = {"zh": "。", "ja": "。", "hi": "।", "bn": "।", "th": ""}  # and "." elsewhere
STOPPED = tuple(".!?…。．！？।؟")
CAPITALS = {"tr": ("i", "İ"), "nl": ("ij", "IJ")}  # where the language has its own
FRAMED, BARE = 0.5, 0.15  # the probabilities of a capital and of a full stop

PLURAL = 0.15  # of the framed English names that have a plain plural
PLURALS = ("{}", "the {}", "some {}", "pictures of {}", "photos of {}", "drawings of {}")
IRREGULAR = re.compile(
    r"^(wo)?man |(man|person|child|foot|tooth|mouse|goose|\bdie|\box|sheep|fish|deer|moose|bison|squid|shrimp|salmon)$"
)
UNCOUNTED = re.compile(  # adjectives and substances, mostly
    r"(s|ed|ing|ic|al|ful|less|ous|ly|gy|zy|ish|able|fe|f|ware|wear|luggage|information|spaghetti|sushi|\bice|\bfire|fog"
    r"|bread|milk|water|butter|cheese|salt|bacon|popcorn|\bcorn|hockey|badminton|lacrosse|dna)$"
)


def draw(text: str, language: str, framed: float, rng: np.random.Generator) -> str:
    """A caption made of a name: with probability `framed` in one of the language's frames, or else bare; with a capital
    letter or a full stop at random.

    A text in a language that has no frames here, and one that is a phrase by itself ("a dog", "Dogs bark."), stays as
    it is.
    """
    frames = FRAMES.get(language)
    if frames is None or is_phrase(text, language):
        return text
    in_frame = rng.random() < framed
    if in_frame:
        several = plural(text) if language == "en" and rng.random() < PLURAL else None
        if several is None:
            text = fill(frames[int(rng.integers(len(frames)))], text, language)
        else:
            text = PLURALS[int(rng.integers(len(PLURALS)))].replace("{}", several)
    share = FRAMED if in_frame else BARE
    text = capitalized(text, language) if rng.random() < share else text
    return stopped(text, language) if rng.random() < share else text


def sentence(text: str, language: str) -> str:
    """The name as a plain sentence: "A dog.", "Un chien.". Raises KeyError where the language has no frames."""
    first = FRAMES[language][0]
    framed = text if is_phrase(text, language) else fill(first, text, language)
    return stopped(capitalized(framed, language), language)


def is_phrase(text: str, language: str) -> bool:
    """Whether a text ends with a full stop, or begins with a word that a frame of its language begins with."""
    return text.endswith(STOPPED) or text.lower().startswith(OPENINGS[language])


# An article with the space after it, or what is written together with the name.
OPENINGS = {
    language: tuple({re.split(r"(?<= )", frame.split("{}")[0])[0] for frame in frames} - {""})
    for language, frames in FRAMES.items()
}


def fill(frame: str, text: str, language: str) -> str:
    """Put a name into a frame: "a {}" and "apple" make "an apple", "le {}" and "arbre" make "l'arbre"."""
    head, tail = frame.split("{}")
    for pattern, endings in ENDINGS.get(language, ()):
        if re.match(pattern, text):
            for ending, other in endings.items():
                if head == ending or head.endswith(f" {ending}"):
                    return head.removesuffix(ending) + other + text + tail
    return head + text + tail


def plural(text: str) -> str | None:
    """The plural of an English name of one or two words that takes -s, -es or -ies; None for any other."""
    if not re.fullmatch(r"[a-z]{3,}( [a-z]{3,})?", text) or IRREGULAR.search(text) or UNCOUNTED.search(text):
        return None
    if re.search(r"[^aeiou]y$", text):
        return f"{text[:-1]}ies"
    return text + ("es" if re.search(r"(x|z|ch|sh|tomato|potato|hero|mosquito)$", text) else "s")


def capitalized(text: str, language: str) -> str:
    """The text with a capital letter first, in the language's own way; scripts without capitals are left alone."""
    small, large = CAPITALS.get(language, ("", ""))
    if small and text.startswith(small):
        return large + text.removeprefix(small)
    return text[:1].upper() + text[1:]


def stopped(text: str, language: str) -> str:
    """The text with its script's full stop, unless it ends with a stop already."""
    return text if text.endswith(STOPPED) else text + STOPS.get(language, ".")
