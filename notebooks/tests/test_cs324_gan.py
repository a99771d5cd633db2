"""CS324, the GAN: losses, modules, training, the judge, the command lines."""

import copy
import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import compare_designs
import judge
import matplotlib.pyplot as plt
import my_gan
import programs
import pytest
import torch

import helpers

TINY = ["--n_epochs", "1", "--batch_size", "8", "--save_interval", "5"]
TINY += ["--latent_dim", "3", "--device", "cpu"]


def tiny_images(count=100):
    return torch.rand(count, 28, 28, generator=torch.Generator().manual_seed(1))


def tiny_trainer(images=None, networks=None, **options):
    """A trainer of 12 steps on random images."""
    images = tiny_images() if images is None else images
    config = my_gan.Config(
        **{"n_epochs": 1, "batch_size": 8, "device": "cpu"} | options
    )
    networks = networks or (my_gan.Generator, my_gan.Discriminator)
    return my_gan.Trainer(images, config, networks)


@pytest.fixture
def few_images(monkeypatch):
    """The programs see 100 random images in place of MNIST: 12 steps of 8."""
    labels = torch.arange(100) % 10
    data = helpers.ImageData(
        "MNIST", tiny_images(), labels, tiny_images(), labels, True
    )
    monkeypatch.setattr(helpers, "load_mnist", lambda: data)


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


# ------------------------------------------------------------------------------ losses
def test_losses_are_equation_10_and_its_non_saturating_form():
    real, fake = torch.linspace(-3, 3, 7), torch.linspace(-4, 2, 9)
    d_real, d_fake = real.sigmoid(), fake.sigmoid()
    value = d_real.log().mean() + (1 - d_fake).log().mean()
    close = torch.testing.assert_close
    close(my_gan.discriminator_loss(real, fake), -value)
    close(my_gan.generator_loss(fake), -d_fake.log().mean())


def test_losses_stay_finite_where_the_logarithm_of_a_rounded_zero_would_not():
    huge = torch.tensor([200.0])
    assert my_gan.discriminator_loss(-huge, huge) == 400
    assert my_gan.generator_loss(-huge) == 200


def test_gradient_penalty_of_a_linear_discriminator():
    weight = torch.randn(28 * 28, requires_grad=True)

    def discriminator(images):
        return images.flatten(1) @ weight

    penalty = my_gan.gradient_penalty(discriminator, torch.rand(5, 1, 28, 28))
    torch.testing.assert_close(penalty, weight.square().sum() / 2)
    penalty.backward()
    torch.testing.assert_close(weight.grad, weight.detach())


# ----------------------------------------------------------------------------- modules
@pytest.mark.parametrize("name", compare_designs.DESIGNS)
@pytest.mark.parametrize("count", [2, 7])
def test_modules_take_any_number_of_images_and_train_every_parameter(name, count):
    make_generator, make_discriminator = compare_designs.DESIGNS[name][1]
    generator, discriminator = make_generator(5), make_discriminator()
    images = generator(torch.randn(count, 5))
    assert images.shape == (count, 1, 28, 28) and images.abs().max() <= 1
    logits = discriminator(images)
    assert logits.shape == (count,)
    logits.sum().backward()
    for module in (generator, discriminator):
        for parameter in module.parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0


def test_one_image_passes_in_evaluation():
    image = my_gan.Generator(5).eval()(torch.randn(1, 5))
    assert my_gan.Discriminator()(image).shape == (1,)


def test_minibatch_deviation_is_the_mean_deviation_of_the_batch():
    x = torch.tensor([[1.0, 10.0], [3.0, 10.0]]).reshape(2, 2, 1, 1)
    y = my_gan.MinibatchDeviation()(x)
    assert torch.equal(y[:, :2], x)
    torch.testing.assert_close(
        y[:, 2:], torch.full((2, 1, 1, 1), 0.5), atol=1e-3, rtol=0
    )


