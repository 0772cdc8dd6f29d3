import itertools
import multiprocessing
import pickle
import threading
import time
from collections.abc import Iterator

import obstore
import pytest
from s3_server import (
    BUCKET,
    CHIPS,
    ENDLESS,
    FOLDER,
    QUICK,
    HostileProxy,
    Mischief,
    assert_all_right,
    open_source,
    pass_on,
)
from waiting import PATIENCE_S

from biomassters.dataset.files import ChipRecord, FileRecord
from biomassters.errors import ParamsError, SourceError
from biomassters.sources.s3.s3_source import CHIPS_AT_A_TIME, S3Source, open_s3, open_store
from biomassters.sources.s3.settings import S3Settings, count_connections, read_s3_settings
from biomassters.sources.source import FetchedChip

PUBLIC_EU = "s3://drivendata-competition-biomassters-public-eu/train_features"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION", "DEFAULT_REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("S3_REGION", "S3_ENDPOINT", "S3_FOLDER", "CONNECTIONS"):
        monkeypatch.delenv(f"BIOMASSTERS_{name}", raising=False)


def set_variables(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def give_addresses(chip: ChipRecord, us: str) -> ChipRecord:
    """Return the chip with an address of every file in the region us alone."""

    def give(record: FileRecord | None) -> FileRecord | None:
        return record and record._replace(s3_folders=(f"{us}/{record.folder}", "", ""))

    s1, s2 = tuple(map(give, chip.s1)), tuple(map(give, chip.s2))
    return chip._replace(s1=s1, s2=s2, agbm=give(chip.agbm))


def test_public_bucket_in_europe_is_read_anonymously_by_default() -> None:
    settings = S3Settings(
        "eu", "eu-central-1", "https://s3.eu-central-1.amazonaws.com", "", is_signed=False
    )
    assert read_s3_settings() == settings
    record = FileRecord("a.tif", "train_features", 1, None, ("", PUBLIC_EU, ""))
    assert settings.find_address(record) == f"{PUBLIC_EU}/a.tif"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"BIOMASSTERS_S3_REGION": "us"},
            ("us", "us-east-1", "https://s3.us-east-1.amazonaws.com", "", False),
        ),
        # Credentials and regions of other work are not for the public buckets.
        (
            {
                "BIOMASSTERS_S3_REGION": "as",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "eu-west-1",
            },
            ("as", "ap-southeast-1", "https://s3.ap-southeast-1.amazonaws.com", "", False),
        ),
        (
            {
                "BIOMASSTERS_S3_FOLDER": "s3://mine/some/where/",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "eu-west-1",
            },
            (
                "eu",
                "eu-west-1",
                "https://s3.eu-west-1.amazonaws.com",
                "s3://mine/some/where",
                True,
            ),
        ),
        (
            {"BIOMASSTERS_S3_ENDPOINT": "http://minio:9000/"},
            ("eu", "eu-central-1", "http://minio:9000", "", False),
        ),
    ],
)
def test_settings_follow_the_environment(
    variables: dict[str, str], expected: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(monkeypatch, **variables)
    assert read_s3_settings() == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BIOMASSTERS_S3_REGION", "eu-central-1"),
        ("BIOMASSTERS_S3_ENDPOINT", "minio:9000"),
        ("BIOMASSTERS_S3_ENDPOINT", "ftp://minio"),
        ("BIOMASSTERS_S3_ENDPOINT", "http://user:pass@minio"),
        ("BIOMASSTERS_S3_ENDPOINT", "http://minio/?a=b"),
        ("BIOMASSTERS_S3_ENDPOINT", "http://minio:99999"),
        ("BIOMASSTERS_S3_ENDPOINT", "http://mi nio"),
        ("BIOMASSTERS_S3_FOLDER", "/data/mirror"),
        ("BIOMASSTERS_S3_FOLDER", "s3://mine/../other"),
        ("BIOMASSTERS_CONNECTIONS", "0"),
        ("BIOMASSTERS_CONNECTIONS", "257"),
        ("BIOMASSTERS_CONNECTIONS", "many"),
        ("BIOMASSTERS_CONNECTIONS", "٣"),
    ],
)
def test_bad_variable_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ParamsError, match=rf"expected .*, got .*at .*{variable} .*; set it"):
        open_s3(1)


