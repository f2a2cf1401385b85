-- The only code that moves a balance. Security definer: the service logins cannot do what these do.
-- Locks are taken in this order everywhere: budget, reservation, work, phase.

-- Custom SQLSTATEs, mapped to exceptions by the ledger package:
--   TC001 the fence is stale or the lease has run out   TC002 the work was asked to stop
--   TC003 the budget is frozen                          TC004 the reservation is settled

CREATE FUNCTION ledger.require_fence(wanted_job text, wanted_fence bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
DECLARE held ledger.work;
BEGIN
  SELECT * INTO held FROM ledger.work w WHERE w.job_id = wanted_job FOR UPDATE;
  IF NOT FOUND OR wanted_fence IS NULL OR held.fence <> wanted_fence
     OR held.lease_until IS NULL OR held.lease_until <= clock_timestamp() THEN
    RAISE EXCEPTION 'the lease on job % is not held under fence %', wanted_job, wanted_fence USING ERRCODE = 'TC001';
  END IF;
END $$;

CREATE FUNCTION ledger.work_guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
BEGIN
  IF NEW.job_id <> OLD.job_id THEN
    RAISE EXCEPTION 'work stays with its job' USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.fence <> OLD.fence THEN
    IF NEW.fence <> OLD.fence + 1 THEN
      RAISE EXCEPTION 'a fence grows by one' USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.lease_until > clock_timestamp() THEN
      RAISE EXCEPTION 'job % is leased until %', OLD.job_id, OLD.lease_until USING ERRCODE = 'TC001';
    END IF;
  END IF;
  IF NEW.lease_until > clock_timestamp() + interval '10 minutes' THEN
    RAISE EXCEPTION 'a lease lasts 10 minutes at most' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER work_guard BEFORE UPDATE ON ledger.work FOR EACH ROW EXECUTE FUNCTION ledger.work_guard();

CREATE FUNCTION ledger.budget_open() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
BEGIN
  NEW.cap := ledger.caps(NEW.epsilon, NEW.delta, NEW.weight_numerators, NEW.weight_denominator);
  NEW.spent := array_fill(0::bigint, ARRAY[cardinality(ledger.orders())]);
  NEW.reserved := array_fill(0::numeric, ARRAY[cardinality(ledger.orders())]);
  NEW.frozen_reason := NULL;
  NEW.created_at := clock_timestamp();
  NEW.head_seq := 0;
  NEW.head_hash := sha256(ledger.packed('tacit.budget.v1', NEW.id, NEW.tenant_id, NEW.epsilon::text, NEW.delta::text, NEW.unit,
    coalesce(NEW.max_records_per_user::text, ''), NEW.relation, NEW.weight_numerators::text, NEW.weight_denominator::text, NEW.cap::text));
  RETURN NEW;
END $$;

-- Canonical bytes: each field as its length (8 bytes, big endian) and its UTF-8 text.
CREATE FUNCTION ledger.packed(VARIADIC fields text[]) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT string_agg(int8send(length(convert_to(f, 'UTF8'))) || convert_to(f, 'UTF8'), ''::bytea ORDER BY i)
        FROM unnest(fields) WITH ORDINALITY AS u (f, i));

CREATE TRIGGER budget_open BEFORE INSERT ON ledger.budget FOR EACH ROW EXECUTE FUNCTION ledger.budget_open();

CREATE FUNCTION ledger.budget_opened() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
BEGIN
  INSERT INTO ledger.entry (budget_id, kind) VALUES (NEW.id, 'open');
  RETURN NULL;
END $$;
CREATE TRIGGER budget_opened AFTER INSERT ON ledger.budget FOR EACH ROW EXECUTE FUNCTION ledger.budget_opened();

