-- The functions of the ledger again: at the budget's own orders, and so that nothing of a caller's can take the place of a
-- name. pg_temp stands last in every search path: unnamed it is searched first, for types and tables, and a caller's type
-- `text` with a CHECK of the caller's would run as the owner.

CREATE FUNCTION ledger.owed(settled_reservation text, settled_outcome text) RETURNS bigint[]
LANGUAGE sql STABLE
RETURN (
  SELECT array_agg(total ORDER BY i) FROM (
    SELECT i, least(sum(CASE WHEN settled_outcome = 'failed' AND begun.any_step THEN r ELSE c END), 9007199254740992)::bigint AS total
    FROM ledger.phase p,
         unnest(ledger.times(p.step_cost, p.steps_authorised), p.reserved::bigint[]) WITH ORDINALITY AS u (c, r, i),
         (SELECT bool_or(steps_authorised > 0) AS any_step FROM ledger.phase WHERE reservation_id = settled_reservation) AS begun
    WHERE p.reservation_id = settled_reservation GROUP BY i) AS per_order);

CREATE FUNCTION ledger.held(open_reservation text) RETURNS numeric[]
LANGUAGE sql STABLE
RETURN (
  SELECT array_agg(total ORDER BY i) FROM (
    SELECT i, sum(r)::numeric AS total FROM ledger.phase p, unnest(p.reserved::bigint[]) WITH ORDINALITY AS u (r, i)
    WHERE p.reservation_id = open_reservation GROUP BY i) AS per_order);

CREATE FUNCTION ledger.entry_fields(e ledger.entry) RETURNS text[]
LANGUAGE sql STABLE
RETURN ARRAY[CASE WHEN e.detail IS NULL THEN 'tacit.entry.v1' ELSE 'tacit.entry.v2' END, e.budget_id, e.seq::text, e.kind,
  coalesce(e.reservation_id, ''), coalesce(e.outcome, ''), coalesce(e.fence::text, ''), e.spent_change::text,
  e.reserved_change::text, e.actor, to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')]
  || CASE WHEN e.detail IS NULL THEN '{}'::text[] ELSE ARRAY[e.detail::text] END;

-- The hash that a budget's chain starts from covers everything about it that never changes, and its first limit. v1: with
-- the orders of the first revisions, which it does not name.
CREATE FUNCTION ledger.genesis(b ledger.budget) RETURNS bytea
LANGUAGE sql IMMUTABLE
RETURN sha256(ledger.packed(VARIADIC
  CASE WHEN b.orders::int[] = '{2,3,4,5,6,7,8,10,12,16,32,64}'::int[] THEN ARRAY['tacit.budget.v1'] ELSE ARRAY['tacit.budget.v2', b.orders::text] END
  || ARRAY[b.id, b.tenant_id, b.epsilon_opened::text, b.delta::text, b.unit,
  coalesce(b.max_records_per_user::text, ''), b.relation, b.weight_numerators::text, b.weight_denominator::text,
  ledger.caps(b.epsilon_opened, b.delta, b.orders, b.weight_numerators, b.weight_denominator)::text]));

CREATE FUNCTION ledger.nothing(b ledger.budget) RETURNS bigint[] LANGUAGE sql IMMUTABLE
RETURN array_fill(0::bigint, ARRAY[cardinality(b.orders)]);

-- What decides must see what others have committed by the time it has its locks. A snapshot from the transaction's start
-- does not: a settlement would miss steps that were authorised meanwhile. So nothing is written under one.
CREATE FUNCTION ledger.read_committed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, ledger, pg_temp AS $$
BEGIN
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION 'the ledger is written under READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'TC011';
  END IF;
  RETURN NULL;
END $$;
DO $$
DECLARE t record;
BEGIN
  FOR t IN SELECT c.oid::regclass AS name FROM pg_class c WHERE c.relkind = 'r'
           AND c.relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace) AND c.relname <> 'alembic_version' LOOP
    EXECUTE format('CREATE TRIGGER a_read_committed BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed()', t.name);
  END LOOP;
END $$;