# ---------------------------------------------------------------------------- training
def test_each_epoch_visits_every_image_once_in_a_new_order():
    trainer = tiny_trainer(tiny_images(24))
    epochs = [torch.cat([trainer.batch() for _ in range(3)]) for _ in range(2)]
    rows = [{image.numpy().tobytes() for image in epoch} for epoch in epochs]
    assert rows[0] == rows[1] and len(rows[0]) == 24
    assert not torch.equal(*epochs)


def test_training_counts_epochs_of_whole_batches():
    assert tiny_trainer(n_epochs=3).total_steps == 3 * (100 // 8)


def test_a_step_updates_each_network_by_its_own_loss():
    trainer = tiny_trainer()
    before_d = copy.deepcopy(trainer.discriminator.state_dict())
    before_g = copy.deepcopy(trainer.generator.state_dict())
    trainer.optimizer_g.step = lambda: None  # the generator stands still ...
    trainer.step()
    changed = [
        not torch.equal(value, before_d[name])
        for name, value in trainer.discriminator.state_dict().items()
    ]
    assert all(changed)
    for name, parameter in trainer.generator.named_parameters():
        assert torch.equal(parameter, before_g[name])
    trainer = tiny_trainer()
    trainer.optimizer_d.step = lambda: None  # ... or the discriminator does
    trainer.step()
    assert_same(trainer.discriminator.state_dict(), before_d)
    for name, parameter in trainer.generator.named_parameters():
        assert not torch.equal(parameter, before_g[name])


@pytest.mark.parametrize(
    "hold, share", [(0.0, 1 / 12), (0.5, 1 / 6), (0.75, 1 / 3), (1.0, 1)]
)
def test_learning_rate_falls_after_hold_and_history_is_kept(hold, share):
    trainer, rates = tiny_trainer(lr=0.01, hold=hold), []
    group = trainer.optimizer_d.param_groups[0]
    trainer.train(after_step=lambda count: rates.append(group["lr"]))
    assert rates.count(0.01) == min(12 * hold + 1, 12)
    assert rates[-1] == pytest.approx(0.01 * share)
    assert rates == sorted(rates, reverse=True)
    assert [len(values) for values in trainer.history.values()] == [12] * 4
    assert all(0 < p < 1 for p in trainer.history["d_real"] + trainer.history["d_fake"])


def test_average_follows_the_generator():
    trainer = tiny_trainer(ema=0.0)
    trainer.train()
    pairs = zip(
        trainer.averaged_generator().parameters(), trainer.generator.parameters()
    )
    assert all(torch.equal(average, current) for average, current in pairs)
    trainer = tiny_trainer(ema=0.9)
    trainer.step()
    before = [p.clone() for p in trainer.average.parameters()]
    trainer.step_count, trainer.config = 10**6, trainer.config
    trainer.update_average()
    triples = zip(before, trainer.average.parameters(), trainer.generator.parameters())
    for old, average, current in triples:
        torch.testing.assert_close(average, 0.9 * old + 0.1 * current)


def test_generator_learns_the_only_image_there_is():
    image = torch.zeros(28, 28)
    image[8:20, 10:18] = 1
    trainer = tiny_trainer(image.repeat(160, 1, 1), n_epochs=10, batch_size=16, ema=0.0)
    error = []
    for _ in range(2):
        drawn = my_gan.draw(trainer.averaged_generator(), trainer.fixed_noise(20))
        assert drawn.shape == (20, 28, 28) and drawn.min() >= 0 and drawn.max() <= 1
        error.append((drawn - image).abs().mean().item())
        trainer.train()
    assert error[0] > 0.4 and error[1] < 0.2


def test_result_does_not_depend_on_the_threads():
    runs = []
    for count in (1, 2, 4):
        with programs.threads(count):
            trainer = tiny_trainer(batch_size=50, n_epochs=3)
            trainer.train()
            runs.append(trainer.history["loss_d"])
    assert runs[0] == runs[1] == runs[2]


def test_diverged_training_is_an_error():
    trainer = tiny_trainer(lr=1e30)
    with pytest.raises(FloatingPointError, match="at step [0-9]+: lr 1e.30"):
        trainer.train()


@pytest.mark.parametrize(
    "spoil",
    [lambda x: 255 * x, lambda x: x - 0.1, lambda x: x / 0, lambda x: x[:, :27]],
)
def test_images_that_are_no_grey_values_are_refused(spoil):
    with pytest.raises(ValueError, match=r"images must be \(N, 28, 28\)"):
        tiny_trainer(spoil(tiny_images().round()))


@pytest.mark.parametrize("stop", [1, 7, 12])
def test_resumed_training_ends_with_the_same_generator(stop, tmp_path):
    whole = tiny_trainer()
    whole.train()
    first = tiny_trainer()
    first.train(until=stop)
    torch.save(first.state_dict(), tmp_path / "checkpoint")
    second = tiny_trainer()
    second.load_state_dict(torch.load(tmp_path / "checkpoint"))
    second.train()
    assert_same(
        whole.averaged_generator().state_dict(),
        second.averaged_generator().state_dict(),
    )
    assert_same(whole.discriminator.state_dict(), second.discriminator.state_dict())
    assert whole.history == second.history


def test_seed_decides():
    runs = []
    for seed in (0, 0, 1):
        trainer = tiny_trainer(seed=seed)
        trainer.train(until=3)
        runs.append(trainer.history["loss_d"])
    assert runs[0] == runs[1] != runs[2]


def test_checkpoint_of_other_images_is_refused():
    state = tiny_trainer(tiny_images(96)).state_dict()
    with pytest.raises(ValueError, match="made with 96 images, got 100"):
        tiny_trainer().load_state_dict(state)


def test_batch_size_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at most 100, got 101"):
        tiny_trainer(batch_size=101)


@pytest.mark.parametrize("name", ["beta1", "beta2", "ema"])
def test_decay_of_one_is_refused(name):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\), got 1.0"):
        my_gan.Config(**{name: 1.0})


