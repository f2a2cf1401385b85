-- A settlement's receipt belongs to whoever submitted the job, who may learn neither how many attempts there were nor
-- when the work ended to the second. So its line has the minute, and a seal over the fence and the exact time under 32
-- random bytes: the hash still covers both. Lines without a salt are of earlier formats, and hash as they did.
ALTER TABLE ledger.entry ADD COLUMN salt bytea;
ALTER TABLE ledger.entry ADD CONSTRAINT a_salt_is_of_a_settlement
  CHECK ((salt IS NULL OR (kind = 'settle' AND octet_length(salt) = 32)) IS TRUE);

CREATE FUNCTION ledger.entry_seal(e ledger.entry) RETURNS text LANGUAGE sql STABLE
RETURN encode(sha256(ledger.packed('tacit.entry.seal.v1', encode((e).salt, 'hex'), coalesce((e).fence::text, ''),
                                   to_char((e).at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))), 'hex');

CREATE OR REPLACE FUNCTION ledger.entry_fields(e ledger.entry) RETURNS text[] LANGUAGE sql STABLE
RETURN ARRAY[
  CASE WHEN (e).salt IS NOT NULL THEN 'tacit.entry.v3' WHEN (e).detail IS NULL THEN 'tacit.entry.v1' ELSE 'tacit.entry.v2' END,
  (e).budget_id, (e).seq::text, (e).kind, coalesce((e).reservation_id, ''), coalesce((e).outcome, ''),
  CASE WHEN (e).salt IS NOT NULL THEN ledger.entry_seal(e) ELSE coalesce((e).fence::text, '') END,
  (e).spent_change::text, (e).reserved_change::text, (e).actor,
  to_char((e).at AT TIME ZONE 'UTC', CASE WHEN (e).salt IS NOT NULL THEN 'YYYY-MM-DD"T"HH24:MI"Z"' ELSE 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"' END)]
  || CASE WHEN (e).detail IS NULL THEN '{}'::text[] ELSE ARRAY[(e).detail::text] END;

REVOKE ALL ON FUNCTION ledger.entry_seal(ledger.entry) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.entry_seal(ledger.entry) TO tacit_api, tacit_worker;

CREATE OR REPLACE FUNCTION ledger.post() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
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
  NEW.salt := CASE WHEN NEW.kind = 'settle' THEN sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) END;
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

-- The same of a result's file, whose time of creation is the moment of its job's end, and which stands in lists of files
-- among others that the same people may have uploaded a second before.
CREATE FUNCTION public.result_time() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, ledger, pg_temp AS $$
BEGIN
  NEW.created_at := date_trunc('minute', NEW.created_at);
  RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION public.result_time() FROM PUBLIC;
CREATE TRIGGER result_time BEFORE INSERT ON public.file
  FOR EACH ROW WHEN (NEW.purpose = 'fine-tune-results') EXECUTE FUNCTION public.result_time();
ALTER TABLE public.file DISABLE TRIGGER file_guard;
UPDATE public.file SET created_at = date_trunc('minute', created_at) WHERE purpose = 'fine-tune-results';
ALTER TABLE public.file ENABLE TRIGGER file_guard;
