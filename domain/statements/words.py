"""What statements say in words: the same for everybody, and nothing in it depends on a row."""

import math

from domain.statements.models import StatedUnit, StatedWords

NOT_RECORDED = "not recorded"
RELATION = {"add_or_remove_one": "add or remove one"}
VARIANT = (
    "Approximate differential privacy, (epsilon, delta), by conversion from Renyi differential privacy at the "
    "budget's integer orders (Canonne, Kamath and Steinke 2020, Proposition 12), composed by a filter that stays "
    "valid when jobs are chosen after seeing the results of others (Feldman and Zrnic 2021), with delta shared out "
    "among the orders"
)
ACCOUNTANT = (
    "The database's own pricing function for the Poisson-subsampled Gaussian (Mironov, Talwar and Zhang 2019), in "
    "whole units of 1e-12 nat, rounded up; the same numbers by the library dp-accounting"
)
SENSITIVITY = (
    "the clip norm over all trained parameters together, for each unit that is added or removed, and what rounding can "
    "add to it"
)
COVERS = {
    "record": (
        "What anybody can conclude about one record from what was released, whatever else they know: that it is in the "
        "data, and what it says."
    ),
    "user": (
        "What anybody can conclude about one user from what was released, whatever else they know: that any of the "
        "user's records is in the data, and what all of them say."
    ),
}
LEAVES_OUT = {
    "record": (
        "A person who has several records is protected for each of them, and less for all together. What is true of "
        "many people and can be learnt without anyone's record in particular; harm to a group; and what was known "
        "before."
    ),
    "user": (
        "What several users have in common, such as a household or a team; what is true of many people and can be "
        "learnt without anyone in particular; harm to a group; and what was known before."
    ),
}
UNIT = {
    "record": (
        "One record: all rows of a file whose text is the same but for case, punctuation, white space and what cannot "
        "be seen. Of free text the record is the whole text, whoever it speaks of. Of pictures: all rows of a file "
        "with the same upright pixels, in whatever format; a person on several pictures is in several records."
    ),
    "user": (
        "One user: all rows of a file with the same user id, in whatever spelling of it, at most so many of them as "
        "the bound says."
    ),
}
RESET = (
    "It is counted over everything that was ever released from this budget and never resets: a budget is not "
    "refilled, and deleting a file refunds nothing."
)
LIMITS = (
    StatedWords(
        title="Other releases about the same people",
        text="What other services, other tenants or earlier publications released about the same people adds to this, "
        "and this service does not know of it. A decision that two budgets are of different people, if it is wrong, "
        "makes the losses of both add up for whoever is in both.",
    ),
    StatedWords(
        title="Time",
        text="Progress moves in at most twenty steps and times are given to the minute, but how long a job ran still "
        "depends a little on what was drawn. That is outside the guarantee.",
    ),
    StatedWords(
        title="The base model",
        text="What the base model had learnt before it came here is not undone, and may be about the same people.",
    ),
    StatedWords(
        title="Arithmetic",
        text="Sums and noise are rounded to a public grid, and what rounding can add to the sensitivity is counted. "
        "How far gradients move when their neighbours change was measured on stand-ins and counted with room; that is "
        "a measurement, not a proof. Noise ends at 9.4 deviations.",
    ),
    StatedWords(
        title="Groups and bias",
        text="Noise and clipping cost rare groups more accuracy than common ones. Unless an evaluation by group stands "
        "above, nothing is known of it, nor of how people were chosen for the data or labelled.",
    ),
    StatedWords(
        title="Memorising",
        text="Training was by clipped and noised gradients, so that what is memorised of any one unit is bounded as "
        "stated. A text that many units share may come out word for word; a classifier gives labels alone.",
    ),
)
TRUST = (
    StatedWords(
        title="The people in the data",
        text="They hand their data to the steward: this is the central model of differential privacy.",
    ),
    StatedWords(
        title="The steward",
        text="Reads and uploads the rows and is trusted with them. Decides what is public (labels, declared size), who "
        "may use a budget, and whether what looks like the same people is. Cannot raise a limit or refill a budget.",
    ),
    StatedWords(
        title="Analysts",
        text="May be malicious, as many as there are, and may work together: everything that all of them can see is "
        "within the budget's limit. A job that does not fit is refused; a budget that is spent stays so.",
    ),
    StatedWords(
        title="The operator and the worker",
        text="Run the machines and the training and are trusted with the data and with adding the noise: the ledger "
        "shows what was paid for, not what a changed worker computed.",
    ),
)
HANDLING = (
    StatedWords(
        title="At rest",
        text="Rows, checkpoints and results are stored encrypted, AES-256-GCM under a key for each, wrapped by a "
        "master key that is not in the database.",
    ),
    StatedWords(
        title="Who has access",
        text="Every request needs a key with a scope; analysts need a grant of the budget besides. Rows can be "
        "downloaded by the steward alone, never by an analyst.",
    ),
    StatedWords(
        title="Minimisation and retention",
        text="Only the columns that a task needs are kept. A deleted file's key is destroyed; keyed fingerprints of "
        "its records stay, so that the same people do not come again as new ones. The ledger is never deleted.",
    ),
    StatedWords(
        title="In use",
        text="Rows are in clear in the memory of the process that trains. While an upload is checked it lies in a "
        "folder of the service's own. No process leaves a core dump.",
    ),
    StatedWords(
        title="How the implementation is tested",
        text="Prices against 50-digit arithmetic and two libraries; noise and draws by statistics; clipped sums of "
        "every method against plain automatic differentiation; canaries below the claim and, with half the noise, "
        "above it.",
    ),
)


