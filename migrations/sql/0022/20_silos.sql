-- A tenant's job asks to learn from another tenant's file: what it would do there, and what that tenant's steward said.
-- The guest is a name: that there is such a tenant is never told.
CREATE TABLE invitation (
  id text PRIMARY KEY,
  tenant_id text NOT NULL CONSTRAINT invitation_tenant REFERENCES tenant (id),
  created_by text NOT NULL CONSTRAINT invitation_key REFERENCES api_key (id),
  file_id text NOT NULL CONSTRAINT invitation_file REFERENCES file (id),
  guest text NOT NULL,
  asked jsonb NOT NULL,
  note text,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  accepted_at timestamptz,
  accepted_by text CONSTRAINT invitation_guests_key REFERENCES api_key (id),
  job_id text UNIQUE CONSTRAINT invitation_job REFERENCES job (id),
  withdrawn_at timestamptz,
  withdrawn_by text CONSTRAINT invitation_withdrawer REFERENCES api_key (id),
  CONSTRAINT a_guest_has_a_name CHECK ((guest ~ '^[A-Za-z0-9_-]{1,80}$') IS TRUE),
  CONSTRAINT invitation_asked CHECK ((jsonb_typeof(asked) = 'object' AND ledger.is_plain(asked)) IS TRUE),
  CONSTRAINT invitation_note CHECK ((note IS NULL OR length(note) BETWEEN 1 AND 1000) IS TRUE),
  CONSTRAINT invitation_times CHECK ((ledger.is_a_time(expires_at) AND ledger.is_a_time(accepted_at) AND ledger.is_a_time(withdrawn_at)
    AND expires_at <= created_at + interval '90 days') IS TRUE),
  CONSTRAINT an_acceptance_is_whole CHECK (((accepted_at IS NULL) = (accepted_by IS NULL) AND (accepted_at IS NULL) = (job_id IS NULL)) IS TRUE),
  CONSTRAINT a_withdrawal_is_whole CHECK (((withdrawn_at IS NULL) = (withdrawn_by IS NULL)) IS TRUE)
);
CREATE INDEX invitation_of ON invitation (tenant_id, created_at, id);
CREATE INDEX invitation_for ON invitation (guest, created_at, id);

CREATE FUNCTION invitation_guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, ledger, pg_temp AS $$
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
REVOKE ALL ON FUNCTION invitation_guard() FROM PUBLIC;
CREATE TRIGGER invitation_guard BEFORE INSERT OR UPDATE ON invitation FOR EACH ROW EXECUTE FUNCTION invitation_guard();

-- A federated job and its silos: a child job each, with a reservation of its own. The parent has none, and opens no row.
CREATE TABLE silo (
  job_id text PRIMARY KEY CONSTRAINT silo_job REFERENCES job (id),
  parent_id text NOT NULL CONSTRAINT silo_parent REFERENCES job (id),
  name text NOT NULL,
  invitation_id text UNIQUE CONSTRAINT silo_invitation REFERENCES invitation (id),
  declared_size bigint NOT NULL,
  mask_keys text,
  mask_fence bigint,
  CONSTRAINT a_silo_has_mask_keys CHECK (((mask_keys IS NULL) = (mask_fence IS NULL) AND (mask_keys IS NULL OR mask_keys ~ '^[0-9a-f]{128}$')) IS TRUE),
  CONSTRAINT a_silo_has_a_name CHECK ((name ~ '^silo-[0-9]{1,3}$') IS TRUE),
  CONSTRAINT a_silo_has_a_size CHECK ((declared_size > 0) IS TRUE),
  CONSTRAINT one_silo_of_a_name UNIQUE (parent_id, name)
);

CREATE FUNCTION silo_begins() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, ledger, pg_temp AS $$
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
REVOKE ALL ON FUNCTION silo_begins() FROM PUBLIC;
CREATE TRIGGER silo_begins BEFORE INSERT OR UPDATE ON silo FOR EACH ROW EXECUTE FUNCTION silo_begins();
CREATE TRIGGER never_deleted BEFORE DELETE ON silo FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON silo FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();

-- Whose price a parent shows: its own tenant's silo.
ALTER TABLE job ADD COLUMN silo_job text CONSTRAINT job_silo REFERENCES job (id);
COMMENT ON COLUMN job.silo_job IS 'of a federated job: the child that learns from its training file';
-- Two jobs of one transaction keep their order in every list.
ALTER TABLE job ALTER COLUMN created_at SET DEFAULT clock_timestamp();

