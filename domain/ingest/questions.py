"""What a steward is asked about a file that was taken: it may be meant so, or may not."""

from collections.abc import Collection, Iterable, Mapping

from domain.ingest.columns import MISSING, Followed, HeldColumn
from domain.ingest.looks import CONTENT
from domain.ingest.report import ClassCount, Conflicts, Question, shown

MISSING_CLASSES = MISSING | {"missing", "undefined"}
MOST_PERSON_COLUMNS = 10
MOST_ODD_CLASSES = 50
MOST_UNUSED = 10
TEXT_SHARE = 3
"""One record in so many has more than a few words in a column that holds texts."""
CATEGORIES = 10
"""Fewer values than this are kinds of things rather than people, whatever they look like."""
REPEATED_SHARE = 100
"""More than one record in so many repeats: worth a question."""
REMARKED_EPSILON = 3


def person_columns(columns: Iterable[Followed]) -> list[Question]:
    """Columns whose values look like people, where the unit is the record; those with the most records of one first."""
    found = sorted(
        (c for c in columns if c.most > 1 and (c.declared or c.by_name or _repeats(c))), key=lambda c: -c.most
    )
    return [_person(column) for column in found[:MOST_PERSON_COLUMNS]]


def _repeats(column: Followed) -> bool:
    """Whether values repeat as the ids of people do."""
    some = column.distinct >= CATEGORIES and 2 * column.distinct <= column.values
    return column.like_ids and some and 2 * column.most <= column.values


def _person(column: Followed) -> Question:
    name, k = shown(column.name), column.most
    why = "as it was named the column of users" if column.declared else "because its values repeat as ids do"
    why = "by its name" if column.by_name else why
    message = (
        f"'{name}' looks like a person, {why}: {column.distinct} different values in {column.values} records, and "
        f"one of them in {k}. The unit of the budget is the record, so what epsilon and delta promise, they promise "
        f"for one record. For somebody with {k} records that is {k} x epsilon and {k} x exp({k - 1} x epsilon) x "
        "delta (group privacy: Vadhan 2017, lemma 2.2; Dwork and Roth 2014, theorem 2.2): "
        f"epsilon {REMARKED_EPSILON} is {k * REMARKED_EPSILON} for that person. A budget with unit=user and "
        f"max_records_per_user protects people, with columns[user]={name}. These records stay with their first budget: "
        "before anything is spent, freeze it and upload again with overlap=different_population and the reason"
    )
    return Question(
        code="person_column",
        column=name,
        message=message,
        detail={"records": k, "values": column.distinct, "epsilon_factor": k},
    )


def unused_texts(columns: Iterable[HeldColumn]) -> list[Question]:
    """Columns that are not used although they hold texts, or are known to say something of each record."""
    found = [c for c in columns if c.values and (c.name.casefold() in CONTENT or TEXT_SHARE * c.texts >= c.looked)]
    return [_unused(column) for column in found[:MOST_UNUSED]]


def _unused(column: HeldColumn) -> Question:
    name = shown(column.name)
    message = (
        f"'{name}' is not used, and has a value in {column.values} of the first {column.looked} records: jobs learn "
        "nothing of it, and records that differ in it alone are the same record. Join it to a column that is used, and "
        "upload again, or leave it where it does not matter"
    )
    detail = {"records": column.values, "looked": column.looked}
    return Question(code="unused_text", column=name, message=message, detail=detail)


def odd_classes(classes: Mapping[str, ClassCount], columns: Collection[str]) -> list[Question]:
    """Classes that look like a header in the middle of joined files, or like no value at all."""
    headers = {name.strip().casefold() for name in columns}
    found = []
    for label, count in classes.items():
        plain = label.casefold()
        why = (
            "is the name of a column, as of a header in the middle of joined files"
            if plain in headers
            else "looks like a missing value"
            if plain in MISSING_CLASSES
            else None
        )
        if count.read and why:
            message = f"the class '{label}' {why}: {count.read} records have it, and a classifier would learn it"
            found.append(Question(code="odd_class", label=label, message=message, detail={"records": count.read}))
    return found[:MOST_ODD_CLASSES]


def single_records(classes: Mapping[str, ClassCount]) -> list[Question]:
    """Classes of pictures that have one picture: often a folder that was put in by mistake."""
    found = [label for label, count in classes.items() if count.read == 1]
    return [
        Question(
            code="single_record",
            label=label,
            message=f"the class '{label}' has one picture: nothing can be learnt of it privately, and its name "
            "tells that there is one. Is it a class?",
            detail={"records": 1},
        )
        for label in found[:MOST_ODD_CLASSES]
    ]


def empty_classes(folders: int) -> list[Question]:
    """Folders of an archive that would be classes, without a picture."""
    if not folders:
        return []
    message = (
        f"{folders} folders of the archive that would be classes hold no picture. `publish` leaves them out of the "
        "labels; name the labels where they are classes all the same"
    )
    return [Question(code="empty_class", message=message, detail={"folders": folders})]


def conflicting_labels(conflicts: Conflicts, which: str, what: str = "texts") -> list[Question]:
    """Texts, or pictures, with several labels. `which`: what becomes of them, in words."""
    if not conflicts.texts:
        return []
    message = (
        f"{conflicts.texts} {what} came with two or more different labels, in {conflicts.records} records: {which}. "
        "Which label is right?"
    )
    return [Question(code="conflicting_labels", message=message, detail=conflicts.model_dump())]


def many_repeated(repeated: int, read: int, *, kept: bool) -> list[Question]:
    """Records that are the same as earlier ones, where they are many."""
    if repeated * REPEATED_SHARE <= read:
        return []
    became = "kept, and count twice in every measurement" if kept else "left out"
    message = (
        f"{repeated} of {read} records are the same as earlier ones and were {became}. Is the file joined from copies?"
    )
    return [Question(code="many_repeated", message=message, detail={"repeated": repeated, "read": read})]
