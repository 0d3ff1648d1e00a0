"""compose.yaml, its profiles and overlays, checked as far as that goes without an engine."""

import itertools
import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from exporter import config as exporter_config
from exporter.agent import running, settings
from grafana.__main__ import DATASOURCE
from loadgen import exporter_token
from tests.deploy import composed
from tests.deploy.programs import DEMO, LOCUST, PROBE, unknown_options
from tests.processes import ROOT

STACK = ROOT / "compose.yaml"
OVERLAYS = ROOT / "deploy" / "compose"
UPSTREAM = Path(__file__).with_name("opentalking_stand_in.yaml")
PROFILES = ("probe", "load", "demo", "gpu")
BESIDE_STACK = ("network", "ingest-token", "redis-secret", "omnirt-secret")
BESIDE_OPENTALKING = (
    ("opentalking",),
    ("agent",),
    ("opentalking", "agent"),
    ("opentalking", "agent", "agent-token"),
)
NEEDED = {
    "OPENTALKING_NETWORK": "opentalking_default",
    "TALKSCOPE_INGEST_TOKEN_FILE": "/somewhere/ingest_token",
}
OURS = re.compile(r"talkscope-(exporter|loadgen|demo):")


def overlay(name):
    return OVERLAYS / f"{name}.yaml"


STACKS = {
    "+".join(names) or "plain": composed.load(
        STACK, *map(overlay, names), environment={**NEEDED, "REDIS_URL": ""}
    )
    for names in ((), *((name,) for name in BESIDE_STACK), BESIDE_STACK)
}
BESIDE = {
    "+".join(names): composed.load(UPSTREAM, *map(overlay, names), environment=NEEDED)
    for names in BESIDE_OPENTALKING
}
PLAIN = STACKS["plain"]["services"]
EVERY_SERVICE = [
    pytest.param(service, id=f"{stack}: {name}")
    for stack, config in STACKS.items()
    for name, service in config["services"].items()
    if stack == "plain" or service != PLAIN[name]
] + [
    pytest.param(service, id=f"beside OpenTalking, {names}: {name}")
    for names, config in BESIDE.items()
    for name, service in config["services"].items()
    if "talkscope" in name
]


def dockerfile(service):
    name = OURS.match(service["image"])[1]
    return (ROOT / "deploy" / "images" / f"{name}.Dockerfile").read_text()


def test_every_overlay_is_checked_here():
    named = {*BESIDE_STACK, *itertools.chain(*BESIDE_OPENTALKING)}
    assert {path.stem for path in OVERLAYS.glob("*.yaml")} == named


