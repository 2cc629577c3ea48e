"""What stands before private values in seven languages, as parts of regular expressions.

Alternatives are parted by `|`; a space is one space.
"""

from __future__ import annotations


def _cue(*, any_case: bool = True, **of_language: str) -> str:
    phrases = [p.strip() for some in of_language.values() for p in some.split("|")]
    written = "|".join(phrase.replace(" ", "[ ]") for phrase in phrases)
    return f"(?i:{written})" if any_case else f"(?:{written})"


TITLE = _cue(
    de="herrn? | frau | fräulein | schwester | pfarrer | kommissarin? | richterin? | rechtsanwalt"
    "| rechtsanwältin | doktor | professorin | zeugin? | tante | onkel | oma | opa | hr | ing",
    fr="monsieur | madame | mademoiselle | messieurs | mesdames | maître | docteure? | professeure?"
    "| adjudante? | mme | mlle | mm",
    es=r"señor(?:a|ita)? | doña | don | doctora? | profesora? | abogad[oa]"
    "| srta | sra | sr | dña | dra",
    it=r"signor[aie]? | dottore? | dottoressa | professor(?:e|essa)? | avvocat[oa] | ingegner[ea]"
    r"| geometra | sig(?:\.? ?ra)? | dott(?:\.? ?ssa)? | avv | geom | egr | gent | spett",
    pl="pan(?:i|a|u|em|ie|ią|ią)? | panią | państwo | mecenas | inż | aspirant",
    nl="dhr | mevr | mw | mevrouw | meneer | (?:de )?heer | dokter | agente | advocaat | drs"
    "| mr | ir",
    pt="exm[oa] | senhor(?:a|es)? | dona | doutora? | professora? | advogad[oa] | engenheir[oa]"
    "| eng",
    all="dr | prof",
)  # fmt: skip
SHORT_TITLE = r"(?:M|D|Me|Fr|Ing|Dipl)"
ADDED_TITLE = r"(?:med|phil|jur|dent|habil|nat|rer|Ing|ra|ssa|a|inż|hab|dr|Dr|prof|Prof)"

SAYS = _cue(
    de=r"ich heiße | ich heisse | mein name ist | hier (?:spricht|ist) | unterzeichnete?r? | gez\.?"
    r"| hiermit kündige ich, | bevollmächtige ich, | geb\. | geborene?",
    fr="je (?:m['’]appelle|me nomme) | mon nom est | je soussignée? | allô,? ici | signé | née",
    es=r"me llamo | mi nombre es | le habla | habla | fdo\.?:? | firmado",
    it=r"mi chiamo | il mio nome è | sottoscritt[oa] | parla | f\.to | nata",
    pl="nazywam się | mam na imię | mówi | podpisała? | z domu",
    nl=r"ik heet | mijn naam is | u spreekt met | met | w\.g\.",
    pt=r"chamo-me | o meu nome é | (?:daqui )?fala | ass\.:?",
)  # fmt: skip
"""A name follows, whoever's."""

CALLED = _cue(
    any_case=False,
    de="ich heiße | ich heisse | mein name ist", fr="je m['’]appelle | mon nom est",
    es="me llamo | mi nombre es", it="mi chiamo | il mio nome è", pl="nazywam się | mam na imię",
    nl="ik heet | mijn naam is", pt="chamo-me | o meu nome é",
)  # fmt: skip
"""A name follows, also in small letters."""

AM = _cue(
    de="ich bin | ich, | hier | moin", fr="je suis | moi c['’]est | c['’]est | ici | salut | coucou",
    es="soy | yo, | hola", it="sono | io, | ciao", pl="jestem | ja, | tu | cześć",
    nl="ik ben | ik, | hoi",
    pt="sou | eu, | é [oa] | olá", all="hallo | bonjour",
)  # fmt: skip

GREETING = _cue(
    any_case=False,
    de="[Ll]iebe[rs]? | Hallo | Hi | Moin | Servus | Sehr geehrter? | Deine? | Eure",
    fr="(?:Mon |mon )?[Cc]her | (?:Ma |ma )?[Cc]hère | Salut | Coucou | Ta | Ton",
    es="[Ee]stimad[oa] | [Qq]uerid[oa] | Hola | Tu",
    it="[Cc]ar[oa] | Ciao | Gentile | Egregio | La tua | Il tuo",
    pl="[Dd]rog[ia] | Kochan[aey] | Cześć | Szanown[ya] | Hej | Twój | Twoja",
    nl="Beste | [Ll]ieve | Geachte | Hoi | Dag | Je | Jouw",
    pt="Prezad[oa] | [Cc]ar[oa] | Olá | Oi | [AO] t(?:ua|eu)",
)  # fmt: skip

