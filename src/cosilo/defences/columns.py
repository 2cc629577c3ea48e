"""What the name of a column, key or label says of the values under it.

    patient_id, X-Phone, Geburtsdatum, customer.lastName   ──▶   private, and of which kind
    status, article_no, updated_at, branch_city            ──▶   nobody's secret
    col7, attr, note                                       ──▶   nothing

Words are of the languages that names of columns are mostly written in: English, German, French,
Spanish, Italian, Dutch, Polish and Portuguese.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

PUBLIC = "public"
"""What `says` answers for a column of nobody's secrets."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# (kind, words of which one is enough, words that must all stand together)
_KINDS: tuple[tuple[str, frozenset[str], tuple[str, ...]], ...] = (
    ("SECRET", _words("""
        password passwd pwd passphrase secret token apikey pin otp passwort kennwort
        contrasena senha wachtwoord haslo"""), ("api key", "private key", "access key",
        "mot de passe")),
    ("EMAIL", _words("email mail emailaddress correo courriel posta"), ("e mail",)),
    ("IP", _words("ip ipv4 ipv6 ipaddress clientip remoteip"), ("remote addr",)),
    ("MAC", _words("mac macaddress bssid"), ()),
    ("PHONE", _words("""
        phone telephone tel mobile cellphone fax msisdn whatsapp handy telefon telefono
        telefone telefoon telefonnummer mobil mobilnummer movil celular cellulare gsm
        komorka phonenumber"""),
     ("cell number",)),
    ("BIRTH", _words("""
        dob birth birthdate birthday born geburtsdatum geburtstag geboren naissance
        nacimiento nascita geboortedatum geboortedag urodzenia urodziny nascimento nasc nacido
        nacida nato nata nascido nascida urodzony urodzona geb verjaardag compleanno cumpleanos
        aniversario dateofbirth"""), ("ne le", "nee le", "ne e le")),
    ("SSN", _words("""
        ssn sozialversicherungsnummer svnr nino bsn pesel cpf curp dni nif codicefiscale
        insee sin aadhaar personnummer socialsecurity nir niss nss burgerservicenummer kvnr
        rentenversicherungsnummer versicherungsnummer rvnr contribuinte"""),
     ("social security", "national insurance", "codice fiscale", "securite sociale",
      "seguridad social", "sicurezza sociale", "seguranca social", "numero fiscal", "c f",
      "carte vitale")),
    ("CARD", _words("cardnumber cardno creditcard ccnum ccnumber pan cvv cvc kartennummer"),
     ("card number", "card no", "card nr", "credit card", "debit card", "card num")),
    ("IBAN", _words("iban"), ()),
    ("PLATE", _words("""
        plate licenceplate licenseplate kennzeichen nummernschild immatriculation matricula
        targa kenteken placa"""), ("registration number", "vehicle registration")),
    ("USER", _words("""
        username user login handle screenname nickname benutzer benutzername utilisateur
        usuario utente gebruiker gebruikersnaam"""), ("account name",)),
    ("ID", _words("""
        mrn passport passportno reisepass reisepassnummer ausweis personalausweis pasaporte
        passeport passaporto paspoort taxid tin vat steuernummer steuerid ein itin imei imsi
        iccid vin kontonummer konto rekening compte cuenta conto conta account acct
        accountno accountnumber bankaccount routing sortcode licence license
        versichertennummer kundennummer nhc nass episodio nip regon krs siren siret cif nipc
        kvk btw fuehrerschein
        fuhrerschein fuhrerscheinnummer fahrerlaubnis passnummer passeportno paspoortnummer rijbewijs
        rijbewijsnummer identiteitskaart paszport paszportu patente documento kvknummer
        ausweisnummer mitgliedsnummer patientid customerid clientid
        memberid employeeid userid personid patientno last4"""),
     ("patient id", "patient no", "patient number", "patient nr", "customer id",
        "customer no", "customer number",
      "client id", "member id", "employee id", "employee no", "user id", "person id", "policy number",
      "policy no", "tax id", "tax number", "tax no", "national id", "identity number",
        "id number", "id card",
      "driver licence", "driver license", "drivers license", "medical record", "health id",
        "insurance number",
      "insurance id", "tarjeta sanitaria", "tessera sanitaria", "carta d identita",
      "carte d identite",
      "partita iva", "p iva", "dowod osobisty", "dowodu osobistego", "prawo jazdy", "prawa jazdy",
      "permis de conduire", "permiso de conducir", "carta de conducao", "cartao de cidadao",
      "case number", "device id", "serial number", "sort code", "last four")),
    ("ADDRESS", _words("""
        address addr street streetname zip zipcode postcode postalcode plz postleitzahl
        strasse straße anschrift adresse hausnummer rue calle direccion indirizzo straat
        adres ulica endereco rua morada cep codigopostal kodpocztowy wohnort woonplaats domicilio
        localidad localidade miejscowosc concelho naturalidade geburtsort geboorteplaats"""),
     ("postal code", "post code", "zip code", "code postal", "house number", "codigo postal",
      "kod pocztowy", "c p", "place of birth", "lieu de naissance", "lugar de nacimiento",
      "luogo di nascita", "miejsce urodzenia", "local de nascimento")),
    ("PERSON", _words("""
        name fullname firstname lastname surname forename givenname familyname middlename
        maidenname vorname nachname familienname geburtsname zuname nom prenom nombre
        apellido apellidos nome cognome naam voornaam achternaam imie nazwisko sobrenome
        apelido patient customer client holder payee payer beneficiary recipient assignee
        employee spouse mother father guardian kunde kundin inhaber patientin mitarbeiter
        mitarbeiterin versicherter cliente paciente klient klant pacjent caller cardholder
        accountholder tenant applicant borrower insured signatory author owner contact vornamen
        prenoms imiona voornamen nomes apelidos cognomi geburtsname meisjesnaam titulaire titular
        intestatario wlasciciel rekeninghouder kontoinhaber antragsteller antragstellerin demandeur
        demandeuse solicitante richiedente wnioskodawca aanvrager requerente pacjentka patiente
        klientka clienta"""),
     ("titulaire du compte", "titular de la cuenta", "titular da conta", "intestatario del conto",
      "account holder", "card holder", "next of kin", "account manager", "emergency contact")),
)  # fmt: skip

