-- What an upgrade found and could not believe: kept as it was, its budget frozen. Then rows are brought into a shape that
-- the new types hold, never to anybody's advantage: what cannot be read counts as spent.
CREATE TABLE ledger.finding (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  budget_id text REFERENCES ledger.budget,
  what text NOT NULL,
  evidence jsonb NOT NULL,                         -- the row as it was found
  found_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.finding FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.finding EXECUTE FUNCTION ledger.append_only();

-- A list as every reader expects it: one dimension, counted from 1, one number for each of the twelve orders of the first
-- revisions, none of them missing.
CREATE FUNCTION ledger.first_shape(written text) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN written ~ '^\{-?[0-9]+(,-?[0-9]+){11}\}$';

CREATE FUNCTION ledger.first_reference(job jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN (CASE WHEN jsonb_typeof(job -> 'sample_rate') = 'number' AND jsonb_typeof(job -> 'steps') = 'number'
               AND jsonb_typeof(job -> 'noise_multiplier') IN ('number', 'null')
             THEN (job ->> 'sample_rate')::numeric > 0 AND (job ->> 'sample_rate')::numeric <= 1
               AND (job ->> 'steps')::numeric BETWEEN 1 AND 10000000 AND (job ->> 'steps')::numeric % 1 = 0
               AND coalesce((job ->> 'noise_multiplier')::numeric BETWEEN 0.2 AND 1000, true) END) IS TRUE;

DO $$
DECLARE
  spent_out CONSTANT bigint[] := array_fill(9007199254740992, ARRAY[12]);
  first_time CONSTANT timestamptz := '2000-01-01 00:00:00+00';
  last_time CONSTANT timestamptz := '8999-12-31 00:00:00+00';
  b record; wrong text;
BEGIN
  ALTER TABLE ledger.entry DISABLE TRIGGER append_only;
  ALTER TABLE file DISABLE TRIGGER file_guard;
  ALTER TABLE ledger.work DISABLE TRIGGER work_guard;

  FOR b IN SELECT t.*, to_jsonb(t) || jsonb_build_object('weight_numerators', weight_numerators::text, 'cap', cap::text,
             'spent', spent::text, 'reserved', reserved::text) AS evidence FROM ledger.budget AS t ORDER BY id LOOP
    wrong := CASE
      WHEN NOT ledger.first_shape(b.weight_numerators::text) THEN 'its weights are written ' || b.weight_numerators::text
      WHEN (SELECT sum(w) <> b.weight_denominator OR min(w) <= 0 FROM unnest(b.weight_numerators) AS w) THEN 'its weights do not add up to one'
      WHEN NOT ledger.first_shape(b.cap::text) THEN 'its caps are written ' || b.cap::text
      WHEN b.cap <> ledger.caps(b.epsilon, b.delta, b.weight_numerators, b.weight_denominator) THEN 'its caps are not those of its limit'
      WHEN NOT ledger.first_shape(b.spent::text) THEN 'what it has spent is written ' || b.spent::text
      WHEN NOT ledger.first_shape(b.reserved::text) THEN 'what it has reserved is written ' || b.reserved::text
      WHEN b.delta < 1e-30 OR b.epsilon < 1e-6 THEN 'its epsilon or delta is smaller than any guarantee can be'
      WHEN b.approval_above IN ('NaN', 'Infinity') THEN 'its approval_above is no number'
      WHEN NOT ledger.first_reference(b.reference) THEN 'its reference job cannot be read'
    END;
    CONTINUE WHEN wrong IS NULL;
    INSERT INTO ledger.finding (budget_id, what, evidence) VALUES (b.id, wrong, b.evidence);
    UPDATE ledger.budget AS t SET
      frozen_reason = coalesce(t.frozen_reason, 'found by the upgrade: ' || wrong),
      epsilon = greatest(t.epsilon, 1e-6), epsilon_claim = greatest(t.epsilon_claim, 1e-6), epsilon_opened = greatest(t.epsilon_opened, 1e-6),
      delta = greatest(t.delta, 1e-30),
      weight_numerators = fixed.weights, weight_denominator = fixed.total,
      cap = ledger.caps(greatest(t.epsilon, 1e-6), greatest(t.delta, 1e-30), fixed.weights, fixed.total),
      spent = CASE WHEN ledger.first_shape(t.spent::text) THEN t.spent ELSE spent_out END,
      reserved = CASE WHEN ledger.first_shape(t.reserved::text) THEN t.reserved ELSE spent_out::numeric[] END,
      approval_above = CASE WHEN t.approval_above IN ('NaN', 'Infinity') THEN 1e-6 ELSE t.approval_above END,
      reference = CASE WHEN ledger.first_reference(t.reference) THEN t.reference
                       ELSE '{"sample_rate": 0.01, "steps": 500, "noise_multiplier": null}' END
      FROM (SELECT CASE WHEN right_ THEN b.weight_numerators ELSE array_fill(1, ARRAY[12]) END AS weights,
                   CASE WHEN right_ THEN b.weight_denominator ELSE 12 END AS total
            FROM (SELECT wrong !~ '^its weights' AS right_) AS w) AS fixed
      WHERE t.id = b.id;
  END LOOP;

  -- What stands below a budget: each such row is evidence against the budget.
  CREATE TEMPORARY TABLE bad (budget_id text, what text, evidence jsonb) ON COMMIT DROP;
  INSERT INTO bad SELECT budget_id, 'entry ' || seq || ' has amounts that are written ' || spent_change::text || ' and ' || reserved_change::text,
      to_jsonb(e) || jsonb_build_object('spent_change', spent_change::text, 'reserved_change', reserved_change::text)
    FROM ledger.entry AS e WHERE NOT (ledger.first_shape(spent_change::text) AND ledger.first_shape(reserved_change::text));
  INSERT INTO bad SELECT r.budget_id, 'phase ' || ordinal || ' of reservation ' || reservation_id || ' has prices that are written ' || step_cost::text || ' and ' || p.reserved::text,
      to_jsonb(p) || jsonb_build_object('step_cost', step_cost::text, 'reserved', p.reserved::text)
    FROM ledger.phase AS p JOIN ledger.reservation AS r ON r.id = p.reservation_id
    WHERE NOT (ledger.first_shape(step_cost::text) AND ledger.first_shape(p.reserved::text));
  INSERT INTO bad SELECT budget_id, 'grant ' || id || ' has amounts that cannot be read',
      to_jsonb(g) || jsonb_build_object('cap', cap::text, 'spent', spent::text, 'reserved', reserved::text)
    FROM ledger.budget_grant AS g WHERE NOT (coalesce(ledger.first_shape(cap::text), true) AND ledger.first_shape(spent::text)
      AND ledger.first_shape(reserved::text)) OR approval_above IN ('NaN', 'Infinity');
  INSERT INTO bad SELECT budget_id, 'file ' || id || ' has labels that are not a plain list', to_jsonb(f) || jsonb_build_object('labels', labels::text)
    FROM file AS f WHERE CASE WHEN array_ndims(labels) = 1 THEN array_lower(labels, 1) <> 1 OR array_position(labels, NULL) IS NOT NULL
                              ELSE array_ndims(labels) > 1 END;
  INSERT INTO bad SELECT whose, 'file ' || f.id || ' names the rows of another file (' || f.blob || ')', to_jsonb(f)
    FROM file AS f LEFT JOIN file AS g ON g.id <> f.id AND (g.blob = f.blob OR f.blob = 'files/' || g.id || '/rows.parquet'),
         unnest(ARRAY[f.budget_id, g.budget_id]) AS whose
    WHERE f.blob <> 'files/' || f.id || '/rows.parquet' AND (g.id IS NOT NULL OR f.blob LIKE 'files/%');
  INSERT INTO ledger.finding (budget_id, what, evidence) SELECT budget_id, what, evidence FROM bad;
  UPDATE ledger.budget AS t SET frozen_reason = coalesce(frozen_reason, 'found by the upgrade: ' || (SELECT min(what) FROM bad WHERE budget_id = t.id))
    WHERE id IN (SELECT budget_id FROM bad);

  UPDATE ledger.entry SET
    spent_change = CASE WHEN ledger.first_shape(spent_change::text) THEN spent_change ELSE spent_out END,
    reserved_change = CASE WHEN ledger.first_shape(reserved_change::text) THEN reserved_change ELSE array_fill(0::numeric, ARRAY[12]) END
    WHERE NOT (ledger.first_shape(spent_change::text) AND ledger.first_shape(reserved_change::text));
  UPDATE ledger.phase SET step_cost = spent_out, reserved = spent_out
    WHERE NOT (ledger.first_shape(step_cost::text) AND ledger.first_shape(reserved::text));
  UPDATE ledger.budget_grant SET
    revoked_at = coalesce(revoked_at, clock_timestamp()),
    cap = CASE WHEN epsilon IS NOT NULL THEN array_fill(0::bigint, ARRAY[12]) END,
    spent = CASE WHEN ledger.first_shape(spent::text) THEN spent ELSE spent_out END,
    reserved = CASE WHEN ledger.first_shape(reserved::text) THEN reserved ELSE array_fill(0::numeric, ARRAY[12]) END,
    approval_above = CASE WHEN approval_above IN ('NaN', 'Infinity') THEN 1e-6 ELSE approval_above END
    WHERE NOT (coalesce(ledger.first_shape(cap::text), true) AND ledger.first_shape(spent::text)
      AND ledger.first_shape(reserved::text)) OR approval_above IN ('NaN', 'Infinity');
  UPDATE ledger.work SET seconds = 0 WHERE seconds IN ('NaN', 'Infinity');
  -- Times that no reader can hold.
  UPDATE api_key SET expires_at = last_time WHERE expires_at > last_time;
  UPDATE api_key SET revoked_at = clock_timestamp() WHERE NOT revoked_at BETWEEN first_time AND last_time;
  UPDATE api_key SET previous_until = first_time WHERE NOT previous_until BETWEEN first_time AND last_time;
  UPDATE api_key SET expires_at = first_time WHERE expires_at < first_time;
  UPDATE file SET deleted_at = clock_timestamp() WHERE NOT deleted_at BETWEEN first_time AND last_time;
  UPDATE job SET started_at = created_at WHERE NOT started_at BETWEEN first_time AND last_time;
  UPDATE job SET finished_at = created_at WHERE NOT finished_at BETWEEN first_time AND last_time;
  UPDATE job SET hinted_at = NULL WHERE NOT hinted_at BETWEEN first_time AND last_time;
  UPDATE ledger.reservation SET expires_at = created_at WHERE expires_at < first_time;
  UPDATE ledger.reservation SET starts_by = expires_at WHERE NOT starts_by BETWEEN first_time AND last_time;
  UPDATE ledger.work SET lease_until = NULL WHERE NOT lease_until BETWEEN first_time AND last_time;

  UPDATE file SET labels = (SELECT array_agg(l) FROM unnest(labels) AS l WHERE l IS NOT NULL)
    WHERE CASE WHEN array_ndims(labels) = 1 THEN array_lower(labels, 1) <> 1 OR array_position(labels, NULL) IS NOT NULL
               ELSE array_ndims(labels) > 1 END;
  -- Each file gets its own rows back: where they lie follows from its id.
  UPDATE file SET blob = 'files/' || id || '/rows.parquet'
    WHERE id IN (SELECT evidence ->> 'id' FROM bad WHERE what LIKE 'file % names the rows of another file (%');
  UPDATE api_key SET scopes = (SELECT array_agg(s) FROM unnest(scopes) AS s WHERE s IS NOT NULL)
    WHERE array_ndims(scopes) > 1 OR array_lower(scopes, 1) <> 1;

  ALTER TABLE ledger.work ENABLE TRIGGER work_guard;
  ALTER TABLE file ENABLE TRIGGER file_guard;
  ALTER TABLE ledger.entry ENABLE TRIGGER append_only;
END $$;
DROP FUNCTION ledger.first_shape(text), ledger.first_reference(jsonb);
