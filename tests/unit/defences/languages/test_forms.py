"""Private values by the words around them in seven languages, and what is left alone."""

from __future__ import annotations

import time

import pytest

from cosilo.defences.anchored import AnchoredText
from cosilo.defences.languages.forms import foreign


def found(text: str) -> list[str]:
    return [text[s.start : s.end] for s in foreign(AnchoredText(text)) if s is not None]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Bitte kopieren Sie die Unterlagen für Elsbeth Kranz bis morgen.", "Elsbeth Kranz"),
        ("We mailen dit samen met Joris Steegman naar het kantoor.", "Joris Steegman"),
        ("moin, ich bin bodo und komm aus der gegend hier", "bodo"),
        ("coucou moi c'est odette, je cherche un emploi ici", "odette"),
        ("Bitte wenden Sie sich an Frau Dr. Kessler-Braun im Haus.", "Kessler-Braun"),
        ("Ich heiße Ruth von der Au und suche eine Wohnung.", "Ruth von der Au"),
        ("ich heiße bodo maurer und suche eine wohnung", "bodo maurer"),
        ("Adressez-vous à Mme Lefauve pour la suite, s'il vous plaît.", "Lefauve"),
        ("Je m'appelle Odette de Brissac et je cherche un emploi.", "Odette de Brissac"),
        ("Pregunte por la Sra. Zabaleta en la oficina, por favor.", "Zabaleta"),
        ("Hola, me llamo Nuria Peñalver y busco un piso.", "Nuria Peñalver"),
        ("Chieda della sig.ra Bonfanti in ufficio, per favore.", "Bonfanti"),
        ("Salve, mi chiamo Teo D'Amico e cerco una casa.", "Teo D'Amico"),
        ("Proszę pytać o panią Kwiecień w naszym biurze.", "Kwiecień"),
        ("Dzień dobry, nazywam się Jan Brzoza i szukam pracy.", "Jan Brzoza"),
        ("U kunt terecht bij mevr. van den Akker op kantoor.", "van den Akker"),
        ("Hallo, ik heet Joris ter Steege en ik zoek een huis.", "Joris ter Steege"),
        ("Pergunte pela Sra. Quintã no escritório, por favor.", "Quintã"),
        ("Olá, chamo-me Rita dos Passos e procuro uma casa.", "Rita dos Passos"),
    ],
)
def test_people_after_titles_and_introductions(text, value):
    assert any(value in one for one in found(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Sie ist am 3. März 1961 geboren, also geb. 03.03.1961 in der Stadt.", "03.03.1961"),
        ("Mme Lefauve, née le 4 août 1958, demeure ici avec nous.", "4 août 1958"),
        ("nacida el 12 de mayo de 1970 en la ciudad", "12 de mayo de 1970"),
        ("il signor Rossi, nato il 1º aprile 1949, vive con noi", "1º aprile 1949"),
        ("Pan Brzoza, ur. 12.05.1970, mieszka z nami.", "12.05.1970"),
        ("Zij is geboren op 9 mei 1983 en woont hier.", "9 mei 1983"),
        ("O senhor, nascido a 1 de março de 1944, vive connosco.", "1 de março de 1944"),
        ("Meine Tante ist am 4. März 1961 in Trier geboren und lebt hier.", "4. März 1961"),
        ("Mijn tante is op 9 mei 1983 te Goes geboren en woont hier.", "9 mei 1983"),
        ("Agent : Quelle est votre date de naissance ?\nClient : 04/03/1961", "04/03/1961"),
    ],
)
def test_dates_of_birth(text, value):
    assert value in found(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Ich wohne in der Eichenstraße 12a, 54290 Bad Trier.", "Eichenstraße 12a"),
        ("Ich wohne in der Eichenstraße 12a, 54290 Bad Trier.", "54290 Bad Trier"),
        (
            "J'habite au 12 bis, rue des Frères-Lumière, avec ma mère.",
            "12 bis, rue des Frères-Lumière",
        ),
        ("Vivo en la calle de la Paloma, 12 con mi madre.", "calle de la Paloma, 12"),
        ("Abito in via dei Fiori 12/B con mia madre.", "via dei Fiori 12/B"),
        ("Mieszkam przy ul. Krótka 12/3 z moją mamą.", "ul. Krótka 12/3"),
        ("Ik woon aan de Beukenlaan 12-3 met mijn moeder.", "Beukenlaan 12-3"),
        (
            "Moro na Rua do Sobreiro, n.º 12, 3.º Esq. com a minha mãe.",
            "Rua do Sobreiro, n.º 12, 3.º Esq.",
        ),
        ("Vivo en el Pso. Isabel la Católica, s/n, con mi madre.", "Pso. Isabel la Católica, s/n"),
        ("Ik woon aan het Singel 5, met mijn moeder en haar hond.", "Singel 5"),
        ("Vive en el CP: 28013 de Madrid con su madre.", "28013"),
        ("Ik woon in 1234 AB Zevenaar met mijn moeder.", "1234 AB Zevenaar"),
        ("CAP: 20121, poi il comune e la via.", "20121"),
        ("ja die wohnt in der eichenstraße 12a glaub ich", "eichenstraße 12a"),
        ("oui elle habite 8, passage des roses, je crois", "8, passage des roses"),
        (
            "sim ela mora na rua do sobreiro, n.º 12, 3.º esq. acho eu",
            "rua do sobreiro, n.º 12, 3.º esq",
        ),
        ("Moro em 1234-567 Nelas com a minha mãe.", "1234-567 Nelas"),
    ],
)
def test_addresses(text, value):
    assert any(value in one for one in found(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Der Personalausweis hat die Nummer L01X00T471 und gilt noch.", "L01X00T471"),
        (
            "Son numéro de sécu est le 1 85 05 78 006 084 36 et il est né ici.",
            "1 85 05 78 006 084 36",
        ),
        ("El DNI de mi padre es 12.345.678-Z y no lo encuentra.", "12.345.678-Z"),
        ("Il codice fiscale è RSSMRA85T10A562S e la carta è scaduta.", "RSSMRA85T10A562S"),
        ("Paciente con NHC: 8473310 que consulta por dolor.", "8473310"),
        ("La doctora, NºCol: 28 28 51938, la vio ayer.", "28 28 51938"),
        ("Jego dowód osobisty ABA 300000 jest już nieważny.", "ABA 300000"),
        ("Zijn BSN is 1112.22.333 en hij woont hier.", "1112.22.333"),
        ("O cartão de cidadão 00000000 0 ZZ4 já não é válido.", "00000000 0 ZZ4"),
        ("Mein Kennzeichen ist KA-PA 777 und der Wagen ist rot.", "KA-PA 777"),
        ("La voiture, immatriculée AB-123-CD, est à moi.", "AB-123-CD"),
        ("El coche con matrícula 1234 BCD es de mi padre.", "1234 BCD"),
        ("L'auto, targata AB 123 CD, è di mio padre.", "AB 123 CD"),
        ("De auto met kenteken AB-123-C is van mijn vader.", "AB-123-C"),
        ("O carro com a matrícula 12-AB-34 é do meu pai.", "12-AB-34"),
    ],
)
def test_numbers_of_papers_and_plates(text, value):
    assert any(value in one for one in found(text))


