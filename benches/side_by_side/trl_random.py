#!/usr/bin/env python3
"""GRPO steps of TRL on a random Qwen2 of the sizes that `rhopo bench` has, on the CPU.

usage: trl_random.py uniform|ragged|tldr|vocab [--steps N] [--threads N]      prints one line of JSON
"""
import argparse, contextlib, io, json, os, random, statistics, tempfile, time

START = time.perf_counter()
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from clock import Clock

# Prompts, answers to each, prompt tokens, answer tokens (exactly, or at most), vocabulary, layers, whether exactly.
SHAPES = {
    "uniform": (16, 8, 8, 32, 256, 6, True),
    # Every token ends an answer with probability 1/32: lengths are geometric, and most of a padded batch is padding.
    "ragged": (16, 8, 8, 256, 32, 6, False),
    "tldr": (4, 8, 512, 53, 256, 6, True),
    "vocab": (2, 8, 16, 64, 151936, 2, True),
}


def letters(count):
    """As many different characters, none of which a tokenizer changes."""
    blocks = [(0x4E00, 20000), (0xF0000, 65000), (0x100000, 65000), (0x20000, 40000)]
    return [chr(start + i) for start, size in blocks for i in range(size)][:count]


def tokenizer(characters):
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2, **{c: i + 3 for i, c in enumerate(characters)}}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    special = dict(pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")
    return PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="left", **special)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("shape", choices=list(SHAPES))
    ap.add_argument("--steps", type=int, default=8)
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    random.seed(0)
    count, group, prompt_tokens, answer_tokens, size, layers, exact = SHAPES[a.shape]
    characters = letters(size - 3)
    model = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=size, hidden_size=256, intermediate_size=768, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=2, eos_token_id=1, pad_token_id=0))
    tokens, clock = [], Clock()

    def reward(prompts, completions, completion_ids, **_):
        tokens.append(sum(map(len, completion_ids)))
        return [random.random() for _ in completions]

    with tempfile.TemporaryDirectory() as folder:
        # TRL opens the reference by the model's name.
        model.save_pretrained(folder), tokenizer(characters).save_pretrained(folder)
        config = GRPOConfig(
            output_dir=os.path.join(folder, "run"), per_device_train_batch_size=count * group, num_generations=group,
            max_completion_length=answer_tokens, learning_rate=1e-5, max_steps=a.steps, logging_steps=1, beta=0.04,
            save_strategy="no", report_to=[], use_cpu=True, gradient_checkpointing=False, bf16=False, disable_tqdm=True,
            generation_kwargs={"min_new_tokens": answer_tokens} if exact else {})
        prompts = [{"prompt": "".join(random.choice(characters) for _ in range(prompt_tokens))} for _ in range(512)]
        trainer = GRPOTrainer(
            model=Qwen2ForCausalLM.from_pretrained(folder), reward_funcs=reward, args=config, callbacks=[clock],
            train_dataset=Dataset.from_list(prompts), processing_class=tokenizer(characters))
        startup = time.perf_counter() - START
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
    first = min(2, a.steps // 3)
    print(json.dumps({
        "seconds": statistics.median(clock.steps[first:]), "steps": [round(s, 3) for s in clock.steps],
        "tokens": statistics.median(tokens[first:]), "startup": round(startup, 2)}))


main()
