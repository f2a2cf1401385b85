-- Which key the fingerprints were made with: a mark of it, never the key. Under another key every record would look new,
-- and the same rows could be put under a second budget.
CREATE TABLE fingerprint_key (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  mark bytea NOT NULL CHECK (octet_length(mark) = 32)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON fingerprint_key FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON fingerprint_key EXECUTE FUNCTION ledger.append_only();
GRANT SELECT, INSERT (mark) ON fingerprint_key TO tacit_api;
