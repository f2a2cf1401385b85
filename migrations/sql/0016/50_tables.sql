-- A list of orders for each budget, fixed when it opens; budgets of the first revisions keep theirs.
ALTER TABLE ledger.budget
  DROP CONSTRAINT weights_sum_to_one, DROP CONSTRAINT never_overspent, DROP CONSTRAINT spent_is_not_negative, DROP CONSTRAINT reserved_is_not_negative;
ALTER TABLE ledger.budget
  ADD COLUMN orders ledger.order_list NOT NULL DEFAULT '{2,3,4,5,6,7,8,10,12,16,32,64}',
  ALTER COLUMN weight_numerators TYPE ledger.weights,
  ALTER COLUMN cap TYPE ledger.units,
  ALTER COLUMN spent TYPE ledger.units,
  ALTER COLUMN reserved TYPE ledger.sums;
ALTER TABLE ledger.budget_grant
  DROP CONSTRAINT grant_never_overspent, DROP CONSTRAINT a_grants_spent_is_not_negative, DROP CONSTRAINT a_grants_reserved_is_not_negative,
  DROP CONSTRAINT a_sub_limit_has_caps;
ALTER TABLE ledger.budget_grant
  ALTER COLUMN cap TYPE ledger.units, ALTER COLUMN spent TYPE ledger.units, ALTER COLUMN reserved TYPE ledger.sums;
ALTER TABLE ledger.phase ALTER COLUMN step_cost TYPE ledger.units, ALTER COLUMN reserved TYPE ledger.units;
ALTER TABLE ledger.entry ALTER COLUMN spent_change TYPE ledger.units, ALTER COLUMN reserved_change TYPE ledger.sums;
ALTER TABLE ledger.population DROP CONSTRAINT a_population_has_eight_sums;
ALTER TABLE ledger.population
  ALTER COLUMN sums TYPE ledger.sums,
  ADD CONSTRAINT a_population_has_eight_sums CHECK ((cardinality(sums) = 8) IS TRUE);
ALTER TABLE ledger.curve DROP CONSTRAINT curve_step_cost_check;
ALTER TABLE ledger.curve
  ADD COLUMN orders ledger.order_list NOT NULL DEFAULT '{2,3,4,5,6,7,8,10,12,16,32,64}',
  ALTER COLUMN step_cost TYPE ledger.units;
ALTER TABLE api_key DROP CONSTRAINT api_key_scopes_check;
ALTER TABLE api_key ALTER COLUMN scopes TYPE words;
ALTER TABLE file ALTER COLUMN labels TYPE words;

-- Every CHECK IS TRUE: unknown is no yes.
ALTER TABLE ledger.budget
  ADD CONSTRAINT weights_sum_to_one CHECK ((cardinality(weight_numerators) = cardinality(orders)
    AND ledger.sum_of(weight_numerators) = weight_denominator) IS TRUE),
  ADD CONSTRAINT one_amount_for_each_order CHECK ((cardinality(cap) = cardinality(orders) AND cardinality(spent) = cardinality(orders)
    AND cardinality(reserved) = cardinality(orders)) IS TRUE),
  ADD CONSTRAINT spent_is_not_negative CHECK ((0 <= ALL (spent)) IS TRUE),
  ADD CONSTRAINT reserved_is_not_negative CHECK ((0 <= ALL (reserved)) IS TRUE),
  ADD CONSTRAINT never_overspent CHECK ((frozen_reason IS NOT NULL OR ledger.fits(cap, spent, reserved)) IS TRUE),
  DROP CONSTRAINT a_user_budget_bounds_the_records_of_a_user,
  ADD CONSTRAINT a_user_budget_bounds_the_records_of_a_user CHECK (((unit = 'user') = (max_records_per_user IS NOT NULL)) IS TRUE),
  DROP CONSTRAINT budget_approval_above_check,
  ADD CONSTRAINT budget_approval_above_check CHECK ((approval_above IS NULL OR (approval_above > 0 AND approval_above < 'Infinity')) IS TRUE),
  DROP CONSTRAINT budget_delta_check,
  ADD CONSTRAINT budget_delta_check CHECK ((delta >= 1e-30 AND delta < 1) IS TRUE),
  DROP CONSTRAINT budget_epsilon_check,
  ADD CONSTRAINT budget_epsilon_check CHECK ((epsilon >= 1e-6 AND epsilon <= 100) IS TRUE),
  DROP CONSTRAINT budget_max_records_per_user_check,
  ADD CONSTRAINT budget_max_records_per_user_check CHECK ((max_records_per_user IS NULL OR max_records_per_user > 0) IS TRUE),
  DROP CONSTRAINT budget_queue_days_check,
  ADD CONSTRAINT budget_queue_days_check CHECK ((queue_days BETWEEN 1 AND 30) IS TRUE),
  DROP CONSTRAINT budget_relation_check,
  ADD CONSTRAINT budget_relation_check CHECK ((relation = 'add_or_remove_one') IS TRUE),
  DROP CONSTRAINT budget_unit_check,
  ADD CONSTRAINT budget_unit_check CHECK ((unit IN ('record', 'user')) IS TRUE),
  DROP CONSTRAINT budget_weight_denominator_check,
  ADD CONSTRAINT budget_weight_denominator_check CHECK ((weight_denominator > 0) IS TRUE),
  DROP CONSTRAINT the_claim_is_the_highest_limit,
  ADD CONSTRAINT the_claim_is_the_highest_limit CHECK ((epsilon_claim >= epsilon AND epsilon_claim >= epsilon_opened AND epsilon_claim <= 100) IS TRUE),
  ADD CONSTRAINT budget_reference_check CHECK (ledger.is_reference(reference) IS TRUE);
