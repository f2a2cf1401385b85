"""The ledger's tables as SQLAlchemy sees them. The SQL in migrations/ is the schema; this only names its columns."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = sa.MetaData(schema="ledger")

budget = sa.Table(
    "budget",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("epsilon", sa.Numeric),
    sa.Column("epsilon_opened", sa.Numeric),
    sa.Column("epsilon_claim", sa.Numeric),
    sa.Column("delta", sa.Numeric),
    sa.Column("unit", sa.Text),
    sa.Column("max_records_per_user", sa.Integer),
    sa.Column("held_out", sa.Numeric),
    sa.Column("relation", sa.Text),
    sa.Column("reference", JSONB),
    sa.Column("orders", ARRAY(sa.Integer)),
    sa.Column("weight_numerators", ARRAY(sa.Integer)),
    sa.Column("weight_denominator", sa.Integer),
    sa.Column("cap", ARRAY(sa.BigInteger)),
    sa.Column("spent", ARRAY(sa.BigInteger)),
    sa.Column("reserved", ARRAY(sa.Numeric(asdecimal=True))),
    sa.Column("frozen_reason", sa.Text),
    sa.Column("approval_above", sa.Numeric),
    sa.Column("queue_days", sa.Integer),
    sa.Column("require_intended_use", sa.Boolean),
    sa.Column("head_seq", sa.BigInteger),
    sa.Column("head_hash", sa.LargeBinary),
    sa.Column("created_at", sa.DateTime(timezone=True)),
)

budget_grant = sa.Table(
    "budget_grant",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("budget_id", sa.Text),
    sa.Column("key_id", sa.Text),
    sa.Column("project", sa.Text),
    sa.Column("epsilon", sa.Numeric),
    sa.Column("share", sa.Numeric),
    sa.Column("approval_above", sa.Numeric),
    sa.Column("cap", ARRAY(sa.BigInteger)),
    sa.Column("spent", ARRAY(sa.BigInteger)),
    sa.Column("reserved", ARRAY(sa.Numeric(asdecimal=True))),
    sa.Column("created_by", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("revoked_at", sa.DateTime(timezone=True)),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("models", JSONB),
    sa.Column("methods", JSONB),
    sa.Column("most_steps", sa.BigInteger),
)

reservation = sa.Table(
    "reservation",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("job_id", sa.Text),
    sa.Column("file_id", sa.Text),
    sa.Column("budget_id", sa.Text),
    sa.Column("state", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("grant_id", sa.Text),
    sa.Column("waits", sa.Boolean),
    sa.Column("starts_by", sa.DateTime(timezone=True)),
)

phase = sa.Table(
    "phase",
    metadata,
    sa.Column("reservation_id", sa.Text, primary_key=True),
    sa.Column("ordinal", sa.SmallInteger, primary_key=True),
    sa.Column("sample_rate", sa.Double),
    sa.Column("noise_multiplier", sa.Double),
    sa.Column("steps_max", sa.BigInteger),
    sa.Column("steps_authorised", sa.BigInteger),
    sa.Column("step_cost", ARRAY(sa.BigInteger)),
    sa.Column("reserved", ARRAY(sa.BigInteger)),
    sa.Column("curve_id", sa.Text),
    sa.Column("indivisible", sa.Boolean),
)

work = sa.Table(
    "work",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("fence", sa.BigInteger),
    sa.Column("owner", sa.Text),
    sa.Column("lease_until", sa.DateTime(timezone=True)),
    sa.Column("stop_requested", sa.Boolean),
    sa.Column("paused_at", sa.DateTime(timezone=True)),
    sa.Column("excused_fence", sa.BigInteger),
    sa.Column("seconds", sa.Double),
    sa.Column("silo", sa.Text),
)

silo_login = sa.Table(
    "silo_login",
    metadata,
    sa.Column("login", sa.Text, primary_key=True),
    sa.Column("silo", sa.Text),
)

authorisation = sa.Table(
    "authorisation",
    metadata,
    sa.Column("reservation_id", sa.Text, primary_key=True),
    sa.Column("ordinal", sa.SmallInteger, primary_key=True),
    sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("fence", sa.BigInteger),
    sa.Column("steps", sa.BigInteger),
    sa.Column("at", sa.DateTime(timezone=True)),
)

entry = sa.Table(
    "entry",
    metadata,
    sa.Column("budget_id", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, sa.FetchedValue(), primary_key=True),
    sa.Column("kind", sa.Text),
    sa.Column("reservation_id", sa.Text),
    sa.Column("outcome", sa.Text),
    sa.Column("fence", sa.BigInteger),
    sa.Column("spent_change", ARRAY(sa.BigInteger)),
    sa.Column("reserved_change", ARRAY(sa.Numeric)),
    sa.Column("actor", sa.Text),
    sa.Column("at", sa.DateTime(timezone=True)),
    sa.Column("prev_hash", sa.LargeBinary),
    sa.Column("hash", sa.LargeBinary),
    sa.Column("detail", JSONB),
    sa.Column("salt", sa.LargeBinary),
)

population = sa.Table(
    "population",
    metadata,
    sa.Column("budget_id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("marks", sa.BigInteger),
    sa.Column("sums", ARRAY(sa.Numeric)),
)

curve = sa.Table(
    "curve",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("description", sa.Text),
    sa.Column("proof", sa.Text),
    sa.Column("step_cost", ARRAY(sa.BigInteger)),
    sa.Column("indivisible", sa.Boolean),
    sa.Column("orders", ARRAY(sa.Integer)),
)

database_id = sa.Table("database_id", metadata, sa.Column("id", sa.Text))

lost_budget = sa.Table(
    "lost_budget",
    metadata,
    sa.Column("budget_id", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger),
    sa.Column("hash", sa.LargeBinary),
    sa.Column("noticed_at", sa.DateTime(timezone=True)),
    sa.Column("accepted_at", sa.DateTime(timezone=True)),
    sa.Column("accepted_by", sa.Text),
    sa.Column("accepted_reason", sa.Text),
)
