"""What a piece of clip art is called: from its title, its file's name, its keywords and its folder, which are all noisy.

Titles name series ("Various Cliparts"), file names end with their author's ("bat_orlando_karam_"), and some artists
write Italian or French. `names` reads the sources in turn and takes the first English name of a thing.
"""

from __future__ import annotations

import html
import re

from minclip_torch.training.miniatures.nouns import Nouns

# Folders whose drawings are no things (interfaces, signs, maps, patterns), apart from those named as KEPT.
DROPPED = (
    "computer/icons", "computer/buttons", "computer/diagrams", "computer/bb", "shapes", "buttons", "logos", "special",
    "decorations", "signs_and_symbols/flags", "signs_and_symbols/led", "signs_and_symbols/map_symbols/aiga",
    "signs_and_symbols/hazard", "signs_and_symbols/disability", "recreation/games/cards", "recreation/games/dice",
    "transportation/roadsigns", "transportation/aiga-symbols", "unsorted/duplicates",
)  # fmt: skip
# What a drawing in a folder is at least, where nothing else names it.
FOLDERS = {
    "animals/bugs": "insect", "animals/birds/penguin": "penguin", "animals/birds": "bird", "animals/fish": "fish",
    "animals/dinosaurs": "dinosaur", "animals/mammals/bears": "bear", "animals/mammals/big_cats": "big cat",
    "animals/mammals/dogs": "dog", "animals/mammals/horses": "horse", "animals/mammals/housecats": "cat",
    "buildings/homes": "house", "people/smilies": "smiley face", "people/stickmen": "stick figure",
    "people/clothing/hats": "hat", "plants/flowers": "flower", "plants/trees": "tree", "education/books": "book",
    "signs_and_symbols/clocks": "clock", "electronics/bulb": "light bulb", "food/fruit": "fruit",
    "office/telephone": "telephone", "food/desserts": "dessert", "food/vegetables": "vegetable",
}  # fmt: skip
# Things which the word list does not count, and its spellings apart; and what artists call them.
MORE = {
    "lightning", "fire", "rain", "snow", "rainbow", "cloud", "sunset", "dna", "ice cream", "smiley", "snowflake", "skyline",
    "dinosaur", "stick man", "teddy bear", "gps", "tv", "traffic light", "light bulb", "french fries", "double helix",
    "lcd monitor", "christmas tree", "jack-o-lantern", "handcuffs", "musical note", "music note", "treble clef", "laptop",
    "globe", "volcano", "house", "planet", "snowman", "windmill", "pills", "spaceship", "ufo", "cupcake", "cell phone",
    "santa claus", "mobile phone", "usb stick", "hot dog", "hot air balloon", "steak", "people", "couple", "webcam", "gift",
    "burrito", "smartphone", "floppy", "joypad", "dice", "heart", "star", "skull and bones", "cherries", "lemonade",
}  # fmt: skip
# Words that name no thing in this collection, though a dictionary has them as things.
NEVER = {
    "symbol", "sign", "icon", "logo", "map", "flag", "arrow", "border", "background", "pattern", "shape", "frame", "set",
    "collection", "part", "element", "art", "clip", "clipart", "cartoon", "silhouette", "outline", "drawing", "picture",
    "image", "illustration", "sketch", "form", "work", "wire", "button", "label", "banner", "callout", "template", "kanji",
    "series", "box set", "thing", "object", "one", "two", "three", "no", "black", "white", "red", "green", "blue", "yellow",
    "orange color", "line", "design", "stock", "unit", "equipment", "copy", "color", "colour", "top", "bottom", "side",
    "front", "back", "left", "right", "half", "contour", "creation", "world", "hash", "mo", "pole", "male", "female", "day",
    "emblem", "crest", "seal of approval", "square", "circle", "triangle", "cross", "grid", "graph", "diagram", "chart",
    "letter", "number", "text", "font", "page", "theme", "view", "sort", "type", "man made", "state", "country", "island",
    "city", "town", "region", "continent", "europe", "coastline", "jigsaw", "flowchart", "warning", "hand print", "fan art",
    "seal", "hole", "pi", "gateway", "switch", "hub", "firewall", "client", "stack", "location", "transport", "clothing",
    "recreation", "holiday", "food", "animal", "mammal", "plant", "office", "tool", "building", "furniture", "person",
    "container", "vehicle", "beverage", "music", "weapon", "insect animal", "electronics", "jewelry", "menu", "home",
    "advertising", "notice", "exit", "entrance", "stop", "cartouche", "ornament", "flourish", "divider", "corner", "c",
    "ii", "iv", "b", "w", "r", "x", "a", "v", "s", "t", "i", "la", "ga", "in", "al", "as", "am", "ar", "li", "pa", "ha",
    "user", "figure", "character", "piece", "body", "bodypart", "sub", "io", "mac", "don", "vet", "body part", "toy",
    "protein", "party", "bw", "aj", "religion", "history", "structure", "protection", "obligation", "interdiction", "gum",
    "danger", "direction", "douche", "sortie", "point", "zone", "risque", "charge", "issue", "eau", "mute", "scroll",
}  # fmt: skip
# Words left out of a name: they say how a thing is drawn, or which of a series it is.
FILLERS = {
    "a", "an", "the", "bw", "bn", "b", "w", "aj", "simple", "simpl", "stylized", "cartoon", "clipart", "clip", "art",
    "silhouette", "silhouet", "silouette", "outline", "contour", "remix", "version", "icon", "symbol", "generic", "another",
    "shaded", "color", "colour", "coloured", "colored", "drawn", "drawing", "image", "picture", "sketch", "sibmission", "style",
    "submission", "openclipart", "etiquette", "funny", "v", "my", "some", "various", "r", "t", "x", "g", "mo", "form", "symbols",
    "icons", "small", "big", "large", "front", "back", "half", "plain", "nice", "new", "3d", "2d", "svg",
    "rpswb", "illustration", "black", "white", "elements", "rpg", "map", "plus", "left", "right", "ganson", "elaborate",
}  # fmt: skip
SERIES = re.compile(
    r"clip ?arts?\b|sibmission|symbols|_signs|road signs|icons?et|etiquette icons|\bmaps\b|collection|theme$|^moons$|"
    r"^chess pieces$|connectors|sallite|architetto francesco|mirjam|^gramastar|element;|^sport$|email",
    re.IGNORECASE,
)
# Whatever has one of these words in its title or keywords shows no thing, or words and a map.
UNWANTED = re.compile(
    r"\b(logos?|maps?|flags?|flowchart|callouts?|borders?|backgrounds?|patterns?|textures?|kanji|alphabet|fonts?|numbers?|"
    r"diagrams?|charts?|graphs?|roadsigns?|traffic sign|coastline|pointer|cursor|screenshots?|certificates?|"
    r"clip_?art examples?|mapsym_|bullet holes?|pantyhose\d*|splatter|probability|coat of arms|stemma|fingerprint|"
    r"country|europe|states|advertising|warning|caution|hazard|"
    r"aviso|alertas?|nude|naked|sexy|swastika|interdiction|obligat\w+|protection|illuminati|astrology|zodiac)\b",
    re.IGNORECASE,
)
# "stack of books" is named so; "turkey on platter" is a turkey.
PARTS = {"stack", "pile", "bunch", "bowl", "glass", "cup", "mug", "can", "bottle", "bouquet", "slice", "piece", "pair"}
PARTS |= {"ear", "loaf", "carton", "plate", "bag", "box", "roll", "jar", "pot", "basket"}
JOINTS = {"of", "on", "in", "with", "from", "for", "at", "by", "and", "without", "to"}
# Italian and French, which some artists write. Looked up before English: "cane" is a dog there.
FOREIGN = {
    "acquila": "eagle", "aquila": "eagle", "cigno": "swan", "cigni": "swans", "gabbiano": "seagull", "gallo": "rooster",
    "gufo": "owl", "pollo": "chicken", "tacchino": "turkey", "uccello": "bird", "cavalletta": "grasshopper",
    "coccinella": "ladybug", "coccinellona": "ladybug", "farfalla": "butterfly", "farfalle": "butterflies",
    "formichina": "ant", "formicona": "ant", "insetto": "insect", "libellula": "dragonfly", "libellule": "dragonfly",
    "lumaca": "snail", "mantide": "praying mantis", "moschito": "mosquito", "mostriciattolo": "monster",
    "ragnetto": "spider", "ragno": "spider", "zanzara": "mosquito", "dino": "dinosaur", "dinosauri": "dinosaurs",
    "dinosauro": "dinosaur", "lucchetto": "padlock", "lucertola": "lizard", "lucertolona": "lizard", "abeille": "bee",
    "lucertolone": "lizard", "antilope": "antelope", "orso": "bear", "leone": "lion", "tigre": "tiger", "toro": "bull",
    "canguro": "kangaroo", "coniglio": "rabbit", "elefante": "elephant", "elefantone": "elephant", "cavallo": "horse",
    "gattina": "cat", "gatto": "cat", "gatti": "cats", "pecora": "sheep", "pecorella": "sheep", "topo": "mouse",
    "pinguino": "penguin", "ramarro": "lizard", "rana": "frog", "sedia": "chair", "tavolo": "table", "cesto": "basket",
    "poltrona": "armchair", "casa": "house", "stampante": "printer", "borsa": "bag", "borsetta": "handbag",
    "valigie": "suitcases", "cinepresa": "movie camera", "telecamera": "video camera", "lattine": "cans", "torta": "cake",
    "tazza": "cup", "teiera": "teapot", "prugna": "plum", "pera": "pear", "pesca": "peach", "pomodori": "tomatoes",
    "aglio": "garlic", "ravanello": "radish", "zucca": "pumpkin", "calcolatrice": "calculator", "cassa": "cash register",
    "cestino": "wastebasket", "clessidra": "hourglass", "fabbrica": "factory", "lettera": "letter", "pinzatrice": "stapler",
    "puntine": "thumbtacks", "telefono": "telephone", "dente": "tooth", "camicia": "shirt", "pattino": "ice skate",
    "donna": "woman", "fata": "fairy", "bambina": "girl", "nonno": "grandfather", "pattinatrice": "ice skater",
    "signore": "man", "signorina": "young woman", "albero": "tree", "mazzo": "bouquet", "pacco": "gift",
    "palloncini": "balloons", "siringa": "syringe", "microscopio": "microscope", "portafoglio": "wallet", "fiori": "flowers",
    "binocolo": "binoculars", "bussola": "compass", "calamita": "magnet", "chiave": "key", "ferro": "clothes iron",
    "lente": "magnifying glass", "livella": "spirit level", "mattone": "brick", "ruota": "gear wheel", "secchio": "bucket",
    "sega": "saw", "viti": "screws", "bicicletta": "bicycle", "trattore": "tractor", "anatra": "duck", "colombo": "dove",
    "condominio": "apartment building", "cornetto": "ice cream cone", "montacarichi": "forklift", "papera": "duck",
    "uovo": "egg", "ambulanza": "ambulance", "ape": "bee", "betoniera": "cement mixer", "biberon": "baby bottle",
    "calzettoni": "socks", "cammello": "camel", "candela": "candle", "carpentiere": "carpenter", "carretta": "wheelbarrow",
    "ciuccio": "pacifier", "corridore": "runner", "fattoria": "farm", "fiocco": "bow", "foglie": "leaves", "fiore": "flower",
    "grattacieli": "skyscrapers", "grondaia": "gutter", "imbianchino": "house painter", "lampada": "lamp",
    "motosega": "chainsaw", "mucca": "cow", "mucche": "cows", "pescetto": "fish", "principessa": "princess",
    "proiettore": "projector", "provetta": "test tube", "provette": "test tubes", "ragazza": "girl", "ragazzo": "boy",
    "rosa": "rose", "scala": "ladder", "scatolone": "cardboard box", "scodella": "bowl", "serratura": "lock",
    "spaventapasseri": "scarecrow", "stetoscopio": "stethoscope", "agnellini": "lambs", "struzzo": "ostrich",
    "tavolozza": "palette", "tramezzino": "sandwich", "vestito": "dress", "zaino": "backpack", "traslocatore": "mover",
    "pennuto": "bird", "profilo": "skyline", "sapone": "soap", "orologio": "clock", "teschio": "skull", "metro": "tape measure",
    "sacco": "sleeping bag", "libro": "book", "nuage": "cloud", "soleil": "sun", "lune": "moon", "gateau": "cake",
    "pansement": "bandage", "glace": "ice cream", "poisson": "fish", "chat": "cat", "chien": "dog", "arbre": "tree",
    "disquete": "floppy disk", "croche": "musical note", "noire": "musical note", "blanche": "musical note", "cle": "key",
    "fraise": "strawberry", "poire": "pear", "pomme": "apple", "orage": "storm cloud", "pluie": "rain cloud", "etoile": "star",
    "dado": "die", "candado": "padlock", "bombilla": "light bulb", "barco": "boat", "pez": "fish", "perro": "dog",
}  # fmt: skip


