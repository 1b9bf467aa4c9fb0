#!/usr/bin/env python3
"""GRPO steps of TRL on a checkpoint, on the CPU in f32: 4 prompts × 8 answers of at most 64 tokens, beta 0.04. What
grpo.rhai does in rhopo.

usage: trl_checkpoint.py MODEL PROMPTS.jsonl [--steps N] [--threads N]      prints one line of JSON
"""
import argparse, contextlib, io, json, os, statistics, tempfile, time

START = time.perf_counter()
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from clock import Clock


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("data")
    ap.add_argument("--steps", type=int, default=4)
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    tokens, rewards, clock = [], [], Clock()

    def reward(prompts, completions, completion_ids, answer, **_):
        tokens.append(sum(map(len, completion_ids)))
        found = [float(right in answer[0]["content"]) for right, answer in zip(answer, completions)]
        rewards.append(sum(found) / len(found))
        return found

    with open(a.data) as lines, tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, per_device_train_batch_size=32, num_generations=8, max_completion_length=64, beta=0.04,
            learning_rate=1e-6, max_steps=a.steps, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True,
            gradient_checkpointing=False, bf16=False, disable_tqdm=True, model_init_kwargs={"dtype": "float32"})
        data = Dataset.from_list([json.loads(line) for line in lines])
        trainer = GRPOTrainer(model=a.model, reward_funcs=reward, args=config, train_dataset=data, callbacks=[clock])
        startup = time.perf_counter() - START
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
    print(json.dumps({
        "seconds": statistics.median(clock.steps[1:]), "steps": [round(s, 2) for s in clock.steps],
        "tokens": statistics.median(tokens[1:]), "rewards": rewards, "startup": round(startup, 1)}))


main()
