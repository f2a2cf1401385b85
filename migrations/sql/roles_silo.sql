
-- The login of a silo's worker. Which silo's it is says `tacit migrate`.
SELECT num_nonnulls(set_config('tacit.silo', :'silo', false), set_config('tacit.silo_password', :'silo_password', false)) AS settings;

DO $$
DECLARE login text := current_setting('tacit.silo');
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = login) THEN
    EXECUTE format('CREATE ROLE %I', login);
  END IF;
  EXECUTE format('ALTER ROLE %I LOGIN PASSWORD %L', login, current_setting('tacit.silo_password'));
  EXECUTE format('GRANT tacit_worker TO %I', login);
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = login AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)) THEN
    EXECUTE format('ALTER ROLE %I NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS', login);
  END IF;
END $$;