ALTER TABLE ledger.budget_grant
  ADD CONSTRAINT grant_never_overspent CHECK ((revoked_at IS NOT NULL OR cap IS NULL OR ledger.fits(cap, spent, reserved)) IS TRUE),
  ADD CONSTRAINT a_grants_spent_is_not_negative CHECK ((0 <= ALL (spent)) IS TRUE),
  ADD CONSTRAINT a_grants_reserved_is_not_negative CHECK ((0 <= ALL (reserved)) IS TRUE),
  ADD CONSTRAINT a_sub_limit_has_caps CHECK (((epsilon IS NULL) = (cap IS NULL)) IS TRUE),
  DROP CONSTRAINT a_grant_is_of_a_key_or_a_project,
  ADD CONSTRAINT a_grant_is_of_a_key_or_a_project CHECK (((key_id IS NULL) <> (project IS NULL)) IS TRUE),
  DROP CONSTRAINT budget_grant_approval_above_check,
  ADD CONSTRAINT budget_grant_approval_above_check CHECK ((approval_above IS NULL OR (approval_above > 0 AND approval_above < 'Infinity')) IS TRUE),
  DROP CONSTRAINT budget_grant_epsilon_check,
  ADD CONSTRAINT budget_grant_epsilon_check CHECK ((epsilon IS NULL OR (epsilon > 0 AND epsilon <= 100)) IS TRUE);
ALTER TABLE ledger.reservation
  DROP CONSTRAINT a_reservation_has_an_age_limit,
  ADD CONSTRAINT a_reservation_has_an_age_limit CHECK ((ledger.is_a_time(expires_at) AND ledger.is_a_time(starts_by)
    AND expires_at <= created_at + interval '90 days') IS TRUE),
  DROP CONSTRAINT reservation_state_check,
  ADD CONSTRAINT reservation_state_check CHECK ((state IN ('reserved', 'settled')) IS TRUE);
ALTER TABLE ledger.phase
  DROP CONSTRAINT never_more_steps_than_reserved,
  ADD CONSTRAINT never_more_steps_than_reserved CHECK ((steps_authorised BETWEEN 0 AND steps_max) IS TRUE),
  DROP CONSTRAINT one_mechanism,
  ADD CONSTRAINT one_mechanism CHECK ((CASE WHEN curve_id IS NULL THEN sample_rate IS NOT NULL AND noise_multiplier IS NOT NULL
                                            ELSE sample_rate IS NULL AND noise_multiplier IS NULL END) IS TRUE),
  DROP CONSTRAINT phase_noise_multiplier_check,
  ADD CONSTRAINT phase_noise_multiplier_check CHECK ((noise_multiplier IS NULL OR noise_multiplier BETWEEN 0.2 AND 1000) IS TRUE),
  DROP CONSTRAINT phase_ordinal_check,
  ADD CONSTRAINT phase_ordinal_check CHECK ((ordinal >= 0) IS TRUE),
  DROP CONSTRAINT phase_sample_rate_check,
  ADD CONSTRAINT phase_sample_rate_check CHECK ((sample_rate IS NULL OR (sample_rate > 0 AND sample_rate <= 1)) IS TRUE),
  DROP CONSTRAINT phase_steps_max_check,
  ADD CONSTRAINT phase_steps_max_check CHECK ((steps_max BETWEEN 1 AND 10000000) IS TRUE),
  ADD CONSTRAINT a_price_costs_something CHECK ((0 < ALL (step_cost) AND 0 < ALL (reserved)
    AND cardinality(step_cost) = cardinality(reserved)) IS TRUE);
