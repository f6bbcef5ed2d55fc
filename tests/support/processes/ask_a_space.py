"""Start examples/space beside a folder of what it needs, and ask it over HTTP as its visitors do."""

import json
import sys

site, space, *questions = sys.argv[1:]
sys.path += [space, site]  # last: what is here already stays as it is

from app import page  # noqa: E402
from gradio_client import Client  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

_, address, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
client = Client(address, verbose=False, analytics_enabled=False)
answers = []
for question in questions:
    model, criterion = question.split(" ")
    try:
        said, shown, files = client.predict(model, criterion, api_name="/scan")
        texts = [open(file, encoding="utf-8").read() for file in files]  # noqa: SIM115
        answers.append({"said": said, "shown": shown, "scan": json.loads(texts[0]), "report": texts[1]})
    except AppError as error:
        answers.append({"error": str(error)})
page.close()
print(json.dumps(answers))
