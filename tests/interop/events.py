#!/usr/bin/env python3
"""Every number of a run's metrics.jsonl, read back from its event file by TensorBoard itself.

setup: python3 -m venv env && env/bin/pip install tensorboard
usage: env/bin/python tests/interop/events.py RUN...      fails where a number is missing, comes twice or is another
"""
import argparse, json, math, os
import numpy as np
from tensorboard import version
from tensorboard.backend.event_processing import event_accumulator as ea

ap = argparse.ArgumentParser()
ap.add_argument("runs", nargs="+", metavar="RUN")
a = ap.parse_args()
print("tensorboard", version.VERSION)
for run in a.runs:
    events = ea.EventAccumulator(run, size_guidance={ea.SCALARS: 0})
    events.Reload()
    found, times = {}, set()
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            assert (tag, event.step) not in found, f"{tag} comes twice at step {event.step}"
            found[tag, event.step] = event.value
            times.add(event.wall_time)
    tags, compared, odd = {tag for tag, _ in found}, 0, 0
    for line in open(os.path.join(run, "metrics.jsonl")):
        line = json.loads(line)
        if isinstance(line.get("event"), str):
            continue
        step = line.pop("step")
        for name, value in line.items():
            # The names of `rhopo doc metrics` have a group before them, unless a script has logged that name as well.
            held = [tag for tag in (f"train/{name}", f"perf/{name}", name) if (tag, step) in found and tag not in line]
            tag = held[0] if held else name
            assert (tag, step) in found, f"{name} of step {step} is not in the event file"
            got = found.pop((tag, step))
            # JSON has no NaN and no infinity: metrics.jsonl says null.
            same = not math.isfinite(got) if value is None else np.float32(value) == np.float32(got)
            assert same, f"{name} at step {step}: {value} in metrics.jsonl, {got} in TensorBoard"
            compared, odd = compared + 1, odd + (value is None)
    assert not found, f"only in the event file: {sorted(found)}"
    print(f"{run}: {compared} numbers under {len(tags)} tags are the same, {odd} of them no finite number; {len(times)} times")
