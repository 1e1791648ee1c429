#!/usr/bin/env bash
# A minute of sound by whisper-1 (0.006 USD) through litellm, by each response_format: none given, json,
# text, srt, vtt and verbose_json. OpenAI's answer says the seconds as json and as verbose_json.
# Guessed: the cost is the same each time, or there is none and a warning as text, which says no seconds.
# Seen:    0.006 without a format, when litellm asks for verbose_json itself, and for verbose_json; 0.0 for
#          json, though the answer says {"type": "duration", "seconds": 60}, and 0.0 for text, srt and vtt.
#          No warning. It measures the file only where soundfile is installed, which its proxy brings.
# Library: litellm 1.110.2
# Matters: subtitles and plain transcripts are free in the program's books, and on no budget of litellm's.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check litellm==1.110.2 \
    openai==3.57.0 \
    httpx==0.28.1 \
    httpx2==2.16.2 \
    pydantic==2.14.4
LITELLM_LOCAL_MODEL_COST_MAP=True timeout 300 venv/bin/python - <<'PROGRAM'
import warnings

warnings.simplefilter("ignore")
import io
import json
import threading
import wave
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

SHORT = {"text": "hi", "usage": {"type": "duration", "seconds": 60}}
LONG = SHORT | {"task": "transcribe", "language": "english", "duration": 60.0, "segments": []}
asked = []


class Whisper(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        form = self.rfile.read(int(self.headers["content-length"]))
        part = form.split(b'name="response_format"\r\n\r\n')[1]
        asked.append(part.split(b"\r\n")[0].decode())
        answer = {"json": json.dumps(SHORT), "verbose_json": json.dumps(LONG)}.get(asked[-1], "hi")
        self.send_response(200)
        self.send_header("content-type", "text/plain" if answer == "hi" else "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())


server = ThreadingHTTPServer(("127.0.0.1", 0), Whisper)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()

import litellm


def sound():
    """Return a minute of silence."""
    file = io.BytesIO()
    file.name = "sound.wav"
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(bytes(2 * 8000 * 60))
    file.seek(0)
    return file


seen = {}
for form in (None, "json", "text", "srt", "vtt", "verbose_json"):
    answer = litellm.transcription(
        model="whisper-1",
        file=sound(),
        api_base=f"http://127.0.0.1:{server.server_port}/v1",
        api_key="none",
        **({"response_format": form} if form else {}),
    )
    seen[form] = round(answer._hidden_params["response_cost"], 6)
print("litellm", version("litellm"), "asked for", asked, "costs", seen)
assert asked == ["verbose_json", "json", "text", "srt", "vtt", "verbose_json"], asked
free = dict.fromkeys(("json", "text", "srt", "vtt"), 0.0)
assert seen == free | {None: 0.006, "verbose_json": 0.006}, seen
PROGRAM
