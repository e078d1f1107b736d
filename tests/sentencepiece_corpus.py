"""Text to train tokenizers on, models trained on it in many settings, and strings to try them with."""

import functools
import io
import random
import unicodedata

import sentencepiece as spm

SENTENCES = """
A photo of a cat sleeping on a red sofa in the afternoon sun.
Two dogs are running along the beach while the waves come in.
The train to the mountains leaves at 7:45 from platform 12.
She bought three apples, a loaf of bread and half a pound of butter.
An old man is playing chess with his granddaughter in the park.
There are more than 1,500 lighthouses along this coast; most of them are automatic now.
I can't find my glasses — have you seen them?
Breakfast is served from 6 to 10 on the terrace, weather permitting.
Una foto de un gato durmiendo en un sofá rojo bajo el sol de la tarde.
Dos perros corren por la playa mientras llegan las olas.
El niño compró un helado de limón y se sentó a mirar los barcos.
¿Dónde está la biblioteca? Está detrás de la iglesia, a mano derecha.
Mañana lloverá en las montañas, pero en la costa hará buen tiempo.
La panadería de la esquina abre a las siete y cierra a mediodía.
Une photo d'un chat qui dort sur un canapé rouge au soleil de l'après-midi.
Deux chiens courent le long de la plage pendant que les vagues arrivent.
L'été dernier, nous avons loué une petite maison près de la forêt.
Où est passée la clé du grenier ? Elle était sur l'étagère, à côté des œufs.
Le boulanger se lève à trois heures du matin pour pétrir la pâte.
Ça fait déjà dix ans que le vieux pont a été reconstruit.
Ein Foto einer Katze, die in der Nachmittagssonne auf einem roten Sofa schläft.
Zwei Hunde laufen am Strand entlang, während die Wellen hereinrollen.
Die Straßenbahn fährt alle zehn Minuten über die große Brücke.
Im Frühling blühen die Kirschbäume hinter dem alten Schloss.
Der Bäcker verkauft süße Brötchen, Käse und heißen Kaffee.
Könnten Sie mir bitte sagen, wie spät es ist?
Una fotografia di un gatto che dorme su un divano rosso al sole del pomeriggio.
Due cani corrono lungo la spiaggia mentre arrivano le onde.
Perché non andiamo a mangiare una pizza vicino alla stazione?
La nonna prepara il caffè ogni mattina alle sei e mezza.
Uma foto de um gato dormindo em um sofá vermelho ao sol da tarde.
Dois cães correm pela praia enquanto chegam as ondas.
Amanhã não haverá aula; a professora está de férias até segunda-feira.
O avô contava histórias de pescadores à beira do rio.
Een foto van een kat die in de middagzon op een rode bank slaapt.
Twee honden rennen langs het strand terwijl de golven binnenkomen.
De fietsen staan achter de schuur, naast de appelboom.
Zdjęcie kota śpiącego na czerwonej kanapie w popołudniowym słońcu.
Dwa psy biegną wzdłuż plaży, a fale uderzają o brzeg.
Wczoraj kupiłem świeży chleb, żółty ser i trochę śliwek.
Fotka kočky spící na červené pohovce v odpoledním slunci.
Příliš žluťoučký kůň úpěl ďábelské ódy.
Öğleden sonra güneşinde kırmızı kanepede uyuyan bir kedinin fotoğrafı.
İstanbul'da ılık bir akşam, vapur karşı kıyıya geçiyor.
Bức ảnh một con mèo đang ngủ trên ghế sofa màu đỏ dưới nắng chiều.
Hai con chó chạy dọc bãi biển khi những con sóng ập vào.
Фотография кошки, спящей на красном диване под полуденным солнцем.
Две собаки бегут вдоль берега, а волны накатывают на песок.
Бабушка испекла пирог с яблоками и позвала всех к столу.
Сколько стоит билет до Москвы? Поезд отправляется в 18:30.
Фото кота, що спить на червоному дивані; їжак шукає їжу в саду.
Μια φωτογραφία μιας γάτας που κοιμάται σε έναν κόκκινο καναπέ.
Δύο σκύλοι τρέχουν στην παραλία καθώς έρχονται τα κύματα.
Πού είναι η βιβλιοθήκη; Πίσω από την εκκλησία, στα δεξιά.
صورة لقطة نائمة على أريكة حمراء تحت شمس الظهيرة.
كلبان يركضان على الشاطئ بينما تأتي الأمواج.
أين تقع المكتبة؟ خلف المسجد، على اليمين.
تصویر گربه‌ای که روی مبل قرمز خوابیده است.
کتابخانه کجاست؟ پشت مسجد، سمت راست می‌بینید.
תמונה של חתול ישן על ספה אדומה בשמש אחר הצהריים.
שני כלבים רצים לאורך החוף בזמן שהגלים מגיעים.
दोपहर की धूप में लाल सोफ़े पर सोती हुई बिल्ली की तस्वीर।
दो कुत्ते समुद्र तट पर दौड़ रहे हैं और लहरें आ रही हैं।
पुस्तकालय कहाँ है? मंदिर के पीछे, दाईं ओर।
দুপুরের রোদে লাল সোফায় ঘুমন্ত একটি বিড়ালের ছবি।
மதிய வெயிலில் சிவப்பு சோபாவில் தூங்கும் பூனையின் படம்.
ภาพแมวนอนหลับบนโซฟาสีแดงท่ามกลางแสงแดดยามบ่าย
สุนัขสองตัววิ่งไปตามชายหาดขณะที่คลื่นซัดเข้ามา
午后阳光下,一只猫睡在红色沙发上的照片。
两只狗沿着海滩奔跑,海浪不断涌来。
图书馆在哪里?在寺庙后面,右手边。
我们明天早上七点出发去北京,请不要迟到。
午後の日差しの中、赤いソファで眠る猫の写真。
二匹の犬が波打ち際を走っています。
図書館はどこですか。お寺の裏、右側にあります。
カタカナとひらがなと漢字を混ぜて書きます。
오후 햇살 아래 빨간 소파에서 자는 고양이 사진.
개 두 마리가 파도가 밀려오는 해변을 달리고 있다.
도서관은 어디에 있습니까? 절 뒤편 오른쪽에 있습니다.
სურათი კატის, რომელსაც წითელ დივანზე სძინავს.
Նկար՝ կարմիր բազմոցին քնած կատվի։
Picha ya paka amelala kwenye sofa nyekundu wakati wa jua la mchana.
Mbwa wawili wanakimbia kando ya bahari mawimbi yanapokuja.
Kuva kissasta, joka nukkuu punaisella sohvalla iltapäivän auringossa.
Egy macska fotója, amint a délutáni napon egy piros kanapén alszik.
""".strip().splitlines()

