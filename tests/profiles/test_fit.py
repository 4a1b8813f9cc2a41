from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dpo_profiles.errors import ProfileError
from dpo_profiles.load import load_profile, shipped_names
from dpo_profiles.plan import make_plan
from dpo_profiles.plan.explain import planned_workload
from dpo_profiles.plan.fit import KEEP_STEP, ON_GPU_STEP, SHOWN, Fit, Searcher, reserve_bytes, search
from dpo_profiles.plan.fit_cost import cost_of
from dpo_profiles.plan.fit_engines import FSDP2_KEEP, FSDP2_OFFLOAD, ZERO3, ZERO3_OFFLOAD
from dpo_profiles.plan.fit_mends import mends
from dpo_profiles.plan.gpus import CARDS, find_card
from dpo_profiles.plan.workload import Workload

GIB = 1 << 30
CARD = "hardware.capacity_bytes=85520809984"


def fit_of(name: str, *overrides: str, reserve: str = "10%") -> Fit:
    return search(Searcher(load_profile(name, overrides), reserve))


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_profile_can_be_searched(name: str) -> None:
    fit = fit_of(name, CARD)
    assert 0 < len(fit.best) <= SHOWN
    assert all(
        ranked.choice.fits == (ranked.choice.headroom_bytes >= fit.reserve_bytes) for ranked in fit.best
    )


def test_a_choice_has_the_headroom_that_its_own_plan_has() -> None:
    for ranked in fit_of("zero3").best:
        assert make_plan(ranked.profile).per_gpu[0].headroom_bytes == ranked.choice.headroom_bytes


@pytest.mark.parametrize("name", ["zero3", "fsdp2", "multinode"])
@pytest.mark.parametrize("card", ["T4", "A100 40GB", "B200"])
def test_the_options_of_a_choice_make_its_profile(name: str, card: str) -> None:
    hardware = find_card(card).hardware
    own = [f"hardware.gpu={hardware.gpu}", f"hardware.capacity_bytes={hardware.capacity_bytes}"]
    for ranked in fit_of(name, *own).best:
        sets = [f"{path}={msgspec.json.encode(value).decode()}" for path, value in ranked.choice.set.items()]
        assert ranked.contradiction == ""
        assert load_profile(name, [*own, *sets]) == ranked.profile


def test_choices_fit_with_their_reserve_and_come_cheapest_first() -> None:
    fit = fit_of("zero3", reserve="30GiB")
    costs = [ranked.choice.cost for ranked in fit.best]
    assert costs == sorted(costs)
    assert fit.reserve_bytes == 30 * GIB
    assert min(ranked.choice.headroom_bytes for ranked in fit.best) >= 30 * GIB
    assert fit.best[0].choice.headroom_bytes < fit_of("zero3", reserve="50GiB").best[0].choice.headroom_bytes


def test_each_update_keeps_its_pairs() -> None:
    fit = fit_of("zero3")
    for ranked in fit.best:
        train = ranked.profile.train
        pairs = train.micro_batch_pairs * train.gradient_accumulation_steps
        assert pairs * ranked.profile.engine.world_size == fit.batch_pairs == 128
    odd = fit_of("single", "train.micro_batch_pairs=3", "train.gradient_accumulation_steps=5")
    assert {ranked.profile.train.micro_batch_pairs for ranked in odd.best} <= {1, 3}
    assert odd.left_out > 0


def test_the_next_step_up_is_told_by_what_it_leaves_of_the_reserve() -> None:
    fit = fit_of("zero3")
    ranked = fit.best[0]
    larger = ranked.profile.train.micro_batch_pairs * 2
    train = msgspec.structs.replace(ranked.profile.train, micro_batch_pairs=larger)
    plan = make_plan(msgspec.structs.replace(ranked.profile, train=train))
    left = plan.per_gpu[0].headroom_bytes - fit.reserve_bytes
    assert ranked.choice.steps_up[f"micro_batch_pairs {larger}"] == left


def test_one_gpu_is_searched_under_single_and_more_under_engines_that_shard() -> None:
    for name in ("demo", "zero3", "multinode"):
        for ranked in fit_of(name, CARD, "hardware.gpu=H100").best:
            engine = ranked.profile.engine
            assert (engine.backend == "single") == (engine.world_size == 1)
            assert engine.world_size <= load_profile(name).engine.world_size


