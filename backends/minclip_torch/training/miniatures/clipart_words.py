"""The word lists by which clip art is named: written by hand, from looking at the drawings. Entries end with ";"."""

from __future__ import annotations


def _words(text: str) -> set[str]:
    return {" ".join(word.split()) for word in text.split(";")}


def _table(text: str) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in text.split(";"))
    return {" ".join(key.split()): " ".join(value.split()) for key, _, value in pairs}


# Folders and beginnings of files whose drawings are no things: interfaces, signs, maps, patterns.
DROPPED = tuple(
    sorted(
        _words(
            """
    buttons; computer/bb; computer/buttons; computer/diagrams; computer/icons; decorations; logos;
    recreation/games/cards; recreation/games/dice; shapes; signs_and_symbols/disability; signs_and_symbols/flags;
    signs_and_symbols/hazard; signs_and_symbols/led; signs_and_symbols/map_symbols/aiga; special;
    transportation/aiga-symbols; transportation/roadsigns; unsorted/duplicates
            """
        )
    )
)
# What a drawing in a folder is at least, where nothing else names it.
FOLDERS = _table(
    """
    animals/bugs = insect; animals/birds/penguin = penguin; animals/birds = bird; animals/fish = fish;
    animals/dinosaurs = dinosaur; animals/mammals/bears = bear; animals/mammals/big_cats = big cat;
    animals/mammals/dogs = dog; animals/mammals/horses = horse; animals/mammals/housecats = cat; buildings/homes =
    house; people/smilies = smiley face; people/stickmen = stick figure; people/clothing/hats = hat; plants/flowers
    = flower; plants/trees = tree; education/books = book; signs_and_symbols/clocks = clock; electronics/bulb =
    light bulb; food/fruit = fruit; office/telephone = telephone; food/desserts = dessert; food/vegetables =
    vegetable; geography/astronomy/0 = moon
    """
)
# What drawings show whose titles mislead or are missing, by the beginning of their places; nothing for no thing.
RENAMED = _table(
    """
    unsorted/scissors_R = hand; unsorted/rock_R = fist; computer/network_cloud = cloud; transportation/vehicles/shelby;
    computer/games/packman; people/self = face; food/breads_and_carbs/pan_cakes = pancakes; computer/hardware/desktop =
    computer; education/slate = blackboard; people/bodypart/3_faces = faces; signs_and_symbols/heart_tiles;
    recreation/holiday/valentines/heart_tiles; food/pan_cakes = pancakes; food/desserts/pan_cakes = pancakes;
    animals/2_dead = frogs; animals/baby-tux = penguin; animals/baby_tux = penguin; animals/birds/baby-tux =
    penguin; animals/birds/baby_tux = penguin; animals/birds/flamand = flamingo; animals/birds/manager = penguin;
    animals/birds/plush_tux = penguin; animals/birds/tux = penguin; animals/birds/wing = wing;
    animals/bugs/coccinelle = ladybug; animals/bugs/grass_hopper = grasshopper; animals/bugs/mante = praying mantis;
    animals/bugs/mostriciattolo = monster; animals/bugs/virus = ladybug; animals/fantasy/the_incredible_tux =
    penguin; animals/fish/amibe = amoeba; animals/fish/arctic = fish; animals/fish/bluewhale = blue whale;
    animals/fish/kallisti = apple; animals/mammals/bears/sleeping = bear; animals/mammals/bluewhale = blue whale;
    animals/mammals/dall_sheep = sheep; animals/mammals/emule = mule; animals/mammals/horses/dragon = dragon;
    animals/mammals/housecats/cat_scrathing = scratching post; animals/mammals/housecats/le_mie = tiger;
    animals/mammals/mhooo = cow; animals/mammals/porcinet = pig; animals/mammals/raccoon = raccoon;
    animals/mammals/seal = seal; animals/mammals/shaezy = sheep; animals/mammals/skoynk = rabbit;
    animals/mammals/squeek = pig; animals/mammals/stambecco = ibex; animals/mammals/vacca = cow; animals/seal =
    seal; animals/skoynk = rabbit; animals/tante_orme =; animals/tux_head = penguin head; buildings/firestation =
    fire station; buildings/furniture/mobile = cabinet; buildings/homes/home_piche = birdhouse; buildings/old_sign
    =; computer/bluepane =; computer/browser =; computer/cd_ = compact disc; computer/cpu = computer fan;
    computer/dimm = memory module; computer/etiquette_cd = compact disc; computer/folders/gnome = folder;
    computer/games =; computer/games/xbox = game controller; computer/gnu_linux =; computer/hardware/Computer-Key =
    computer keyboard; computer/hardware/gameboy = game boy; computer/hardware/gnome-dev = hard disk;
    computer/hardware/gnome-fs = computer; computer/hardware/joystick = joystick; computer/hardware/laser = printer;
    computer/hardware/lcd = monitor; computer/hardware/tower = computer tower; computer/hardware/usb = memory stick;
    computer/hardware/video1 = monitor; computer/jabbear =; computer/joystick = joystick; computer/memory = memory
    module; computer/pc_box = computer tower; computer/pda = handheld computer; computer/router_cisco = router;
    computer/switch =; containers/out_of = box; containers/paperbag = paper bag; education/books/diary = diary;
    education/books/newspaper = newspaper; education/erlenmeyer = flask; education/newspaper = newspaper;
    education/note = note; education/paper_ = sheet of paper; education/stamp = stamp; education/stapp = stapler;
    electronics/bobine = film reel; electronics/bulb = light bulb; electronics/casco = headset; electronics/cd =
    compact disc; electronics/macchina_foto = camera; food/beverages/icecube = ice cube; food/beverages/macchina =
    coffee maker; food/champignon = mushroom; food/fruit/gumnut = gumnut; food/fruit/pasteque = watermelon;
    food/fruit/tile = orange; food/fruit/tree = fruit tree; food/fruit/turkey = turkey platter; food/galette =
    pancake; food/meatgrinder = meat grinder; food/meats_and_eggs/fuoco = campfire; food/meats_and_eggs/hot_dog =
    hot dog; food/meats_and_eggs/turkey = roast turkey; food/mix = blender; food/perogies = pierogi; food/picnic =
    picnic; food/sugarbox = sugar bowl; food/thanksgiving = feast; food/toque =; food/vegetables/pannocchia = corn;
    food/vegetables/what_s_up = carrot; food/what_s = carrot; geography/astronomy/eclipse = eclipse;
    geography/astronomy/jupiter = planet; geography/astronomy/mars = planet; geography/astronomy/saturn = saturn;
    geography/calebasse = gourd; geography/eclipse = eclipse; geography/mount = mountain; geography/pseudo = globe;
    office/box_with_folders = folders; office/cross = cross; office/handshake = handshake; office/magnif =
    magnifying glass; office/mars_lumo = pencil; office/note_with = note; office/paper = sheet of paper;
    office/paper_ = sheet of paper; office/paperclip = paperclip; office/papers = papers; office/parchment =
    parchment; office/pen_pencil = pencil; office/pennello = paintbrush; office/picture_frame = picture frame;
    office/postage = postage stamp; office/stamp_ = postage stamp; office/stapp = stapler; office/telephone/ip_phone
    = telephone; office/telephone/mobile = mobile phone; office/telephone/phone_handset = telephone handset;
    office/telephone/telephone_ = telephone; people/al_bar = man at bar; people/backpacker = backpacker; people/base
    =; people/beach_trip = beach; people/blacksmit = blacksmith; people/bodypart/eyes = eyes; people/bodypart/hands
    = hands; people/bodypart/reminder = hand; people/bodypart/thumb = thumbs up; people/breakdance = breakdancer;
    people/car_ride = man driving car; people/card_figure_ja = jack; people/card_figure_jo = jester;
    people/card_figure_k = king; people/card_figure_q = queen; people/clothing/propeller = propeller hat;
    people/einstein = man; people/enthusiast = man; people/eyes = eyes; people/golf = golfer; people/grampa = old
    couple; people/handshake = handshake; people/handstand = handstand; people/hide_girl = woman; people/io_ =;
    people/john_col = saxophonist; people/lady = woman; people/man_crystal = man; people/martin = man; people/maya =
    head; people/pattinatrici = ice skaters; people/people = people; people/ppl = people; people/pregnancy =
    pregnant woman; people/roller = roller skater; people/saxowoman = saxophonist; people/silhouette_female = woman;
    people/silhouette_male = man; people/smilies/base =; people/smilies/chav = smiley face; people/stylized_yoga =
    yoga pose; people/sub_ = scuba diver; people/water_fight = water fight; people/water_sk = water skier;
    people/woman_eye = woman's eyes; plants/champignon = mushroom; plants/christmas_balls = christmas balls;
    plants/flowers/flowerandpot = flowerpot; plants/flowers/lotas = lotus flower; plants/flowers/sakura = cherry
    blossom; plants/flowers/sun_flower = sunflower; plants/human =; plants/island = palm tree; plants/palmtree =
    palm tree; plants/trees/bowsaw = bow saw; plants/trees/bypass = pruner; plants/trees/bypasslopper = loppers;
    plants/trees/christmas_balls = christmas balls; plants/trees/evergreen/christmas_balls = christmas balls;
    recreation/games/8 = billiard ball; recreation/games/9 = billiard balls; recreation/games/card =;
    recreation/games/chess/black_and_white_bishop = chess bishops; recreation/games/chess/black_and_white_king =
    chess kings; recreation/games/chess/black_and_white_pawn = chess pawns;
    recreation/games/chess/black_and_white_queen = chess queens; recreation/games/chess_game = chess board;
    recreation/games/hacker =; recreation/games/tamerlane =; recreation/games/yet = chess board; recreation/hacker
    =; recreation/holiday/christmas/father = santa claus; recreation/holiday/footprints = footprints;
    recreation/holiday/sportcar = sports car; recreation/holiday/sunshine = sun;
    recreation/holiday/thanksgiving/turkey = roast turkey; recreation/holiday/yellow-scroll = scroll;
    recreation/knitting = knitting; recreation/music/bass_clef = bass clef; recreation/music/boombox = boombox;
    recreation/music/derbouk = drum; recreation/music/djamb = drum; recreation/music/double_note = musical notes;
    recreation/music/funny = musical note; recreation/music/piano_theory = piano keys; recreation/music/quaver =
    musical note; recreation/music/sixteenth = musical notes; recreation/music/tpt = trumpet;
    recreation/music/treble = sheet music; recreation/music/trumpet = trumpet; recreation/party/balloon- = balloon;
    recreation/party/baloon = balloon; recreation/party/couronne = crown; recreation/party/yellow-scroll = scroll;
    recreation/religion/simple_cross = cross; recreation/rollerblades = roller skate; recreation/sports/8ball =
    billiard ball; recreation/sports/base = baseball; recreation/sports/baseball_b = baseball bat;
    recreation/sports/baseball_bw = baseball; recreation/sports/baseball_glove = baseball glove;
    recreation/sports/blowling = bowling ball; recreation/sports/cricket = cricket bat; recreation/sports/cronometro
    = stopwatch; recreation/sports/football_pitch = football field; recreation/sports/judo = judo;
    recreation/sports/karate = karate kick; recreation/sports/rugby = rugby player; recreation/sports/soccer_ballon
    = soccer ball; recreation/sports/table = table tennis; recreation/sports/ticket = ticket;
    recreation/sports/volleball = net; recreation/sports/volley = volleyball; recreation/televisore = television;
    recreation/toys/domo = monster; recreation/toys/rubik = puzzle cube; recreation/toys/teddybear = teddy bear;
    science/astronomy/jupiter = planet; science/astronomy/saturn = saturn; science/astronomy/venus = planet;
    science/evolution = evolution of man; science/medicine/barattolo = pill bottle; science/scale = scale;
    signs_and_symbols/bass_clef = bass clef; signs_and_symbols/bus =; signs_and_symbols/bus_lane =;
    signs_and_symbols/card =; signs_and_symbols/chodo =; signs_and_symbols/crossbones = crossbones;
    signs_and_symbols/elder =; signs_and_symbols/flame_ = flame; signs_and_symbols/half_star =;
    signs_and_symbols/hydrant =; signs_and_symbols/keep =; signs_and_symbols/money/diamond = diamond;
    signs_and_symbols/money/gold_coins = stack of coins; signs_and_symbols/money/penny = coin;
    signs_and_symbols/money/piggybank = piggy bank; signs_and_symbols/money/saphire = gemstone;
    signs_and_symbols/nfpa =; signs_and_symbols/one_star = star; signs_and_symbols/radio = radio tower;
    signs_and_symbols/thumb = thumbs up; signs_and_symbols/two_star = stars; signs_and_symbols/wc =;
    signs_and_symbols/weather/cloudy = cloud; signs_and_symbols/weather/drop = drop;
    signs_and_symbols/weather/icicles = icicles; signs_and_symbols/weather/rain = rain cloud;
    signs_and_symbols/weather/snow = snowflake; signs_and_symbols/weather/sole = sun;
    signs_and_symbols/weather/storm = storm cloud; tools/blacksmith_anvil = anvil; tools/brush_roller = paint
    roller; tools/bypasslopper = loppers; tools/hedge = hedge shears; tools/insecticide = spray can; tools/keyring =
    key ring; tools/mag = magnifying glass; tools/natural_gas = gas pump; tools/roundpoint = shovel; tools/scart =;
    tools/scolapasta = cooking pot; tools/smoke = smoke; tools/tools = tools; tools/toothbrush = toothbrush;
    tools/unit_blocks = building blocks; tools/utensili = wrench; tools/vavuum = vacuum cleaner; tools/weapons/ak47
    = rifle; tools/weapons/fat_man = atomic bomb; tools/weapons/katana = sword; tools/weapons/little_boy = atomic
    bomb; tools/weapons/longsword = sword; tools/weapons/m16 = rifle; tools/weapons/ninjastar = throwing star;
    tools/wrench = wrench; transportation/ambulans = ambulance; transportation/blazer = car; transportation/bmw =
    car; transportation/boating/sailing =; transportation/boating/sailing_sunset = sailboats;
    transportation/bus_symbol = bus; transportation/cycle =; transportation/departing = airplane;
    transportation/dodge = pink car; transportation/pallone = hot air balloon; transportation/quay =;
    transportation/shelby =; transportation/skoda = car; transportation/street_sign = street sign;
    transportation/toyota = jeep; transportation/vehicles/1989 = car; transportation/vehicles/chev = car;
    transportation/vehicles/cycle =; transportation/vehicles/departing = airplane; transportation/vehicles/hummers =
    hummer; transportation/vehicles/plane_sil = airplane; transportation/vehicles/quay =; unsorted/asse = ironing
    board; unsorted/blocco_notes = notepad; unsorted/generic_ticket = ticket; unsorted/ghirlande = garland;
    unsorted/guanti = gloves; unsorted/landscape = river; unsorted/marchio = rooster; unsorted/orme =;
    unsorted/profilo =; unsorted/recz = towel; unsorted/rilievo =; unsorted/roman = bust; unsorted/signorina = young
    woman; unsorted/simbol =; unsorted/tenda = tent; unsorted/van_gogh = sunflower; unsorted/what_have =
    """
)
# Things that the list of nouns does not count as such, or does not have.
MORE = _words(
    """
    burrito; cell phone; cherries; children; christmas tree; cloud; couple; cupcake; dice; dinosaur; dna; double
    helix; feet; fire; floppy; french fries; gift; globe; gps; handcuffs; heart; hot air balloon; hot dog; house;
    ice cream; jack-o-lantern; joypad; laptop; lcd monitor; lemonade; light bulb; lightning; mobile phone; music
    note; musical note; people; pills; planes; planet; rain; rainbow; santa claus; skull and bones; skyline;
    smartphone; smiley; snow; snowflake; snowman; spaceship; star; steak; stick man; sunset; teddy bear; traffic
    light; treble clef; tv; ufo; usb stick; volcano; webcam; windmill
    """
)
# Words that name no thing in this collection, though the list of nouns has them as things.
NEVER = _words(
    """
    psycho; pavement; glossy; spaghetti monster; farmer; bloom; straw tote; a; advertising; aj; al; alcalde; am;
    animal; ar; arctic; arrow; art; as; b; back; background; banner; beige; beverage; black; blue; boat knot; body;
    body part; bodypart; border; bottom; box set; building; button; bw; c; callout; cartes; cartoon; cartouche;
    character; charge; chart; circle; cisco; city; client; clip; clipart; clothing; coastline; collection; color;
    coloring; colour; come; computer; container; continent; contour; copy; corner; country; creation; crest; cross;
    danger; day; design; diagram; direction; divider; don; douche; drawing; eau; elder; electronics; element;
    emblem; entrance; equipment; europe; evergreen tree; exit; fan art; female; fen; figure; firewall; flag; flat;
    flourish; flowchart; font; food; form; frame; front; furniture; ga; gates; gateway; general; gnu; graph; gray;
    green; grid; gum; ha; half; hand drawn; hand print; hardware; hash; hash browns; have; history; hole; holiday;
    home; hub; human; i; icon; ii; illustration; image; in; insect animal; interdiction; io; island; issue; iv;
    jewelry; jigsaw; john; kanji; la; label; landscape; leaves; left; letter; li; line; location; logo; mac; male;
    mammal; man made; map; martin; menu; mo; music; mute; no; notice; number; object; obligation; office; one;
    orange color; ornament; outline; pa; page; part; party; pattern; person; pi; picture; piece; plant; point; pole;
    portrait; protection; protein; quick; r; recreation; red; region; religion; right; risque; s; scroll; seal; seal
    of approval; series; set; shape; side; sign; silhouette; sketch; sort; sortie; square; stack; state; stock;
    stop; straight; street; structure; studio; sub; switch; symbol; t; template; text; theme; thing; three; tool;
    top; town; toy; transport; transportation; triangle; two; type; unit; user; v; vehicle; vet; view; w; warning;
    weapon; white; windows; wire; work; world; x; yellow; zone
    """
)
# Words left out of a name: they say how a thing is drawn, or which of a series it is.
FILLERS = _words(
    """
    2d; 3d; a; aj; an; another; art; b; back; beige; big; black; bn; bw; cartoon; clip; clipart; color; colored;
    colour; coloured; contour; drawing; drawn; elaborate; elements; etiquette; flat; form; front; funny; g; ganson;
    generic; gray; half; icon; icons; illustration; image; landscape; large; left; map; mo; my; new; nice;
    openclipart; outline; picture; plain; plus; portrait; r; remix; right; rpg; rpswb; shaded; sibmission; silhouet;
    silhouette; silouette; simpl; simple; sketch; small; some; straight; style; stylized; submission; svg; symbol;
    symbols; t; the; v; various; version; w; white; x
    """
)
# "stack of books" is named so; "turkey on platter" is a turkey.
PARTS = _words(
    """
    bag; basket; bottle; bouquet; bowl; box; bunch; can; carton; cup; ear; glass; jar; loaf; mug; pair; piece; pile;
    plate; pot; roll; slice; stack
    """
)
JOINTS = _words("of; on; in; with; from; for; at; by; and; without; to")
COLOURS = _words("red; green; blue; yellow")
# Italian, French and Spanish, which some artists write. Looked up before English.
FOREIGN = _table(
    """
    tux = penguin; vino = wine; cuppa = cup of tea;
    acquila = eagle; aquila = eagle; cigno = swan; cigni = swans; gabbiano = seagull; gallo = rooster; gufo = owl;
    pollo = chicken; tacchino = turkey; uccello = bird; cavalletta = grasshopper; coccinella = ladybug; coccinellona
    = ladybug; farfalla = butterfly; farfalle = butterflies; formichina = ant; formicona = ant; insetto = insect;
    libellula = dragonfly; libellule = dragonfly; lumaca = snail; mantide = praying mantis; moschito = mosquito;
    mostriciattolo = monster; ragnetto = spider; ragno = spider; zanzara = mosquito; dino = dinosaur; dinosauri =
    dinosaurs; dinosauro = dinosaur; lucchetto = padlock; lucertola = lizard; lucertolona = lizard; abeille = bee;
    lucertolone = lizard; antilope = antelope; orso = bear; leone = lion; tigre = tiger; toro = bull; canguro =
    kangaroo; coniglio = rabbit; elefante = elephant; elefantone = elephant; cavallo = horse; gattina = cat; gatto =
    cat; gatti = cats; pecora = sheep; pecorella = sheep; topo = mouse; pinguino = penguin; ramarro = lizard; rana =
    frog; sedia = chair; tavolo = table; cesto = basket; poltrona = armchair; casa = house; stampante = printer;
    borsa = bag; borsetta = handbag; valigie = suitcases; cinepresa = movie camera; telecamera = video camera;
    lattine = cans; torta = cake; tazza = cup; teiera = teapot; prugna = plum; pera = pear; pesca = peach; pomodori
    = tomatoes; aglio = garlic; ravanello = radish; zucca = pumpkin; calcolatrice = calculator; cassa = cash
    register; cestino = wastebasket; clessidra = hourglass; fabbrica = factory; lettera = letter; pinzatrice =
    stapler; puntine = thumbtacks; telefono = telephone; dente = tooth; camicia = shirt; pattino = ice skate; donna
    = woman; fata = fairy; bambina = girl; nonno = grandfather; pattinatrice = ice skater; signore = man; signorina
    = young woman; albero = tree; mazzo = bouquet; pacco = gift; palloncini = balloons; siringa = syringe;
    microscopio = microscope; portafoglio = wallet; fiori = flowers; binocolo = binoculars; bussola = compass;
    calamita = magnet; chiave = key; ferro = clothes iron; lente = magnifying glass; livella = spirit level; mattone
    = brick; ruota = gear wheel; secchio = bucket; sega = saw; viti = screws; bicicletta = bicycle; trattore =
    tractor; anatra = duck; colombo = dove; condominio = apartment building; cornetto = ice cream cone; montacarichi
    = forklift; papera = duck; uovo = egg; ambulanza = ambulance; ape = bee; betoniera = cement mixer; biberon =
    baby bottle; calzettoni = socks; cammello = camel; candela = candle; carpentiere = carpenter; carretta =
    wheelbarrow; ciuccio = pacifier; corridore = runner; fattoria = farm; fiocco = bow; foglie = leaves; fiore =
    flower; grattacieli = skyscrapers; grondaia = gutter; imbianchino = house painter; lampada = lamp; motosega =
    chainsaw; mucca = cow; mucche = cows; pescetto = fish; principessa = princess; proiettore = projector; provetta
    = test tube; provette = test tubes; ragazza = girl; ragazzo = boy; rosa = rose; scala = ladder; scatolone =
    cardboard box; scodella = bowl; serratura = lock; spaventapasseri = scarecrow; stetoscopio = stethoscope;
    agnellini = lambs; struzzo = ostrich; tavolozza = palette; tramezzino = sandwich; vestito = dress; zaino =
    backpack; traslocatore = mover; pennuto = bird; profilo = skyline; sapone = soap; orologio = clock; teschio =
    skull; metro = tape measure; sacco = sleeping bag; libro = book; nuage = cloud; soleil = sun; lune = moon;
    gateau = cake; pansement = bandage; glace = ice cream; poisson = fish; chat = cat; chien = dog; arbre = tree;
    disquete = floppy disk; croche = musical note; noire = musical note; blanche = musical note; cle = key; fraise =
    strawberry; poire = pear; pomme = apple; orage = storm cloud; pluie = rain cloud; etoile = star; dado = die;
    candado = padlock; bombilla = light bulb; barco = boat; pez = fish; perro = dog
    """
)
