"""A folder laid out like the hub, with invented rows for every task: the field names and types of the real datasets, and rows at the edge."""
import csv
import json
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from croissant.params import root

LETTERS = "ABCD"


def _files(folder, name, splits, config="default", kind="jsonl"):
    "One configuration of a dataset, a file a split; returns its lines of the README's front matter."
    inside = "data" if config == "default" else config
    (folder/name/inside).mkdir(parents=True, exist_ok=True)
    lines = [f"- config_name: {config}", "  data_files:"]
    for split, rows in splits.items():
        path = folder/name/inside/f"{split}-00000-of-00001.{kind}"
        if kind == "parquet": pq.write_table(pa.Table.from_pylist(rows), path)
        else: path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
        lines += [f"  - split: {split}", f"    path: {inside}/{split}-*"]
    return lines


def _dataset(folder, name, configs, kind="jsonl"):
    "A dataset with its README."
    lines = [line for config, splits in configs.items() for line in _files(folder, name, splits, config, kind)]
    (folder/name/"README.md").write_text("\n".join(["---", "configs:", *lines, "---", "", "Invented rows with the fields of the real dataset, for tests.", ""]), encoding="utf-8")


def _gaps():
    "Grammar, vocabulary, reading: four answers, a marker where they go."
    def row(i, subject, question, answers, answer, context=""):
        return {"question": question, "answer": answer, "context": context, "difficulty": "B1", "language": "fr", "subject": subject, "url": "", **{f"answer{x}": a for x, a in zip(LETTERS, answers)}, "__index_level_0__": i}
    grammar = [
        ("Les enfants <...> dans le jardin.", ("joue", "jouent", "jouons", "jouez"), "B"), ("Nous <...> hier à la plage.", ("sommes allés", "avons allé", "allons", "irons"), "A"),
        ("Il faut que tu <...> tes devoirs.", ("fais", "feras", "fasses", "ferais"), "C"), ("La lettre que j'ai <...> est arrivée.", ("écrit", "écris", "écrits", "écrite"), "D"),
        ("Si j'avais su, je ne <...> pas venu.", ("serais", "suis", "serai", "étais"), "A"), ("C'est la fille <...> je t'ai parlé.", ("que", "dont", "qui", "où"), "B"),
        ("Elle s'est <...> les mains avant le dîner.", ("lavée", "lavés", "lavé", "laver"), "C"), ("Les <...> de la région sont réputés.", ("fromage", "fromages", "fromagent", "fromagés"), "B"),
        ("Choisissez le pluriel du mot cheval :", ("chevals", "chevaux", "cheveux", "chevales"), "B"),   # no marker
        ("Les enfants <...> dans le jardin.", ("joue", "jouent", "jouons", "jouez"), "B")]               # the first again
    vocabulary = [
        ("Le boulanger vend du <...>.", ("pain", "plomb", "vent", "cuir"), "A"), ("On coupe la viande avec un <...>.", ("verre", "couteau", "nuage", "livre"), "B"),
        ("Il pleut : prends ton <...> !", ("piano", "fauteuil", "parapluie", "tiroir"), "C"), ("L'été, il fait souvent <...>.", ("lourdement", "froid", "triste", "chaud"), "D"),
        ("Le médecin <...> ses malades.", ("soigne", "cuisine", "plante", "imprime"), "A"), ("Elle lit un <...> passionnant.", ("évier", "roman", "clou", "trottoir"), "B"),
        ("Les abeilles font du <...>.", ("beurre", "sel", "miel", "papier"), "C"), ("Le train arrive en <...>.", ("forêt", "cave", "soupe", "gare"), "D"),
        ("Garçon, l'addition s'il vous <...> !", ("plaît", "mange", "court", "neige"), "A")]
    passage = "La boulangerie de la rue Haute ouvre à six heures. Le dimanche, elle ferme à midi ; les « croissants au beurre » partent les premiers."
    other = "Chaque automne, les hirondelles quittent l'Europe. Elles traversent la Méditerranée, puis le Sahara, et passent l'hiver en Afrique."
    reading = [
        ("Le dimanche, la boulangerie ferme à <...>.", ("six heures", "midi", "dix-neuf heures", "minuit"), "B", passage), ("Qu'est-ce qui se vend le plus vite ?", ("Les croissants.", "Le pain noir.", "Les tartes.", "Le thé."), "A", passage),
        ("La boulangerie se trouve rue <...>.", ("Basse", "Neuve", "Haute", "du Port"), "C", passage), ("Elle ouvre à <...>.", ("midi", "neuf heures", "huit heures", "six heures"), "D", passage),
        ("Où les hirondelles passent-elles l'hiver ?", ("En Afrique.", "En Asie.", "Dans les Alpes.", "En Norvège."), "A", other), ("Elles partent en <...>.", ("été", "automne", "hiver", "mai"), "B", other),
        ("Elles traversent d'abord la <...>.", ("Manche", "Baltique", "Méditerranée", "Loire"), "C", other), ("Quel désert traversent-elles ?", ("Le Gobi.", "Le Kalahari.", "L'Atacama.", "Le Sahara."), "D", other)]
    return {"Grammar": [row(i, "grammar", *g) for i, g in enumerate(grammar)], "Vocabulary": [row(i, "vocabulary", *v) for i, v in enumerate(vocabulary)], "Reading": [row(i, "reading", *r) for i, r in enumerate(reading)]}


