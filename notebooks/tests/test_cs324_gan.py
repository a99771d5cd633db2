"""CS324, the GAN: losses, modules, training, the judge, the command lines."""

import copy
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

import compare_designs
import judge
import matplotlib.pyplot as plt
import my_gan
import pytest
import torch

import helpers

TINY = ["--n_epochs", "0", "--min_steps", "12", "--batch_size", "8"]
TINY += ["--save_interval", "5", "--latent_dim", "3", "--device", "cpu"]


def tiny_trainer(count=100, **options):
    """A trainer of 12 steps on random images."""
    images = torch.rand(count, 28, 28, generator=torch.Generator().manual_seed(1))
    options = {"n_epochs": 0, "min_steps": 12, "batch_size": 8, **options}
    return my_gan.Trainer(images, **options)


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
    close(my_gan.minimax_generator_loss(fake), (1 - d_fake).log().mean())
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
@pytest.mark.parametrize("name", my_gan.DESIGNS)
@pytest.mark.parametrize("count", [2, 7])
def test_modules_take_any_number_of_images_and_train_every_parameter(name, count):
    design = my_gan.DESIGNS[name]
    generator, discriminator = design.generator(5), design.discriminator()
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
    trainer = tiny_trainer(count=24)
    epochs = [torch.cat([trainer.batch() for _ in range(3)]) for _ in range(2)]
    rows = [{image.numpy().tobytes() for image in epoch} for epoch in epochs]
    assert rows[0] == rows[1] and len(rows[0]) == 24
    assert not torch.equal(*epochs)


@pytest.mark.parametrize(
    "n_epochs, min_steps, total", [(0, 7, 7), (3, 7, 36), (2, 30, 30)]
)
def test_training_counts_epochs_with_a_floor_in_steps(n_epochs, min_steps, total):
    trainer = tiny_trainer(n_epochs=n_epochs, min_steps=min_steps)  # 100 // 8 = 12
    assert trainer.total_steps == total


def test_a_step_updates_each_network_by_its_own_loss():
    trainer = tiny_trainer()
    before_d = copy.deepcopy(trainer.discriminator.state_dict())
    before_g = copy.deepcopy(trainer.generator.state_dict())
    trainer.optimizers[1].step = lambda: None  # the generator stands still ...
    trainer.step()
    changed = [
        not torch.equal(value, before_d[name])
        for name, value in trainer.discriminator.state_dict().items()
    ]
    assert all(changed)
    for name, parameter in trainer.generator.named_parameters():
        assert torch.equal(parameter, before_g[name])
    trainer = tiny_trainer()
    trainer.optimizers[0].step = lambda: None  # ... or the discriminator does
    trainer.step()
    assert_same(trainer.discriminator.state_dict(), before_d)
    for name, parameter in trainer.generator.named_parameters():
        assert not torch.equal(parameter, before_g[name])


def test_learning_rate_is_annealed_and_history_kept():
    trainer = tiny_trainer(lr=0.01)
    rates = []
    trainer.train(
        after_step=lambda count: rates.append(
            trainer.optimizers[0].param_groups[0]["lr"]
        )
    )
    assert rates[:7] == [0.01] * 7 and rates[-1] == pytest.approx(0.01 / 6)
    assert rates[7:] == sorted(rates[7:], reverse=True)
    assert [len(values) for values in trainer.history.values()] == [12] * 4
    assert all(0 < p < 1 for p in trainer.history["d_real"] + trainer.history["d_fake"])


@pytest.fixture
def no_average(monkeypatch):
    """The name of a design in which the generator itself draws the samples."""
    design = dataclasses.replace(my_gan.BEST, ema=0.0)
    monkeypatch.setitem(my_gan.DESIGNS, "no-average", design)
    return "no-average"


def test_average_follows_the_generator(no_average):
    trainer = tiny_trainer(design=no_average)
    trainer.train()
    pairs = zip(
        trainer.averaged_generator().parameters(), trainer.generator.parameters()
    )
    assert all(torch.equal(average, current) for average, current in pairs)
    trainer = tiny_trainer(design="best")
    start = copy.deepcopy(trainer.averaged_generator())
    trainer.train()
    name = "layers.0.weight"
    far = (trainer.generator.get_parameter(name) - start.get_parameter(name)).norm()
    moved = (
        trainer.averaged_generator().get_parameter(name) - start.get_parameter(name)
    ).norm()
    assert 0 < moved < far