-- A claim waits for a settlement that has the work locked, and is not asked again by its own statement, which found nothing
-- changed in the row: so the reservations are looked at here.
CREATE OR REPLACE FUNCTION ledger.work_guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
BEGIN
  IF NEW.job_id <> OLD.job_id THEN
    RAISE EXCEPTION 'work stays with its job' USING ERRCODE = 'restrict_violation';
  ELSIF OLD.stop_requested AND NOT NEW.stop_requested THEN
    RAISE EXCEPTION 'a stop is never taken back' USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.fence <> OLD.fence THEN
    IF NEW.fence <> OLD.fence + 1 THEN
      RAISE EXCEPTION 'a fence grows by one' USING ERRCODE = 'restrict_violation';
    ELSIF OLD.lease_until > clock_timestamp() THEN
      RAISE EXCEPTION 'job % is leased until %', OLD.job_id, OLD.lease_until USING ERRCODE = 'TC001';
    ELSIF NOT EXISTS (SELECT FROM ledger.reservation r WHERE r.job_id = NEW.job_id AND r.state = 'reserved') THEN
      RAISE EXCEPTION 'job % is settled', NEW.job_id USING ERRCODE = 'TC004';
    END IF;
  END IF;
  IF NEW.lease_until > clock_timestamp() + interval '10 minutes' THEN
    RAISE EXCEPTION 'a lease lasts 10 minutes at most' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION ledger.budget_open() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('tacit.budget:' || NEW.id, 0));  -- with is_lost
  IF EXISTS (SELECT FROM ledger.lost_budget l WHERE l.budget_id = NEW.id) THEN
    RAISE EXCEPTION 'budget % was noted as lost', NEW.id USING ERRCODE = 'TC012';
  END IF;
  NEW.cap := ledger.caps(NEW.epsilon, NEW.delta, NEW.orders, NEW.weight_numerators, NEW.weight_denominator);
  NEW.epsilon_opened := NEW.epsilon;
  NEW.epsilon_claim := NEW.epsilon;
  NEW.spent := ledger.nothing(NEW);
  NEW.reserved := ledger.nothing(NEW)::numeric[];
  NEW.frozen_reason := NULL;
  NEW.created_at := clock_timestamp();
  NEW.head_seq := 0;
  NEW.head_hash := ledger.genesis(NEW);
  RETURN NEW;
END $$;

-- A loss that is accepted is never noticed again: nobody has one accepted ahead, of a budget that is there.
CREATE FUNCTION ledger.is_lost() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('tacit.budget:' || NEW.budget_id, 0));
  IF EXISTS (SELECT FROM ledger.budget b WHERE b.id = NEW.budget_id) THEN
    RAISE EXCEPTION 'budget % is not lost', NEW.budget_id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER is_lost BEFORE INSERT ON ledger.lost_budget FOR EACH ROW EXECUTE FUNCTION ledger.is_lost();

CREATE OR REPLACE FUNCTION ledger.phase_price() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE wanted int[];
BEGIN
  -- By the index of charges: a look at all entries of a reservation would read the whole history for every phase.
  IF EXISTS (SELECT FROM ledger.entry WHERE reservation_id = NEW.reservation_id AND kind = 'reserve') THEN
    RAISE EXCEPTION 'phases are declared before the reservation is charged' USING ERRCODE = 'restrict_violation';
  END IF;
  SELECT b.orders INTO wanted FROM ledger.reservation r JOIN ledger.budget b ON b.id = r.budget_id WHERE r.id = NEW.reservation_id;
  NEW.steps_authorised := 0;
  IF NEW.curve_id IS NULL THEN
    NEW.step_cost := ledger.poisson_gaussian_curve(NEW.noise_multiplier, NEW.sample_rate, wanted);
  ELSE
    SELECT ledger.at_orders(wanted, c.orders, c.step_cost), c.indivisible OR NEW.indivisible INTO NEW.step_cost, NEW.indivisible
      FROM ledger.curve c WHERE c.id = NEW.curve_id;
  END IF;
  NEW.reserved := ledger.times(NEW.step_cost, NEW.steps_max);
  RETURN NEW;
