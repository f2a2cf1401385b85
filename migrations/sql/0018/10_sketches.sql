-- By which edited, cut or joined texts are found (domain/ingest/sketch.py): of each file some pieces, each of many sketches
-- one after the other. Of public files they count as long as these are there.
CREATE TABLE sketch (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenant,
  file_id text NOT NULL REFERENCES file,
  budget_id text REFERENCES ledger.budget,
  packed bytea NOT NULL CONSTRAINT sketches_are_whole
    CHECK ((octet_length(packed) >= 32 AND octet_length(packed) <= 2097152 AND octet_length(packed) % 32 = 0) IS TRUE)
);
ALTER TABLE sketch ALTER COLUMN packed SET STORAGE EXTERNAL;  -- as good as random: nothing to compress
CREATE INDEX sketch_tenant ON sketch (tenant_id, id);

-- The records of public files, so that private ones which come later are known to be public.
CREATE TABLE public_record (
  tenant_id text NOT NULL REFERENCES tenant,
  mac bytea NOT NULL CONSTRAINT public_record_mac CHECK ((octet_length(mac) = 32) IS TRUE),
  file_id text NOT NULL REFERENCES file,
  PRIMARY KEY (tenant_id, mac, file_id)
);

-- Since when, and by what, the records of a file are recognised. Files from before this table have no line until their rows
-- were read again: by their old fingerprints they are known as whole records in the same columns alone.
CREATE TABLE identity (
  file_id text NOT NULL REFERENCES file,
  key_mark bytea NOT NULL CONSTRAINT identity_key CHECK ((octet_length(key_mark) = 32) IS TRUE),
  made text NOT NULL CONSTRAINT identity_made CHECK ((made IN ('upload', 'again')) IS TRUE),
  elsewhere int NOT NULL DEFAULT 0 CONSTRAINT identity_elsewhere CHECK ((elsewhere >= 0) IS TRUE),
  users boolean NOT NULL DEFAULT true,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (file_id, key_mark)
);
COMMENT ON COLUMN identity.elsewhere IS 'texts that another budget held already when the rows were read again';
COMMENT ON COLUMN identity.users IS 'whether its users are known by what their ids mean; their ids are not kept';

-- The key of the fingerprints: of several the newest, and none but the operator adds one to the first.
ALTER TABLE fingerprint_key DROP CONSTRAINT fingerprint_key_pkey, DROP COLUMN one,
  ADD COLUMN number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ADD COLUMN reason text,
  ADD CONSTRAINT a_new_key_says_why CHECK ((reason IS NULL OR length(reason) BETWEEN 1 AND 1000) IS TRUE),
  ADD CONSTRAINT one_line_of_a_key UNIQUE (mark);
CREATE FUNCTION public.first_key() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger, pg_temp AS $$
BEGIN
  LOCK TABLE public.fingerprint_key IN EXCLUSIVE MODE;
  IF NOT ledger.is_admin() AND EXISTS (SELECT FROM public.fingerprint_key) THEN
    RETURN NULL;
  ELSIF NEW.reason IS NULL AND EXISTS (SELECT FROM public.fingerprint_key) THEN
    RAISE EXCEPTION 'a new key comes with a reason' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER first_key BEFORE INSERT ON fingerprint_key FOR EACH ROW EXECUTE FUNCTION public.first_key();