def unit_of(unit: str, relation: str, most_records: int | None) -> StatedUnit:
    """Who is protected, of a budget's own columns."""
    bound = (
        "One record adds at most one contribution to each step, however often its text or picture is in the file."
        if unit == "record"
        else f"At most {most_records} records of a user in a file are used; together they add at most one contribution "
        "to each step."
    )
    return StatedUnit(
        unit=unit,
        relation=relation,
        most_records_per_user=most_records,
        sentence=UNIT[unit],
        bound=f"{bound} {RESET}",
        covers=COVERS[unit],
        leaves_out=LEAVES_OUT[unit],
        why=None,
    )


def caution(epsilon: float | None) -> str:
    """How to take an epsilon of this size."""
    if epsilon is None:
        return "No epsilon can be stated."
    if not epsilon:
        return "Nothing was charged, so that there is no promise to weigh."
    if epsilon <= 1:
        size = "An epsilon of at most 1 is a strong promise."
    elif epsilon <= 5:
        size = "An epsilon between 1 and 5 is a middling promise: whether it is enough depends on what is at stake."
    elif epsilon <= 10:
        size = "An epsilon between 5 and 10 promises little by itself."
    else:
        size = "An epsilon above 10 promises next to nothing by itself."
    return f"{size} The factor exp(epsilon) is the worst that could be; the odds below say more of what to expect."


def shown(epsilon: float) -> str:
    """An epsilon for people, never less than it is."""
    return f"{math.ceil(round(epsilon * 1000, 6)) / 1000:g}"


def factor(epsilon: float) -> str:
    """exp(epsilon) for people, never less than it is."""
    value = math.exp(math.ceil(round(epsilon * 1000, 6)) / 1000)
    return f"{math.ceil(value * 100) / 100:g}" if value < 100 else f"{value:.2g}"


def promise(epsilon: float, delta: float, unit: str, what: str) -> str:
    """A guarantee in plain words. what: what was released, as the beginning of the sentence."""
    return (
        f"{what} is ({shown(epsilon)}, {delta:g})-differentially private with respect to adding or removing one "
        f"{unit}. That is: whatever anybody concludes from it about any one {unit}, and whatever else they know, "
        f"would have been concluded almost as likely without that {unit} in the data: at most exp({shown(epsilon)}) = "
        f"{factor(epsilon)} times as likely with it, except with a probability of about {delta:g}."
    )


def audited(canaries: int, confidence: float, claim: float, bound: float) -> str:
    """What a job's audit found, and what that shows. bound: the largest."""
    return (
        f"Before it read a row, the worker trained on {canaries} made-up units with this job's method, unit, clipping "
        "and epsilon, on a little public model, and tried to tell which of them were in. With confidence "
        f"{confidence:g} that shows an epsilon of at least {bound:.3g}, below the {claim:.3g} that was "
        "claimed of that run. A bound above it would have ended the job; one below proves nothing by itself."
    )


def synthetic(asked: bool, sampled: bool, released: bool) -> str:
    """What is said of text that was sampled from a model."""
    if not asked:
        return "No synthetic data was asked for."
    if not released:
        return "Synthetic text was asked for; none was released."
    if not sampled:
        return "Synthetic text was asked for, but none could be sampled."
    return (
        "Text was sampled from the released model, steered by public values alone. It follows from the model, is "
        "exactly as private as it, and cost nothing more. It is no anonymised copy of rows, and a text that several "
        "rows share may appear word for word."
    )
