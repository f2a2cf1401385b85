-- What the witness needs of the database. TC012: the ledger lacks a budget that the witness saw.

-- Which ledger this is, for good: a witness of another one is told apart. Of a ledger that is lived in, the id follows from
-- its first entry, so that an older dump of it which is migrated again is still the same ledger; a new one draws its own.
CREATE TABLE ledger.database_id (
  one boolean PRIMARY KEY DEFAULT true CHECK ((one) IS TRUE),
  id text NOT NULL CHECK ((id ~ '^[0-9a-f]{64}$') IS TRUE)
);
INSERT INTO ledger.database_id (id) SELECT encode(sha256(coalesce(
  (SELECT convert_to('tacit.database.v1', 'UTF8') || e.hash FROM ledger.entry e WHERE e.kind = 'open' ORDER BY e.at, e.budget_id LIMIT 1),
  convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))), 'hex');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.database_id FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.database_id EXECUTE FUNCTION ledger.append_only();
GRANT SELECT ON ledger.database_id TO tacit_api, tacit_worker;

-- Each look of the witness asks for what was frozen on its word, and thawed.
CREATE INDEX entry_freeze ON ledger.entry (budget_id, seq) WHERE kind IN ('freeze', 'thaw');

-- Budgets that the witness saw and a restore has undone: whoever was in them would look new, and get a second budget.
CREATE TABLE ledger.lost_budget (
  budget_id text PRIMARY KEY CHECK ((length(budget_id) BETWEEN 1 AND 200) IS TRUE),
  seq bigint NOT NULL CHECK ((seq > 0) IS TRUE),    -- how far its chain had come
  hash bytea NOT NULL CHECK ((length(hash) = 32) IS TRUE),
  noticed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  accepted_at timestamptz,
  accepted_by text,
  accepted_reason text CHECK ((accepted_reason IS NULL OR length(accepted_reason) BETWEEN 1 AND 1000) IS TRUE),
  CONSTRAINT an_acceptance_is_whole CHECK (
    ((accepted_at IS NULL) = (accepted_reason IS NULL) AND (accepted_by IS NULL) = (accepted_reason IS NULL)) IS TRUE)
);
CREATE FUNCTION ledger.accept_loss() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
BEGIN
  IF NOT ledger.is_admin() THEN
    RAISE EXCEPTION 'only the admin login accepts a loss' USING ERRCODE = 'insufficient_privilege';
  ELSIF OLD.accepted_at IS NOT NULL OR NEW.accepted_reason IS NULL
     OR (NEW.budget_id, NEW.seq, NEW.hash, NEW.noticed_at) IS DISTINCT FROM (OLD.budget_id, OLD.seq, OLD.hash, OLD.noticed_at) THEN
    RAISE EXCEPTION 'a loss is accepted once, with a reason, and nothing else of it changes' USING ERRCODE = 'restrict_violation';
  END IF;
  NEW.accepted_at := clock_timestamp();
  NEW.accepted_by := session_user;
  RETURN NEW;
END $$;
CREATE TRIGGER accept_loss BEFORE UPDATE ON ledger.lost_budget FOR EACH ROW EXECUTE FUNCTION ledger.accept_loss();
CREATE TRIGGER never_deleted BEFORE DELETE ON ledger.lost_budget FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.lost_budget EXECUTE FUNCTION ledger.append_only();
GRANT SELECT ON ledger.lost_budget TO tacit_api, tacit_worker;
GRANT INSERT (budget_id, seq, hash) ON ledger.lost_budget TO tacit_api;

-- Nobody is new while somebody is missing.
CREATE FUNCTION ledger.require_no_loss() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM ledger.lost_budget l WHERE l.accepted_at IS NULL) THEN
    RAISE EXCEPTION 'the ledger lacks a budget that the witness saw' USING ERRCODE = 'TC012';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER require_no_loss BEFORE INSERT ON ledger.budget FOR EACH STATEMENT EXECUTE FUNCTION ledger.require_no_loss();
CREATE TRIGGER require_no_loss BEFORE INSERT ON public.fingerprint FOR EACH STATEMENT EXECUTE FUNCTION ledger.require_no_loss();
REVOKE ALL ON FUNCTION ledger.accept_loss(), ledger.require_no_loss() FROM PUBLIC;
