-- Curves of mechanisms that are not a Poisson-subsampled Gaussian. Only migrations and the admin login add any.
CREATE TABLE ledger.curve (
  id text PRIMARY KEY,
  description text NOT NULL,
  proof text NOT NULL,                             -- where the Renyi curve is proven
  step_cost bigint[] NOT NULL CHECK (cardinality(step_cost) = 12 AND 0 < ALL (step_cost) AND 9007199254740992 >= ALL (step_cost)),
  indivisible boolean NOT NULL                     -- not curve x steps: charged whole at the first authorisation
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.curve FOR EACH ROW EXECUTE FUNCTION ledger.append_only();

ALTER TABLE ledger.phase
  ALTER COLUMN sample_rate DROP NOT NULL,
  ALTER COLUMN noise_multiplier DROP NOT NULL,
  ADD COLUMN curve_id text REFERENCES ledger.curve,
  ADD COLUMN indivisible boolean NOT NULL DEFAULT false,
  ADD CONSTRAINT one_mechanism CHECK (
    CASE WHEN curve_id IS NULL THEN sample_rate IS NOT NULL AND noise_multiplier IS NOT NULL
         ELSE sample_rate IS NULL AND noise_multiplier IS NULL END);

ALTER TABLE ledger.reservation
  ADD COLUMN expires_at timestamptz NOT NULL DEFAULT now() + interval '30 days',
  ADD CONSTRAINT a_reservation_has_an_age_limit CHECK (expires_at <= created_at + interval '90 days');
CREATE INDEX reservation_open ON ledger.reservation (expires_at) WHERE state = 'reserved';

ALTER TABLE ledger.budget
  ADD COLUMN epsilon_opened numeric,               -- the first limit
  ADD COLUMN epsilon_claim numeric;                -- the highest limit ever set: what the guarantee speaks of
UPDATE ledger.budget SET epsilon_opened = epsilon, epsilon_claim = epsilon;
ALTER TABLE ledger.budget
  ALTER COLUMN epsilon_opened SET NOT NULL,
  ALTER COLUMN epsilon_claim SET NOT NULL,
  ADD CONSTRAINT the_claim_is_the_highest_limit CHECK (epsilon_claim >= epsilon);

ALTER TABLE ledger.entry
  ADD COLUMN detail jsonb,
  DROP CONSTRAINT entry_kind_check,
  DROP CONSTRAINT entry_check,
  DROP CONSTRAINT entry_check1,
  ADD CONSTRAINT entry_kind CHECK (kind IN ('open', 'reserve', 'settle', 'freeze', 'thaw', 'limit', 'correction', 'reprice', 'overlap')),
  ADD CONSTRAINT entry_names_its_reservation CHECK ((kind IN ('reserve', 'settle')) = (reservation_id IS NOT NULL)),
  ADD CONSTRAINT a_settlement_has_an_outcome CHECK ((kind = 'settle') = (outcome IS NOT NULL)),
  ADD CONSTRAINT a_decision_says_why CHECK (
    kind IN ('open', 'reserve', 'settle') OR (detail IS NOT NULL AND length(detail ->> 'reason') BETWEEN 1 AND 1000));
