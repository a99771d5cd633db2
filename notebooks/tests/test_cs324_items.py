"""CS324, item by item of the sheet: our LSTM and GAN, or somebody's (--answers cs324=PATH).

The sheet gives the files, equations (1) to (10) and the template's names and defaults. A
constructor may also take batch_size and device; weights may be (in, out) or (out, in),
parameters or nn.Linear; forward may return p, its softmax or the logarithm of that. Where
the weights have the equations' names, p is compared with the equations, else by behaviour.
"""

import argparse
import inspect
import re
from functools import partial

import pytest
import torch
from items import Finding, attempt, expect, explained
from torch import nn
from torch.nn import functional

import helpers  # noqa: F401 (lets torchvision be imported beside a CPU-only torch)

SIZES = {  # of a constructor's arguments, by what their names look like
    "batch": "B",
    "device": "device",
    "len|seq": "T",
    "hid": "H",
    "out|class": "K",
    r"^(n_|num_)?in(put)?s?(_|$)": "D",
}


def item(name, checked, **options):
    return pytest.mark.item(f"cs324 {name}", checked, **options)


# ------------------------------------------------------------------------ part I: LSTM
def build(answer, **sizes):
    """An LSTM for T inputs of D numbers, H units, K classes, batches of B; its call."""
    cls = answer.get("lstm.py", "LSTM")
    arguments, sizes = {}, sizes | {"device": "cpu"}
    parameters = inspect.signature(cls).parameters.values()
    for parameter, usual in zip(parameters, [*"TDHKB", "device"]):
        fits = [key for name, key in SIZES.items() if re.search(name, parameter.name)]
        if fits or parameter.default is parameter.empty:
            arguments[parameter.name] = sizes[[*fits, usual][0]]
    call = f"LSTM({', '.join(map(str, arguments.values()))})"
    model = attempt(call, lambda: cls(**arguments), "the template's LSTM")
    for module in model.modules():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            found = f"nn.{type(module).__name__}"
            raise Finding(f"the parts of {call}", found, "task 1: equations (1) to (7)")
    return model, call


def log_p(model, x, K, call):
    """log of (8) for inputs (B, T, D), or (B, T) where the answer wants these."""
    error, forms = None, [x] if x.shape[2] > 1 else [x, x[:, :, 0], x[:, :, 0].long()]
    for form in forms:
        try:
            result = model(form)
            result = result[0] if isinstance(result, tuple) else result
            result = result[:, -1] if result.ndim == 3 else result
        except Exception as problem:  # noqa: BLE001 (perhaps another form)
            error = error or explained(problem)
            continue
        if result.shape != (len(x), K):
            error = error or f"of shape {tuple(result.shape)}"
            continue
        if (result >= 0).all() and torch.allclose(result.sum(1), torch.ones(len(x))):
            return result.log()
        return functional.log_softmax(result, dim=1)
    called = f"{call}(x) for x {tuple(x.shape)}"
    raise Finding(called, error, f"of shape {(len(x), K)}: p of the last step")


def named(model):
    """The parameters by their names in the equations: {"gx": W_gx, ..., "g": [b_g]}."""
    found = {gate: [] for gate in "gifop"}
    for name, parameter in model.named_parameters():
        key = re.sub("weight|linear|layer|gate|[^a-z]|w", "", name.lower())
        if "b" in key:
            found.get(re.sub("bias|b|x|(?<=.)h|h(?=.)", "", key), []).append(parameter)
        elif parameter.ndim == 2:
            found["".join(sorted(key, key="gifopxh".find))] = parameter
    wanted = {*"gifop", "ph", *(gate + part for gate in "gifo" for part in "xh")}
    return found if wanted <= set(found) else None


def equations(x, found, turned):
    """log of (8) by equations (1) to (8); `turned`: W_gh ... are (in, out)."""
    H = found["gh"].shape[0]
    W = {name: p.detach() for name, p in found.items() if len(name) == 2}
    for name, w in W.items():  # (in, out) from now on
        is_out_in = not turned if w.shape == (H, H) else w.shape[name != "ph"] != H
        W[name] = w.T if is_out_in else w
    b = {gate: sum(p.detach().flatten() for p in found[gate]) for gate in "gifop"}
    h = c = torch.zeros(len(x), H)
    for x_t in x.unbind(1):
        a = {k: x_t @ W[f"{k}x"] + h @ W[f"{k}h"] + b[k] for k in "gifo"}
        c = a["g"].tanh() * a["i"].sigmoid() + c * a["f"].sigmoid()
        h = c.tanh() * a["o"].sigmoid()
    return functional.log_softmax(h @ W["ph"] + b["p"], dim=1)


