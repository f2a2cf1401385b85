REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.grant_of(text, text, text) TO tacit_api;
GRANT SELECT ON ledger.budget_grant TO tacit_api, tacit_worker;
GRANT INSERT (starts_by) ON ledger.reservation TO tacit_api;
