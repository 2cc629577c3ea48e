"""Capitalised words that follow a title, a greeting or an introduction and are nobody's name."""

from __future__ import annotations

from cosilo.defences.languages.guess import function_words

_EXTRA = """
secondo volgens zdaniem pomiędzy według selon según segundo laut gare stazione estación estação
station bahnhof sala saal raum salle zaal spółka prévenez avvisate tochter schwester bruder mutter
vater beschuldigten eure klientka cliënte brat siostra świadek pronto oddział damen herren kollegen
kolleginnen kunde kundin freunde familie team eltern kinder mitglieder nachbarn richter richterin
anwalt anwältin notar notarin polizei staatsanwalt praxis klinik krankenhaus rathaus finanzamt
amtsgericht landgericht bundesrepublik deutschland österreich schweiz deutsche deutscher deutschen
europa montag dienstag mittwoch donnerstag freitag samstag sonntag januar februar märz april mai
juni juli august september oktober november dezember weihnachten ostern pfingsten grüße gruß grüßen
konto rechnung vertrag antrag termin ihnen ihre ihr sie anfrage hilfe fragen adresse telefon madame
monsieur messieurs mesdames mademoiselle maître docteur service client clients clientèle équipe
famille amis collègues france mairie préfecture tribunal hôpital clinique école lycée lundi mardi
mercredi jeudi vendredi samedi dimanche janvier février mars avril juin juillet août septembre
octobre novembre décembre noël pâques société facture contrat compte adresse señor señora señores
señoras cliente clientes equipo familia amigos españa ayuntamiento juzgado hospital clínica colegio
lunes martes miércoles jueves viernes sábado domingo enero febrero marzo mayo junio julio agosto
septiembre octubre noviembre diciembre navidad hacienda servicio departamento agencia sociedad
signore signora signori dottore dottoressa avvocato professore famiglia amici colleghi italia comune
tribunale ospedale clinica scuola lunedì martedì mercoledì giovedì venerdì sabato domenica gennaio
febbraio aprile maggio giugno luglio settembre ottobre dicembre natale pasqua ufficio servizio pan
pani panie państwo panowie rodzina przyjaciele polska polski sąd szpital klinika szkoła urząd urzędu
poniedziałek wtorek środa czwartek piątek sobota niedziela stycznia lutego marca kwietnia maja
czerwca lipca sierpnia września października listopada grudnia dział poczta heer mevrouw meneer
dames collega collega's familie vrienden nederland gemeente rechtbank ziekenhuis kliniek school
maandag dinsdag woensdag donderdag vrijdag zaterdag zondag januari februari maart mei augustus
kerstmis pasen afdeling lezer klant dienst senhor senhora senhores família equipa amigos portugal
câmara hospital escola segunda terça quarta quinta sexta janeiro fevereiro março maio junho julho
setembro outubro novembro dezembro páscoa serviço professor professora professore professoressa
professeur doutor doutora doktor dokter doctor doctora sir support kundendienst kundenservice schule
bank sparkasse versicherung krankenkasse polizei gmbh ag kg sarl sas srl spa sp bv nv lda sa
"""

NO_NAMES = (function_words() | frozenset(_EXTRA.casefold().split())) - {
    "mia",
    "per",
    "ana",
    "sara",
    "dag",
    "lei",
}