def test_generator_learns_the_only_image_there_is(no_average):
    image = torch.zeros(28, 28)
    image[8:20, 10:18] = 1
    trainer = my_gan.Trainer(
        image.repeat(64, 1, 1), no_average, n_epochs=0, min_steps=100, batch_size=16
    )
    error = []
    for _ in range(2):
        drawn = my_gan.draw(trainer.averaged_generator(), trainer.fixed_noise(20))
        assert drawn.shape == (20, 28, 28) and drawn.min() >= 0 and drawn.max() <= 1
        error.append((drawn - image).abs().mean().item())
        trainer.train()
    assert error[0] > 0.4 and error[1] < 0.2


@pytest.mark.parametrize("stop", [1, 7, 12])
def test_resumed_training_ends_with_the_same_generator(stop, tmp_path):
    whole = tiny_trainer(design="best")
    whole.train()
    first = tiny_trainer(design="best")
    first.train(until=stop)
    torch.save(first.state_dict(), tmp_path / "checkpoint")
    second = tiny_trainer(design="best")
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


def test_checkpoint_of_other_settings_is_refused():
    state = tiny_trainer(latent_dim=3).state_dict()
    with pytest.raises(ValueError, match="latent_dim = 3, got 4"):
        tiny_trainer(latent_dim=4).load_state_dict(state)


def test_unknown_design_is_refused():
    with pytest.raises(ValueError, match="design must be one of mlp, .*, got 'vae'"):
        tiny_trainer(design="vae")


@pytest.mark.parametrize("batch_size", [1, 101])
def test_batch_size_that_does_not_fit_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"from 2 to .* 100, got {batch_size}"):
        tiny_trainer(batch_size=batch_size)


# ------------------------------------------------------------------------------- judge
def test_judge_learns_digits():
    data = helpers.load_mnist(helpers.DATA / "sample")
    images, labels = data.train_images[:1000], data.train_labels[:1000]
    trained = judge.train_judge(images, labels, n_epochs=1, min_steps=60)
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
    "flag, value, message",
    [
        ("--n_epochs", "-1", "int of at least 0"),
        ("--n_epochs", "two", "int of at least 0"),
        ("--min_steps", "0", "int of at least 1"),
        ("--batch_size", "1", "int of at least 2"),
        ("--batch_size", "2.5", "int of at least 2"),
        ("--lr", "0", "float above 0"),
        ("--lr", "nan", "float above 0"),
        ("--lr", "inf", "float above 0"),
        ("--latent_dim", "0", "int of at least 1"),
        ("--save_interval", "0", "int of at least 1"),
        ("--seed", "-1", "int of at least 0"),
        ("--design", "vae", "invalid choice"),
        (
            "--device",
            "abacus",
            "one that PyTorch can use here, such as cpu, got 'abacus'",
        ),
        ("--device", "meta", "one that PyTorch can use here, such as cpu, got 'meta'"),
        ("--save", "nowhere/generator.pt", "no folder nowhere"),
        ("--images", "file.txt", "file.txt is not a folder"),
    ],
)
def test_bad_value_is_refused_before_any_work(
    flag, value, message, here, monkeypatch, capsys
):
    (here / "file.txt").touch()
    monkeypatch.setattr(my_gan.helpers, "load_mnist", lambda: pytest.fail("work done"))
    with pytest.raises(SystemExit) as end:
        my_gan.main([flag, value])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error
    assert flag in error and value in error
    assert files(here) == ["file.txt"]


def test_batch_larger_than_the_data_is_refused(here, capsys):
    with pytest.raises(SystemExit):
        my_gan.main(["--batch_size", "60001"])
    assert "batch_size must be from 2" in capsys.readouterr().err and files(here) == []


def test_program_writes_generator_checkpoint_and_grids(here, capsys):
    my_gan.main(TINY)
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