def test_the_files_and_their_merges_fit_the_compose_specification(tmp_path):
    files = [STACK, *OVERLAYS.glob("*.yaml")]
    for name, merged in (STACKS | BESIDE).items():
        files.append(tmp_path / f"{name.replace('+', '-')}.json")
        files[-1].write_text(json.dumps(merged))
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [str(checker), "--builtin-schema", "vendor.compose-spec", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    files[-1].write_text('{"services": {"api": {"imag": "x"}}}')
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize(
    ("profile", "services"),
    [
        (None, set()),
        ("probe", {"probe"}),
        ("load", {"locust-master", "locust-worker"}),
        ("demo", {"demo", "demo-viewer"}),
        ("gpu", {"exporter-gpu"}),
    ],
)
def test_a_profile_adds_its_services_to_the_stack(profile, services):
    always = {"exporter", "prometheus", "alertmanager", "grafana", "collector", "tempo", "health"}
    assert set(composed.services(STACKS["plain"], profile)) == always | services


@pytest.mark.parametrize("service", EVERY_SERVICE)
def test_a_service_has_a_pinned_image_a_limit_and_a_restart_policy(service):
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", service["image"])
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    # What only copies a file must end.
    one_shot = "network_mode" in service and service["network_mode"] == "none"
    assert service.get("restart", "no") in (
        ("no", "on-failure:3") if one_shot else ("unless-stopped",)
    )


@pytest.mark.parametrize("service", EVERY_SERVICE)
def test_a_service_says_how_it_is(service):
    if service.get("network_mode") == "none":
        return
    told = service.get("healthcheck")
    if told is None:
        assert OURS.match(service["image"]), "only our own images are known to have a check"
        assert "\nHEALTHCHECK " in dockerfile(service)
    else:
        assert told["test"][0] == "CMD"
        assert {"interval", "timeout", "start_period"} <= told.keys()


@pytest.mark.parametrize("service", EVERY_SERVICE)
def test_ports_are_published_on_loopback_unless_told_otherwise(service):
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("service", EVERY_SERVICE)
def test_our_images_run_without_rights(service):
    assert "privileged" not in service
    if not OURS.match(service["image"]):
        return
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("user", "65532:65532") == "65532:65532"
    assert "\nUSER 65532:65532\n" in dockerfile(service)


@pytest.mark.parametrize("service", EVERY_SERVICE)
def test_what_is_mounted_exists(service):
    for mount in service.get("volumes", ()):
        source, _, options = mount.split(":") if mount.count(":") > 1 else [*mount.split(":"), "rw"]
        if source.startswith("."):
            assert (ROOT / source).is_dir(), source
            assert options == "ro"
        else:
            declared = {**STACKS["plain"]["volumes"], **BESIDE["agent"]["volumes"]}
            assert source in declared


@pytest.mark.parametrize("name", [*STACKS, *BESIDE])
def test_what_services_refer_to_is_there(name):
    merged = (STACKS | BESIDE)[name]
    for service in merged["services"].values():
        assert set(service.get("depends_on", ())) <= merged["services"].keys()
        assert set(service.get("secrets", ())) <= merged.get("secrets", {}).keys()
        assert set(service.get("networks", ())) <= merged.get("networks", {}).keys()
        assert service.get("network_mode", "none") == "none"


@pytest.mark.parametrize("path", [STACK, *sorted(OVERLAYS.glob("*.yaml"))], ids=lambda p: p.name)
def test_every_variable_has_a_default_or_says_what_to_set(path):
    code = "\n".join(
        line.split(" #")[0] for line in path.read_text().splitlines() if line[:1] != "#"
    )
    for name, kind, word in composed.variables(code):
        assert kind in (":-", ":?"), name
        assert kind == ":-" or word, name


def test_a_variable_that_is_needed_and_missing_is_told():
    with pytest.raises(composed.UnsetError, match="OPENTALKING_NETWORK: set OPENTALKING_NETWORK"):
        composed.load(STACK, overlay("network"), environment={})


def test_the_dockerfiles_of_the_stack_are_there():
    built = {
        service["build"]["dockerfile"]: service["build"]
        for service in PLAIN.values()
        if "build" in service
    }
    assert set(built) == {
        str(path.relative_to(ROOT)) for path in (ROOT / "deploy/images").glob("*.Dockerfile")
    }
    for name, build in built.items():
        text = (ROOT / name).read_text()
        assert set(build["args"]) <= set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))
        for base in re.findall(r"^ARG BASE=(\S+)", text, re.MULTILINE):
            assert base == build["args"]["BASE"]


