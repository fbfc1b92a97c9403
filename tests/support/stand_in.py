"""An agent of the 2389 protocol that shares no code with ours, and breaks one rule on request.

Run: python -m tests.support.stand_in --agent ID [--fault NAME]... [--heartbeat SECONDS]
The broker and the model come from MQTT_BROKER_URL and LLM_BASE_URL. ``REFERENCE`` are the deviations
that the reference implementation shows on the wire.
"""

import argparse
import json
import os
import queue
import re
import signal
import ssl
import sys
import threading
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

REFERENCE = (
    "unavailable-not-retained",
    "duplicate-is-an-error",
    "depth-is-invalid-input",
    "malformed-is-silent",
    "topic-not-compared",
    "next-input-wins",
    "unwraps-result",
    "plus-time-zone",
)
"""String responses, JSON with ``result`` unwrapped, unavailable not retained, heartbeats every 900 s."""

FAULTS = {
    "FR-001": "one-spelling",
    "FR-002": "early-available",
    "FR-003": "silent-end",
    "FR-004": "no-will",
    "FR-005": "takes-retained",
    "FR-006": "no-canonical",
    "FR-007": "object-input-only",
    "FR-008": "wrong-id",
    "FR-009": "bare-tools",
    "FR-010": "takes-duplicates",
    "FR-011": "malformed-is-silent",
    "FR-012": "progress-is-text",
    "FR-013": "depth-is-invalid-input",
    "FR-014": "next-input-wins",
    "NFR-001": "old-mqtt",
    "NFR-002": "qos-zero",
    "NFR-003": "small-messages",
    "NFR-004": "logs-secrets",
    "NFR-005": "calls-anything",
    "RULE-001": "any-id",
    "RULE-002": "tells-details",
    "RULE-003": "plus-time-zone",
}
"""What to break so that exactly this requirement fails."""

