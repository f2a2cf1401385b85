"""The decisions of the ledger's functions, each beside the acts that would make it wrong."""

from collections.abc import Sequence
from decimal import Decimal

from tests.ledger.isolation import acts as a
from tests.ledger.isolation import populations as p
from tests.ledger.isolation import silos as s
from tests.ledger.isolation.matrix import Case
from tests.ledger.isolation.sessions import Act

JOB = a.submission()
CLAIMED = [JOB, a.claim()]
BEGUN = [*CLAIMED, a.authorisation()]
OTHER_JOB = a.submission("job2")
FULL, SECOND_FULL = a.submission(steps=a.EDGE), a.submission("job2", a.EDGE)
GRANTED = [a.give()]
BY_ANALYST = a.submission(by="analyst")
WAITING = [a.rules(days=7), JOB]
OF_TWO = [a.submission(budgets="ab"), a.claim()]
SUCCEEDED = [*BEGUN, a.settlement()]
UNFENCED = a.settlement("cancelled", fence=None)


def of(
    function: str, decision: Act, others: Sequence[Act], first: Sequence[Act] = (), *, sound: bool = True
) -> list[Case]:
    return [Case(function, decision, other, first, sound) for other in others]


def _reserve_and_settle() -> list[Case]:
    reserve, settle = "ledger.post reserve", "ledger.post settle"
    return [
        *of(reserve, FULL, [SECOND_FULL, a.FREEZE, a.lower(), a.correct(), a.RECORDS]),
        *of(reserve, SECOND_FULL, [UNFENCED, a.raise_()], [FULL]),
        *of(reserve, OTHER_JOB, [a.THAW], [JOB, a.FREEZE]),
        *of(
            settle,
            a.settlement(),
            [
                a.authorisation(),
                a.settlement("cancelled"),
                a.TAKE_OVER,
                a.PAUSE,
                a.FREEZE,
                OTHER_JOB,
                a.lower(),
                a.RENEW,
            ],
            CLAIMED,
        ),
        *of(settle, a.settlement("failed"), [a.authorisation(), a.settlement("cancelled")], CLAIMED),
        *of(settle, a.settlement("cancelled"), [a.authorisation(30)], [a.submission(indivisible=True), a.claim()]),
        *of(settle, UNFENCED, [a.claim(), a.settlement("failed", fence=None)], [JOB]),
        *of(settle, UNFENCED, [a.DROP, a.authorisation()], BEGUN),
        *of(settle, UNFENCED, [a.RENEW, a.TAKE_OVER], [*BEGUN, a.LAPSE]),
    ]


def _decisions_about_a_budget() -> list[Case]:
    freeze, limit, correction, reprice = (
        f"ledger.post {kind}" for kind in ("freeze", "limit", "correction", "reprice")
    )
    return [
        *of(freeze, a.FREEZE, [a.authorisation(), OTHER_JOB, a.settlement()], CLAIMED),
        *of(freeze, a.FREEZE, [a.THAW, a.FREEZE], [a.FREEZE]),
        *of("ledger.post thaw", a.THAW, [a.correct(8), a.lower(Decimal("0.5")), a.FREEZE], [FULL, a.FREEZE]),
        *of(limit, a.lower(), [FULL, a.lower(Decimal(3)), a.raise_()]),
        *of(limit, a.lower(), [a.authorisation(), a.settlement("cancelled")], [FULL, a.claim()]),
        *of(limit, a.raise_(), [SECOND_FULL, a.lower(), a.raise_(12), a.FREEZE], [FULL]),
        *of(correction, a.correct(), [FULL, a.correct(6), a.lower()]),
        *of(correction, a.correct(), [UNFENCED], [FULL]),
        *of(
            reprice,
            a.REPRICE,
            [a.authorisation(20), a.settlement(), OTHER_JOB, a.FREEZE],
            a.at_half_price(*BEGUN),
            sound=False,
        ),
        *of("ledger.post overlap", a.overlap("a", "b"), [a.FREEZE, a.overlap("a", "b")]),
        *of("ledger.post records", a.RECORDS, [JOB, a.RECORDS]),
    ]