KIN = _cue(
    de="tochter | sohn | mutter | vater | bruder | schwester | nichte | neffe | ehemann | ehefrau"
    "| gatte | nachbar(?:in)?",
    fr="fille | fils | mère | père | frère | sœur | nièce | neveu | mari | époux | épouse",
    es="hij[oa] | madre | padre | herman[oa] | sobrin[oa] | marido | espos[oa]",
    it="figli[oa] | fratello | sorella | nipote | marito | moglie",
    pl="córka | syna? | matka | ojciec | brat | siostra | siostrzenica | siostrzeniec | mąż | mężem"
    "| żona",
    nl="dochter | zoon | moeder | vader | broer | zus | neef | echtgeno(?:ot|te)"
    "| vrouw",
    pt="filh[oa] | mãe | pai | irmão | irmã | sobrinh[oa]",
)  # fmt: skip

ROLE = _cue(
    de="vermieter | mieter | verkäufer(?:in)? | käufer(?:in)? | kund(?:e|in) | klient(?:in)?"
    "| patient(?:in)? | zeug(?:e|in) | beschuldigten? | ansprechpartner(?:in)?(?: ist)?"
    "| vertreten durch"
    "| sachbearbeiter(?:in)? | geschäftsführer(?:in)? ist",
    fr="patiente? | témoin | cliente? | représentée? par | gérant | vendeur | acquéreur | compte de",
    es="paciente | testigo | representad[oa] por | administrador a | cuenta de | vendedora?"
    "| compradora?",
    it="paziente | rappresentat[oa] da | amministratore | conto di | venditore | acquirente | teste",
    pl="pacjent(?:ka)? | klient(?:ka|ki)? | reprezentowan[aą] przez | świadek | notariuszem",
    nl="patiënte? | vertegenwoordigd door | getuige | cliënte? | klant | bestuurder | notaris"
    "| verkoper | koper",
    pt="utente | representad[oa] por | testemunha | gerente | notário | conta de",
)  # fmt: skip

BORN = _cue(
    de=r"geb(?:oren|\.)?e?r?(?: am)? | geburts(?:tag|datum) | (?<!\w)\*",
    fr=r"née?(?:\(e\))? le | (?:date de )?naissance | anniversaire",
    es=r"nacid[oa](?:/a)? el | nac\. | nac(?:í|ió) el | (?:fecha de )?nacimiento | cumpleaños",
    it=r"nat[oa](?:/a)? il | n\. | (?:data di )?nascita | compleanno",
    pl=r"ur\. | urodz(?:on[yaąe](?:go|j)?|iła? się|enia|iny)",
    nl="geboren op | geb(?:oren)? op | geboorte(?:datum|dag) | verjaardag",
    pt=r"nascid[oa](?:/a)? a | nasc\. | nasc(?:i|eu) a | (?:data de )?nascimento | aniversário",
)  # fmt: skip

MONTH = _cue(
    de="januar | februar | märz | april | mai | juni | juli | august | september | oktober | november"
    "| dezember | jan | feb | mär | apr | jun | jul | aug | sept? | okt | nov | dez",
    fr="janvier | février | mars | avril | juin | juillet | août | octobre | septembre | novembre"
    "| décembre | janv | févr? | avr | juil | oct | déc",
    es="enero | febrero | marzo | abril | mayo | junio | julio | agosto | septiembre | octubre"
    "| noviembre | diciembre | dic | ene | abr | ago",
    it="gennaio | febbraio | aprile | maggio | giugno | luglio | settembre | ottobre | dicembre"
    "| gen | mag | giu | lug | set | ott",
    pl="stycznia | lutego | marca | kwietnia | maja | czerwca | lipca | sierpnia | września"
    "| października | listopada | grudnia",
    nl="januari | februari | maart | mei | augustus | mrt",
    pt="janeiro | fevereiro | março | maio | junho | julho | setembro | outubro | novembro"
    "| dezembro",
)  # fmt: skip