def test_a_file_of_the_users_that_says_otherwise_is_named_and_kept(tmp_path: Path) -> None:
    own = Path(load_profile("zero3").engine.deepspeed_file)
    mine = tmp_path / "mine.json"
    mine.write_bytes(own.read_bytes())
    fit = fit_of("zero3", f"engine.deepspeed_file={mine}")
    best = next(ranked for ranked in fit.best if ranked.choice.engine_file == str(mine))
    assert best.contradiction.startswith("mine.json has gradient_accumulation_steps 16 ")
    assert all(not ranked.contradiction for ranked in fit.best if not ranked.choice.set)


def test_a_shipped_file_gives_way_to_one_that_leaves_its_figures_open() -> None:
    files = {r.choice.engine_file for r in fit_of("zero3").best if "train.micro_batch_pairs" in r.choice.set}
    assert ZERO3 in files
    assert load_profile("zero3").engine.deepspeed_file not in files


def on(card: str) -> str:
    return f"hardware.capacity_bytes={find_card(card).capacity_bytes}"


def test_a_72b_that_does_not_fit_small_cards_is_offloaded_by_a_file_that_the_choice_names() -> None:
    fit = fit_of("zero3", on("T4"))
    assert fit.fits
    assert {ranked.choice.engine_file for ranked in fit.best} == {ZERO3_OFFLOAD, FSDP2_OFFLOAD}
    for ranked in fit.best:
        choice = ranked.choice
        assert choice.offload == ("parameters", "optimizer")
        assert choice.engine_file in choice.set.values()
        assert choice.steps_up[ON_GPU_STEP] < 0
        assert choice.why.startswith("parameters and optimizer in host memory: on the GPU ")
        assert choice.why.endswith(" GiB too much")
        assert choice.host_ram_bytes == make_plan(ranked.profile).host_ram_bytes


def test_what_fits_on_the_gpus_is_not_offloaded() -> None:
    for ranked in fit_of("zero3").best:
        assert ranked.choice.offload == ()


def test_a_profile_that_offloads_without_need_is_shown_the_same_on_the_gpus_first() -> None:
    best = fit_of("zero3", f"engine.deepspeed_file={ZERO3_OFFLOAD}").best[0].choice
    assert (best.offload, best.engine_file) == ((), ZERO3)
    assert best.cost < 1


def test_with_room_keeping_layers_gathered_comes_before_giving_them_back() -> None:
    fit = fit_of("fsdp2", on("B200"))
    kept = next(r for r in fit.best if not r.choice.reshard_after_forward)
    usual = [
        r.choice.cost
        for r in fit.best
        if r.choice.reshard_after_forward
        and r.profile.train == kept.profile.train
        and r.profile.engine.backend == "fsdp2"
    ]
    assert kept.choice.engine_file == kept.choice.set["engine.accelerate_file"] == FSDP2_KEEP
    assert kept.choice.cost < min(usual, default=1.0)
    assert "one gather a micro-batch instead of three" in kept.choice.why


def test_a_choice_that_gives_layers_back_says_what_keeping_them_would_leave() -> None:
    fit = fit_of("fsdp2")
    ranked = next(
        r for r in fit.best if r.choice.reshard_after_forward and r.profile.engine.backend == "fsdp2"
    )
    engine = msgspec.structs.replace(ranked.profile.engine, accelerate_file=FSDP2_KEEP)
    kept = make_plan(msgspec.structs.replace(ranked.profile, engine=engine)).per_gpu[0]
    assert ranked.choice.steps_up[KEEP_STEP] == kept.headroom_bytes - fit.reserve_bytes
    assert "kept gathered, " in ranked.choice.why


def test_optimizers_that_need_a_gpu_are_not_offloaded() -> None:
    fit = fit_of("zero3", on("T4"), "optimizer.name=adamw_8bit")
    assert all(ranked.choice.offload == () for ranked in fit.best)
    sets = [ranked.choice.set for ranked in fit.best]
    assert all(one not in sets[:place] for place, one in enumerate(sets))


@pytest.mark.parametrize("capacity", [80 * 10**9, 800 * 10**9])
def test_a_model_whose_layers_are_not_known_is_neither_offloaded_nor_kept_gathered(capacity: int) -> None:
    fit = fit_of("full-70b", f"hardware.capacity_bytes={capacity}")
    assert {(r.choice.offload, r.choice.reshard_after_forward) for r in fit.best} == {((), True)}


