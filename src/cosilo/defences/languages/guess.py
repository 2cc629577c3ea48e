"""Which language a piece of text is in, by its commonest words, its word endings and its letters.

    "Ich wohne in Trier.\\n\\nThanks, Anna"  ─▶  0 to 20 in ("de",), 22 to 34 in ("en",)

Function words are a third of any prose, and few of them belong to two languages, so some words are
enough (Grefenstette 1995, Comparing two language identification schemes). About a microsecond a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

ENGLISH = "en"
FOREIGN = ("de", "fr", "es", "it", "pl", "nl", "pt")
LANGUAGES = (ENGLISH, *FOREIGN)

_SURE = 1.5  # what the words of a piece must count for one language, and more than for any other
_LEAD = 1.0
_ANOTHER = 2.5  # what they must count to be in another language than the whole
_SOME = 0.4  # less than that for a foreign language is chance
_LONG = 300  # characters of a line that is read by its sentences

_WORDS = {
    "en": """the a an of and to in is that it for was on are with as his they at be this from have or by
        one had not but what all were when we there can an your which their said if do will each about
        how up out them then she many some so these would other into has more her two like him see
        could make than been its who now my did get come made may you me he i am i'm don't it's
        please thank thanks dear hello our us should because after before where why does just any
        also very here only over such no yes""",
    "de": """der die das und ist nicht ich ein eine einen einem einer eines mit auf für von den dem des
        sich auch es an werden aus er hat dass sie nach wird bei noch wie über so zum haben nur
        oder aber vor zur bis mehr durch man sein wurde sei hatte kann gegen vom schon wenn habe
        seine ihre ihr ihren ihm ihn dann unter wir soll unser unsere mein meine meinen meiner
        dein deine euch uns mir mich dir dich bitte danke herr frau guten sehr geehrte geehrter
        liebe lieber war ihnen hier kein keine seit bin sind wohne heiße heute morgen gestern im
        am um hallo wo wer was warum geboren wohnhaft straße jetzt immer wieder beim gibt ihrer
        zwischen""",
    "fr": """le la les de des du et est un une en que qui dans pour pas sur au aux avec ce il elle ne
        se par plus son sa ses ou mais nous vous ils elles je tu leur leurs cette ces mon ma mes
        votre vos notre nos été être avoir fait comme tout si sans bien aussi où entre après chez
        ont sont était c'est j'ai qu'il d'un d'une l' d' j' s' n' qu' m' c' bonjour merci madame
        monsieur cher chère né née suis avez très peut dont lui même depuis vers moi toi oui non
        déjà encore""",
    "es": """el la los las de del y es en que un una por con para no se su al lo como más pero sus le
        ya o este sí porque esta entre cuando muy sin sobre también me hasta hay donde quien desde
        todo nos durante todos uno les ni contra otros ese eso ante ellos esto mí antes algunos
        qué unos yo otro tanto él mi mis tu tus usted ustedes está están fue ser soy tiene hola
        gracias señor señora estimado estimada querido querida nacido nacida doña cuál mucho ahora
        buenos buenas días son ha han vive llamo hoy ayer mañana calle""",
    "it": """il lo la i gli le di del dello della dei degli delle e è un uno una in che per con non si
        su da dal dalla al alla ai alle nel nella ma anche come più suo sua suoi sue ho hai ha
        hanno sono sei siamo questo questa quello quella se ci mi ti vi ne o perché quando dove
        chi cosa molto poi già ancora tra fra dopo prima fino io lei lui noi voi loro mio mia miei
        nostro vostro abito abita anni anno vive grazie buongiorno ciao salve signor signora
        gentile caro cara nato nata presso sig dott c'è l' un' dell' all' nell' dall' sull' oggi
        ieri domani essere stato stata""",
    "pl": """i w z na do nie się to że jest jak o po co dla tak od za czy ale jego jej ich przez przy
        ja ty on ona my wy oni ten ta te tego tej tym był była było być są ma mam masz już tylko
        może pod nad bez także oraz lub który która które których jako gdy kiedy gdzie bardzo
        proszę dziękuję dzień dobry pan pani pana panu panią państwo szanowny szanowna drogi droga
        cześć witam nazywam mieszka mieszkam zamieszkały zamieszkała urodzony urodzona jestem mój
        moja moje swój ze we ku jeszcze teraz dziś wczoraj jutro nam nas mi mnie""",
    "nl": """de het een en van ik te dat die in is niet zijn op aan met er om had voor uit maar bij ook
        tot je mij mijn naar dan door over ze hij zo nog wel geen heeft hebben hoe of wat deze dit
        als zich ons onze hun haar wij jij u uw kan wordt werd worden meer veel na al daar want
        bent ben waar wie zou kunt kunnen moet geachte beste lieve meneer mevrouw dhr mevr hallo
        hoi dank bedankt graag geboren wonende woont woon heet vandaag gisteren morgen groet
        groeten tussen""",
    "pt": """o a os as de do da dos das e é em no na nos nas um uma que para com não por se mais como
        mas foi ao aos à às ele ela seu sua seus suas ou quando muito já eu também só pelo pela
        até isso entre depois sem mesmo quem me esse está você essa num numa nem meu minha meus
        minhas tem são ser estou estão nós lhe deles este esta fosse isto dele tu te vocês vos olá
        obrigado obrigada senhor senhora exmo exma caro cara nascido nascida residente chamo bom
        boa dia tarde hoje ontem amanhã onde porque ainda""",
}  # fmt: skip
_FORM_WORDS = {
    "en": """name surname forename first last middle address street road town city postcode phone
        mobile date birth born number passport licence license account patient customer user agent
        diagnosis treatment medication applicant employer married single present subject reference
        invoice order payment delivery ward doctor appointment""",
    "de": """name vorname nachname familienname geburtsname geburtsdatum geburtsort anschrift wohnort
        plz ort telefon mobil handy kunde kundin patient patientin versichertennummer krankenkasse
        diagnose diagnosen therapie kontoinhaber steuernummer ausweis reisepass führerschein
        betreff rechnung vertrag antrag anmeldung teilnehmer unterschrift datum telefonnummer
        arbeitgeber arzt termin kennzeichen ledig verheiratet""",
    "fr": """nom prénom prénoms adresse ville commune code postal téléphone courriel portable naissance
        lieu patient patiente client cliente diagnostic traitement numéro compte titulaire
        passeport permis carte objet facture contrat demande présents signature employeur médecin
        rendez nationalité célibataire marié mariée utilisateur conseiller""",
    "es": """nombre apellido apellidos dirección domicilio localidad población código postal teléfono
        correo móvil fecha nacimiento lugar paciente cliente clienta diagnóstico tratamiento
        número cuenta titular pasaporte permiso asunto factura contrato solicitud asistentes firma
        médico cita nacionalidad soltero soltera casado casada usuario""",
    "it": """nome cognome indirizzo residenza domicilio città comune cap telefono cellulare data
        nascita luogo paziente cliente diagnosi terapia numero conto intestatario passaporto
        patente oggetto fattura contratto domanda presenti firma medico appuntamento codice
        fiscale cittadinanza nubile celibe utente tessera sanitaria richiedente""",
    "pl": """imię imiona nazwisko adres ulica miasto miejscowość kod pocztowy telefon komórka data
        urodzenia miejsce pacjent pacjentka klient klientka rozpoznanie leczenie numer konto
        rachunek paszport dowód osobisty prawo jazdy temat faktura umowa wniosek obecni podpis
        lekarz wizyta obywatelstwo panna kawaler""",
    "nl": """naam voornaam voornamen achternaam adres straat woonplaats plaats postcode telefoon mobiel
        geboortedatum geboorteplaats patiënt patiënte klant cliënt diagnose behandeling nummer
        rekening rekeninghouder paspoort rijbewijs betreft onderwerp factuur contract aanvraag
        aanwezig handtekening huisarts afspraak nationaliteit gehuwd ongehuwd gebruiker medewerker""",
    "pt": """nome apelido apelidos morada endereço localidade concelho código postal telefone telemóvel
        correio data nascimento naturalidade paciente utente cliente diagnóstico tratamento número
        conta titular passaporte carta condução assunto fatura contrato pedido presentes
        assinatura médico marcação nacionalidade solteiro solteira casado casada contribuinte
        requerente utilizador""",
}  # fmt: skip
_ENDINGS = {
    "en": "ing tion ness ould ough ight",
    "de": "ung keit heit lich isch schaft ieren tät ungen ischen lichen",
    "fr": "eux euse tion ment ique eau aire oire ière ette ais ait",
    "es": "ción dad ando iendo miento ado ada ados adas illo ería",
    "it": "zione ità mente ato ata azione aggio etto ella oni eria",
    "pl": "ość nie ego ych iej ski ska cki nia nych owy owa ów ach owie",
    "nl": "heid lijk ing ijk tie aan oor eren sch ijn",
    "pt": "ção dade ando mento ado ada ções inho ista eiro eira",
}
_LETTERS = {
    "de": "ßäöü", "fr": "çœêèàùûîôëï", "es": "ñ¿¡áíóúé", "it": "àèòìù", "pl": "łżśćńęąźó", "nl": "ëï",
    "pt": "ãõçáâêôéíóú",
}  # fmt: skip


Counts = tuple[tuple[int, float], ...]


def _counts(of_one: float, *lists: Mapping[str, str]) -> dict[str, Counts]:
    """Entry → (which of `LANGUAGES`, what it counts for it): the less, the more of them have it."""
    having: dict[str, set[int]] = {}
    for some in lists:
        for name, entries in some.items():
            for entry in entries.split():
                having.setdefault(entry, set()).add(LANGUAGES.index(name))
    return {
        entry: tuple((number, of_one / len(numbers)) for number in sorted(numbers))
        for entry, numbers in having.items()
    }


_BY_WORD = _counts(1.0, _WORDS, _FORM_WORDS)
_BY_ENDING = _counts(0.4, _ENDINGS)
_BY_LETTER = _counts(0.6, {name: " ".join(some) for name, some in _LETTERS.items()})
_WORD = re.compile(r"[^\W\d_]+(?:'(?=[^\W\d_]))?")
_FAR = re.compile(r"[^\x00-\x7f]")
_SENTENCE = re.compile(r"(?<=[.!?…])[ \t]+(?=[^\s\d])|\n")


def function_words() -> frozenset[str]:
    """The commonest words of all languages other than English."""
    return frozenset(w for name in FOREIGN for w in _WORDS[name].split())


@dataclass(frozen=True, slots=True)
class LanguagePiece:
    """Characters `start` to `end` of a text, and the languages to read them in: one, or where it is in
    doubt two.
    """

    start: int
    end: int
    languages: tuple[str, ...]


def language(text: str) -> str:
    """The language of `text`, one of `LANGUAGES`; empty where its words do not tell."""
    return _decided(_scores(text))


def pieces(text: str) -> list[LanguagePiece]:
    """`text` in pieces of one language each, in order and without the gaps between them.

    A piece whose own words do not tell is in the language of the whole; where they speak for two, or
    the whole does not tell either, it is read both ways. A text without a sign of any other language
    is English, as are numbers and code.
    """
    parts = list(_parts(text))
    scores = [_scores(text[a:b]) for a, b in parts]
    total = [sum(column) for column in zip(*scores, strict=True)]
    whole = _decided(total)
    if max(total[1:]) < _SOME:
        return [LanguagePiece(0, len(text), (ENGLISH,))] if text else []
    found: list[LanguagePiece] = []
    for (start, end), own in zip(parts, scores, strict=True):
        if text[start:end].isspace() or start == end:
            continue
        languages = _languages(own, whole, total)
        if found and found[-1].languages == languages:
            found[-1] = LanguagePiece(found[-1].start, end, languages)
        else:
            found.append(LanguagePiece(start, end, languages))
    return found


def _languages(own: Sequence[float], whole: str, total: Sequence[float]) -> tuple[str, ...]:
    decided = _decided(own)
    if decided and (decided == whole or not whole or max(own) >= _ANOTHER):
        return (decided,)
    if decided:
        return (ENGLISH, whole if decided == ENGLISH else decided)
    other = whole or LANGUAGES[max(range(1, len(LANGUAGES)), key=total.__getitem__)]
    if whole == ENGLISH:
        nearest = max(range(1, len(LANGUAGES)), key=own.__getitem__)
        if own[nearest] < _SURE:
            return (ENGLISH,)
        return (ENGLISH, LANGUAGES[nearest])
    if whole and own[0] < _SURE:
        return (whole,)
    return (ENGLISH, other)


def _decided(scores: Sequence[float]) -> str:
    """The language that counts most, if it is enough and clearly more than the next."""
    first, second = sorted(scores, reverse=True)[:2]
    if first < _SURE or first - second < _LEAD:
        return ""
    return LANGUAGES[list(scores).index(first)]


def _parts(text: str) -> Iterator[tuple[int, int]]:
    """Lines, and the sentences of long ones."""
    start = 0
    for cut in _SENTENCE.finditer(text):
        if text[cut.start()] == "\n" or cut.start() - start > _LONG:
            yield start, cut.start()
            start = cut.end()
    yield start, len(text)


@lru_cache(maxsize=2048)
def _scores(text: str) -> tuple[float, ...]:
    """What `text` counts for each of `LANGUAGES`."""
    found = [0.0] * len(LANGUAGES)
    lower = text.lower().replace("’", "'")
    for word in _WORD.findall(lower):
        counts = _BY_WORD.get(word)
        if counts is None and len(word) > 5:
            counts = _BY_ENDING.get(word[-4:]) or _BY_ENDING.get(word[-3:])
        if counts is not None:
            for number, count in counts:
                found[number] += count
    if not lower.isascii():
        for letter in _FAR.findall(lower):
            for number, count in _BY_LETTER.get(letter, ()):
                found[number] += count
    return tuple(found)
