import math

import pytest

from study_cases import small
from thalweg.study import words
from thalweg.study.statistics import Ranking, Setting, Spread, Summary, rank
from thalweg.study.store import Run


def ended(val_loss, test_loss, seconds=1.0):
    """A run of two epochs; None: it diverged in the second."""
    epochs = tuple({"epoch": i, "loss": 3.0 / i, "val_loss": (val_loss or 1.0) + 2 - i} for i in (1, 2))
    if val_loss is None:
        return Run({}, epochs[:1], {"status": "diverged", "reason": "not finite"})
    end = {"status": "finished", "test_loss": test_loss, "test_accuracy": 0.9, "seconds": seconds, "step": 10}
    return Run({}, epochs, end)


def summary(name, *settings):
    """A contestant from (lr, [(val_loss, test_loss) a seed])."""
    contestant = small(optimizers=[name]).contestants[0]
    return Summary(
        contestant, tuple(Setting(lr, tuple(ended(*run) for run in runs)) for lr, runs in settings)
    )


def ranking(**losses):
    """Contestants from their seeds' test losses, best first."""
    return Ranking(tuple(summary(name, (0.1, [(x, x) for x in values])) for name, values in losses.items()))


def names(summaries):
    return [s.contestant.name for s in summaries]


def test_a_spread_knows_its_middle_and_its_ends():
    assert (Spread((3.0, 1.0, 2.0)).median, Spread((3.0, 1.0)).low, Spread((3.0, 1.0)).high) == (2, 1, 3)
    assert math.isnan(Spread(()).median)
    assert math.isnan(Spread(()).high)


def test_the_best_rate_has_the_lowest_median_validation_loss():
    found = summary(
        "adam",
        (0.1, [(0.3, 0.0), (0.3, 0.0), (0.3, 0.0)]),
        (0.2, [(0.2, 1.0), (0.9, 1.0), (0.2, 1.0)]),
        (0.3, [(0.25, 0.5), (0.25, 0.5), (0.25, 0.5)]),
    )
    assert found.best.lr == 0.2
    assert found.best.figure("test_loss").values == (1, 1, 1)
    assert not found.on_edge


def test_diverged_runs_count_as_worst_and_are_counted():
    bad, good = (None, None), (0.1, 0.1)
    found = summary("adam", (0.1, [bad, bad, good]), (0.2, [(0.4, 0.4), bad, (0.4, 0.5)]), (0.3, [bad] * 3))
    assert found.best.lr == 0.2
    assert found.best.losses("test_loss").values == (0.4, 0.5, math.inf)
    assert found.best.figure("test_loss").values == (0.4, 0.5)
    assert (found.count("diverged"), found.count("finished")) == (6, 3)
    assert len(found.best.curve("loss")) == 2, "the curve is that of the runs that went through"


def test_a_best_rate_at_an_end_is_pointed_out():
    assert summary("adam", (0.1, [(0.1, 0)]), (0.2, [(0.2, 0)])).on_edge
    assert summary("adam", (0.2, [(0.2, 0)]), (0.1, [(0.1, 0)]), (0.05, [(0.3, 0)])).on_edge is False
    assert not summary("adam", (0.1, [(0.1, 0)])).on_edge, "one rate alone is nobody's choice"


def test_overlapping_seeds_are_a_tie_and_separate_ones_are_not():
    found = ranking(adam=(0.10, 0.12, 0.14), nadam=(0.13, 0.15, 0.16), sgd=(0.15, 0.2, 0.3))
    assert names(found.tied) == ["adam", "nadam"]
    assert names(found.behind) == ["sgd"]
    assert found.chance == pytest.approx(0.1)


def test_one_seed_tells_nobody_apart():
    assert names(ranking(adam=(0.1,), sgd=(9,)).behind) == []


def test_the_chance_of_a_false_call_is_that_of_separate_samples():
    # Of all orders of 2 + 2 values, those with one contestant's both below the other's: 2 of 6.
    assert ranking(adam=(1, 2), sgd=(3, 4)).chance == pytest.approx(1 / 3)


def test_a_leader_with_a_diverged_seed_beats_nobody():
    found = Ranking(
        (summary("adam", (0.1, [(0.1, 0.1), (0.1, 0.1), (None, None)])), *ranking(sgd=(2, 2, 2)).summaries)
    )
    assert names(found.tied) == ["adam", "sgd"]


def test_whoever_never_went_through_is_behind():
    found = Ranking((*ranking(sgd=(1, 2, 3)).summaries, summary("adam", (0.1, [(None, None)] * 3))))
    assert names(found.behind) == ["adam"]


def test_the_answer_names_a_winner_only_where_there_is_one():
    plan = small()
    clear = words.answer(plan, ranking(adam=(0.1, 0.1, 0.1), nadam=(0.2, 0.2, 0.2), sgd=(0.3, 0.3, 0.3)))
    assert clear.startswith("Best is adam at learning rate 0.1: test loss 0.100")
    tie = words.answer(plan, ranking(adam=(0.1, 0.3, 0.5), nadam=(0.2, 0.4, 0.6), sgd=(2, 3, 4)))
    assert tie.startswith("adam and nadam are within the seeds' noise of the best; sgd is behind by more.")
    level = words.answer(plan, ranking(adam=(0.1, 0.3, 0.5), nadam=(0.2, 0.4, 0.6)))
    assert level.startswith("No optimizer can be told from another")
    alone = words.answer(plan, ranking(adam=(0.1,), sgd=(9,)))
    assert "no optimizer can be called better" in alone
    nothing = words.answer(plan, Ranking((summary("adam", (0.1, [(None, None)])),)))
    assert nothing == "No run went through, at any learning rate."
    single = words.answer(plan, ranking(adam=(0.1, 0.1)))
    assert single.startswith("adam at learning rate 0.1")


def test_the_notes_say_what_the_answer_rests_on():
    alike = ranking(adam=(0.1, 0.2), sgd=(0.3, 0.4))
    assert "one time in 3." in words.notes(small(), alike)[0]
    assert "All ran at one learning rate, 0.1" in words.notes(small(), alike)[1]
    bad = (None, None)
    tuned = Ranking(
        (summary("adam", (0.1, [(0.1, 0.1)]), (0.2, [bad])), summary("sgd", (0.1, [bad]), (0.2, [bad])))
    )
    assert words.notes(small(), tuned) == [
        "The best learning rate of adam lies at an end of the range tried: "
        "a better one may lie beyond (--lr).",
        "3 of 8 runs diverged: adam 1, sgd 2.",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.100"),
        (0.98765, "0.988"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1e-6, "1.00e-06"),
        (math.nan, "–"),
    ],
)
def test_numbers_have_three_figures(value, text):
    assert words.number(value) == text


def test_rank_reads_the_store(tmp_path):
    from thalweg.study import engine
    from thalweg.study.store import Store

    store, plan = Store(tmp_path), small(optimizers=["sgd", "adam"], lr=[0.001, 0.1, 1e30], seeds=2)
    store.open()
    list(engine.run(plan.trials, store, jobs=1))
    found = rank(plan, store)
    assert sorted(names(found.summaries)) == ["adam", "sgd"]
    assert found.seeds == 2
    for one in found.summaries:
        assert [setting.lr for setting in one.settings] == [0.001, 0.1, 1e30]
        assert one.best.lr == 0.1
        assert one.count("diverged") >= 2
        assert one.seconds_per_step > 0
    losses = [one.best.figure("test_loss").median for one in found.summaries]
    assert losses == sorted(losses)
