-- TC005: the reservation is past its age.

CREATE OR REPLACE FUNCTION ledger.phase_price() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
BEGIN
  IF EXISTS (SELECT FROM ledger.entry WHERE reservation_id = NEW.reservation_id) THEN
    RAISE EXCEPTION 'phases are declared before the reservation is charged' USING ERRCODE = 'restrict_violation';
  END IF;
  NEW.steps_authorised := 0;
  IF NEW.curve_id IS NULL THEN
    NEW.step_cost := ledger.poisson_gaussian_curve(NEW.noise_multiplier, NEW.sample_rate);
  ELSE
    SELECT c.step_cost, c.indivisible OR NEW.indivisible INTO NEW.step_cost, NEW.indivisible
      FROM ledger.curve c WHERE c.id = NEW.curve_id;
  END IF;
  NEW.reserved := ledger.times(NEW.step_cost, NEW.steps_max);
  RETURN NEW;
END $$;

-- steps x curve, saturating per order.
CREATE FUNCTION ledger.times(step_cost bigint[], steps bigint) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN (SELECT array_agg(least(c::numeric * steps, 9007199254740992)::bigint ORDER BY i)
        FROM unnest(step_cost) WITH ORDINALITY AS u (c, i));

CREATE OR REPLACE FUNCTION ledger.authorise() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
DECLARE booking ledger.reservation; frozen text; stop boolean;
BEGIN
  SELECT b.frozen_reason INTO frozen FROM ledger.budget b JOIN ledger.reservation r ON r.budget_id = b.id
    WHERE r.id = NEW.reservation_id FOR SHARE OF b;
  SELECT * INTO booking FROM ledger.reservation r WHERE r.id = NEW.reservation_id FOR UPDATE;
  PERFORM ledger.require_fence(booking.job_id, NEW.fence);
  SELECT w.stop_requested INTO stop FROM ledger.work w WHERE w.job_id = booking.job_id;
  IF stop THEN
    RAISE EXCEPTION 'job % was asked to stop', booking.job_id USING ERRCODE = 'TC002';
  ELSIF frozen IS NOT NULL THEN
    RAISE EXCEPTION 'budget % is frozen', booking.budget_id USING ERRCODE = 'TC003';
  ELSIF booking.state <> 'reserved' THEN
    RAISE EXCEPTION 'reservation % is settled', booking.id USING ERRCODE = 'TC004';
  ELSIF booking.expires_at <= clock_timestamp() THEN
    RAISE EXCEPTION 'reservation % expired at %', booking.id, booking.expires_at USING ERRCODE = 'TC005';
  ELSIF NOT EXISTS (SELECT FROM ledger.entry e WHERE e.reservation_id = booking.id AND e.kind = 'reserve') THEN
    RAISE EXCEPTION 'reservation % was never charged', booking.id USING ERRCODE = 'restrict_violation';
  END IF;
  NEW.at := clock_timestamp();
  UPDATE ledger.phase SET
    -- What cannot be cut into steps is paid for whole, the moment it begins.
    steps_authorised = CASE WHEN indivisible AND steps_authorised = 0 THEN greatest(steps_max, NEW.steps)
                            ELSE steps_authorised + NEW.steps END
    WHERE reservation_id = NEW.reservation_id AND ordinal = NEW.ordinal;
  RETURN NEW;
END $$;

-- What a reservation costs when it ends so: a failure is something that the data did, so that after the first
-- authorised step it costs everything reserved.
CREATE FUNCTION ledger.owed(settled_reservation text, settled_outcome text) RETURNS bigint[]
LANGUAGE sql STABLE
RETURN (
  SELECT array_agg(total ORDER BY i) FROM (
    SELECT i, least(sum(CASE WHEN settled_outcome = 'failed' AND begun.any_step THEN r ELSE c END), 9007199254740992)::bigint AS total
    FROM ledger.phase p,
         unnest(ledger.times(p.step_cost, p.steps_authorised), p.reserved) WITH ORDINALITY AS u (c, r, i),
         (SELECT bool_or(steps_authorised > 0) AS any_step FROM ledger.phase WHERE reservation_id = settled_reservation) AS begun
    WHERE p.reservation_id = settled_reservation GROUP BY i) AS per_order);