# ------------------------------------------------------------------------------- judge
def test_judge_learns_digits():
    data = helpers.load_mnist(helpers.DATA / "sample")
    images, labels = data.train_images[:1000], data.train_labels[:1000]
    trained = judge.train_judge(images, labels, n_epochs=8)
    features, probabilities = judge.read(trained, data.test_images)
    assert features.shape == (1000, 128) and probabilities.shape == (1000, 10)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1000))
    assert (probabilities.argmax(dim=1) == data.test_labels).float().mean() > 0.8


def test_confident_share_and_histogram_by_hand():
    probabilities = torch.tensor([[0.95, 0.05], [0.9, 0.1], [0.2, 0.8], [0.0, 1.0]])
    assert judge.confident_share(probabilities) == 0.5  # 0.9 is not over 0.9
    assert judge.class_histogram(probabilities).tolist() == [2, 2]


def test_class_kl_by_hand():
    assert judge.class_kl(torch.eye(10).repeat(3, 1)) == pytest.approx(0, abs=1e-12)
    assert judge.class_kl(torch.eye(10)[[4, 4]]) == pytest.approx(math.log(10))
    assert judge.class_kl(torch.eye(10)[:5]) == pytest.approx(math.log(2))


def test_frechet_distance_of_a_moved_and_stretched_set():
    features = torch.randn(500, 8, generator=torch.Generator().manual_seed(0)).double()
    shift = torch.arange(8) / 8
    moved = judge.frechet_distance(features + shift, features)
    assert moved == pytest.approx(shift.square().sum().item())
    mean, trace = features.mean(dim=0), features.T.cov().trace()
    stretched = judge.frechet_distance(3 * features, features)
    assert stretched == pytest.approx((4 * (mean.square().sum() + trace)).item())
    assert judge.frechet_distance(features, features) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("rows", [torch.zeros(0, 8), torch.zeros(1, 8)])