def _rights() -> list[Case]:
    reserve, approve = "ledger.decide reserve", "ledger.decide approve"
    grant, revoke, rules = (f"ledger.decide {kind}" for kind in ("grant", "revoke", "rules"))
    of_project = [a.give("grant2", key=None)]
    return [
        *of(reserve, BY_ANALYST, [a.REGRANT, a.revoke(), a.rules()], GRANTED),
        *of(reserve, BY_ANALYST, [a.give(), a.rules()], of_project),
        *of(reserve, JOB, [a.rules(), a.rules(None, 9)]),
        *of(approve, a.approve(), [UNFENCED, a.approve("third"), a.rules(None, 3), a.FREEZE], WAITING),
        *of(grant, a.give(), [a.give("grant2"), a.give("grant2", key=None), JOB]),
        *of(grant, a.give("grant2"), [a.revoke()], GRANTED),
        *of(revoke, a.revoke(), [BY_ANALYST, a.revoke(), a.give("grant2")], GRANTED),
        *of(rules, a.rules(), [OTHER_JOB, a.rules(None, 3)]),
        *of("ledger.reservation_begins", BY_ANALYST, [a.give(), *of_project]),
        *of("ledger.reservation_begins", a.parts("reserve alone", *a.RESERVING), [a.parts("submit", *a.SUBMITTING)]),
    ]


