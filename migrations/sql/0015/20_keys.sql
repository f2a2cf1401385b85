-- What ties the secrets of an API key to its tenant, scopes and project: an HMAC under the pepper (domain/access/keys.py), which
-- no database login has. Otherwise whoever has the API's password and any key puts that key's mac into a steward's row.
-- Keys from before pass without a seal until they are rotated; no login can make another such.
ALTER TABLE public.api_key
  ADD COLUMN secret_number int NOT NULL DEFAULT 0,  -- how often the key was rotated: no seal is good twice
  ADD COLUMN seal bytea,
  ADD COLUMN legacy boolean NOT NULL DEFAULT true;
ALTER TABLE public.api_key
  ALTER COLUMN legacy SET DEFAULT false,
  ADD CONSTRAINT a_seal_has_32_bytes CHECK ((seal IS NULL OR octet_length(seal) = 32) IS TRUE);

CREATE FUNCTION public.api_key_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (NEW.id, NEW.tenant_id, NEW.scopes, NEW.project, NEW.created_at)
     IS DISTINCT FROM (OLD.id, OLD.tenant_id, OLD.scopes, OLD.project, OLD.created_at) THEN
    RAISE EXCEPTION 'a key keeps its tenant, scopes and project' USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
    RAISE EXCEPTION 'a revoked key stays revoked' USING ERRCODE = 'restrict_violation';
  END IF;
  NEW.secret_number := OLD.secret_number;
  NEW.legacy := OLD.legacy;
  IF (NEW.mac, NEW.prefix, NEW.previous_mac, NEW.previous_until, NEW.seal)
     IS DISTINCT FROM (OLD.mac, OLD.prefix, OLD.previous_mac, OLD.previous_until, OLD.seal) THEN
    NEW.secret_number := OLD.secret_number + 1;
    NEW.legacy := false;
  END IF;
  RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION public.api_key_guard() FROM PUBLIC;
CREATE TRIGGER api_key_guard BEFORE UPDATE ON public.api_key FOR EACH ROW EXECUTE FUNCTION public.api_key_guard();

REVOKE INSERT ON public.api_key FROM tacit_api;
GRANT INSERT (id, tenant_id, name, prefix, mac, scopes, project, expires_at, seal) ON public.api_key TO tacit_api;
GRANT UPDATE (seal) ON public.api_key TO tacit_api;
