-- Which fingerprints each budget holds, in numbers that do not depend on their order: whoever deletes, adds or exchanges
-- some behind the triggers changes them. Each fingerprint's SHA-512 is read as eight integers of 64 bits, so that no two
-- made-up fingerprints have the sums of two real ones.
CREATE TABLE ledger.population (
  budget_id text NOT NULL REFERENCES ledger.budget,
  kind text NOT NULL CONSTRAINT population_kind CHECK ((kind IN ('record', 'user')) IS TRUE),
  marks bigint NOT NULL CONSTRAINT a_population_is_not_empty CHECK ((marks > 0) IS TRUE),
  sums numeric[] NOT NULL CONSTRAINT a_population_has_eight_sums CHECK (
    (array_ndims(sums) = 1 AND array_lower(sums, 1) = 1 AND cardinality(sums) = 8 AND array_position(sums, NULL) IS NULL) IS TRUE),
  PRIMARY KEY (budget_id, kind)
);
CREATE TRIGGER never_deleted BEFORE DELETE ON ledger.population FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.population EXECUTE FUNCTION ledger.append_only();

-- After one_population, by its name: only rows that are really new are in `added`.
CREATE FUNCTION ledger.count_population() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
BEGIN
  INSERT INTO ledger.population AS p (budget_id, kind, marks, sums)
    SELECT h.budget_id, h.kind, count(*), ARRAY[
      sum(substring(h.bits FROM 1 FOR 64)::bigint), sum(substring(h.bits FROM 65 FOR 64)::bigint),
      sum(substring(h.bits FROM 129 FOR 64)::bigint), sum(substring(h.bits FROM 193 FOR 64)::bigint),
      sum(substring(h.bits FROM 257 FOR 64)::bigint), sum(substring(h.bits FROM 321 FOR 64)::bigint),
      sum(substring(h.bits FROM 385 FOR 64)::bigint), sum(substring(h.bits FROM 449 FOR 64)::bigint)]
    FROM (SELECT a.budget_id, a.kind, ('x' || encode(sha512(a.mac), 'hex'))::bit(512) AS bits FROM added a OFFSET 0) AS h
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (budget_id, kind) DO UPDATE SET marks = p.marks + excluded.marks,
      sums = (SELECT array_agg(u.a + u.b ORDER BY u.i) FROM unnest(p.sums, excluded.sums) WITH ORDINALITY AS u (a, b, i));
  RETURN NULL;
END $$;
CREATE TRIGGER population_counted AFTER INSERT ON fingerprint REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.count_population();

-- From here on nobody adds fingerprints until this transaction ends: CREATE TRIGGER has locked their table.
INSERT INTO ledger.population (budget_id, kind, marks, sums)
  SELECT h.budget_id, h.kind, count(*), ARRAY[
    sum(substring(h.bits FROM 1 FOR 64)::bigint), sum(substring(h.bits FROM 65 FOR 64)::bigint),
    sum(substring(h.bits FROM 129 FOR 64)::bigint), sum(substring(h.bits FROM 193 FOR 64)::bigint),
    sum(substring(h.bits FROM 257 FOR 64)::bigint), sum(substring(h.bits FROM 321 FOR 64)::bigint),
    sum(substring(h.bits FROM 385 FOR 64)::bigint), sum(substring(h.bits FROM 449 FOR 64)::bigint)]
  FROM (SELECT f.budget_id, f.kind, ('x' || encode(sha512(f.mac), 'hex'))::bit(512) AS bits
        FROM fingerprint f JOIN ledger.budget b ON b.id = f.budget_id OFFSET 0) AS h
  GROUP BY 1, 2;
