"""Evaluation of a tiny model on a local task, without a network, against the model's own log-likelihoods."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
for library in ("lm_eval", "transformers", "peft", "datasets"):
    pytest.importorskip(library, reason="needs the evaluation and training libraries")

from spectrum_fast.errors import CheckpointError, UsageError  # noqa: E402
from spectrum_fast.use.cli import main  # noqa: E402
from spectrum_fast.use.evaluation import evaluate  # noqa: E402

from support import tiny_models  # noqa: E402

QUESTIONS = [
    {"question": "the old cat", "choices": ["sees the dog", "tree tree tree"], "answer": index % 2}
    for index in range(6)
] + [{"question": "a small house", "choices": ["in the red tree", "runs and runs"], "answer": 1}] * 3
TASK = """\
task: tiny_choice
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory):
    """No network, and a cache that goes with the test."""
    patch = pytest.MonkeyPatch()
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        patch.setenv(name, "1")
    import datasets

    patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    size = tiny_models.write_tokenizer(folder)
    tiny_models.make_model("llama", size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    data = folder / "test.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    path = folder / "tiny_choice.yaml"
    path.write_text(TASK.format(data=data))
    return path


def accuracy(model: Path) -> float:
    """The share of questions whose right choice has the largest log-likelihood, from the model's own logits."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    network = transformers.AutoModelForCausalLM.from_pretrained(model).eval()

    def likelihood(question: str, choice: str) -> float:
        start = len(tokenizer(question)["input_ids"])
        tokens = torch.tensor([tokenizer(f"{question} {choice}")["input_ids"]])
        with torch.no_grad():
            logs = network(tokens).logits[0].float().log_softmax(-1)
        return sum(float(logs[place - 1, tokens[0, place]]) for place in range(start, tokens.shape[1]))

    right = 0
    for entry in QUESTIONS:
        scores = [likelihood(entry["question"], choice) for choice in entry["choices"]]
        right += scores.index(max(scores)) == entry["answer"]
    return right / len(QUESTIONS)


def test_accuracy_is_the_models_own(model: Path, task: Path) -> None:
    found = evaluate(model, [str(task)], batch_size="2", device="cpu")
    assert found["tasks"]["tiny_choice"]["acc,none"] == pytest.approx(accuracy(model))
    assert json.loads((model / "results.json").read_text()) == found
    assert found["method"] is None


def test_the_command_evaluates_an_adapter(model: Path, task: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    import peft
    import transformers

    base = transformers.AutoModelForCausalLM.from_pretrained(model)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", base_model_name_or_path=str(model))
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"method": "lora"}')
    arguments = ["eval", str(tmp_path / "run"), "--task", str(task), "--batch-size", "2", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["spectrum-fast", *arguments])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 0
    document = json.loads((tmp_path / "run" / "results.json").read_text())
    assert document["method"] == "lora"
    assert document["tasks"]["tiny_choice"]["acc,none"] == pytest.approx(accuracy(model))  # B is zero at the start
    assert "tiny_choice  acc,none" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tasks", "options", "message"),
    [
        (["{task}", "{task}"], {}, "each task once"),
        (["missing.yaml"], {}, "missing.yaml"),
        (["{task}"], {"limit": 0}, "limit: expected"),
        (["{task}"], {"batch_size": "many"}, "batch_size: expected"),
        ([], {}, "no task"),
    ],
)
def test_bad_usage_is_refused_and_writes_nothing(
    model: Path, task: Path, tasks: list[str], options: dict, message: str
) -> None:
    before = (model / "results.json").read_bytes() if (model / "results.json").exists() else None
    with pytest.raises(UsageError, match=message):
        evaluate(model, [name.format(task=task) for name in tasks], device="cpu", **options)
    assert before == ((model / "results.json").read_bytes() if (model / "results.json").exists() else None)


def test_task_files_are_checked(tmp_path: Path, model: Path) -> None:
    for text, message in (("a: [", "expected a task file in YAML"), ("metric: acc", "its name under `task`")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(UsageError, match=message):
            evaluate(model, [str(tmp_path / "bad.yaml")])


def test_folders_without_a_model_are_refused(tmp_path: Path, task: Path) -> None:
    with pytest.raises(CheckpointError, match="expected the folder of a run"):
        evaluate(tmp_path / "nowhere", [str(task)])
    with pytest.raises(CheckpointError, match=r"expected config\.json or adapter_config\.json"):
        evaluate(tmp_path, [str(task)])
