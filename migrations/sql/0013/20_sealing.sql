-- The triggers on ledger.entry fire by name: attest_records, decide, decide_whole, post, post_grant.
ALTER TABLE ledger.entry
  DROP CONSTRAINT entry_kind,
  DROP CONSTRAINT a_decision_says_why,
  ADD CONSTRAINT entry_kind CHECK ((kind IN ('open', 'reserve', 'settle', 'freeze', 'thaw', 'limit', 'correction', 'reprice',
    'overlap', 'grant', 'revoke', 'rules', 'approve', 'records')) IS TRUE),
  ADD CONSTRAINT a_decision_says_why CHECK ((
    kind IN ('open', 'reserve', 'settle', 'grant', 'revoke', 'approve', 'records')
    OR (detail IS NOT NULL AND length(detail ->> 'reason') BETWEEN 1 AND 1000)) IS TRUE);
CREATE INDEX entry_records ON ledger.entry (budget_id, seq) WHERE kind = 'records';

-- Nobody can test a guess by it, of a record or of how many there are: fingerprints are hashes under a key that the
-- database does not have, and whoever may read them needs no digest.
CREATE FUNCTION ledger.records_digest(wanted_budget text) RETURNS text
LANGUAGE sql STABLE
AS $$ SELECT encode(sha256(ledger.packed(VARIADIC ARRAY['tacit.records.v1', wanted_budget] || coalesce(
        (SELECT array_agg(u.field ORDER BY p.kind COLLATE "C", u.i)
         FROM ledger.population p, unnest(ARRAY[p.kind, p.marks::text] || p.sums::text[]) WITH ORDINALITY AS u (field, i)
         WHERE p.budget_id = wanted_budget), '{}'))), 'hex') $$;

-- The database alone says what is sealed, whoever asks for the entry and whatever they send.
CREATE FUNCTION ledger.attest_records() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
BEGIN
  PERFORM FROM ledger.budget b WHERE b.id = NEW.budget_id FOR NO KEY UPDATE;  -- what was committed before is seen after
  NEW.detail := jsonb_build_object('digest', ledger.records_digest(NEW.budget_id));
  RETURN NEW;
END $$;
CREATE TRIGGER attest_records BEFORE INSERT ON ledger.entry FOR EACH ROW WHEN (NEW.kind = 'records')
  EXECUTE FUNCTION ledger.attest_records();

-- At commit, once a transaction. A file that brings nothing new is sealed too: analysts see how long the chain is, and it
-- must not tell them whether a file's records were there before.
CREATE FUNCTION ledger.seal_records() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE sealed boolean;
BEGIN
  PERFORM FROM ledger.budget b WHERE b.id = NEW.budget_id FOR NO KEY UPDATE;
  SELECT e.xmin = pg_current_xact_id()::xid AND e.detail ->> 'digest' = ledger.records_digest(NEW.budget_id) INTO sealed
    FROM ledger.entry e WHERE e.budget_id = NEW.budget_id AND e.kind = 'records' ORDER BY e.seq DESC LIMIT 1;
  IF sealed IS NOT TRUE THEN
    INSERT INTO ledger.entry (budget_id, kind) VALUES (NEW.budget_id, 'records');
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER seal_records AFTER INSERT OR UPDATE ON ledger.population DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION ledger.seal_records();
CREATE CONSTRAINT TRIGGER seal_records AFTER UPDATE OF status ON file DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.status = 'processed' AND OLD.status <> 'processed' AND NEW.budget_id IS NOT NULL)
  EXECUTE FUNCTION ledger.seal_records();

-- A charge says which of its phases cannot be cut into steps: such a one is paid for whole when it begins.
CREATE FUNCTION ledger.decide_whole() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE whole jsonb;
BEGIN
  SELECT jsonb_agg(p.ordinal ORDER BY p.ordinal) INTO whole
    FROM ledger.phase p WHERE p.reservation_id = NEW.reservation_id AND p.indivisible;
  IF whole IS NOT NULL THEN
    NEW.detail := coalesce(NEW.detail, '{}') || jsonb_build_object('whole', whole);
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER decide_whole BEFORE INSERT ON ledger.entry FOR EACH ROW WHEN (NEW.kind = 'reserve')
  EXECUTE FUNCTION ledger.decide_whole();

REVOKE ALL ON FUNCTION ledger.count_population(), ledger.records_digest(text), ledger.attest_records(), ledger.seal_records(),
  ledger.decide_whole() FROM PUBLIC;
GRANT SELECT ON ledger.population TO tacit_api, tacit_worker;
