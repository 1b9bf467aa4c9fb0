"""What others reach on the same card: Qwen2 of 0.5B and 1.5B with random weights, in transformers.

Training is a forward and a backward pass over rows of 256 + 768 tokens, and a step of fused AdamW: bf16 with f32 master
weights, PyTorch's scaled dot-product attention. A row here holds its own prompt: transformers shares none between rows.
Sampling is `generate_batch`, transformers' continuous batching over pages. Prints one line for each figure.

usage: python3 tests/device/peer.py [--small]

--small: a tiny model on whatever device there is, to rehearse the script
"""

import sys
import time

import torch
import transformers
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

SMALL = "--small" in sys.argv
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VOCABULARY = 512 if SMALL else 151936
PROMPT, ANSWER = (16, 32) if SMALL else (256, 768)
ROWS = 4 if SMALL else 32
# Rows of a pass: as many as fit with their logits.
AT_ONCE = 2 if SMALL else 4
TIMES = 2 if SMALL else 3

SHAPES = {
    "0.5B": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14),
    "1.5B": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12),
}
if SMALL:
    SHAPES = {"tiny": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)}


def wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def median(work, times=TIMES):
    """Seconds of the median of several, after one that is not timed."""
    work()
    seconds = []
    for _ in range(times):
        wait()
        start = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[times // 2]


def model_of(shape):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY, num_key_value_heads=2, tie_word_embeddings=True, max_position_embeddings=4096, **shape
    )
    config._attn_implementation = "sdpa"
    return Qwen2ForCausalLM(config).to(DEVICE)


def operations(model, tokens, length):
    """Of a forward and a backward pass: 6 for a weight and a token, and the attention, half of it for causality."""
    config = model.config
    head = config.hidden_size // config.num_attention_heads
    attention = 12 * config.num_hidden_layers * config.num_attention_heads * head * length * tokens // 2
    return 6 * sum(p.numel() for p in model.parameters()) * tokens + attention


def train(name, shape):
    model = model_of(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=DEVICE == "cuda")
    length = PROMPT + ANSWER
    ids = torch.randint(0, VOCABULARY, (ROWS, length), device=DEVICE)

    def step():
        for part in ids.split(AT_ONCE):
            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                logits = model(part, use_cache=False).logits[:, PROMPT - 1 : -1]
            targets = part[:, PROMPT:]
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")
            (loss / (ROWS * ANSWER)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = median(step)
    tera = operations(model, ROWS * length, length) / seconds / 1e12
    peak = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else 0
    told = f"{seconds * 1e3:.0f} ms, {ROWS * length / seconds:.0f} tokens/s, {tera:.1f} TFLOP/s, {peak:.1f} GiB"
    print(f"peer train {name}: {told}", flush=True)


def sample(name, shape):
    model = model_of(shape).to(torch.bfloat16).eval()
    answer = 8 if SMALL else 512
    prompts = torch.randint(3, VOCABULARY, (ROWS if SMALL else 512, PROMPT)).tolist()
    # No token ends an answer, so that all have one length.
    config = GenerationConfig(max_new_tokens=answer, eos_token_id=-1, pad_token_id=0, do_sample=True, temperature=1.0)
    start = time.perf_counter()
    answers = model.generate_batch(inputs=prompts, generation_config=config)
    wait()
    seconds = time.perf_counter() - start
    tokens = sum(len(answer.generated_tokens) for answer in answers.values())
    print(f"peer sample {name}: {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} tokens/s", flush=True)


def main():
    card = torch.cuda.get_device_name() if DEVICE == "cuda" else "no GPU"
    print(f"peer: torch {torch.__version__}, transformers {transformers.__version__}, {card}", flush=True)
    wrong = 0
    for work in (train, sample):
        for name, shape in SHAPES.items():
            try:
                work(name, shape)
            except Exception as e:  # One figure that cannot be had is no reason to have none.
                wrong += 1
                told = (str(e).splitlines() or [""])[0]
                print(f"peer {work.__name__} {name}: {type(e).__name__}: {told}", flush=True)
            if DEVICE == "cuda":
                torch.cuda.empty_cache()
    sys.exit(1 if wrong else 0)


main()