def plain(text: str) -> list[str]:
    """The words of a title or a file's name, lower case, without numbers, brackets and what fills."""
    text = re.sub(r"\(.*?\)|\[.*?\]|https?:\S+|&#?\w+;|\bhash\b", " ", html.unescape(text))
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text).lower().replace("'s", "")
    return [word for word in re.findall(r"[a-z]+", re.sub(r"\d+", " ", text)) if word not in FILLERS]


def names(place: str, title: str, keywords: list[str], creator: str, nouns: Nouns) -> tuple[str, ...]:
    """The name of the thing that a drawing shows, then its keywords; nothing where no name can be found.

    place: the file's path below the collection's folder, with slashes; title, keywords, creator: from its metadata.
    """
    if place.startswith(DROPPED) or UNWANTED.search(" ".join([title, *keywords, place.replace("_", " ")])):
        return ()
    folder, _, stem = place.removesuffix(".svg").rpartition("/")
    sources = [] if SERIES.search(title) else [plain(title)]
    sources += [_without_author(plain(stem), creator)]
    words = [" ".join(plain(keyword)) for keyword in keywords]
    found = [name for source in sources if (name := _name(source, words, nouns))]
    found += [kind for place, kind in FOLDERS.items() if folder.startswith(place)][:1]
    if not found:
        return ()
    others = [word for word in words if _is_thing(word, nouns) and word not in found[0].split()]
    return tuple(dict.fromkeys([found[0], *others]))


