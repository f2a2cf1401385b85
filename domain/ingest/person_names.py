"""Whether the name of a column says that its values are people."""

import re
import unicodedata

_PEOPLE = re.compile(
    # English
    "patient|person|individual|user|customer|client|member|subject|author|employee|mrn|ssn|nhs|email|mail|account|phone"
    "|mobile|telephone|insured|policyholder|subscriber|student|pupil|participant|respondent|donor|resident|citizen|caller"
    "|speaker|writer|reviewer|applicant|candidate|guest|passenger|driver|borrower|debtor|claimant|beneficiary|worker|staff"
    "|contact|owner|holder|passport|login|username|nickname|surname|firstname|lastname|fullname|msisdn|imei|imsi|household"
    "|enrollee|payer"
    # German
    "|patientin|nutzer|nutzerin|benutzer|benutzerin|anwender|kunde|kundin|klient|klientin|mitglied|versichert|versicherte"
    "|versicherter|mitarbeiter|mitarbeiterin|proband|probandin|teilnehmer|teilnehmerin|konto|telefon|handy|autor|verfasser"
    "|schuler|schueler|einwohner|vorname|nachname"
    # French
    "|patiente|personne|utilisateur|membre|sujet|auteur|employe|compte|courriel|assure|adherent|salarie|abonne|prenom"
    # Spanish
    "|paciente|persona|usuario|usuaria|cliente|miembro|sujeto|empleado|cuenta|telefono|correo|asegurado|afiliado|socio"
    "|alumno|participante|titular|apellido"
)
_QUALIFIERS = re.compile(
    "ids?|no|nr|num|number|key|uuid|guid|names?|code|ref|hash|pseudonym|address|identifier|anon|anonymi[sz]ed|study|research"
    "|full|first|last|primary|the"
    "|nummer|kennung|kennzeichen|schluessel|schlussel|numero|cle|nom|identifiant|nombre|clave|codigo|identificador"
    "|de|del|du|la|le|el"
)
_COMPOUND = re.compile(f"({_PEOPLE.pattern})(s|n|en|es|innen)?({_QUALIFIERS.pattern})?")
"""An id's word may have grown on: userid, Versichertennummer."""
_WORD = re.compile(r"[^\W\d_]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])|[A-Z]")


def names_people(column: str) -> bool:
    """Whether a name is a word for a person, alone or with what is said of an id: patient, user_id, KundenNr."""
    words = [_plain(word) for word in _WORD.findall(column)]
    people = [bool(_PEOPLE.fullmatch(word)) or _is_compound(word) for word in words]
    if len(words) == 2 and not any(people):  # Kunden-Nr: the first word is bent by the second
        found = _COMPOUND.fullmatch("".join(words))
        return found is not None and found[3] == words[1]
    return any(people) and all(p or _QUALIFIERS.fullmatch(word) for word, p in zip(words, people, strict=True))


def _plain(word: str) -> str:
    """Small letters without accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(c))


def _is_compound(word: str) -> bool:
    found = _COMPOUND.fullmatch(word)
    return found is not None and found[3] is not None
