"""CS324, the GAN: losses, modules, training, the judge, the command lines."""

import dataclasses
import math
from pathlib import Path

import compare_designs
import judge
import matplotlib.pyplot as plt
import my_gan
import pytest
import torch
from my_gan import Settings

import helpers

FOLDER = Path(my_gan.__file__).parent
NETWORKS = compare_designs.CONVOLUTIONS, compare_designs.SUGGESTED
TINY = Settings(n_epochs=2, batch_size=8, latent_dim=3)  # 24 steps on 100 images


def tiny_images(count=100):
    return torch.rand(count, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def few_images(monkeypatch):
    """The programs see 100 random images in place of MNIST."""
    labels = torch.arange(100) % 10
    data = helpers.ImageData(
        "MNIST", tiny_images(), labels, tiny_images(), labels, False
    )
    monkeypatch.setattr(helpers, "load_mnist", lambda: data)


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
@pytest.mark.parametrize("networks", NETWORKS)
@pytest.mark.parametrize("count", [2, 7])
def test_modules_take_any_number_of_images_and_train_every_parameter(networks, count):
    generator, discriminator = networks[0](5), networks[1]()
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
    half = torch.full((2, 1, 1, 1), 0.5)  # of deviations 1 and 0
    torch.testing.assert_close(y[:, 2:], half, atol=1e-3, rtol=0)


# ---------------------------------------------------------------------------- training
class Probe:
    """Two networks of one parameter that keep what they are given."""

    def __init__(self):
        self.seen, self.fakes = [], []

    def generator(self, latent_dim):
        module = torch.nn.Linear(latent_dim, 28 * 28)
        return torch.nn.Sequential(module, torch.nn.Unflatten(1, (1, 28, 28)))

    def discriminator(self):
        probe = self

        class Discriminator(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(()))

            def forward(self, images):
                probe.seen.append(images.detach().clone())
                return self.weight * images.mean(dim=(1, 2, 3))

        return Discriminator()


def test_each_epoch_visits_every_image_once_in_a_new_order():
    probe, images = Probe(), tiny_images(24)
    settings = Settings(n_epochs=2, batch_size=8, penalty=0.0)
    my_gan.train(images, settings, (probe.generator, probe.discriminator))
    real = torch.cat(probe.seen[::3])  # D sees real, generated, generated images a step
    first, second = (epoch[:, 0] for epoch in (real + 1).div(2).split(24))

    def rows(epoch):
        return {(image * 255).round().byte().numpy().tobytes() for image in epoch}

    assert rows(first) == rows(second) == rows(images)
    assert not torch.equal(first, second)


def test_seed_decides():
    losses = []
    for seed in (0, 0, 1):
        settings = Settings(n_epochs=1, batch_size=20, latent_dim=3, seed=seed)
        losses.append(my_gan.train(tiny_images(), settings)[1]["loss_d"])
    assert losses[0] == losses[1] != losses[2]


def test_history_has_one_value_per_step_and_the_callback_each_step():
    steps = []
    _, history = my_gan.train(
        tiny_images(), TINY, after_step=lambda n, _: steps.append(n)
    )
    assert steps == list(range(25))
    assert {len(values) for values in history.values()} == {24}
    assert all(0 < d < 1 for d in history["d_real"] + history["d_fake"])


@pytest.mark.parametrize(
    "hold, expected", [(0.0, (1, 0.5, 0.1)), (0.5, (1, 1, 0.2)), (1.0, (1, 1, 1))]
)
def test_learning_rate_is_held_and_then_falls(hold, expected, monkeypatch):
    rates = []
    step = torch.optim.Adam.step

    def watched(optimizer, *arguments, **options):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    settings = Settings(n_epochs=1, batch_size=10, latent_dim=3, lr=1e-3, hold=hold)
    my_gan.train(tiny_images(), settings)
    of_g = rates[1::2]
    assert len(of_g) == 10
    assert [of_g[0], of_g[5], of_g[9]] == pytest.approx([1e-3 * x for x in expected])


def test_average_follows_its_formula():
    average = torch.zeros(1)
    for count in range(1, 2000):
        current = torch.tensor([1.0 if count > 1800 else 0.0])
        average = my_gan.polynomial_decay(average, current, torch.tensor(count))
    assert 0.6 < average < 0.7  # 1 - 0.9**10 = 0.65: the last tenth of the steps


def test_without_average_the_generator_is_the_last_one():
    settings = Settings(n_epochs=1, batch_size=50, latent_dim=3, average=False)
    weights = []
    average, _ = my_gan.train(
        tiny_images(),
        settings,
        after_step=lambda _, a: weights.append(next(a.parameters()).clone()),
    )
    assert torch.equal(next(average.parameters()), weights[-1])
    assert not torch.equal(weights[0], weights[-1])


def test_diverged_training_is_an_error():
    settings = Settings(n_epochs=1, batch_size=8, latent_dim=3, lr=1e30)
    with pytest.raises(FloatingPointError, match="no finite loss at step"):
        my_gan.train(tiny_images(), settings)


def test_a_sample_does_not_depend_on_those_drawn_beside_it():
    average, _ = my_gan.train(tiny_images(), TINY)
    noise = my_gan.fixed_noise(600, 3)
    together, alone = my_gan.draw(average, noise), my_gan.draw(average, noise[550:552])
    torch.testing.assert_close(together[550:552], alone)
    assert together.min() >= 0 and together.max() <= 1


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


@pytest.mark.parametrize(
    "images", [torch.zeros(0, 28, 28), torch.full((2, 28, 28), math.nan)]
)
def test_images_that_cannot_be_judged_are_refused(images):
    with pytest.raises(ValueError, match="images must be finite and at least one"):
        judge.read(judge.Judge().eval(), images)


@pytest.mark.parametrize("rows", [torch.zeros(1, 8), torch.full((5, 8), math.nan)])
def test_features_that_have_no_covariance_are_refused(rows):
    for pair in ((rows, torch.randn(5, 8)), (torch.randn(5, 8), rows)):
        with pytest.raises(ValueError, match="finite and at least two rows"):
            judge.frechet_distance(*pair)


# ------------------------------------------------------------------------ command line
@pytest.mark.parametrize(
    "flag, value",
    [
        ("--n_epochs", "0"),
        ("--n_epochs", "two"),
        ("--batch_size", "1"),
        ("--batch_size", "2.5"),
        ("--lr", "0"),
        ("--lr", "nan"),
        ("--lr", "inf"),
        ("--latent_dim", "0"),
        ("--save_interval", "0"),
        ("--seed", "-1"),
        ("--seed", str(2**64)),
        ("--output", "file.txt"),
    ],
)
def test_bad_value_is_refused_before_any_work(
    flag, value, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("file.txt").touch()
    monkeypatch.setattr(helpers, "load_mnist", lambda: pytest.fail("work done"))
    with pytest.raises(SystemExit) as end:
        my_gan.main([flag, value])
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert flag in error and value in error
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_batch_larger_than_the_data_is_refused(tmp_path, few_images, capsys):
    with pytest.raises(SystemExit):
        my_gan.main(["--batch_size", "101", "--output", str(tmp_path)])
    assert "--batch_size 101 exceeds 100 images" in capsys.readouterr().err


def test_program_writes_grids_and_a_generator_that_loads(tmp_path, few_images):
    flags = "--n_epochs 1 --batch_size 8 --latent_dim 3 --save_interval 5"
    my_gan.main([*flags.split(), "--output", str(tmp_path)])
    grids = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert grids == ["000000.png", "000005.png", "000010.png", "000012.png"]
    assert plt.imread(tmp_path / "images" / grids[0]).shape[:2] == (140, 140)
    generator = my_gan.Generator(latent_dim=3)
    generator.load_state_dict(torch.load(tmp_path / "mnist_generator.pt"))
    assert not (tmp_path / "unfinished.pt").exists()


def test_grid_places_images_in_rows():
    picture = my_gan.grid(torch.arange(25.0)[:, None, None].expand(25, 28, 28))
    assert picture.shape == (140, 140)
    assert torch.equal(picture[::28, ::28], torch.arange(25.0).reshape(5, 5))


# ---------------------------------------------------------------------- the comparison
def test_comparison_refuses_the_sample(tmp_path, monkeypatch, capsys):
    sample = helpers.load_mnist(helpers.DATA / "sample")
    monkeypatch.setattr(helpers, "load_mnist", lambda: sample)
    with pytest.raises(SystemExit):
        compare_designs.main(["--folder", str(tmp_path)])
    assert "needs the whole of MNIST" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_comparison_makes_each_row_once(tmp_path, few_images, monkeypatch):
    tiny = [
        (
            "ours",
            Settings(n_epochs=1, batch_size=50, seed=seed),
            NETWORKS[0],
        )
        for seed in (0, 1)
    ]
    trained = []
    train = compare_designs.train

    def counted(images, settings, networks):
        trained.append(settings.seed)
        return train(images, settings, networks)

    monkeypatch.setattr(compare_designs, "train", counted)
    monkeypatch.setattr(compare_designs, "SAMPLES", 20)
    for count in (1, 2, 2):  # a second run goes on, a third has nothing to do
        monkeypatch.setattr(compare_designs, "runs", lambda n=count: tiny[:n])
        compare_designs.main(["--folder", str(tmp_path)])
    rows = compare_designs.read_table(tmp_path / "gan_seeds.json")
    assert trained == [0, 1] == [row["settings"]["seed"] for row in rows]
    assert all(row["steps"] == 2 and row["frechet"] > 0 for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["gan_seeds.json"]


def test_saved_table_holds_the_runs_of_the_program():
    rows = compare_designs.read_table(FOLDER / "saved" / "gan_seeds.json")
    saved = [(row["design"], row["settings"]) for row in rows]
    runs = [
        (name, dataclasses.asdict(settings))
        for name, settings, _ in compare_designs.runs()
    ]
    assert sorted(map(str, saved)) == sorted(map(str, runs))
