-- The schema of a database of this version, as Postgres 18 prints what all migrations leave behind: to read, and to see in
-- a review what a migration changes. No database is made from it. Written by `make schema`; never edited.
-- Not in it: roles and the rights on the database itself (sql/roles.sql), and the rows that migrations put in.
SET ROLE tacit_owner;
SET check_function_bodies = false;
SELECT pg_catalog.set_config('search_path', '', false);

CREATE SCHEMA ledger;

CREATE FUNCTION ledger.is_rising(list integer[]) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (list = (SELECT array_agg(DISTINCT u.o ORDER BY u.o) AS array_agg FROM unnest(is_rising.list) u(o)));

CREATE DOMAIN ledger.order_list AS integer[]
	CONSTRAINT a_rising_list_of_orders CHECK ((
CASE
    WHEN (VALUE IS NULL) THEN true
    WHEN ((array_ndims(VALUE) = 1) AND (array_lower(VALUE, 1) = 1) AND (cardinality(VALUE) <= 64)) THEN ((array_position(VALUE, NULL::integer) IS NULL) AND (2 <= ALL (VALUE)) AND (512 >= ALL (VALUE)) AND ledger.is_rising(VALUE))
    ELSE NULL::boolean
END IS TRUE));

COMMENT ON DOMAIN ledger.order_list IS 'Renyi orders: integers, so that the curve has a closed form';

CREATE DOMAIN ledger.sums AS numeric[]
	CONSTRAINT a_plain_list CHECK ((
CASE
    WHEN (VALUE IS NULL) THEN true
    WHEN ((array_ndims(VALUE) = 1) AND (array_lower(VALUE, 1) = 1) AND (cardinality(VALUE) <= 64)) THEN ((array_position(VALUE, NULL::numeric) IS NULL) AND ('NaN'::numeric <> ALL (VALUE)) AND ('Infinity'::numeric <> ALL (VALUE)) AND ('-Infinity'::numeric <> ALL (VALUE)))
    ELSE NULL::boolean
END IS TRUE));

COMMENT ON DOMAIN ledger.sums IS 'sums of amounts, which may be larger than a bigint';

CREATE DOMAIN ledger.units AS bigint[]
	CONSTRAINT a_plain_list CHECK ((
CASE
    WHEN (VALUE IS NULL) THEN true
    WHEN ((array_ndims(VALUE) = 1) AND (array_lower(VALUE, 1) = 1) AND (cardinality(VALUE) <= 64)) THEN (array_position(VALUE, NULL::bigint) IS NULL)
    ELSE NULL::boolean
END IS TRUE));

COMMENT ON DOMAIN ledger.units IS 'amounts in units of 1e-12 nat, one for each order';

CREATE DOMAIN ledger.weights AS integer[]
	CONSTRAINT a_plain_list CHECK ((
CASE
    WHEN (VALUE IS NULL) THEN true
    WHEN ((array_ndims(VALUE) = 1) AND (array_lower(VALUE, 1) = 1) AND (cardinality(VALUE) <= 64)) THEN ((array_position(VALUE, NULL::integer) IS NULL) AND (0 < ALL (VALUE)))
    ELSE NULL::boolean
END IS TRUE));

COMMENT ON DOMAIN ledger.weights IS 'shares of delta over one common denominator, one for each order';

CREATE DOMAIN public.words AS text[]
	CONSTRAINT a_plain_list CHECK ((
CASE
    WHEN ((VALUE IS NULL) OR (VALUE = '{}'::text[])) THEN true
    WHEN ((array_ndims(VALUE) = 1) AND (array_lower(VALUE, 1) = 1)) THEN (array_position(VALUE, NULL::text) IS NULL)
    ELSE NULL::boolean
END IS TRUE));

CREATE FUNCTION ledger.accept_loss() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
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

CREATE FUNCTION ledger.amount(word text) RETURNS numeric
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $_$
BEGIN
  IF word !~ '^[0-9]{1,30}([.][0-9]{1,60})?([eE][-+]?[0-9]{1,3})?$' THEN
    RAISE EXCEPTION 'an amount is a plain decimal number' USING ERRCODE = 'invalid_text_representation';
  END IF;
  RETURN word::numeric;
END $_$;

CREATE FUNCTION ledger.append_only() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION ledger.at_orders(wanted integer[], known integer[], step_cost bigint[]) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT array_agg((at_orders.step_cost)[array_position(at_orders.known, u.o)] ORDER BY u.i) AS array_agg FROM unnest(at_orders.wanted) WITH ORDINALITY u(o, i));

CREATE FUNCTION ledger.attest_records() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  PERFORM FROM ledger.budget b WHERE b.id = NEW.budget_id FOR NO KEY UPDATE;  -- what was committed before is seen after
  NEW.detail := jsonb_build_object('digest', ledger.records_digest(NEW.budget_id));
  RETURN NEW;
END $$;

CREATE FUNCTION ledger.authorise() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
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

CREATE FUNCTION ledger.bound_key() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE own text; its_blob text := CASE TG_OP WHEN 'DELETE' THEN OLD.blob ELSE NEW.blob END;
BEGIN
  IF ledger.is_worker() THEN
    SELECT l.silo INTO own FROM ledger.silo_login l WHERE l.login = session_user;
    -- exchange/<federated job>/...: of those who take part in it.
    IF (CASE WHEN starts_with(its_blob, 'exchange/')
         THEN NOT EXISTS (SELECT FROM public.silo s JOIN ledger.work w ON w.job_id IN (s.job_id, s.parent_id)
                          WHERE s.parent_id = split_part(its_blob, '/', 2) AND w.silo IS NOT DISTINCT FROM own)
         ELSE own IS DISTINCT FROM ledger.silo_of(its_blob) END) THEN
      RAISE EXCEPTION 'the key of % is not for the login %', its_blob, session_user USING ERRCODE = 'insufficient_privilege';
    END IF;
  END IF;
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;

CREATE FUNCTION ledger.bound_row() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE changed jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END; wanted text;
BEGIN
  wanted := coalesce(changed ->> 'job_id', changed ->> 'id');
  IF TG_TABLE_NAME = 'entry' THEN
    SELECT r.job_id INTO wanted FROM ledger.reservation r WHERE r.id = changed ->> 'reservation_id';
  END IF;
  PERFORM ledger.require_bound(wanted);
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;

CREATE FUNCTION ledger.budget_open() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
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

CREATE FUNCTION ledger.budget_opened() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  INSERT INTO ledger.entry (budget_id, kind) VALUES (NEW.id, 'open');
  RETURN NULL;
END $$;

CREATE FUNCTION ledger.caps(epsilon numeric, delta numeric, orders integer[], weight_numerators integer[], weight_denominator integer) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT array_agg((LEAST((floor(('1000000000000'::numeric * (caps.epsilon + ((((ln((caps.delta + 0.0000000000000000000000000000000000000000)) + ln(round(((o.w)::numeric / (caps.weight_denominator)::numeric), 40))) + ln(round((o.a)::numeric, 40))) - (((o.a - 1))::numeric * ln(round(((1)::numeric - ((1)::numeric / round((o.a)::numeric, 40))), 40)))) / ((o.a - 1))::numeric)))) - (1)::numeric), ('9007199254740991'::bigint)::numeric))::bigint ORDER BY o.i) AS array_agg FROM UNNEST(caps.orders, caps.weight_numerators) WITH ORDINALITY o(a, w, i));

CREATE FUNCTION ledger.count_population() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
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

CREATE FUNCTION ledger.cut(marks bytea) RETURNS SETOF bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT SUBSTRING(cut.marks FROM ((i.i * 32) + 1) FOR 32) AS "substring"
    FROM generate_series(0, ((length(cut.marks) / 32) - 1)) i(i);
END;

CREATE FUNCTION ledger.decide() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $_$
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
    SELECT k.id, k.project, k.scopes, j.intended_use INTO submitter
      FROM public.job j JOIN public.api_key k ON k.id = j.created_by WHERE j.id = booking.job_id;
    IF account.require_intended_use AND submitter.intended_use IS NULL THEN
      RAISE EXCEPTION 'budget % wants to know what a job is for', account.id USING ERRCODE = 'TC015';
    END IF;
    SELECT NULL::text AS id, NULL::numeric AS approval_above, NULL::numeric AS share INTO pass;
    IF (submitter.scopes::text[] && ARRAY['steward', 'admin']) IS NOT TRUE THEN
      SELECT g.id, g.approval_above, g.share INTO pass FROM ledger.budget_grant g
        WHERE g.id = ledger.grant_of(account.id, submitter.id, submitter.project) FOR NO KEY UPDATE;
      IF pass.id IS NULL THEN
        RAISE EXCEPTION 'key % has no grant of budget %', submitter.id, account.id USING ERRCODE = 'TC007';
      END IF;
      -- A share is of the budget's limit as it is now; where that was lowered below what the grant has, its CHECK refuses.
      UPDATE ledger.budget_grant SET cap = ledger.share_caps(pass.share, account.cap, account.weight_numerators)
        WHERE id = pass.id AND cap <> ledger.share_caps(pass.share, account.cap, account.weight_numerators);
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
    ELSIF EXISTS (SELECT FROM ledger.budget_grant g WHERE g.id = booking.grant_id AND g.expires_at <= clock_timestamp()) THEN
      RAISE EXCEPTION 'the grant of reservation % has ended', booking.id USING ERRCODE = 'TC014';
    ELSIF EXISTS (SELECT FROM public.job j WHERE j.id = booking.job_id AND j.created_by = NEW.detail ->> 'by') THEN
      RAISE EXCEPTION 'nobody approves a job of their own' USING ERRCODE = 'insufficient_privilege';
    END IF;
    UPDATE ledger.reservation SET waits = false WHERE id = booking.id;

  ELSIF NEW.kind = 'grant' THEN
    IF NEW.detail ? 'key' AND NOT EXISTS (
         SELECT FROM public.api_key k WHERE k.id = NEW.detail ->> 'key' AND k.tenant_id = account.tenant_id) THEN
      RAISE EXCEPTION 'the key is not of the budget''s tenant' USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.detail ->> 'expires_at' !~ '^[0-9]{1,11}$' OR NEW.detail ->> 'most_steps' !~ '^[0-9]{1,8}$' THEN
      RAISE EXCEPTION 'seconds and steps are plain whole numbers' USING ERRCODE = 'invalid_text_representation';
    ELSIF to_timestamp((NEW.detail ->> 'expires_at')::bigint) <= clock_timestamp() THEN
      RAISE EXCEPTION 'a grant ends in the future' USING ERRCODE = 'restrict_violation';
    END IF;
    INSERT INTO ledger.budget_grant (id, budget_id, key_id, project, epsilon, share, approval_above, expires_at, models, methods,
      most_steps, cap, spent, reserved, created_by, created_at)
    VALUES (NEW.detail ->> 'grant', account.id, NEW.detail ->> 'key', NEW.detail ->> 'project',
      ledger.amount(NEW.detail ->> 'epsilon'), ledger.amount(NEW.detail ->> 'share'), ledger.amount(NEW.detail ->> 'approval_above'),
      to_timestamp((NEW.detail ->> 'expires_at')::bigint), (NEW.detail ->> 'models')::jsonb, (NEW.detail ->> 'methods')::jsonb,
      (NEW.detail ->> 'most_steps')::bigint,
      coalesce(
        ledger.caps(ledger.amount(NEW.detail ->> 'epsilon'), account.delta, account.orders, account.weight_numerators, account.weight_denominator),
        ledger.share_caps(ledger.amount(NEW.detail ->> 'share'), account.cap, account.weight_numerators)),
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
    ELSIF NEW.detail ->> 'require_intended_use' NOT IN ('true', 'false') THEN
      RAISE EXCEPTION 'what a job is for is wanted or not: true or false' USING ERRCODE = 'invalid_text_representation';
    END IF;
    UPDATE ledger.budget SET approval_above = ledger.amount(NEW.detail ->> 'approval_above'), queue_days = (NEW.detail ->> 'queue_days')::int,
      require_intended_use = coalesce((NEW.detail ->> 'require_intended_use')::boolean, false)
      WHERE id = account.id;
  END IF;
  RETURN NEW;
END $_$;

CREATE FUNCTION ledger.decide_whole() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE whole jsonb;
BEGIN
  SELECT jsonb_agg(p.ordinal ORDER BY p.ordinal) INTO whole
    FROM ledger.phase p WHERE p.reservation_id = NEW.reservation_id AND p.indivisible;
  IF whole IS NOT NULL THEN
    NEW.detail := coalesce(NEW.detail, '{}') || jsonb_build_object('whole', whole);
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION ledger.packed(VARIADIC fields text[]) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT string_agg((int8send((length(convert_to(u.f, 'UTF8'::name)))::bigint) || convert_to(u.f, 'UTF8'::name)), '\x'::bytea ORDER BY u.i) AS string_agg FROM unnest(packed.fields) WITH ORDINALITY u(f, i));

CREATE TABLE ledger.entry (
    budget_id text NOT NULL,
    seq bigint NOT NULL,
    kind text NOT NULL,
    reservation_id text,
    outcome text,
    fence bigint,
    spent_change ledger.units NOT NULL,
    reserved_change ledger.sums NOT NULL,
    actor text NOT NULL,
    at timestamp with time zone NOT NULL,
    prev_hash bytea NOT NULL,
    hash bytea NOT NULL,
    detail jsonb,
    salt bytea,
    CONSTRAINT a_decision_says_why CHECK ((((kind = ANY (ARRAY['open'::text, 'reserve'::text, 'settle'::text, 'grant'::text, 'revoke'::text, 'approve'::text, 'records'::text])) OR ((detail IS NOT NULL) AND ((length((detail ->> 'reason'::text)) >= 1) AND (length((detail ->> 'reason'::text)) <= 1000)))) IS TRUE)),
    CONSTRAINT a_salt_is_of_a_settlement CHECK ((((salt IS NULL) OR ((kind = 'settle'::text) AND (octet_length(salt) = 32))) IS TRUE)),
    CONSTRAINT a_settlement_has_an_outcome CHECK ((((kind = 'settle'::text) = (outcome IS NOT NULL)) IS TRUE)),
    CONSTRAINT entry_kind CHECK (((kind = ANY (ARRAY['open'::text, 'reserve'::text, 'settle'::text, 'freeze'::text, 'thaw'::text, 'limit'::text, 'correction'::text, 'reprice'::text, 'overlap'::text, 'grant'::text, 'revoke'::text, 'rules'::text, 'approve'::text, 'records'::text])) IS TRUE)),
    CONSTRAINT entry_names_its_reservation CHECK ((((kind = ANY (ARRAY['reserve'::text, 'settle'::text, 'approve'::text])) = (reservation_id IS NOT NULL)) IS TRUE)),
    CONSTRAINT entry_outcome_check CHECK ((((outcome IS NULL) OR (outcome = ANY (ARRAY['succeeded'::text, 'cancelled'::text, 'failed'::text]))) IS TRUE))
);

CREATE FUNCTION ledger.entry_seal(e ledger.entry) RETURNS text
    LANGUAGE sql STABLE
    RETURN encode(sha256(ledger.packed(VARIADIC ARRAY['tacit.entry.seal.v1'::text, encode((e).salt, 'hex'::text), COALESCE(((e).fence)::text, ''::text), to_char(((e).at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text)])), 'hex'::text);

CREATE FUNCTION ledger.entry_fields(e ledger.entry) RETURNS text[]
    LANGUAGE sql STABLE
    RETURN (ARRAY[CASE WHEN ((e).salt IS NOT NULL) THEN 'tacit.entry.v3'::text WHEN ((e).detail IS NULL) THEN 'tacit.entry.v1'::text ELSE 'tacit.entry.v2'::text END, (e).budget_id, ((e).seq)::text, (e).kind, COALESCE((e).reservation_id, ''::text), COALESCE((e).outcome, ''::text), CASE WHEN ((e).salt IS NOT NULL) THEN ledger.entry_seal(e) ELSE COALESCE(((e).fence)::text, ''::text) END, ((e).spent_change)::text, ((e).reserved_change)::text, (e).actor, to_char(((e).at AT TIME ZONE 'UTC'::text), CASE WHEN ((e).salt IS NOT NULL) THEN 'YYYY-MM-DD"T"HH24:MI"Z"'::text ELSE 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text END)] || CASE WHEN ((e).detail IS NULL) THEN '{}'::text[] ELSE ARRAY[((e).detail)::text] END);

CREATE FUNCTION ledger.fenced_row() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  PERFORM ledger.require_fence(NEW.job_id, NEW.fence);
  IF TG_TABLE_NAME = 'release' THEN
    IF EXISTS (SELECT FROM public.silo s WHERE s.parent_id = NEW.job_id) THEN
      IF NOT EXISTS (SELECT FROM public.federated_round r WHERE r.job_id = NEW.job_id)
         OR EXISTS (SELECT FROM public.federated_round r WHERE r.job_id = NEW.job_id AND r.came IS NULL) THEN
        RAISE EXCEPTION 'job % is released once its rounds are closed', NEW.job_id USING ERRCODE = 'restrict_violation';
      END IF;
    ELSIF NOT EXISTS (SELECT FROM ledger.reservation r WHERE r.job_id = NEW.job_id)
       OR EXISTS (SELECT FROM ledger.reservation r
                  LEFT JOIN ledger.entry e ON e.reservation_id = r.id AND e.kind = 'settle' AND e.outcome = 'succeeded'
                  WHERE r.job_id = NEW.job_id AND e.seq IS NULL) THEN
      RAISE EXCEPTION 'job % is released only once it is settled as succeeded', NEW.job_id USING ERRCODE = 'restrict_violation';
    END IF;
    IF NOT EXISTS (SELECT FROM public.file f JOIN public.job j ON j.tenant_id = f.tenant_id
                   WHERE j.id = NEW.job_id AND f.id = NEW.file_id AND f.purpose = 'fine-tune-results' AND f.status = 'processed') THEN
      RAISE EXCEPTION 'job % releases results of its own tenant and nothing else', NEW.job_id USING ERRCODE = 'restrict_violation';
    END IF;
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION ledger.fits(cap bigint[], spent bigint[], reserved numeric[]) RETURNS boolean
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT bool_or((((o.s)::numeric + o.r) <= (o.c)::numeric)) AS bool_or FROM UNNEST(fits.cap, fits.spent, fits.reserved) o(c, s, r));

