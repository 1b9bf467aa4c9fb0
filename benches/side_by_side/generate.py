#!/usr/bin/env python3
"""transformers' `generate` on a checkpoint, on the CPU in f32: sampled from the whole distribution, with a KV cache.
What generate.rhai does in rhopo.

usage: generate.py MODEL PROMPTS.jsonl ROWS TOKENS [--times N] [--threads N]      prints one line of JSON

Eight rows, or the only one, answer a prompt each. The model must not end answers by itself.
"""
import argparse, json, os, statistics, time

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("data")
    ap.add_argument("rows", type=int)
    ap.add_argument("tokens", type=int)
    ap.add_argument("--times", type=int, default=4)
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(a.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32).eval()
    group = min(8, a.rows)
    with open(a.data) as lines:
        prompts = [json.loads(line)["prompt"] for line, _ in zip(lines, range(a.rows // group))]
    texts = [tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True) for p in prompts]
    texts = [text for text in texts for _ in range(group)]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    steps = []
    for _ in range(a.times):
        start = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(
                **inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=a.tokens, use_cache=True)
        steps.append(time.perf_counter() - start)
        new = out.shape[1] - inputs["input_ids"].shape[1]
        assert new == a.tokens, f"{new} new tokens, expected {a.tokens}"
    print(json.dumps({
        "seconds": statistics.median(steps[1:]), "steps": [round(s, 3) for s in steps], "tokens": a.rows * a.tokens}))


main()
