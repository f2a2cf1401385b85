-- A job that is held: its reservation stays, nobody claims it, nothing more is authorised. TC010: the job is paused.
ALTER TABLE ledger.work
  ADD COLUMN paused_at timestamptz,
  ADD COLUMN excused_fence bigint;                 -- the last attempt that ended because it was asked to let go

-- Only the database says since when: asking again neither prolongs a pause nor shortens it.
CREATE FUNCTION ledger.pause_begins() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
BEGIN
  IF NEW.paused_at IS NOT NULL THEN
    NEW.paused_at := coalesce(OLD.paused_at, clock_timestamp());
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER pause_begins BEFORE UPDATE OF paused_at ON ledger.work FOR EACH ROW EXECUTE FUNCTION ledger.pause_begins();

-- On authorisations it fires after `authorise`, which has locked the work: a pause is seen whole or not at all.
CREATE FUNCTION ledger.require_unpaused() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
DECLARE wanted text := to_jsonb(NEW) ->> 'job_id';
BEGIN
  IF TG_TABLE_NAME = 'authorisation' THEN
    SELECT r.job_id INTO wanted FROM ledger.reservation r WHERE r.id = to_jsonb(NEW) ->> 'reservation_id';
  END IF;
  IF EXISTS (SELECT FROM ledger.work w WHERE w.job_id = wanted AND w.paused_at IS NOT NULL) THEN
    RAISE EXCEPTION 'job % is paused', wanted USING ERRCODE = 'TC010';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER require_unpaused BEFORE UPDATE OF fence ON ledger.work FOR EACH ROW EXECUTE FUNCTION ledger.require_unpaused();
CREATE TRIGGER require_unpaused BEFORE INSERT ON ledger.authorisation FOR EACH ROW EXECUTE FUNCTION ledger.require_unpaused();
REVOKE ALL ON FUNCTION ledger.pause_begins(), ledger.require_unpaused() FROM PUBLIC;
GRANT UPDATE (paused_at) ON ledger.work TO tacit_api;
GRANT UPDATE (excused_fence) ON ledger.work TO tacit_worker;

-- What an event is about, for programs; its message is for people.
ALTER TABLE job_event ADD COLUMN name text NOT NULL DEFAULT 'job.noted';