ALTER TABLE ledger.work
  DROP CONSTRAINT work_seconds_check,
  ADD CONSTRAINT work_seconds_check CHECK ((seconds >= 0 AND seconds < 'Infinity') IS TRUE),
  ADD CONSTRAINT work_times CHECK ((ledger.is_a_time(lease_until) AND ledger.is_a_time(paused_at)) IS TRUE);
ALTER TABLE ledger.authorisation
  DROP CONSTRAINT authorisation_steps_check,
  ADD CONSTRAINT authorisation_steps_check CHECK ((steps > 0) IS TRUE);
ALTER TABLE ledger.entry
  DROP CONSTRAINT a_decision_says_why,
  ADD CONSTRAINT a_decision_says_why CHECK ((
    kind IN ('open', 'reserve', 'settle', 'grant', 'revoke', 'approve', 'records')
    OR (detail IS NOT NULL AND length(detail ->> 'reason') BETWEEN 1 AND 1000)) IS TRUE),
  DROP CONSTRAINT a_settlement_has_an_outcome,
  ADD CONSTRAINT a_settlement_has_an_outcome CHECK (((kind = 'settle') = (outcome IS NOT NULL)) IS TRUE),
  DROP CONSTRAINT entry_kind,
  ADD CONSTRAINT entry_kind CHECK ((kind IN ('open', 'reserve', 'settle', 'freeze', 'thaw', 'limit', 'correction', 'reprice',
    'overlap', 'grant', 'revoke', 'rules', 'approve', 'records')) IS TRUE),
  DROP CONSTRAINT entry_names_its_reservation,
  ADD CONSTRAINT entry_names_its_reservation CHECK (((kind IN ('reserve', 'settle', 'approve')) = (reservation_id IS NOT NULL)) IS TRUE),
  DROP CONSTRAINT entry_outcome_check,
  ADD CONSTRAINT entry_outcome_check CHECK ((outcome IS NULL OR outcome IN ('succeeded', 'cancelled', 'failed')) IS TRUE);
ALTER TABLE ledger.curve ADD CONSTRAINT curve_step_cost_check CHECK ((cardinality(step_cost) = cardinality(orders)
  AND 0 < ALL (step_cost) AND 9007199254740992 >= ALL (step_cost)) IS TRUE);
ALTER TABLE api_key
  ADD CONSTRAINT api_key_scopes_check CHECK ((scopes <@ ARRAY['steward', 'analyst', 'auditor', 'admin'] AND cardinality(scopes) > 0) IS TRUE),
  DROP CONSTRAINT a_project_is_a_plain_name,
  ADD CONSTRAINT a_project_is_a_plain_name CHECK ((project IS NULL OR project ~ '^[A-Za-z0-9._-]{1,80}$') IS TRUE),
  DROP CONSTRAINT api_key_previous,
  ADD CONSTRAINT api_key_previous CHECK (((previous_mac IS NULL) = (previous_until IS NULL)) IS TRUE),
  ADD CONSTRAINT api_key_times CHECK ((ledger.is_a_time(expires_at) AND ledger.is_a_time(revoked_at) AND ledger.is_a_time(previous_until)) IS TRUE);
