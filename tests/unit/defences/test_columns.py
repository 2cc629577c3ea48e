"""What the names of columns say."""

from __future__ import annotations

import pytest

from cosilo.defences.columns import PUBLIC, says


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("name", "PERSON"),
        ("Full Name", "PERSON"),
        ("lastName", "PERSON"),
        ("customer.last_name", "PERSON"),
        ("Nachname", "PERSON"),
        ("prénom", "PERSON"),
        ("CARDHOLDER", "PERSON"),
        ("e-mail", "EMAIL"),
        ("X-Phone", "PHONE"),
        ("Mobilnummer", "PHONE"),
        ("ssn", "SSN"),
        ("National Insurance No", "SSN"),
        ("dob", "BIRTH"),
        ("Geburtsdatum", "BIRTH"),
        ("date of birth", "BIRTH"),
        ("billing_address", "ADDRESS"),
        ("Straße", "ADDRESS"),
        ("PLZ", "ADDRESS"),
        ("card_number", "CARD"),
        ("IBAN", "IBAN"),
        ("account_last4", "ID"),
        ("Nom de jeune fille", "PERSON"),
        ("Apellidos", "PERSON"),
        ("Nazwisko rodowe", "PERSON"),
        ("Intestatario del conto", "PERSON"),
        ("Né(e) le", "BIRTH"),
        ("Data urodzenia", "BIRTH"),
        ("Geboren am", "BIRTH"),
        ("Lieu de naissance", "ADDRESS"),
        ("Woonplaats", "ADDRESS"),
        ("Kod pocztowy", "ADDRESS"),
        ("N° de sécurité sociale", "SSN"),
        ("Burgerservicenummer", "SSN"),
        ("Carta d'identità n.", "ID"),
        ("Numer prawa jazdy", "ID"),
        ("Führerschein-Nr.", "ID"),
        ("patient_id", "ID"),
        ("MRN", "ID"),
        ("passportNo", "ID"),
        ("licence_plate", "PLATE"),
        ("username", "USER"),
        ("client_ip", "IP"),
        ("mac", "MAC"),
        ("DB_PASSWORD", "SECRET"),
        ("api-key", "SECRET"),
    ],
)
def test_what_is_private_is_named(label: str, kind: str) -> None:
    assert says(label) == kind


@pytest.mark.parametrize(
    "label",
    [
        *(
            "status",
            "article_no",
            "quantity",
            "branch_city",
            "unit_price",
            "app_version",
            "updated_at",
        ),
        *("product_name", "fileName", "hostname", "card_type", "phone_verified", "account_status"),
        *("http_status", "email_count", "user agent", "language", "Anzahl", "device_name"),
    ],
)
def test_what_is_about_things_is_public(label: str) -> None:
    assert says(label) == PUBLIC


@pytest.mark.parametrize(
    "label", ["", "col7", "f1", "note", "x", "_", "12", "description", "city", "result"]
)
def test_other_names_say_nothing(label: str) -> None:
    assert says(label) == ""
