"""The real datasets client against a stand-in for the hub, laid out as documented."""

import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
import urllib.parse

import apart
import pyarrow
import pyarrow.parquet
import pytest
from test_formats import example, put

import tasks
import texts
from w2s import hub, protocol
from w2s.files import HERE, BadInput

REFUSED = {"allenai/quartz": 401, "lighteval/siqa": 503}  # and with what
HEADS = {
    "main": "a" * 40,
    "refs/convert/parquet": "b" * 40,
}  # the commit that each branch stands at


VIRTUE = (("train", "train"), ("validation", "test"), ("test", "test_hard"))


def parquet(rows):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def csv(rows):
    lines = [",".join(rows[0])] + [
        ",".join('"' + str(value).replace('"', '""') + '"' for value in row.values())
        for row in rows
    ]
    return ("\n".join(lines) + "\n").encode()


def card(configs):
    """A repository's README with its configs: {config: {split: path}}."""
    text = "---\nconfigs:\n"
    for config, splits in configs.items():
        text += f"- config_name: {config}\n  data_files:\n"
        text += "".join(f"  - split: {split}\n    path: {path}\n" for split, path in splits.items())
    return (text + "---\n").encode()


def rows(name, split, n):
    made = [example(name, split, i)[0] for i in range(n)]
    if name == "ethics_justice":
        made[4]["scenario"] = "None"  # a reader of csv may take it for a missing value
    return made


