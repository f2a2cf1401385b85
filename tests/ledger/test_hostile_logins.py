"""A service's password is stolen, and nothing of the ledger moves: names that cannot be shadowed, rights by name."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from domain.kit.database import UnsafeLogin, require_safe_login
from ledger import work
from ledger.guard import TamperedDatabase, require_intact
from ledger.reserve import Priced
from ledger.tables import phase, reservation
from ledger.verify import verify_budget
from tests.conftest import Database
from tests.ledger.worlds import World

SEARCH_PATH = "search_path=pg_catalog, ledger, pg_temp"
JOB = Priced(0.01, 1.0, 200)
FORGET = "UPDATE ledger.budget SET reserved = array_fill(0::numeric, ARRAY[cardinality(reserved)])"
PAY_ONE = "UPDATE ledger.phase SET steps_authorised = 1"


@pytest.fixture(scope="module")
def world(module_database: Database) -> World:
    """What a session was made to hold ends with it, and settings of a login are those of new sessions."""
    return World(module_database, pool=sa.NullPool)


def shadowed(act: str) -> list[str]:
    """A type of the caller's, in the place of one that the ledger's functions declare variables of: checking a value
    of it does what the caller wants, as whoever the function runs as."""
    return [
        f"CREATE FUNCTION pg_temp.act() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN {act}; RETURN true; END $$",
        "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.act())",
        "CREATE DOMAIN pg_temp.bigint AS pg_catalog.int8 CHECK (pg_temp.act())",
        "CREATE DOMAIN pg_temp.numeric AS pg_catalog.numeric CHECK (pg_temp.act())",
        "CREATE DOMAIN pg_temp.jsonb AS pg_catalog.jsonb CHECK (pg_temp.act())",
        "CREATE DOMAIN pg_temp.boolean AS pg_catalog.bool CHECK (pg_temp.act())",
        # and tables, for whoever forgets to say which one is meant
        "CREATE TABLE pg_temp.api_key (id text, tenant_id text, scopes text[], project text, revoked_at timestamptz)",
        "CREATE TABLE pg_temp.budget (id text)",
    ]


@contextmanager
def may_make_temporary_tables(world: World, login: str) -> Iterator[None]:
    """As if the revocation had been forgotten: the search path alone must hold."""
    name = world.database.name
    with world.root.begin() as c:
        c.exec_driver_sql(f"GRANT TEMPORARY ON DATABASE {name} TO {login}")
    yield
    with world.root.begin() as c:
        c.exec_driver_sql(f"REVOKE TEMPORARY ON DATABASE {name} FROM {login}")


def state(world: World, budget: str) -> tuple[object, ...]:
    held = world.balance(budget)
    with world.api.connect() as c:
        steps = c.execute(
            sa.select(phase.c.steps_authorised, phase.c.steps_max)
            .join(reservation, reservation.c.id == phase.c.reservation_id)
            .where(reservation.c.budget_id == budget)
        ).all()
        assert verify_budget(c, budget) == []
    return held.spent, held.reserved, held.cap, sorted(map(tuple, steps))


TRIGGERS = {
    "tacit_api": [
        "INSERT INTO fingerprint SELECT '{tenant}', 'record', '\\x00', '{budget}' WHERE false",
        "INSERT INTO fingerprint VALUES ('{tenant}', 'record', sha256('{budget}'), '{budget}')",
        'INSERT INTO ledger.entry (budget_id, kind, detail) VALUES (\'{budget}\', \'limit\', \'{{"epsilon": "7.9", "reason": "r"}}\')',
        "UPDATE ledger.work SET stop_requested = true WHERE job_id = '{job}'",
        "UPDATE ledger.work SET paused_at = now() WHERE job_id = '{job}'",
    ],
    "tacit_worker": [
        "INSERT INTO ledger.authorisation (reservation_id, ordinal, fence, steps) VALUES ('{reservation}', 0, 1, 200)",
        "INSERT INTO checkpoint (job_id, fence, step, blob) VALUES ('{job}', 1, 1, 'jobs/{job}/checkpoints/b')",
        "UPDATE ledger.work SET lease_until = now() + interval '1 minute' WHERE job_id = '{job}'",
        "INSERT INTO ledger.entry (budget_id, kind, reservation_id, outcome, fence) VALUES ('{budget}', 'settle', '{reservation}', 'cancelled', 1)",
    ],
}


@pytest.mark.parametrize("login", TRIGGERS)
@pytest.mark.parametrize("act", [FORGET, PAY_ONE])
def test_nothing_of_the_callers_takes_the_place_of_a_name(world: World, login: str, act: str) -> None:
    engine = world.api if login == "tacit_api" else world.worker
    for trigger in TRIGGERS[login]:
        outcomes = []
        for allowed in (False, True):
            budget = world.budget()
            job, _ = world.submit([(world.file(budget), budget, [JOB])])
            with world.worker.begin() as c:
                assert work.claim(c, job, "w", 60) == work.Lease(job, 1)
                resv = c.execute(sa.select(reservation.c.id).where(reservation.c.job_id == job)).scalar_one()
            words = {"tenant": world.tenant, "budget": budget, "job": job, "reservation": resv}
            if not allowed:
                with engine.connect() as c:
                    for statement in shadowed(act):
                        with pytest.raises(sa.exc.ProgrammingError, match="temporary"), c.begin_nested():
                            c.exec_driver_sql(statement.replace("%", "%%"))
                with engine.begin() as c:  # what the statement does by itself
                    c.exec_driver_sql(trigger.format(**words))
            else:
                with may_make_temporary_tables(world, login), engine.begin() as c:
                    for statement in shadowed(act):
                        c.exec_driver_sql(statement)
                    c.exec_driver_sql("SET LOCAL search_path = pg_temp, pg_catalog, ledger, public")
                    c.exec_driver_sql(trigger.format(**words).replace(" fingerprint ", " public.fingerprint "))
            outcomes.append(state(world, budget))
        assert outcomes[0] == outcomes[1], trigger


LISTS = {
    "counted from 0": "[0:11]={2147483647,1,1,1,1,1,1,1,1,1,1,1}",
    "of two dimensions": "{{1,1,1,1,1,1,1,1,1,1,1,1}}",
    "with a hole": "{NULL,1,1,1,1,1,1,1,1,1,1,2}",
    "with a zero": "{0,1,1,1,1,1,1,1,1,1,1,2}",
    "with a minus": "{-1,2,1,1,1,1,1,1,1,1,1,2}",
    "too short": "{12}",
    "too long": "{1,1,1,1,1,1,1,1,1,1,1,0,1}",
    "empty": "{}",
    "that add up to more": "{2,1,1,1,1,1,1,1,1,1,1,1}",
}


@pytest.mark.parametrize("what", LISTS)
def test_weights_that_are_no_split_of_delta_are_refused(world: World, what: str) -> None:
    """Eleven orders of the first revisions with hardly any weight would be caps of 12 nats where 1 is allowed."""
    insert = sa.text(
        "INSERT INTO ledger.budget (id, tenant_id, name, epsilon, delta, unit, reference, weight_numerators,"
        " weight_denominator) VALUES (:id, :t, 'n', 1, 1e-5, 'record',"
        ' \'{"sample_rate"\\: 0.01, "steps"\\: 500, "noise_multiplier"\\: null}\', CAST(:w AS int[]), 12)'
    )
    for engine in (world.api, world.admin, world.root):
        with pytest.raises(sa.exc.IntegrityError), engine.begin() as c:
            c.execute(insert, {"id": f"budget_{what}", "t": world.tenant, "w": LISTS[what]})
    with world.api.begin() as c:  # and a split is taken
        c.execute(insert, {"id": f"budget_{what}", "t": world.tenant, "w": "{1,1,1,1,1,1,1,1,1,1,1,1}"})


def test_an_entry_that_a_unique_index_drops_has_done_nothing(world: World) -> None:
    budget = world.budget()
    job, _ = world.submit([(world.file(budget), budget, [JOB])])
    with world.api.connect() as c:
        resv = c.execute(sa.select(reservation.c.id).where(reservation.c.job_id == job)).scalar_one()
    before = state(world, budget)
    for values in (f"('{budget}', 'open', NULL)", f"('{budget}', 'reserve', '{resv}')"):
        for end in ("ON CONFLICT DO NOTHING", ""):
            with pytest.raises(sa.exc.DBAPIError), world.api.begin() as c:
                c.exec_driver_sql(f"INSERT INTO ledger.entry (budget_id, kind, reservation_id) VALUES {values} {end}")
    assert state(world, budget) == before


# -- what the next function, table or type must not forget


def catalogue(world: World, query: str) -> list[str]:
    with world.admin.connect() as c:
        return [" ".join(map(str, row)) for row in c.exec_driver_sql(query.replace("%", "%%"))]


OURS = "IN ('ledger'::regnamespace, 'public'::regnamespace)"


def test_every_function_is_closed_and_finds_its_names_where_they_belong(world: World) -> None:
    loose = f"""
        SELECT oid::regprocedure FROM pg_proc WHERE pronamespace {OURS}
          AND prosqlbody IS NULL AND NOT coalesce(proconfig, '{{}}') @> ARRAY['{SEARCH_PATH}']"""
    assert catalogue(world, loose) == []
    free = f"SELECT oid::regprocedure FROM pg_proc WHERE pronamespace {OURS} AND prosecdef AND prosqlbody IS NOT NULL"
    assert catalogue(world, free) == []
    open_ = f"""SELECT p.oid::regprocedure FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                WHERE p.pronamespace {OURS} AND a.grantee = 0"""
    assert catalogue(world, open_) == []
    # Tables outside pg_catalog and ledger are named with their schema; so are the ledger's own.
    bodies = f"SELECT p.oid::regprocedure || E'\\n' || p.prosrc FROM pg_proc p WHERE p.pronamespace {OURS} AND p.prosqlbody IS NULL"
    tables = catalogue(world, f"SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace {OURS}")
    for body in catalogue(world, bodies):
        code = re.sub(r"--.*|'[^']*'", "", body)
        read = re.findall(r"\b(?:FROM|JOIN|INTO|UPDATE)\s+([a-z_.]+)", code)
        assert [name for name in read if name in tables] == [], body.splitlines()[0]


def test_every_check_is_true_and_every_list_has_a_shape(world: World) -> None:
    unknown = f"""
        SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE contype = 'c' AND connamespace {OURS} AND pg_get_constraintdef(oid) !~ 'IS TRUE\\)+$'"""
    assert catalogue(world, unknown) == []
    bare = f"""
        SELECT a.attrelid::regclass, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        JOIN pg_type t ON t.oid = a.atttypid
        WHERE c.relnamespace {OURS} AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND t.typcategory = 'A' AND t.typtype = 'b'"""
    assert catalogue(world, bare) == []
    shapes = f"""
        SELECT t.typname FROM pg_type t WHERE t.typnamespace {OURS} AND t.typtype = 'd' AND NOT EXISTS (
          SELECT FROM pg_constraint k WHERE k.contypid = t.oid AND pg_get_constraintdef(k.oid) ~ 'array_ndims.*array_lower.*array_position')"""
    assert catalogue(world, shapes) == []


def test_every_table_is_written_under_read_committed_alone(world: World) -> None:
    without = f"""
        SELECT c.oid::regclass FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace {OURS} AND c.relname <> 'alembic_version'
          AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'a_read_committed' AND t.tgenabled = 'O'
                          AND t.tgfoid = 'ledger.read_committed'::regproc AND t.tgtype = 30)"""
    assert catalogue(world, without) == []


def test_nobody_makes_anything_and_the_owner_is_nobody(world: World) -> None:
    makers = """
        SELECT r.rolname, n.nspname FROM pg_roles r, pg_namespace n
        WHERE r.rolname ~ '^tacit_(api|worker)' AND has_schema_privilege(r.oid, n.oid, 'CREATE')"""
    assert catalogue(world, makers) == []
    others = f"""
        SELECT oid::regclass FROM pg_class WHERE relnamespace {OURS} AND relowner <> 'tacit_owner'::regrole
        UNION ALL SELECT oid::regproc FROM pg_proc WHERE pronamespace {OURS} AND proowner <> 'tacit_owner'::regrole
        UNION ALL SELECT oid::regtype FROM pg_type WHERE typnamespace {OURS} AND typowner <> 'tacit_owner'::regrole"""
    assert (
        catalogue(world, others.replace("regclass", "text").replace("regproc", "text").replace("regtype", "text")) == []
    )
    strong = """
        SELECT rolname FROM pg_roles WHERE rolname ~ '^tacit_'
          AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)"""
    assert catalogue(world, strong) == []
    assert catalogue(world, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'tacit_owner'") == ["False"]


# -- what a service refuses to start on

CHANGES = {
    "a search path": (
        "ALTER FUNCTION ledger.post() SET search_path = pg_catalog, ledger",
        f"ALTER FUNCTION ledger.post() SET {SEARCH_PATH.replace('=', ' = ')}",
    ),
    "an owner": ("ALTER TABLE ledger.budget OWNER TO postgres", "ALTER TABLE ledger.budget OWNER TO tacit_owner"),
    "an owner of a function": (
        "ALTER FUNCTION ledger.authorise() OWNER TO postgres",
        "ALTER FUNCTION ledger.authorise() OWNER TO tacit_owner",
    ),
    "a right to execute": (
        "GRANT EXECUTE ON FUNCTION ledger.reprice(text) TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTION ledger.reprice(text) FROM PUBLIC",
    ),
    "a right to make tables": (
        "GRANT CREATE ON SCHEMA ledger TO tacit_worker",
        "REVOKE CREATE ON SCHEMA ledger FROM tacit_worker",
    ),
    "a right to make temporary tables": (
        "DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database()); END $$",
        "DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$",
    ),
    "a right to read": ("GRANT SELECT ON api_key TO tacit_worker", "REVOKE SELECT ON api_key FROM tacit_worker"),
    "a setting of a group": (
        "ALTER ROLE tacit_api SET search_path = public",
        "ALTER ROLE tacit_api RESET search_path",
    ),
    "a setting of a login": (
        "ALTER ROLE tacit_worker_login SET role = tacit_worker",
        "ALTER ROLE tacit_worker_login RESET role",
    ),
    "a setting of the database": (
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database()); END $$",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET default_transaction_isolation', current_database()); END $$",
    ),
    "a rule": (
        "CREATE RULE nothing AS ON INSERT TO ledger.authorisation DO INSTEAD NOTHING",
        "DROP RULE nothing ON ledger.authorisation",
    ),
    "a default": (
        "ALTER TABLE ledger.phase ALTER indivisible SET DEFAULT true",
        "ALTER TABLE ledger.phase ALTER indivisible SET DEFAULT false",
    ),
    "row security": (
        "ALTER TABLE ledger.entry ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE ledger.entry DISABLE ROW LEVEL SECURITY",
    ),
    "a policy": (
        "CREATE POLICY everything ON ledger.entry USING (true)",
        "DROP POLICY everything ON ledger.entry",
    ),
    "a parameter": (
        "GRANT SET ON PARAMETER session_replication_role TO tacit_api",
        "REVOKE SET ON PARAMETER session_replication_role FROM tacit_api",
    ),
    "a curve": (
        "INSERT INTO ledger.curve (id, description, proof, step_cost, indivisible) VALUES ('free', 'd', 'p', array_fill(1::bigint, ARRAY[12]), false)",
        "SET LOCAL session_replication_role = replica; DELETE FROM ledger.curve",
    ),
    "an index": (
        "DROP INDEX ledger.one_settlement",
        "CREATE UNIQUE INDEX one_settlement ON ledger.entry (reservation_id) WHERE kind = 'settle'; ALTER INDEX ledger.one_settlement OWNER TO tacit_owner",
    ),
    "a type": ("CREATE TYPE ledger.text AS (x int)", "DROP TYPE ledger.text"),
    "a schema": ("CREATE SCHEMA elsewhere", "DROP SCHEMA elsewhere"),
    "a cast": (
        "CREATE CAST (bigint AS ledger.weights) WITH INOUT",
        "DROP CAST (bigint AS ledger.weights)",
    ),
    "an operator": (
        "CREATE OPERATOR ledger.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_catalog.texteq)",
        "DROP OPERATOR ledger.<> (text, text)",
    ),
    "an event trigger": (
        "CREATE FUNCTION pg_catalog.noticed() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER noticed ON ddl_command_end EXECUTE FUNCTION pg_catalog.noticed()",
        "DROP EVENT TRIGGER noticed; DROP FUNCTION pg_catalog.noticed()",
    ),
    "a type of a column": (
        "ALTER TABLE ledger.curve ALTER proof TYPE varchar",
        "ALTER TABLE ledger.curve ALTER proof TYPE text",
    ),
    "a column that may be missing": (
        "ALTER TABLE ledger.entry ALTER hash DROP NOT NULL",
        "ALTER TABLE ledger.entry ALTER hash SET NOT NULL",
    ),
    "a membership": ("GRANT pg_read_all_data TO tacit_worker", "REVOKE pg_read_all_data FROM tacit_worker"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_service_does_not_start_on_a_database_that_was_changed(world: World, what: str) -> None:
    change, back = CHANGES[what]
    with world.root.begin() as c:
        if "pg_catalog.noticed" in change:
            c.exec_driver_sql("SET LOCAL allow_system_table_mods = on")
        c.exec_driver_sql(change.replace("%", "%%"))
    try:
        for engine in (world.api, world.worker):
            with engine.connect() as c, pytest.raises(TamperedDatabase):
                require_intact(c)
    finally:
        with world.root.begin() as c:
            c.exec_driver_sql(back.replace("%", "%%"))
    for engine in (world.api, world.worker):
        with engine.connect() as c:
            require_intact(c)


@pytest.mark.parametrize(
    "right",
    [
        *("SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS"),
        *("tacit_owner", "tacit_admin", "pg_execute_server_program", "pg_write_all_data"),
    ],
)
def test_a_login_with_more_rights_than_a_service_is_refused(world: World, right: str) -> None:
    role = "tacit_worker_login"
    grant = f"GRANT {right} TO {role}" if right.islower() else f"ALTER ROLE {role} {right}"
    back = f"REVOKE {right} FROM {role}" if right.islower() else f"ALTER ROLE {role} NO{right}"
    with world.root.begin() as c:
        c.exec_driver_sql(grant)
    try:
        with world.worker.connect() as c, pytest.raises(UnsafeLogin, match=role):
            require_safe_login(c)
    finally:
        with world.root.begin() as c:
            c.exec_driver_sql(back)
    with world.worker.connect() as c:
        require_safe_login(c)