def _endings(rows, kind):
    return [{"ind": i, "activity_label": a, "ctx_a": x, "ctx_b": y, "ctx": f"{x} {y}", "endings": list(e), "source_id": f"invented~{i}", "split": kind, "split_type": "indomain", "label": str(g)} for i, (a, x, y, e, g) in enumerate(rows)]


HELLASWAG_FR = [
    ("Cuisine", "Un homme coupe une pomme.", "il", ("la mange en souriant.", "conduit un camion.", "nage vers l'île.", "repeint le plafond."), 0),
    ("Sport", "Une femme enfile ses chaussures.", "Elle", ("dort sur le toit.", "part courir au parc.", "fait bouillir la mer.", "avale un tapis."), 1),
    ("Comment tailler un rosier", "[header] Choisir le moment [title] Attendez la fin de l'hiver. [step] Les gelées doivent être passées.", "", ("[substeps] Coupez le soir des fêtes.", "Arrosez la lune.", "Prenez un sécateur propre. [title] Coupez en biais.", "Vendez la maison."), 2),
    ("Musique", "Le pianiste s'assied.", "PUIS IL", ("mange le clavier.", "vole au-dessus du public.", "gèle la salle.", "joue les premières mesures."), 3),
    ("Ménage", "Elle remplit un seau  d'eau savonneuse.", "ensuite, elle", ("lave le sol.", "boit le seau.", "plante un chêne.", "vend l'océan."), 0),
    ("Jardinage", "L'enfant pose une graine dans la terre.", "il", ("éteint le soleil.", "l'arrose un peu.", "parle à la lune.", "lit le journal au ver."), 1),
    ("Vélo", "La roue avant est à plat.", "le cycliste", ("pleut.", "devient un lac.", "regonfle le pneu.", "fond."), 2),
    ("Cuisine", "Un homme coupe une pomme.", "il", ("la mange en souriant.", "conduit un camion.", "nage vers l'île.", "repeint le plafond."), 0),
    ("Cuisine", "Un homme coupe une pomme.", "il", ("la mange en souriant.", "conduit un camion.", "nage vers l'île.", "repeint le plafond."), 0)]
