-- TC007: no grant. TC008: the job waits for a steward. TC009: it does not. Locks: budget, grant, reservation, work, phase.
-- The triggers on ledger.entry fire by name: decide, post (which moves the budget and seals the entry), post_grant.

-- The grant that a key uses a budget by: its own before that of its project.
CREATE FUNCTION ledger.grant_of(wanted_budget text, wanted_key text, wanted_project text) RETURNS text
LANGUAGE sql STABLE
AS $$ SELECT g.id FROM ledger.budget_grant g
      WHERE g.budget_id = wanted_budget AND g.revoked_at IS NULL AND (g.key_id = wanted_key OR g.project = wanted_project)
      ORDER BY g.key_id IS NULL LIMIT 1 $$;

CREATE FUNCTION ledger.require_steward(wanted_tenant text, wanted_key text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM public.api_key k WHERE k.id = wanted_key AND k.tenant_id = wanted_tenant
                 AND k.scopes && ARRAY['steward', 'admin'] AND k.revoked_at IS NULL) THEN
    RAISE EXCEPTION 'key % is not that of a steward of the budget', wanted_key USING ERRCODE = 'insufficient_privilege';
  END IF;
END $$;

-- The database says which grant pays, whatever the service believes. A steward's own jobs need none.
CREATE FUNCTION ledger.reservation_begins() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
DECLARE submitter public.api_key; account ledger.budget;
BEGIN
  SELECT k.* INTO submitter FROM public.job j JOIN public.api_key k ON k.id = j.created_by AND k.tenant_id = j.tenant_id
    WHERE j.id = NEW.job_id;
  SELECT * INTO account FROM ledger.budget b WHERE b.id = NEW.budget_id;
  IF submitter.tenant_id IS DISTINCT FROM account.tenant_id THEN
    RAISE EXCEPTION 'job % is not of the tenant of budget %', NEW.job_id, NEW.budget_id USING ERRCODE = 'restrict_violation';
  END IF;
  NEW.grant_id := NULL;
  IF NOT submitter.scopes && ARRAY['steward', 'admin'] THEN
    NEW.grant_id := ledger.grant_of(NEW.budget_id, submitter.id, submitter.project);
    IF NEW.grant_id IS NULL THEN
      RAISE EXCEPTION 'key % has no grant of budget %', submitter.id, NEW.budget_id USING ERRCODE = 'TC007';
    END IF;
  END IF;
  NEW.waits := false;
  NEW.starts_by := least(NEW.starts_by, NEW.expires_at, clock_timestamp() + account.queue_days * interval '1 day');
  RETURN NEW;
END $$;
CREATE TRIGGER reservation_begins BEFORE INSERT ON ledger.reservation
  FOR EACH ROW EXECUTE FUNCTION ledger.reservation_begins();

-- What a decision changes beside the balances, and what a charge says beside its amounts.
CREATE FUNCTION ledger.decide() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
DECLARE
  account ledger.budget;
  booking ledger.reservation;
  pass ledger.budget_grant;
  none bigint[] := array_fill(0::bigint, ARRAY[cardinality(ledger.orders())]);
  must_wait boolean;
