"""Words that say how to read the names of icons: which are of an interface, which of a thing nobody can see."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words of interfaces: a name with one of them is no thing, or a thing with a sign on it.
INTERFACE = _words("""
    accept access account action active add alert align analytics angle animation api app application archive arrange
    arrow ascending attach attachment auto axis back backward badge ban bar block blocked board bold border bottom brand
    break bring browser bubble button call cancel caret center chat check checkbox checked chevron circle clear click
    clip clipboard close code collapse command comment compare component connect contact content control copy corner
    currency cursor cut dash dashboard data database date default delete denied descending design diagram dialog disable
    disabled disconnect display divide document dot down download drag draw dropdown edit eject element email empty
    enable enter error exclamation exit expand export face favorite field file filter find flash flip folder font form
    format forward frame full function general graph grid group half handle height help hide history home horizontal
    icon id image import in inbox indent info information input insert interface invert invoice italic join key label
    layer layers layout left level like limit line link list loading lock locked log login logo logout loop loss low
    mail manage map mark marker maximize measure medium menu merge message minimize minus missing mode modify more move
    multiple mute network new next no node none note notification number off office ok on open option order out outdent
    outline output page panel paragraph password paste path pattern pause pending percent pin placeholder play plus
    point pointer policy position post prev previous privacy process profile progress prohibited project property public
    push question quote rate rating receive record redo refresh reject reload remove repeat replace reply report reset
    resize restore return reverse right rotate row save scale scan schedule screen script scroll search secure security
    select selection send server service set setting settings shape share show sign signal site size skip slash slide
    slider smart sms social sort source space split square stack status stop store strikethrough style subtract success
    support swap swipe symbol sync system tab tag target task template test text theme threshold thumbnail tick time
    title to toggle toolbar tooltip top transfer transform translate trash triangle type undo unlink unlock unlocked up
    update upgrade upload url user users vector verified vertical video view visibility visible volume warning web
    website widget width wifi wireframe with without workflow x zone zoom
""")

# Words that a dictionary has for a thing, and artists of icons for something else, or that have no look.
VAGUE = _words("""
    abdominal ace acid acoustic affiliate ai amazon ammo anatomy android anus apc aperture appointment aquarius aries
    arrival assembly assistant atm attraction automatic automation avatar b backspace backup bahai berlin beta binary
    blast blind bling blocks bootstrap bot braces brazil browsers brute cancer canvas capricorn cast catch cell champion
    champions character charm chart chats chinese circuit circuitry clone clout colors columns coma components
    conditioner connection consignment controller convenience copilot cos cpu crazy crop cruiser cubes dates delta
    democrat desktop detour developer device devices dock documents dragonhead drawing dribble drive dry dug duplicate
    edge editor elder electric electricity endocrine endotracheal energy engineering english entrance equal equals
    ethernet exchange fall favourite favourites female files filters flash folders fossil framer frameworks friend
    friends fry fuji gemini gizmo gluten goal gps grab gravitation gravity grip halal hardware hash heading headshot
    hologram hotspot icons induction inspiration internet japan java job joint justice knockout kosher labs lambda
    landing landscape lane launch lcd leak lego leo letter liar libra ligature light load local lodging love lovers
    mails male maps marquee mars master matrix maya maze mickey mistral module modules mound mp nasal natural nature
    nerd neutral nmr notches nutrition o oscillator overcast overdrive packaging pad pages panorama penis pi pisces
    pivot planner poker portal power prescription private processor prong pull pyromaniac python radial radiations
    radical remedy reminder repository reproduction republican resistance resonance rogue root round rows safety
    sagittarius scanner scorpio scribble section segment selector separator setup shaving shopping shrink sketch slack
    slashes slave slice sliders snatch sob sound spam sperm spill spline sport stock storage structure suicide swatches
    tabs tags taurus tec terminal terror testicles third thrust toggles token transit transparency transport tread union
    uv vagina variable vegan venus vignette vip virgo voucher wireless work xxx yahoo yield
""")

# What WordNet takes for something else than the pictures show: "bike" for a motorcycle.
APART = _words("porcupine bike imp vest")

# These are not several of the one.
PLURALS = _words("glasses sunglasses goggles scales clothes")

# Hypernyms that say nothing of a thing to someone who sees it.
ABSTRACT = _words("""
    artifact instrumentality object whole entity matter device unit structure equipment implement person organism part
    component covering commodity article creation facility natural_object area way thing substance system means
    conveyance worker instrument body_part placental bovid canine feline construction foodstuff solid liquid surface
    material consumer_goods representation container nutriment mechanism mechanical_device external_body_part organ
    adult leader creator entertainer contestant inhabitant unfortunate expert professional skilled_worker
""")
