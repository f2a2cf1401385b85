-- As before, and: a grant by share, one that ends, and jobs whose use has to be said.
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
END $$;

-- One that has ended lets in nobody, as one that was revoked.
CREATE OR REPLACE FUNCTION ledger.grant_of(wanted_budget text, wanted_key text, wanted_project text) RETURNS text
LANGUAGE sql STABLE
BEGIN ATOMIC
  SELECT g.id FROM ledger.budget_grant g
    WHERE g.budget_id = wanted_budget AND g.revoked_at IS NULL AND (g.expires_at IS NULL OR g.expires_at > clock_timestamp())
      AND (g.key_id = wanted_key OR g.project = wanted_project)
    ORDER BY g.key_id IS NULL LIMIT 1;
END;