def test_interrupted_program_resumes_to_the_same_generator(here, monkeypatch, capsys):
    my_gan.main([*TINY, "--save", "whole.pt"])
    step = my_gan.Trainer.step

    def interrupted(trainer):
        if trainer.step_count == 8:
            raise KeyboardInterrupt
        step(trainer)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(my_gan.Trainer, "step", interrupted)
        my_gan.main([*TINY, "--save", "parts.pt"])
    assert end.value.code == 130 and "--resume" in capsys.readouterr().err
    assert not (here / "parts.pt").exists()
    assert torch.load(here / "parts.pt.checkpoint")["step_count"] == 5
    my_gan.main([*TINY, "--save", "parts.pt", "--resume"])
    assert_same(torch.load(here / "whole.pt"), torch.load(here / "parts.pt"))


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_killed_program_resumes_to_the_same_generator(here):
    arguments = [*TINY, "--min_steps", "30"]
    command = [sys.executable, my_gan.__file__, *arguments]
    process = subprocess.Popen(
        [*command, "--save", "parts.pt"], stderr=subprocess.DEVNULL
    )
    while not (here / "images" / "000005.png").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (here / "parts.pt").exists()
    subprocess.run([*command, "--save", "parts.pt", "--resume"], check=True)
    subprocess.run([*command, "--save", "whole.pt"], check=True)
    assert_same(torch.load(here / "whole.pt"), torch.load(here / "parts.pt"))


def test_resume_needs_a_checkpoint_of_the_same_settings(here, capsys):
    with pytest.raises(SystemExit):
        my_gan.main([*TINY, "--resume"])
    assert (
        "there is no checkpoint mnist_generator.pt.checkpoint"
        in capsys.readouterr().err
    )
    my_gan.main(TINY)
    with pytest.raises(SystemExit):
        my_gan.main([*TINY, "--resume", "--seed", "3"])
    assert "made with seed = 0, got 3" in capsys.readouterr().err


def test_save_must_not_be_a_folder(here, capsys):
    for folder in (".", "images"):
        (here / "images").mkdir(exist_ok=True)
        with pytest.raises(SystemExit):
            my_gan.main([*TINY, "--save", folder])
        assert f"{folder} is a folder, not a file" in capsys.readouterr().err


def test_comparison_of_designs_is_written_and_completed(here, monkeypatch):
    designs = {name: my_gan.DESIGNS[name] for name in ("mlp", "best")}
    for name, value in {
        "DESIGNS": designs,
        "SAMPLES": 100,
        "step_milliseconds": lambda images, designs: dict.fromkeys(designs, 500),
        "train_judge": lambda images, labels: judge.Judge().eval(),
    }.items():
        monkeypatch.setattr(compare_designs, name, value)
    for seeds in ([], ["0"], ["0", "1"]):
        compare_designs.main(
            ["--seconds", "1", "--output", "table.json", "--seeds", *seeds]
        )
        table = json.loads((here / "table.json").read_text())
        assert table["step_ms"] == dict.fromkeys(designs, 500)
        expected = [(design, int(seed)) for seed in seeds for design in designs]
        assert [(run["design"], run["seed"]) for run in table["runs"]] == expected
    assert all(run["steps"] == 2 for run in table["runs"])
    assert all(0 <= run["confident_share"] <= 1 for run in table["runs"])


def test_comparison_over_epochs(here, monkeypatch, capsys):
    classifier = judge.Judge().eval()
    monkeypatch.setattr(compare_designs, "SAMPLES", 100)
    monkeypatch.setattr(compare_designs, "train_judge", lambda *data: classifier)
    options = ["--designs", "mlp", "--seeds", "3", "--output", "table.json"]
    compare_designs.main(["--n_epochs", "1", *options])
    before = (here / "table.json").read_text()
    table = json.loads(before)
    steps = len(helpers.load_mnist().train_images) // 64
    (run,) = table["runs"]
    assert table["n_epochs"] == 1 and "step_ms" not in table
    assert (run["design"], run["seed"], run["steps"]) == ("mlp", 3, steps)
    with pytest.raises(SystemExit):
        compare_designs.main(["--n_epochs", "2", *options])
    assert "has runs of another length" in capsys.readouterr().err
    assert (here / "table.json").read_text() == before


def test_step_times_are_measured_for_every_design(monkeypatch):
    monkeypatch.setattr(compare_designs, "REPEATS", 1)
    images = torch.rand(64, 28, 28)
    milliseconds = compare_designs.step_milliseconds(images, my_gan.DESIGNS)
    assert milliseconds.keys() == my_gan.DESIGNS.keys()
    assert all(0.1 < value < 10_000 for value in milliseconds.values())
