"""What benches/tensors.rhai measures, in PyTorch (f32, CPU): milliseconds at [n,n], the best of several calls.

    python benches/tensors.py 1024
"""

import sys
import time

import torch
import torch.nn.functional as F

n = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
x, y = torch.randn(n, n), torch.randn(n, n)
positive = torch.exp(x * 0.5)
mask = (torch.rand(n, n) > 0.3).float()
row, column = torch.randn(n, 1), torch.randn(1, n)
index = torch.argsort(y)


def best(f, calls=5):
    f()
    least = 1e9
    for _ in range(calls):
        start = time.perf_counter()
        f()
        least = min(least, (time.perf_counter() - start) * 1e3)
    return least


def line(name, x, f):
    forward = best(lambda: f(x))
    leaf = x.clone().requires_grad_()
    out = f(leaf)
    both = ""
    if out.requires_grad:
        # As there: a product with weights, and a sum.
        weights = out.detach()
        loss = out if out.ndim == 0 else (out * weights).sum()
        both = f"{best(lambda: torch.autograd.grad(loss, leaf, retain_graph=True)):9.2f}"
    print(f"{name:24}{forward:9.2f} {both}")


def whiten(x):
    count = mask.sum()
    mean = (x * mask).sum() / count
    variance = ((x - mean).square() * mask).sum() / count
    return (x - mean) / (variance.sqrt() + 1e-8) * mask


def gae(reward):
    advantage, trace, following = torch.zeros(n, n), torch.zeros(n), torch.zeros(n)
    for t in range(n - 1, -1, -1):
        inside = mask[:, t] != 0
        new = reward[:, t] + 0.99 * following - y[:, t] + 0.99 * 0.95 * trace
        trace, following = torch.where(inside, new, trace), torch.where(inside, y[:, t], following)
        advantage[:, t] = torch.where(inside, trace, 0.0)
    return advantage


def surrogate(x):
    ratio = torch.exp(x - y)
    return (torch.min(ratio * y, ratio.clamp(0.8, 1.2) * y) * mask).sum() / mask.sum()


k3 = lambda x: torch.expm1(y - x) - (y - x)
for name, x0, f in [
    ("x + y", x, lambda x: x + y),
    ("x * y", x, lambda x: x * y),
    ("x / y", x, lambda x: x / positive),
    ("x ** 2", positive, lambda x: torch.pow(x, torch.tensor(2.0))),
    ("x * [n,1]", x, lambda x: x * row),
    ("[n,1] * y", row, lambda x: x * y),
    ("[1,n] * y", column, lambda x: x * y),
    ("exp", x, torch.exp),
    ("log", positive, torch.log),
    ("tanh", x, torch.tanh),
    ("sigmoid", x, torch.sigmoid),
    ("log_sigmoid", x, F.logsigmoid),
    ("softplus", x, F.softplus),
    ("where", x, lambda x: torch.where(mask != 0, x, y)),
    ("clip", x, lambda x: x.clamp(0.8, 1.2)),
    ("min", x, lambda x: torch.min(x, y)),
    ("x > y", x.detach(), lambda x: (x > y).float()),
    ("sum", x, torch.sum),
    ("sum(0)", x, lambda x: x.sum(0)),
    ("sum(1)", x, lambda x: x.sum(1)),
    ("variance", x, torch.var),
    ("variance(1)", x, lambda x: x.var(1)),
    ("max of all", x, torch.max),
    ("softmax", x, lambda x: x.softmax(1)),
    ("softmax(0)", x, lambda x: x.softmax(0)),
    ("log_softmax", x, lambda x: x.log_softmax(1)),
    ("cumsum", x, lambda x: x.cumsum(1)),
    ("argsort", x, torch.argsort),
    ("matmul", x, lambda x: x @ y),
    ("transpose", x, lambda x: x.T.contiguous()),
    ("concat(0)", x, lambda x: torch.cat([x, y])),
    ("concat(1)", x, lambda x: torch.cat([x, y], 1)),
    ("gather", x, lambda x: x.gather(1, index)),
    ("seq_sum", x, lambda x: (x * mask).sum(1)),
    ("seq_avg", x, lambda x: (x * mask).sum(1) / mask.sum(1)),
    ("token_mean", x, lambda x: (x * mask).sum() / mask.sum()),
    ("whiten", x, whiten),
    ("kl::k1", x, lambda x: x - y),
    ("kl::k3", x, k3),
    ("advantage::gae", x.detach(), gae),
    ("randn", x, lambda x: torch.randn(n, n)),
    ("clipped surrogate", x, surrogate),
]:
    line(name, x0, f)
