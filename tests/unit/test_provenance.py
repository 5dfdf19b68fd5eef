"""Does a file say where it comes from?"""

import json
import subprocess
import sys

import ksmbatch
from ksmbatch import provenance

ORIGIN = {"config": {"ksm": {"smart_scan": 1}}, "seed": 7, "source": {"config": "a.toml", "workload": "b.parquet"}}


def test_a_file_says_which_software_schema_config_seed_and_environment_made_it() -> None:
    document = provenance.provenance("runs", 1, ORIGIN)
    assert set(document) == {"software", "schema", "table", "config", "seed", "source", "environment"}
    assert document["software"]["version"] == ksmbatch.__version__
    assert document["software"]["model"] == ksmbatch.MODEL_VERSION
    assert (document["schema"], document["table"], document["seed"]) == (1, "runs", 7)


def test_what_is_encoded_comes_back() -> None:
    document = provenance.provenance("samples", 1, ORIGIN)
    assert provenance.decode(provenance.encode(document)) == json.loads(json.dumps(document))


def test_swept_keys_stay_in_the_order_of_their_file() -> None:
    document = {"config": {"sweep": {"ksm.b": [1], "ksm.a": [2]}}}
    assert list(provenance.decode(provenance.encode(document))["config"]["sweep"]) == ["ksm.b", "ksm.a"]


def test_metadata_of_others_is_not_ours() -> None:
    assert provenance.decode(None) is None
    assert provenance.decode({b"pandas": b"{}"}) is None
    assert provenance.decode({provenance.KEY: b"no JSON"}) is None
    assert provenance.decode({provenance.KEY: b"[1]"}) is None


def test_only_the_environment_differs_between_two_processes() -> None:
    code = (
        "import json; from ksmbatch import provenance as p;"
        f"d = p.provenance('runs', 1, {ORIGIN!r}); d.pop('environment'); print(json.dumps(d))"
    )
    texts = {subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout for _ in range(2)}
    assert len(texts) == 1


def test_the_digest_of_sources_notices_a_changed_kernel(tmp_path, monkeypatch) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "provenance.py").touch()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    digests = set()
    for text in ("limit = 1", "limit = 2"):
        (tmp_path / "kernels" / "ksmd.py").write_text(text)
        provenance.software.cache_clear()
        digests.add(provenance.software()["sources"])
    provenance.software.cache_clear()
    assert len(digests) == 2


def test_at_least_one_core_is_counted() -> None:
    assert provenance.cores() >= 1