HELLASWAG_EN = [
    ("Cooking", "A man slices an apple.", "he", ("eats it with a smile.", "drives a truck.", "swims to the island.", "paints the ceiling."), 0),
    ("Running", "A woman ties her shoes.", "She", ("sleeps on the roof.", "sets off for a run.", "boils the sea.", "swallows a rug."), 1),
    ("How to prune a rose", "[header] Choosing the time [title] Wait until winter ends. [step] The frosts must be over.", "", ("[substeps] Cut at night.", "Water the moon.", "Take clean shears. [title] Cut at an angle.", "Sell the house."), 2),
    ("Music", "The pianist sits down.", "THEN HE", ("eats the keys.", "flies over the crowd.", "freezes the hall.", "plays the first bars."), 3),
    ("Cleaning", "She fills a bucket with  soapy water.", "next, she", ("mops the floor.", "drinks the bucket.", "plants an oak.", "sells the ocean."), 0),
    ("Gardening", "The child lays a seed in the soil.", "he", ("switches off the sun.", "waters it a little.", "talks to the moon.", "reads to the worm."), 1),
    ("Cycling", "The front tyre is flat.", "the rider", ("rains.", "becomes a lake.", "pumps it up.", "melts."), 2),
    ("Tea", "The kettle whistles.", "someone", ("turns to stone.", "sings to the lid.", "opens the wall.", "pours the water."), 3)]

SCIENCE_FR = [
    ("Quelle planète est la plus proche du Soleil ?", ("Vénus", "Mercure", "Mars", "Neptune"), "B"), ("Quel gaz les plantes absorbent-elles ?", ("le dioxyde de carbone", "l'hélium", "le néon", "l'argon"), "A"),
    ("De quoi un électron est-il chargé ?", ("de rien", "positivement", "négativement", "de sucre"), "C"), ("Où naît la pluie ?", ("dans le sol", "dans les racines", "dans les roches", "dans les nuages"), "D"),
    ("Quel organe pompe le sang ?", ("le cœur", "le foie", "la peau", "l'œil"), "A"), ("À quelle température l'eau pure gèle-t-elle ?", ("100 °C", "0 °C", "37 °C", "−40 °C"), "B"),
    ("Qu'est-ce qui attire le fer ?", ("le bois", "le verre", "un aimant", "la laine"), "C"), ("Que mesure un baromètre ?", ("la masse", "le temps écoulé", "la couleur", "la pression de l'air"), "D")]
SCIENCE_EN = [
    ("Which planet is closest to the Sun?", ("Venus", "Mercury", "Mars", "Neptune"), 1), ("Which gas do plants take in?", ("carbon dioxide", "helium", "neon", "argon"), 0), ("What charge has an electron?", ("none", "positive", "negative", "sweet"), 2),
    ("Where does rain form?", ("in soil", "in roots", "in rocks", "in clouds"), 3), ("Which organ pumps blood?", ("the heart", "the liver", "the skin"), 0), ("At what temperature does pure water freeze?", ("100 °C", "0 °C", "37 °C", "−40 °C"), 1),
    ("What attracts iron?", ("wood", "glass", "a magnet", "wool"), 2), ("What does a barometer measure?", ("mass", "time", "colour", "air pressure"), 3)]


def _arc_fr(shift):
    return [{"question": q, "choices": list(c), "answerKey": a, "id": f"Invented_{i}"} for i, (q, c, a) in enumerate(SCIENCE_FR[shift:] + SCIENCE_FR[:shift])]


def _arc_en(shift):
    def row(i, q, c, g):
        labels = list("1234" if i % 3 == 2 else "ABCD")[:len(c)]   # some of the real questions count with figures
        return {"id": f"Invented_{i}", "question": q, "choices": {"text": list(c), "label": labels}, "answerKey": labels[g]}
    return [row(i, *s) for i, s in enumerate(SCIENCE_EN[shift:] + SCIENCE_EN[:shift])]


YES_NO = [
    ("Le musée est-il ouvert le lundi ?", "Le musée ouvre du mardi au dimanche, de dix heures à dix-huit heures.", 0), ("La tour a-t-elle été achevée en 1889 ?", "Les travaux de la tour durèrent deux ans et s'achevèrent en mars 1889.", 1),
    ("Faut-il un passeport ?", "Une carte d'identité suffit pour entrer dans le pays.", 0), ("Le pont est-il interdit aux camions ?", "Seuls les véhicules de moins de trois tonnes et demie passent le pont.", 1),
    ("L'œuvre est-elle anonyme ?", "Le tableau porte la signature du maître, datée de 1652.", 0), ("La forêt couvre-t-elle la vallée ?", "De la rivière aux crêtes, la hêtraie couvre toute la vallée.", 1),
    ("Peut-on payer par chèque ?", "Le magasin n'accepte que les espèces et la carte.", 0), ("Le cidre contient-il de l'alcool ?", "Fermenté, le jus de pomme devient un cidre à trois degrés.", 1)]