STREET_END = (
    r"(?i:weg|platz|ring|ufer|damm|stieg|steig|pfad|hof|grund|feld|wall|graben|chaussee|promenade|anger"
    r"|kamp|plein|gracht|kade|singel|pad|dijk|steeg|markt|wal)"
)
"""Ends the name of a street where a house number follows."""
ONLY_STREET_END = r"(?i:straße|strasse|str\.|gasse|allee|straat|laan)"
"""Ends no other word."""
STREET = _cue(
    fr="rue | avenue | av | ave | bd | boulevard | place | impasse | allée | chemin | quai | cours"
    "| route | passage | square | sentier | montée | villa | résidence | lotissement",
    es="calle | c/ | avenida | avda | plaza | pza | paseo | pso | pº | ronda | camino | carretera"
    "| ctra | travesía | callejón | cuesta | glorieta | pasaje | urbanización | urb",
    it=r"via | viale | v\.le | corso | c\.so | piazza | p\.za | piazzale | piazzetta | vicolo | largo"
    "| strada | lungomare | lungotevere | contrada | salita | borgo | località | traversa | rione",
    pl=r"ul\. | ulica | ulicy | ulicę | al\. | aleja | alei | aleje | pl\. | plac | placu | os\."
    r"| osiedle"
    "| osiedlu | rondo",
    pt=r"rua | r\. | travessa | tv | praça | estrada | calçada | alameda | beco | quinta | bairro",
)  # fmt: skip

LIVES = _cue(
    de="wohn(?:haft|t|e|en)?(?: allein)?(?: jetzt)? in | wohnort | lebt(?: jetzt| allein)? in"
    "| komm(?:e|t|en)? aus | stamm(?:e|t|en) aus | sitz | geboren in | seniorenheim in | polizei in",
    fr="habit(?:e|ant|ait)(?: à)? | demeurant(?: ensemble)?(?: à)? | domiciliée? à | siège est à"
    "| vit(?: seule?| maintenant)? à | gare de | gendarmerie de | ehpad à",
    es="viv[eo](?: sol[oa]| ahora)? en | vecin[oa] de | residente en | domicilio en | sede en"
    "| natural de",
    it="abit[oai](?: a)? | residenti? (?:a|in) | vive(?: sol[oa])? a | sede a | stazione di"
    "| carabinieri di",
    pl=r"zam\. | zamieszka[łl][ya]:? | mieszkam? w | siedziba: | miejscowości | miasta",
    nl="woon(?:t|achtig|ik)?(?: alleen| nu)? in | wonende te | gevestigd te | station van"
    "| geboren te | te",
    pt="mor[ao](?: em)? | residentes? (?:em|na|no) | viv[eo](?: sozinh[oa]| agora)? em | sede em"
    "| estação de | gnr de",
)  # fmt: skip

PAPER = _cue(
    de=r"(?:personal)?ausweis(?:nummer|nr\.?)? | reisepass(?:nummer)? | pass"
    r"| führerschein(?:nummer)?"
    r"| steuer-?(?:id(?:entifikationsnummer|-?nr\.?)?|nummer|nr\.?) | versichertennummer | rvnr"
    r"| svnr"
    r"| (?:sozial|renten)?versicherungsnummer | kvnr | hr[ab] | registernummer | handelsregister"
    r"| ust-?id(?:-?nr\.?)?",
    fr="passeport | permis(?: de conduire)? | carte (?:d['’]identité|vitale) | sécu(?:rité sociale)?"
    "| numéro fiscal | nir | siren | siret | tva",
    es=r"dni | nif | nie | cif | nss | pasaporte | permiso(?: de conducir)? | carn[eé]t?"
    r"| nhc | nass | n[º°]?\.? ?col(?:egiad[oa])?\.? | historia clínica | episodio"
    "| seguridad social | tarjeta sanitaria",
    it=r"codice fiscale | c\.?f\. | carta d['’]identità | passaporto | patente | partita iva"
    r"| p\.? ?iva | tessera sanitaria | documento",
    pl="pesel | nip | regon | krs | dow(?:ód|odu)(?: osobist(?:y|ego))? | paszportu?"
    "| praw[oa] jazdy",
    nl="bsn | burgerservicenummer | paspoort(?:nummer)? | rijbewijs(?:nummer)? | identiteitskaart"
    "| id-kaart | kvk(?:-nummer)? | btw(?:-nummer)?",
    pt="niss | nipc | contribuinte | cartão de cidadão | passaporte | carta(?: de condução)? | utente"
    "| segurança social",
)  # fmt: skip
AFTER_PAPER = (
    r"(?i:n(?:r|º|°|o|úm|um)?\.?º?|numm?ero?|número|numéro|lautet|ist|est|es|è|é|to|is|de|pod|sous|le|di"
    r"|van|[^\W\d]{2,20})"
)

PLATE = _cue(
    de="kennzeichen | nummernschild", fr="immatricul(?:ée?|ation) | plaque", es="matr[ií]cula",
    it="targ(?:a|ata|ato)", pl="rejestracyjn[a-z]{1,4}", nl="kenteken",
)  # fmt: skip
