"""A mesh that is monitored: real daemons, real HTTP, and Prometheus' own tool."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from metrics.test_metrics_exposition import promtool, samples
from waiting import wait_for


def listen(mesh, name: str) -> str:
    """The address at which the daemon of ``name`` shows figures from its next start on."""
    address = mesh.listen(name)
    with (mesh.state(name) / "config.toml").open("a") as config:
        config.write(f'[metrics]\nlisten = "{address}"\n')
    return address


def get(url: str, *, method: str = "GET") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_monitored_mesh_tells_ages_readiness_and_why_not(process_mesh, tmp_path):
    mesh = process_mesh(0)
    mesh.init("alpha")
    alpha = listen(mesh, "alpha")
    mesh.run("alpha")
    mesh.join("beta")
    beta = listen(mesh, "beta")
    mesh.run("beta")
    mesh.wait_connected("alpha", "beta")
    tree, vault = tmp_path / "data", tmp_path / "vault"
    tree.mkdir()
    vault.mkdir()
    (tree / "file").write_text("content" * 1000)
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(vault))
    mesh.ok("alpha", "selection", "create", "files", f"alpha:{tree}", "--oldest-good", "1d")
    mesh.ok("alpha", "selection", "create", "others", f"beta:{tree}", "--oldest-good", "1d")
    mesh.ok("alpha", "policy", "create", "daily")
    template = ["--type", "full", "--to", "device:disk"]
    mesh.ok("alpha", "policy", "template", "add", "daily", "all", *template)
    (job,) = mesh.ok("alpha", "associate", "files", "daily")["jobs"]
    mesh.ok("alpha", "job", "run", job, "--wait")

    status, text = get(f"http://{alpha}/metrics")
    assert status == 200
    promtool("check", "metrics", text=text)
    found = samples(text)
    age = 'caso_mesh_last_good_backup_age_seconds{selection="%s",source="%s"}'
    assert 0 <= found[age % ("files", "alpha")] < 60
    assert found[age % ("others", "beta")] == float("inf")
    assert found['caso_mesh_servers{state="enabled"}'] == found["caso_mesh_servers_connected"] == 2
    assert found['caso_mesh_attempts_total{kind="backup",state="succeeded",type="full"}'] == 1
    assert found['caso_mesh_device_stored_bytes{device="disk"}'] > 0

    # a server beside the one in office tells of itself; the command says what the listener says
    (document,) = [mesh.ok("beta", "metrics")]
    assert not document["mesh"]
    there = samples(get(f"http://{beta}/metrics")[1])
    assert set(samples(document["text"])) == set(there)
    assert there["caso_mesh_admin_linked"] == 1
    assert there["caso_mesh_in_office"] == 0

    # nothing but reading, and little of that
    assert get(f"http://{alpha}/metrics", method="POST")[0] == get(f"http://{alpha}/metrics", method="HEAD")[0] == 405
    assert get(f"http://{alpha}/elsewhere")[0] == 404
    assert json.loads(get(f"http://{beta}/healthz")[1])["status"] == "alive"
    assert get(f"http://{beta}/readyz") == (200, '{"status": "ready"}')
    mesh.kill("alpha")
    wait_for(lambda: get(f"http://{beta}/readyz")[0] == 503, 30.0, what="beta is not ready without an administrator")
    assert set(json.loads(get(f"http://{beta}/readyz")[1])["problems"]) == {"administrator"}
    assert get(f"http://{beta}/healthz")[0] == 200