@pytest.mark.parametrize("first", [True, False])
def test_frechet_distance_of_fewer_than_two_rows_is_refused(rows, first):
    other = torch.randn(5, 8)
    with pytest.raises(ValueError, match=f"at least two rows, got {len(rows)}"):
        judge.frechet_distance(*((rows, other) if first else (other, rows)))


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="must be finite"):
        judge.frechet_distance(torch.full((5, 128), math.nan), torch.randn(5, 128))
    with pytest.raises(ValueError, match="must be finite"):
        judge.read(judge.Judge().eval(), torch.full((2, 28, 28), math.nan))


# ------------------------------------------------------------------------ command line
@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit) as end:
        my_gan.main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    for action in my_gan.build_parser()._actions:
        assert action.help and action.option_strings[-1] in text


@pytest.mark.parametrize(
    "flag, value",
    [
        ("--n_epochs", "-1"),
        ("--n_epochs", "two"),
        ("--batch_size", "1"),
        ("--batch_size", "2.5"),
        ("--lr", "0"),
        ("--lr", "nan"),
        ("--lr", "inf"),
        ("--beta1", "1.0"),
        ("--hold", "-0.5"),
        ("--latent_dim", "0"),
        ("--save_interval", "0"),
        ("--seed", "-1"),
        ("--device", "abacus"),
        ("--device", "meta"),
        ("--save", "nowhere/generator.pt"),
        ("--images", "file.txt"),
    ],
)
def test_bad_value_is_refused_before_any_work(flag, value, here, monkeypatch, capsys):
    (here / "file.txt").touch()
    monkeypatch.setattr(my_gan.helpers, "load_mnist", lambda: pytest.fail("work done"))
    with pytest.raises(SystemExit) as end:
        my_gan.main([flag, value])
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert flag.strip("-") in error and value in error
    assert files(here) == ["file.txt"]


def test_batch_larger_than_the_data_is_refused(here, few_images, capsys):
    with pytest.raises(SystemExit):
        my_gan.main(["--batch_size", "60001"])
    assert "batch_size must be at most" in capsys.readouterr().err and files(here) == []


def test_program_writes_generator_checkpoint_and_grids(here, few_images, capsys):
    assert my_gan.main(TINY) == 0
    grids = [f"images/{count:06d}.png" for count in (0, 5, 10, 12)]
    assert files(here) == [
        *grids,
        "mnist_generator.pt",
        "mnist_generator.pt.checkpoint",
    ]
    assert plt.imread(here / grids[0]).shape[:2] == (140, 140)
    generator = my_gan.Generator(latent_dim=3)
    generator.load_state_dict(torch.load(here / "mnist_generator.pt"))
    assert "12 steps" in capsys.readouterr().out


def test_grid_places_images_in_rows():
    images = torch.arange(25.0)[:, None, None].expand(25, 28, 28)
    picture = my_gan.grid(images)
    assert picture.shape == (140, 140)
    assert torch.equal(picture[::28, ::28], torch.arange(25.0).reshape(5, 5))


def interrupt_at(monkeypatch, count):
    """Trainer.step raises KeyboardInterrupt, or what `count` says, at that step."""
    step = my_gan.Trainer.step

    def interrupted(trainer):
        if trainer.step_count == count:
            raise KeyboardInterrupt
        step(trainer)

    monkeypatch.setattr(my_gan.Trainer, "step", interrupted)