CREATE FUNCTION ledger.phase_price() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
BEGIN
  IF EXISTS (SELECT FROM ledger.entry WHERE reservation_id = NEW.reservation_id) THEN
    RAISE EXCEPTION 'phases are declared before the reservation is charged' USING ERRCODE = 'restrict_violation';
  END IF;
  NEW.steps_authorised := 0;
  NEW.step_cost := ledger.poisson_gaussian_curve(NEW.noise_multiplier, NEW.sample_rate);
  NEW.reserved := (SELECT array_agg(least(c::numeric * NEW.steps_max, 9007199254740992)::bigint ORDER BY i)
                   FROM unnest(NEW.step_cost) WITH ORDINALITY AS u (c, i));
  RETURN NEW;
END $$;
CREATE TRIGGER phase_price BEFORE INSERT ON ledger.phase FOR EACH ROW EXECUTE FUNCTION ledger.phase_price();

CREATE FUNCTION ledger.authorise() RETURNS trigger
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
  ELSIF NOT EXISTS (SELECT FROM ledger.entry e WHERE e.reservation_id = booking.id AND e.kind = 'reserve') THEN
    RAISE EXCEPTION 'reservation % was never charged', booking.id USING ERRCODE = 'restrict_violation';
  END IF;
  NEW.at := clock_timestamp();
  UPDATE ledger.phase SET steps_authorised = steps_authorised + NEW.steps
    WHERE reservation_id = NEW.reservation_id AND ordinal = NEW.ordinal;
  RETURN NEW;
END $$;
CREATE TRIGGER authorise BEFORE INSERT ON ledger.authorisation FOR EACH ROW EXECUTE FUNCTION ledger.authorise();

-- Every movement of a balance. Whatever the client sent beside kind, reservation, outcome and fence is ignored.
CREATE FUNCTION ledger.post() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
DECLARE
  account ledger.budget;
  booking ledger.reservation;
  none bigint[] := array_fill(0::bigint, ARRAY[cardinality(ledger.orders())]);
  held numeric[];
  owed bigint[];