END $$;

-- Price every phase again by today's function: the change in what was spent and in what is held.
CREATE OR REPLACE FUNCTION ledger.reprice(wanted_budget text, OUT spent_change numeric[], OUT reserved_change numeric[])
LANGUAGE plpgsql SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE
  r record; before numeric[]; after numeric[]; account ledger.budget;
BEGIN
  SELECT * INTO account FROM ledger.budget b WHERE b.id = wanted_budget FOR NO KEY UPDATE;
  spent_change := ledger.nothing(account)::numeric[];
  reserved_change := spent_change;
  FOR r IN SELECT v.id, v.state, e.outcome FROM ledger.reservation v
           LEFT JOIN ledger.entry e ON e.reservation_id = v.id AND e.kind = 'settle'
           WHERE v.budget_id = wanted_budget ORDER BY v.id FOR UPDATE OF v LOOP
    before := CASE WHEN r.state = 'settled' THEN ledger.owed(r.id, r.outcome)::numeric[] ELSE ledger.held(r.id) END;
    UPDATE ledger.phase SET step_cost = ledger.poisson_gaussian_curve(noise_multiplier, sample_rate, account.orders)
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

-- Every movement of a balance and every decision about a budget, in one place. An entry that a unique index would keep out
-- is refused here: with ON CONFLICT DO NOTHING the index would drop the entry and keep what its triggers did.
CREATE OR REPLACE FUNCTION ledger.post() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE
  account record;  -- not the row's type: that would ask every domain of it again
  booking ledger.reservation;
  none bigint[];
  holds numeric[];
  correction bigint[] := NEW.spent_change;
  new_epsilon numeric;
  repriced record;