TOOL = {
    "type": "function",
    "function": {
        "name": "echo",
        "description": "Give back the text.",
        "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    },
}


TOO_DEEP = "too many tasks in a row"


class Refused(Exception):
    """An error of the protocol: code and message."""


class StandIn:
    def __init__(self, agent: str, faults: set[str], heartbeat: float = 900.0) -> None:
        self.agent = agent
        self.faults = faults
        self.heartbeat = heartbeat
        self.input = f"/control/agents/{agent}/input"
        self.status_topic = f"/control/agents/{agent}/status"
        self.seen: set[str] = set()
        self.tasks: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self.over = threading.Event()
        self.subscribed = threading.Event()
        self.client = self._client()

    def _client(self) -> mqtt.Client:
        version = MQTTProtocolVersion.MQTTv31 if "old-mqtt" in self.faults else MQTTProtocolVersion.MQTTv311
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"standin-{uuid.uuid4().hex[:8]}", protocol=version
        )
        if "no-will" not in self.faults:
            client.will_set(self.status_topic, self.status("unavailable"), qos=1, retain=True)
        if os.environ.get("MQTT_USERNAME"):
            client.username_pw_set(os.environ["MQTT_USERNAME"], os.environ.get("MQTT_PASSWORD"))
        client.on_subscribe = lambda *_: self.subscribed.set()
        client.on_message = lambda _client, _data, message: self.tasks.put(message)
        return client

    # life ---------------------------------------------------------------------

    def run(self) -> None:
        address = urlsplit(os.environ["MQTT_BROKER_URL"])
        if address.scheme == "mqtts":
            context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE"))
            context.check_hostname = "any-host" not in self.faults
            self.client.tls_set_context(context)
        if "logs-secrets" in self.faults:
            sys.stdout.write(f"connecting with {os.environ.get('OPENAI_API_KEY')}\n")
            sys.stdout.flush()
        try:
            self.client.connect(address.hostname or "", address.port or 1883)
        except ssl.SSLError:
            sys.exit("the broker's certificate is not for this host")
        self.client.loop_start()
        if "early-available" in self.faults:
            self.say_status("available")
        self.client.subscribe(self.input, qos=1)
        self.subscribed.wait(5)
        self.verify_model()
        if "early-available" not in self.faults:
            self.say_status("available")
        if "progress-is-text" in self.faults:
            self.client.publish(f"/control/agents/{self.agent}/progress", "state=ready", qos=1)
        threading.Thread(target=self.work, daemon=True).start()
        while not self.over.wait(self.heartbeat):
            self.say_status("available")
        self.leave()

    def leave(self) -> None:
        if "silent-end" not in self.faults:
            retain = "unavailable-not-retained" not in self.faults
            self.client.publish(
                self.status_topic, self.status("unavailable"), qos=1, retain=retain
            ).wait_for_publish(5)
        self.client.disconnect()
        self.client.loop_stop()

    def say_status(self, status: str) -> None:
        self.client.publish(self.status_topic, self.status(status), qos=1, retain=True)

    def status(self, status: str) -> str:
        now = datetime.now(UTC).isoformat()
        body = {
            "agent_id": "somebody" if "wrong-id" in self.faults else self.agent,
            "status": status,
            "timestamp": now if "plus-time-zone" in self.faults else now.replace("+00:00", "Z"),
            "capabilities": ["standing-in"],
            "description": "Stands in for another implementation.",
        }
        return json.dumps(body)

    # tasks ----------------------------------------------------------------------

    def work(self) -> None:
        while True:
            message = self.tasks.get()
            if message.payload and (not message.retain or "takes-retained" in self.faults):
                self.take(bytes(message.payload))

    def take(self, payload: bytes) -> None:
        if "one-spelling" in self.faults and not payload.startswith(b'{"task_id"'):
            return
        try:
            document = json.loads(payload)
        except (ValueError, RecursionError):
            return
        if not isinstance(document, dict):
            return
        try:
            self.process(document)
        except Refused as refused:
            code, message = refused.args
            unread = code == "invalid_input" and message != TOO_DEEP
            if "malformed-is-silent" not in self.faults or not unread:
                self.answer(document, {"error": {"code": code, "message": message}})

    def process(self, document: dict[str, Any]) -> None:
        said = document.get("topic")
        if not isinstance(said, str):
            raise Refused("invalid_input", "topic is missing")
        canonical = said if "no-canonical" in self.faults else "/" + "/".join(filter(None, said.split("/")))
        if canonical != self.input and "topic-not-compared" not in self.faults:
            return
        task_id = str(document.get("task_id"))
        if task_id in self.seen and "takes-duplicates" not in self.faults:
            if "duplicate-is-an-error" in self.faults:
                self.answer(document, {"error": {"code": "invalid_input", "message": "duplicate task"}})
            return
        self.seen.add(task_id)
        self.check(document)
        answer = self.think(document)
        link = document.get("next")
        if link is None:
            self.answer(document, {"response": answer})
            return
        given = link.get("input") if "next-input-wins" in self.faults else None
        envelope = {
            "task_id": task_id,
            "conversation_id": document["conversation_id"],
            **link,
            "input": given if given is not None else answer,
        }
        self.client.publish(
            "/" + "/".join(filter(None, link["topic"].split("/"))), json.dumps(envelope), qos=1
        )

    def check(self, document: dict[str, Any]) -> None:
        link, depth = document.get("next"), 1
        while isinstance(link, dict):
            depth += 1
            self.check_topic(link.get("topic"))
            link = link.get("next")
        if depth > 16:
            deep = "depth-is-invalid-input" in self.faults
            raise Refused("invalid_input" if deep else "pipeline_depth_exceeded", TOO_DEEP)
        if "input" not in document:
            raise Refused("invalid_input", "input is missing")
        if "object-input-only" in self.faults and not isinstance(document["input"], dict):
            raise Refused("invalid_input", "input must be an object")
        if not isinstance(document.get("instruction"), str | None):
            raise Refused("invalid_input", "instruction must be a string")
        if "small-messages" in self.faults and len(json.dumps(document)) > 65_536:
            raise Refused("invalid_input", "the message is too large")
        try:
            uuid.UUID(str(document.get("task_id")))
        except ValueError:
            raise Refused("invalid_input", "task_id is no UUID") from None
        if not re.fullmatch(r"[A-Za-z0-9._-]+", str(document.get("conversation_id"))):
            raise Refused("invalid_input", "conversation_id is not usable")

    def check_topic(self, topic: Any) -> None:
        pattern = r"/control/agents/[^/+#]+/input" if "any-id" in self.faults else None
        if not re.fullmatch(pattern or r"/+control/+agents/+[A-Za-z0-9._-]+/+input/*", str(topic)):
            raise Refused("invalid_input", "next names no agent")

    def answer(self, document: dict[str, Any], body: dict[str, Any]) -> None:
        conversation = document.get("conversation_id")
        if not isinstance(conversation, str) or not re.fullmatch(r"[A-Za-z0-9._-]+", conversation):
            return
        qos = 0 if "qos-zero" in self.faults else 1
        body = {**body, "task_id": document.get("task_id")}
        self.client.publish(f"/conversations/{conversation}/{self.agent}", json.dumps(body), qos=qos)

    # model ------------------------------------------------------------------------

    def verify_model(self) -> None:
        if base := os.environ.get("LLM_BASE_URL"):
            urlopen(f"{base}/models", timeout=5).close()

    def think(self, document: dict[str, Any]) -> str:
        base = os.environ.get("LLM_BASE_URL")
        if base is None:
            return self.unwrapped(f"{self.agent}: {document.get('instruction')} {document['input']}")
        text = f"{document.get('instruction')}\n{json.dumps(document['input'], ensure_ascii=False)}"
        turns: list[dict[str, Any]] = [{"role": "user", "content": text}]
        tool = {"type": "function", "function": {"name": "echo"}} if "bare-tools" in self.faults else TOOL
        while True:
            body = {"model": "any", "messages": turns, "tools": [tool]}
            request = Request(f"{base}/chat/completions", json.dumps(body).encode(), method="POST")
            request.add_header("Content-Type", "application/json")
            try:
                with urlopen(request, timeout=10) as response:
                    message = json.load(response)["choices"][0]["message"]
            except URLError as error:
                told = error.read().decode() if "tells-details" in self.faults else "the model failed"  # type: ignore[attr-defined]
                raise Refused("llm_error", told) from None
            if not message.get("tool_calls"):
                return self.unwrapped(message["content"])
            turns.append(message)
            turns += [self.called(call) for call in message["tool_calls"]]

    def called(self, call: dict[str, Any]) -> dict[str, Any]:
        name, given = call["function"]["name"], json.loads(call["function"]["arguments"])
        if "calls-anything" in self.faults:
            told = "done"
        elif name != "echo":
            told = f"error: there is no tool {name}"
        else:
            told = given["text"] if isinstance(given.get("text"), str) else "error: text is required"
        return {"role": "tool", "tool_call_id": call["id"], "content": told}

    def unwrapped(self, answer: str) -> str:
        if "unwraps-result" in self.faults:
            start, end = answer.find("{"), answer.rfind("}")
            try:
                found = json.loads(answer[start : end + 1])
            except ValueError:
                return answer
            if isinstance(found, dict) and "result" in found:
                return found["result"] if isinstance(found["result"], str) else json.dumps(found["result"])
        return answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--agent", required=True)
    parser.add_argument("--fault", action="append", default=[])
    parser.add_argument("--heartbeat", type=float, default=900.0)
    options = parser.parse_args()
    agent = StandIn(options.agent, set(options.fault), options.heartbeat)
    signal.signal(signal.SIGTERM, lambda *_: agent.over.set())
    agent.run()


if __name__ == "__main__":
    main()