CREATE FUNCTION ledger.is_plain(value jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((length((value)::text) <= 100000) AND (NOT jsonb_path_exists(value, 'strict $.**{33 to last}'::jsonpath)) AND (NOT jsonb_path_exists(value, 'strict $.**?(@ > 1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 || @ < -1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000)'::jsonpath)));

CREATE FUNCTION ledger.is_reference(job jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (ledger.is_plain(job) AND (jsonb_typeof((job -> 'sample_rate'::text)) = 'number'::text) AND (jsonb_typeof((job -> 'steps'::text)) = 'number'::text) AND (jsonb_typeof((job -> 'noise_multiplier'::text)) = ANY (ARRAY['number'::text, 'null'::text]))) THEN ((((job ->> 'sample_rate'::text))::numeric >= 0.000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000001) AND (((job ->> 'sample_rate'::text))::numeric <= (1)::numeric) AND ((((job ->> 'steps'::text))::numeric >= (1)::numeric) AND (((job ->> 'steps'::text))::numeric <= (10000000)::numeric)) AND ((((job ->> 'steps'::text))::numeric % (1)::numeric) = (0)::numeric) AND COALESCE(((((job ->> 'noise_multiplier'::text))::numeric >= 0.2) AND (((job ->> 'noise_multiplier'::text))::numeric <= (1000)::numeric)), true)) ELSE NULL::boolean END;

CREATE FUNCTION ledger.sum_of(list integer[]) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT sum(u.x) AS sum FROM unnest(sum_of.list) u(x));

CREATE TABLE ledger.budget (
    id text NOT NULL,
    tenant_id text NOT NULL,
    name text NOT NULL,
    epsilon numeric NOT NULL,
    delta numeric NOT NULL,
    unit text NOT NULL,
    max_records_per_user integer,
    relation text DEFAULT 'add_or_remove_one'::text NOT NULL,
    reference jsonb NOT NULL,
    weight_numerators ledger.weights NOT NULL,
    weight_denominator integer NOT NULL,
    cap ledger.units NOT NULL,
    spent ledger.units NOT NULL,
    reserved ledger.sums NOT NULL,
    frozen_reason text,
    head_seq bigint NOT NULL,
    head_hash bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    epsilon_opened numeric NOT NULL,
    epsilon_claim numeric NOT NULL,
    approval_above numeric,
    queue_days integer DEFAULT 7 NOT NULL,
    orders ledger.order_list DEFAULT '{2,3,4,5,6,7,8,10,12,16,32,64}'::integer[] NOT NULL,
    require_intended_use boolean DEFAULT false NOT NULL,
    held_out numeric DEFAULT 0 NOT NULL,
    CONSTRAINT a_user_budget_bounds_the_records_of_a_user CHECK ((((unit = 'user'::text) = (max_records_per_user IS NOT NULL)) IS TRUE)),
    CONSTRAINT budget_approval_above_check CHECK ((((approval_above IS NULL) OR ((approval_above > (0)::numeric) AND (approval_above <= (100)::numeric))) IS TRUE)),
    CONSTRAINT budget_delta_check CHECK ((((delta >= 0.000000000000000000000000000001) AND (delta < ((1)::numeric - 0.000000000000001))) IS TRUE)),
    CONSTRAINT budget_epsilon_check CHECK ((((epsilon >= 0.000001) AND (epsilon <= (100)::numeric)) IS TRUE)),
    CONSTRAINT budget_held_out_check CHECK (((((held_out = (0)::numeric) OR ((held_out >= 0.01) AND (held_out <= 0.5))) AND (scale(held_out) <= 4)) IS TRUE)),
    CONSTRAINT budget_max_records_per_user_check CHECK ((((max_records_per_user IS NULL) OR (max_records_per_user > 0)) IS TRUE)),
    CONSTRAINT budget_queue_days_check CHECK ((((queue_days >= 1) AND (queue_days <= 30)) IS TRUE)),
    CONSTRAINT budget_reference_check CHECK ((ledger.is_reference(reference) IS TRUE)),
    CONSTRAINT budget_relation_check CHECK (((relation = 'add_or_remove_one'::text) IS TRUE)),
    CONSTRAINT budget_unit_check CHECK (((unit = ANY (ARRAY['record'::text, 'user'::text])) IS TRUE)),
    CONSTRAINT budget_weight_denominator_check CHECK (((weight_denominator > 0) IS TRUE)),
    CONSTRAINT never_overspent CHECK ((((frozen_reason IS NOT NULL) OR ledger.fits((cap)::bigint[], (spent)::bigint[], (reserved)::numeric[])) IS TRUE)),
    CONSTRAINT one_amount_for_each_order CHECK ((((cardinality((cap)::bigint[]) = cardinality((orders)::integer[])) AND (cardinality((spent)::bigint[]) = cardinality((orders)::integer[])) AND (cardinality((reserved)::numeric[]) = cardinality((orders)::integer[]))) IS TRUE)),
    CONSTRAINT reserved_is_not_negative CHECK ((((0)::numeric <= ALL ((reserved)::numeric[])) IS TRUE)),
    CONSTRAINT spent_is_not_negative CHECK (((0 <= ALL ((spent)::bigint[])) IS TRUE)),
    CONSTRAINT the_claim_is_the_highest_limit CHECK ((((epsilon_claim >= epsilon) AND (epsilon_claim >= epsilon_opened) AND (epsilon_claim <= (100)::numeric)) IS TRUE)),
    CONSTRAINT weights_sum_to_one CHECK ((((cardinality((weight_numerators)::integer[]) = cardinality((orders)::integer[])) AND (ledger.sum_of((weight_numerators)::integer[]) = weight_denominator)) IS TRUE))
)
WITH (fillfactor='50');

COMMENT ON COLUMN ledger.budget.held_out IS 'fixed when it opens: the chain begins with it, where it is not 0';

CREATE FUNCTION ledger.genesis(b ledger.budget) RETURNS bytea
    LANGUAGE sql IMMUTABLE
    RETURN sha256(ledger.packed(VARIADIC (CASE WHEN ((b).held_out <> (0)::numeric) THEN ARRAY['tacit.budget.v3'::text, ((b).orders)::text, ((b).held_out)::text] WHEN (((b).orders)::integer[] = '{2,3,4,5,6,7,8,10,12,16,32,64}'::integer[]) THEN ARRAY['tacit.budget.v1'::text] ELSE ARRAY['tacit.budget.v2'::text, ((b).orders)::text] END || ARRAY[(b).id, (b).tenant_id, ((b).epsilon_opened)::text, ((b).delta)::text, (b).unit, COALESCE(((b).max_records_per_user)::text, ''::text), (b).relation, ((b).weight_numerators)::text, ((b).weight_denominator)::text, (ledger.caps((b).epsilon_opened, (b).delta, ((b).orders)::integer[], ((b).weight_numerators)::integer[], (b).weight_denominator))::text])));

CREATE TABLE ledger.phase (
    reservation_id text NOT NULL,
    ordinal smallint NOT NULL,
    sample_rate double precision,
    noise_multiplier double precision,
    steps_max bigint NOT NULL,
    steps_authorised bigint DEFAULT 0 NOT NULL,
    step_cost ledger.units NOT NULL,
    reserved ledger.units NOT NULL,
    curve_id text,
    indivisible boolean DEFAULT false NOT NULL,
    CONSTRAINT a_price_costs_something CHECK ((((0 < ALL ((step_cost)::bigint[])) AND (0 < ALL ((reserved)::bigint[])) AND (cardinality((step_cost)::bigint[]) = cardinality((reserved)::bigint[]))) IS TRUE)),
    CONSTRAINT never_more_steps_than_reserved CHECK ((((steps_authorised >= 0) AND (steps_authorised <= steps_max)) IS TRUE)),
    CONSTRAINT one_mechanism CHECK ((
CASE
    WHEN (curve_id IS NULL) THEN ((sample_rate IS NOT NULL) AND (noise_multiplier IS NOT NULL))
    ELSE ((sample_rate IS NULL) AND (noise_multiplier IS NULL))
END IS TRUE)),
    CONSTRAINT phase_noise_multiplier_check CHECK ((((noise_multiplier IS NULL) OR ((noise_multiplier >= (0.2)::double precision) AND (noise_multiplier <= (1000)::double precision))) IS TRUE)),
    CONSTRAINT phase_ordinal_check CHECK (((ordinal >= 0) IS TRUE)),
    CONSTRAINT phase_sample_rate_check CHECK ((((sample_rate IS NULL) OR ((sample_rate > (0)::double precision) AND (sample_rate <= (1)::double precision))) IS TRUE)),
    CONSTRAINT phase_steps_max_check CHECK ((((steps_max >= 1) AND (steps_max <= 10000000)) IS TRUE))
);

CREATE FUNCTION ledger.held(open_reservation text) RETURNS numeric[]
    LANGUAGE sql STABLE
    RETURN (SELECT array_agg(per_order.total ORDER BY per_order.i) AS array_agg FROM (SELECT u.i, sum(u.r) AS total FROM ledger.phase p, LATERAL unnest((p.reserved)::bigint[]) WITH ORDINALITY u(r, i) WHERE (p.reservation_id = held.open_reservation) GROUP BY u.i) per_order);

CREATE FUNCTION ledger.is_a_time(t timestamp with time zone) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((t IS NULL) OR ((t >= '2000-01-01 00:00:00+00'::timestamp with time zone) AND (t < '9000-01-01 00:00:00+00'::timestamp with time zone)));

CREATE FUNCTION ledger.is_name_list(value jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (value IS NULL) THEN true WHEN (jsonb_typeof(value) = 'array'::text) THEN (((jsonb_array_length(value) >= 1) AND (jsonb_array_length(value) <= 100)) AND (length((value)::text) <= 20000) AND (NOT jsonb_path_exists(value, 'strict $[*]?(@.type() != "string")'::jsonpath))) ELSE NULL::boolean END;

CREATE FUNCTION ledger.times(step_cost bigint[], steps bigint) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT array_agg((LEAST(((u.c)::numeric * (times.steps)::numeric), ('9007199254740992'::bigint)::numeric))::bigint ORDER BY u.i) AS array_agg FROM unnest(times.step_cost) WITH ORDINALITY u(c, i));

CREATE FUNCTION ledger.owed(settled_reservation text, settled_outcome text) RETURNS bigint[]
    LANGUAGE sql STABLE
    RETURN (SELECT array_agg(per_order.total ORDER BY per_order.i) AS array_agg FROM (SELECT u.i, (LEAST(sum(CASE WHEN ((owed.settled_outcome = 'failed'::text) AND begun.any_step) THEN u.r ELSE u.c END), ('9007199254740992'::bigint)::numeric))::bigint AS total FROM ledger.phase p, LATERAL UNNEST(ledger.times((p.step_cost)::bigint[], p.steps_authorised), (p.reserved)::bigint[]) WITH ORDINALITY u(c, r, i), (SELECT bool_or((phase.steps_authorised > 0)) AS any_step FROM ledger.phase WHERE (phase.reservation_id = owed.settled_reservation)) begun WHERE (p.reservation_id = owed.settled_reservation) GROUP BY u.i) per_order);

CREATE TABLE ledger.budget_grant (
    id text NOT NULL,
    budget_id text NOT NULL,
    key_id text,
    project text,
    epsilon numeric,
    approval_above numeric,
    cap ledger.units,
    spent ledger.units NOT NULL,
    reserved ledger.sums NOT NULL,
    created_by text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    share numeric,
    expires_at timestamp with time zone,
    models jsonb,
    methods jsonb,
    most_steps bigint,
    CONSTRAINT a_grant_is_of_a_key_or_a_project CHECK ((((key_id IS NULL) <> (project IS NULL)) IS TRUE)),
    CONSTRAINT a_grants_reserved_is_not_negative CHECK ((((0)::numeric <= ALL ((reserved)::numeric[])) IS TRUE)),
    CONSTRAINT a_grants_spent_is_not_negative CHECK (((0 <= ALL ((spent)::bigint[])) IS TRUE)),
    CONSTRAINT a_sub_limit_has_caps CHECK (((((epsilon IS NULL) AND (share IS NULL)) = (cap IS NULL)) IS TRUE)),
    CONSTRAINT a_sub_limit_is_an_epsilon_or_a_share CHECK ((((epsilon IS NULL) OR (share IS NULL)) IS TRUE)),
    CONSTRAINT budget_grant_approval_above_check CHECK ((((approval_above IS NULL) OR ((approval_above > (0)::numeric) AND (approval_above <= (100)::numeric))) IS TRUE)),
    CONSTRAINT budget_grant_epsilon_check CHECK ((((epsilon IS NULL) OR ((epsilon > (0)::numeric) AND (epsilon <= (100)::numeric))) IS TRUE)),
    CONSTRAINT budget_grant_expires_at_check CHECK ((ledger.is_a_time(expires_at) IS TRUE)),
    CONSTRAINT budget_grant_most_steps_check CHECK ((((most_steps IS NULL) OR ((most_steps >= 1) AND (most_steps <= 10000000))) IS TRUE)),
    CONSTRAINT budget_grant_names_check CHECK (((ledger.is_name_list(models) AND ledger.is_name_list(methods)) IS TRUE)),
    CONSTRAINT budget_grant_share_check CHECK ((((share IS NULL) OR ((share > (0)::numeric) AND (share <= (1)::numeric))) IS TRUE)),
    CONSTRAINT grant_never_overspent CHECK ((((revoked_at IS NOT NULL) OR (cap IS NULL) OR ledger.fits((cap)::bigint[], (spent)::bigint[], (reserved)::numeric[])) IS TRUE))
)
WITH (fillfactor='50');

CREATE TABLE ledger.reservation (
    id text NOT NULL,
    job_id text NOT NULL,
    file_id text NOT NULL,
    budget_id text NOT NULL,
    state text DEFAULT 'reserved'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone DEFAULT (now() + '720:00:00'::interval) NOT NULL,
    grant_id text,
    waits boolean DEFAULT false NOT NULL,
    starts_by timestamp with time zone NOT NULL,
    CONSTRAINT a_reservation_has_an_age_limit CHECK (((ledger.is_a_time(expires_at) AND ledger.is_a_time(starts_by) AND (expires_at <= (created_at + '2160:00:00'::interval))) IS TRUE)),
    CONSTRAINT reservation_state_check CHECK (((state = ANY (ARRAY['reserved'::text, 'settled'::text])) IS TRUE))
);

CREATE FUNCTION ledger.grant_balance(wanted_grant text, OUT spent bigint[], OUT reserved numeric[]) RETURNS record
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT array_agg((LEAST(COALESCE(per_order.s, (0)::numeric), ('9007199254740992'::bigint)::numeric))::bigint ORDER BY orders.i) AS array_agg,
     array_agg(COALESCE(per_order.h, (0)::numeric) ORDER BY orders.i) AS array_agg
    FROM (( SELECT o.i
            FROM (ledger.budget_grant g
              JOIN ledger.budget b ON ((b.id = g.budget_id))),
             LATERAL unnest((b.orders)::integer[]) WITH ORDINALITY o(a, i)
           WHERE (g.id = grant_balance.wanted_grant)) orders
      LEFT JOIN ( SELECT u.j,
             sum(u.amount) FILTER (WHERE (r.state = 'settled'::text)) AS s,
             sum(u.amount) FILTER (WHERE (r.state = 'reserved'::text)) AS h
            FROM (ledger.reservation r
              LEFT JOIN ledger.entry e ON (((e.reservation_id = r.id) AND (e.kind = 'settle'::text)))),
             LATERAL unnest(
                 CASE
                     WHEN (r.state = 'settled'::text) THEN (ledger.owed(r.id, e.outcome))::numeric[]
                     ELSE ledger.held(r.id)
                 END) WITH ORDINALITY u(amount, j)
           WHERE (r.grant_id = grant_balance.wanted_grant)
           GROUP BY u.j) per_order ON ((orders.i = per_order.j)));
END;

CREATE FUNCTION ledger.grant_of(wanted_budget text, wanted_key text, wanted_project text) RETURNS text
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT g.id
    FROM ledger.budget_grant g
   WHERE ((g.budget_id = grant_of.wanted_budget) AND (g.revoked_at IS NULL) AND ((g.expires_at IS NULL) OR (g.expires_at > clock_timestamp())) AND ((g.key_id = grant_of.wanted_key) OR (g.project = grant_of.wanted_project)))
   ORDER BY (g.key_id IS NULL)
  LIMIT 1;
END;

CREATE FUNCTION ledger.is_a_blob(name text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((name IS NULL) OR ((length(name) <= 300) AND (name ~ '^[A-Za-z0-9_-]+([./][A-Za-z0-9_-]+)*$'::text)));

CREATE FUNCTION ledger.is_admin() RETURNS boolean
    LANGUAGE sql STABLE
    RETURN pg_has_role(SESSION_USER, (SELECT pg_class.relowner FROM pg_class WHERE (pg_class.oid = ('ledger.budget'::regclass)::oid)), 'MEMBER'::text);

CREATE FUNCTION ledger.is_error(value jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((value = 'null'::jsonb) OR ((jsonb_typeof(value) = 'object'::text) AND ledger.is_plain(value) AND (jsonb_typeof((value -> 'code'::text)) = 'string'::text) AND (jsonb_typeof((value -> 'message'::text)) = 'string'::text) AND (COALESCE(jsonb_typeof((value -> 'param'::text)), 'null'::text) = ANY (ARRAY['string'::text, 'null'::text]))));

CREATE FUNCTION ledger.is_lost() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('tacit.budget:' || NEW.budget_id, 0));
  IF EXISTS (SELECT FROM ledger.budget b WHERE b.id = NEW.budget_id) THEN
    RAISE EXCEPTION 'budget % is not lost', NEW.budget_id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION ledger.is_words(value jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (jsonb_typeof(value) = 'object'::text) THEN ((length((value)::text) <= 20000) AND (NOT jsonb_path_exists(value, 'strict $.*?(@.type() != "string")'::jsonpath))) ELSE NULL::boolean END;

CREATE FUNCTION ledger.is_worker() RETURNS boolean
    LANGUAGE sql STABLE
    RETURN (pg_has_role(SESSION_USER, 'tacit_worker'::name, 'MEMBER'::text) AND (NOT pg_has_role(SESSION_USER, 'tacit_owner'::name, 'MEMBER'::text)));

CREATE FUNCTION ledger.lock_population(tenant text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION 'fingerprints are compared under READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'TC011';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('tacit.population:' || tenant, 0));
END $$;

CREATE FUNCTION ledger.log1p_exp(x double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (x > (40)::double precision) THEN (x + (0.000000000000001)::double precision) WHEN (x > (0)::double precision) THEN (x + ((2)::double precision * atanh((exp((- x)) / ((2)::double precision + exp((- x))))))) WHEN (x > ('-600'::integer)::double precision) THEN ((2)::double precision * atanh((exp(x) / ((2)::double precision + exp(x))))) ELSE exp((- (600)::double precision)) END;

CREATE FUNCTION ledger.log_factorials() RETURNS double precision[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY[(0.0)::double precision, (0.0)::double precision, (0.6931471805599453)::double precision, (1.791759469228055)::double precision, (3.1780538303479458)::double precision, (4.787491742782046)::double precision, (6.579251212010101)::double precision, (8.525161361065415)::double precision, (10.60460290274525)::double precision, (12.801827480081469)::double precision, (15.104412573075516)::double precision, (17.502307845873887)::double precision, (19.987214495661885)::double precision, (22.552163853123425)::double precision, (25.19122118273868)::double precision, (27.89927138384089)::double precision, (30.671860106080672)::double precision, (33.50507345013689)::double precision, (36.39544520803305)::double precision, (39.339884187199495)::double precision, (42.335616460753485)::double precision, (45.38013889847691)::double precision, (48.47118135183523)::double precision, (51.60667556776438)::double precision, (54.78472939811232)::double precision, (58.00360522298052)::double precision, (61.261701761002)::double precision, (64.55753862700634)::double precision, (67.88974313718154)::double precision, (71.25703896716801)::double precision, (74.65823634883016)::double precision, (78.0922235533153)::double precision, (81.55795945611504)::double precision, (85.05446701758152)::double precision, (88.58082754219768)::double precision, (92.1361756036871)::double precision, (95.7196945421432)::double precision, (99.33061245478743)::double precision, (102.96819861451381)::double precision, (106.63176026064346)::double precision, (110.32063971475739)::double precision, (114.0342117814617)::double precision, (117.77188139974507)::double precision, (121.53308151543864)::double precision, (125.3172711493569)::double precision, (129.12393363912722)::double precision, (132.95257503561632)::double precision, (136.80272263732635)::double precision, (140.67392364823425)::double precision, (144.5657439463449)::double precision, (148.47776695177302)::double precision, (152.40959258449735)::double precision, (156.3608363030788)::double precision, (160.3311282166309)::double precision, (164.32011226319517)::double precision, (168.32744544842765)::double precision, (172.3527971391628)::double precision, (176.39584840699735)::double precision, (180.45629141754378)::double precision, (184.53382886144948)::double precision, (188.6281734236716)::double precision, (192.7390472878449)::double precision, (196.86618167289)::double precision, (201.00931639928152)::double precision, (205.1681994826412)::double precision, (209.34258675253685)::double precision, (213.53224149456327)::double precision, (217.73693411395422)::double precision, (221.95644181913033)::double precision, (226.1905483237276)::double precision, (230.43904356577696)::double precision, (234.70172344281826)::double precision, (238.97838956183432)::double precision, (243.2688490029827)::double precision, (247.57291409618688)::double precision, (251.8904022097232)::double precision, (256.22113555000954)::double precision, (260.5649409718632)::double precision, (264.9216497985528)::double precision, (269.2910976510198)::double precision, (273.6731242856937)::double precision, (278.0675734403661)::double precision, (282.4742926876304)::double precision, (286.893133295427)::double precision, (291.3239500942703)::double precision, (295.76660135076065)::double precision, (300.22094864701415)::double precision, (304.6868567656687)::double precision, (309.1641935801469)::double precision, (313.65282994987905)::double precision, (318.1526396202093)::double precision, (322.66349912672615)::double precision, (327.1852877037752)::double precision, (331.7178871969285)::double precision, (336.26118197919845)::double precision, (340.815058870799)::double precision, (345.37940706226686)::double precision, (349.95411804077025)::double precision, (354.5390855194408)::double precision, (359.1342053695754)::double precision, (363.73937555556347)::double precision, (368.35449607240474)::double precision, (372.979468885689)::double precision, (377.61419787391867)::double precision, (382.25858877306)::double precision, (386.91254912321756)::double precision, (391.5759882173296)::double precision, (396.24881705179155)::double precision, (400.93094827891576)::double precision, (405.6222961611449)::double precision, (410.32277652693733)::double precision, (415.03230672824964)::double precision, (419.7508055995447)::double precision, (424.4781934182571)::double precision, (429.21439186665157)::double precision, (433.9593239950148)::double precision, (438.71291418612117)::double precision, (443.47508812091894)::double precision, (448.2457727453846)::double precision, (453.0248962384961)::double precision, (457.81238798127816)::double precision, (462.6081785268749)::double precision, (467.4121995716082)::double precision, (472.2243839269806)::double precision, (477.04466549258564)::double precision, (481.87297922988796)::double precision, (486.7092611368394)::double precision, (491.553448223298)::double precision, (496.40547848721764)::double precision, (501.2652908915793)::double precision, (506.1328253420349)::double precision, (511.008022665236)::double precision, (515.8908245878224)::double precision, (520.7811737160441)::double precision, (525.679013515995)::double precision, (530.5842882944335)::double precision, (535.4969431801695)::double precision, (540.4169241059976)::double precision, (545.3441777911548)::double precision, (550.2786517242855)::double precision, (555.2202941468948)::double precision, (560.169054037273)::double precision, (565.1248810948744)::double precision, (570.0877257251342)::double precision, (575.0575390247102)::double precision, (580.0342727671308)::double precision, (585.0178793888391)::double precision, (590.0083119756179)::double precision, (595.005524249382)::double precision, (600.0094705553274)::double precision, (605.0201058494237)::double precision, (610.0373856862386)::double precision, (615.0612662070849)::double precision, (620.0917041284773)::double precision, (625.128656730891)::double precision, (630.1720818478102)::double precision, (635.2219378550598)::double precision, (640.278183660408)::double precision, (645.340778693435)::double precision, (650.4096828956552)::double precision, (655.4848567108891)::double precision, (660.5662610758735)::double precision, (665.653857411106)::double precision, (670.7476076119127)::double precision, (675.8474740397369)::double precision, (680.9534195136374)::double precision, (686.065407301994)::double precision, (691.1834011144108)::double precision, (696.307365093814)::double precision, (701.437263808737)::double precision, (706.5730622457874)::double precision, (711.71472580229)::double precision, (716.8622202791034)::double precision, (722.0155118736012)::double precision, (727.1745671728157)::double precision, (732.3393531467393)::double precision, (737.5098371417774)::double precision, (742.6859868743512)::double precision, (747.8677704246434)::double precision, (753.0551562304842)::double precision, (758.2481130813743)::double precision, (763.4466101126401)::double precision, (768.6506167997169)::double precision, (773.8601029525583)::double precision, (779.0750387101673)::double precision, (784.2953945352457)::double precision, (789.5211412089589)::double precision, (794.7522498258135)::double precision, (799.9886917886435)::double precision, (805.230438803703)::double precision, (810.4774628758636)::double precision, (815.7297363039102)::double precision, (820.9872316759379)::double precision, (826.2499218648428)::double precision, (831.5177800239062)::double precision, (836.7907795824699)::double precision, (842.0688942417004)::double precision, (847.3520979704384)::double precision, (852.640365001133)::double precision, (857.9336698258575)::double precision, (863.2319871924054)::double precision, (868.5352921004645)::double precision, (873.8435597978657)::double precision, (879.1567657769075)::double precision, (884.4748857707517)::double precision, (889.7978957498901)::double precision, (895.1257719186798)::double precision, (900.4584907119452)::double precision, (905.7960287916464)::double precision, (911.1383630436112)::double precision, (916.4854705743287)::double precision, (921.8373287078048)::double precision, (927.1939149824768)::double precision, (932.5552071481862)::double precision, (937.9211831632081)::double precision, (943.2918211913358)::double precision, (948.6670995990199)::double precision, (954.0469969525603)::double precision, (959.4314920153495)::double precision, (964.8205637451659)::double precision, (970.2141912915183)::double precision, (975.6123539930361)::double precision, (981.0150313749083)::double precision, (986.4222031463685)::double precision, (991.8338491982234)::double precision, (997.249949600428)::double precision, (1002.6704845997002)::double precision, (1008.0954346171816)::double precision, (1013.5247802461361)::double precision, (1018.9585022496902)::double precision, (1024.3965815586134)::double precision, (1029.8389992691352)::double precision, (1035.2857366408016)::double precision, (1040.7367750943672)::double precision, (1046.192096209725)::double precision, (1051.6516817238692)::double precision, (1057.1155135288948)::double precision, (1062.5835736700299)::double precision, (1068.0558443437014)::double precision, (1073.5323078956328)::double precision, (1079.0129468189748)::double precision, (1084.4977437524656)::double precision, (1089.9866814786221)::double precision, (1095.4797429219627)::double precision, (1100.976911147256)::double precision, (1106.4781693578007)::double precision, (1111.983500893733)::double precision, (1117.492889230361)::double precision, (1123.006317976526)::double precision, (1128.5237708729908)::double precision, (1134.045231790853)::double precision, (1139.5706847299848)::double precision, (1145.100113817496)::double precision, (1150.6335033062237)::double precision, (1156.1708375732421)::double precision, (1161.7121011184006)::double precision, (1167.2572785628802)::double precision, (1172.8063546477754)::double precision, (1178.359314232697)::double precision, (1183.9161422943966)::double precision, (1189.4768239254122)::double precision, (1195.0413443327348)::double precision, (1200.609688836496)::double precision, (1206.1818428686736)::double precision, (1211.75779197182)::double precision, (1217.3375217978062)::double precision, (1222.921018106588)::double precision, (1228.508266764988)::double precision, (1234.099253745499)::double precision, (1239.693965125101)::double precision, (1245.2923870840991)::double precision, (1250.894505904979)::double precision, (1256.5003079712749)::double precision, (1262.10977976646)::double precision, (1267.722907872848)::double precision, (1273.3396789705146)::double precision, (1278.9600798362317)::double precision, (1284.584097342419)::double precision, (1290.2117184561096)::double precision, (1295.8429302379311)::double precision, (1301.4777198411002)::double precision, (1307.116074510434)::double precision, (1312.7579815813722)::double precision, (1318.4034284790155)::double precision, (1324.0524027171766)::double precision, (1329.7048918974451)::double precision, (1335.360883708265)::double precision, (1341.0203659240246)::double precision, (1346.6833264041607)::double precision, (1352.349753092273)::double precision, (1358.0196340152536)::double precision, (1363.6929572824251)::double precision, (1369.3697110846933)::double precision, (1375.0498836937104)::double precision, (1380.733463461049)::double precision, (1386.420438817389)::double precision, (1392.110798271713)::double precision, (1397.8045304105158)::double precision, (1403.501623897021)::double precision, (1409.2020674704117)::double precision, (1414.905849945068)::double precision, (1420.612960209817)::double precision, (1426.3233872271917)::double precision, (1432.037120032701)::double precision, (1437.7541477341074)::double precision, (1443.4744595107147)::double precision, (1449.1980446126672)::double precision, (1454.9248923602543)::double precision, (1460.654992143228)::double precision, (1466.3883334201257)::double precision, (1472.1249057176049)::double precision, (1477.864698629784)::double precision, (1483.6077018175936)::double precision, (1489.3539050081338)::double precision, (1495.103297994042)::double precision, (1500.8558706328677)::double precision, (1506.6116128464546)::double precision, (1512.3705146203317)::double precision, (1518.132566003112)::double precision, (1523.8977571058967)::double precision, (1529.6660781016906)::double precision, (1535.4375192248206)::double precision, (1541.212070770365)::double precision, (1546.9897230935876)::double precision, (1552.77046660938)::double precision, (1558.5542917917098)::double precision, (1564.3411891730764)::double precision, (1570.1311493439737)::double precision, (1575.9241629523578)::double precision, (1581.7202207031232)::double precision, (1587.5193133575838)::double precision, (1593.3214317329607)::double precision, (1599.1265667018772)::double precision, (1604.9347091918578)::double precision, (1610.7458501848344)::double precision, (1616.5599807166595)::double precision, (1622.3770918766227)::double precision, (1628.197174806975)::double precision, (1634.0202207024581)::double precision, (1639.8462208098385)::double precision, (1645.6751664274486)::double precision, (1651.5070489047323)::double precision, (1657.3418596417948)::double precision, (1663.1795900889608)::double precision, (1669.0202317463343)::double precision, (1674.8637761633656)::double precision, (1680.7102149384232)::double precision, (1686.5595397183702)::double precision, (1692.4117421981446)::double precision, (1698.2668141203471)::double precision, (1704.1247472748305)::double precision, (1709.9855334982963)::double precision, (1715.8491646738944)::double precision, (1721.7156327308278)::double precision, (1727.5849296439615)::double precision, (1733.4570474334369)::double precision, (1739.331978164289)::double precision, (1745.2097139460686)::double precision, (1751.0902469324692)::double precision, (1756.9735693209575)::double precision, (1762.8596733524078)::double precision, (1768.7485513107406)::double precision, (1774.6401955225665)::double precision, (1780.5345983568313)::double precision, (1786.431752224468)::double precision, (1792.3316495780505)::double precision, (1798.2342829114518)::double precision, (1804.1396447595064)::double precision, (1810.0477276976753)::double precision, (1815.958524341716)::double precision, (1821.872027347354)::double precision, (1827.7882294099616)::double precision, (1833.7071232642347)::double precision, (1839.6287016838785)::double precision, (1845.552957481293)::double precision, (1851.4798835072636)::double precision, (1857.4094726506535)::double precision, (1863.3417178381014)::double precision, (1869.276612033721)::double precision, (1875.2141482388033)::double precision, (1881.154319491524)::double precision, (1887.0971188666506)::double precision, (1893.0425394752572)::double precision, (1898.9905744644377)::double precision, (1904.9412170170256)::double precision, (1910.8944603513132)::double precision, (1916.8502977207781)::double precision, (1922.8087224138078)::double precision, (1928.7697277534312)::double precision, (1934.7333070970496)::double precision, (1940.6994538361732)::double precision, (1946.6681613961587)::double precision, (1952.6394232359492)::double precision, (1958.6132328478184)::double precision, (1964.5895837571163)::double precision, (1970.5684695220175)::double precision, (1976.5498837332718)::double precision, (1982.533820013959)::double precision, (1988.5202720192435)::double precision, (1994.5092334361334)::double precision, (2000.5006979832415)::double precision, (2006.494659410548)::double precision, (2012.491111499167)::double precision, (2018.4900480611136)::double precision, (2024.4914629390748)::double precision, (2030.4953500061813)::double precision, (2036.501703165783)::double precision, (2042.5105163512258)::double precision, (2048.52178352563)::double precision, (2054.535498681673)::double precision, (2060.551655841371)::double precision, (2066.5702490558674)::double precision, (2072.591272405217)::double precision, (2078.614719998178)::double precision, (2084.640585972003)::double precision, (2090.6688644922338)::double precision, (2096.699549752495)::double precision, (2102.7326359742938)::double precision, (2108.7681174068184)::double precision, (2114.8059883267406)::double precision, (2120.846243038018)::double precision, (2126.8888758717007)::double precision, (2132.9338811857365)::double precision, (2138.981253364783)::double precision, (2145.0309868200147)::double precision, (2151.083075988939)::double precision, (2157.1375153352087)::double precision, (2163.194299348437)::double precision, (2169.253422544019)::double precision, (2175.314879462947)::double precision, (2181.378664671635)::double precision, (2187.4447727617385)::double precision, (2193.5131983499823)::double precision, (2199.583936077985)::double precision, (2205.6569806120856)::double precision, (2211.732326643174)::double precision, (2217.809968886523)::double precision, (2223.889902081619)::double precision, (2229.9721209919953)::double precision, (2236.05662040507)::double precision, (2242.1433951319827)::double precision, (2248.2324400074294)::double precision, (2254.3237498895073)::double precision, (2260.4173196595525)::double precision, (2266.5131442219845)::double precision, (2272.6112185041507)::double precision, (2278.711537456171)::double precision, (2284.8140960507844)::double precision, (2290.9188892831994)::double precision, (2297.025912170942)::double precision, (2303.135159753706)::double precision, (2309.2466270932086)::double precision, (2315.360309273041)::double precision, (2321.476201398524)::double precision, (2327.5942985965653)::double precision, (2333.7145960155162)::double precision, (2339.8370888250306)::double precision, (2345.961772215925)::double precision, (2352.0886414000393)::double precision, (2358.2176916101)::double precision, (2364.3489180995825)::double precision, (2370.4823161425793)::double precision, (2376.617881033661)::double precision, (2382.7556080877475)::double precision, (2388.895492639974)::double precision, (2395.0375300455607)::double precision, (2401.1817156796865)::double precision, (2407.3280449373556)::double precision, (2413.476513233273)::double precision, (2419.6271160017195)::double precision, (2425.7798486964234)::double precision, (2431.93470679044)::double precision, (2438.0916857760253)::double precision, (2444.2507811645173)::double precision, (2450.4119884862125)::double precision, (2456.575303290247)::double precision, (2462.7407211444784)::double precision, (2468.9082376353667)::double precision, (2475.077848367858)::double precision, (2481.2495489652692)::double precision, (2487.423335069171)::double precision, (2493.599202339277)::double precision, (2499.7771464533275)::double precision, (2505.9571631069803)::double precision, (2512.139248013697)::double precision, (2518.323396904634)::double precision, (2524.509605528535)::double precision, (2530.6978696516176)::double precision, (2536.8881850574703)::double precision, (2543.0805475469456)::double precision, (2549.27495293805)::double precision, (2555.4713970658445)::double precision, (2561.669875782337)::double precision, (2567.8703849563794)::double precision, (2574.0729204735676)::double precision, (2580.277478236136)::double precision, (2586.484054162861)::double precision, (2592.6926441889577)::double precision, (2598.9032442659823)::double precision, (2605.115850361734)::double precision, (2611.330458460156)::double precision, (2617.547064561241)::double precision, (2623.765664680933)::double precision, (2629.9862548510323)::double precision, (2636.2088311191037)::double precision, (2642.433389548379)::double precision, (2648.6599262176665)::double precision, (2654.888437221258)::double precision, (2661.118918668836)::double precision, (2667.351366685387)::double precision, (2673.585777411105)::double precision, (2679.822147001309)::double precision, (2686.0604716263483)::double precision];

CREATE FUNCTION ledger.moved(reserved numeric[], change numeric[]) RETURNS numeric[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT array_agg((u.r + u.d) ORDER BY u.i) AS array_agg FROM UNNEST(moved.reserved, moved.change) WITH ORDINALITY u(r, d, i));

CREATE FUNCTION ledger.nothing(b ledger.budget) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE
    RETURN array_fill((0)::bigint, ARRAY[cardinality(((b).orders)::integer[])]);

CREATE FUNCTION ledger.one_population() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
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

CREATE FUNCTION ledger.pause_begins() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  IF NEW.paused_at IS NOT NULL THEN
    NEW.paused_at := coalesce(OLD.paused_at, clock_timestamp());
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION ledger.phase_price() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
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

CREATE FUNCTION ledger.plus(spent bigint[], change bigint[]) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT array_agg((LEAST(((u.s)::numeric + (u.d)::numeric), ('9007199254740992'::bigint)::numeric))::bigint ORDER BY u.i) AS array_agg FROM UNNEST(plus.spent, plus.change) WITH ORDINALITY u(s, d, i));

CREATE FUNCTION ledger.poisson_gaussian_curve(noise_multiplier double precision, sample_rate double precision, orders integer[]) RETURNS bigint[]
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE
  log_factorial CONSTANT float8[] := ledger.log_factorials();  -- that of n at n + 1
  half CONSTANT float8 := 1 / (2 * noise_multiplier * noise_multiplier);
  log_miss float8;                                 -- log(1 - q)
  log_odds float8;
  of_k float8[];
  a int; x float8; most float8; total float8; nats float8;
  answer bigint[] := '{}';
BEGIN
  IF sample_rate < 1 THEN
    log_miss := CASE WHEN sample_rate > 0.5 THEN ln(1 - sample_rate) ELSE -2 * atanh(sample_rate / (2 - sample_rate)) END;
    log_odds := ln(sample_rate) - log_miss;
    FOR k IN 2 .. (SELECT max(o) FROM unnest(orders) AS u (o)) LOOP
      x := k * (k - 1) * half;
      of_k[k] := k * log_odds - log_factorial[k + 1] + CASE WHEN x > 40 THEN x ELSE x / 2 + ln(2 * sinh(x / 2)) END;
    END LOOP;
  END IF;
  FOREACH a IN ARRAY orders LOOP
    IF sample_rate = 1 THEN
      nats := a * half;
    ELSE
      most := '-Infinity';
      FOR k IN 2 .. a LOOP
        x := of_k[k] - log_factorial[a - k + 1];
        IF x > most THEN most := x; END IF;
      END LOOP;
      total := 0;
      FOR k IN 2 .. a LOOP
        x := of_k[k] - log_factorial[a - k + 1] - most;
        IF x > -40 THEN total := total + exp(x); END IF;  -- 512 terms below e^-40 are far below the margin
      END LOOP;
      nats := ledger.log1p_exp(most + ln(total) + log_factorial[a + 1] + a * log_miss) / (a - 1);
    END IF;
    answer := answer || greatest(1, least(ceil(nats * 1e12 * (1 + 1e-11)), 9007199254740992))::bigint;
  END LOOP;
  RETURN answer;
END $$;

CREATE FUNCTION ledger.post() RETURNS trigger
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

CREATE FUNCTION ledger.post_grant() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE pass record; now_held record;
BEGIN
  IF NEW.kind IN ('reserve', 'settle') THEN
    UPDATE ledger.budget_grant g SET
      spent = ledger.plus(g.spent, NEW.spent_change),
      reserved = (SELECT array_agg(r + d ORDER BY i) FROM unnest(g.reserved, NEW.reserved_change) WITH ORDINALITY AS u (r, d, i))
      FROM ledger.reservation booking WHERE booking.id = NEW.reservation_id AND g.id = booking.grant_id;
  ELSIF NEW.kind = 'reprice' THEN
    FOR pass IN SELECT * FROM ledger.budget_grant g WHERE g.budget_id = NEW.budget_id ORDER BY g.id FOR NO KEY UPDATE LOOP
      SELECT * INTO now_held FROM ledger.grant_balance(pass.id);
      UPDATE ledger.budget_grant SET spent = now_held.spent, reserved = now_held.reserved,
        revoked_at = CASE WHEN ledger.fits(cap, now_held.spent, now_held.reserved) IS FALSE
                          THEN coalesce(revoked_at, clock_timestamp()) ELSE revoked_at END
        WHERE id = pass.id;
    END LOOP;
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION ledger.read_committed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION 'the ledger is written under READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'TC011';
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION ledger.records_digest(wanted_budget text) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$ SELECT encode(sha256(ledger.packed(VARIADIC ARRAY['tacit.records.v1', wanted_budget] || coalesce(
        (SELECT array_agg(u.field ORDER BY p.kind COLLATE "C", u.i)
         FROM ledger.population p, unnest(ARRAY[p.kind, p.marks::text] || p.sums::text[]) WITH ORDINALITY AS u (field, i)
         WHERE p.budget_id = wanted_budget), '{}'))), 'hex') $$;

CREATE FUNCTION ledger.reprice(wanted_budget text, OUT spent_change numeric[], OUT reserved_change numeric[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
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

CREATE FUNCTION ledger.require_approval() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  IF EXISTS (SELECT FROM ledger.reservation r WHERE r.waits
             AND (r.job_id = to_jsonb(NEW) ->> 'job_id' OR r.id = to_jsonb(NEW) ->> 'reservation_id')) THEN
    RAISE EXCEPTION 'the job waits for the approval of a steward' USING ERRCODE = 'TC008';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION ledger.require_bound(wanted_job text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE own text; its text;
BEGIN
  IF ledger.is_worker() THEN
    SELECT l.silo INTO own FROM ledger.silo_login l WHERE l.login = session_user;
    SELECT w.silo INTO its FROM ledger.work w WHERE w.job_id = wanted_job;
    IF own IS DISTINCT FROM its THEN
      RAISE EXCEPTION 'job % is not for the login %', wanted_job, session_user USING ERRCODE = 'insufficient_privilege';
    END IF;
  END IF;
END $$;

CREATE FUNCTION ledger.require_charge() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM ledger.entry e WHERE e.reservation_id = NEW.id AND e.kind = 'reserve') THEN
    RAISE EXCEPTION 'reservation % has no charge', NEW.id USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION ledger.require_fence(wanted_job text, wanted_fence bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE held ledger.work;
BEGIN
  PERFORM ledger.require_bound(wanted_job);
  SELECT * INTO held FROM ledger.work w WHERE w.job_id = wanted_job FOR UPDATE;
  IF NOT FOUND OR wanted_fence IS NULL OR held.fence <> wanted_fence
     OR held.lease_until IS NULL OR held.lease_until <= clock_timestamp() THEN
    RAISE EXCEPTION 'the lease on job % is not held under fence %', wanted_job, wanted_fence USING ERRCODE = 'TC001';
  END IF;
END $$;

CREATE FUNCTION ledger.require_no_loss() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  IF EXISTS (SELECT FROM ledger.lost_budget l WHERE l.accepted_at IS NULL) THEN
    RAISE EXCEPTION 'the ledger lacks a budget that the witness saw' USING ERRCODE = 'TC012';
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION ledger.require_reservation() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM ledger.reservation r WHERE r.job_id = NEW.job_id AND r.budget_id = NEW.budget_id) THEN
    RAISE EXCEPTION 'job % uses file % without a reservation', NEW.job_id, NEW.file_id USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION ledger.require_steward(wanted_tenant text, wanted_key text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  PERFORM FROM public.api_key k WHERE k.id = wanted_key AND k.tenant_id = wanted_tenant
    AND k.scopes::text[] && ARRAY['steward', 'admin'] AND k.revoked_at IS NULL FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'key % is not that of a steward of the budget', wanted_key USING ERRCODE = 'insufficient_privilege';
  END IF;
END $$;

CREATE FUNCTION ledger.require_teacher() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE teacher text;
BEGIN
  SELECT j.teacher_job INTO teacher FROM public.job j WHERE j.id = NEW.job_id;
  IF teacher IS NOT NULL AND ledger.teaches(teacher, NEW.budget_id) IS NOT TRUE THEN
    RAISE EXCEPTION 'job % would learn from job %, which released nothing that budget % alone paid for', NEW.job_id, teacher, NEW.budget_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION ledger.require_unpaused() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE wanted text := to_jsonb(NEW) ->> 'job_id';
BEGIN
  IF TG_TABLE_NAME = 'authorisation' THEN
    SELECT r.job_id INTO wanted FROM ledger.reservation r WHERE r.id = to_jsonb(NEW) ->> 'reservation_id';
  END IF;
  IF EXISTS (SELECT FROM ledger.work w WHERE w.job_id = wanted AND w.paused_at IS NOT NULL) THEN
    RAISE EXCEPTION 'job % is paused', wanted USING ERRCODE = 'TC010';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION ledger.reservation_begins() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
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

CREATE FUNCTION ledger.seal_records() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
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

CREATE FUNCTION ledger.share_caps(share numeric, cap bigint[], weight_numerators integer[]) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT array_agg(CASE WHEN (o.i = main.i) THEN (floor((share_caps.share * (o.c)::numeric)))::bigint ELSE ('-1'::integer)::bigint END ORDER BY o.i) AS array_agg FROM unnest(share_caps.cap) WITH ORDINALITY o(c, i), (SELECT u.i FROM unnest(share_caps.weight_numerators) WITH ORDINALITY u(w, i) ORDER BY u.w DESC, u.i LIMIT 1) main);

CREATE FUNCTION ledger.silo_of(blob text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN "substring"(blob, '^silos/([a-z0-9][a-z0-9-]{0,39})/'::text);

CREATE TABLE public.release (
    id text NOT NULL,
    job_id text NOT NULL,
    file_id text NOT NULL,
    kind text NOT NULL,
    fence bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT release_kind_check CHECK (((kind = ANY (ARRAY['adapter'::text, 'report'::text, 'synthetic'::text, 'synthetic_card'::text])) IS TRUE))
);

CREATE FUNCTION ledger.teaches(teacher text, wanted_budget text) RETURNS boolean
    LANGUAGE sql STABLE
    RETURN ((EXISTS (SELECT FROM public.release l WHERE ((l.job_id = teaches.teacher) AND (l.kind = 'adapter'::text)))) AND (EXISTS (SELECT FROM ledger.reservation r WHERE (r.job_id = teaches.teacher))) AND (NOT (EXISTS (SELECT FROM ledger.reservation r WHERE ((r.job_id = teaches.teacher) AND (r.budget_id <> teaches.wanted_budget))))));

CREATE FUNCTION ledger.work_begins() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE homes text[];
BEGIN
  SELECT array_agg(DISTINCT coalesce(ledger.silo_of(f.blob), '')) INTO homes
    FROM public.job_file u JOIN public.file f ON f.id = u.file_id WHERE u.job_id = NEW.job_id;
  IF cardinality(homes) > 1 THEN
    RAISE EXCEPTION 'the files of job % lie in more than one silo', NEW.job_id USING ERRCODE = 'restrict_violation';
  END IF;
  NEW.silo := nullif(homes[1], '');
  RETURN NEW;
END $$;

CREATE FUNCTION ledger.work_guard() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  IF NEW.job_id <> OLD.job_id OR NEW.silo IS DISTINCT FROM OLD.silo THEN
    RAISE EXCEPTION 'work stays with its job' USING ERRCODE = 'restrict_violation';
  ELSIF OLD.stop_requested AND NOT NEW.stop_requested THEN
    RAISE EXCEPTION 'a stop is never taken back' USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.fence <> OLD.fence THEN
    IF NEW.fence <> OLD.fence + 1 THEN
      RAISE EXCEPTION 'a fence grows by one' USING ERRCODE = 'restrict_violation';
    ELSIF OLD.lease_until > clock_timestamp() THEN
      RAISE EXCEPTION 'job % is leased until %', OLD.job_id, OLD.lease_until USING ERRCODE = 'TC001';
    ELSIF NOT EXISTS (SELECT FROM ledger.reservation r WHERE r.job_id = NEW.job_id AND r.state = 'reserved')
       AND NOT EXISTS (SELECT FROM public.silo s JOIN public.job j ON j.id = s.parent_id
                       WHERE s.parent_id = NEW.job_id AND j.status IN ('queued', 'running')) THEN
      RAISE EXCEPTION 'job % is settled', NEW.job_id USING ERRCODE = 'TC004';
    END IF;
  END IF;
  IF NEW.lease_until > clock_timestamp() + interval '10 minutes' THEN
    RAISE EXCEPTION 'a lease lasts 10 minutes at most' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION public.api_key_guard() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  IF (NEW.id, NEW.tenant_id, NEW.scopes, NEW.project, NEW.created_at)
     IS DISTINCT FROM (OLD.id, OLD.tenant_id, OLD.scopes, OLD.project, OLD.created_at) THEN
    RAISE EXCEPTION 'a key keeps its tenant, scopes and project' USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
    RAISE EXCEPTION 'a revoked key stays revoked' USING ERRCODE = 'restrict_violation';
  END IF;
  NEW.secret_number := OLD.secret_number;
  NEW.legacy := OLD.legacy;
  IF (NEW.mac, NEW.prefix, NEW.previous_mac, NEW.previous_until, NEW.seal)
     IS DISTINCT FROM (OLD.mac, OLD.prefix, OLD.previous_mac, OLD.previous_until, OLD.seal) THEN
    NEW.secret_number := OLD.secret_number + 1;
    NEW.legacy := false;
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION public.file_guard() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
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

CREATE FUNCTION public.first_key() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  LOCK TABLE public.fingerprint_key IN EXCLUSIVE MODE;
  IF NOT ledger.is_admin() AND EXISTS (SELECT FROM public.fingerprint_key) THEN
    RETURN NULL;
  ELSIF NEW.reason IS NULL AND EXISTS (SELECT FROM public.fingerprint_key) THEN
    RAISE EXCEPTION 'a new key comes with a reason' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION public.invitation_guard() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE asked public.invitation := NEW;
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NOT EXISTS (SELECT FROM public.api_key k WHERE k.id = NEW.created_by AND k.tenant_id = NEW.tenant_id)
       OR NOT EXISTS (SELECT FROM public.file f WHERE f.id = NEW.file_id AND f.tenant_id = NEW.tenant_id AND f.budget_id IS NOT NULL)
       OR num_nonnulls(NEW.accepted_at, NEW.job_id, NEW.withdrawn_at) > 0 THEN
      RAISE EXCEPTION 'an invitation is of its tenant''s key and file, and begins unanswered' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
  END IF;
  asked.accepted_at := OLD.accepted_at;
  asked.accepted_by := OLD.accepted_by;
  asked.job_id := OLD.job_id;
  asked.withdrawn_at := OLD.withdrawn_at;
  asked.withdrawn_by := OLD.withdrawn_by;
  IF asked IS DISTINCT FROM OLD OR OLD.withdrawn_at IS NOT NULL THEN
    RAISE EXCEPTION 'what an invitation asks for never changes, and a withdrawal stands' USING ERRCODE = 'restrict_violation';
  ELSIF OLD.job_id IS NOT NULL AND (NEW.job_id, NEW.accepted_by, NEW.accepted_at) IS DISTINCT FROM (OLD.job_id, OLD.accepted_by, OLD.accepted_at) THEN
    RAISE EXCEPTION 'invitation % is accepted', OLD.id USING ERRCODE = 'restrict_violation';
  ELSIF OLD.job_id IS NULL AND NEW.job_id IS NOT NULL THEN
    -- The share that the guest's own steward reserved in the guest's own ledger.
    IF NOT EXISTS (SELECT FROM public.api_key k WHERE k.id = NEW.accepted_by AND k.tenant_id = NEW.guest
                   AND k.scopes::text[] && ARRAY['steward', 'admin'] AND k.revoked_at IS NULL)
       OR NOT EXISTS (SELECT FROM public.job j JOIN ledger.reservation r ON r.job_id = j.id
                      WHERE j.id = NEW.job_id AND j.tenant_id = NEW.guest AND j.created_by = NEW.accepted_by) THEN
      RAISE EXCEPTION 'invitation % is accepted by a steward of the guest, with a reservation', OLD.id USING ERRCODE = 'insufficient_privilege';
    ELSIF OLD.expires_at <= clock_timestamp() THEN
      RAISE EXCEPTION 'invitation % expired', OLD.id USING ERRCODE = 'TC005';
    END IF;
    NEW.accepted_at := clock_timestamp();
  END IF;
  IF NEW.withdrawn_by IS NOT NULL THEN
    IF NOT EXISTS (SELECT FROM public.api_key k WHERE k.id = NEW.withdrawn_by AND k.tenant_id IN (NEW.tenant_id, NEW.guest)) THEN
      RAISE EXCEPTION 'an invitation is withdrawn by those whom it is between' USING ERRCODE = 'insufficient_privilege';
    END IF;
    NEW.withdrawn_at := clock_timestamp();
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION public.job_guard() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
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

CREATE FUNCTION public.question_guard() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE unanswered public.question := NEW;
BEGIN
  IF OLD.answer IS NOT NULL THEN
    RAISE EXCEPTION 'the question about % is answered', OLD.file_id USING ERRCODE = 'restrict_violation';
  END IF;
  unanswered.answer := NULL;
  unanswered.answered_at := NULL;
  unanswered.answered_by := NULL;
  unanswered.reason := NULL;
  IF unanswered IS DISTINCT FROM OLD THEN
    RAISE EXCEPTION 'a question never changes, but for its answer' USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.answer IS NOT NULL THEN
    NEW.answered_at := clock_timestamp();
    IF NOT EXISTS (SELECT FROM public.api_key k WHERE k.id = NEW.answered_by AND k.tenant_id = NEW.tenant_id) THEN
      RAISE EXCEPTION 'key % is not of the tenant', NEW.answered_by USING ERRCODE = 'restrict_violation';
    END IF;
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION public.result_time() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
BEGIN
  NEW.created_at := date_trunc('minute', NEW.created_at);
  RETURN NEW;
END $$;

CREATE FUNCTION public.round_guard() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE asked public.federated_round := NEW;
BEGIN
  PERFORM ledger.require_fence(NEW.job_id, NEW.fence);  -- first: what follows reads what this lock holds still
  IF TG_OP = 'INSERT' THEN
    IF NOT EXISTS (SELECT FROM public.silo s WHERE s.parent_id = NEW.job_id) OR NEW.closed_at IS NOT NULL
       OR EXISTS (SELECT FROM public.federated_round r WHERE r.job_id = NEW.job_id AND r.number >= NEW.number)
       OR EXISTS (SELECT FROM public.federated_round r WHERE r.job_id = NEW.job_id AND r.came IS NULL) THEN
      RAISE EXCEPTION 'a round is opened after the one before it is closed' USING ERRCODE = 'restrict_violation';
    END IF;
    NEW.opened_at := clock_timestamp();
    NEW.closes_at := NEW.opened_at + least(NEW.closes_at - now(), interval '7 days');
  ELSE
    asked.closed_at := OLD.closed_at;
    asked.came := OLD.came;
    asked.agreed := OLD.agreed;
    asked.fence := OLD.fence;
    IF asked IS DISTINCT FROM OLD OR OLD.came IS NOT NULL OR (NEW.came IS NULL) = (NEW.agreed IS NOT DISTINCT FROM OLD.agreed)
       OR OLD.agreed IS NOT NULL AND NEW.agreed IS DISTINCT FROM OLD.agreed THEN
      RAISE EXCEPTION 'round % is agreed on once and closed once, and nothing else of it changes', OLD.number USING ERRCODE = 'restrict_violation';
    END IF;
    NEW.closed_at := coalesce(OLD.closed_at, clock_timestamp());
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION public.silo_begins() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE parent public.job; child public.job; invited public.invitation; asked public.silo := NEW;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    -- Public keys of masks, by the silo's own worker, for good: who could exchange them could read behind the masks.
    asked.mask_keys := OLD.mask_keys;
    asked.mask_fence := OLD.mask_fence;
    IF asked IS DISTINCT FROM OLD OR OLD.mask_keys IS NOT NULL OR NEW.mask_keys IS NULL THEN
      RAISE EXCEPTION 'a silo''s keys are said once, and nothing else of it changes' USING ERRCODE = 'restrict_violation';
    END IF;
    PERFORM ledger.require_fence(NEW.job_id, NEW.mask_fence);
    RETURN NEW;
  END IF;
  SELECT * INTO parent FROM public.job j WHERE j.id = NEW.parent_id;
  SELECT * INTO child FROM public.job j WHERE j.id = NEW.job_id;
  SELECT * INTO invited FROM public.invitation i WHERE i.id = NEW.invitation_id FOR UPDATE;
  IF NEW.mask_keys IS NOT NULL OR EXISTS (SELECT FROM ledger.reservation r WHERE r.job_id = NEW.parent_id)
     OR NOT EXISTS (SELECT FROM ledger.reservation r WHERE r.job_id = NEW.job_id AND r.state = 'reserved') THEN
    RAISE EXCEPTION 'a silo has a reservation and no keys yet, and its federated job no reservation' USING ERRCODE = 'restrict_violation';
  ELSIF NEW.invitation_id IS NULL AND child.tenant_id <> parent.tenant_id
     OR NEW.invitation_id IS NOT NULL AND (invited.job_id = child.id AND invited.tenant_id = parent.tenant_id AND invited.withdrawn_at IS NULL) IS NOT TRUE THEN
    RAISE EXCEPTION 'job % is no silo that may take part in job %', NEW.job_id, NEW.parent_id USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION public.silo_round_guard() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'ledger', 'pg_temp'
    AS $$
DECLARE asked public.silo_round := NEW; round public.federated_round; begun bigint; paid bigint;
BEGIN
  SELECT r.* INTO round FROM public.federated_round r JOIN public.silo s ON s.parent_id = r.job_id
    WHERE s.job_id = NEW.job_id AND r.number = NEW.number FOR SHARE OF r;
  IF TG_OP = 'INSERT' THEN
    IF num_nonnulls(NEW.blob, NEW.signature) > 0 OR round.job_id IS NULL THEN
      RAISE EXCEPTION 'a silo begins a round of its job, and sends later' USING ERRCODE = 'restrict_violation';
    END IF;
    PERFORM ledger.require_fence(NEW.job_id, NEW.fence);
    NEW.begun_at := clock_timestamp();
    SELECT coalesce(sum(b.steps), 0) + NEW.steps INTO begun FROM public.silo_round b WHERE b.job_id = NEW.job_id;
    SELECT coalesce(sum(p.steps_authorised), 0) INTO paid FROM ledger.phase p JOIN ledger.reservation r ON r.id = p.reservation_id
      WHERE r.job_id = NEW.job_id;
    IF begun > paid THEN
      RAISE EXCEPTION 'job % has begun % steps, and % are paid for', NEW.job_id, begun, paid USING ERRCODE = 'restrict_violation';
    END IF;
  ELSE
    asked.sent_fence := OLD.sent_fence;
    IF OLD.blob IS NULL THEN
      asked.blob := OLD.blob;
      asked.sha256 := OLD.sha256;
      asked.sent_at := OLD.sent_at;
    ELSIF OLD.signature IS NULL THEN
      asked.signature := OLD.signature;
    ELSE
      asked.opening := OLD.opening;
    END IF;
    IF asked IS DISTINCT FROM OLD OR OLD.opening IS NOT NULL OR NEW.blob IS NULL
       OR OLD.blob IS NOT NULL AND (NEW.signature IS NULL OR OLD.signature IS NOT NULL AND NEW.opening IS NULL) THEN
      RAISE EXCEPTION 'a message is sent once, its list signed once, its masks opened once, and nothing else of it changes' USING ERRCODE = 'restrict_violation';
    END IF;
    PERFORM ledger.require_fence(NEW.job_id, NEW.sent_fence);
    IF OLD.blob IS NOT NULL THEN
      IF round.agreed IS NULL OR round.came IS NOT NULL THEN
        RAISE EXCEPTION 'masks of round % are opened between its agreement and its end', NEW.number USING ERRCODE = 'TC013';
      END IF;
      RETURN NEW;
    ELSIF round.closed_at IS NOT NULL THEN
      RAISE EXCEPTION 'round % is closed', NEW.number USING ERRCODE = 'TC013';
    END IF;
    NEW.sent_at := clock_timestamp();
  END IF;
  RETURN NEW;
END $$;

CREATE TABLE ledger.authorisation (
    reservation_id text NOT NULL,
    ordinal smallint NOT NULL,
    seq bigint NOT NULL,
    fence bigint NOT NULL,
    steps bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT authorisation_steps_check CHECK (((steps > 0) IS TRUE))
);

ALTER TABLE ledger.authorisation ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ledger.authorisation_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE ledger.curve (
    id text NOT NULL,
    description text NOT NULL,
    proof text NOT NULL,
    step_cost ledger.units NOT NULL,
    indivisible boolean NOT NULL,
    orders ledger.order_list DEFAULT '{2,3,4,5,6,7,8,10,12,16,32,64}'::integer[] NOT NULL,
    CONSTRAINT curve_step_cost_check CHECK ((((cardinality((step_cost)::bigint[]) = cardinality((orders)::integer[])) AND (0 < ALL ((step_cost)::bigint[])) AND ('9007199254740992'::bigint >= ALL ((step_cost)::bigint[]))) IS TRUE))
);

CREATE TABLE ledger.database_id (
    one boolean DEFAULT true NOT NULL,
    id text NOT NULL,
    CONSTRAINT database_id_id_check CHECK (((id ~ '^[0-9a-f]{64}$'::text) IS TRUE)),
    CONSTRAINT database_id_one_check CHECK ((one IS TRUE))
);

CREATE TABLE ledger.finding (
    id bigint NOT NULL,
    budget_id text,
    what text NOT NULL,
    evidence jsonb NOT NULL,
    found_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

ALTER TABLE ledger.finding ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ledger.finding_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE ledger.lost_budget (
    budget_id text NOT NULL,
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    noticed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    accepted_at timestamp with time zone,
    accepted_by text,
    accepted_reason text,
    CONSTRAINT an_acceptance_is_whole CHECK (((((accepted_at IS NULL) = (accepted_reason IS NULL)) AND ((accepted_by IS NULL) = (accepted_reason IS NULL))) IS TRUE)),
    CONSTRAINT lost_budget_accepted_reason_check CHECK ((((accepted_reason IS NULL) OR ((length(accepted_reason) >= 1) AND (length(accepted_reason) <= 1000))) IS TRUE)),
    CONSTRAINT lost_budget_budget_id_check CHECK ((((length(budget_id) >= 1) AND (length(budget_id) <= 200)) IS TRUE)),
    CONSTRAINT lost_budget_hash_check CHECK (((length(hash) = 32) IS TRUE)),
    CONSTRAINT lost_budget_seq_check CHECK (((seq > 0) IS TRUE))
);

CREATE TABLE ledger.population (
    budget_id text NOT NULL,
    kind text NOT NULL,
    marks bigint NOT NULL,
    sums ledger.sums NOT NULL,
    CONSTRAINT a_population_has_eight_sums CHECK (((cardinality((sums)::numeric[]) = 8) IS TRUE)),
    CONSTRAINT a_population_is_not_empty CHECK (((marks > 0) IS TRUE)),
    CONSTRAINT population_kind CHECK (((kind = ANY (ARRAY['record'::text, 'user'::text])) IS TRUE))
);

CREATE TABLE ledger.silo_login (
    login name NOT NULL,
    silo text NOT NULL,
    CONSTRAINT a_silo_has_a_short_name CHECK (((silo ~ '^[a-z0-9][a-z0-9-]{0,39}$'::text) IS TRUE))
);

COMMENT ON TABLE ledger.silo_login IS 'of workers that work on the jobs of one silo and no others; written by the operator';

CREATE TABLE ledger.work (
    job_id text NOT NULL,
    fence bigint DEFAULT 0 NOT NULL,
    owner text,
    lease_until timestamp with time zone,
    stop_requested boolean DEFAULT false NOT NULL,
    paused_at timestamp with time zone,
    excused_fence bigint,
    seconds double precision DEFAULT 0 NOT NULL,
    silo text,
    CONSTRAINT an_excused_attempt_was_made CHECK ((((excused_fence IS NULL) OR ((excused_fence >= 0) AND (excused_fence <= fence))) IS TRUE)),
    CONSTRAINT work_seconds_check CHECK ((((seconds >= (0)::double precision) AND (seconds < 'Infinity'::double precision)) IS TRUE)),
    CONSTRAINT work_times CHECK (((ledger.is_a_time(lease_until) AND ledger.is_a_time(paused_at)) IS TRUE))
);

COMMENT ON COLUMN ledger.work.silo IS 'whose worker alone may work on the job; null: any that is bound to no silo';

CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE public.api_key (
    id text NOT NULL,
    tenant_id text NOT NULL,
    name text NOT NULL,
    prefix text NOT NULL,
    mac bytea NOT NULL,
    scopes public.words NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    project text,
    previous_mac bytea,
    previous_until timestamp with time zone,
    secret_number integer DEFAULT 0 NOT NULL,
    seal bytea,
    legacy boolean DEFAULT false NOT NULL,
    CONSTRAINT a_project_is_a_plain_name CHECK ((((project IS NULL) OR (project ~ '^[A-Za-z0-9._-]{1,80}$'::text)) IS TRUE)),
    CONSTRAINT a_seal_has_32_bytes CHECK ((((seal IS NULL) OR (octet_length(seal) = 32)) IS TRUE)),
    CONSTRAINT api_key_previous CHECK ((((previous_mac IS NULL) = (previous_until IS NULL)) IS TRUE)),
    CONSTRAINT api_key_scopes_check CHECK (((((scopes)::text[] <@ ARRAY['steward'::text, 'analyst'::text, 'auditor'::text, 'admin'::text]) AND (cardinality((scopes)::text[]) > 0)) IS TRUE)),
    CONSTRAINT api_key_times CHECK (((ledger.is_a_time(expires_at) AND ledger.is_a_time(revoked_at) AND ledger.is_a_time(previous_until)) IS TRUE))
);

CREATE TABLE public.audit (
    id text NOT NULL,
    tenant_id text NOT NULL,
    key_id text NOT NULL,
    action text NOT NULL,
    target text,
    status integer NOT NULL,
    request_id text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE public.checkpoint (
    job_id text NOT NULL,
    fence bigint NOT NULL,
    step bigint NOT NULL,
    blob text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT a_checkpoint_is_of_its_job CHECK ((starts_with(regexp_replace(blob, '^silos/[a-z0-9][a-z0-9-]{0,39}/'::text, ''::text), (('jobs/'::text || job_id) || '/checkpoints/'::text)) IS TRUE)),
    CONSTRAINT a_checkpoint_lies_in_a_blob CHECK ((ledger.is_a_blob(blob) IS TRUE)),
    CONSTRAINT checkpoint_step_check CHECK (((step >= 0) IS TRUE))
);

CREATE TABLE public.data_key (
    blob text NOT NULL,
    wrapped bytea NOT NULL,
    master text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT a_key_is_of_a_blob CHECK ((ledger.is_a_blob(blob) IS TRUE))
);

CREATE TABLE public.federated_round (
    job_id text NOT NULL,
    number integer NOT NULL,
    fence bigint NOT NULL,
    blob text NOT NULL,
    sha256 text NOT NULL,
    opened_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    closes_at timestamp with time zone NOT NULL,
    silos jsonb,
    agreed jsonb,
    closed_at timestamp with time zone,
    came jsonb,
    CONSTRAINT a_closed_round_says_who_came CHECK (((((closed_at IS NULL) = ((came IS NULL) AND (agreed IS NULL))) AND ((came IS NULL) OR ((jsonb_typeof(came) = 'array'::text) AND ledger.is_plain(came)))) IS TRUE)),
    CONSTRAINT a_masked_round_says_whose_masks CHECK (((((silos IS NULL) OR ((jsonb_typeof(silos) = 'array'::text) AND ledger.is_plain(silos) AND (NOT jsonb_path_exists(silos, '$[*]?(@.type() != "string")'::jsonpath)))) AND ((agreed IS NULL) OR ((silos IS NOT NULL) AND (jsonb_typeof(agreed) = 'object'::text) AND ledger.is_plain(agreed) AND (NOT jsonb_path_exists(agreed, '$.*?(@.type() != "string")'::jsonpath))))) IS TRUE)),
    CONSTRAINT a_round_begins_at_a_blob CHECK (((ledger.is_a_blob(blob) AND starts_with(blob, (('exchange/'::text || job_id) || '/'::text)) AND (sha256 ~ '^[0-9a-f]{64}$'::text)) IS TRUE)),
    CONSTRAINT a_round_has_a_number CHECK ((((number >= 0) AND (number <= 999)) IS TRUE)),
    CONSTRAINT round_times CHECK (((ledger.is_a_time(opened_at) AND ledger.is_a_time(closes_at) AND ledger.is_a_time(closed_at) AND (closes_at <= (opened_at + '7 days'::interval))) IS TRUE))
);

COMMENT ON COLUMN public.federated_round.silos IS 'behind masks: whose masks are on this round''s messages';

COMMENT ON COLUMN public.federated_round.agreed IS 'behind masks: whose messages are in the sum, each with its digest; from then on nothing more comes, and masks are opened';

CREATE TABLE public.file (
    id text NOT NULL,
    tenant_id text NOT NULL,
    purpose text NOT NULL,
    filename text NOT NULL,
    bytes bigint DEFAULT 0 NOT NULL,
    sha256 text,
    status text DEFAULT 'uploaded'::text NOT NULL,
    problems jsonb DEFAULT '[]'::jsonb NOT NULL,
    budget_id text,
    declared_size bigint,
    labels public.words,
    max_length integer,
    columns jsonb DEFAULT '{}'::jsonb NOT NULL,
    blob text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    deleted_at timestamp with time zone,
    task text DEFAULT 'classification'::text NOT NULL,
    binding bytea,
    legacy boolean DEFAULT false NOT NULL,
    CONSTRAINT a_binding_has_32_bytes CHECK ((((binding IS NULL) OR (octet_length(binding) = 32)) IS TRUE)),
    CONSTRAINT a_file_lies_in_a_blob CHECK ((ledger.is_a_blob(blob) IS TRUE)),
    CONSTRAINT a_private_file_has_a_budget CHECK ((((purpose = 'fine-tune'::text) = (budget_id IS NOT NULL)) IS TRUE)),
    CONSTRAINT a_usable_file_is_bound CHECK ((((status <> 'processed'::text) OR (deleted_at IS NOT NULL) OR (binding IS NOT NULL) OR legacy) IS TRUE)),
    CONSTRAINT a_usable_file_is_complete CHECK ((((status <> 'processed'::text) OR ((blob IS NOT NULL) AND (sha256 IS NOT NULL) AND ((purpose <> 'fine-tune'::text) OR ((declared_size IS NOT NULL) AND (max_length IS NOT NULL))))) IS TRUE)),
    CONSTRAINT file_bytes_check CHECK (((bytes >= 0) IS TRUE)),
    CONSTRAINT file_declared_size_check CHECK ((((declared_size IS NULL) OR (declared_size > 0)) IS TRUE)),
    CONSTRAINT file_json CHECK ((((jsonb_typeof(columns) = 'object'::text) AND ledger.is_plain(columns) AND ledger.is_plain(problems)) IS TRUE)),
    CONSTRAINT file_max_length_check CHECK ((((max_length IS NULL) OR (max_length > 0)) IS TRUE)),
    CONSTRAINT file_purpose_check CHECK (((purpose = ANY (ARRAY['fine-tune'::text, 'evals'::text, 'fine-tune-results'::text])) IS TRUE)),
    CONSTRAINT file_status_check CHECK (((status = ANY (ARRAY['uploaded'::text, 'processed'::text, 'error'::text])) IS TRUE)),
    CONSTRAINT file_task CHECK (((task = ANY (ARRAY['classification'::text, 'pair'::text, 'image'::text, 'completion'::text, 'chat'::text, 'text'::text])) IS TRUE)),
    CONSTRAINT file_times CHECK ((ledger.is_a_time(deleted_at) IS TRUE)),
    CONSTRAINT only_classes_have_labels CHECK ((((labels IS NULL) OR (task = ANY (ARRAY['classification'::text, 'pair'::text, 'image'::text]))) IS TRUE))
);

CREATE TABLE public.fingerprint (
    tenant_id text NOT NULL,
    kind text NOT NULL,
    mac bytea NOT NULL,
    budget_id text NOT NULL,
    CONSTRAINT fingerprint_kind_check CHECK (((kind = ANY (ARRAY['record'::text, 'user'::text])) IS TRUE)),
    CONSTRAINT fingerprint_mac_check CHECK (((length(mac) = 32) IS TRUE))
);

CREATE TABLE public.fingerprint_key (
    mark bytea NOT NULL,
    number integer NOT NULL,
    reason text,
    CONSTRAINT a_new_key_says_why CHECK ((((reason IS NULL) OR ((length(reason) >= 1) AND (length(reason) <= 1000))) IS TRUE)),
    CONSTRAINT fingerprint_key_mark_check CHECK (((octet_length(mark) = 32) IS TRUE))
);

ALTER TABLE public.fingerprint_key ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.fingerprint_key_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.idempotency (
    tenant_id text NOT NULL,
    key text NOT NULL,
    request_digest bytea NOT NULL,
    response jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT a_response_names_its_job CHECK (((ledger.is_words(response) AND (response ? 'job'::text)) IS TRUE))
);

CREATE TABLE public.identity (
    file_id text NOT NULL,
    key_mark bytea NOT NULL,
    made text NOT NULL,
    elsewhere integer DEFAULT 0 NOT NULL,
    users boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT identity_elsewhere CHECK (((elsewhere >= 0) IS TRUE)),
    CONSTRAINT identity_key CHECK (((octet_length(key_mark) = 32) IS TRUE)),
    CONSTRAINT identity_made CHECK (((made = ANY (ARRAY['upload'::text, 'again'::text])) IS TRUE))
);

COMMENT ON COLUMN public.identity.elsewhere IS 'texts that another budget held already when the rows were read again';

COMMENT ON COLUMN public.identity.users IS 'whether its users are known by what their ids mean; their ids are not kept';

CREATE TABLE public.invitation (
    id text NOT NULL,
    tenant_id text NOT NULL,
    created_by text NOT NULL,
    file_id text NOT NULL,
    guest text NOT NULL,
    asked jsonb NOT NULL,
    note text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    accepted_at timestamp with time zone,
    accepted_by text,
    job_id text,
    withdrawn_at timestamp with time zone,
    withdrawn_by text,
    CONSTRAINT a_guest_has_a_name CHECK (((guest ~ '^[A-Za-z0-9_-]{1,80}$'::text) IS TRUE)),
    CONSTRAINT a_withdrawal_is_whole CHECK ((((withdrawn_at IS NULL) = (withdrawn_by IS NULL)) IS TRUE)),
    CONSTRAINT an_acceptance_is_whole CHECK (((((accepted_at IS NULL) = (accepted_by IS NULL)) AND ((accepted_at IS NULL) = (job_id IS NULL))) IS TRUE)),
    CONSTRAINT invitation_asked CHECK ((((jsonb_typeof(asked) = 'object'::text) AND ledger.is_plain(asked)) IS TRUE)),
    CONSTRAINT invitation_note CHECK ((((note IS NULL) OR ((length(note) >= 1) AND (length(note) <= 1000))) IS TRUE)),
    CONSTRAINT invitation_times CHECK (((ledger.is_a_time(expires_at) AND ledger.is_a_time(accepted_at) AND ledger.is_a_time(withdrawn_at) AND (expires_at <= (created_at + '90 days'::interval))) IS TRUE))
);

CREATE TABLE public.job (
    id text NOT NULL,
    tenant_id text NOT NULL,
    created_by text NOT NULL,
    model text NOT NULL,
    validation_file text,
    method jsonb NOT NULL,
    plan jsonb NOT NULL,
    privacy jsonb NOT NULL,
    seed bigint NOT NULL,
    suffix text,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    status text DEFAULT 'queued'::text NOT NULL,
    status_detail text,
    error jsonb,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    hinted_at timestamp with time zone,
    model_revision text,
    teacher_job text,
    silo_job text,
    intended_use text,
    synthetic jsonb,
    audit boolean DEFAULT false NOT NULL,
    CONSTRAINT an_error_says_what CHECK ((((error IS NULL) OR ledger.is_error(error)) IS TRUE)),
    CONSTRAINT job_intended_use CHECK ((((intended_use IS NULL) OR ((length(intended_use) >= 1) AND (length(intended_use) <= 1000))) IS TRUE)),
    CONSTRAINT job_json CHECK ((((jsonb_typeof(method) = 'object'::text) AND (jsonb_typeof(plan) = 'object'::text) AND (jsonb_typeof(privacy) = 'object'::text) AND ledger.is_plain(jsonb_build_array(method, plan, privacy))) IS TRUE)),
    CONSTRAINT job_model_revision CHECK ((((model_revision IS NULL) OR ((length(model_revision) >= 1) AND (length(model_revision) <= 64))) IS TRUE)),
    CONSTRAINT job_status_check CHECK (((status = ANY (ARRAY['validating_files'::text, 'queued'::text, 'running'::text, 'succeeded'::text, 'failed'::text, 'cancelled'::text])) IS TRUE)),
    CONSTRAINT job_synthetic CHECK ((((synthetic IS NULL) OR ((jsonb_typeof(synthetic) = 'object'::text) AND ledger.is_plain(synthetic))) IS TRUE)),
    CONSTRAINT job_times CHECK (((ledger.is_a_time(started_at) AND ledger.is_a_time(finished_at) AND ledger.is_a_time(hinted_at)) IS TRUE)),
    CONSTRAINT notes_are_words CHECK ((ledger.is_words(metadata) IS TRUE))
);

COMMENT ON COLUMN public.job.teacher_job IS 'all its charges are to the budget of this job, and its adapter is released';

COMMENT ON COLUMN public.job.silo_job IS 'of a federated job: the child that learns from its training file';

CREATE TABLE public.job_audit (
    job_id text NOT NULL,
    fence bigint NOT NULL,
    finding jsonb NOT NULL,
    CONSTRAINT job_audit_finding CHECK ((((jsonb_typeof(finding) = 'object'::text) AND ledger.is_plain(finding)) IS TRUE))
);

CREATE TABLE public.job_event (
    job_id text NOT NULL,
    seq bigint NOT NULL,
    level text DEFAULT 'info'::text NOT NULL,
    type text DEFAULT 'message'::text NOT NULL,
    message text NOT NULL,
    data jsonb,
    created_at timestamp with time zone DEFAULT date_trunc('minute'::text, now()) NOT NULL,
    name text DEFAULT 'job.noted'::text NOT NULL,
    CONSTRAINT job_event_json CHECK ((((data IS NULL) OR ((jsonb_typeof(data) = ANY (ARRAY['object'::text, 'null'::text])) AND ledger.is_plain(data))) IS TRUE)),
    CONSTRAINT job_event_level_check CHECK (((level = ANY (ARRAY['info'::text, 'warn'::text, 'error'::text])) IS TRUE)),
    CONSTRAINT job_event_type_check CHECK (((type = ANY (ARRAY['message'::text, 'metrics'::text])) IS TRUE))
);

ALTER TABLE public.job_event ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.job_event_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.job_file (
    job_id text NOT NULL,
    file_id text NOT NULL,
    budget_id text NOT NULL
);

CREATE TABLE public.keeper_watch (
    duty text NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT keeper_watch_duty_check CHECK (((duty = ANY (ARRAY['turn'::text, 'verification'::text])) IS TRUE)),
    CONSTRAINT keeper_watch_json CHECK ((((jsonb_typeof(detail) = 'object'::text) AND ledger.is_plain(detail) AND (COALESCE(jsonb_typeof((detail -> 'failing'::text)), 'object'::text) = 'object'::text)) IS TRUE)),
    CONSTRAINT keeper_watch_times CHECK ((ledger.is_a_time(finished_at) IS TRUE))
);

CREATE TABLE public.model_profile (
    id bigint NOT NULL,
    model text NOT NULL,
    revision text NOT NULL,
    method text NOT NULL,
    task text NOT NULL,
    device text NOT NULL,
    max_length integer NOT NULL,
    tokens_per_second double precision NOT NULL,
    peak_bytes bigint NOT NULL,
    measured_at timestamp with time zone DEFAULT now() NOT NULL,
    device_bytes bigint,
    options jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT model_profile_device_bytes CHECK ((((device_bytes IS NULL) OR ((device_bytes >= 1) AND (device_bytes <= '9007199254740992'::bigint))) IS TRUE)),
    CONSTRAINT model_profile_max_length_check CHECK ((((max_length >= 1) AND (max_length <= 1000000)) IS TRUE)),
    CONSTRAINT model_profile_options CHECK ((((jsonb_typeof(options) = 'object'::text) AND ledger.is_plain(options)) IS TRUE)),
    CONSTRAINT model_profile_peak_bytes_check CHECK ((((peak_bytes >= 1) AND (peak_bytes <= '9007199254740992'::bigint)) IS TRUE)),
    CONSTRAINT model_profile_task_check CHECK (((task = ANY (ARRAY['classification'::text, 'pair'::text, 'image'::text, 'completion'::text, 'chat'::text, 'text'::text])) IS TRUE)),
    CONSTRAINT model_profile_tokens_per_second_check CHECK ((((tokens_per_second >= (0.001)::double precision) AND (tokens_per_second <= ('1000000000000'::numeric)::double precision)) IS TRUE))
);

ALTER TABLE public.model_profile ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.model_profile_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.model_trial (
    id bigint NOT NULL,
    model text NOT NULL,
    revision text NOT NULL,
    method text NOT NULL,
    task text NOT NULL,
    refusal text,
    versions text NOT NULL,
    tried_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT model_trial_method CHECK (((method ~ '^[a-z0-9-]{1,80}$'::text) IS TRUE)),
    CONSTRAINT model_trial_model CHECK (((model ~ '^[A-Za-z0-9_-]{1,80}$'::text) IS TRUE)),
    CONSTRAINT model_trial_refusal CHECK ((((refusal IS NULL) OR ((length(refusal) >= 1) AND (length(refusal) <= 500))) IS TRUE)),
    CONSTRAINT model_trial_revision CHECK ((((length(revision) >= 1) AND (length(revision) <= 64)) IS TRUE)),
    CONSTRAINT model_trial_task CHECK (((task = ANY (ARRAY['classification'::text, 'pair'::text, 'image'::text, 'completion'::text, 'chat'::text, 'text'::text])) IS TRUE)),
    CONSTRAINT model_trial_versions CHECK ((((length(versions) >= 1) AND (length(versions) <= 200)) IS TRUE))
);

COMMENT ON COLUMN public.model_trial.versions IS 'of the libraries that were at work: others may do better, and are tried again';

ALTER TABLE public.model_trial ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.model_trial_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.public_record (
    tenant_id text NOT NULL,
    mac bytea NOT NULL,
    file_id text NOT NULL,
    CONSTRAINT public_record_mac CHECK (((octet_length(mac) = 32) IS TRUE))
);

CREATE TABLE public.question (
    file_id text NOT NULL,
    tenant_id text NOT NULL,
    upload jsonb NOT NULL,
    found jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    answered_at timestamp with time zone,
    answered_by text,
    answer text,
    reason text,
    CONSTRAINT an_answer_is_whole CHECK (((((answered_at IS NULL) = (answer IS NULL)) AND ((answer IS NULL) = (answered_by IS NULL)) AND ((answer IS NULL) OR (answer = ANY (ARRAY['same_population'::text, 'withdrawn'::text])) OR ((length(reason) >= 1) AND (length(reason) <= 1000)))) IS TRUE)),
    CONSTRAINT question_answer CHECK ((((answer IS NULL) OR (answer = ANY (ARRAY['same_population'::text, 'different_population'::text, 'publish'::text, 'withdrawn'::text]))) IS TRUE)),
    CONSTRAINT question_file CHECK (((file_id ~ '^[A-Za-z0-9._-]{1,80}$'::text) IS TRUE)),
    CONSTRAINT question_found CHECK ((((jsonb_typeof(found) = 'object'::text) AND ledger.is_plain(found)) IS TRUE)),
    CONSTRAINT question_upload CHECK ((((jsonb_typeof(upload) = 'object'::text) AND (length((upload)::text) <= 1000000) AND (NOT jsonb_path_exists(upload, 'strict $.**{12 to last}'::jsonpath)) AND (NOT jsonb_path_exists(upload, 'strict $.**?(@ > 1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 || @ < -1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000)'::jsonpath))) IS TRUE))
);

CREATE TABLE public.silo (
    job_id text NOT NULL,
    parent_id text NOT NULL,
    name text NOT NULL,
    invitation_id text,
    declared_size bigint NOT NULL,
    mask_keys text,
    mask_fence bigint,
    CONSTRAINT a_silo_has_a_name CHECK (((name ~ '^silo-[0-9]{1,3}$'::text) IS TRUE)),
    CONSTRAINT a_silo_has_a_size CHECK (((declared_size > 0) IS TRUE)),
    CONSTRAINT a_silo_has_mask_keys CHECK (((((mask_keys IS NULL) = (mask_fence IS NULL)) AND ((mask_keys IS NULL) OR (mask_keys ~ '^[0-9a-f]{128}$'::text))) IS TRUE))
);

CREATE TABLE public.silo_round (
    job_id text NOT NULL,
    number integer NOT NULL,
    fence bigint NOT NULL,
    steps integer NOT NULL,
    begun_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    sent_fence bigint,
    blob text,
    sha256 text,
    sent_at timestamp with time zone,
    signature text,
    opening jsonb,
    CONSTRAINT a_mask_is_opened_by_who_signed CHECK (((((signature IS NULL) OR ((blob IS NOT NULL) AND (signature ~ '^[0-9a-f]{128}$'::text))) AND ((opening IS NULL) OR ((signature IS NOT NULL) AND (jsonb_typeof(opening) = 'object'::text) AND ledger.is_plain(opening)))) IS TRUE)),
    CONSTRAINT a_message_is_whole CHECK (((((sent_at IS NULL) AND (blob IS NULL) AND (sha256 IS NULL) AND (sent_fence IS NULL)) OR ((sent_at IS NOT NULL) AND (sent_fence IS NOT NULL) AND ledger.is_a_blob(blob) AND starts_with(blob, 'exchange/'::text) AND (sha256 ~ '^[0-9a-f]{64}$'::text))) IS TRUE)),
    CONSTRAINT a_round_has_steps CHECK ((((steps >= 1) AND (steps <= 1000)) IS TRUE)),
    CONSTRAINT silo_round_times CHECK (((ledger.is_a_time(begun_at) AND ledger.is_a_time(sent_at)) IS TRUE))
);

CREATE TABLE public.sketch (
    id bigint NOT NULL,
    tenant_id text NOT NULL,
    file_id text NOT NULL,
    budget_id text,
    packed bytea NOT NULL,
    CONSTRAINT sketches_are_whole CHECK ((((octet_length(packed) >= 32) AND (octet_length(packed) <= 2097152) AND ((octet_length(packed) % 32) = 0)) IS TRUE))
);
ALTER TABLE ONLY public.sketch ALTER COLUMN packed SET STORAGE EXTERNAL;

ALTER TABLE public.sketch ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.sketch_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.tenant (
    id text NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.upload_report (
    file_id text NOT NULL,
    report jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT a_report_is_plain CHECK ((((jsonb_typeof(report) = 'object'::text) AND (length((report)::text) <= 1000000) AND (NOT jsonb_path_exists(report, 'strict $.**{9 to last}'::jsonpath)) AND (NOT jsonb_path_exists(report, 'strict $.**?(@ > 1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 || @ < -1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000)'::jsonpath))) IS TRUE))
);

CREATE TABLE public.webhook (
    id text NOT NULL,
    tenant_id text NOT NULL,
    created_by text NOT NULL,
    url text NOT NULL,
    description text,
    job_ended boolean NOT NULL,
    approval_wanted boolean NOT NULL,
    budget_low boolean NOT NULL,
    budget_frozen boolean NOT NULL,
    low_below double precision NOT NULL,
    salt bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    looked_at timestamp with time zone DEFAULT now() NOT NULL,
    last_success_at timestamp with time zone,
    last_failure_at timestamp with time zone,
    last_failure text,
    CONSTRAINT a_webhook_wants_something CHECK (((job_ended OR approval_wanted OR budget_low OR budget_frozen) IS TRUE)),
    CONSTRAINT webhook_are_times CHECK (((ledger.is_a_time(looked_at) AND ledger.is_a_time(last_success_at) AND ledger.is_a_time(last_failure_at)) IS TRUE)),
    CONSTRAINT webhook_description CHECK ((((description IS NULL) OR ((length(description) >= 1) AND (length(description) <= 200))) IS TRUE)),
    CONSTRAINT webhook_id CHECK (((id ~ '^[A-Za-z0-9_-]{1,80}$'::text) IS TRUE)),
    CONSTRAINT webhook_last_failure CHECK ((((last_failure IS NULL) OR ((length(last_failure) >= 1) AND (length(last_failure) <= 200))) IS TRUE)),
    CONSTRAINT webhook_low_below CHECK ((((low_below > (0)::double precision) AND (low_below < (1)::double precision)) IS TRUE)),
    CONSTRAINT webhook_salt CHECK (((length(salt) = 16) IS TRUE)),
    CONSTRAINT webhook_times CHECK (((isfinite(created_at) AND isfinite(looked_at) AND isfinite(COALESCE(last_success_at, now())) AND isfinite(COALESCE(last_failure_at, now()))) IS TRUE)),
    CONSTRAINT webhook_url CHECK ((((url ~ '^https?://[!-~]+$'::text) AND (length(url) <= 2000)) IS TRUE))
);

COMMENT ON COLUMN public.webhook.looked_at IS 'when what is to be told was last looked for; what ended an hour before is looked at again';

CREATE TABLE public.webhook_budget (
    webhook_id text NOT NULL,
    budget_id text NOT NULL,
    seq bigint NOT NULL,
    low boolean CONSTRAINT webhook_budget_low_not_null1 NOT NULL,
    frozen boolean CONSTRAINT webhook_budget_frozen_not_null1 NOT NULL,
    CONSTRAINT webhook_budget_id CHECK (((budget_id ~ '^[A-Za-z0-9._-]{1,80}$'::text) IS TRUE))
);

CREATE TABLE public.webhook_delivery (
    id text NOT NULL,
    seq bigint NOT NULL,
    webhook_id text NOT NULL,
    event text NOT NULL,
    subject text NOT NULL,
    outcome text,
    at timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    leased_until timestamp with time zone,
    delivered_at timestamp with time zone,
    given_up_at timestamp with time zone,
    CONSTRAINT a_delivery_ends_once CHECK ((((delivered_at IS NULL) OR (given_up_at IS NULL)) IS TRUE)),
    CONSTRAINT webhook_delivery_are_times CHECK (((ledger.is_a_time(at) AND ledger.is_a_time(due_at) AND ledger.is_a_time(leased_until) AND ledger.is_a_time(delivered_at) AND ledger.is_a_time(given_up_at)) IS TRUE)),
    CONSTRAINT webhook_delivery_attempts CHECK (((attempts >= 0) IS TRUE)),
    CONSTRAINT webhook_delivery_event CHECK (((event = ANY (ARRAY['job.ended'::text, 'approval.wanted'::text, 'budget.low'::text, 'budget.frozen'::text])) IS TRUE)),
    CONSTRAINT webhook_delivery_id CHECK (((id ~ '^[A-Za-z0-9_-]{1,80}$'::text) IS TRUE)),
    CONSTRAINT webhook_delivery_minute CHECK (((at = date_trunc('minute'::text, at)) IS TRUE)),
    CONSTRAINT webhook_delivery_outcome CHECK (((((event = 'job.ended'::text) = (outcome IS NOT NULL)) AND ((outcome IS NULL) OR (outcome = ANY (ARRAY['succeeded'::text, 'failed'::text, 'cancelled'::text])))) IS TRUE)),
    CONSTRAINT webhook_delivery_subject CHECK (((subject ~ '^[A-Za-z0-9._-]{1,80}$'::text) IS TRUE)),
    CONSTRAINT webhook_delivery_times CHECK (((isfinite(at) AND isfinite(created_at) AND isfinite(due_at) AND isfinite(COALESCE(leased_until, now())) AND isfinite(COALESCE(delivered_at, given_up_at, now()))) IS TRUE))
);

COMMENT ON COLUMN public.webhook_delivery.seq IS 'the order in which one hook is told of one job or budget';

ALTER TABLE public.webhook_delivery ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.webhook_delivery_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY ledger.authorisation
    ADD CONSTRAINT authorisation_pkey PRIMARY KEY (reservation_id, ordinal, seq);

ALTER TABLE ONLY ledger.budget_grant
    ADD CONSTRAINT budget_grant_id_budget_id_key UNIQUE (id, budget_id);

ALTER TABLE ONLY ledger.budget_grant
    ADD CONSTRAINT budget_grant_pkey PRIMARY KEY (id);

ALTER TABLE ONLY ledger.budget
    ADD CONSTRAINT budget_pkey PRIMARY KEY (id);

ALTER TABLE ONLY ledger.curve
    ADD CONSTRAINT curve_pkey PRIMARY KEY (id);

ALTER TABLE ONLY ledger.database_id
    ADD CONSTRAINT database_id_pkey PRIMARY KEY (one);

ALTER TABLE ONLY ledger.entry
    ADD CONSTRAINT entry_pkey PRIMARY KEY (budget_id, seq);

ALTER TABLE ONLY ledger.finding
    ADD CONSTRAINT finding_pkey PRIMARY KEY (id);

ALTER TABLE ONLY ledger.lost_budget
    ADD CONSTRAINT lost_budget_pkey PRIMARY KEY (budget_id);

ALTER TABLE ONLY ledger.phase
    ADD CONSTRAINT phase_pkey PRIMARY KEY (reservation_id, ordinal);

ALTER TABLE ONLY ledger.population
    ADD CONSTRAINT population_pkey PRIMARY KEY (budget_id, kind);

ALTER TABLE ONLY ledger.reservation
    ADD CONSTRAINT reservation_job_id_budget_id_key UNIQUE (job_id, budget_id);

ALTER TABLE ONLY ledger.reservation
    ADD CONSTRAINT reservation_pkey PRIMARY KEY (id);

ALTER TABLE ONLY ledger.silo_login
    ADD CONSTRAINT silo_login_pkey PRIMARY KEY (login);

ALTER TABLE ONLY ledger.work
    ADD CONSTRAINT work_pkey PRIMARY KEY (job_id);

ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY public.api_key
    ADD CONSTRAINT api_key_mac_key UNIQUE (mac);

ALTER TABLE ONLY public.api_key
    ADD CONSTRAINT api_key_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.api_key
    ADD CONSTRAINT api_key_previous_mac_key UNIQUE (previous_mac);

ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.checkpoint
    ADD CONSTRAINT checkpoint_pkey PRIMARY KEY (job_id, step, fence);

ALTER TABLE ONLY public.data_key
    ADD CONSTRAINT data_key_pkey PRIMARY KEY (blob);

ALTER TABLE ONLY public.federated_round
    ADD CONSTRAINT federated_round_pkey PRIMARY KEY (job_id, number);

ALTER TABLE ONLY public.file
    ADD CONSTRAINT file_id_budget_id_key UNIQUE (id, budget_id);

ALTER TABLE ONLY public.file
    ADD CONSTRAINT file_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.fingerprint_key
    ADD CONSTRAINT fingerprint_key_pkey PRIMARY KEY (number);

ALTER TABLE ONLY public.fingerprint
    ADD CONSTRAINT fingerprint_pkey PRIMARY KEY (tenant_id, kind, mac, budget_id);

ALTER TABLE ONLY public.idempotency
    ADD CONSTRAINT idempotency_pkey PRIMARY KEY (tenant_id, key);

ALTER TABLE ONLY public.identity
    ADD CONSTRAINT identity_pkey PRIMARY KEY (file_id, key_mark);

ALTER TABLE ONLY public.invitation
    ADD CONSTRAINT invitation_job_id_key UNIQUE (job_id);

ALTER TABLE ONLY public.invitation
    ADD CONSTRAINT invitation_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.job_audit
    ADD CONSTRAINT job_audit_pkey PRIMARY KEY (job_id);

ALTER TABLE ONLY public.job_event
    ADD CONSTRAINT job_event_pkey PRIMARY KEY (job_id, seq);

ALTER TABLE ONLY public.job_file
    ADD CONSTRAINT job_file_job_id_budget_id_key UNIQUE (job_id, budget_id);

ALTER TABLE ONLY public.job_file
    ADD CONSTRAINT job_file_job_id_file_id_budget_id_key UNIQUE (job_id, file_id, budget_id);

ALTER TABLE ONLY public.job_file
    ADD CONSTRAINT job_file_pkey PRIMARY KEY (job_id, file_id);

ALTER TABLE ONLY public.job
    ADD CONSTRAINT job_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.keeper_watch
    ADD CONSTRAINT keeper_watch_pkey PRIMARY KEY (duty);

ALTER TABLE ONLY public.model_profile
    ADD CONSTRAINT model_profile_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.model_trial
    ADD CONSTRAINT model_trial_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.file
    ADD CONSTRAINT one_file_of_a_blob UNIQUE (blob);

ALTER TABLE ONLY public.fingerprint_key
    ADD CONSTRAINT one_line_of_a_key UNIQUE (mark);

ALTER TABLE ONLY public.silo
    ADD CONSTRAINT one_silo_of_a_name UNIQUE (parent_id, name);

ALTER TABLE ONLY public.public_record
    ADD CONSTRAINT public_record_pkey PRIMARY KEY (tenant_id, mac, file_id);

ALTER TABLE ONLY public.question
    ADD CONSTRAINT question_pkey PRIMARY KEY (file_id);

ALTER TABLE ONLY public.release
    ADD CONSTRAINT release_file_id_key UNIQUE (file_id);

ALTER TABLE ONLY public.release
    ADD CONSTRAINT release_job_id_kind_key UNIQUE (job_id, kind);

ALTER TABLE ONLY public.release
    ADD CONSTRAINT release_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.silo
    ADD CONSTRAINT silo_invitation_id_key UNIQUE (invitation_id);

ALTER TABLE ONLY public.silo
    ADD CONSTRAINT silo_pkey PRIMARY KEY (job_id);

ALTER TABLE ONLY public.silo_round
    ADD CONSTRAINT silo_round_pkey PRIMARY KEY (job_id, number, fence);

ALTER TABLE ONLY public.sketch
    ADD CONSTRAINT sketch_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.tenant
    ADD CONSTRAINT tenant_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.upload_report
    ADD CONSTRAINT upload_report_pkey PRIMARY KEY (file_id);

ALTER TABLE ONLY public.webhook_budget
    ADD CONSTRAINT webhook_budget_pkey PRIMARY KEY (webhook_id, budget_id);

ALTER TABLE ONLY public.webhook_delivery
    ADD CONSTRAINT webhook_delivery_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.webhook
    ADD CONSTRAINT webhook_pkey PRIMARY KEY (id);
CREATE INDEX budget_page ON ledger.budget USING btree (tenant_id, created_at, id);
CREATE INDEX entry_freeze ON ledger.entry USING btree (budget_id, seq) WHERE (kind = ANY (ARRAY['freeze'::text, 'thaw'::text]));
CREATE INDEX entry_overlap ON ledger.entry USING btree (budget_id) WHERE (kind = 'overlap'::text);
CREATE INDEX entry_records ON ledger.entry USING btree (budget_id, seq) WHERE (kind = 'records'::text);
CREATE INDEX grant_page ON ledger.budget_grant USING btree (budget_id, created_at, id);
CREATE UNIQUE INDEX one_charge ON ledger.entry USING btree (reservation_id) WHERE (kind = 'reserve'::text);
CREATE UNIQUE INDEX one_grant_of_a_key ON ledger.budget_grant USING btree (key_id, budget_id) WHERE (revoked_at IS NULL);
CREATE UNIQUE INDEX one_grant_of_a_project ON ledger.budget_grant USING btree (project, budget_id) WHERE (revoked_at IS NULL);
CREATE UNIQUE INDEX one_opening ON ledger.entry USING btree (budget_id) WHERE (kind = 'open'::text);
CREATE UNIQUE INDEX one_settlement ON ledger.entry USING btree (reservation_id) WHERE (kind = 'settle'::text);
CREATE INDEX reservation_budget ON ledger.reservation USING btree (budget_id);
CREATE INDEX reservation_of_grant ON ledger.reservation USING btree (grant_id);
CREATE INDEX reservation_open ON ledger.reservation USING btree (expires_at) WHERE (state = 'reserved'::text);
CREATE INDEX reservation_unstarted ON ledger.reservation USING btree (starts_by) WHERE (state = 'reserved'::text);
CREATE INDEX api_key_page ON public.api_key USING btree (tenant_id, created_at, id);
CREATE INDEX audit_page ON public.audit USING btree (tenant_id, created_at, id);
CREATE INDEX data_key_master ON public.data_key USING btree (master);
CREATE INDEX file_page ON public.file USING btree (tenant_id, created_at, id);
CREATE INDEX idempotency_age ON public.idempotency USING btree (tenant_id, created_at);
CREATE INDEX invitation_for ON public.invitation USING btree (guest, created_at, id);
CREATE INDEX invitation_of ON public.invitation USING btree (tenant_id, created_at, id);
CREATE INDEX job_ended ON public.job USING btree (tenant_id, finished_at) WHERE (finished_at IS NOT NULL);
CREATE INDEX job_file_of_file ON public.job_file USING btree (file_id);
CREATE INDEX job_line ON public.job USING btree (tenant_id, created_at, id) WHERE (status = 'queued'::text);
CREATE INDEX job_open ON public.job USING btree (created_at) WHERE (status = ANY (ARRAY['queued'::text, 'running'::text]));
CREATE INDEX job_page ON public.job USING btree (tenant_id, created_at, id);
CREATE INDEX job_taught ON public.job USING btree (teacher_job) WHERE (teacher_job IS NOT NULL);
CREATE INDEX model_profile_newest ON public.model_profile USING btree (revision, task, method, device, measured_at);
CREATE INDEX model_trial_newest ON public.model_trial USING btree (revision, method, task, tried_at);
CREATE UNIQUE INDEX one_message_of_a_silo_and_round ON public.silo_round USING btree (job_id, number) WHERE (blob IS NOT NULL);
CREATE UNIQUE INDEX one_telling_of_a_job ON public.webhook_delivery USING btree (webhook_id, subject, event) WHERE (event = ANY (ARRAY['job.ended'::text, 'approval.wanted'::text]));
CREATE INDEX question_tenant ON public.question USING btree (tenant_id) WHERE (answer IS NULL);
CREATE INDEX sketch_tenant ON public.sketch USING btree (tenant_id, id);
CREATE INDEX webhook_delivery_old ON public.webhook_delivery USING btree (created_at);
CREATE INDEX webhook_delivery_open ON public.webhook_delivery USING btree (webhook_id, subject, seq) WHERE ((delivered_at IS NULL) AND (given_up_at IS NULL));
CREATE INDEX webhook_tenant ON public.webhook USING btree (tenant_id);
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON ledger.authorisation FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON ledger.budget FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON ledger.budget_grant FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON ledger.curve FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON ledger.database_id FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON ledger.entry FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON ledger.finding FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON ledger.lost_budget FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON ledger.phase FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON ledger.population FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON ledger.reservation FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON ledger.silo_login FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON ledger.work FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER accept_loss BEFORE UPDATE ON ledger.lost_budget FOR EACH ROW EXECUTE FUNCTION ledger.accept_loss();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON ledger.authorisation FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON ledger.curve FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON ledger.database_id FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON ledger.entry FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON ledger.finding FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER attest_records BEFORE INSERT ON ledger.entry FOR EACH ROW WHEN ((new.kind = 'records'::text)) EXECUTE FUNCTION ledger.attest_records();
CREATE TRIGGER authorise BEFORE INSERT ON ledger.authorisation FOR EACH ROW EXECUTE FUNCTION ledger.authorise();
CREATE TRIGGER bound_row BEFORE INSERT ON ledger.entry FOR EACH ROW WHEN ((new.kind = 'settle'::text)) EXECUTE FUNCTION ledger.bound_row();
CREATE TRIGGER bound_row BEFORE UPDATE ON ledger.work FOR EACH ROW EXECUTE FUNCTION ledger.bound_row();
CREATE TRIGGER budget_open BEFORE INSERT ON ledger.budget FOR EACH ROW EXECUTE FUNCTION ledger.budget_open();
CREATE TRIGGER budget_opened AFTER INSERT ON ledger.budget FOR EACH ROW EXECUTE FUNCTION ledger.budget_opened();
CREATE TRIGGER decide BEFORE INSERT ON ledger.entry FOR EACH ROW EXECUTE FUNCTION ledger.decide();
CREATE TRIGGER decide_whole BEFORE INSERT ON ledger.entry FOR EACH ROW WHEN ((new.kind = 'reserve'::text)) EXECUTE FUNCTION ledger.decide_whole();
CREATE TRIGGER is_lost BEFORE INSERT ON ledger.lost_budget FOR EACH ROW EXECUTE FUNCTION ledger.is_lost();
CREATE TRIGGER never_deleted BEFORE DELETE ON ledger.budget FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER never_deleted BEFORE DELETE ON ledger.budget_grant FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER never_deleted BEFORE DELETE ON ledger.lost_budget FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER never_deleted BEFORE DELETE ON ledger.population FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.authorisation FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.budget FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.budget_grant FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.database_id FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.entry FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.finding FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.lost_budget FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.population FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER pause_begins BEFORE UPDATE OF paused_at ON ledger.work FOR EACH ROW EXECUTE FUNCTION ledger.pause_begins();
CREATE TRIGGER phase_price BEFORE INSERT ON ledger.phase FOR EACH ROW EXECUTE FUNCTION ledger.phase_price();
CREATE TRIGGER post BEFORE INSERT ON ledger.entry FOR EACH ROW EXECUTE FUNCTION ledger.post();
CREATE TRIGGER post_grant BEFORE INSERT ON ledger.entry FOR EACH ROW EXECUTE FUNCTION ledger.post_grant();
CREATE TRIGGER require_approval BEFORE INSERT ON ledger.authorisation FOR EACH ROW EXECUTE FUNCTION ledger.require_approval();
CREATE TRIGGER require_approval BEFORE UPDATE OF fence ON ledger.work FOR EACH ROW EXECUTE FUNCTION ledger.require_approval();

CREATE CONSTRAINT TRIGGER require_charge AFTER INSERT ON ledger.reservation DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger.require_charge();
CREATE TRIGGER require_no_loss BEFORE INSERT ON ledger.budget FOR EACH STATEMENT EXECUTE FUNCTION ledger.require_no_loss();
CREATE TRIGGER require_teacher BEFORE INSERT ON ledger.reservation FOR EACH ROW EXECUTE FUNCTION ledger.require_teacher();
CREATE TRIGGER require_unpaused BEFORE INSERT ON ledger.authorisation FOR EACH ROW EXECUTE FUNCTION ledger.require_unpaused();
CREATE TRIGGER require_unpaused BEFORE UPDATE OF fence ON ledger.work FOR EACH ROW EXECUTE FUNCTION ledger.require_unpaused();
CREATE TRIGGER reservation_begins BEFORE INSERT ON ledger.reservation FOR EACH ROW EXECUTE FUNCTION ledger.reservation_begins();

CREATE CONSTRAINT TRIGGER seal_records AFTER INSERT OR UPDATE ON ledger.population DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger.seal_records();
CREATE TRIGGER work_begins BEFORE INSERT ON ledger.work FOR EACH ROW EXECUTE FUNCTION ledger.work_begins();
CREATE TRIGGER work_guard BEFORE UPDATE ON ledger.work FOR EACH ROW EXECUTE FUNCTION ledger.work_guard();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.api_key FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.audit FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.checkpoint FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.data_key FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.federated_round FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.file FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.fingerprint FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.fingerprint_key FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.idempotency FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.identity FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.invitation FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.job FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.job_audit FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.job_event FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.job_file FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.keeper_watch FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.model_profile FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.model_trial FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.public_record FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.question FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.release FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.silo FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.silo_round FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.sketch FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.tenant FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.upload_report FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.webhook FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.webhook_budget FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER a_read_committed BEFORE INSERT OR DELETE OR UPDATE ON public.webhook_delivery FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER api_key_guard BEFORE UPDATE ON public.api_key FOR EACH ROW EXECUTE FUNCTION public.api_key_guard();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON public.fingerprint FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON public.fingerprint_key FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON public.identity FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON public.job_audit FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON public.job_file FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON public.model_trial FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON public.public_record FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON public.release FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON public.sketch FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON public.upload_report FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER bound_key BEFORE INSERT OR DELETE ON public.data_key FOR EACH ROW EXECUTE FUNCTION ledger.bound_key();
CREATE TRIGGER bound_row BEFORE DELETE ON public.checkpoint FOR EACH ROW EXECUTE FUNCTION ledger.bound_row();
CREATE TRIGGER bound_row BEFORE UPDATE ON public.job FOR EACH ROW EXECUTE FUNCTION ledger.bound_row();
CREATE TRIGGER bound_row BEFORE INSERT ON public.job_event FOR EACH ROW EXECUTE FUNCTION ledger.bound_row();
CREATE TRIGGER fenced_row BEFORE INSERT ON public.checkpoint FOR EACH ROW EXECUTE FUNCTION ledger.fenced_row();
CREATE TRIGGER fenced_row BEFORE INSERT ON public.job_audit FOR EACH ROW EXECUTE FUNCTION ledger.fenced_row();
CREATE TRIGGER fenced_row BEFORE INSERT ON public.release FOR EACH ROW EXECUTE FUNCTION ledger.fenced_row();
CREATE TRIGGER file_guard BEFORE UPDATE ON public.file FOR EACH ROW EXECUTE FUNCTION public.file_guard();
CREATE TRIGGER first_key BEFORE INSERT ON public.fingerprint_key FOR EACH ROW EXECUTE FUNCTION public.first_key();
CREATE TRIGGER invitation_guard BEFORE INSERT OR UPDATE ON public.invitation FOR EACH ROW EXECUTE FUNCTION public.invitation_guard();
CREATE TRIGGER job_guard BEFORE UPDATE ON public.job FOR EACH ROW EXECUTE FUNCTION public.job_guard();
CREATE TRIGGER never_changed BEFORE UPDATE ON public.checkpoint FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER never_deleted BEFORE DELETE ON public.federated_round FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER never_deleted BEFORE DELETE ON public.question FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER never_deleted BEFORE DELETE ON public.silo FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER never_deleted BEFORE DELETE ON public.silo_round FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER never_moved BEFORE UPDATE OF blob, created_at ON public.data_key FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.federated_round FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.fingerprint FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.fingerprint_key FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.identity FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.job_audit FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.job_file FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.model_trial FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.public_record FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.question FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.release FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.silo FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.silo_round FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.sketch FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.upload_report FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.webhook FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.webhook_budget FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.webhook_delivery FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER one_population AFTER INSERT ON public.fingerprint REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ledger.one_population();
CREATE TRIGGER population_counted AFTER INSERT ON public.fingerprint REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ledger.count_population();
CREATE TRIGGER question_guard BEFORE UPDATE ON public.question FOR EACH ROW EXECUTE FUNCTION public.question_guard();
CREATE TRIGGER require_no_loss BEFORE INSERT ON public.fingerprint FOR EACH STATEMENT EXECUTE FUNCTION ledger.require_no_loss();

CREATE CONSTRAINT TRIGGER require_reservation AFTER INSERT ON public.job_file DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger.require_reservation();
CREATE TRIGGER result_time BEFORE INSERT ON public.file FOR EACH ROW WHEN ((new.purpose = 'fine-tune-results'::text)) EXECUTE FUNCTION public.result_time();
CREATE TRIGGER round_guard BEFORE INSERT OR UPDATE ON public.federated_round FOR EACH ROW EXECUTE FUNCTION public.round_guard();

CREATE CONSTRAINT TRIGGER seal_records AFTER INSERT ON public.file DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (((new.status = 'processed'::text) AND (new.budget_id IS NOT NULL))) EXECUTE FUNCTION ledger.seal_records();
CREATE TRIGGER silo_begins BEFORE INSERT OR UPDATE ON public.silo FOR EACH ROW EXECUTE FUNCTION public.silo_begins();
CREATE TRIGGER silo_round_guard BEFORE INSERT OR UPDATE ON public.silo_round FOR EACH ROW EXECUTE FUNCTION public.silo_round_guard();

ALTER TABLE ONLY ledger.authorisation
    ADD CONSTRAINT authorisation_reservation_id_ordinal_fkey FOREIGN KEY (reservation_id, ordinal) REFERENCES ledger.phase(reservation_id, ordinal);

ALTER TABLE ONLY ledger.budget_grant
    ADD CONSTRAINT budget_grant_budget_id_fkey FOREIGN KEY (budget_id) REFERENCES ledger.budget(id);

ALTER TABLE ONLY ledger.budget_grant
    ADD CONSTRAINT budget_grant_created_by_fkey FOREIGN KEY (created_by) REFERENCES public.api_key(id);

ALTER TABLE ONLY ledger.budget_grant
    ADD CONSTRAINT budget_grant_key_id_fkey FOREIGN KEY (key_id) REFERENCES public.api_key(id);

ALTER TABLE ONLY ledger.budget
    ADD CONSTRAINT budget_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id);

ALTER TABLE ONLY ledger.entry
    ADD CONSTRAINT entry_budget_id_fkey FOREIGN KEY (budget_id) REFERENCES ledger.budget(id);

ALTER TABLE ONLY ledger.entry
    ADD CONSTRAINT entry_reservation_id_fkey FOREIGN KEY (reservation_id) REFERENCES ledger.reservation(id);

ALTER TABLE ONLY ledger.finding
    ADD CONSTRAINT finding_budget_id_fkey FOREIGN KEY (budget_id) REFERENCES ledger.budget(id);

ALTER TABLE ONLY ledger.phase
    ADD CONSTRAINT phase_curve_id_fkey FOREIGN KEY (curve_id) REFERENCES ledger.curve(id);

ALTER TABLE ONLY ledger.phase
    ADD CONSTRAINT phase_reservation_id_fkey FOREIGN KEY (reservation_id) REFERENCES ledger.reservation(id);

ALTER TABLE ONLY ledger.population
    ADD CONSTRAINT population_budget_id_fkey FOREIGN KEY (budget_id) REFERENCES ledger.budget(id);

ALTER TABLE ONLY ledger.reservation
    ADD CONSTRAINT reservation_budget_id_fkey FOREIGN KEY (budget_id) REFERENCES ledger.budget(id);

ALTER TABLE ONLY ledger.reservation
    ADD CONSTRAINT reservation_grant_id_budget_id_fkey FOREIGN KEY (grant_id, budget_id) REFERENCES ledger.budget_grant(id, budget_id);

ALTER TABLE ONLY ledger.reservation
    ADD CONSTRAINT reservation_job_id_file_id_budget_id_fkey FOREIGN KEY (job_id, file_id, budget_id) REFERENCES public.job_file(job_id, file_id, budget_id);

ALTER TABLE ONLY ledger.work
    ADD CONSTRAINT work_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.job(id);

ALTER TABLE ONLY public.api_key
    ADD CONSTRAINT api_key_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id);

ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_key_id_fkey FOREIGN KEY (key_id) REFERENCES public.api_key(id);

ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id);

ALTER TABLE ONLY public.checkpoint
    ADD CONSTRAINT checkpoint_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.job(id);

ALTER TABLE ONLY public.file
    ADD CONSTRAINT file_budget_id_fkey FOREIGN KEY (budget_id) REFERENCES ledger.budget(id);

ALTER TABLE ONLY public.file
    ADD CONSTRAINT file_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id);

ALTER TABLE ONLY public.idempotency
    ADD CONSTRAINT idempotency_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id);

ALTER TABLE ONLY public.identity
    ADD CONSTRAINT identity_file_id_fkey FOREIGN KEY (file_id) REFERENCES public.file(id);

ALTER TABLE ONLY public.invitation
    ADD CONSTRAINT invitation_file FOREIGN KEY (file_id) REFERENCES public.file(id);

ALTER TABLE ONLY public.invitation
    ADD CONSTRAINT invitation_guests_key FOREIGN KEY (accepted_by) REFERENCES public.api_key(id);

ALTER TABLE ONLY public.invitation
    ADD CONSTRAINT invitation_job FOREIGN KEY (job_id) REFERENCES public.job(id);

ALTER TABLE ONLY public.invitation
    ADD CONSTRAINT invitation_key FOREIGN KEY (created_by) REFERENCES public.api_key(id);

ALTER TABLE ONLY public.invitation
    ADD CONSTRAINT invitation_tenant FOREIGN KEY (tenant_id) REFERENCES public.tenant(id);

ALTER TABLE ONLY public.invitation
    ADD CONSTRAINT invitation_withdrawer FOREIGN KEY (withdrawn_by) REFERENCES public.api_key(id);

ALTER TABLE ONLY public.job_audit
    ADD CONSTRAINT job_audit_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.job(id);

ALTER TABLE ONLY public.job
    ADD CONSTRAINT job_created_by_fkey FOREIGN KEY (created_by) REFERENCES public.api_key(id);

ALTER TABLE ONLY public.job_event
    ADD CONSTRAINT job_event_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.job(id);

ALTER TABLE ONLY public.job_file
    ADD CONSTRAINT job_file_file_id_budget_id_fkey FOREIGN KEY (file_id, budget_id) REFERENCES public.file(id, budget_id);

ALTER TABLE ONLY public.job_file
    ADD CONSTRAINT job_file_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.job(id);

ALTER TABLE ONLY public.job
    ADD CONSTRAINT job_silo FOREIGN KEY (silo_job) REFERENCES public.job(id);

ALTER TABLE ONLY public.job
    ADD CONSTRAINT job_teacher FOREIGN KEY (teacher_job) REFERENCES public.job(id);

ALTER TABLE ONLY public.job
    ADD CONSTRAINT job_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id);

ALTER TABLE ONLY public.job
    ADD CONSTRAINT job_validation_file_fkey FOREIGN KEY (validation_file) REFERENCES public.file(id);

ALTER TABLE ONLY public.public_record
    ADD CONSTRAINT public_record_file_id_fkey FOREIGN KEY (file_id) REFERENCES public.file(id);

ALTER TABLE ONLY public.public_record
    ADD CONSTRAINT public_record_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id);

ALTER TABLE ONLY public.question
    ADD CONSTRAINT question_answered_by_fkey FOREIGN KEY (answered_by) REFERENCES public.api_key(id);

ALTER TABLE ONLY public.question
    ADD CONSTRAINT question_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id);

ALTER TABLE ONLY public.release
    ADD CONSTRAINT release_file_id_fkey FOREIGN KEY (file_id) REFERENCES public.file(id);

ALTER TABLE ONLY public.release
    ADD CONSTRAINT release_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.job(id);

ALTER TABLE ONLY public.federated_round
    ADD CONSTRAINT round_job FOREIGN KEY (job_id) REFERENCES public.job(id);

ALTER TABLE ONLY public.silo
    ADD CONSTRAINT silo_invitation FOREIGN KEY (invitation_id) REFERENCES public.invitation(id);

ALTER TABLE ONLY public.silo
    ADD CONSTRAINT silo_job FOREIGN KEY (job_id) REFERENCES public.job(id);

ALTER TABLE ONLY public.silo
    ADD CONSTRAINT silo_parent FOREIGN KEY (parent_id) REFERENCES public.job(id);

ALTER TABLE ONLY public.silo_round
    ADD CONSTRAINT silo_round_silo FOREIGN KEY (job_id) REFERENCES public.silo(job_id);

ALTER TABLE ONLY public.sketch
    ADD CONSTRAINT sketch_budget_id_fkey FOREIGN KEY (budget_id) REFERENCES ledger.budget(id);

ALTER TABLE ONLY public.sketch
    ADD CONSTRAINT sketch_file_id_fkey FOREIGN KEY (file_id) REFERENCES public.file(id);

ALTER TABLE ONLY public.sketch
    ADD CONSTRAINT sketch_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id);

ALTER TABLE ONLY public.upload_report
    ADD CONSTRAINT upload_report_file_id_fkey FOREIGN KEY (file_id) REFERENCES public.file(id);

ALTER TABLE ONLY public.webhook_budget
    ADD CONSTRAINT webhook_budget_webhook_id_fkey FOREIGN KEY (webhook_id) REFERENCES public.webhook(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.webhook
    ADD CONSTRAINT webhook_created_by_fkey FOREIGN KEY (created_by) REFERENCES public.api_key(id);

ALTER TABLE ONLY public.webhook_delivery
    ADD CONSTRAINT webhook_delivery_webhook_id_fkey FOREIGN KEY (webhook_id) REFERENCES public.webhook(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.webhook
    ADD CONSTRAINT webhook_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id);
GRANT USAGE ON SCHEMA ledger TO tacit_api;
GRANT USAGE ON SCHEMA ledger TO tacit_worker;
REVOKE USAGE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO tacit_api;
GRANT USAGE ON SCHEMA public TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.is_rising(list integer[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.is_rising(list integer[]) TO tacit_api;
GRANT ALL ON FUNCTION ledger.is_rising(list integer[]) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.accept_loss() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.amount(word text) FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.append_only() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.at_orders(wanted integer[], known integer[], step_cost bigint[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.attest_records() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.authorise() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.bound_key() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.bound_row() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.budget_open() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.budget_opened() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.caps(epsilon numeric, delta numeric, orders integer[], weight_numerators integer[], weight_denominator integer) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.caps(epsilon numeric, delta numeric, orders integer[], weight_numerators integer[], weight_denominator integer) TO tacit_api;
GRANT ALL ON FUNCTION ledger.caps(epsilon numeric, delta numeric, orders integer[], weight_numerators integer[], weight_denominator integer) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.count_population() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.cut(marks bytea) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.cut(marks bytea) TO tacit_api;
REVOKE ALL ON FUNCTION ledger.decide() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.decide_whole() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.packed(VARIADIC fields text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.packed(VARIADIC fields text[]) TO tacit_api;
GRANT ALL ON FUNCTION ledger.packed(VARIADIC fields text[]) TO tacit_worker;
GRANT SELECT ON TABLE ledger.entry TO tacit_api;
GRANT SELECT ON TABLE ledger.entry TO tacit_worker;
GRANT INSERT(budget_id) ON TABLE ledger.entry TO tacit_api;
GRANT INSERT(budget_id) ON TABLE ledger.entry TO tacit_worker;
GRANT INSERT(kind) ON TABLE ledger.entry TO tacit_api;
GRANT INSERT(kind) ON TABLE ledger.entry TO tacit_worker;
GRANT INSERT(reservation_id) ON TABLE ledger.entry TO tacit_api;
GRANT INSERT(reservation_id) ON TABLE ledger.entry TO tacit_worker;
GRANT INSERT(outcome) ON TABLE ledger.entry TO tacit_api;
GRANT INSERT(outcome) ON TABLE ledger.entry TO tacit_worker;
GRANT INSERT(fence) ON TABLE ledger.entry TO tacit_worker;
GRANT INSERT(detail) ON TABLE ledger.entry TO tacit_api;
GRANT INSERT(detail) ON TABLE ledger.entry TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.entry_seal(e ledger.entry) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.entry_seal(e ledger.entry) TO tacit_api;
GRANT ALL ON FUNCTION ledger.entry_seal(e ledger.entry) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.entry_fields(e ledger.entry) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.entry_fields(e ledger.entry) TO tacit_api;
GRANT ALL ON FUNCTION ledger.entry_fields(e ledger.entry) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.fenced_row() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.fits(cap bigint[], spent bigint[], reserved numeric[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.fits(cap bigint[], spent bigint[], reserved numeric[]) TO tacit_api;
GRANT ALL ON FUNCTION ledger.fits(cap bigint[], spent bigint[], reserved numeric[]) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.is_plain(value jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.is_plain(value jsonb) TO tacit_api;
GRANT ALL ON FUNCTION ledger.is_plain(value jsonb) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.is_reference(job jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.is_reference(job jsonb) TO tacit_api;
GRANT ALL ON FUNCTION ledger.is_reference(job jsonb) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.sum_of(list integer[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.sum_of(list integer[]) TO tacit_api;
GRANT ALL ON FUNCTION ledger.sum_of(list integer[]) TO tacit_worker;
GRANT SELECT ON TABLE ledger.budget TO tacit_api;
GRANT SELECT ON TABLE ledger.budget TO tacit_worker;
GRANT INSERT(id) ON TABLE ledger.budget TO tacit_api;
GRANT INSERT(tenant_id) ON TABLE ledger.budget TO tacit_api;
GRANT INSERT(name),UPDATE(name) ON TABLE ledger.budget TO tacit_api;
GRANT INSERT(epsilon) ON TABLE ledger.budget TO tacit_api;
GRANT INSERT(delta) ON TABLE ledger.budget TO tacit_api;
GRANT INSERT(unit) ON TABLE ledger.budget TO tacit_api;
GRANT INSERT(max_records_per_user) ON TABLE ledger.budget TO tacit_api;
GRANT INSERT(reference) ON TABLE ledger.budget TO tacit_api;
GRANT INSERT(weight_numerators) ON TABLE ledger.budget TO tacit_api;
GRANT INSERT(weight_denominator) ON TABLE ledger.budget TO tacit_api;
GRANT INSERT(orders) ON TABLE ledger.budget TO tacit_api;
GRANT INSERT(held_out) ON TABLE ledger.budget TO tacit_api;
REVOKE ALL ON FUNCTION ledger.genesis(b ledger.budget) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.genesis(b ledger.budget) TO tacit_api;
GRANT ALL ON FUNCTION ledger.genesis(b ledger.budget) TO tacit_worker;
GRANT SELECT ON TABLE ledger.phase TO tacit_api;
GRANT SELECT ON TABLE ledger.phase TO tacit_worker;
GRANT INSERT(reservation_id) ON TABLE ledger.phase TO tacit_api;
GRANT INSERT(ordinal) ON TABLE ledger.phase TO tacit_api;
GRANT INSERT(sample_rate) ON TABLE ledger.phase TO tacit_api;
GRANT INSERT(noise_multiplier) ON TABLE ledger.phase TO tacit_api;
GRANT INSERT(steps_max) ON TABLE ledger.phase TO tacit_api;
GRANT INSERT(curve_id) ON TABLE ledger.phase TO tacit_api;
GRANT INSERT(indivisible) ON TABLE ledger.phase TO tacit_api;
REVOKE ALL ON FUNCTION ledger.held(open_reservation text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.held(open_reservation text) TO tacit_api;
GRANT ALL ON FUNCTION ledger.held(open_reservation text) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.is_a_time(t timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.is_a_time(t timestamp with time zone) TO tacit_api;
GRANT ALL ON FUNCTION ledger.is_a_time(t timestamp with time zone) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.is_name_list(value jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.times(step_cost bigint[], steps bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.times(step_cost bigint[], steps bigint) TO tacit_api;
GRANT ALL ON FUNCTION ledger.times(step_cost bigint[], steps bigint) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.owed(settled_reservation text, settled_outcome text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.owed(settled_reservation text, settled_outcome text) TO tacit_api;
GRANT ALL ON FUNCTION ledger.owed(settled_reservation text, settled_outcome text) TO tacit_worker;
GRANT SELECT ON TABLE ledger.budget_grant TO tacit_api;
GRANT SELECT ON TABLE ledger.budget_grant TO tacit_worker;
GRANT SELECT ON TABLE ledger.reservation TO tacit_api;
GRANT SELECT ON TABLE ledger.reservation TO tacit_worker;
GRANT INSERT(id) ON TABLE ledger.reservation TO tacit_api;
GRANT INSERT(job_id) ON TABLE ledger.reservation TO tacit_api;
GRANT INSERT(file_id) ON TABLE ledger.reservation TO tacit_api;
GRANT INSERT(budget_id) ON TABLE ledger.reservation TO tacit_api;
GRANT INSERT(expires_at) ON TABLE ledger.reservation TO tacit_api;
GRANT INSERT(starts_by) ON TABLE ledger.reservation TO tacit_api;
REVOKE ALL ON FUNCTION ledger.grant_balance(wanted_grant text, OUT spent bigint[], OUT reserved numeric[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.grant_of(wanted_budget text, wanted_key text, wanted_project text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.grant_of(wanted_budget text, wanted_key text, wanted_project text) TO tacit_api;
REVOKE ALL ON FUNCTION ledger.is_a_blob(name text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.is_a_blob(name text) TO tacit_api;
GRANT ALL ON FUNCTION ledger.is_a_blob(name text) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.is_admin() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.is_error(value jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.is_error(value jsonb) TO tacit_api;
GRANT ALL ON FUNCTION ledger.is_error(value jsonb) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.is_lost() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.is_words(value jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.is_words(value jsonb) TO tacit_api;
GRANT ALL ON FUNCTION ledger.is_words(value jsonb) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.is_worker() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.lock_population(tenant text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.lock_population(tenant text) TO tacit_api;
REVOKE ALL ON FUNCTION ledger.log1p_exp(x double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.log1p_exp(x double precision) TO tacit_api;
GRANT ALL ON FUNCTION ledger.log1p_exp(x double precision) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.log_factorials() FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.log_factorials() TO tacit_api;
GRANT ALL ON FUNCTION ledger.log_factorials() TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.moved(reserved numeric[], change numeric[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.nothing(b ledger.budget) FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.one_population() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.pause_begins() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.phase_price() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.plus(spent bigint[], change bigint[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.plus(spent bigint[], change bigint[]) TO tacit_api;
GRANT ALL ON FUNCTION ledger.plus(spent bigint[], change bigint[]) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.poisson_gaussian_curve(noise_multiplier double precision, sample_rate double precision, orders integer[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.poisson_gaussian_curve(noise_multiplier double precision, sample_rate double precision, orders integer[]) TO tacit_api;
GRANT ALL ON FUNCTION ledger.poisson_gaussian_curve(noise_multiplier double precision, sample_rate double precision, orders integer[]) TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.post() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.post_grant() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.read_committed() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.records_digest(wanted_budget text) FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.reprice(wanted_budget text, OUT spent_change numeric[], OUT reserved_change numeric[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.require_approval() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.require_bound(wanted_job text) FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.require_charge() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.require_fence(wanted_job text, wanted_fence bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.require_no_loss() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.require_reservation() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.require_steward(wanted_tenant text, wanted_key text) FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.require_teacher() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.require_unpaused() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.reservation_begins() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.seal_records() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.share_caps(share numeric, cap bigint[], weight_numerators integer[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.silo_of(blob text) FROM PUBLIC;
GRANT SELECT ON TABLE public.release TO tacit_api;
GRANT SELECT ON TABLE public.release TO tacit_worker;
GRANT INSERT(id) ON TABLE public.release TO tacit_worker;
GRANT INSERT(job_id) ON TABLE public.release TO tacit_worker;
GRANT INSERT(file_id) ON TABLE public.release TO tacit_worker;
GRANT INSERT(kind) ON TABLE public.release TO tacit_worker;
GRANT INSERT(fence) ON TABLE public.release TO tacit_worker;
REVOKE ALL ON FUNCTION ledger.teaches(teacher text, wanted_budget text) FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.work_begins() FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.work_guard() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.api_key_guard() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.file_guard() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.first_key() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.invitation_guard() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.job_guard() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.question_guard() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.result_time() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.round_guard() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.silo_begins() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.silo_round_guard() FROM PUBLIC;
GRANT SELECT ON TABLE ledger.authorisation TO tacit_api;
GRANT SELECT ON TABLE ledger.authorisation TO tacit_worker;
GRANT INSERT(reservation_id) ON TABLE ledger.authorisation TO tacit_worker;
GRANT INSERT(ordinal) ON TABLE ledger.authorisation TO tacit_worker;
GRANT INSERT(fence) ON TABLE ledger.authorisation TO tacit_worker;
GRANT INSERT(steps) ON TABLE ledger.authorisation TO tacit_worker;
GRANT SELECT ON TABLE ledger.curve TO tacit_api;
GRANT SELECT ON TABLE ledger.curve TO tacit_worker;
GRANT SELECT ON TABLE ledger.database_id TO tacit_api;
GRANT SELECT ON TABLE ledger.database_id TO tacit_worker;
GRANT SELECT ON TABLE ledger.finding TO tacit_api;
GRANT SELECT ON TABLE ledger.finding TO tacit_worker;
GRANT SELECT ON TABLE ledger.lost_budget TO tacit_api;
GRANT SELECT ON TABLE ledger.lost_budget TO tacit_worker;
GRANT INSERT(budget_id) ON TABLE ledger.lost_budget TO tacit_api;
GRANT INSERT(seq) ON TABLE ledger.lost_budget TO tacit_api;
GRANT INSERT(hash) ON TABLE ledger.lost_budget TO tacit_api;
GRANT SELECT ON TABLE ledger.population TO tacit_api;
GRANT SELECT ON TABLE ledger.population TO tacit_worker;
GRANT SELECT ON TABLE ledger.silo_login TO tacit_api;
GRANT SELECT ON TABLE ledger.silo_login TO tacit_worker;
GRANT SELECT ON TABLE ledger.work TO tacit_api;
GRANT SELECT ON TABLE ledger.work TO tacit_worker;
GRANT INSERT(job_id) ON TABLE ledger.work TO tacit_api;
GRANT UPDATE(fence) ON TABLE ledger.work TO tacit_worker;
GRANT UPDATE(owner) ON TABLE ledger.work TO tacit_worker;
GRANT UPDATE(lease_until) ON TABLE ledger.work TO tacit_worker;
GRANT UPDATE(stop_requested) ON TABLE ledger.work TO tacit_api;
GRANT UPDATE(paused_at) ON TABLE ledger.work TO tacit_api;
GRANT UPDATE(excused_fence) ON TABLE ledger.work TO tacit_worker;
GRANT UPDATE(seconds) ON TABLE ledger.work TO tacit_worker;
GRANT SELECT ON TABLE public.alembic_version TO tacit_api;
GRANT SELECT ON TABLE public.api_key TO tacit_api;
GRANT INSERT(id) ON TABLE public.api_key TO tacit_api;
GRANT INSERT(tenant_id) ON TABLE public.api_key TO tacit_api;
GRANT INSERT(name) ON TABLE public.api_key TO tacit_api;
GRANT INSERT(prefix),UPDATE(prefix) ON TABLE public.api_key TO tacit_api;
GRANT INSERT(mac),UPDATE(mac) ON TABLE public.api_key TO tacit_api;
GRANT INSERT(scopes) ON TABLE public.api_key TO tacit_api;
GRANT INSERT(expires_at) ON TABLE public.api_key TO tacit_api;
GRANT UPDATE(revoked_at) ON TABLE public.api_key TO tacit_api;
GRANT INSERT(project) ON TABLE public.api_key TO tacit_api;
GRANT UPDATE(previous_mac) ON TABLE public.api_key TO tacit_api;
GRANT UPDATE(previous_until) ON TABLE public.api_key TO tacit_api;
GRANT INSERT(seal),UPDATE(seal) ON TABLE public.api_key TO tacit_api;
GRANT SELECT ON TABLE public.audit TO tacit_api;
GRANT INSERT(id) ON TABLE public.audit TO tacit_api;
GRANT INSERT(tenant_id) ON TABLE public.audit TO tacit_api;
GRANT INSERT(key_id) ON TABLE public.audit TO tacit_api;
GRANT INSERT(action) ON TABLE public.audit TO tacit_api;
GRANT INSERT(target) ON TABLE public.audit TO tacit_api;
GRANT INSERT(status) ON TABLE public.audit TO tacit_api;
GRANT INSERT(request_id) ON TABLE public.audit TO tacit_api;
GRANT SELECT,DELETE ON TABLE public.checkpoint TO tacit_worker;
GRANT INSERT(job_id) ON TABLE public.checkpoint TO tacit_worker;
GRANT INSERT(fence) ON TABLE public.checkpoint TO tacit_worker;
GRANT INSERT(step) ON TABLE public.checkpoint TO tacit_worker;
GRANT INSERT(blob) ON TABLE public.checkpoint TO tacit_worker;
GRANT SELECT,DELETE ON TABLE public.data_key TO tacit_api;
GRANT SELECT,DELETE ON TABLE public.data_key TO tacit_worker;
GRANT INSERT(blob) ON TABLE public.data_key TO tacit_api;
GRANT INSERT(blob) ON TABLE public.data_key TO tacit_worker;
GRANT INSERT(wrapped) ON TABLE public.data_key TO tacit_api;
GRANT INSERT(wrapped) ON TABLE public.data_key TO tacit_worker;
GRANT INSERT(master) ON TABLE public.data_key TO tacit_api;
GRANT INSERT(master) ON TABLE public.data_key TO tacit_worker;
GRANT SELECT ON TABLE public.federated_round TO tacit_api;
GRANT SELECT ON TABLE public.federated_round TO tacit_worker;
GRANT INSERT(job_id) ON TABLE public.federated_round TO tacit_worker;
GRANT INSERT(number) ON TABLE public.federated_round TO tacit_worker;
GRANT INSERT(fence),UPDATE(fence) ON TABLE public.federated_round TO tacit_worker;
GRANT INSERT(blob) ON TABLE public.federated_round TO tacit_worker;
GRANT INSERT(sha256) ON TABLE public.federated_round TO tacit_worker;
GRANT INSERT(closes_at) ON TABLE public.federated_round TO tacit_worker;
GRANT INSERT(silos) ON TABLE public.federated_round TO tacit_worker;
GRANT UPDATE(agreed) ON TABLE public.federated_round TO tacit_worker;
GRANT UPDATE(came) ON TABLE public.federated_round TO tacit_worker;
GRANT SELECT ON TABLE public.file TO tacit_api;
GRANT SELECT ON TABLE public.file TO tacit_worker;
GRANT INSERT(id) ON TABLE public.file TO tacit_api;
GRANT INSERT(id) ON TABLE public.file TO tacit_worker;
GRANT INSERT(tenant_id) ON TABLE public.file TO tacit_api;
GRANT INSERT(tenant_id) ON TABLE public.file TO tacit_worker;
GRANT INSERT(purpose) ON TABLE public.file TO tacit_api;
GRANT INSERT(purpose) ON TABLE public.file TO tacit_worker;
GRANT INSERT(filename) ON TABLE public.file TO tacit_api;
GRANT INSERT(filename) ON TABLE public.file TO tacit_worker;
GRANT INSERT(bytes) ON TABLE public.file TO tacit_api;
GRANT INSERT(bytes) ON TABLE public.file TO tacit_worker;
GRANT INSERT(sha256) ON TABLE public.file TO tacit_worker;
GRANT INSERT(sha256) ON TABLE public.file TO tacit_api;
GRANT INSERT(status) ON TABLE public.file TO tacit_worker;
GRANT INSERT(status) ON TABLE public.file TO tacit_api;
GRANT INSERT(budget_id) ON TABLE public.file TO tacit_api;
GRANT INSERT(declared_size) ON TABLE public.file TO tacit_api;
GRANT INSERT(labels) ON TABLE public.file TO tacit_api;
GRANT INSERT(max_length) ON TABLE public.file TO tacit_api;
GRANT INSERT(columns) ON TABLE public.file TO tacit_api;
GRANT INSERT(blob) ON TABLE public.file TO tacit_api;
GRANT INSERT(blob) ON TABLE public.file TO tacit_worker;
GRANT UPDATE(deleted_at) ON TABLE public.file TO tacit_api;
GRANT INSERT(task) ON TABLE public.file TO tacit_api;
GRANT INSERT(binding) ON TABLE public.file TO tacit_api;
GRANT INSERT(binding) ON TABLE public.file TO tacit_worker;
GRANT SELECT,INSERT ON TABLE public.fingerprint TO tacit_api;
GRANT SELECT ON TABLE public.fingerprint_key TO tacit_api;
GRANT INSERT(mark) ON TABLE public.fingerprint_key TO tacit_api;
GRANT SELECT,DELETE ON TABLE public.idempotency TO tacit_api;
GRANT INSERT(tenant_id) ON TABLE public.idempotency TO tacit_api;
GRANT INSERT(key) ON TABLE public.idempotency TO tacit_api;
GRANT INSERT(request_digest) ON TABLE public.idempotency TO tacit_api;
GRANT INSERT(response) ON TABLE public.idempotency TO tacit_api;
GRANT SELECT ON TABLE public.identity TO tacit_api;
GRANT SELECT ON TABLE public.identity TO tacit_worker;
GRANT INSERT(file_id) ON TABLE public.identity TO tacit_api;
GRANT INSERT(key_mark) ON TABLE public.identity TO tacit_api;
GRANT INSERT(made) ON TABLE public.identity TO tacit_api;
GRANT INSERT(elsewhere) ON TABLE public.identity TO tacit_api;
GRANT INSERT(users) ON TABLE public.identity TO tacit_api;
GRANT SELECT ON TABLE public.invitation TO tacit_api;
GRANT SELECT ON TABLE public.invitation TO tacit_worker;
GRANT INSERT(id) ON TABLE public.invitation TO tacit_api;
GRANT INSERT(tenant_id) ON TABLE public.invitation TO tacit_api;
GRANT INSERT(created_by) ON TABLE public.invitation TO tacit_api;
GRANT INSERT(file_id) ON TABLE public.invitation TO tacit_api;
GRANT INSERT(guest) ON TABLE public.invitation TO tacit_api;
GRANT INSERT(asked) ON TABLE public.invitation TO tacit_api;
GRANT INSERT(note) ON TABLE public.invitation TO tacit_api;
GRANT INSERT(expires_at) ON TABLE public.invitation TO tacit_api;
GRANT UPDATE(accepted_by) ON TABLE public.invitation TO tacit_api;
GRANT UPDATE(job_id) ON TABLE public.invitation TO tacit_api;
GRANT UPDATE(withdrawn_by) ON TABLE public.invitation TO tacit_api;
GRANT SELECT ON TABLE public.job TO tacit_api;
GRANT SELECT ON TABLE public.job TO tacit_worker;
GRANT INSERT(id) ON TABLE public.job TO tacit_api;
GRANT INSERT(tenant_id) ON TABLE public.job TO tacit_api;
GRANT INSERT(created_by) ON TABLE public.job TO tacit_api;
GRANT INSERT(model) ON TABLE public.job TO tacit_api;
GRANT INSERT(validation_file) ON TABLE public.job TO tacit_api;
GRANT INSERT(method) ON TABLE public.job TO tacit_api;
GRANT INSERT(plan) ON TABLE public.job TO tacit_api;
GRANT INSERT(privacy) ON TABLE public.job TO tacit_api;
GRANT INSERT(seed) ON TABLE public.job TO tacit_api;
GRANT INSERT(suffix) ON TABLE public.job TO tacit_api;
GRANT INSERT(metadata) ON TABLE public.job TO tacit_api;
GRANT INSERT(status),UPDATE(status) ON TABLE public.job TO tacit_api;
GRANT UPDATE(status) ON TABLE public.job TO tacit_worker;
GRANT INSERT(status_detail),UPDATE(status_detail) ON TABLE public.job TO tacit_api;
GRANT UPDATE(status_detail) ON TABLE public.job TO tacit_worker;
GRANT UPDATE(error) ON TABLE public.job TO tacit_api;
GRANT UPDATE(error) ON TABLE public.job TO tacit_worker;
GRANT UPDATE(started_at) ON TABLE public.job TO tacit_worker;
GRANT UPDATE(finished_at) ON TABLE public.job TO tacit_api;
GRANT UPDATE(finished_at) ON TABLE public.job TO tacit_worker;
GRANT UPDATE(hinted_at) ON TABLE public.job TO tacit_api;
GRANT UPDATE(hinted_at) ON TABLE public.job TO tacit_worker;
GRANT INSERT(model_revision) ON TABLE public.job TO tacit_api;
GRANT INSERT(teacher_job) ON TABLE public.job TO tacit_api;
GRANT INSERT(silo_job) ON TABLE public.job TO tacit_api;
GRANT INSERT(intended_use) ON TABLE public.job TO tacit_api;
GRANT INSERT(synthetic) ON TABLE public.job TO tacit_api;
GRANT INSERT(audit) ON TABLE public.job TO tacit_api;
GRANT SELECT ON TABLE public.job_audit TO tacit_api;
GRANT SELECT ON TABLE public.job_audit TO tacit_worker;
GRANT INSERT(job_id) ON TABLE public.job_audit TO tacit_worker;
GRANT INSERT(fence) ON TABLE public.job_audit TO tacit_worker;
GRANT INSERT(finding) ON TABLE public.job_audit TO tacit_worker;
GRANT SELECT,DELETE ON TABLE public.job_event TO tacit_api;
GRANT SELECT ON TABLE public.job_event TO tacit_worker;
GRANT INSERT(job_id) ON TABLE public.job_event TO tacit_api;
GRANT INSERT(job_id) ON TABLE public.job_event TO tacit_worker;
GRANT INSERT(level) ON TABLE public.job_event TO tacit_api;
GRANT INSERT(level) ON TABLE public.job_event TO tacit_worker;
GRANT INSERT(type) ON TABLE public.job_event TO tacit_api;
GRANT INSERT(type) ON TABLE public.job_event TO tacit_worker;
GRANT INSERT(message) ON TABLE public.job_event TO tacit_api;
GRANT INSERT(message) ON TABLE public.job_event TO tacit_worker;
GRANT INSERT(data) ON TABLE public.job_event TO tacit_api;
GRANT INSERT(data) ON TABLE public.job_event TO tacit_worker;
GRANT INSERT(name) ON TABLE public.job_event TO tacit_api;
GRANT INSERT(name) ON TABLE public.job_event TO tacit_worker;
GRANT SELECT,INSERT ON TABLE public.job_file TO tacit_api;
GRANT SELECT ON TABLE public.job_file TO tacit_worker;
GRANT SELECT ON TABLE public.keeper_watch TO tacit_api;
GRANT INSERT(duty) ON TABLE public.keeper_watch TO tacit_api;
GRANT INSERT(finished_at),UPDATE(finished_at) ON TABLE public.keeper_watch TO tacit_api;
GRANT INSERT(detail),UPDATE(detail) ON TABLE public.keeper_watch TO tacit_api;
GRANT SELECT ON TABLE public.model_profile TO tacit_api;
GRANT SELECT ON TABLE public.model_profile TO tacit_worker;
GRANT INSERT(model) ON TABLE public.model_profile TO tacit_worker;
GRANT INSERT(revision) ON TABLE public.model_profile TO tacit_worker;
GRANT INSERT(method) ON TABLE public.model_profile TO tacit_worker;
GRANT INSERT(task) ON TABLE public.model_profile TO tacit_worker;
GRANT INSERT(device) ON TABLE public.model_profile TO tacit_worker;
GRANT INSERT(max_length) ON TABLE public.model_profile TO tacit_worker;
GRANT INSERT(tokens_per_second) ON TABLE public.model_profile TO tacit_worker;
GRANT INSERT(peak_bytes) ON TABLE public.model_profile TO tacit_worker;
GRANT INSERT(device_bytes) ON TABLE public.model_profile TO tacit_worker;
GRANT INSERT(options) ON TABLE public.model_profile TO tacit_worker;
GRANT SELECT ON TABLE public.model_trial TO tacit_api;
GRANT SELECT ON TABLE public.model_trial TO tacit_worker;
GRANT INSERT(model) ON TABLE public.model_trial TO tacit_worker;
GRANT INSERT(revision) ON TABLE public.model_trial TO tacit_worker;
GRANT INSERT(method) ON TABLE public.model_trial TO tacit_worker;
GRANT INSERT(task) ON TABLE public.model_trial TO tacit_worker;
GRANT INSERT(refusal) ON TABLE public.model_trial TO tacit_worker;
GRANT INSERT(versions) ON TABLE public.model_trial TO tacit_worker;
GRANT SELECT,INSERT ON TABLE public.public_record TO tacit_api;
GRANT SELECT ON TABLE public.question TO tacit_api;
GRANT INSERT(file_id) ON TABLE public.question TO tacit_api;
GRANT INSERT(tenant_id) ON TABLE public.question TO tacit_api;
GRANT INSERT(upload) ON TABLE public.question TO tacit_api;
GRANT INSERT(found) ON TABLE public.question TO tacit_api;
GRANT UPDATE(answered_by) ON TABLE public.question TO tacit_api;
GRANT UPDATE(answer) ON TABLE public.question TO tacit_api;
GRANT UPDATE(reason) ON TABLE public.question TO tacit_api;
GRANT SELECT ON TABLE public.silo TO tacit_api;
GRANT SELECT ON TABLE public.silo TO tacit_worker;
GRANT INSERT(job_id) ON TABLE public.silo TO tacit_api;
GRANT INSERT(parent_id) ON TABLE public.silo TO tacit_api;
GRANT INSERT(name) ON TABLE public.silo TO tacit_api;
GRANT INSERT(invitation_id) ON TABLE public.silo TO tacit_api;
GRANT INSERT(declared_size) ON TABLE public.silo TO tacit_api;
GRANT UPDATE(mask_keys) ON TABLE public.silo TO tacit_worker;
GRANT UPDATE(mask_fence) ON TABLE public.silo TO tacit_worker;
GRANT SELECT ON TABLE public.silo_round TO tacit_api;
GRANT SELECT ON TABLE public.silo_round TO tacit_worker;
GRANT INSERT(job_id) ON TABLE public.silo_round TO tacit_worker;
GRANT INSERT(number) ON TABLE public.silo_round TO tacit_worker;
GRANT INSERT(fence) ON TABLE public.silo_round TO tacit_worker;
GRANT INSERT(steps) ON TABLE public.silo_round TO tacit_worker;
GRANT UPDATE(sent_fence) ON TABLE public.silo_round TO tacit_worker;
GRANT UPDATE(blob) ON TABLE public.silo_round TO tacit_worker;
GRANT UPDATE(sha256) ON TABLE public.silo_round TO tacit_worker;
GRANT UPDATE(signature) ON TABLE public.silo_round TO tacit_worker;
GRANT UPDATE(opening) ON TABLE public.silo_round TO tacit_worker;
GRANT SELECT ON TABLE public.sketch TO tacit_api;
GRANT INSERT(tenant_id) ON TABLE public.sketch TO tacit_api;
GRANT INSERT(file_id) ON TABLE public.sketch TO tacit_api;
GRANT INSERT(budget_id) ON TABLE public.sketch TO tacit_api;
GRANT INSERT(packed) ON TABLE public.sketch TO tacit_api;
GRANT SELECT ON TABLE public.tenant TO tacit_api;
GRANT SELECT ON TABLE public.tenant TO tacit_worker;
GRANT INSERT(id) ON TABLE public.tenant TO tacit_api;
GRANT INSERT(name) ON TABLE public.tenant TO tacit_api;
GRANT SELECT ON TABLE public.upload_report TO tacit_api;
GRANT INSERT(file_id) ON TABLE public.upload_report TO tacit_api;
GRANT INSERT(report) ON TABLE public.upload_report TO tacit_api;
GRANT SELECT,DELETE ON TABLE public.webhook TO tacit_api;
GRANT INSERT(id) ON TABLE public.webhook TO tacit_api;
GRANT INSERT(tenant_id) ON TABLE public.webhook TO tacit_api;
GRANT INSERT(created_by) ON TABLE public.webhook TO tacit_api;
GRANT INSERT(url) ON TABLE public.webhook TO tacit_api;
GRANT INSERT(description) ON TABLE public.webhook TO tacit_api;
GRANT INSERT(job_ended) ON TABLE public.webhook TO tacit_api;
GRANT INSERT(approval_wanted) ON TABLE public.webhook TO tacit_api;
GRANT INSERT(budget_low) ON TABLE public.webhook TO tacit_api;
GRANT INSERT(budget_frozen) ON TABLE public.webhook TO tacit_api;
GRANT INSERT(low_below) ON TABLE public.webhook TO tacit_api;
GRANT INSERT(salt) ON TABLE public.webhook TO tacit_api;
GRANT UPDATE(looked_at) ON TABLE public.webhook TO tacit_api;
GRANT UPDATE(last_success_at) ON TABLE public.webhook TO tacit_api;
GRANT UPDATE(last_failure_at) ON TABLE public.webhook TO tacit_api;
GRANT UPDATE(last_failure) ON TABLE public.webhook TO tacit_api;
GRANT SELECT,INSERT ON TABLE public.webhook_budget TO tacit_api;
GRANT UPDATE(seq) ON TABLE public.webhook_budget TO tacit_api;
GRANT UPDATE(low) ON TABLE public.webhook_budget TO tacit_api;
GRANT UPDATE(frozen) ON TABLE public.webhook_budget TO tacit_api;
GRANT SELECT,DELETE ON TABLE public.webhook_delivery TO tacit_api;
GRANT INSERT(id) ON TABLE public.webhook_delivery TO tacit_api;
GRANT INSERT(webhook_id) ON TABLE public.webhook_delivery TO tacit_api;
GRANT INSERT(event) ON TABLE public.webhook_delivery TO tacit_api;
GRANT INSERT(subject) ON TABLE public.webhook_delivery TO tacit_api;
GRANT INSERT(outcome) ON TABLE public.webhook_delivery TO tacit_api;
GRANT INSERT(at) ON TABLE public.webhook_delivery TO tacit_api;
GRANT UPDATE(attempts) ON TABLE public.webhook_delivery TO tacit_api;
GRANT UPDATE(due_at) ON TABLE public.webhook_delivery TO tacit_api;
GRANT UPDATE(leased_until) ON TABLE public.webhook_delivery TO tacit_api;
GRANT UPDATE(delivered_at) ON TABLE public.webhook_delivery TO tacit_api;
GRANT UPDATE(given_up_at) ON TABLE public.webhook_delivery TO tacit_api;

ALTER DEFAULT PRIVILEGES FOR ROLE tacit_owner REVOKE ALL ON FUNCTIONS FROM PUBLIC;