@pytest.mark.parametrize(
    "text",
    [
        "Sehr geehrte Damen und Herren, die Lieferung kommt am Dienstag im Oktober.",
        "Bonjour Madame, merci pour la facture de mars et la commande de mardi.",
        "Estimados señores: la entrega del martes llega en octubre.",
        "Man kann nicht immer nach Auffassung der Klägerin zur Höhe der Kosten gehen.",
        "Gentile Cliente, la fattura di marzo è già nel sistema.",
        "Szanowni Państwo, faktura za marzec jest już w systemie.",
        "Geachte klant, de factuur van maart staat al in het systeem.",
        "Exmos. Senhores, a fatura de março já está no sistema.",
        "Die Teilnehmer der Sitzung stimmen dem Protokoll der Verwaltung zu, wie es heute ist.",
        "moin, ich bin heute nicht da und komme morgen wieder in das büro",
        "The patient, Mr. Lane of 12 High Street, was born on 3 March 1961.",
    ],
)
def test_ordinary_sentences_and_english_are_left_alone(text):
    assert found(text) == []


@pytest.mark.parametrize(
    "unit",
    ["Frau Dr. ", "geb. ", "rue de la ", "Ausweis Nr. ", "A. ", "12 ", "van der ", "Ab-", "é "],
)
def test_a_hostile_text_takes_linear_time(unit):
    def seconds(count: int) -> float:
        text = "ich bin der mit den und " + unit * count
        began = time.process_time()
        found(text)
        return time.process_time() - began

    seconds(50)
    assert seconds(20_000 // len(unit)) < 3.0
