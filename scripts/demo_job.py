"""One document through a whole mesh: up, a retained message from a plain MQTT client, result, trace, down."""

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from paho.mqtt import client as mqtt

ROOT = Path(__file__).resolve().parent.parent
INSTRUCTION = (
    "Read the attached document and write a one-page brief of it: gather the facts, draft the brief, "
    "edit it for clarity, and have it checked against the source."
)
PREFIX = "agent2389/v1/default"
SECONDS = 180
INLINE_BYTES = 150 * 1024


def say(text: str) -> None:
    print(text, flush=True)


def start_mesh(data: Path) -> subprocess.Popen[str]:
    """`agent2389 up` on a folder and free ports of its own."""
    environ = {
        key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "MQTT_BROKER_URL")
    }
    return subprocess.Popen(
        [sys.executable, "-m", "agent2389", "up", "--data", str(data), "--agents", str(ROOT / "agents")],
        env={**environ, "HEALTH_PORT": "0"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stop_mesh(mesh: subprocess.Popen[str], data: Path) -> int:
    """End the mesh and remove what it kept outside its folder."""
    mesh.send_signal(signal.SIGINT)
    code = mesh.wait(60)
    location = data / "postgres.location"
    if location.exists():
        shutil.rmtree(location.read_text().strip(), ignore_errors=True)
    return code


def environment_of(data: Path) -> dict[str, str]:
    """What `up --print-env` prints, as people get it."""
    lines = subprocess.run(
        [sys.executable, "-m", "agent2389", "up", "--data", str(data), "--print-env"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return dict(line.removeprefix("export ").replace("'", "").split("=", 1) for line in lines)


def send_job(broker_url: str, job_id: str, document: dict[str, object]) -> bytes:
    """Publish the job as a retained message, print its events, return the retained result."""
    results: list[bytes] = []
    parts = urlsplit(broker_url)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"demo-{job_id}")

    def on_message(_client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith(f"/results/{job_id}") and message.payload:
            results.append(message.payload)
        elif message.topic.endswith(f"/receipts/{job_id}"):
            say(f"  receipt    {json.loads(message.payload)['verdict']}")
        elif message.topic.endswith(f"/events/{job_id}"):
            show_event(json.loads(message.payload))

    client.on_message = on_message
    client.connect(parts.hostname or "127.0.0.1", parts.port or 1883)
    client.loop_start()
    for topic in (f"receipts/{job_id}", f"events/{job_id}", f"results/{job_id}"):
        client.subscribe(f"{PREFIX}/{topic}", qos=1)
    topic = f"{PREFIX}/jobs/research/{job_id}"
    client.publish(topic, json.dumps(document), qos=1, retain=True).wait_for_publish(10)
    say(f"  published  {topic} (retained)")
    deadline = time.monotonic() + SECONDS
    while not results and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)  # the last events travel with the result
    client.disconnect()
    client.loop_stop()
    if not results:
        raise SystemExit(f"error: no result within {SECONDS} s")
    return results[0]


def show_event(event: dict[str, object]) -> None:
    data = event["data"]
    decision = data.get("decision") if isinstance(data, dict) else None
    if decision:
        chosen = f"→ {decision['chosen']}" if decision["chosen"] else "done"
        say(f"  {event.get('agent_id', ''):10} {chosen}: {decision['reason']}")


def document_job(path: Path, environ: dict[str, str]) -> dict[str, object]:
    content = path.read_bytes()
    kind = {".pdf": "application/pdf", ".md": "text/markdown"}.get(path.suffix.lower(), "text/plain")
    file: dict[str, object] = {"name": path.name, "media_type": kind}
    if len(content) <= INLINE_BYTES:
        file["content_base64"] = base64.b64encode(content).decode()
    else:
        file["sha256"] = digest = hashlib.sha256(content).hexdigest()
        headers = {"Authorization": f"Bearer {environ['AGENT2389_TOKEN']}", "Content-Type": kind}
        url = f"{environ['AGENT2389_API']}/api/v1/blobs/{digest}"
        urlopen(Request(url, data=content, headers=headers, method="PUT")).close()
    return {"instruction": INSTRUCTION, "files": [file]}


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "examples" / "bicycle-counters.pdf"
    if not path.is_file():
        raise SystemExit(f"error: there is no file {path}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="agent2389-demo-") as folder:
        data = Path(folder) / "mesh"
        mesh = start_mesh(data)
        try:
            address = mesh.stdout.readline().strip() if mesh.stdout else ""
            if not address:
                raise SystemExit(mesh.wait() or 1)
            environ = environment_of(data)
            say(f"mesh up after {time.monotonic() - started:.1f} s: {address}")
            job_id = f"demo-{uuid.uuid4()}"
            result = json.loads(send_job(environ["MQTT_BROKER_URL"], job_id, document_job(path, environ)))
            say(
                f"\n{'─' * 30} result {'─' * 30}\n{result.get('result', {}).get('text', result.get('error'))}"
            )
            say(f"{'─' * 30} trace {'─' * 31}")
            command = [sys.executable, "-m", "agent2389", "--api", address, "trace", job_id]
            subprocess.run(command, check=True, env={**os.environ, **environ})
        finally:
            # A second Ctrl-C must not leave the mesh behind.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            code = stop_mesh(mesh, data)
        say(f"\nstopped (exit {code}); {time.monotonic() - started:.1f} s in all, nothing is left running")
    if result["state"] != "completed":
        raise SystemExit(7)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except KeyboardInterrupt:
        say("interrupted; the mesh was stopped")
        sys.exit(130)