YES_NO_EN = [
    ("is the museum open on monday", "The museum opens from Tuesday to Sunday.", 0), ("was the tower finished in 1889", "Work on the tower ended in March 1889.", 1), ("do you need a passport", "An identity card is enough to enter the country.", 0),
    ("are trucks banned from the bridge", "Only vehicles under three and a half tonnes may cross.", 1), ("is the painting anonymous", "The painting bears the master's signature.", 0), ("does the forest cover the valley", "Beech covers the whole valley.", 1),
    ("can you pay by cheque", "The shop takes cash and cards only.", 0), ("does cider contain alcohol", "Once fermented, apple juice becomes cider of three degrees.", 1)]

NLI = [
    ("Le chat dort sur le canapé.", "Un animal se repose.", 0), ("Le chat dort sur le canapé.", "Le chat est noir.", 1), ("Le chat dort sur le canapé.", "Le chat court dans la rue.", 2), ("Il pleut sur Brest.", "Le sol est mouillé.", 0),
    ("Elle a acheté deux baguettes.", "Elle aime le fromage.", 1), ("L'hôtel était complet.", "Il restait des chambres.", 2), ("Nous avons dîné à l'extérieur.", "Nous avons mangé.", 0), ("Le théâtre ferme à vingt-deux heures.", "La pièce était drôle.", 1)]
REVIEWS = [
    ("Accueil chaleureux mais chambre bruyante.", "accueil", "positif"), ("Accueil chaleureux mais chambre bruyante.", "chambre", "negatif"), ("Le repas était correct, sans plus.", "repas", "neutre"), ("Personnel « aux petits soins », merci !", "personnel", "positif"),
    ("L'attente fut interminable.", "attente", "negatif"), ("La piscine existe.", "piscine", "neutre"), ("Quel petit-déjeuner délicieux !", "petit-déjeuner", "positif"), ("Wi-Fi introuvable dès le soir.", "wi-fi", "negatif")]

PASSAGES = [
    ("Paris", "Paris est la capitale de la France depuis le Moyen Âge.", "Qui gouverne Lyon ?", ()),   # nobody can answer: first, on purpose
    ("Paris", "Paris est la capitale de la France depuis le Moyen Âge.", "Quelle est la capitale de la France ?", ("Paris",)), ("Marie Curie", "Marie Curie reçut le prix Nobel de physique en 1903, puis celui de chimie en 1911.", "En quelle année reçut-elle le prix de chimie ?", ("1911", "en 1911")),
    ("Marie Curie", "Marie Curie reçut le prix Nobel de physique en 1903, puis celui de chimie en 1911.", "Quel âge avait son père ?", ()), ("Le comté", "Le comté mûrit au moins quatre mois dans une cave fraîche.", "Combien de temps le comté mûrit-il ?", ("au moins quatre mois", "quatre mois")),
    ("L'été", "L'été, les marais salants de Guérande donnent la « fleur de sel ».", "Que donnent les marais salants ?", ("la « fleur de sel »",)), ("Les États", "Les États-Unis comptent cinquante États.", "Combien d'États comptent les États-Unis ?", ("cinquante",)),
    ("Le phare", "Le phare d'Eckmühl s'élève à soixante-cinq mètres.", "Qui a peint le phare ?", ()), ("Le phare", "Le phare d'Eckmühl s'élève à soixante-cinq mètres.", "À quelle hauteur s'élève le phare ?", ("soixante-cinq mètres",)),
    ("Le pain", "On pétrit la pâte, puis on la laisse lever deux heures.", "Combien de temps la pâte lève-t-elle ?", ("deux heures",)),
    ("La marée", "La marée monte deux fois par jour sous l'effet de la Lune.", "Qu'est-ce qui fait monter la marée ?", ("la Lune", "l'effet de la Lune"))]


