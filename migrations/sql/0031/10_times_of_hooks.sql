-- Postgres knows years that Python does not: a stolen login could write one, and the list of webhooks could not be read.
UPDATE webhook SET looked_at = now() WHERE NOT ledger.is_a_time(looked_at);
UPDATE webhook SET last_success_at = NULL WHERE NOT ledger.is_a_time(last_success_at);
UPDATE webhook SET last_failure_at = NULL WHERE NOT ledger.is_a_time(last_failure_at);
UPDATE webhook_delivery SET leased_until = now() WHERE NOT ledger.is_a_time(leased_until);
UPDATE webhook_delivery SET due_at = now() WHERE NOT ledger.is_a_time(due_at);
UPDATE webhook_delivery SET delivered_at = now() WHERE NOT ledger.is_a_time(delivered_at);
UPDATE webhook_delivery SET given_up_at = now() WHERE NOT ledger.is_a_time(given_up_at);
UPDATE webhook_delivery SET at = date_trunc('minute', now()) WHERE NOT ledger.is_a_time(at);
ALTER TABLE webhook ADD CONSTRAINT webhook_are_times
  CHECK ((ledger.is_a_time(looked_at) AND ledger.is_a_time(last_success_at) AND ledger.is_a_time(last_failure_at)) IS TRUE);
ALTER TABLE webhook_delivery ADD CONSTRAINT webhook_delivery_are_times
  CHECK ((ledger.is_a_time(at) AND ledger.is_a_time(due_at) AND ledger.is_a_time(leased_until)
          AND ledger.is_a_time(delivered_at) AND ledger.is_a_time(given_up_at)) IS TRUE);
