"""API keys, scopes, tenants, rate limits and quotas, on a service that asks for keys."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import httpx
import pytest

from tests.service.models import small_file
from tests.service.running import PATIENCE, RunningService, until
from torchpruner_client import Client, ForbiddenError, RateLimitedError, UnauthorizedError


def keys(service: RunningService, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "torchpruner_service.cli", "keys", *arguments],
        env={
            **service.environment,
            "TORCHPRUNER_DATA_DIR": str(service.data_dir),
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def caller(service: RunningService, key: str) -> httpx.Client:
    return httpx.Client(
        base_url=service.url, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE
    )


def ended(client: httpx.Client, path: str) -> dict[str, Any]:
    """What is shown at ``path`` once its job, if it has one, has ended."""
    shown: dict[str, Any] = {}

    def over() -> bool:
        answer = client.get(path, params={"wait": 5})
        assert answer.status_code == 200, answer.text
        shown.update(answer.json())
        return shown.get("state", "ready") in {"ready", "failed", "cancelled"}

    until(over)
    return shown


def upload(client: httpx.Client, seed: int) -> dict[str, Any]:
    answer = client.post(
        "/v1/models", params={"input": "x:1x3x8x8"}, content=small_file(seed).content
    )
    assert answer.status_code in (200, 202), answer.text
    return ended(client, answer.headers["location"])


@pytest.mark.parametrize(
    "header", [None, "Bearer nonsense", "Bearer tp_" + "a" * 12 + "_" + "b" * 40, "Basic eDp5"]
)
def test_without_a_valid_key_nothing_is_told(guarded: RunningService, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answers = [
        guarded.client.get("/v1/models", headers=headers),
        guarded.client.get("/v1", headers=headers),
        guarded.client.post("/v1/models", content=b"x", headers=headers),
        guarded.client.head("/v1/blobs/" + "0" * 64, headers=headers),
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert guarded.client.get("/healthz").status_code == 200


def test_scopes_are_kept_to(guarded: RunningService) -> None:
    writer = caller(
        guarded, keys(guarded, "create", "--tenant", "scoped", "--scopes", "read,write")
    )
    reader = caller(guarded, keys(guarded, "create", "--tenant", "scoped", "--scopes", "read"))
    model = upload(writer, 901)["id"]
    assert reader.get(f"/v1/models/{model}").status_code == 200
    cut = {"node": "self.conv1.weight", "index": [0]}
    assert reader.post(f"/v1/models/{model}/cut-analysis", json=cut).status_code == 200
    for answer in (
        reader.post("/v1/models", content=b"x"),
        reader.delete(f"/v1/models/{model}"),
        reader.post(f"/v1/models/{model}/pruned-weights", json={}),
        reader.post("/v1/uploads", json={"length": 3}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (403, "forbidden")


def test_a_write_key_alone_does_not_read(guarded: RunningService) -> None:
    writer = caller(guarded, keys(guarded, "create", "--tenant", "scoped", "--scopes", "write"))
    assert writer.get("/v1/models").status_code == 403


def test_tenants_cannot_see_or_probe_each_other(guarded: RunningService) -> None:
    one = caller(guarded, keys(guarded, "create", "--tenant", "one"))
    two = caller(guarded, keys(guarded, "create", "--tenant", "two"))
    file = small_file(902)
    digest = hashlib.sha256(file.content).hexdigest()
    shown = upload(one, 902)
    model = shown["id"]
    result = one.post(
        f"/v1/models/{model}/cut-analysis", json={"node": "self.conv1.weight", "index": [0]}
    ).json()
    result.pop("model")
    made = one.post(f"/v1/models/{model}/pruned-weights", json={"result": result})
    artifact = made.json()["id"]
    ended(one, f"/v1/artifacts/{artifact}")
    started = one.post("/v1/uploads", json={"length": 10}).json()["id"]
    assert one.head(f"/v1/blobs/{digest}").status_code == 200
    probes = [
        two.head(f"/v1/blobs/{digest}"),
        two.post(
            "/v1/models", json={"blob": digest, "inputs": [{"name": "x", "shape": [1, 3, 8, 8]}]}
        ),
        two.get(f"/v1/models/{model}"),
        two.head(f"/v1/models/{model}"),
        two.get(f"/v1/models/{model}/modules"),
        two.get(f"/v1/models/{model}/events"),
        two.get(f"/v1/models/{model}/lineage"),
        two.post(
            f"/v1/models/{model}/cut-analysis", json={"node": "self.conv1.weight", "index": [0]}
        ),
        two.post(f"/v1/models/{model}/derive", json={"result": result}),
        two.delete(f"/v1/models/{model}"),
        two.get(f"/v1/jobs/{shown['job']}"),
        two.delete(f"/v1/jobs/{shown['job']}"),
        two.get(f"/v1/artifacts/{artifact}"),
        two.get(f"/v1/artifacts/{artifact}/content"),
        two.get(f"/v1/uploads/{started}"),
        two.patch(f"/v1/uploads/{started}", content=b"x", headers={"Upload-Offset": "0"}),
    ]
    assert [answer.status_code for answer in probes] == [404] * len(probes)
    assert two.get("/v1/models").json()["total"] == 0
    assert two.get("/v1/jobs").json()["total"] == 0
    # Who proves to hold the bytes gets the same model, without a second build.
    assert upload(two, 902)["id"] == model
    assert two.head(f"/v1/blobs/{digest}").status_code == 200
    assert two.delete(f"/v1/models/{model}").status_code == 204
    assert one.get(f"/v1/models/{model}").json()["state"] == "ready"


def test_secrets_are_not_at_rest_and_revoked_keys_stop(guarded: RunningService) -> None:
    text = keys(guarded, "create", "--tenant", "three", "--name", "short-lived")
    _, identifier, secret = text.split("_")
    stored = b"".join(
        path.read_bytes()
        for path in guarded.data_dir.rglob("*")
        if path.is_file() and "keys" in path.parts
    )
    assert identifier.encode() in stored and secret.encode() not in stored
    assert secret not in guarded.log()
    client = caller(guarded, text)
    assert client.get("/v1/models").status_code == 200
    assert "short-lived" in keys(guarded, "list")
    keys(guarded, "revoke", identifier)
    until(lambda: client.get("/v1/models").status_code == 401)
    assert "revoked" in keys(guarded, "list")


def test_a_rate_limit_answers_429_with_the_standard_headers(guarded: RunningService) -> None:
    client = caller(guarded, keys(guarded, "create", "--tenant", "limited", "--rate-limit", "5"))
    answers = [client.get("/v1/models") for _ in range(12)]
    statuses = [answer.status_code for answer in answers]
    # The minute may turn once in between.
    assert (statuses.count(200) in range(5, 11) and statuses[-1] == 429) or statuses.count(
        200
    ) == 10
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["ratelimit-limit"] == "5"
    assert refused.headers["ratelimit-remaining"] == "0"
    assert refused.json()["type"] == "rate-limited"
    assert answers[0].headers["ratelimit-remaining"] == "4"


def test_quotas_refuse_what_is_too_much(guarded: RunningService) -> None:
    client = caller(guarded, keys(guarded, "create", "--tenant", "small", "--quota-models", "1"))
    model = upload(client, 903)["id"]
    answer = client.post(
        "/v1/models", content=small_file(904).content, params={"input": "x:1x3x8x8"}
    )
    assert (answer.status_code, answer.json()["type"]) == (429, "quota-exceeded")
    assert client.delete(f"/v1/models/{model}").status_code == 204
    upload(client, 904)
    tight = caller(guarded, keys(guarded, "create", "--tenant", "tight", "--quota-bytes", "1000"))
    answer = tight.post(
        "/v1/models", content=small_file(905).content, params={"input": "x:1x3x8x8"}
    )
    assert (answer.status_code, answer.json()["type"]) == (429, "quota-exceeded")


def test_the_sdk_sends_its_key_and_raises_typed_errors(guarded: RunningService) -> None:
    with Client(guarded.url, progress=False) as nobody, pytest.raises(UnauthorizedError):
        nobody.models()
    reader = keys(guarded, "create", "--tenant", "sdk", "--scopes", "read")
    with Client(guarded.url, api_key=reader, progress=False) as client:
        assert client.models() == []
        with pytest.raises(ForbiddenError):
            client.upload(small_file(906).content, {"x": (1, 3, 8, 8)})
    limited = keys(guarded, "create", "--tenant", "sdk", "--scopes", "read", "--rate-limit", "1")
    with (
        Client(guarded.url, api_key=limited, progress=False, retries=0) as client,
        pytest.raises(RateLimitedError),
    ):
        for _ in range(3):
            client.models()


def test_wrong_arguments_for_a_key_are_explained(guarded: RunningService) -> None:
    for arguments in (("--scopes", "everything"), ("--tenant", "../other")):
        done = subprocess.run(
            [sys.executable, "-m", "torchpruner_service.cli", "keys", "create", *arguments],
            env={**guarded.environment, "TORCHPRUNER_DATA_DIR": str(guarded.data_dir)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and "Traceback" not in done.stderr


def test_keys_are_asked_for_as_soon_as_others_can_reach_the_service() -> None:
    from torchpruner_service.settings import Settings

    assert not Settings(host="127.0.0.1", redis_url=None).auth_required
    assert Settings(host="0.0.0.0", redis_url=None).auth_required
    assert Settings(host="127.0.0.1", redis_url="redis://somewhere").auth_required
    assert not Settings(host="0.0.0.0", auth="off").auth_required