def _squad(rows):
    return [{"title": t, "context": c, "question": q, "answers": {"answers_start": [c.find(a) for a in answers], "text": list(answers)}, "is_impossible": not answers} for t, c, q, answers in rows]


NEWS = [
    ("La mairie a voté hier la rénovation du vieux marché couvert, fermé depuis l'incendie de mars.", "Le marché couvert sera rénové."), ("Un ours des Pyrénées a été aperçu près d'un village de l'Ariège par des randonneurs.", "Un ours aperçu en Ariège."),
    ("Les vendanges commencent avec deux semaines d'avance en raison de la chaleur de l'été.", "Des vendanges précoces."), ("Le tribunal a rendu sa décision : l'usine devra dépolluer le terrain d'ici à deux ans.", "L'usine devra dépolluer."),
    ("La grève des trains prend fin ; le trafic redeviendra normal dimanche soir.", "Fin de la grève des trains."), ("Une comète sera visible à l'œil nu jusqu'à la fin du mois.", "Une comète dans le ciel."),
    ("Le musée des Beaux-Arts expose pour la première fois ses dessins d'enfants.", "Des dessins d'enfants au musée."), ("Le prix du beurre atteint un record ; les boulangers s'inquiètent pour leurs croissants.", "Le beurre au plus haut.")]
TRIVIA = [
    ("Who built the palace of Versailles?", "Louis XIV"), ("In which year did the French Revolution begin?", "1789"), ("Which river flows through Paris?", "La Seine"), ("Which cheese is made in Normandy?", "Camembert"), ("Who wrote 'Les Misérables'?", "Victor Hugo"),
    ("What is the highest mountain of France?", "Mont Blanc"), ("Which city is known for its 'bouchons'?", "Lyon"), ("What does 'L'été' mean?", "Summer")]
PAIRS = [
    ("The bread is ready.", "Le pain est prêt."), ("The dough rises slowly.", "La pâte lève lentement."), ("Do not touch the oven!", "Ne touchez pas au four !"), ("We close at seven o'clock.", "Nous fermons à dix-neuf heures."),
    ("Summer was too dry.", "L'été a été trop sec."), ("She wrote the letter yesterday.", "Elle a écrit la lettre hier."), ("Where is the station?", "Où est la gare ?"), ("I would have liked to come.", "J'aurais aimé venir.")]
WIKI = [
    "Le château , construit au XIIe siècle , domine la vallée . \n Il compte 1 @,@ 200 fenêtres .", "= = Géographie = = \n", "", "L ' altitude atteint 2 @.@ 5 km ; l ' air y est vif !", "Un compromis franco @-@ allemand ( signé en 1963 ) fut trouvé .",
    "Il dit : \" Viens ici ! \" puis s ' en alla .", "La température descend à − 5 ° C .", "Qui a écrit ce livre ? Nul ne le sait ."]