@torch.no_grad()
def differs(model, found, x, call, only="gifo"):
    """Whether p differs from the equations, with no weights but those of gates `only`."""
    generator = torch.Generator().manual_seed(0)
    for name, parameters in found.items():
        for p in parameters if isinstance(parameters, list) else [parameters]:
            p.copy_(torch.randn(p.shape, generator=generator))
            if name[0] not in (*only, "p"):
                p.fill_(float(name == "g"))
    log_p(model, x, 5, call)  # a state that is kept would show in the second call
    result = log_p(model, x, 5, call)
    wanted = [equations(x, found, turned) for turned in (False, True)]
    good = any(torch.allclose(result, w, 1e-4, 1e-4) for w in wanted)
    return None if good else (result, wanted[0].numpy())


def check_behaviour(answer):
    model, call = build(answer, T=4, D=1, H=8, K=10, B=3)
    x = torch.tensor([[1.0, 2, 3, 2], [4, 0, 0, 9], [5, 5, 7, 1]])[:, :, None]
    result = log_p(model, x, 10, call)
    again, turned = log_p(model, x, 10, call), log_p(model, x.flip(0), 10, call).flip(0)
    expect(f"{call}(x), called twice", again, result.detach().numpy(), "h(0) = 0")
    expect(f"{call}(x), rows turned", turned, result.detach().numpy(), "row by row")
    for t in range(4):
        other = x.clone()
        other[0, t] = 8
        changed = (log_p(model, other, 10, call) - result).abs().amax(1) > 1e-6
        called = f"rows of {call}(x) that change with digit {t + 1} of the first row"
        expect(called, changed.float(), [1.0, 0, 0], "(1) to (8)")
    result.sum().backward()


@item("I.1", "LSTM.forward: p(T) by equations (1) to (8), h(0) = 0")
def test_lstm(answer, record_property):
    model, call = build(answer, T=3, D=3, H=4, K=5, B=2)
    found = named(model)
    record_property("how", "by equation" if found else "by behaviour")
    if not found:
        return check_behaviour(answer)
    for gate in "gifop":
        if not found[gate]:
            raise Finding(
                f"parameters of {call}", f"no b_{gate}", "equations (1) to (7)"
            )
    x = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1))
    if pair := differs(model, found, x, call):
        wrong = [
            f"({k})"
            for k, g in enumerate("gifo", 1)
            if differs(model, found, x, call, g)
        ]
        by = (
            "equation " + wrong[0]
            if len(wrong) == 1
            else "equations " + " ".join(wrong)
        )
        by = by if 0 < len(wrong) < 4 else "equations (5) to (8), h(0) = 0"
        expect(f"log softmax of {call}(x), x of shape (2, 3, 3)", *pair, by)
    log_p(model, x, 5, call)[:, 0].sum().backward()
    for name, p in model.named_parameters():
        if p.grad is None or not p.grad.any():
            raise Finding(
                f"gradient of {name} of {call}", "none", "task 1: it is trained"
            )


def palindromes(count):
    """Inputs (count, 4, 1) and the last digits (count,) of palindromes with T = 5."""
    left = torch.randint(10, (count, 3))
    return left[:, [0, 1, 2, 1], None].float(), left[:, 0]


@item("I.2", "T = 5 is learned with the template's defaults, in 1,200 steps", times=3)
def test_palindromes_are_learned(answer):
    torch.manual_seed(0)
    model, call = build(answer, T=4, D=1, H=128, K=10, B=128)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.001)
    step, recent = 0, 0.0  # accuracy, a moving average over 20 steps
    while recent < 0.98 and step < (1200 if recent > 0.5 else 400):
        step += 1
        x, digit = palindromes(128)
        result = log_p(model, x, 10, call)
        optimizer.zero_grad()
        functional.nll_loss(result, digit).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        recent += ((result.argmax(1) == digit).float().mean().item() - recent) / 20
    called = f"accuracy of {call} after {step} steps"
    expect(called, recent, 1.0, "task 2: close to perfect", margin=0.05)


