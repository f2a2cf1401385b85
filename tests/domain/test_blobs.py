"""Blob stores: a folder and an S3 server. What they hold is noise without the database, and only this user's."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import httpx
import obstore
import pytest
import sqlalchemy as sa
from moto.server import ThreadedMotoServer

from domain.files.files import encrypt_old
from domain.kit.settings import ServiceSettings
from domain.kit.tables import file
from domain.storage import blobs
from domain.storage.blobs import AT_ONCE, BadStore, Store, open_store, require_usable
from domain.storage.rows import RowWriter, read_rows
from domain.storage.sealing import CHUNK, Tampered
from tests.conftest import MASTER_KEY, Database

SECRET = b"canary-30ac " * 1000


@dataclass(frozen=True)
class Server:
    """A running S3 server."""

    address: str
    access_key_id: str
    secret_access_key: str

    def options(self, **others: str) -> str:
        return json.dumps(
            {
                "endpoint": self.address,
                "region": "us-east-1",
                "access_key_id": self.access_key_id,
                "secret_access_key": self.secret_access_key,
            }
            | others
        )


@pytest.fixture(scope="module")
def engine(module_database: Database) -> Iterator[sa.Engine]:
    made = sa.create_engine(module_database.api_url, poolclass=sa.NullPool)
    yield made
    made.dispose()


@pytest.fixture(scope="module")
def s3() -> Iterator["Server"]:
    """A server with one bucket and one user."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    anyone = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=address, **anyone).create_bucket(Bucket="tacit")
    iam = boto3.client("iam", endpoint_url=address, **anyone)
    iam.create_user(UserName="tacit")
    rule = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
    iam.put_user_policy(UserName="tacit", PolicyName="all", PolicyDocument=policy)
    key = iam.create_access_key(UserName="tacit")["AccessKey"]
    httpx.post(f"{address}/moto-api/reset-auth", content="0")  # from now on signatures are checked
    yield Server(address, key["AccessKeyId"], key["SecretAccessKey"])
    # moto keeps its state in the process: other tests start from nothing.
    httpx.post(f"{address}/moto-api/reset-auth", content="inf")
    httpx.post(f"{address}/moto-api/reset")
    server.stop()


def settings(where: str, options: str | None = None) -> ServiceSettings:
    values = {"database_url": "", "broker_url": "", "blobs": where, "blob_options": options}
    return ServiceSettings(**values, master_key=MASTER_KEY)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, engine: sa.Engine, tmp_path: Path) -> Store:
    if request.param == "folder":
        made = open_store(settings(str(tmp_path / "blobs")), engine)
    else:
        made = open_store(settings("s3://tacit/some/prefix", request.getfixturevalue("s3").options()), engine)
    require_usable(made)
    return made


def names(store: Store, prefix: str = "") -> set[str]:
    return {item["path"] for batch in obstore.list(store.objects, prefix) for item in batch}


def test_put_get_range_list_and_delete(store: Store) -> None:
    blobs.put_bytes(store, "jobs/1/a", SECRET)
    blobs.put_bytes(store, "jobs/1/a", SECRET)  # again, as after a crash
    blobs.put_bytes(store, "jobs/1/b/c", b"")
    blobs.put_bytes(store, "jobs/10/a", b"other")
    assert blobs.get_bytes(store, "jobs/1/a") == SECRET
    opened = blobs.open_blob(store, "jobs/1/a")
    assert opened.size == len(SECRET)
    assert b"".join(opened.read(3, 20)) == SECRET[3:20]
    assert blobs.get_bytes(store, "jobs/1/b/c") == b""
    assert SECRET[:12] not in bytes(obstore.get(store.objects, "jobs/1/a").bytes())
    blobs.delete_all(store, "jobs/1/")
    assert names(store, "jobs") == {"jobs/10/a"}
    blobs.delete(store, "jobs/10/a")
    blobs.delete(store, "jobs/10/a")
    assert names(store, "jobs") == set()
    with pytest.raises(FileNotFoundError):
        blobs.get_bytes(store, "jobs/10/a")


def test_a_large_file_goes_and_comes_in_pieces(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(CHUNK) * 19 + b"end")
    assert path.stat().st_size > 2 * AT_ONCE
    blobs.put_file(store, "files/large", path)
    opened = blobs.open_blob(store, "files/large")
    assert b"".join(opened.read(0, 10**9)) == path.read_bytes()
    assert b"".join(opened.read(19 * CHUNK - 1, 10**9)) == path.read_bytes()[19 * CHUNK - 1 :]
    with blobs.as_file(opened) as file:
        file.seek(-4, os.SEEK_END)
        assert file.read() == path.read_bytes()[-4:]
        file.seek(CHUNK - 7)
        assert file.read(3 * CHUNK) == path.read_bytes()[CHUNK - 7 : 4 * CHUNK - 7]