# A column of these is about a thing, or about a quality of somebody that tells nobody who it is.
_THINGS = _words("""
        product article artikel sku file filename path folder app application host
        hostname server service class function method module logger thread worker
        process job queue branch filiale store shop warehouse brand model category
        kategorie color colour farbe size unit plan campaign project repository repo package
        library table column database schema index font theme template format encoding
        protocol language lang locale currency waehrung device browser os platform status
        state level severity priority department abteilung team role""")
_QUALITIES = _words("""agent
        type typ art kind status state count anzahl version language lang locale
        format size length at time timestamp zeit verified valid enabled active flag
        required visible score rank level class category group role currency
        rate opt consent""")
_PUBLIC = _words("""exp iat nbf ts ms epoch 
        status state quantity qty menge anzahl count price preis amount cost total subtotal
        discount version build revision release priority prioritaet severity level currency
        unit einheit size groesse weight gewicht height width color colour farbe category
        kategorie type typ kind language sprache locale timezone department abteilung
        created updated modified deleted timestamp retries attempts retry duration latency
        elapsed page offset limit port exit http httpstatus statuscode method protocol
        format encoding enabled active verified accepted terms agreed flag article artikel
        sku product produkt branch filiale store warehouse module logger thread worker
        score rank position index sequence batch
        environment env region tier plan brand model material stock bestand rating percent
        ratio""")

_SPLIT = re.compile(r"[^\w]|_|(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])|(?<=[A-Z])(?=[A-Z][a-z])")


@lru_cache(maxsize=4096)
def says(label: str) -> str:
    """The kind of private value that stands under `label`; `PUBLIC` for nobody's secret; empty where
    the label says nothing."""
    words = _split(label)
    if not words:
        return ""
    joined = " ".join(words)
    private = _kind(words, joined)
    if not private:
        return PUBLIC if not _PUBLIC.isdisjoint(words) or not _THINGS.isdisjoint(words) else ""
    if len(words) > 1 and words[-1] in _QUALITIES:
        return PUBLIC
    if private in ("PERSON", "USER", "ADDRESS") and not _THINGS.isdisjoint(words):
        return PUBLIC
    return private


def _kind(words: tuple[str, ...], joined: str) -> str:
    whole = "".join(words)
    for kind, single, together in _KINDS:
        if whole in single or any(f" {phrase} " in f" {joined} " for phrase in together):
            return kind
    for kind, single, _ in _KINDS:
        if any(word in single for word in words):
            return kind
    return ""


def _split(label: str) -> tuple[str, ...]:
    plain = unicodedata.normalize("NFKD", label.replace("ß", "ss")[:80])
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    words = tuple(w.casefold() for w in _SPLIT.split(plain) if w)
    return words[1:] if words[:1] == ("x",) and len(words) > 1 else words