def test_interrupted_program_resumes(here, few_images, monkeypatch, capsys):
    my_gan.main([*TINY, "--save", "whole.pt"])
    with monkeypatch.context() as patch:
        interrupt_at(patch, 8)
        assert my_gan.main([*TINY, "--save", "parts.pt"]) == 130
    assert "--resume" in capsys.readouterr().err
    assert not (here / "parts.pt").exists()
    config = my_gan.Config(n_epochs=1, batch_size=8, latent_dim=3, device="cpu")
    state = programs.load_checkpoint(
        here / "parts.pt.checkpoint", config, ["save_interval"]
    )
    assert state["step_count"] == 5
    assert my_gan.main([*TINY, "--save", "parts.pt", "--resume"]) == 0
    assert_same(torch.load(here / "whole.pt"), torch.load(here / "parts.pt"))


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_killed_program_resumes_to_the_same_generator(here):
    command = [sys.executable, my_gan.__file__, *TINY, "--batch_size", "200"]
    environment = os.environ | {"COURSEWORK_DATA": str(helpers.DATA / "sample")}
    process = subprocess.Popen(
        [*command, "--save", "parts.pt"], stderr=subprocess.DEVNULL, env=environment
    )
    while not (here / "images" / "000005.png").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (here / "parts.pt").exists()
    for options in (["parts.pt", "--resume"], ["whole.pt"]):
        subprocess.run([*command, "--save", *options], check=True, env=environment)
    assert_same(torch.load(here / "whole.pt"), torch.load(here / "parts.pt"))


def test_diverged_program_saves_no_generator(here, few_images, capsys):
    assert my_gan.main([*TINY, "--lr", "1e30"]) == 1
    assert "no generator was saved" in capsys.readouterr().err
    assert not (here / "mnist_generator.pt").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_checkpoint_that_cannot_be_used_is_refused(content, here, few_images, capsys):
    my_gan.main(TINY)
    path = here / "mnist_generator.pt.checkpoint"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(SystemExit) as end:
        my_gan.main([*TINY, "--resume"])
    assert end.value.code == 2 and path.name in capsys.readouterr().err


def test_resume_needs_a_checkpoint_of_the_same_settings(here, few_images, capsys):
    with pytest.raises(SystemExit):
        my_gan.main([*TINY, "--resume"])
    assert "mnist_generator.pt.checkpoint cannot be read" in capsys.readouterr().err
    my_gan.main(TINY)
    with pytest.raises(SystemExit):
        my_gan.main([*TINY, "--resume", "--seed", "3"])
    assert "seed 0 there, 3 here" in capsys.readouterr().err


# ---------------------------------------------------------------------- the comparison
def compare(table, *options):
    options = ["--n_epochs", "1", "--output", str(table), *options]
    return compare_designs.main(options)


def test_comparison_is_completed_run_by_run(here, few_images, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(compare_designs, "SAMPLES", 100)
    run = compare_designs.run
    monkeypatch.setattr(
        compare_designs, "run", lambda *a: trained.append(a[0]) or run(*a)
    )
    table = here / "table.json"
    assert compare(table, "--designs", "suggested", "--seeds", "3") == 0
    rows = compare_designs.read_table(table)
    compare_designs.add_row(table, rows[0] | {"design": "of another process"})
    both = ["--designs", "suggested", "ours", "--seeds", "3"]
    assert compare(table, *both) == compare(table, *both) == 0
    assert "table.json has all of these runs" in capsys.readouterr().out
    assert trained == ["suggested", "ours"]
    names = [row["design"] for row in compare_designs.read_table(table)]
    assert names == ["suggested", "of another process", "ours"]
    assert rows[0]["config"]["seed"] == 3 and rows[0]["steps"] == 100 // 64
    assert plt.imread(here / "table_suggested_3.png").shape[:2] == (140, 140)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"design": "ours"}]', '"a"'])
def test_table_of_something_else_is_refused(content, here, capsys):
    (here / "table.json").write_text(content)
    with pytest.raises(SystemExit):
        compare(here / "table.json")
    assert "is no table of this program" in capsys.readouterr().err
    assert (here / "table.json").read_text() == content


def test_saved_table_has_the_runs_of_the_designs_as_they_are():
    path = Path(compare_designs.__file__).parent / "saved" / "gan_designs.json"
    rows = compare_designs.read_table(path)
    for design, seeds in {"ours": (0, 1, 2), "suggested": (0,)}.items():
        for seed in seeds:
            config = dataclasses.replace(compare_designs.DESIGNS[design][0], seed=seed)
            wanted = compare_designs._identity(config)
            found = [r for r in rows if (r["design"], r["config"]) == (design, wanted)]
            assert len(found) == 1 and found[0]["images"] == 60_000
