-- A silo's worker has a login of its own, and works on its silo's jobs alone; the others leave them alone. Which silo a
-- job is of is said by where its rows lie: silos/<name>/...
CREATE TABLE ledger.silo_login (
  login name PRIMARY KEY,
  silo text NOT NULL,
  CONSTRAINT a_silo_has_a_short_name CHECK ((silo ~ '^[a-z0-9][a-z0-9-]{0,39}$') IS TRUE)
);
COMMENT ON TABLE ledger.silo_login IS 'of workers that work on the jobs of one silo and no others; written by the operator';
CREATE TRIGGER a_read_committed BEFORE INSERT OR UPDATE OR DELETE ON ledger.silo_login
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
GRANT SELECT ON ledger.silo_login TO tacit_api, tacit_worker;

CREATE FUNCTION ledger.silo_of(blob text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substring(blob FROM '^silos/([a-z0-9][a-z0-9-]{0,39})/');

ALTER TABLE ledger.work ADD COLUMN silo text;
COMMENT ON COLUMN ledger.work.silo IS 'whose worker alone may work on the job; null: any that is bound to no silo';

CREATE FUNCTION ledger.work_begins() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE homes text[];
BEGIN
  SELECT array_agg(DISTINCT coalesce(ledger.silo_of(f.blob), '')) INTO homes
    FROM public.job_file u JOIN public.file f ON f.id = u.file_id WHERE u.job_id = NEW.job_id;
  IF cardinality(homes) > 1 THEN
    RAISE EXCEPTION 'the files of job % lie in more than one silo', NEW.job_id USING ERRCODE = 'restrict_violation';
  END IF;
  NEW.silo := nullif(homes[1], '');
  RETURN NEW;
END $$;
CREATE TRIGGER work_begins BEFORE INSERT ON ledger.work FOR EACH ROW EXECUTE FUNCTION ledger.work_begins();

-- Of a service's own login: whether it is a worker's. The operator's and a superuser are members of everything.
CREATE FUNCTION ledger.is_worker() RETURNS boolean LANGUAGE sql STABLE
RETURN pg_has_role(session_user, 'tacit_worker', 'MEMBER') AND NOT pg_has_role(session_user, 'tacit_owner', 'MEMBER');

CREATE FUNCTION ledger.require_bound(wanted_job text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE own text; its text;
BEGIN
  IF ledger.is_worker() THEN
    SELECT l.silo INTO own FROM ledger.silo_login l WHERE l.login = session_user;
    SELECT w.silo INTO its FROM ledger.work w WHERE w.job_id = wanted_job;
    IF own IS DISTINCT FROM its THEN
      RAISE EXCEPTION 'job % is not for the login %', wanted_job, session_user USING ERRCODE = 'insufficient_privilege';
    END IF;
  END IF;
END $$;
REVOKE ALL ON FUNCTION ledger.silo_of(text), ledger.work_begins(), ledger.is_worker(), ledger.require_bound(text) FROM PUBLIC;

-- Everything that is fenced is bound.
CREATE OR REPLACE FUNCTION ledger.require_fence(wanted_job text, wanted_fence bigint) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE held ledger.work;
BEGIN
  PERFORM ledger.require_bound(wanted_job);
  SELECT * INTO held FROM ledger.work w WHERE w.job_id = wanted_job FOR UPDATE;
  IF NOT FOUND OR wanted_fence IS NULL OR held.fence <> wanted_fence
     OR held.lease_until IS NULL OR held.lease_until <= clock_timestamp() THEN
    RAISE EXCEPTION 'the lease on job % is not held under fence %', wanted_job, wanted_fence USING ERRCODE = 'TC001';
  END IF;
END $$;

-- What is not fenced: taking a lease (20_silos.sql), ending a job that nobody holds, what its row and its events say.
CREATE FUNCTION ledger.bound_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE changed jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END; wanted text;
BEGIN
  wanted := coalesce(changed ->> 'job_id', changed ->> 'id');
  IF TG_TABLE_NAME = 'entry' THEN
    SELECT r.job_id INTO wanted FROM ledger.reservation r WHERE r.id = changed ->> 'reservation_id';
  END IF;
  PERFORM ledger.require_bound(wanted);
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
REVOKE ALL ON FUNCTION ledger.bound_row() FROM PUBLIC;
CREATE TRIGGER bound_row BEFORE INSERT ON ledger.entry
  FOR EACH ROW WHEN (NEW.kind = 'settle') EXECUTE FUNCTION ledger.bound_row();
CREATE TRIGGER bound_row BEFORE UPDATE ON ledger.work FOR EACH ROW EXECUTE FUNCTION ledger.bound_row();
CREATE TRIGGER bound_row BEFORE UPDATE ON job FOR EACH ROW EXECUTE FUNCTION ledger.bound_row();
CREATE TRIGGER bound_row BEFORE INSERT ON job_event FOR EACH ROW EXECUTE FUNCTION ledger.bound_row();
CREATE TRIGGER bound_row BEFORE DELETE ON checkpoint FOR EACH ROW EXECUTE FUNCTION ledger.bound_row();

-- The keys of a silo's blobs are wrapped by a key that only its worker has; nobody else destroys or plants them either.
CREATE FUNCTION ledger.bound_key() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE own text; its_blob text := CASE TG_OP WHEN 'DELETE' THEN OLD.blob ELSE NEW.blob END;
BEGIN
  IF ledger.is_worker() THEN
    SELECT l.silo INTO own FROM ledger.silo_login l WHERE l.login = session_user;
    -- exchange/<federated job>/...: of those who take part in it.
    IF (CASE WHEN starts_with(its_blob, 'exchange/')
         THEN NOT EXISTS (SELECT FROM public.silo s JOIN ledger.work w ON w.job_id IN (s.job_id, s.parent_id)
                          WHERE s.parent_id = split_part(its_blob, '/', 2) AND w.silo IS NOT DISTINCT FROM own)
         ELSE own IS DISTINCT FROM ledger.silo_of(its_blob) END) THEN
      RAISE EXCEPTION 'the key of % is not for the login %', its_blob, session_user USING ERRCODE = 'insufficient_privilege';
    END IF;
  END IF;
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
REVOKE ALL ON FUNCTION ledger.bound_key() FROM PUBLIC;
CREATE TRIGGER bound_key BEFORE INSERT OR DELETE ON data_key FOR EACH ROW EXECUTE FUNCTION ledger.bound_key();

ALTER TABLE checkpoint DROP CONSTRAINT a_checkpoint_is_of_its_job;
ALTER TABLE checkpoint ADD CONSTRAINT a_checkpoint_is_of_its_job CHECK
  (starts_with(regexp_replace(blob, '^silos/[a-z0-9][a-z0-9-]{0,39}/', ''), 'jobs/' || job_id || '/checkpoints/') IS TRUE);