CREATE FUNCTION ledger.held(open_reservation text) RETURNS numeric[]
LANGUAGE sql STABLE
RETURN (
  SELECT array_agg(total ORDER BY i) FROM (
    SELECT i, sum(r)::numeric AS total FROM ledger.phase p, unnest(p.reserved) WITH ORDINALITY AS u (r, i)
    WHERE p.reservation_id = open_reservation GROUP BY i) AS per_order);

-- The canonical text of an entry: what its hash covers after the hash before it. Entries without detail keep v1.
CREATE FUNCTION ledger.entry_fields(e ledger.entry) RETURNS text[]
LANGUAGE sql STABLE
RETURN ARRAY[CASE WHEN e.detail IS NULL THEN 'tacit.entry.v1' ELSE 'tacit.entry.v2' END, e.budget_id, e.seq::text, e.kind,
  coalesce(e.reservation_id, ''), coalesce(e.outcome, ''), coalesce(e.fence::text, ''), e.spent_change::text,
  e.reserved_change::text, e.actor, to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')]
  || CASE WHEN e.detail IS NULL THEN '{}'::text[] ELSE ARRAY[e.detail::text] END;

CREATE FUNCTION ledger.is_admin() RETURNS boolean LANGUAGE sql STABLE
RETURN pg_has_role(session_user, (SELECT relowner FROM pg_class WHERE oid = 'ledger.budget'::regclass), 'MEMBER');

-- Price every phase again by today's function: the change in what was spent and in what is held.
CREATE FUNCTION ledger.reprice(wanted_budget text, OUT spent_change numeric[], OUT reserved_change numeric[])
LANGUAGE plpgsql AS $$
DECLARE
  r record; before numeric[]; after numeric[];
  none numeric[] := array_fill(0::numeric, ARRAY[cardinality(ledger.orders())]);
BEGIN
  spent_change := none;
  reserved_change := none;
  FOR r IN SELECT v.id, v.state, e.outcome FROM ledger.reservation v
           LEFT JOIN ledger.entry e ON e.reservation_id = v.id AND e.kind = 'settle'
           WHERE v.budget_id = wanted_budget ORDER BY v.id FOR UPDATE OF v LOOP
    before := CASE WHEN r.state = 'settled' THEN ledger.owed(r.id, r.outcome)::numeric[] ELSE ledger.held(r.id) END;
    UPDATE ledger.phase SET step_cost = ledger.poisson_gaussian_curve(noise_multiplier, sample_rate)
      WHERE reservation_id = r.id AND curve_id IS NULL;
    UPDATE ledger.phase SET reserved = ledger.times(step_cost, steps_max) WHERE reservation_id = r.id;
    after := CASE WHEN r.state = 'settled' THEN ledger.owed(r.id, r.outcome)::numeric[] ELSE ledger.held(r.id) END;
    IF r.state = 'settled' THEN
      spent_change := (SELECT array_agg(c + a - b ORDER BY i) FROM unnest(spent_change, after, before) WITH ORDINALITY AS u (c, a, b, i));
    ELSE
      reserved_change := (SELECT array_agg(c + a - b ORDER BY i) FROM unnest(reserved_change, after, before) WITH ORDINALITY AS u (c, a, b, i));
    END IF;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION ledger.budget_open() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
BEGIN
  NEW.cap := ledger.caps(NEW.epsilon, NEW.delta, NEW.weight_numerators, NEW.weight_denominator);
  NEW.epsilon_opened := NEW.epsilon;
  NEW.epsilon_claim := NEW.epsilon;
  NEW.spent := array_fill(0::bigint, ARRAY[cardinality(ledger.orders())]);
  NEW.reserved := array_fill(0::numeric, ARRAY[cardinality(ledger.orders())]);
  NEW.frozen_reason := NULL;
  NEW.created_at := clock_timestamp();
  NEW.head_seq := 0;
  NEW.head_hash := ledger.genesis(NEW);
  RETURN NEW;
END $$;

-- The hash that a budget's chain starts from covers everything about it that never changes, and its first limit.
CREATE FUNCTION ledger.genesis(b ledger.budget) RETURNS bytea
LANGUAGE sql IMMUTABLE
RETURN sha256(ledger.packed('tacit.budget.v1', b.id, b.tenant_id, b.epsilon_opened::text, b.delta::text, b.unit,
  coalesce(b.max_records_per_user::text, ''), b.relation, b.weight_numerators::text, b.weight_denominator::text,
  ledger.caps(b.epsilon_opened, b.delta, b.weight_numerators, b.weight_denominator)::text));

-- Every movement of a balance and every decision about a budget, in one place.
CREATE OR REPLACE FUNCTION ledger.post() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
DECLARE
  account ledger.budget;
  booking ledger.reservation;
  none bigint[] := array_fill(0::bigint, ARRAY[cardinality(ledger.orders())]);
  correction bigint[] := NEW.spent_change;
  new_epsilon numeric;
  repriced record;
BEGIN
  SELECT * INTO account FROM ledger.budget b WHERE b.id = NEW.budget_id FOR NO KEY UPDATE;
  new_epsilon := account.epsilon;
  NEW.spent_change := none;
  NEW.reserved_change := none::numeric[];

  IF NEW.kind IN ('reserve', 'settle') THEN
    SELECT * INTO booking FROM ledger.reservation r WHERE r.id = NEW.reservation_id FOR UPDATE;
    IF booking.id IS NULL OR booking.budget_id <> NEW.budget_id THEN
      RAISE EXCEPTION 'reservation % is not of budget %', NEW.reservation_id, NEW.budget_id USING ERRCODE = 'restrict_violation';
    ELSIF booking.state <> 'reserved' THEN
      RAISE EXCEPTION 'reservation % is settled', booking.id USING ERRCODE = 'TC004';
    ELSIF ledger.held(booking.id) IS NULL THEN
      RAISE EXCEPTION 'reservation % has no phase', booking.id USING ERRCODE = 'restrict_violation';
    END IF;
  END IF;

  IF NEW.kind = 'reserve' THEN
    IF account.frozen_reason IS NOT NULL THEN
      RAISE EXCEPTION 'budget % is frozen', account.id USING ERRCODE = 'TC003';
    END IF;
    NEW.reserved_change := ledger.held(booking.id);

  ELSIF NEW.kind = 'settle' THEN
    -- Under the fence of the worker, or by anyone once nobody holds the lease.
    IF NEW.fence IS NOT NULL THEN
      PERFORM ledger.require_fence(booking.job_id, NEW.fence);
    ELSE
      PERFORM FROM ledger.work w WHERE w.job_id = booking.job_id FOR UPDATE;
      IF EXISTS (SELECT FROM ledger.work w WHERE w.job_id = booking.job_id AND w.lease_until > clock_timestamp()) THEN
        RAISE EXCEPTION 'job % is being worked on', booking.job_id USING ERRCODE = 'TC001';
      END IF;
    END IF;
    IF NOT EXISTS (SELECT FROM ledger.entry e WHERE e.reservation_id = booking.id AND e.kind = 'reserve') THEN
      RAISE EXCEPTION 'reservation % was never charged', booking.id USING ERRCODE = 'restrict_violation';
    END IF;
    NEW.spent_change := ledger.owed(booking.id, NEW.outcome);
    NEW.reserved_change := (SELECT array_agg(-h ORDER BY i) FROM unnest(ledger.held(booking.id)) WITH ORDINALITY AS u (h, i));
    UPDATE ledger.reservation SET state = 'settled' WHERE id = booking.id;

  ELSIF NEW.kind = 'freeze' THEN
    UPDATE ledger.budget SET frozen_reason = coalesce(frozen_reason, NEW.detail ->> 'reason') WHERE id = account.id;

  ELSIF NEW.kind = 'limit' THEN
    new_epsilon := (NEW.detail ->> 'epsilon')::numeric;
    IF new_epsilon IS NULL OR new_epsilon <= 0 OR new_epsilon > 100 THEN
      RAISE EXCEPTION 'a limit names an epsilon above 0 and at most 100' USING ERRCODE = 'restrict_violation';
    ELSIF new_epsilon > account.epsilon AND NOT ledger.is_admin() THEN
      RAISE EXCEPTION 'only the admin login raises a limit' USING ERRCODE = 'insufficient_privilege';
    END IF;

  ELSIF NEW.kind IN ('thaw', 'correction', 'reprice') THEN
    IF NOT ledger.is_admin() THEN
      RAISE EXCEPTION 'only the admin login may post %', NEW.kind USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.kind = 'thaw' THEN
      UPDATE ledger.budget SET frozen_reason = NULL WHERE id = account.id;  -- refused by the CHECK while over the limit
    ELSIF NEW.kind = 'correction' THEN
      IF correction IS NULL OR cardinality(correction) <> cardinality(none) OR 0 > ANY (correction) THEN
        RAISE EXCEPTION 'a correction only adds to what is spent' USING ERRCODE = 'restrict_violation';
      END IF;
      NEW.spent_change := correction;
    ELSE
      SELECT * INTO repriced FROM ledger.reprice(account.id);
      -- An order that has saturated stays so; elsewhere the new price holds, up or down.
      NEW.spent_change := (SELECT array_agg(CASE WHEN s >= 9007199254740992 THEN 0
                                                 ELSE greatest(-s, least(d, 9007199254740992)) END::bigint ORDER BY i)
                           FROM unnest(account.spent, repriced.spent_change) WITH ORDINALITY AS u (s, d, i));
      NEW.reserved_change := repriced.reserved_change;
    END IF;
  END IF;

  NEW.seq := account.head_seq + 1;
  NEW.at := clock_timestamp();
  NEW.actor := session_user;
  NEW.prev_hash := account.head_hash;
  NEW.hash := sha256(NEW.prev_hash || ledger.packed(VARIADIC ledger.entry_fields(NEW)));
  UPDATE ledger.budget SET
    epsilon = new_epsilon,
    epsilon_claim = greatest(epsilon_claim, new_epsilon),
    cap = CASE WHEN new_epsilon = epsilon THEN cap
               ELSE ledger.caps(new_epsilon, delta, weight_numerators, weight_denominator) END,
    spent = ledger.plus(spent, NEW.spent_change),
    reserved = (SELECT array_agg(r + d ORDER BY i) FROM unnest(reserved, NEW.reserved_change) WITH ORDINALITY AS u (r, d, i)),
    -- A decision may leave the budget over its limit: then it is frozen in the open, never silently overspent.
    frozen_reason = CASE
      WHEN NEW.kind NOT IN ('limit', 'correction', 'reprice') OR frozen_reason IS NOT NULL THEN frozen_reason
      WHEN NOT ledger.fits(ledger.caps(new_epsilon, delta, weight_numerators, weight_denominator),
                           ledger.plus(spent, NEW.spent_change),
                           (SELECT array_agg(r + d ORDER BY i) FROM unnest(reserved, NEW.reserved_change) WITH ORDINALITY AS u (r, d, i)))
        THEN 'over its limit after a ' || NEW.kind || ': ' || (NEW.detail ->> 'reason') END,
    head_seq = NEW.seq, head_hash = NEW.hash
    WHERE id = account.id;
  RETURN NEW;
END $$;

-- Only spent may saturate; a saturated order is dead for good.
CREATE FUNCTION ledger.plus(spent bigint[], change bigint[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN (SELECT array_agg(least(s::numeric + d, 9007199254740992)::bigint ORDER BY i)
        FROM unnest(spent, change) WITH ORDINALITY AS u (s, d, i));
