#!/usr/bin/env python3
"""Opens what rhopo saved with transformers and PEFT, and compares what both compute.  usage: check.py REPORT.jsonl

Log-probs, values and scores must agree to 1e-4, of a real model to what its line says; a model that was loaded and saved
must hold the same bytes for every tensor.
"""
import glob, json, os, sys
os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors import safe_open
from transformers import (AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification,
                          AutoTokenizer, logging)

logging.set_verbosity_error()
logging.disable_progress_bar()


def open_model(case):
    options = dict(attn_implementation="eager", dtype=torch.float32)
    kind, dir = case["kind"], case["dir"]
    if kind == "adapter":
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(case["base"], **options), dir)
    if kind == "score-adapter":
        base = AutoModelForSequenceClassification.from_pretrained(case["base"], num_labels=1, **options)
        return PeftModel.from_pretrained(base, dir)
    auto = {"value": AutoModelForTokenClassification, "score": AutoModelForSequenceClassification}
    model, info = auto.get(kind, AutoModelForCausalLM).from_pretrained(dir, output_loading_info=True, **options)
    wrong = {key: found for key, found in info.items() if found}
    assert not wrong, f"{dir}: {wrong}"
    return model


def compute(model, kind, prompt, completion):
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits
    if kind.startswith("score"):
        return logits.reshape(-1).tolist()
    if kind == "value":
        return logits[0, len(prompt) - 1:-1, 0].tolist()
    logp = torch.log_softmax(logits[0, len(prompt) - 1:-1].float(), -1)
    return logp.gather(1, torch.tensor(completion)[:, None])[:, 0].tolist()


def tensors(dir):
    """Type, shape and bytes of every tensor by name."""
    found = {}
    for path in glob.glob(os.path.join(dir, "*.safetensors")):
        if os.path.basename(path).startswith("expected"):
            continue
        with safe_open(path, "pt") as f:
            for name in f.keys():
                t = f.get_tensor(name).contiguous()
                found[name] = (str(t.dtype), tuple(t.shape), t.view(torch.uint8).numpy().tobytes() if t.ndim else b"")
    return found


def same_bytes(case):
    a, b = tensors(case["base"]), tensors(case["dir"])
    assert a.keys() == b.keys(), f"{case['dir']}: {a.keys() ^ b.keys()}"
    exact = [name for name in a if a[name] == b[name]]
    wider = [name for name in a if a[name][0] == "torch.bfloat16" and b[name][0] == "torch.float32"]
    assert len(exact) + len(wider) == len(a), f"{case['dir']}: {[n for n in a if n not in exact + wider]}"
    return f"{len(exact)} of {len(a)} tensors have the same bytes" + (", the rest went from bf16 to f32" if wider else "")


worst, failed = 0.0, 0
for line in open(sys.argv[1]):
    if not line.startswith("{"):
        continue
    case = json.loads(line)
    model = open_model(case).eval()
    gap = 0.0
    for prompt, completion, values in zip(case["prompts"], case["completions"], case["values"]):
        reference = compute(model, case["kind"], prompt, completion)
        gap = max([gap] + [abs(a - b) for a, b in zip(reference, values)])
    note = same_bytes(case) if case["kind"] == "same" else ""
    if os.path.exists(os.path.join(case["dir"], "tokenizer.json")):
        AutoTokenizer.from_pretrained(case["dir"])
    ok = gap < case.get("most", 1e-4)
    failed += not ok
    worst = max(worst, gap)
    print(f"{'ok  ' if ok else 'FAIL'} {case['kind']:14s} {case['dir']:40s} {gap:.1e}  {note}")
print(f"{failed} failed; the largest gap is {worst:.1e}")
sys.exit(failed > 0)