def _without_author(words: list[str], creator: str) -> list[str]:
    """A file's name without its author's, which ends it and may be cut short."""
    author = plain(creator) + ["architetto", "architett", "openclipart", "jean"]
    while len(words) > 1 and any(part.startswith(words[-1]) for part in author):
        words = words[:-1]
    return words


def _name(words: list[str], keywords: list[str], nouns: Nouns) -> str | None:
    """The English name of a thing in a title's words: its head noun and up to two words before that."""
    for word in words:
        if word in FOREIGN:
            return FOREIGN[word]
    joint = next((i for i, word in enumerate(words) if word in JOINTS), len(words))
    head, rest = words[:joint], words[joint + 1 :]
    if joint < len(words) and words[joint] == "of" and head and head[-1] in PARTS and rest:
        inner = _name(rest, keywords, nouns)
        return f"{head[-1]} of {inner}" if inner else None
    for end in range(len(head), 0, -1):
        if not any(_is_thing(" ".join(head[max(0, end - size) : end]), nouns) for size in (1, 2, 3)):
            continue
        if end < len(head) and head[end - 1] not in keywords and not _is_thing(head[end - 1], nouns, surely=True):
            continue
        start = end
        while start > 0 and end - start < 3 and (start == end or nouns.singular(head[start - 1])):
            start -= 1
        name = head[start:end]
        while len(name) > 1 and (name[0] in NEVER - COLOURS or len(name[0]) < 3):
            name = name[1:]
        return " ".join(name)
    return None


COLOURS = {"red", "green", "blue", "yellow"}


def _is_thing(word: str, nouns: Nouns, surely: bool = False) -> bool:
    """Whether a word or compound names a thing; surely: in its commonest sense."""
    if word in MORE or nouns.singular(word) in MORE:
        return True
    if len(word) < 3 or word in NEVER or nouns.singular(word) in NEVER:
        return False
    return bool(nouns.kinds(word)[0]) if surely and nouns.kinds(word) else nouns.is_thing(word)