def test_what_dockerfiles_copy_is_sent_to_the_engine():
    kept = [
        line[1:].removesuffix("/**")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    for path in (ROOT / "deploy/images").glob("*.Dockerfile"):
        for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", path.read_text(), re.MULTILINE):
            for source in copied.split():
                assert list(ROOT.glob(source)), source
                assert any(source == item or source.startswith(f"{item}/") for item in kept), source


@pytest.mark.parametrize("stack", STACKS)
def test_the_exporter_accepts_its_environment(stack, tmp_path):
    """Every variable is one of its settings, and a value that the default stack gives is valid."""
    service = STACKS[stack]["services"]["exporter"]
    environment = {k: v for k, v in service["environment"].items() if not k.startswith("OTEL_")}
    known = {s.variable for s in exporter_config.SETTINGS}
    known |= {s.file_variable for s in exporter_config.SETTINGS if s.from_file}
    assert set(environment) <= known
    values = {"redis_url": "redis://u:p@redis:6379/0", "omnirt_api_key": "k", "ingest_token": "t"}
    for name, path in environment.items():
        if name.endswith("_FILE"):
            secret = Path(path).name
            assert path == f"/run/secrets/{secret}"
            assert secret in service["secrets"]
            (tmp_path / secret).write_text(values[secret])
            environment[name] = str(tmp_path / secret)
    told = exporter_config.parse([], environment)
    assert told.target == "http://host.docker.internal:8000"
    assert (told.ingest_token is not None) == ("token" in stack)
    assert (told.redis is not None) == ("redis" in stack)


@pytest.mark.parametrize("name", ["probe", "locust-worker", "demo", "demo-viewer"])
def test_who_sends_marks_has_the_token_that_the_exporter_asks_for(name):
    services = STACKS["ingest-token"]["services"]
    path = services[name]["environment"][exporter_token.FILE_VARIABLE]
    assert path == services["exporter"]["environment"]["TALKSCOPE_INGEST_TOKEN_FILE"]
    assert Path(path).name in services[name]["secrets"]


PROGRAMS = {
    "probe": PROBE,
    "demo-viewer": PROBE,
    "locust-master": LOCUST,
    "locust-worker": LOCUST,
    "demo": DEMO,
}


def test_every_command_of_ours_is_checked():
    ours = {name for name, s in PLAIN.items() if OURS.match(s["image"]) and "command" in s}
    assert ours == set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_our_programs_know_the_options_of_a_service(name):
    assert not unknown_options(PROGRAMS[name], PLAIN[name]["command"])


def test_the_load_test_s_files_are_where_the_image_has_them():
    assert PLAIN["locust-master"]["entrypoint"][-1] == "/opt/venv/loadgen/locustfile.py"
    assert '"$(cd /opt/venv && ls -d lib/python3.*/site-packages/loadgen)" /opt/venv/loadgen' in (
        dockerfile(PLAIN["locust-master"])
    )
    command = PLAIN["locust-master"]["command"]
    scenario = command[command.index("--scenario") + 1]
    assert (ROOT / "deploy/scenarios" / Path(scenario).name).is_file()


def test_prometheus_asks_names_and_ports_that_the_stack_has():
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    listening = {"exporter": 9109, "exporter-gpu": 9109, "probe": 9110, "demo-viewer": 9110}
    listening |= {"locust-worker": 9111, "prometheus": 9090, "alertmanager": 9093}
    asked = set()
    for job in config["scrape_configs"]:
        for found in job.get("dns_sd_configs", ()):
            asked |= {(name, found["port"]) for name in found["names"]}
        for static in job.get("static_configs", ()):
            asked |= {(t.split(":")[0], int(t.split(":")[1])) for t in static["targets"]}
    for name, port in asked - {("127.0.0.1", 9090)}:
        assert name in PLAIN
        assert listening.get(name, port) == port
    assert set(listening) - {"prometheus"} <= {name for name, _ in asked}


def test_a_gpu_s_exporter_counts_no_session_twice():
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    job = next(job for job in config["scrape_configs"] if job["job_name"] == "talkscope-gpu")
    (keep,) = job["metric_relabel_configs"]
    assert keep["action"] == "keep"
    assert re.fullmatch(keep["regex"], "opentalking_vram_used_bytes")
    assert not re.fullmatch(keep["regex"], "opentalking_sessions")
    assert not re.fullmatch(keep["regex"], "opentalking_turns_total")


class TestBesideOpenTalking:
    """OpenTalking's own file (here a stand-in) with our overlays."""

    @pytest.mark.parametrize("names", BESIDE)
    def test_nothing_of_its_own_is_lost(self, names):
        own, merged = composed.load(UPSTREAM), BESIDE[names]
        for name, service in own["services"].items():
            for key, value in service.items():
                if isinstance(value, dict):
                    assert value.items() <= merged["services"][name][key].items()
                else:
                    assert merged["services"][name][key] == value

    def test_timings_and_the_log_are_switched_on(self):
        for name in ("api", "worker"):
            service = BESIDE["opentalking"]["services"][name]
            assert service["environment"]["OPENTALKING_BENCHMARK_TIMING"] == "1"
            assert service["command"][:2] == ["python", "-c"]
            assert service["command"][3:] == [f"opentalking-{name}"]

    def test_the_command_starts_the_script_with_its_log_on(self, tmp_path):
        """Run for real, with a console script of that name that only says what it sees."""
        info = tmp_path / "opentalking-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: opentalking\nVersion: 0\n")
        (info / "entry_points.txt").write_text("[console_scripts]\nopentalking-api = told:main\n")
        (tmp_path / "told.py").write_text(
            "import logging, sys\n"
            "def main():\n"
            "    logging.getLogger('pipeline').info('seen %s', sys.argv)\n"
            "    return 7\n"
        )
        _, *arguments = BESIDE["opentalking"]["services"]["api"]["command"]
        done = subprocess.run(
            [sys.executable, *arguments],
            env={"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 7
        assert done.stderr == "INFO:pipeline:seen ['-c']\n"

    @pytest.mark.parametrize("names", [n for n in BESIDE if "agent" in n])
    def test_the_agent_runs_the_script(self, names):
        for name in ("api", "worker"):
            service = BESIDE[names]["services"][name]
            assert service["command"] == ["python", "-m", "exporter.agent", f"opentalking-{name}"]
            assert service["command"][-1] in running.SCRIPTS
            assert "talkscope-agent:/opt/talkscope:ro" in service["volumes"]
            environment = service["environment"]
            assert environment["PYTHONPATH"] == "/opt/talkscope"
            assert settings.from_environment(
                {settings.EXPORTER: environment["TALKSCOPE_EXPORTER"]}
            ).exporter == ("http://exporter:9109")
            started = service["depends_on"]["talkscope-agent"]["condition"]
            assert started == "service_completed_successfully"

    def test_the_agent_s_folder_is_the_one_that_the_image_has(self):
        copier = BESIDE["agent"]["services"]["talkscope-agent"]
        text = dockerfile(copier)
        assert "--target /opt/talkscope" in text
        assert "--chown=65532:65532 /opt/agent /agent" in text
        assert copier["volumes"] == ["talkscope-agent:/agent"]

    def test_the_token_reaches_both(self):
        merged = BESIDE["opentalking+agent+agent-token"]
        for name in ("api", "worker"):
            path = merged["services"][name]["environment"][settings.TOKEN_FILE]
            assert path == "/run/secrets/talkscope_ingest_token"
        assert merged["secrets"]["talkscope_ingest_token"]["file"] == "/somewhere/ingest_token"


class TestGrafana:
    """What provisioning, dashboards and alert rules call each other."""

    def test_data_sources_have_the_names_that_others_use(self):
        folder = ROOT / "grafana/provisioning"
        told = yaml.safe_load((folder / "datasources/talkscope.yaml").read_text())
        sources = {source["uid"]: source for source in told["datasources"]}
        assert set(sources) == {DATASOURCE, "talkscope-tempo"}
        (exemplars,) = sources[DATASOURCE]["jsonData"]["exemplarTraceIdDestinations"]
        assert exemplars["datasourceUid"] in sources
        assert exemplars["name"] == "trace_id"
        metrics = sources["talkscope-tempo"]["jsonData"]["tracesToMetrics"]
        assert metrics["datasourceUid"] == DATASOURCE
        for uid, source in sources.items():
            host = re.fullmatch(r"http://(\w+):\d+", source["url"])[1]
            assert host in PLAIN, uid

    def test_dashboards_are_mounted_where_they_are_looked_for(self):
        told = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/talkscope.yaml").read_text())
        (provider,) = told["providers"]
        mounts = dict(mount.split(":")[:2][::-1] for mount in PLAIN["grafana"]["volumes"])
        assert mounts[provider["options"]["path"]] == "./grafana/dashboards"
        assert mounts["/etc/grafana/provisioning"] == "./grafana/provisioning"
        home = PLAIN["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        folder, _, name = home.rpartition("/")
        assert folder == provider["options"]["path"]
        assert (ROOT / "grafana/dashboards" / name).is_file()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_secrets_writes_random_ones_once(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)

    def make():
        subprocess.run(["make", "-s", "secrets"], cwd=tmp_path, check=True, capture_output=True)
        return {path.name: path.read_text().strip() for path in (tmp_path / "secrets").iterdir()}

    written = make()
    files = {config["file"] for stack in STACKS.values() for config in stack["secrets"].values()}
    assert {f"./secrets/{name}" for name in written} <= files
    assert all(re.fullmatch(r"[\w-]{32}", value) for value in written.values())
    assert len(set(written.values())) == len(written)
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert make() == written
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


class TestMerge:
    """The merge itself, which every check above stands on."""

    @pytest.fixture
    def merged(self, tmp_path):
        def merge(*texts, **environment):
            paths = []
            for number, text in enumerate(texts):
                paths.append(tmp_path / f"{number}.yaml")
                paths[-1].write_text(text)
            return composed.load(*paths, environment=environment)

        return merge

    def test_mappings_merge_lists_grow_and_commands_are_replaced(self, merged):
        assert merged(
            "a: {environment: {A: 1, B: 1}, secrets: [x], command: [x, y]}",
            "a: {environment: {B: 2, C: 2}, secrets: [y], command: [z]}",
        ) == {
            "a": {"environment": {"A": 1, "B": 2, "C": 2}, "secrets": ["x", "y"], "command": ["z"]}
        }

    def test_one_place_has_one_mount(self, merged):
        volumes = merged("volumes: ['a:/x', 'b:/y:ro']", "volumes: ['c:/x:ro']")["volumes"]
        assert volumes == ["b:/y:ro", "c:/x:ro"]

    def test_a_key_without_a_value_takes_one(self, merged):
        assert merged("networks: {target: }", "networks: {target: {external: true}}") == {
            "networks": {"target": {"external": True}}
        }

    def test_variables_are_filled_in_as_compose_does(self, merged):
        text = "a: '${A:-x}-${B-y}-${C:?say C}-$$D'"
        assert merged(text, A="", B="", C="c") == {"a": "x--c-$D"}
        with pytest.raises(composed.UnsetError, match="C: say C"):
            merged(text)


def test_every_overlay_and_profile_is_explained():
    told = (OVERLAYS / "README.md").read_text()
    for name in (*(f"`{path.name}`" for path in OVERLAYS.glob("*.yaml")), *PROFILES):
        assert name in told