ALTER TABLE file
  DROP CONSTRAINT a_private_file_has_a_budget,
  ADD CONSTRAINT a_private_file_has_a_budget CHECK (((purpose = 'fine-tune') = (budget_id IS NOT NULL)) IS TRUE),
  DROP CONSTRAINT a_usable_file_is_complete,
  ADD CONSTRAINT a_usable_file_is_complete CHECK ((
    status <> 'processed' OR (blob IS NOT NULL AND sha256 IS NOT NULL
      AND (purpose <> 'fine-tune' OR (declared_size IS NOT NULL AND max_length IS NOT NULL)))) IS TRUE),
  DROP CONSTRAINT file_bytes_check,
  ADD CONSTRAINT file_bytes_check CHECK ((bytes >= 0) IS TRUE),
  DROP CONSTRAINT file_declared_size_check,
  ADD CONSTRAINT file_declared_size_check CHECK ((declared_size IS NULL OR declared_size > 0) IS TRUE),
  DROP CONSTRAINT file_max_length_check,
  ADD CONSTRAINT file_max_length_check CHECK ((max_length IS NULL OR max_length > 0) IS TRUE),
  DROP CONSTRAINT file_purpose_check,
  ADD CONSTRAINT file_purpose_check CHECK ((purpose IN ('fine-tune', 'evals', 'fine-tune-results')) IS TRUE),
  DROP CONSTRAINT file_status_check,
  ADD CONSTRAINT file_status_check CHECK ((status IN ('uploaded', 'processed', 'error')) IS TRUE),
  DROP CONSTRAINT file_task,
  ADD CONSTRAINT file_task CHECK ((task IN ('classification', 'pair', 'completion', 'chat', 'text')) IS TRUE),
  DROP CONSTRAINT only_classes_have_labels,
  ADD CONSTRAINT only_classes_have_labels CHECK ((labels IS NULL OR task IN ('classification', 'pair')) IS TRUE),
  ADD CONSTRAINT file_times CHECK (ledger.is_a_time(deleted_at) IS TRUE);
ALTER TABLE job
  DROP CONSTRAINT job_status_check,
  ADD CONSTRAINT job_status_check CHECK ((status IN ('validating_files', 'queued', 'running', 'succeeded', 'failed', 'cancelled')) IS TRUE),
  ADD CONSTRAINT job_times CHECK ((ledger.is_a_time(started_at) AND ledger.is_a_time(finished_at) AND ledger.is_a_time(hinted_at)) IS TRUE);
ALTER TABLE job_event
  DROP CONSTRAINT job_event_level_check,
  ADD CONSTRAINT job_event_level_check CHECK ((level IN ('info', 'warn', 'error')) IS TRUE);
ALTER TABLE release
  DROP CONSTRAINT release_kind_check,
  ADD CONSTRAINT release_kind_check CHECK ((kind IN ('adapter', 'report')) IS TRUE);
ALTER TABLE checkpoint
  DROP CONSTRAINT checkpoint_step_check,
  ADD CONSTRAINT checkpoint_step_check CHECK ((step >= 0) IS TRUE);
ALTER TABLE fingerprint
  DROP CONSTRAINT fingerprint_kind_check,
  ADD CONSTRAINT fingerprint_kind_check CHECK ((kind IN ('record', 'user')) IS TRUE),
  DROP CONSTRAINT fingerprint_mac_check,
  ADD CONSTRAINT fingerprint_mac_check CHECK ((length(mac) = 32) IS TRUE);
ALTER TABLE model_profile
  DROP CONSTRAINT model_profile_max_length_check,
  ADD CONSTRAINT model_profile_max_length_check CHECK ((max_length > 0) IS TRUE),
  DROP CONSTRAINT model_profile_peak_bytes_check,
  ADD CONSTRAINT model_profile_peak_bytes_check CHECK ((peak_bytes > 0) IS TRUE),
  DROP CONSTRAINT model_profile_tokens_per_second_check,
  ADD CONSTRAINT model_profile_tokens_per_second_check CHECK ((tokens_per_second > 0 AND tokens_per_second < 'Infinity') IS TRUE);
ALTER TABLE fingerprint_key
  DROP CONSTRAINT fingerprint_key_mark_check,
  ADD CONSTRAINT fingerprint_key_mark_check CHECK ((octet_length(mark) = 32) IS TRUE),
  DROP CONSTRAINT fingerprint_key_one_check,
  ADD CONSTRAINT fingerprint_key_one_check CHECK (one IS TRUE);
ALTER TABLE keeper_watch ADD CONSTRAINT keeper_watch_times CHECK (ledger.is_a_time(finished_at) IS TRUE);