CUSTOM = ["cat", "<sep>", "ti", "é", "a b", "  ", "photo of", "e\u0301", "猫", "▁x▁"]

SETTINGS = {
    "plain": {},
    "bytes": {"byte_fallback": True},
    "nfkc": {"normalization_rule_name": "nfkc"},
    "nfkc_cf": {"normalization_rule_name": "nfkc_cf"},
    "nmt_nfkc_cf": {"normalization_rule_name": "nmt_nfkc_cf", "byte_fallback": True},
    "identity": {"normalization_rule_name": "identity"},
    "symbols": {"user_defined_symbols": CUSTOM, "control_symbols": ["<ctl>"]},
    "no prefix": {"add_dummy_prefix": False},
    "suffix": {"treat_whitespace_as_suffix": True},
    "all spaces": {"remove_extra_whitespaces": False},
    "across words": {"split_by_whitespace": False, "remove_extra_whitespaces": False, "byte_fallback": True},
    "suffix, symbols": {
        "treat_whitespace_as_suffix": True,
        "remove_extra_whitespaces": False,
        "user_defined_symbols": ["cat ", " "],
    },
}
EVERY_SETTING = [(kind, setting) for kind in ("unigram", "bpe") for setting in SETTINGS]

ODD = list(
    "\0\x01\t\n\r\x0b\x0c\x1c\x1f \x85\xa0\u1680\u2000\u2003\u2009\u200b\u200c\u200d\u2028\u2029\u202f\u205f\u3000"
    "\u2060\ufeff▁\u0301\u0323\u0308\u0344\u0958\u0f73\u1100\u1161\u11a8각ﬁ½①Ａｱﾞ⁇ß\u0130İıſK\ufffd👨👩🇫🇷\ufe0f\ufdfa"
)


@functools.cache
def train(kind: str, setting: str = "plain") -> bytes:
    """A model file by sentencepiece's own trainer; kind is "unigram" or "bpe"."""
    names = [
        f"{unicodedata.name(chr(i)).lower()} {chr(i)}" for i in range(0x20, 0x30000, 37) if unicodedata.name(chr(i), "")
    ]
    options = {"vocab_size": 1900, "character_coverage": 0.98, "hard_vocab_limit": kind == "bpe", **SETTINGS[setting]}
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4 + names), model_writer=model, model_type=kind, minloglevel=2, **options
    )
    return model.getvalue()


@functools.cache
def words() -> list[str]:
    return [word for sentence in SENTENCES for word in sentence.split()]


def any_character(rng: random.Random) -> str:
    """Any code point that is no surrogate, the lower planes more often."""
    top = rng.choice([0x3000, 0x3000, 0x20000, 0x110000])
    while 0xD800 <= (point := rng.randrange(top)) < 0xE000:
        pass
    return chr(point)


def long_texts(rng: random.Random, count: int) -> list[str]:
    """Long words of few letters, of unknown characters, of flags and marks, and sentences without an end."""
    alphabets = [
        "a",
        "ab",
        "aeinst",
        "猫犬",
        "\u4dff\u4dfe",
        "\U0001f1e6",
        "e\u0301\u0327",
        "ab ",
        "1!",
        "cat photo of ",
    ]
    texts = []
    for _ in range(count):
        runs = [rng.choices(rng.choice(alphabets), k=rng.randrange(400)) for _ in range(rng.randrange(1, 5))]
        texts.append("".join(map("".join, runs)))
    return texts


def random_text(rng: random.Random) -> str:
    """Words, odd characters, repetitions (whose cuts tie), any character, things that look like special tokens."""
    parts = []
    for _ in range(rng.randrange(1, 9)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(words()))
        elif kind < 0.55:
            parts.append(rng.choice(ODD) * rng.choice([1, 1, 1, 2, 3]))
        elif kind < 0.75:
            parts.append("".join(rng.choice("aebcdti ") for _ in range(rng.randrange(8))))
        elif kind < 0.9:
            parts.append(any_character(rng))
        else:
            parts.append(rng.choice(["<sep>", "<s>", "</s>", "<unk>", "<ctl>", "<0x41>", "<mask>", *CUSTOM]))
        if rng.random() < 0.4:
            parts.append(rng.choice([" ", " ", " ", "  ", "▁"]))
    return "".join(parts)
