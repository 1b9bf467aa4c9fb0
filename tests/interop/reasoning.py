#!/usr/bin/env python3
"""Questions with answers that can be checked, from the Python package reasoning-gym, as JSONL:
{"prompt": [{"role": "user", "content": …}], "answer": …}.

setup: python3 -m venv env && env/bin/pip install reasoning-gym
usage: env/bin/python tests/interop/reasoning.py OUT [--size N] [--seed N]      writes OUT/NAME.jsonl for each of `SETS`
"""
import argparse, json, os
import reasoning_gym

SETS = {
    "chain_sum": dict(min_terms=2, max_terms=3, min_digits=1, max_digits=2),
    "basic_arithmetic": {},
    "leg_counting": {},
    "letter_counting": {},
    "countdown": {},
    "spell_backward": {},
    "number_sequence": {},
    "word_sorting": {},
}

ap = argparse.ArgumentParser()
ap.add_argument("out")
ap.add_argument("--size", type=int, default=256)
ap.add_argument("--seed", type=int, default=7)
a = ap.parse_args()
os.makedirs(a.out, exist_ok=True)
for name, options in SETS.items():
    with open(os.path.join(a.out, f"{name}.jsonl"), "w") as f:
        for x in reasoning_gym.create_dataset(name, size=a.size, seed=a.seed, **options):
            row = {"prompt": [{"role": "user", "content": x["question"]}], "answer": x["answer"]}
            f.write(json.dumps(row) + "\n")