def repositories():
    """{repository: {commit: {path: bytes}}} as hub.md documents them, a few rows each."""
    glue = {
        f"{config}/{split}-00000-of-00001.parquet": parquet(rows(config, split, n))
        for config in ("sst2", "cola")
        for split, n in (("train", 60), ("validation", 20))
    }
    glue["README.md"] = card(
        {
            config: {split: f"{config}/{split}-*" for split in ("train", "validation")}
            for config in ("sst2", "cola")
        }
    )
    dream = {
        f"plain_text/{split}/0000.parquet": parquet(rows("dream", split, n))
        for split, n in (("train", 60), ("test", 20))
    }
    taco = {
        f"plain_text/{s}/0000.parquet": parquet(rows("mc_taco", s, n))
        for s, n in (("test", 60), ("validation", 30))
    }
    ethics = {
        f"data/justice/{split}.csv": csv(rows("ethics_justice", split, n))
        for split, n in (("train", 60), ("test", 20), ("test_hard", 24))
    }
    # on this branch "validation" is the test set and "test" the hard one
    virtue = {
        f"virtue/{there}/0000.parquet": parquet(rows("ethics_virtue", ours, 30))
        for there, ours in VIRTUE
    }
    boolq = {
        f"data/{s}-00000-of-00001.parquet": parquet(rows("boolq", s, n))
        for s, n in (("train", 60), ("validation", 20))
    }
    tweets = {
        f"{s}.parquet": parquet(rows("twitter_sentiment", s, n))
        for s, n in (("train", 60), ("test", 20))
    }
    script = {
        f"{name}.py": b"raise SystemExit('a script must never run')"
        for name in ("dream", "mc_taco", "ethics")
    }
    return {
        "nyu-mll/glue": {HEADS["main"]: glue},
        "dataset-org/dream": {HEADS["main"]: script, texts.TASKS["dream"]["revision"]: dream},
        "CogComp/mc_taco": {HEADS["main"]: script, HEADS["refs/convert/parquet"]: taco},
        "hendrycks/ethics": {HEADS["main"]: ethics | script, HEADS["refs/convert/parquet"]: virtue},
        "google/boolq": {HEADS["main"]: boolq},
        "EleutherAI/twitter-sentiment": {HEADS["main"]: tweets},
        "aps/super_glue": {
            HEADS["main"]: {
                "README.md": card({"rte": {"train": "rte/*"}}),
                "rte/train.parquet": parquet([{}] * 2),
            }
        },
    }


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub's API that datasets and huggingface_hub ask when they load a data set."""

    protocol_version = "HTTP/1.1"
    repositories, asked = repositories(), []

    def answer(self, body, status=200, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def find(self, repo, revision):
        """(commit, files), or None where there is none, which the client is told."""
        if repo == "Rowan/hellaswag":
            return self.answer({"error": "gated"}, 403, X_Error_Code="GatedRepo")
        if repo in REFUSED:
            return self.answer(
                {"error": "no"},
                REFUSED[repo],
                X_Error_Message="Invalid credentials in Authorization header",
            )
        if repo not in self.repositories:
            return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        commit = HEADS.get(revision, revision)
        if commit not in self.repositories[repo]:
            return self.answer(
                {"error": "Revision not found"}, 404, X_Error_Code="RevisionNotFound"
            )
        return commit, self.repositories[repo][commit]

    def do_GET(self):
        path = urllib.parse.unquote(self.path.split("?")[0])
        self.asked.append(f"{self.command} {self.path}")
        if match := re.fullmatch(
            r"/datasets/([^/]+/[^/]+)/resolve/(refs/convert/parquet|[^/]+)/(.+)", path
        ):
            return self.file(*match.groups())
        if match := re.fullmatch(
            r"/api/datasets/([^/]+/[^/]+)/tree/(refs/convert/parquet|[^/]+)/?(.*)", path
        ):
            return self.tree(*match.groups())
        if match := re.fullmatch(
            r"/api/datasets/([^/]+/[^/]+)/paths-info/(refs/convert/parquet|[^/]+)", path
        ):
            return self.paths_info(*match.groups())
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            if found := self.find(match[1], match[2] or "main"):
                names = [{"rfilename": name} for name in found[1]]
                self.answer(
                    {
                        "id": match[1],
                        "sha": found[0],
                        "private": False,
                        "gated": False,
                        "tags": [],
                        "siblings": names,
                    }
                )
            return
        self.answer({"error": "not found"}, 404)

    do_HEAD = do_POST = do_GET

    def file(self, repo, revision, name):
        if found := self.find(repo, revision):
            commit, files = found
            if name not in files:
                return self.answer(
                    {"error": "Entry not found"},
                    404,
                    X_Error_Code="EntryNotFound",
                    X_Repo_Commit=commit,
                )
            etag = f'"{hashlib.sha1(files[name]).hexdigest()}"'
            body, first, last = files[name], *self.span(len(files[name]))
            headers = {"ETag": etag, "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
            if (first, last) == (0, len(body) - 1):
                return self.answer(body, **headers)
            self.answer(
                body[first : last + 1],
                206,
                Content_Range=f"bytes {first}-{last}/{len(body)}",
                **headers,
            )

    def span(self, size):
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "bytes=0-")
        return int(match[1]), min(int(match[2] or size - 1), size - 1)

    def entries(self, files):
        made = {}
        for name, body in files.items():
            for end in [i for i, c in enumerate(name) if c == "/"]:
                made[name[:end]] = {
                    "type": "directory",
                    "oid": "c" * 40,
                    "size": 0,
                    "path": name[:end],
                }
            made[name] = {
                "type": "file",
                "oid": hashlib.sha1(body).hexdigest(),
                "size": len(body),
                "path": name,
            }
        return made

    def tree(self, repo, revision, folder):
        if found := self.find(repo, revision):
            deep = "recursive=true" in self.path.lower()
            under = f"{folder}/" if folder else ""
            inside = [
                e
                for n, e in self.entries(found[1]).items()
                if n.startswith(under) and (deep or "/" not in n[len(under) :])
            ]
            if not inside:
                return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            self.answer(inside)

    def paths_info(self, repo, revision):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = json.loads(body) if body.startswith("{") else urllib.parse.parse_qs(body)
        if found := self.find(repo, revision):
            entries = self.entries(found[1])
            self.answer([entries[path] for path in form["paths"] if path in entries])

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub_at():
    """Its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def surroundings(endpoint, home):
    """The environment in which the hub is at this endpoint and its cache in this folder."""
    other = {name: os.environ[name] for name in os.environ if not name.startswith(("HF_", "W2S_"))}
    other |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    return other | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home)}


@pytest.fixture(scope="module")
def ask(hub_at, tmp_path_factory):
    """ask(words) is (code, stdout, stderr) of tasks.py in its own process; one cache for all."""
    env = surroundings(hub_at, tmp_path_factory.mktemp("cache"))
    with apart.server("datasets", "pandas", "scipy.io", "fire", env=env) as start:

        def ask(*words):
            process = start([HERE / "tasks.py", *words])
            out, err = process.communicate()
            return process.returncode, out, err

        yield ask


def out_of_reach(home, *words, **env):
    """The same without a hub, in the shell."""
    env = surroundings("http://127.0.0.1:9", home) | env
    done = subprocess.run(
        [sys.executable, HERE / "tasks.py", *words], capture_output=True, text=True, env=env
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "name", ["sst2", "cola", "dream", "mc_taco", "ethics_justice", "ethics_virtue", "boolq"]
)
def test_the_hub_is_loaded_by_the_very_client_that_users_have(name, ask, tmp_path, monkeypatch):
    """Configs (sst2, cola), a pinned sha (dream), a parquet branch (mc_taco), csv (ethics)."""
    code, out, err = ask(name)
    assert code == 0, err
    source = texts.TASKS[name]["splits"]["test"][0]
    assert (
        f"the {source} rows of {texts.TASKS[name]['repo']}" in err
    )  # fewer than on record, which is told
    put(
        tmp_path,
        name,
        "test",
        rows(name, source, 30 if name in ("mc_taco", "ethics_virtue") else 20),
    )
    monkeypatch.setenv("W2S_MIRROR", str(tmp_path))
    assert [json.loads(line) for line in out.splitlines()] == protocol.test_rows(
        texts, protocol.describe(texts, name)
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "hellaswag",
            "Rowan/hellaswag is gated: accept its terms on its hub page, then set HF_TOKEN",
        ),
        ("piqa", "the hub has no dataset 'baber/piqa' that you may see: check the name"),
        ("quartz", "the hub refuses to show allenai/quartz (401): check HF_TOKEN"),
        ("social_i_qa", "the hub answers with 503 and lighteval/siqa is not in its local cache"),
        (
            "wic",
            "aps/super_glue (wic, validation) could not be loaded from the hub: BuilderConfig",
        ),
    ],
)
def test_what_the_hub_will_not_give_is_one_line(name, told, ask):
    code, out, err = ask(name, "--n=3")
    assert code == 2 and out == ""
    assert err.splitlines()[-1].startswith(f"error: {told}"), err


def test_a_hub_out_of_reach_is_told_with_the_way_to_a_mirror(tmp_path):
    code, _, err = out_of_reach(tmp_path, "boolq", "--n=3")
    assert code == 2 and "the hub is out of reach" in err
    assert "python tasks.py --mirror=DIR" in err


def test_what_the_cache_holds_is_the_revision_that_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--a--b"
    assert hub.cached("a/b", "model") is None
    for sha in ("1" * 40, "f" * 40):
        (folder / "snapshots" / sha).mkdir(parents=True)
    assert hub.cached("a/b", "model") == "f" * 40
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("1" * 40)
    assert hub.cached("a/b", "model") == "1" * 40


def test_a_mirror_is_written_and_resumed(ask, tmp_path):
    folder = tmp_path / "mirror"
    code, _, err = ask(f"--mirror={folder}", "boolq", "twitter_sentiment")
    assert code == 2  # boolq has not its 9,427 rows here; that stops no other task
    assert "boolq: train of google/boolq has 60 rows, on record are 9427" in err
    assert f"error: {folder} lacks boolq" in err and not (folder / "google").exists()
    twitter = folder / "EleutherAI/twitter-sentiment/default"
    assert sorted(path.name for path in twitter.iterdir()) == ["test.parquet", "train.parquet"]
    wanted = ask("twitter_sentiment", "--split=weak")[1]
    (twitter / "test.parquet").unlink()
    before = (twitter / "train.parquet").stat().st_mtime_ns
    code, out, err = ask(f"--mirror={folder}", "twitter_sentiment")
    assert code == 0 and "train.parquet: already there" in out, err
    assert (
        twitter / "train.parquet"
    ).stat().st_mtime_ns == before and "next, on the other machine" in out
    words = "twitter_sentiment", "--split=weak"
    _, read, _ = out_of_reach(tmp_path / "empty", *words, W2S_MIRROR=str(folder))
    assert read == wanted and wanted.count("\n") > 10
    cut = tmp_path / "file"
    cut.write_text("no folder")
    code, _, err = ask(f"--mirror={cut}", "twitter_sentiment")
    assert code == 2 and "cannot be written" in err and "Traceback" not in err


def test_names_for_a_mirror_are_checked_before_anything_is_fetched(tmp_path):
    with pytest.raises(BadInput, match="bolq: it is no task of the hub .did you mean boolq"):
        tasks.main("dream", "bolq", mirror=str(tmp_path))
    with pytest.raises(BadInput, match="safety_prompts: it is not on the hub: put safety.csv of"):
        tasks.main("dream", "safety_prompts", mirror=str(tmp_path))
    with pytest.raises(BadInput, match="one task at a time, not dream boolq"):
        tasks.main("dream", "boolq")
