REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.times(bigint[], bigint), ledger.plus(bigint[], bigint[]), ledger.entry_fields(ledger.entry),
  ledger.owed(text, text), ledger.held(text), ledger.genesis(ledger.budget) TO tacit_api, tacit_worker;
GRANT EXECUTE ON FUNCTION ledger.lock_population(text), ledger.cut(bytea) TO tacit_api;
GRANT SELECT ON ledger.curve TO tacit_api, tacit_worker;
GRANT INSERT (detail) ON ledger.entry TO tacit_api, tacit_worker;
GRANT INSERT (curve_id, indivisible) ON ledger.phase TO tacit_api;
GRANT INSERT (expires_at) ON ledger.reservation TO tacit_api;
GRANT SELECT, INSERT ON fingerprint TO tacit_api;