-- A round: what all silos begin at, and which messages counted.
CREATE TABLE federated_round (
  job_id text NOT NULL CONSTRAINT round_job REFERENCES job (id),
  number integer NOT NULL,
  fence bigint NOT NULL,
  blob text NOT NULL,
  sha256 text NOT NULL,
  opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  closes_at timestamptz NOT NULL,
  silos jsonb,
  agreed jsonb,
  closed_at timestamptz,
  came jsonb,
  PRIMARY KEY (job_id, number),
  CONSTRAINT a_round_has_a_number CHECK ((number BETWEEN 0 AND 999) IS TRUE),
  CONSTRAINT a_round_begins_at_a_blob CHECK ((ledger.is_a_blob(blob) AND starts_with(blob, 'exchange/' || job_id || '/') AND sha256 ~ '^[0-9a-f]{64}$') IS TRUE),
  CONSTRAINT round_times CHECK ((ledger.is_a_time(opened_at) AND ledger.is_a_time(closes_at) AND ledger.is_a_time(closed_at)
    AND closes_at <= opened_at + interval '7 days') IS TRUE),
  CONSTRAINT a_masked_round_says_whose_masks CHECK (((silos IS NULL OR jsonb_typeof(silos) = 'array' AND ledger.is_plain(silos)
      AND NOT jsonb_path_exists(silos, '$[*] ? (@.type() != "string")'))
    AND (agreed IS NULL OR silos IS NOT NULL AND jsonb_typeof(agreed) = 'object' AND ledger.is_plain(agreed)
      AND NOT jsonb_path_exists(agreed, '$.* ? (@.type() != "string")'))) IS TRUE),
  CONSTRAINT a_closed_round_says_who_came CHECK (((closed_at IS NULL) = (came IS NULL AND agreed IS NULL)
    AND (came IS NULL OR jsonb_typeof(came) = 'array' AND ledger.is_plain(came))) IS TRUE)
);

COMMENT ON COLUMN federated_round.silos IS 'behind masks: whose masks are on this round''s messages';
COMMENT ON COLUMN federated_round.agreed IS 'behind masks: whose messages are in the sum, each with its digest; from then on nothing more comes, and masks are opened';

CREATE FUNCTION round_guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, ledger, pg_temp AS $$
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
REVOKE ALL ON FUNCTION round_guard() FROM PUBLIC;
CREATE TRIGGER round_guard BEFORE INSERT OR UPDATE ON federated_round FOR EACH ROW EXECUTE FUNCTION round_guard();
CREATE TRIGGER never_deleted BEFORE DELETE ON federated_round FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON federated_round FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();

-- A silo's part in a round: begun, under a fence, with steps that are paid for; and its one message.
CREATE TABLE silo_round (
  job_id text NOT NULL CONSTRAINT silo_round_silo REFERENCES silo (job_id),
  number integer NOT NULL,
  fence bigint NOT NULL,
  steps integer NOT NULL,
  begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  sent_fence bigint,
  blob text,
  sha256 text,
  sent_at timestamptz,
  signature text,
  opening jsonb,
  PRIMARY KEY (job_id, number, fence),
  CONSTRAINT a_round_has_steps CHECK ((steps BETWEEN 1 AND 1000) IS TRUE),
  CONSTRAINT silo_round_times CHECK ((ledger.is_a_time(begun_at) AND ledger.is_a_time(sent_at)) IS TRUE),
  CONSTRAINT a_mask_is_opened_by_who_signed CHECK (((signature IS NULL OR blob IS NOT NULL AND signature ~ '^[0-9a-f]{128}$')
    AND (opening IS NULL OR signature IS NOT NULL AND jsonb_typeof(opening) = 'object' AND ledger.is_plain(opening))) IS TRUE),
  CONSTRAINT a_message_is_whole CHECK (((sent_at IS NULL AND blob IS NULL AND sha256 IS NULL AND sent_fence IS NULL)
    OR (sent_at IS NOT NULL AND sent_fence IS NOT NULL AND ledger.is_a_blob(blob) AND starts_with(blob, 'exchange/') AND sha256 ~ '^[0-9a-f]{64}$')) IS TRUE)
);
CREATE UNIQUE INDEX one_message_of_a_silo_and_round ON silo_round (job_id, number) WHERE blob IS NOT NULL;

CREATE FUNCTION silo_round_guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, ledger, pg_temp AS $$
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
REVOKE ALL ON FUNCTION silo_round_guard() FROM PUBLIC;
CREATE TRIGGER silo_round_guard BEFORE INSERT OR UPDATE ON silo_round FOR EACH ROW EXECUTE FUNCTION silo_round_guard();
CREATE TRIGGER never_deleted BEFORE DELETE ON silo_round FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON silo_round FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();

DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['invitation', 'silo', 'federated_round', 'silo_round'] LOOP
    EXECUTE format('CREATE TRIGGER a_read_committed BEFORE INSERT OR UPDATE OR DELETE ON public.%I FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed()', name);
  END LOOP;
END $$;

GRANT SELECT ON invitation, silo, federated_round, silo_round TO tacit_api, tacit_worker;
GRANT INSERT (id, tenant_id, created_by, file_id, guest, asked, note, expires_at), UPDATE (accepted_by, job_id, withdrawn_by) ON invitation TO tacit_api;
GRANT INSERT (job_id, parent_id, name, invitation_id, declared_size) ON silo TO tacit_api;
GRANT INSERT (silo_job) ON job TO tacit_api;
GRANT UPDATE (mask_keys, mask_fence) ON silo TO tacit_worker;
GRANT INSERT (job_id, number, fence, blob, sha256, closes_at, silos), UPDATE (fence, agreed, came) ON federated_round TO tacit_worker;
GRANT INSERT (job_id, number, fence, steps), UPDATE (sent_fence, blob, sha256, signature, opening) ON silo_round TO tacit_worker;

-- A federated job's lease: it reserved nothing, so that its row says whether it is over.
CREATE OR REPLACE FUNCTION ledger.work_guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, ledger, pg_temp AS $$
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

-- A federated job releases what its silos' messages came to, each of which was paid for before it was made.
CREATE OR REPLACE FUNCTION ledger.fenced_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, ledger, pg_temp AS $$
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
