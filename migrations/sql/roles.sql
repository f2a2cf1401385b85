-- Who may do what, in a database of Tacit. Run it once, as the server's administrator, connected to that database:
-- a superuser, or (managed servers) a login that may create roles and owns the database. To run it again is harmless.
--
--   tacit_owner    owns every table and function; nobody logs in as it
--   tacit_admin    the operator's login: no superuser, and a member of tacit_owner
--   tacit_api      what the API may do; its logins are members
--   tacit_worker   what a worker may do; its logins are members, as many as there are hosts
--
-- :'...' are psql's variables: names and passwords of the logins. A password may be a SCRAM verifier.
SELECT num_nonnulls(  -- and shows none of them
  set_config('tacit.admin', :'admin', false), set_config('tacit.admin_password', :'admin_password', false),
  set_config('tacit.api', :'api', false), set_config('tacit.api_password', :'api_password', false),
  set_config('tacit.worker', :'worker', false), set_config('tacit.worker_password', :'worker_password', false)) AS settings;

-- In earlier versions tacit_admin was the server's own superuser, which can be neither demoted nor renamed by itself: another
-- superuser, for as long as this takes, gives it the name that it should have had.
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = current_setting('tacit.admin') AND oid = 10) THEN
    DROP ROLE IF EXISTS tacit_bridge;
    CREATE ROLE tacit_bridge SUPERUSER;
    SET SESSION AUTHORIZATION tacit_bridge;
    EXECUTE format('ALTER ROLE %I RENAME TO postgres', current_setting('tacit.admin'));
    RESET SESSION AUTHORIZATION;
    DROP ROLE tacit_bridge;
  END IF;
END $$;

DO $$
DECLARE wanted record; one text;
BEGIN
  FOREACH one IN ARRAY ARRAY['tacit_owner', 'tacit_api', 'tacit_worker'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = one) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', one);
    END IF;
  END LOOP;
  FOR wanted IN SELECT * FROM (VALUES
      (current_setting('tacit.admin'), current_setting('tacit.admin_password'), 'tacit_owner'),
      (current_setting('tacit.api'), current_setting('tacit.api_password'), 'tacit_api'),
      (current_setting('tacit.worker'), current_setting('tacit.worker_password'), 'tacit_worker')) AS v (login, password, of_group) LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.login) THEN
      EXECUTE format('CREATE ROLE %I', wanted.login);
    END IF;
    EXECUTE format('ALTER ROLE %I LOGIN PASSWORD %L', wanted.login, wanted.password);
    IF wanted.login <> wanted.of_group THEN
      EXECUTE format('GRANT %I TO %I', wanted.of_group, wanted.login);
      IF EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.of_group AND rolcanlogin) THEN
        EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL', wanted.of_group);
      END IF;
    END IF;
  END LOOP;
  -- What earlier hands may have given them. Only a superuser can take it back, and only where there is something.
  FOR one IN SELECT rolname FROM pg_roles WHERE (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
      AND rolname IN ('tacit_owner', 'tacit_api', 'tacit_worker', current_setting('tacit.admin'), current_setting('tacit.api'),
                      current_setting('tacit.worker')) LOOP
    EXECUTE format('ALTER ROLE %I NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS', one);
  END LOOP;
END $$;

-- Everything of Tacit's in this database belongs to tacit_owner, the database itself included.
DO $$
DECLARE
  thing record;
  joined CONSTANT boolean := NOT pg_has_role(current_user, 'tacit_owner', 'USAGE');
BEGIN
  IF joined THEN
    EXECUTE format('GRANT tacit_owner TO %I', current_user);  -- to give something away one must be of those who get it
  END IF;
  IF (SELECT datdba <> 'tacit_owner'::regrole FROM pg_database WHERE datname = current_database()) THEN
    EXECUTE format('ALTER DATABASE %I OWNER TO tacit_owner', current_database());
  END IF;
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO tacit_api, tacit_worker', current_database());
  IF joined THEN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), current_user);  -- to run this again one day
  END IF;
  FOR thing IN
    SELECT format('SCHEMA %I', nspname) AS name FROM pg_namespace WHERE nspname = 'ledger' AND nspowner <> 'tacit_owner'::regrole
    UNION ALL
    SELECT format('TABLE %s', oid::regclass) FROM pg_class
      WHERE relkind IN ('r', 'v', 'm', 'p', 'f') AND relowner <> 'tacit_owner'::regrole
        AND relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('ledger', 'public'))
    UNION ALL
    SELECT format('ROUTINE %s', oid::regprocedure) FROM pg_proc
      WHERE proowner <> 'tacit_owner'::regrole AND pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('ledger', 'public'))
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
    UNION ALL
    SELECT format('DOMAIN %s', format_type(oid, NULL)) FROM pg_type
      WHERE typtype = 'd' AND typowner <> 'tacit_owner'::regrole
        AND typnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('ledger', 'public'))
  LOOP
    EXECUTE format('ALTER %s OWNER TO tacit_owner', thing.name);
  END LOOP;
  IF joined THEN
    EXECUTE format('REVOKE tacit_owner FROM %I', current_user);
  END IF;
END $$;