def _grants_and_keys() -> list[Case]:
    limited, shared = [a.give(epsilon=a.HALF)], [a.give(share=a.QUARTER)]
    third, another = a.submission(steps=a.EDGE // 6, by="analyst"), a.submission("job2", a.EDGE // 6, by="analyst")
    at_half = a.at_half_price(third, a.claim(), a.authorisation())
    grant, steward, key = "ledger.post_grant", "ledger.require_steward", "public.api_key_guard"
    of_key = [a.revoke_key(), a.rotate_key("new")]
    return [
        *of(grant, third, [another, a.revoke()], limited),
        *of(grant, another, [UNFENCED], [*limited, third]),
        *of(grant, third, [another, a.lower(), a.raise_(), a.revoke()], shared),
        *of(grant, another, [UNFENCED], [*shared, third]),
        *of(grant, a.settlement(), [a.authorisation(), another, a.revoke()], [*limited, third, a.claim()]),
        *of(grant, a.REPRICE, [a.settlement(), another, a.revoke()], [*limited, *at_half], sound=False),
        *of(steward, a.approve(), of_key, WAITING),
        *of(steward, a.give(by="second"), of_key),
        *of(steward, a.rules(by="second"), of_key),
        *of(steward, a.revoke(by="second"), of_key, GRANTED),
        *of(key, a.revoke_key(), of_key),
        *of(key, a.rotate_key("other"), of_key),
    ]


def _authorisations() -> list[Case]:
    authorise, unpaused, approval = (f"ledger.{name}" for name in ("authorise", "require_unpaused", "require_approval"))
    whole = [a.submission(indivisible=True), a.claim()]
    return [
        *of(
            authorise,
            a.authorisation(60),
            [
                a.FREEZE,
                a.STOP,
                a.settlement(),
                UNFENCED,
                a.authorisation(60),
                a.REPRICE,
                a.lower(Decimal("0.5")),
                OTHER_JOB,
            ],
            CLAIMED,
        ),
        *of(authorise, a.authorisation(60), [a.THAW], [*CLAIMED, a.FREEZE]),
        *of(authorise, a.authorisation(1), [a.authorisation(1)], whole),
        *of("ledger.require_fence", a.authorisation(), [a.TAKE_OVER, a.DROP, a.RENEW], CLAIMED),
        *of(unpaused, a.authorisation(), [a.PAUSE], CLAIMED),
        *of(unpaused, a.authorisation(), [a.RESUME], [*CLAIMED, a.PAUSE]),
        *of(unpaused, a.BARE_CLAIM, [a.PAUSE], [JOB]),
        *of(unpaused, a.BARE_CLAIM, [a.RESUME], [JOB, a.PAUSE]),
        *of(approval, a.BARE_CLAIM, [a.approve(), UNFENCED], WAITING),
        *of(approval, a.claim(), [a.approve(), UNFENCED], WAITING),
        *of(approval, a.authorisation(5, budget="b"), [a.APPROVE_B], [*CLAIMED, a.rules(budget="b"), a.ALSO_B]),
        *of(approval, a.BARE_CLAIM, [a.ALSO_B], [JOB, a.rules(budget="b")]),
    ]


def _work() -> list[Case]:
    guard, pause, fenced = "ledger.work_guard", "ledger.pause_begins", "ledger.fenced_row"
    return [
        *of(guard, a.claim(), [UNFENCED, a.claim(), a.BARE_CLAIM, a.PAUSE, a.STOP, a.FREEZE], [JOB]),
        *of(guard, a.BARE_CLAIM, [a.BARE_CLAIM, UNFENCED], [JOB]),
        *of(guard, a.claim(), [a.DROP, a.RENEW, a.settlement()], BEGUN),
        *of(guard, a.RENEW, [a.TAKE_OVER, a.DROP, a.settlement(), a.PAUSE, a.STOP], BEGUN),
        *of(guard, a.DROP, [a.TAKE_OVER, a.RENEW, a.authorisation()], BEGUN),
        *of(pause, a.PAUSE, [a.claim(), a.PAUSE, UNFENCED], [JOB]),
        *of(pause, a.PAUSE, [a.RESUME], [JOB, a.PAUSE]),
        *of(pause, a.EXCUSE, [a.RESUME, a.TAKE_OVER], [*CLAIMED, a.PAUSE]),
        *of(fenced, a.release("r1"), [a.settlement(), a.settlement("failed"), a.TAKE_OVER], BEGUN),
        *of(fenced, a.release("r1"), [a.release("r2"), a.TAKE_OVER, a.DROP], SUCCEEDED),
        *of(fenced, a.CHECKPOINT, [a.TAKE_OVER, a.DROP, a.settlement()], BEGUN),
    ]


def _teachers() -> list[Case]:
    teacher, taught = "ledger.require_teacher", a.submission("job2", teacher="job")
    return [
        *of(teacher, taught, [a.release("r1"), a.ALSO_B], SUCCEEDED),
        *of(teacher, taught, [a.release("r2"), a.ALSO_B, a.FREEZE], [*SUCCEEDED, a.release("r1")]),
        *of(teacher, a.submission("job2", budgets="b", teacher="job"), [a.release("r1"), a.FREEZE], SUCCEEDED),
    ]


def _submissions() -> list[Case]:
    whole = a.parts("submit", *a.SUBMITTING)
    uncharged = a.parts("reserve without a charge", "job", "job_file", "reservation", "phase")
    unreserved = a.parts("submit without reserving", "job", "job_file")
    return [
        *of("ledger.phase_price", a.SECOND_PHASE, [whole]),
        *of("ledger.phase_price", a.SECOND_PHASE, [UNFENCED], [JOB]),
        *of("ledger.decide_whole", a.submission(indivisible=True), [a.SECOND_PHASE, a.FREEZE, OTHER_JOB]),
        *of("ledger.require_charge", uncharged, [whole, a.parts("charge", "entry")]),
        *of("ledger.require_reservation", unreserved, [whole, a.parts("reserve", *a.RESERVING)]),
    ]


def _populations() -> list[Case]:
    population = "ledger.one_population"
    decided = [a.overlap("a", "b"), a.overlap("b", "a")]
    as_the_service = p.bind_as_the_service("a", 1, 2)
    return [
        *of(population, p.bind("a", 1, 2), [p.bind("b", 2, 3), p.bind("b", 3), p.bind("a", 2, 3)]),
        *of(population, p.bind("a", 1, 2), [a.overlap("a", "b"), p.bind("b", 2)], [p.bind("b", 1)]),
        *of(population, p.bind("a", 1, 2), [p.bind("b", 2, 1)], decided),
        *of(population, as_the_service, [p.bind_as_the_service("b", 2, 1), p.bind_as_the_service("a", 2, 1)]),
    ]


def _sealing() -> list[Case]:
    counted, attested, sealed = (f"ledger.{name}" for name in ("count_population", "attest_records", "seal_records"))
    upload = p.file_that_binds("f1", "a", 1, 2)
    return [
        *of(counted, p.bind("a", 1, 2), [p.bind("a", 2, 3), p.bind("a", 3), a.RECORDS]),
        *of(counted, p.bind("a", 1, 2), [p.bind("a", 2, 3)], [p.bind("a", 4)]),
        *of(attested, a.RECORDS, [p.bind_and_seal("a", 1), p.bind("a", 1), p.file("f2"), a.RECORDS]),
        *of(attested, a.RECORDS, [p.bind("a", 1, 2)], [p.bind("a", 1)]),
        *of(sealed, p.file("f1"), [p.file("f2"), p.bind_and_seal("a", 1), p.bind("a", 1), a.RECORDS, JOB]),
        *of(
            sealed,
            upload,
            [p.file_that_binds("f2", "a", 2, 3), p.file_that_binds("f2", "b", 2, 3), a.RECORDS, a.FREEZE],
        ),
        *of(sealed, upload, [p.file_that_binds("f2", "a", 1, 2)], [p.bind("a", 1, 2)]),
    ]


def _budgets() -> list[Case]:
    no_loss, accept = "ledger.require_no_loss", "ledger.accept_loss"
    return [
        *of("ledger.budget_open", p.open_budget(), [p.open_budget(), a.lower()]),
        *of("ledger.budget_opened open", p.open_budget(), [p.bind("c", 1)]),
        *of("ledger.is_lost", p.LOSE, [p.open_budget("lost"), p.LOSE]),
        *of(no_loss, p.open_budget(), [p.LOSE]),
        *of(no_loss, p.open_budget(), [p.ACCEPT], [p.LOSE]),
        *of(no_loss, p.bind("a", 1), [p.LOSE]),
        *of(no_loss, p.bind("a", 1), [p.ACCEPT], [p.LOSE]),
        *of(accept, p.ACCEPT, [p.ACCEPT, p.BARE_ACCEPT], [p.LOSE]),
        *of(accept, p.BARE_ACCEPT, [p.BARE_ACCEPT], [p.LOSE]),
        *of(accept, p.ACCEPT, [p.LOSE]),
    ]


def _rows_that_change_once() -> list[Case]:
    return [
        *of("public.question_guard", p.answer("publish"), [p.answer("withdrawn")], [p.ASK]),
        *of("public.first_key", p.key("x"), [p.key("y")], [p.key("z")]),
        *of("public.file_guard", a.DELETE_FILE, [a.DELETE_FILE, a.RESTORE_FILE]),
        *of("public.job_guard", a.FINISH, [a.CANCEL], [JOB]),
        *of("public.job_guard", a.CANCEL, [a.FINISH], [JOB]),
    ]


def _silos() -> list[Case]:
    bound, invited = "ledger.require_bound", [s.PARENT, s.INVITE, JOB]
    joined = [*BEGUN, s.PARENT, s.JOIN, s.CLAIM_PARENT]
    opened = [*joined, s.open_round(0)]
    two_rounds = [*opened, s.CLOSE, s.open_round(1)]
    return [
        *of("ledger.work_begins", JOB, [a.DELETE_FILE, OTHER_JOB]),
        *of(bound, a.authorisation(), [a.TAKE_OVER, a.DROP], CLAIMED),
        *of("ledger.bound_row", a.RENEW, [a.TAKE_OVER, a.FINISH], CLAIMED),
        *of("ledger.bound_key", s.DESTROY, [s.DESTROY, s.PLANT], [s.PLANT]),
        *of("public.invitation_guard", s.accept(), [s.WITHDRAW, s.accept("job2"), UNFENCED], [*invited, OTHER_JOB]),
        *of("public.invitation_guard", s.WITHDRAW, [s.accept(), s.WITHDRAW, s.JOIN_INVITED], invited),
        *of("public.silo_begins", s.JOIN, [UNFENCED, s.JOIN], [JOB, s.PARENT]),
        *of("public.silo_begins", s.JOIN_INVITED, [s.WITHDRAW], [*invited, s.accept()]),
        *of("public.round_guard", s.open_round(0), [s.open_round(0), s.open_round(1), s.TAKE_PARENT_OVER], joined),
        *of("public.round_guard", s.CLOSE, [s.CLOSE, s.SEND, s.open_round(1)], [*opened, s.begin()]),
        *of("public.silo_round_guard", s.begin(), [s.CLOSE, a.authorisation(), a.TAKE_OVER], opened),
        *of("public.silo_round_guard", s.begin(1, 6), [s.begin(0, 6)], two_rounds),
        *of("public.silo_round_guard", s.SEND, [s.CLOSE, s.SEND, a.TAKE_OVER], [*opened, s.begin()]),
        *of("ledger.fenced_row", a.release("r1", "fed"), [s.TAKE_PARENT_OVER], [*opened, s.CLOSE]),
        *of("ledger.fenced_row", a.release("r1", "fed"), [s.CLOSE, s.open_round(1)], opened),
    ]


def _lock_order() -> list[Case]:
    """Over two budgets that are named in opposite orders: nobody waits in a circle."""
    first, second = a.submission("job2", budgets="ab"), a.submission("job3", budgets="ba")
    return [
        *of("ledger.post of two", first, [second, a.SETTLE_ALL, a.AUTHORISE_ALL], OF_TWO),
        *of("ledger.post of two", a.SETTLE_ALL, [second, a.AUTHORISE_ALL, a.SETTLE_ALL], OF_TWO),
        *of(
            "ledger.authorise of two",
            a.AUTHORISE_ALL,
            [second, a.SETTLE_ALL, a.AUTHORISE_ALL, a.PAUSE, a.TAKE_OVER],
            OF_TWO,
        ),
    ]


CASES: list[Case] = [
    *_reserve_and_settle(),
    *_decisions_about_a_budget(),
    *_rights(),
    *_grants_and_keys(),
    *_authorisations(),
    *_work(),
    *_teachers(),
    *_submissions(),
    *_populations(),
    *_sealing(),
    *_budgets(),
    *_rows_that_change_once(),
    *_silos(),
    *_lock_order(),
]
