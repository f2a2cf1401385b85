"""The service's tables as SQLAlchemy sees them. The SQL in migrations/ is the schema; this only names its columns."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = sa.MetaData()

tenant = sa.Table(
    "tenant",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
)

api_key = sa.Table(
    "api_key",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("prefix", sa.Text),
    sa.Column("mac", sa.LargeBinary),
    sa.Column("previous_mac", sa.LargeBinary),
    sa.Column("previous_until", sa.DateTime(timezone=True)),
    sa.Column("scopes", ARRAY(sa.Text)),
    sa.Column("project", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("revoked_at", sa.DateTime(timezone=True)),
    sa.Column("secret_number", sa.Integer),
    sa.Column("seal", sa.LargeBinary),
    sa.Column("legacy", sa.Boolean),
)

file = sa.Table(
    "file",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.Text),
    sa.Column("purpose", sa.Text),
    sa.Column("task", sa.Text),
    sa.Column("filename", sa.Text),
    sa.Column("bytes", sa.BigInteger),
    sa.Column("sha256", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("problems", JSONB),
    sa.Column("budget_id", sa.Text),
    sa.Column("declared_size", sa.BigInteger),
    sa.Column("labels", ARRAY(sa.Text)),
    sa.Column("max_length", sa.Integer),
    sa.Column("columns", JSONB),
    sa.Column("blob", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("deleted_at", sa.DateTime(timezone=True)),
    sa.Column("binding", sa.LargeBinary),
    sa.Column("legacy", sa.Boolean),
)

upload_report = sa.Table(
    "upload_report",
    metadata,
    sa.Column("file_id", sa.Text, primary_key=True),
    sa.Column("report", JSONB),
    sa.Column("created_at", sa.DateTime(timezone=True)),
)

job = sa.Table(
    "job",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.Text),
    sa.Column("created_by", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("model_revision", sa.Text),
    sa.Column("teacher_job", sa.Text),
    sa.Column("silo_job", sa.Text),
    sa.Column("validation_file", sa.Text),
    sa.Column("method", JSONB),
    sa.Column("plan", JSONB),
    sa.Column("privacy", JSONB),
    sa.Column("seed", sa.BigInteger),
    sa.Column("suffix", sa.Text),
    sa.Column("metadata", JSONB),
    sa.Column("intended_use", sa.Text),
    sa.Column("synthetic", JSONB(none_as_null=True)),
    sa.Column("audit", sa.Boolean),
    sa.Column("status", sa.Text),
    sa.Column("status_detail", sa.Text),
    sa.Column("error", JSONB),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("started_at", sa.DateTime(timezone=True)),
    sa.Column("finished_at", sa.DateTime(timezone=True)),
    sa.Column("hinted_at", sa.DateTime(timezone=True)),
)

job_file = sa.Table(
    "job_file",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("file_id", sa.Text, primary_key=True),
    sa.Column("budget_id", sa.Text),
)

job_event = sa.Table(
    "job_event",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("level", sa.Text),
    sa.Column("type", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("message", sa.Text),
    sa.Column("data", JSONB),
    sa.Column("created_at", sa.DateTime(timezone=True)),
)

release = sa.Table(
    "release",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("job_id", sa.Text),
    sa.Column("file_id", sa.Text),
    sa.Column("kind", sa.Text),
    sa.Column("fence", sa.BigInteger),
    sa.Column("created_at", sa.DateTime(timezone=True)),
)

job_audit = sa.Table(
    "job_audit",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("fence", sa.BigInteger),
    sa.Column("finding", JSONB),
)

checkpoint = sa.Table(
    "checkpoint",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("fence", sa.BigInteger, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True),
    sa.Column("blob", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("request_digest", sa.LargeBinary),
    sa.Column("response", JSONB),
    sa.Column("created_at", sa.DateTime(timezone=True)),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.Text),
    sa.Column("key_id", sa.Text),
    sa.Column("action", sa.Text),
    sa.Column("target", sa.Text),
    sa.Column("status", sa.Integer),
    sa.Column("request_id", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
)

data_key = sa.Table(
    "data_key",
    metadata,
    sa.Column("blob", sa.Text, primary_key=True),
    sa.Column("wrapped", sa.LargeBinary),
    sa.Column("master", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
)

model_profile = sa.Table(
    "model_profile",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("model", sa.Text),
    sa.Column("revision", sa.Text),
    sa.Column("method", sa.Text),
    sa.Column("task", sa.Text),
    sa.Column("device", sa.Text),
    sa.Column("max_length", sa.Integer),
    sa.Column("tokens_per_second", sa.Double),
    sa.Column("peak_bytes", sa.BigInteger),
    sa.Column("device_bytes", sa.BigInteger),
    sa.Column("options", JSONB),
    sa.Column("measured_at", sa.DateTime(timezone=True)),
)

model_trial = sa.Table(
    "model_trial",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("model", sa.Text),
    sa.Column("revision", sa.Text),
    sa.Column("method", sa.Text),
    sa.Column("task", sa.Text),
    sa.Column("refusal", sa.Text),
    sa.Column("versions", sa.Text),
    sa.Column("tried_at", sa.DateTime(timezone=True)),
)

keeper_watch = sa.Table(
    "keeper_watch",
    metadata,
    sa.Column("duty", sa.Text, primary_key=True),
    sa.Column("finished_at", sa.DateTime(timezone=True)),
    sa.Column("detail", JSONB),
)

fingerprint_key = sa.Table(
    "fingerprint_key",
    metadata,
    sa.Column("number", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("mark", sa.LargeBinary),
    sa.Column("reason", sa.Text),
)

identity = sa.Table(
    "identity",
    metadata,
    sa.Column("file_id", sa.Text, primary_key=True),
    sa.Column("key_mark", sa.LargeBinary, primary_key=True),
    sa.Column("made", sa.Text),
    sa.Column("elsewhere", sa.Integer),
    sa.Column("users", sa.Boolean),
    sa.Column("created_at", sa.DateTime(timezone=True)),
)

sketch = sa.Table(
    "sketch",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("tenant_id", sa.Text),
    sa.Column("file_id", sa.Text),
    sa.Column("budget_id", sa.Text),
    sa.Column("packed", sa.LargeBinary),
)

question = sa.Table(
    "question",
    metadata,
    sa.Column("file_id", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.Text),
    sa.Column("upload", JSONB),
    sa.Column("found", JSONB),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("answered_at", sa.DateTime(timezone=True)),
    sa.Column("answered_by", sa.Text),
    sa.Column("answer", sa.Text),
    sa.Column("reason", sa.Text),
)

invitation = sa.Table(
    "invitation",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.Text),
    sa.Column("created_by", sa.Text),
    sa.Column("file_id", sa.Text),
    sa.Column("guest", sa.Text),
    sa.Column("asked", JSONB),
    sa.Column("note", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("accepted_at", sa.DateTime(timezone=True)),
    sa.Column("accepted_by", sa.Text),
    sa.Column("job_id", sa.Text),
    sa.Column("withdrawn_at", sa.DateTime(timezone=True)),
    sa.Column("withdrawn_by", sa.Text),
)

silo = sa.Table(
    "silo",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("parent_id", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("invitation_id", sa.Text),
    sa.Column("declared_size", sa.BigInteger),
    sa.Column("mask_keys", sa.Text),
    sa.Column("mask_fence", sa.BigInteger),
)

federated_round = sa.Table(
    "federated_round",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("fence", sa.BigInteger),
    sa.Column("blob", sa.Text),
    sa.Column("sha256", sa.Text),
    sa.Column("opened_at", sa.DateTime(timezone=True)),
    sa.Column("closes_at", sa.DateTime(timezone=True)),
    sa.Column("silos", JSONB(none_as_null=True)),
    sa.Column("agreed", JSONB(none_as_null=True)),
    sa.Column("closed_at", sa.DateTime(timezone=True)),
    sa.Column("came", JSONB),
)

silo_round = sa.Table(
    "silo_round",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("fence", sa.BigInteger, primary_key=True),
    sa.Column("steps", sa.Integer),
    sa.Column("begun_at", sa.DateTime(timezone=True)),
    sa.Column("sent_fence", sa.BigInteger),
    sa.Column("blob", sa.Text),
    sa.Column("sha256", sa.Text),
    sa.Column("sent_at", sa.DateTime(timezone=True)),
    sa.Column("signature", sa.Text),
    sa.Column("opening", JSONB(none_as_null=True)),
)

webhook = sa.Table(
    "webhook",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.Text),
    sa.Column("created_by", sa.Text),
    sa.Column("url", sa.Text),
    sa.Column("description", sa.Text),
    sa.Column("job_ended", sa.Boolean),
    sa.Column("approval_wanted", sa.Boolean),
    sa.Column("budget_low", sa.Boolean),
    sa.Column("budget_frozen", sa.Boolean),
    sa.Column("low_below", sa.Double),
    sa.Column("salt", sa.LargeBinary),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("looked_at", sa.DateTime(timezone=True)),
    sa.Column("last_success_at", sa.DateTime(timezone=True)),
    sa.Column("last_failure_at", sa.DateTime(timezone=True)),
    sa.Column("last_failure", sa.Text),
)

webhook_delivery = sa.Table(
    "webhook_delivery",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, sa.Identity(always=True)),
    sa.Column("webhook_id", sa.Text),
    sa.Column("event", sa.Text),
    sa.Column("subject", sa.Text),
    sa.Column("outcome", sa.Text),
    sa.Column("at", sa.DateTime(timezone=True)),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("attempts", sa.Integer),
    sa.Column("due_at", sa.DateTime(timezone=True)),
    sa.Column("leased_until", sa.DateTime(timezone=True)),
    sa.Column("delivered_at", sa.DateTime(timezone=True)),
    sa.Column("given_up_at", sa.DateTime(timezone=True)),
)

webhook_budget = sa.Table(
    "webhook_budget",
    metadata,
    sa.Column("webhook_id", sa.Text, primary_key=True),
    sa.Column("budget_id", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger),
    sa.Column("low", sa.Boolean),
    sa.Column("frozen", sa.Boolean),
)
