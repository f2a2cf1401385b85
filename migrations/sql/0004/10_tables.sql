-- Who may use a budget, how much of it, and what waits for a steward.
ALTER TABLE api_key ADD COLUMN project text CONSTRAINT a_project_is_a_plain_name CHECK (project ~ '^[A-Za-z0-9._-]{1,80}$');

-- One key's or project's right to a budget. Written by the triggers on ledger.entry alone; balances as in ledger.budget.
CREATE TABLE ledger.budget_grant (
  id text PRIMARY KEY,
  budget_id text NOT NULL REFERENCES ledger.budget,
  key_id text REFERENCES api_key,
  project text,
  epsilon numeric CHECK (epsilon > 0 AND epsilon <= 100),  -- the sub-limit; without one the budget's limit alone holds
  approval_above numeric CHECK (approval_above > 0),
  cap bigint[],
  spent bigint[] NOT NULL,
  reserved numeric[] NOT NULL,
  created_by text NOT NULL REFERENCES api_key,
  created_at timestamptz NOT NULL,
  revoked_at timestamptz,
  UNIQUE (id, budget_id),
  CONSTRAINT a_grant_is_of_a_key_or_a_project CHECK ((key_id IS NULL) <> (project IS NULL)),
  CONSTRAINT a_sub_limit_has_caps CHECK ((epsilon IS NULL) = (cap IS NULL)),
  CONSTRAINT a_grants_spent_is_not_negative CHECK (0 <= ALL (spent)),
  CONSTRAINT a_grants_reserved_is_not_negative CHECK (0 <= ALL (reserved)),
  -- A revoked grant is charged no more: only a higher price of what it once bought can leave it past its caps.
  CONSTRAINT grant_never_overspent CHECK (revoked_at IS NOT NULL OR cap IS NULL OR ledger.fits(cap, spent, reserved))
) WITH (fillfactor = 50);
CREATE INDEX grant_page ON ledger.budget_grant (budget_id, created_at, id);
CREATE UNIQUE INDEX one_grant_of_a_key ON ledger.budget_grant (key_id, budget_id) WHERE revoked_at IS NULL;
CREATE UNIQUE INDEX one_grant_of_a_project ON ledger.budget_grant (project, budget_id) WHERE revoked_at IS NULL;
CREATE TRIGGER never_deleted BEFORE DELETE ON ledger.budget_grant FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.budget_grant EXECUTE FUNCTION ledger.append_only();

ALTER TABLE ledger.budget
  ADD COLUMN approval_above numeric CHECK (approval_above > 0),  -- a job of a larger epsilon waits for a steward
  ADD COLUMN queue_days int NOT NULL DEFAULT 7 CHECK (queue_days BETWEEN 1 AND 30);

ALTER TABLE ledger.reservation
  ADD COLUMN grant_id text,
  ADD COLUMN waits boolean NOT NULL DEFAULT false, -- for a steward; nobody may work on the job until then
  ADD COLUMN starts_by timestamptz,                -- a job that nobody has claimed by then is given up
  ADD FOREIGN KEY (grant_id, budget_id) REFERENCES ledger.budget_grant (id, budget_id);
UPDATE ledger.reservation SET starts_by = expires_at;
ALTER TABLE ledger.reservation ALTER COLUMN starts_by SET NOT NULL;
CREATE INDEX reservation_of_grant ON ledger.reservation (grant_id);
CREATE INDEX reservation_unstarted ON ledger.reservation (starts_by) WHERE state = 'reserved';

ALTER TABLE ledger.entry
  DROP CONSTRAINT entry_kind,
  DROP CONSTRAINT entry_names_its_reservation,
  DROP CONSTRAINT a_decision_says_why,
  ADD CONSTRAINT entry_kind CHECK (kind IN ('open', 'reserve', 'settle', 'freeze', 'thaw', 'limit', 'correction', 'reprice',
    'overlap', 'grant', 'revoke', 'rules', 'approve')),
  ADD CONSTRAINT entry_names_its_reservation CHECK ((kind IN ('reserve', 'settle', 'approve')) = (reservation_id IS NOT NULL)),
  ADD CONSTRAINT a_decision_says_why CHECK (
    kind IN ('open', 'reserve', 'settle', 'grant', 'revoke', 'approve')
    OR (detail IS NOT NULL AND length(detail ->> 'reason') BETWEEN 1 AND 1000));