def _belebele(english):
    fr = [("La marée monte deux fois par jour.", "Combien de fois la marée monte-t-elle par jour ? ", ("Une", "Deux", "Trois", "Quatre"), 2), ("La marée monte deux fois par jour.", "Qu'est-ce qui monte ?", ("La marée", "Le prix", "La lune", "Le pain"), 1),
          ("Le comté mûrit en cave.", "Où le comté mûrit-il ?", ("Au four", "Au soleil", "En cave", "En mer"), 3), ("L'hiver, la route du col est fermée.", "Quand la route est-elle fermée ?", ("L'été", "Au printemps", "Le mardi", "L'hiver"), 4),
          ("Le train part à huit heures.", "À quelle heure part le train ?", ("À huit heures", "À neuf heures", "À midi", "Le soir"), 1), ("L'abeille récolte le nectar.", "Que récolte l'abeille ?", ("La cire", "Le nectar", "L'eau", "Le sel"), 2),
          ("Le vent du nord apporte le froid.", "Qu'apporte le vent du nord ?", ("La pluie", "Du sable", "Le froid", "Des fleurs"), 3), ("Le pont relie l'île au continent.", "Que relie le pont ?", ("Deux villes", "Deux lacs", "Deux rues", "L'île et le continent"), 4)]
    en = [("The tide rises twice a day.", "How often does the tide rise a day? ", ("Once", "Twice", "Three times", "Four times"), 2), ("The tide rises twice a day.", "What rises?", ("The tide", "The price", "The moon", "The bread"), 1),
          ("The cheese ripens in a cellar.", "Where does it ripen?", ("In the oven", "In the sun", "In a cellar", "At sea"), 3), ("In winter the pass is closed.", "When is the pass closed?", ("In summer", "In spring", "On Tuesdays", "In winter"), 4),
          ("The train leaves at eight.", "When does the train leave?", ("At eight", "At nine", "At noon", "At night"), 1), ("The bee gathers nectar.", "What does the bee gather?", ("Wax", "Nectar", "Water", "Salt"), 2),
          ("The north wind brings the cold.", "What does the north wind bring?", ("Rain", "Sand", "Cold", "Flowers"), 3), ("The bridge joins the island to the mainland.", "What does the bridge join?", ("Two towns", "Two lakes", "Two streets", "The island and the mainland"), 4)]
    return [{"link": f"https://example.org/{i // 2}", "question_number": i % 2 + 1, "flores_passage": p, "question": q, **{f"mc_answer{j}": a for j, a in enumerate(answers, 1)}, "correct_answer_num": str(g), "dialect": "eng_Latn" if english else "fra_Latn", "ds": "2023-05-03"}
            for i, (p, q, answers, g) in enumerate(en if english else fr)]