BEGIN
  SELECT * INTO account FROM ledger.budget b WHERE b.id = NEW.budget_id FOR NO KEY UPDATE;
  IF account.id IS NULL THEN
    RAISE EXCEPTION 'there is no budget %', NEW.budget_id USING ERRCODE = 'foreign_key_violation';
  END IF;
  IF NEW.kind <> 'settle' AND NOT pg_has_role(session_user, 'tacit_api', 'MEMBER') AND NOT ledger.is_admin() THEN
    RAISE EXCEPTION 'a worker settles and decides nothing' USING ERRCODE = 'insufficient_privilege';
  ELSIF NEW.kind <> 'reserve' AND NEW.detail IS NOT NULL AND ledger.is_words(NEW.detail) IS NOT TRUE THEN
    RAISE EXCEPTION 'the detail of an entry is words by name' USING ERRCODE = 'restrict_violation';
  END IF;
  new_epsilon := account.epsilon;
  none := array_fill(0::bigint, ARRAY[cardinality(account.orders)]);
  NEW.spent_change := none;
  NEW.reserved_change := none::numeric[];

  IF NEW.kind IN ('reserve', 'settle') THEN
    SELECT * INTO booking FROM ledger.reservation r WHERE r.id = NEW.reservation_id FOR UPDATE;
    holds := ledger.held(booking.id);
    IF booking.id IS NULL OR booking.budget_id <> NEW.budget_id THEN
      RAISE EXCEPTION 'reservation % is not of budget %', NEW.reservation_id, NEW.budget_id USING ERRCODE = 'restrict_violation';
    ELSIF booking.state <> 'reserved' THEN
      RAISE EXCEPTION 'reservation % is settled', booking.id USING ERRCODE = 'TC004';
    ELSIF holds IS NULL THEN
      RAISE EXCEPTION 'reservation % has no phase', booking.id USING ERRCODE = 'restrict_violation';
    ELSIF (NEW.kind = 'reserve') = EXISTS (SELECT FROM ledger.entry e WHERE e.reservation_id = booking.id AND e.kind = 'reserve') THEN
      RAISE EXCEPTION 'reservation % was % charged', booking.id, CASE NEW.kind WHEN 'reserve' THEN 'already' ELSE 'never' END
        USING ERRCODE = 'restrict_violation';
    END IF;
  ELSIF NEW.kind = 'open' AND account.head_seq <> 0 THEN
    RAISE EXCEPTION 'budget % is open', account.id USING ERRCODE = 'restrict_violation';
  END IF;

  IF NEW.kind = 'reserve' THEN
    IF account.frozen_reason IS NOT NULL THEN
      RAISE EXCEPTION 'budget % is frozen', account.id USING ERRCODE = 'TC003';
    END IF;
    NEW.reserved_change := holds;

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
    -- Its steps too: under an old snapshot this fails where the sum would miss some.
    PERFORM FROM ledger.phase p WHERE p.reservation_id = booking.id FOR NO KEY UPDATE;
    NEW.spent_change := ledger.owed(booking.id, NEW.outcome);
    NEW.reserved_change := (SELECT array_agg(-h ORDER BY i) FROM unnest(holds) WITH ORDINALITY AS u (h, i));
    UPDATE ledger.reservation SET state = 'settled' WHERE id = booking.id;

  ELSIF NEW.kind = 'freeze' THEN
    UPDATE ledger.budget SET frozen_reason = coalesce(frozen_reason, NEW.detail ->> 'reason') WHERE id = account.id;

  ELSIF NEW.kind = 'limit' THEN
    new_epsilon := ledger.amount(NEW.detail ->> 'epsilon');
    IF new_epsilon IS NULL OR NOT new_epsilon BETWEEN 1e-6 AND 100 THEN
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
                           FROM unnest(account.spent::bigint[], repriced.spent_change) WITH ORDINALITY AS u (s, d, i));
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
               ELSE ledger.caps(new_epsilon, delta, orders, weight_numerators, weight_denominator) END,
    spent = ledger.plus(spent, NEW.spent_change),
    reserved = ledger.moved(reserved, NEW.reserved_change),
    -- A decision may leave the budget over its limit: then it is frozen in the open, never silently overspent.
    frozen_reason = CASE
      WHEN NEW.kind NOT IN ('limit', 'correction', 'reprice') OR frozen_reason IS NOT NULL THEN frozen_reason
      WHEN NOT ledger.fits(ledger.caps(new_epsilon, delta, orders, weight_numerators, weight_denominator),
                           ledger.plus(spent, NEW.spent_change), ledger.moved(reserved, NEW.reserved_change))
        THEN 'over its limit after a ' || NEW.kind || ': ' || (NEW.detail ->> 'reason') END,
    head_seq = NEW.seq, head_hash = NEW.hash
    WHERE id = account.id;
  RETURN NEW;
END $$;