def test_where_nothing_fits_the_nearest_come_first_and_the_mend_fits() -> None:
    # An optimizer that needs a GPU: nothing can be offloaded.
    profile = load_profile("zero3", ["hardware.capacity_bytes=16000000000", "optimizer.name=adamw_8bit"])
    searcher = Searcher(profile, "10%")
    fit = search(searcher)
    assert not fit.fits
    rooms = [ranked.choice.headroom_bytes for ranked in fit.best]
    assert rooms == sorted(rooms, reverse=True)
    said = mends(searcher, fit)
    assert any(" GPUs with " in line for line in said)
    (card,) = [line.split('"')[1] for line in said if line.startswith("--gpu ")]
    nearest = msgspec.structs.replace(fit.best[0].profile, hardware=find_card(card).hardware)
    capacity = nearest.hardware.capacity_bytes
    assert make_plan(nearest).per_gpu[0].headroom_bytes >= capacity // 10
    below = [each for each in CARDS if profile.hardware.capacity_bytes < each.capacity_bytes < capacity]
    for smaller in below:
        plan = make_plan(msgspec.structs.replace(nearest, hardware=smaller.hardware))
        assert plan.per_gpu[0].headroom_bytes < smaller.capacity_bytes // 10


def test_a_reserve_that_alone_is_in_the_way_is_the_first_mend() -> None:
    high = make_plan(load_profile("single")).per_gpu[0].nvml_bytes.high
    searcher = Searcher(load_profile("single", [f"hardware.capacity_bytes={high}"]), "60%")
    fit = search(searcher)
    assert not fit.fits
    assert mends(searcher, fit)[0].startswith("a reserve of ")


def workload(**settings: object) -> Workload:
    return msgspec.structs.replace(planned_workload(load_profile("zero3")), **settings)


def test_recomputing_and_gathering_for_fewer_tokens_cost_more() -> None:
    assert cost_of(workload(checkpointing=False)) < cost_of(workload())
    assert cost_of(workload(micro_batch=4)) < cost_of(workload())
    one = msgspec.structs.replace(workload().sharding, backend="single", world_size=1)
    alone = workload(sharding=one, zero3=None)
    four_passes = 2 * (alone.model.linear_weights + 152_064 * 8192) * 4
    assert cost_of(alone) == four_passes


def test_one_gather_costs_less_than_three_and_bytes_from_the_host_cost_most() -> None:
    job = workload()
    kept = msgspec.structs.replace(job.sharding, reshards=False)
    others = 7 / 8 * (job.model.parameters - job.model.linear_weights) * 2
    assert cost_of(workload(sharding=kept)) < cost_of(job) < cost_of(workload(offload="cpu-params"))
    assert cost_of(workload(offload="cpu-params")) < cost_of(workload(offload="cpu-all"))
    shared = cost_of(job) - cost_of(workload(sharding=kept))
    bytes_of_two_gathers = 2 * (7 / 8 * job.model.linear_weights / 2 + others)
    assert shared == pytest.approx(2_000 * bytes_of_two_gathers / job.tokens / 8, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10%", 8), ("8GiB", 8 * GIB), ("512 MiB", GIB // 2), ("0%", 0), ("1.5gib", 3 * GIB // 2)],
)
def test_a_reserve_is_a_share_or_a_size(text: str, expected: int) -> None:
    assert reserve_bytes(text, 80 if text == "10%" else 80 * GIB) == expected


@pytest.mark.parametrize("text", ["", "ten", "10", "-5%", "100%", "90GiB", "nan%"])
def test_another_reserve_is_refused(text: str) -> None:
    with pytest.raises(ProfileError, match=r"^--reserve: "):
        reserve_bytes(text, 80 * GIB)


def test_without_a_capacity_there_is_nothing_to_fit() -> None:
    with pytest.raises(ProfileError, match=r"hardware.capacity_bytes: is 0"):
        fit_of("demo")


@pytest.mark.parametrize(
    ("name", "capacity"),
    [
        ("H100 80GB", 85_520_809_984),
        ("h100", 85_520_809_984),
        ("NVIDIA H100 80GB HBM3", 85_520_809_984),
        ("a100", 85_899_345_920),
        ("A100-40GB", 42_949_672_960),
        ("rtx4090", 24_564 << 20),
        ("A10", 23_028 << 20),
    ],
)
def test_cards_are_found_by_short_and_reported_names(name: str, capacity: int) -> None:
    assert find_card(name).capacity_bytes == capacity


def test_an_unknown_card_is_answered_with_near_names() -> None:
    with pytest.raises(ProfileError, match=r"no card 'rtx 4080' is known; did you mean RTX 4090"):
        find_card("rtx 4080")
    with pytest.raises(ProfileError, match=r"known are H100 80GB, "):
        find_card("zzzzzz")
