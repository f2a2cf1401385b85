-- What a steward says of a grant: a part of the budget in place of an epsilon, when it ends, and what its jobs should be.
CREATE FUNCTION ledger.is_name_list(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN value IS NULL THEN true
            WHEN jsonb_typeof(value) = 'array' THEN jsonb_array_length(value) BETWEEN 1 AND 100 AND length(value::text) <= 20000
              AND NOT jsonb_path_exists(value, 'strict $[*] ? (@.type() != "string")') END;

-- Caps of a grant by share: a part of the budget's cap at its main order, where shares add up, and no room anywhere else.
CREATE FUNCTION ledger.share_caps(share numeric, cap bigint[], weight_numerators int[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (SELECT array_agg(CASE WHEN o.i = main.i THEN floor(share * o.c)::bigint ELSE -1 END ORDER BY o.i)
        FROM unnest(cap) WITH ORDINALITY AS o (c, i),
             (SELECT u.i FROM unnest(weight_numerators) WITH ORDINALITY AS u (w, i) ORDER BY u.w DESC, u.i LIMIT 1) AS main);
REVOKE ALL ON FUNCTION ledger.is_name_list(jsonb), ledger.share_caps(numeric, bigint[], int[]) FROM PUBLIC;

ALTER TABLE ledger.budget_grant
  ADD COLUMN share numeric,
  ADD COLUMN expires_at timestamptz,
  ADD COLUMN models jsonb,
  ADD COLUMN methods jsonb,
  ADD COLUMN most_steps bigint,
  DROP CONSTRAINT a_sub_limit_has_caps,
  ADD CONSTRAINT a_sub_limit_has_caps CHECK (((epsilon IS NULL AND share IS NULL) = (cap IS NULL)) IS TRUE),
  ADD CONSTRAINT a_sub_limit_is_an_epsilon_or_a_share CHECK ((epsilon IS NULL OR share IS NULL) IS TRUE),
  ADD CONSTRAINT budget_grant_share_check CHECK ((share IS NULL OR (share > 0 AND share <= 1)) IS TRUE),
  ADD CONSTRAINT budget_grant_expires_at_check CHECK (ledger.is_a_time(expires_at) IS TRUE),
  ADD CONSTRAINT budget_grant_names_check CHECK ((ledger.is_name_list(models) AND ledger.is_name_list(methods)) IS TRUE),
  ADD CONSTRAINT budget_grant_most_steps_check CHECK ((most_steps IS NULL OR most_steps BETWEEN 1 AND 10000000) IS TRUE);

-- What a job is for, in the words of whoever asks; a budget may want it said.
ALTER TABLE ledger.budget ADD COLUMN require_intended_use boolean NOT NULL DEFAULT false;
ALTER TABLE job ADD COLUMN intended_use text
  CONSTRAINT job_intended_use CHECK ((intended_use IS NULL OR length(intended_use) BETWEEN 1 AND 1000) IS TRUE);
GRANT INSERT (intended_use) ON job TO tacit_api;

-- A budget's name is a label: no hash of the chain covers it.
GRANT UPDATE (name) ON ledger.budget TO tacit_api;