-- What is reserved, after a change; unlike what is spent it never saturates.
CREATE FUNCTION ledger.moved(reserved numeric[], change numeric[]) RETURNS numeric[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN (SELECT array_agg(r + d ORDER BY i) FROM unnest(reserved, change) WITH ORDINALITY AS u (r, d, i));

-- The key stays a steward's until the caller's transaction ends.
CREATE OR REPLACE FUNCTION ledger.require_steward(wanted_tenant text, wanted_key text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
BEGIN
  PERFORM FROM public.api_key k WHERE k.id = wanted_key AND k.tenant_id = wanted_tenant
    AND k.scopes::text[] && ARRAY['steward', 'admin'] AND k.revoked_at IS NULL FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'key % is not that of a steward of the budget', wanted_key USING ERRCODE = 'insufficient_privilege';
  END IF;
END $$;

-- Who may use the budget, by which grant and how soon, `decide` says under the budget's lock. Here is a first look, so that
-- whoever has no grant locks nothing; as long as it is not charged, a reservation cannot be committed.
CREATE OR REPLACE FUNCTION ledger.reservation_begins() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE submitter record; account record;
BEGIN
  SELECT k.id, k.tenant_id, k.project, k.scopes INTO submitter
    FROM public.job j JOIN public.api_key k ON k.id = j.created_by AND k.tenant_id = j.tenant_id WHERE j.id = NEW.job_id;
  SELECT b.tenant_id INTO account FROM ledger.budget b WHERE b.id = NEW.budget_id;
  IF submitter.id IS NULL OR submitter.tenant_id IS DISTINCT FROM account.tenant_id THEN
    RAISE EXCEPTION 'job % is not of the tenant of budget %', NEW.job_id, NEW.budget_id USING ERRCODE = 'restrict_violation';
  END IF;
  IF (submitter.scopes::text[] && ARRAY['steward', 'admin']) IS NOT TRUE
     AND ledger.grant_of(NEW.budget_id, submitter.id, submitter.project) IS NULL THEN
    RAISE EXCEPTION 'key % has no grant of budget %', submitter.id, NEW.budget_id USING ERRCODE = 'TC007';
  END IF;
  NEW.grant_id := NULL;
  NEW.state := 'reserved';
  NEW.waits := false;
  NEW.created_at := clock_timestamp();
  NEW.starts_by := least(NEW.starts_by, NEW.expires_at);
  RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION ledger.decide() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE
  account record;
  booking ledger.reservation;
  pass record;
  submitter record;
  must_wait boolean;
  threshold numeric;
  none bigint[];
BEGIN
  SELECT * INTO account FROM ledger.budget b WHERE b.id = NEW.budget_id FOR NO KEY UPDATE;
  none := array_fill(0::bigint, ARRAY[cardinality(account.orders)]);
  IF NEW.kind IN ('grant', 'revoke', 'rules', 'approve') THEN
    PERFORM ledger.require_steward(account.tenant_id, NEW.detail ->> 'by');
  END IF;

  IF NEW.kind = 'reserve' THEN
    SELECT * INTO booking FROM ledger.reservation r WHERE r.id = NEW.reservation_id FOR UPDATE;
    IF booking.budget_id IS DISTINCT FROM account.id THEN
      RAISE EXCEPTION 'reservation % is not of budget %', NEW.reservation_id, NEW.budget_id USING ERRCODE = 'restrict_violation';
    END IF;
    -- Every change of a grant or a rule takes the budget's lock, so that these are the ones of now.
    SELECT k.id, k.project, k.scopes INTO submitter
      FROM public.job j JOIN public.api_key k ON k.id = j.created_by WHERE j.id = booking.job_id;
    SELECT NULL::text AS id, NULL::numeric AS approval_above INTO pass;
    IF (submitter.scopes::text[] && ARRAY['steward', 'admin']) IS NOT TRUE THEN
      SELECT g.id, g.approval_above INTO pass FROM ledger.budget_grant g
        WHERE g.id = ledger.grant_of(account.id, submitter.id, submitter.project) FOR NO KEY UPDATE;
      IF pass.id IS NULL THEN
        RAISE EXCEPTION 'key % has no grant of budget %', submitter.id, account.id USING ERRCODE = 'TC007';
      END IF;
    END IF;
    -- Verification looks for both; without work nobody could begin or stop the job.
    IF (SELECT max(p.ordinal) + 1 <> count(*) FROM ledger.phase p WHERE p.reservation_id = booking.id) THEN
      RAISE EXCEPTION 'the phases of reservation % are numbered from 0', booking.id USING ERRCODE = 'restrict_violation';
    END IF;
    IF NOT EXISTS (SELECT FROM ledger.work w WHERE w.job_id = booking.job_id) THEN
      RAISE EXCEPTION 'there is no work on job %', booking.job_id USING ERRCODE = 'restrict_violation';
    END IF;
    -- Does the job alone take more than the threshold of an empty budget? Asked in the ledger's own integers.
    threshold := least(account.approval_above, pass.approval_above);
    must_wait := threshold IS NOT NULL AND NOT ledger.fits(
      ledger.caps(threshold, account.delta, account.orders, account.weight_numerators, account.weight_denominator),
      none, ledger.held(booking.id));
    UPDATE ledger.reservation SET grant_id = pass.id, waits = must_wait,
      starts_by = least(starts_by, created_at + account.queue_days * interval '24 hours')
      WHERE id = booking.id AND (pass.id IS NOT NULL OR must_wait OR starts_by > created_at + account.queue_days * interval '24 hours');
    NEW.detail := nullif(jsonb_strip_nulls(jsonb_build_object('grant', pass.id, 'waits', nullif(must_wait, false))), '{}');

  ELSIF NEW.kind = 'approve' THEN
    SELECT * INTO booking FROM ledger.reservation r WHERE r.id = NEW.reservation_id FOR UPDATE;
    IF booking.budget_id IS DISTINCT FROM NEW.budget_id OR NOT booking.waits THEN
      RAISE EXCEPTION 'reservation % does not wait for approval', NEW.reservation_id USING ERRCODE = 'TC009';
    ELSIF booking.state <> 'reserved' THEN
      RAISE EXCEPTION 'reservation % is settled', booking.id USING ERRCODE = 'TC004';
    ELSIF booking.starts_by <= clock_timestamp() THEN
      RAISE EXCEPTION 'reservation % waited until %', booking.id, booking.starts_by USING ERRCODE = 'TC005';
    ELSIF EXISTS (SELECT FROM public.job j WHERE j.id = booking.job_id AND j.created_by = NEW.detail ->> 'by') THEN
      RAISE EXCEPTION 'nobody approves a job of their own' USING ERRCODE = 'insufficient_privilege';
    END IF;
    UPDATE ledger.reservation SET waits = false WHERE id = booking.id;

  ELSIF NEW.kind = 'grant' THEN
    IF NEW.detail ? 'key' AND NOT EXISTS (
         SELECT FROM public.api_key k WHERE k.id = NEW.detail ->> 'key' AND k.tenant_id = account.tenant_id) THEN
      RAISE EXCEPTION 'the key is not of the budget''s tenant' USING ERRCODE = 'restrict_violation';
    END IF;
    INSERT INTO ledger.budget_grant (id, budget_id, key_id, project, epsilon, approval_above, cap, spent, reserved, created_by, created_at)
    VALUES (NEW.detail ->> 'grant', account.id, NEW.detail ->> 'key', NEW.detail ->> 'project',
      ledger.amount(NEW.detail ->> 'epsilon'), ledger.amount(NEW.detail ->> 'approval_above'),
      ledger.caps(ledger.amount(NEW.detail ->> 'epsilon'), account.delta, account.orders, account.weight_numerators, account.weight_denominator),
      none, none::numeric[], NEW.detail ->> 'by', clock_timestamp());

  ELSIF NEW.kind = 'revoke' THEN
    UPDATE ledger.budget_grant SET revoked_at = clock_timestamp()
      WHERE id = NEW.detail ->> 'grant' AND budget_id = account.id AND revoked_at IS NULL;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'there is no grant % to revoke', NEW.detail ->> 'grant' USING ERRCODE = 'restrict_violation';
    END IF;

  ELSIF NEW.kind = 'rules' THEN
    IF NEW.detail ->> 'queue_days' !~ '^[0-9]{1,2}$' THEN
      RAISE EXCEPTION 'days are a plain whole number' USING ERRCODE = 'invalid_text_representation';
    END IF;
    UPDATE ledger.budget SET approval_above = ledger.amount(NEW.detail ->> 'approval_above'), queue_days = (NEW.detail ->> 'queue_days')::int
      WHERE id = account.id;
  END IF;
  RETURN NEW;
END $$;

-- What a worker makes known, under its fence. A file of rows must not pass for a result: whoever may download an adapter
-- would download it.
CREATE OR REPLACE FUNCTION ledger.fenced_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
BEGIN
  PERFORM ledger.require_fence(NEW.job_id, NEW.fence);
  IF TG_TABLE_NAME = 'release' THEN
    IF NOT EXISTS (SELECT FROM ledger.reservation r WHERE r.job_id = NEW.job_id)
       OR EXISTS (SELECT FROM ledger.reservation r
                  LEFT JOIN ledger.entry e ON e.reservation_id = r.id AND e.kind = 'settle' AND e.outcome = 'succeeded'
                  WHERE r.job_id = NEW.job_id AND e.seq IS NULL) THEN
      RAISE EXCEPTION 'job % is released only once it is settled as succeeded', NEW.job_id USING ERRCODE = 'restrict_violation';
    ELSIF NOT EXISTS (SELECT FROM public.file f JOIN public.job j ON j.tenant_id = f.tenant_id
                      WHERE j.id = NEW.job_id AND f.id = NEW.file_id AND f.purpose = 'fine-tune-results' AND f.status = 'processed') THEN
      RAISE EXCEPTION 'job % releases results of its own tenant and nothing else', NEW.job_id USING ERRCODE = 'restrict_violation';
    END IF;
  END IF;
  RETURN NEW;
END $$;

DROP FUNCTION ledger.grant_balance(text);
-- What a grant has spent and holds, from its reservations.
CREATE FUNCTION ledger.grant_balance(wanted_grant text, OUT spent bigint[], OUT reserved numeric[])
LANGUAGE sql STABLE
BEGIN ATOMIC
  SELECT array_agg(least(coalesce(s, 0), 9007199254740992)::bigint ORDER BY i), array_agg(coalesce(h, 0) ORDER BY i)
  FROM (SELECT o.i FROM ledger.budget_grant g JOIN ledger.budget b ON b.id = g.budget_id,
               unnest(b.orders::int[]) WITH ORDINALITY AS o (a, i) WHERE g.id = wanted_grant) AS orders LEFT JOIN (
    SELECT j, sum(amount) FILTER (WHERE r.state = 'settled') AS s, sum(amount) FILTER (WHERE r.state = 'reserved') AS h
    FROM ledger.reservation r LEFT JOIN ledger.entry e ON e.reservation_id = r.id AND e.kind = 'settle',
         unnest(CASE WHEN r.state = 'settled' THEN ledger.owed(r.id, e.outcome)::numeric[] ELSE ledger.held(r.id) END)
           WITH ORDINALITY AS u (amount, j)
    WHERE r.grant_id = wanted_grant GROUP BY j) AS per_order ON i = j;
END;

-- These bind their names when they are made.
CREATE OR REPLACE FUNCTION ledger.grant_of(wanted_budget text, wanted_key text, wanted_project text) RETURNS text
LANGUAGE sql STABLE
BEGIN ATOMIC
  SELECT g.id FROM ledger.budget_grant g
    WHERE g.budget_id = wanted_budget AND g.revoked_at IS NULL AND (g.key_id = wanted_key OR g.project = wanted_project)
    ORDER BY g.key_id IS NULL LIMIT 1;
END;
CREATE OR REPLACE FUNCTION ledger.cut(marks bytea) RETURNS SETOF bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT substring(marks FROM i * 32 + 1 FOR 32) FROM generate_series(0, length(marks) / 32 - 1) AS i;
END;
-- Whoever has it reads what others have bound and can lock none of that: an old snapshot would miss it.
CREATE OR REPLACE FUNCTION ledger.lock_population(tenant text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, ledger, pg_temp AS $$
BEGIN
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION 'fingerprints are compared under READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'TC011';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('tacit.population:' || tenant, 0));
END $$;

-- A file is inserted whole, and sealed in the chain as it comes.
DROP TRIGGER seal_records ON public.file;
CREATE CONSTRAINT TRIGGER seal_records AFTER INSERT ON public.file DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.status = 'processed' AND NEW.budget_id IS NOT NULL) EXECUTE FUNCTION ledger.seal_records();

DROP FUNCTION ledger.poisson_gaussian_curve(float8, float8), ledger.caps(numeric, numeric, int[], int), ledger.orders(),
  ledger.log_expm1(float8), ledger.log1m(float8);

-- Whatever is left with a path that names no pg_temp, or with none.
DO $$
DECLARE f record;
BEGIN
  FOR f IN SELECT p.oid::regprocedure AS name FROM pg_proc p
           WHERE p.pronamespace IN ('ledger'::regnamespace, 'public'::regnamespace) AND p.prosqlbody IS NULL
             AND NOT coalesce(p.proconfig, '{}') && ARRAY['search_path=pg_catalog, ledger, pg_temp'] LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, ledger, pg_temp', f.name);
  END LOOP;
END $$;
