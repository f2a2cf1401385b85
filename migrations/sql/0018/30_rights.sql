DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['sketch', 'public_record', 'identity', 'question'] LOOP
    EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON %I EXECUTE FUNCTION ledger.append_only()', t);
    EXECUTE format('CREATE TRIGGER a_read_committed BEFORE INSERT OR UPDATE OR DELETE ON %I FOR EACH STATEMENT
      EXECUTE FUNCTION ledger.read_committed()', t);
    EXECUTE format('CREATE TRIGGER %I BEFORE %s ON %I FOR EACH ROW EXECUTE FUNCTION ledger.append_only()',
      CASE t WHEN 'question' THEN 'never_deleted' ELSE 'append_only' END, CASE t WHEN 'question' THEN 'DELETE' ELSE 'UPDATE OR DELETE' END, t);
  END LOOP;
END $$;
REVOKE ALL ON FUNCTION public.first_key(), public.question_guard() FROM PUBLIC;
GRANT SELECT ON sketch, public_record, identity, question TO tacit_api;
GRANT INSERT (tenant_id, file_id, budget_id, packed) ON sketch TO tacit_api;
GRANT INSERT ON public_record TO tacit_api;
GRANT INSERT (file_id, key_mark, made, elsewhere, users) ON identity TO tacit_api;
GRANT INSERT (file_id, tenant_id, upload, found) ON question TO tacit_api;
GRANT UPDATE (answer, answered_by, reason) ON question TO tacit_api;
GRANT SELECT ON identity TO tacit_worker;