def test_key_without_its_secret_and_strange_region_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_variables(monkeypatch, BIOMASSTERS_S3_FOLDER=FOLDER, AWS_ACCESS_KEY_ID="key")
    with pytest.raises(ParamsError, match="AWS_SECRET_ACCESS_KEY"):
        open_s3(1)
    set_variables(monkeypatch, AWS_SECRET_ACCESS_KEY="secret", AWS_REGION="x.evil.org/")  # noqa: S106
    with pytest.raises(ParamsError, match="AWS_REGION"):
        open_s3(1)


@pytest.mark.parametrize(
    ("value", "n_workers", "each"), [("32", 1, 32), ("32", 5, 6), ("3", 8, 1), ("", 2, 16)]
)
def test_workers_share_the_connections(
    value: str, n_workers: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOMASSTERS_CONNECTIONS", value)
    assert count_connections(n_workers) == each


def test_every_file_of_every_chip_arrives(service: int) -> None:
    source = open_source(service)
    source.prepare(CHIPS)
    assert_all_right(list(source.fetch_chips(CHIPS)), CHIPS)
    assert list(source.fetch_chips([])) == []


def test_catalogue_addresses_are_taken_at_ones_own_endpoint(
    service: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(
        monkeypatch,
        BIOMASSTERS_S3_ENDPOINT=f"http://127.0.0.1:{service}",
        BIOMASSTERS_S3_REGION="us",
        # The client has variables of its own; they must not lead it elsewhere.
        AWS_ENDPOINT_URL="http://127.0.0.1:1",
        AWS_ENDPOINT_URL_S3="http://127.0.0.1:1",
        AWS_ALLOW_HTTP="false",
    )
    source = open_s3(1)
    chip = give_addresses(CHIPS[0], FOLDER)
    source.prepare([chip])
    assert_all_right(list(source.fetch_chips([chip])), [chip])
    set_variables(monkeypatch, BIOMASSTERS_S3_REGION="eu")
    with pytest.raises(SourceError, match=r"of 5eed0001_S1_00\.tif in the region eu.*; set"):
        open_s3(1).prepare([chip])


def test_test_targets_without_an_address_are_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_variables(monkeypatch, BIOMASSTERS_S3_REGION="us")
    chip = give_addresses(CHIPS[0], FOLDER)
    target = chip.agbm._replace(folder="test_agbm", s3_folders=("", "", ""))
    message = (
        r"of 5eed0001_agbm\.tif in the region us.*, or take test_agbm_metadata\.csv out of the"
    )
    with pytest.raises(SourceError, match=message):
        open_s3(1).prepare([chip._replace(agbm=target)])


def test_requests_are_signed_with_credentials_alone(
    service: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HostileProxy(service) as proxy:
        set_variables(
            monkeypatch,
            BIOMASSTERS_S3_ENDPOINT=f"http://127.0.0.1:{proxy.port}",
            BIOMASSTERS_S3_FOLDER=FOLDER,
        )
        list(open_s3(1).fetch_chips(CHIPS[:1]))
        assert not any("authorization" in head.lower() for head in proxy.heads)
        proxy.heads.clear()
        set_variables(monkeypatch, AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")  # noqa: S106
        list(open_s3(1).fetch_chips(CHIPS[:1]))
        assert all("authorization: AWS4-HMAC-SHA256" in head for head in proxy.heads)


@pytest.mark.parametrize("folder", [f"{FOLDER}/typing-error", "s3://no-such-bucket/mirror"])
def test_folder_without_anything_is_refused_before_the_work(service: int, folder: str) -> None:
    source = open_source(service)
    source.settings = source.settings._replace(folder=folder)
    with pytest.raises(
        SourceError, match=f"expected chips in the folders of {folder}, got nothing"
    ):
        source.prepare(CHIPS)


def test_bucket_without_a_prefix_is_a_folder(service: int) -> None:
    settings = open_source(service).settings._replace(folder=f"s3://{BUCKET}")
    S3Source(settings, 1, QUICK).prepare(CHIPS)


@pytest.mark.parametrize("name", ["a=b", "a.b", "a_b-C9"])
def test_ordinary_characters_of_a_key_reach_the_service(service: int, name: str) -> None:
    store = open_store(BUCKET, open_source(service).settings, QUICK)
    obstore.put(store, f"{name}/x", b"data")
    assert bytes(obstore.get(store, f"{name}/x").bytes()) == b"data"


def test_few_chips_are_taken_before_one_is_given(service: int) -> None:
    taken = []

    def take() -> Iterator[ChipRecord]:
        for chip in CHIPS:
            taken.append(chip.chip_id)
            yield chip

    for n_given, _ in enumerate(open_source(service).fetch_chips(take()), 1):
        assert len(taken) - n_given < CHIPS_AT_A_TIME


def test_chips_of_different_speed_overtake(service: int) -> None:
    """The first chip's target comes last of all; the others do not wait for it."""
    is_last = threading.Event()

    def wait_for_others(client, answer) -> bool:
        assert is_last.wait(PATIENCE_S)
        return pass_on(client, answer)

    with HostileProxy(service) as proxy:
        proxy.plan = lambda path, _: wait_for_others if "0001_agbm" in path else pass_on
        given = []
        for one in open_source(proxy.port, patience=ENDLESS).fetch_chips(CHIPS):
            given.append(one.chip.chip_id)
            if len(given) == len(CHIPS) - 1:
                is_last.set()
    assert given[-1] == "5eed0001"
    assert len(given) == len(CHIPS)


@pytest.mark.parametrize("n_connections", [1, 4])
def test_no_more_requests_at_a_time_than_connections(service: int, n_connections: int) -> None:
    first_ones = threading.Barrier(n_connections)
    numbers = itertools.count(1)

    def wait_for_others(path: str, number: int) -> Mischief:  # noqa: ARG001
        if next(numbers) <= n_connections:
            first_ones.wait(PATIENCE_S)
        time.sleep(0.005)  # for one more, which must not be, to come
        return pass_on

    with HostileProxy(service, wait_for_others) as proxy:
        assert_all_right(list(open_source(proxy.port, n_connections).fetch_chips(CHIPS)), CHIPS)
        assert proxy.most_at_a_time == n_connections


def test_work_that_is_dropped_leaves_no_thread(service: int) -> None:
    for _ in range(3):
        chips = open_source(service).fetch_chips(CHIPS)
        next(chips)
        chips.close()
    assert "transfers" not in {thread.name for thread in threading.enumerate()}


def test_work_that_is_dropped_does_not_wait_for_a_silent_place(service: int) -> None:
    is_dropped, in_time = threading.Event(), []

    def stay_silent_until_then(client, answer) -> bool:
        in_time.append(is_dropped.wait(PATIENCE_S / 2))
        return pass_on(client, answer)

    with HostileProxy(service) as proxy:
        proxy.plan = lambda path, _: pass_on if "0001" in path else stay_silent_until_then
        chips = open_source(proxy.port, patience=ENDLESS).fetch_chips(CHIPS)
        next(chips)
        chips.close()
        is_dropped.set()
    assert "transfers" not in {thread.name for thread in threading.enumerate()}
    assert False not in in_time


def fetch_elsewhere(pickled: bytes) -> list[FetchedChip]:
    return list(pickle.loads(pickled).fetch_chips(CHIPS[:2]))  # noqa: S301


def test_source_works_in_a_spawned_process(service: int) -> None:
    source = open_source(service)
    source.prepare(CHIPS)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        fetched = pool.apply(fetch_elsewhere, (pickle.dumps(source),))
    assert_all_right(fetched, CHIPS[:2])