BEGIN
  SELECT * INTO account FROM ledger.budget b WHERE b.id = NEW.budget_id FOR NO KEY UPDATE;
  IF NEW.kind = 'open' THEN
    NEW.spent_change := none;
    NEW.reserved_change := none::numeric[];
  ELSE
    SELECT * INTO booking FROM ledger.reservation r WHERE r.id = NEW.reservation_id FOR UPDATE;
    IF booking.id IS NULL OR booking.budget_id <> NEW.budget_id THEN
      RAISE EXCEPTION 'reservation % is not of budget %', NEW.reservation_id, NEW.budget_id USING ERRCODE = 'restrict_violation';
    END IF;
    IF booking.state <> 'reserved' THEN
      RAISE EXCEPTION 'reservation % is settled', booking.id USING ERRCODE = 'TC004';
    END IF;
    SELECT array_agg(total ORDER BY i) INTO held FROM (
      SELECT i, sum(r)::numeric AS total FROM ledger.phase p, unnest(p.reserved) WITH ORDINALITY AS u (r, i)
      WHERE p.reservation_id = booking.id GROUP BY i) AS per_order;
    IF held IS NULL THEN
      RAISE EXCEPTION 'reservation % has no phase', booking.id USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.kind = 'reserve' THEN
      IF account.frozen_reason IS NOT NULL THEN
        RAISE EXCEPTION 'budget % is frozen', account.id USING ERRCODE = 'TC003';
      END IF;
      NEW.spent_change := none;
      NEW.reserved_change := held;
    ELSE
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
      -- A failure is something that the data did: after the first authorised step it costs everything reserved.
      SELECT array_agg(total ORDER BY i) INTO owed FROM (
        SELECT i, least(sum(CASE WHEN NEW.outcome = 'failed' AND begun.any_step THEN r
                                 ELSE least(c::numeric * p.steps_authorised, 9007199254740992) END), 9007199254740992)::bigint AS total
        FROM ledger.phase p, unnest(p.step_cost, p.reserved) WITH ORDINALITY AS u (c, r, i),
             (SELECT bool_or(steps_authorised > 0) AS any_step FROM ledger.phase WHERE reservation_id = booking.id) AS begun
        WHERE p.reservation_id = booking.id GROUP BY i) AS per_order;
      NEW.spent_change := owed;
      NEW.reserved_change := (SELECT array_agg(-h ORDER BY i) FROM unnest(held) WITH ORDINALITY AS u (h, i));
      UPDATE ledger.reservation SET state = 'settled' WHERE id = booking.id;
    END IF;
  END IF;
  NEW.seq := account.head_seq + 1;
  NEW.at := clock_timestamp();
  NEW.actor := session_user;
  NEW.prev_hash := account.head_hash;
  NEW.hash := sha256(NEW.prev_hash || ledger.packed('tacit.entry.v1', NEW.budget_id, NEW.seq::text, NEW.kind,
    coalesce(NEW.reservation_id, ''), coalesce(NEW.outcome, ''), coalesce(NEW.fence::text, ''), NEW.spent_change::text,
    NEW.reserved_change::text, NEW.actor, to_char(NEW.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')));
  UPDATE ledger.budget SET
    -- Only spent may saturate; it never falls, so a saturated order is dead for good.
    spent = (SELECT array_agg(least(s::numeric + d, 9007199254740992)::bigint ORDER BY i)
             FROM unnest(spent, NEW.spent_change) WITH ORDINALITY AS u (s, d, i)),
    reserved = (SELECT array_agg(r + d ORDER BY i) FROM unnest(reserved, NEW.reserved_change) WITH ORDINALITY AS u (r, d, i)),
    head_seq = NEW.seq, head_hash = NEW.hash
    WHERE id = account.id;
  RETURN NEW;
END $$;
CREATE TRIGGER post BEFORE INSERT ON ledger.entry FOR EACH ROW EXECUTE FUNCTION ledger.post();

CREATE FUNCTION ledger.append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.entry FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.entry EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.authorisation FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.authorisation EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER never_deleted BEFORE DELETE ON ledger.budget FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.budget EXECUTE FUNCTION ledger.append_only();

-- At commit: a job's file has a reservation, a reservation has its charge.
CREATE FUNCTION ledger.require_reservation() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM ledger.reservation r WHERE r.job_id = NEW.job_id AND r.budget_id = NEW.budget_id) THEN
    RAISE EXCEPTION 'job % uses file % without a reservation', NEW.job_id, NEW.file_id USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER require_reservation AFTER INSERT ON job_file DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION ledger.require_reservation();

CREATE FUNCTION ledger.require_charge() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM ledger.entry e WHERE e.reservation_id = NEW.id AND e.kind = 'reserve') THEN
    RAISE EXCEPTION 'reservation % has no charge', NEW.id USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER require_charge AFTER INSERT ON ledger.reservation DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION ledger.require_charge();

CREATE FUNCTION ledger.fenced_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
BEGIN
  PERFORM ledger.require_fence(NEW.job_id, NEW.fence);
  IF TG_TABLE_NAME = 'release' AND (
       NOT EXISTS (SELECT FROM ledger.reservation r WHERE r.job_id = NEW.job_id)
       OR EXISTS (SELECT FROM ledger.reservation r
                  LEFT JOIN ledger.entry e ON e.reservation_id = r.id AND e.kind = 'settle' AND e.outcome = 'succeeded'
                  WHERE r.job_id = NEW.job_id AND e.seq IS NULL)) THEN
    RAISE EXCEPTION 'job % is released only once it is settled as succeeded', NEW.job_id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER fenced_row BEFORE INSERT ON release FOR EACH ROW EXECUTE FUNCTION ledger.fenced_row();
CREATE TRIGGER fenced_row BEFORE INSERT ON checkpoint FOR EACH ROW EXECUTE FUNCTION ledger.fenced_row();