def write_mirror(
    folder: Path, # Made if it is not there
) -> Path: # The folder: `folder/owner/name` is what the hub calls `owner/name`
    "Write invented rows for every task, JSON lines, Parquet and CSV, each dataset with a README that names its configurations and splits."
    folder = Path(folder)
    turned = lambda rows, k=3: rows[k:] + rows[:k]
    _dataset(folder, "manu/french-bench-grammar-vocab-reading", {"default": _gaps()}, "parquet")
    _dataset(folder, "manu/french_bench_hellaswag", {"default": {"validation": _endings(HELLASWAG_FR, "val")}})
    _dataset(folder, "manu/french_bench_arc_challenge", {"default": {"train": _arc_fr(3), "validation": _arc_fr(5), "test": _arc_fr(0)}}, "parquet")
    yes_no = [{"question": q, "passage": p, "label": y} for q, p, y in YES_NO]
    _dataset(folder, "manu/french_boolq", {"default": {"test": yes_no, "valid": turned(yes_no)}})
    nli = [{"premise": p, "hypothesis": h, "label": y} for p, h, y in NLI]
    _dataset(folder, "facebook/xnli", {"fr": {"train": nli, "validation": turned(nli), "test": nli}}, "parquet")
    reviews = [{"text": t, "topic": about, "polarity": y} for t, about, y in REVIEWS]
    _dataset(folder, "manu/topic_based_nli_test", {"default": {"test": reviews, "valid": turned(reviews)}})
    fquad = {"test": _squad(PASSAGES), "valid": _squad(turned(PASSAGES, 2)), "test_hasAns": _squad([p for p in PASSAGES if p[3]]), "valid_hasAns": _squad([p for p in turned(PASSAGES, 6) if p[3]])}
    _dataset(folder, "manu/fquad2_test", {"default": fquad}, "parquet")
    _dataset(folder, "manu/multifquad_test", {"default": {"test": fquad["test_hasAns"], "valid": fquad["valid_hasAns"]}})
    news = [{"text": t, "summary": s} for t, s in NEWS]
    titles = [{"text": t, "summary": " ".join(s.rstrip(".").split()[-3:])} for t, s in NEWS]
    orange = {config: {"train": rows, "validation": turned(rows), "test": rows} for config, rows in (("abstract", news), ("title", titles))}
    for name in ("EdinburghNLP/orange_sum", "orange_sum"): _dataset(folder, name, orange)   # the harness still calls it by its old name
    (folder/"manu/french-trivia").mkdir(parents=True, exist_ok=True)
    with (folder/"manu/french-trivia/french_trivia.csv").open("w", encoding="utf-8", newline="") as f:
        write = csv.writer(f); write.writerow(("Question", "Answer")); write.writerows(TRIVIA)
    lines = [{"id": i, "text": s} for i, s in enumerate([x for pair in PAIRS for x in pair][:10])]
    _dataset(folder, "manu/opus100-en-fr", {"default": {"validation": lines[5:], "test": lines}}, "parquet")
    wiki = [{"paragraph": p} for p in WIKI]
    _dataset(folder, "asi/wikitext_fr", {"wikitext-35": {"train": wiki, "validation": wiki, "test": wiki}})
    _dataset(folder, "facebook/belebele", {"fra_Latn": {"test": _belebele(False)}, "eng_Latn": {"test": _belebele(True)}})
    english = _endings(HELLASWAG_EN, "val")
    _dataset(folder, "Rowan/hellaswag", {"default": {"train": turned(english), "validation": english}})
    goals = [{"goal": f"How do you keep {x} fresh?", "sol1": f"Put the {x} in a cool place.", "sol2": f"Put the {x} in the oven.", "label": 0} if i % 2 else {"goal": f"How do you carry {x}?", "sol1": f"Throw the {x} over the sea.", "sol2": f"Put the {x} into a basket.", "label": 1}
             for i, x in enumerate(("apples", "bread", "eggs", "butter", "leeks", "herbs", "grapes", "milk"))]
    _dataset(folder, "baber/piqa", {"default": {"train": turned(goals), "validation": goals}})
    sciq = [{"question": q, "distractor3": "sand", "distractor1": "iron", "distractor2": "smoke", "correct_answer": c[g], "support": ("" if i == 1 else " " * (i == 2)) + ("" if i == 1 else f"The answer is near: {c[g]}.")} for i, (q, c, g) in enumerate(SCIENCE_EN)]
    _dataset(folder, "allenai/sciq", {"default": {"train": turned(sciq), "validation": turned(sciq, 5), "test": sciq}}, "parquet")
    _dataset(folder, "allenai/ai2_arc", {c: {"train": _arc_en(3), "validation": _arc_en(5), "test": _arc_en(shift)} for c, shift in (("ARC-Easy", 0), ("ARC-Challenge", 1))}, "parquet")
    boolq = [{"question": q, "passage": p, "idx": i, "label": y} for i, (q, p, y) in enumerate(YES_NO_EN)]
    _dataset(folder, "aps/super_glue", {"boolq": {"train": turned(boolq), "validation": boolq}}, "parquet")
    phrases = [{"translation": {"fr": fr, "en": en}} for en, fr in PAIRS]
    _dataset(folder, "wmt/wmt14", {"fr-en": {"train": phrases, "validation": turned(phrases), "test": phrases}}, "parquet")
    flores = [{"id": i, "sentence_eng_Latn": en, "sentence_fra_Latn": fr} for i, (en, fr) in enumerate(PAIRS)]
    _dataset(folder, "facebook/flores", {"all": {"dev": turned(flores), "devtest": flores}}, "parquet")
    tico = [{"sourceLang": "en", "targetLang": "fr", "sourceString": en, "targetString": fr, "stringID": f"invented_{i}", "url": "", "license": "public", "translatorId": "1"} for i, (en, fr) in enumerate(PAIRS)]
    _dataset(folder, "gmnlp/tico19", {"en-fr": {"validation": turned(tico), "test": tico}})
    return folder


@contextmanager
def harness_inside(mirror, cache):
    "While this lasts, `lm_eval` finds the datasets in the mirror, since it takes a folder of the working directory for a dataset of that name."
    import datasets
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROISSANT_ROOT", str(root()))
        patch.chdir(mirror)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
        yield patch


def task_manager():
    "The harness's tasks that are ours, too, read from its own files; an index of all its files takes ten seconds."
    import lm_eval.tasks
    folder = Path(lm_eval.tasks.__file__).parent
    return lm_eval.tasks.TaskManager(include_path=[folder/name for name in ("arc", "belebele", "french_bench", "hellaswag", "piqa", "sciq", "super_glue", "translation")], include_defaults=False)
