-- What ties a file to its rows, its budget and its public constants: an HMAC under a key that no database login has
-- (domain/files/binding.py). Files from before pass without one; no login can make another such.
ALTER TABLE public.file
  ADD COLUMN binding bytea,
  ADD COLUMN legacy boolean NOT NULL DEFAULT true;
ALTER TABLE public.file
  ALTER COLUMN legacy SET DEFAULT false,
  ADD CONSTRAINT a_binding_has_32_bytes CHECK ((binding IS NULL OR octet_length(binding) = 32) IS TRUE),
  ADD CONSTRAINT a_usable_file_is_bound
    CHECK ((status <> 'processed' OR deleted_at IS NOT NULL OR binding IS NOT NULL OR legacy) IS TRUE),
  ADD CONSTRAINT one_file_of_a_blob UNIQUE (blob);

-- A file is inserted whole. The row is compared whole, so that columns to come are held too.
CREATE OR REPLACE FUNCTION public.file_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE undeleted public.file := NEW;
BEGIN
  undeleted.deleted_at := OLD.deleted_at;
  IF undeleted IS DISTINCT FROM OLD THEN
    RAISE EXCEPTION 'a file never changes, but for its deletion' USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS DISTINCT FROM OLD.deleted_at THEN
    RAISE EXCEPTION 'a deleted file stays deleted' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

-- What is asked for and what it was priced as never changes; how far it came does.
CREATE OR REPLACE FUNCTION public.job_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE asked public.job := NEW;
BEGIN
  asked.status := OLD.status;
  asked.status_detail := OLD.status_detail;
  asked.error := OLD.error;
  asked.started_at := OLD.started_at;
  asked.finished_at := OLD.finished_at;
  asked.hinted_at := OLD.hinted_at;
  IF asked IS DISTINCT FROM OLD THEN
    RAISE EXCEPTION 'what a job asks for never changes' USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.status IN ('succeeded', 'failed', 'cancelled') AND NEW.status <> OLD.status THEN
    RAISE EXCEPTION 'a job in status % is finished', OLD.status USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION public.file_guard(), public.job_guard() FROM PUBLIC;

-- Which files a job has, what it released, where a checkpoint lies and whose a key is: as inserted, for good.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON public.job_file FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.job_file EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON public.release FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.release EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER never_changed BEFORE UPDATE ON public.checkpoint FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER never_moved BEFORE UPDATE OF blob, created_at ON public.data_key
  FOR EACH ROW EXECUTE FUNCTION ledger.append_only();

REVOKE UPDATE (bytes, sha256, status, problems, declared_size, labels, max_length, columns, blob) ON public.file FROM tacit_api;
GRANT INSERT (sha256, status, binding) ON public.file TO tacit_api;
GRANT INSERT (binding) ON public.file TO tacit_worker;
