-- What binds people to a budget for good: keyed hashes, in one tenant, never deleted. TC006: they are in another budget.
-- Without foreign keys: a million rows come at once, and one_population checks a statement's rows together.
CREATE TABLE fingerprint (
  tenant_id text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('record', 'user')),
  mac bytea NOT NULL CHECK (length(mac) = 32),
  budget_id text NOT NULL,
  PRIMARY KEY (tenant_id, kind, mac, budget_id)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON fingerprint FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON fingerprint EXECUTE FUNCTION ledger.append_only();

-- Fingerprints sent one after the other, as rows: so a statement takes many at no cost for each to the client.
CREATE FUNCTION ledger.cut(marks bytea) RETURNS SETOF bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT substring(marks FROM i * 32 + 1 FOR 32) FROM generate_series(0, length(marks) / 32 - 1) AS i $$;

-- Until the transaction ends, nobody else finds out or decides where records of this tenant belong.
CREATE FUNCTION ledger.lock_population(tenant text) RETURNS void
LANGUAGE sql VOLATILE
AS $$ SELECT pg_advisory_xact_lock(hashtextextended('tacit.population:' || tenant, 0)) $$;

-- What one budget holds enters another of the tenant only after the decision, in the other's chain, that they are
-- different people.
CREATE FUNCTION ledger.one_population() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
DECLARE target record; other text;
BEGIN
  FOR target IN SELECT DISTINCT a.tenant_id, a.budget_id FROM added a ORDER BY 1, 2 LOOP
    IF NOT EXISTS (SELECT FROM ledger.budget b WHERE b.id = target.budget_id AND b.tenant_id = target.tenant_id) THEN
      RAISE EXCEPTION 'tenant % has no budget %', target.tenant_id, target.budget_id USING ERRCODE = 'foreign_key_violation';
    END IF;
    PERFORM ledger.lock_population(target.tenant_id);
    FOR other IN
      SELECT DISTINCT f.budget_id FROM added a JOIN public.fingerprint f USING (tenant_id, kind, mac)
      WHERE a.tenant_id = target.tenant_id AND a.budget_id = target.budget_id AND f.budget_id <> target.budget_id
    LOOP
      IF NOT EXISTS (SELECT FROM ledger.entry e WHERE e.budget_id = target.budget_id AND e.kind = 'overlap'
                     AND e.detail ->> 'other_budget' = other) THEN
        RAISE EXCEPTION 'budget % holds some of this already, and nobody decided that they are different people', other
          USING ERRCODE = 'TC006';
      END IF;
    END LOOP;
  END LOOP;
  RETURN NULL;
END $$;
CREATE TRIGGER one_population AFTER INSERT ON fingerprint REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.one_population();
CREATE INDEX entry_overlap ON ledger.entry (budget_id) WHERE kind = 'overlap';