BEGIN
  SELECT * INTO account FROM ledger.budget b WHERE b.id = NEW.budget_id FOR NO KEY UPDATE;
  IF NEW.kind IN ('grant', 'revoke', 'rules', 'approve') THEN
    PERFORM ledger.require_steward(account.tenant_id, NEW.detail ->> 'by');
  END IF;

  IF NEW.kind = 'reserve' THEN
    SELECT * INTO booking FROM ledger.reservation r WHERE r.id = NEW.reservation_id;
    SELECT * INTO pass FROM ledger.budget_grant g WHERE g.id = booking.grant_id FOR NO KEY UPDATE;
    IF pass.revoked_at IS NOT NULL THEN
      RAISE EXCEPTION 'grant % was revoked', pass.id USING ERRCODE = 'TC007';
    END IF;
    -- Does the job alone take more than the threshold of an empty budget? Asked in the ledger's own integers.
    must_wait := NOT coalesce(ledger.fits(
      ledger.caps(least(account.approval_above, pass.approval_above), account.delta, account.weight_numerators, account.weight_denominator),
      none, ledger.held(booking.id)), true);
    UPDATE ledger.reservation SET waits = true WHERE must_wait AND id = booking.id;
    NEW.detail := nullif(jsonb_strip_nulls(jsonb_build_object('grant', booking.grant_id, 'waits', nullif(must_wait, false))), '{}');

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
      (NEW.detail ->> 'epsilon')::numeric, (NEW.detail ->> 'approval_above')::numeric,
      ledger.caps((NEW.detail ->> 'epsilon')::numeric, account.delta, account.weight_numerators, account.weight_denominator),
      none, none::numeric[], NEW.detail ->> 'by', clock_timestamp());

  ELSIF NEW.kind = 'revoke' THEN
    UPDATE ledger.budget_grant SET revoked_at = clock_timestamp()
      WHERE id = NEW.detail ->> 'grant' AND budget_id = account.id AND revoked_at IS NULL;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'there is no grant % to revoke', NEW.detail ->> 'grant' USING ERRCODE = 'restrict_violation';
    END IF;

  ELSIF NEW.kind = 'rules' THEN
    UPDATE ledger.budget SET approval_above = (NEW.detail ->> 'approval_above')::numeric, queue_days = (NEW.detail ->> 'queue_days')::int
      WHERE id = account.id;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER decide BEFORE INSERT ON ledger.entry FOR EACH ROW EXECUTE FUNCTION ledger.decide();

-- What a grant has spent and holds, from its reservations.
CREATE FUNCTION ledger.grant_balance(wanted_grant text, OUT spent bigint[], OUT reserved numeric[])
LANGUAGE sql STABLE
AS $$
  SELECT array_agg(least(coalesce(s, 0), 9007199254740992)::bigint ORDER BY i), array_agg(coalesce(h, 0) ORDER BY i)
  FROM generate_series(1, cardinality(ledger.orders())) AS i LEFT JOIN (
    SELECT j, sum(amount) FILTER (WHERE r.state = 'settled') AS s, sum(amount) FILTER (WHERE r.state = 'reserved') AS h
    FROM ledger.reservation r LEFT JOIN ledger.entry e ON e.reservation_id = r.id AND e.kind = 'settle',
         unnest(CASE WHEN r.state = 'settled' THEN ledger.owed(r.id, e.outcome)::numeric[] ELSE ledger.held(r.id) END)
           WITH ORDINALITY AS u (amount, j)
    WHERE r.grant_id = wanted_grant GROUP BY j) AS per_order ON i = j $$;

-- The same amounts move the grant's balance as the budget's, in the same statement; the grant's own CHECK decides.
CREATE FUNCTION ledger.post_grant() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
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
CREATE TRIGGER post_grant BEFORE INSERT ON ledger.entry FOR EACH ROW EXECUTE FUNCTION ledger.post_grant();

-- Nobody claims, and no step is authorised, while a steward is waited for.
CREATE FUNCTION ledger.require_approval() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
BEGIN
  IF EXISTS (SELECT FROM ledger.reservation r WHERE r.waits
             AND (r.job_id = to_jsonb(NEW) ->> 'job_id' OR r.id = to_jsonb(NEW) ->> 'reservation_id')) THEN
    RAISE EXCEPTION 'the job waits for the approval of a steward' USING ERRCODE = 'TC008';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER require_approval BEFORE UPDATE OF fence ON ledger.work FOR EACH ROW EXECUTE FUNCTION ledger.require_approval();
CREATE TRIGGER require_approval BEFORE INSERT ON ledger.authorisation FOR EACH ROW EXECUTE FUNCTION ledger.require_approval();