@item("I.2", "one palindrome is predicted as it is in a mini-batch")
def test_batch_size(answer):
    torch.manual_seed(0)
    model, call = build(answer, T=4, D=1, H=8, K=10, B=4)
    x, _ = palindromes(4)
    batch = log_p(model, x, 10, call)[:1].detach().numpy()
    first = partial(log_p, model, x[:1], 10, call)
    expect(f"{call}(x[:1]), x 4 palindromes", first, batch, "as x[:1] in x, task 2")


# ------------------------------------------------------------------------- part II: GAN
def networks(answer):
    """A generator, a discriminator, noise for 16 images, and the module."""
    module = answer.load("my_gan.py")
    defaults = {"n_epochs": 1, "batch_size": 16, "lr": 2e-4, "latent_dim": 100}
    if not hasattr(module, "args"):  # the template makes it when it is run
        module.args = argparse.Namespace(**defaults, save_interval=10**9)
    torch.manual_seed(0)
    made, latent = [], 100
    for name in ("Generator", "Discriminator"):
        cls, arguments = answer.get("my_gan.py", name), {}
        for parameter in inspect.signature(cls).parameters.values():
            if parameter.default is parameter.empty:
                arguments[parameter.name] = latent
            elif re.search("latent|noise|z_dim", parameter.name):
                latent = parameter.default
        make = partial(cls, **arguments)
        made.append(attempt(f"{name}({arguments or ''})", make, "the template's class"))
    return *made, torch.randn(16, latent), module


def scores(discriminator, images):
    """One number for each image; some discriminators want the images flat."""
    try:
        return discriminator(images).flatten()
    except RuntimeError:
        return discriminator(images.flatten(1)).flatten()


def check_training(answer, frozen):
    """What (10) wants of the template's `train` when one of the networks is frozen.

    D then scores the given images higher and generated ones lower; G is scored higher.
    """
    generator, discriminator, z, module = networks(answer)
    real = 2 * torch.rand(320, 1, 28, 28).round() - 1
    data = [(images, torch.zeros(16)) for images in real.split(16)]
    rates = {"G": 2e-3, "D": 2e-3} | {frozen: 0.0}
    optimizers = [
        torch.optim.Adam(network.parameters(), lr=rate)
        for network, rate in zip((generator, discriminator), rates.values())
    ]

    @torch.no_grad()
    def value():
        generated = scores(discriminator, generator(z)).mean()
        given = scores(discriminator, real[:16]).mean() if frozen == "G" else 0
        return (given - generated if frozen == "G" else generated).item()

    before = value()
    called = f"20 steps of train(...) with {frozen} frozen, mean score"
    wanted = "given images up, generated down" if frozen == "G" else "generated up"
    arguments = data, discriminator, generator, optimizers[0], optimizers[1]
    attempt(called, lambda: module.train(*arguments), wanted)
    if value() <= before:
        called += ": given − generated" if frozen == "G" else ": generated"
        raise Finding(called, f"from {before:.4f} to {value():.4f}", f"{wanted}, (10)")


TEMPLATE = ["dataloader", "discriminator", "generator", "optimizer_G", "optimizer_D"]


@item("II.1", "GAN: noise to (N, 1, 28, 28), image to score, equation (10)")
def test_gan(answer, record_property, tmp_path, monkeypatch):
    generator, discriminator, z, module = networks(answer)
    call = f"Generator()(z) for z {tuple(z.shape)}"
    images = attempt(call, lambda: generator(z), "16 images of 28 x 28 pixels")
    expect(f"number of pixels of {call}", images.numel(), 16 * 784, "MNIST")
    images = images.view(16, 1, 28, 28)
    if torch.allclose(images[0], images[1]):
        raise Finding(
            f"{call}: images 0 and 1", "equal", "images that differ as z does"
        )
    call = "Discriminator()(images) for 16 images"
    wanted = "a score for each"
    result = attempt(call, lambda: scores(discriminator, images), wanted)
    expect(f"number of scores of {call}", len(result), 16, wanted)
    result.sum().backward()
    for name, p in [*generator.named_parameters(), *discriminator.named_parameters()]:
        if p.grad is None:
            raise Finding(
                f"gradient of D(G(z)) by {name}", "none", "(10): it is trained"
            )
    train = getattr(module, "train", None)
    if train and list(inspect.signature(train).parameters) == TEMPLATE:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "images").mkdir()
        for frozen in "GD":
            check_training(answer, frozen)
        record_property("how", "with train()")
    else:
        record_property("how", "networks only")