def test_rows_are_read_from_the_store(store: Store, tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "rows", "pair")
    writer.add(["a", "b"], 1)
    writer.close()
    blobs.put_file(store, "files/rows", tmp_path / "rows")
    rows = read_rows(blobs.open_blob(store, "files/rows"))
    assert (rows.columns, rows.labels) == ({"text": ["a"], "text_pair": ["b"]}, [1])


def test_blobs_that_were_exchanged_do_not_open(store: Store) -> None:
    for name in ("files/a", "files/b"):
        blobs.put_bytes(store, name, SECRET)
    obstore.put(store.objects, "files/a", obstore.get(store.objects, "files/b").bytes())
    with pytest.raises(Tampered):
        blobs.get_bytes(store, "files/a")


def test_what_is_deleted_stays_deleted_though_the_bytes_come_back(store: Store) -> None:
    """A backup of the blobs without one of the database is worth nothing."""
    blobs.put_bytes(store, "files/back", SECRET)
    backup = bytes(obstore.get(store.objects, "files/back").bytes())
    blobs.delete(store, "files/back")
    obstore.put(store.objects, "files/back", backup)
    with pytest.raises(FileNotFoundError):
        blobs.get_bytes(store, "files/back")


def test_blobs_of_an_earlier_version_are_encrypted_once(store: Store, module_database: Database) -> None:
    name = f"files/{'s3' if store.folder is None else 'folder'}/rows.parquet"
    obstore.put(store.objects, name, SECRET)
    admin, worker = (
        sa.create_engine(url, poolclass=sa.NullPool) for url in (module_database.admin_url, module_database.worker_url)
    )
    with admin.begin() as connection:
        connection.execute(sa.text("INSERT INTO tenant (id, name) VALUES ('t', 't') ON CONFLICT DO NOTHING"))
        connection.execute(file.insert().values(id=name, tenant_id="t", purpose="evals", filename="f", blob=name))
        connection.execute(file.insert().values(id=f"{name}0", tenant_id="t", purpose="evals", filename="f", blob="no"))
    assert [encrypt_old(worker, store), encrypt_old(worker, store)] == [1, 0]
    assert blobs.get_bytes(store, name) == SECRET
    assert SECRET[:12] not in bytes(obstore.get(store.objects, name).bytes())
    backup = bytes(obstore.get(store.objects, name).bytes())
    blobs.delete(store, name)
    obstore.put(store.objects, name, backup)
    assert encrypt_old(worker, store) == 0
    with admin.begin() as connection:
        connection.execute(file.delete())


@pytest.mark.parametrize(
    ("where", "options", "words"),
    [
        ("s3://tacit/x", "not json", "TACIT_BLOB_OPTIONS must be a JSON object"),
        ("s3://tacit/x", '{"endpoint": 1}', "TACIT_BLOB_OPTIONS must be a JSON object"),
        ("s3://tacit/x", '{"end_point": "x"}', "end_point"),
        ("ftp://tacit/x", None, "TACIT_BLOBS"),
    ],
)
def test_stores_that_cannot_be_opened(engine: sa.Engine, where: str, options: str | None, words: str) -> None:
    with pytest.raises(BadStore, match=words):
        open_store(settings(where, options), engine)


@pytest.mark.parametrize(
    ("bucket", "wrong", "words"),
    [
        ("tacit", {"secret_access_key": "wrong-secret"}, "403 Forbidden: SignatureDoesNotMatch"),
        ("tacit", {"access_key_id": "nobody"}, "403 Forbidden: InvalidAccessKeyId"),
        ("elsewhere", {}, "NoSuchBucket|not found"),
        ("tacit", {"endpoint": "http://127.0.0.1:9"}, "error sending request|connect"),
    ],
)
def test_a_store_that_refuses_is_found_out_at_start(
    engine: sa.Engine, s3: Server, bucket: str, wrong: dict[str, str], words: str
) -> None:
    with pytest.raises(BadStore, match=f"blob store of TACIT_BLOBS cannot be used: .*({words})") as refused:
        require_usable(open_store(settings(f"s3://{bucket}/x", s3.options(**wrong)), engine))
    assert not any(secret in str(refused.value) for secret in (s3.secret_access_key, "wrong-secret"))
    assert len(str(refused.value)) < 400
