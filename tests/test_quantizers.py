"""Bottlenecks: payloads and back, straight-through gradients, care of dead codes, determinism."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mgen.core.quantizers import (
    FSQ,
    VQ,
    Payload,
    ResidualFSQ,
    StyleActions,
    reset_due,
    use_figures,
    use_of,
)
from mgen.core.train_loop import Draw

WIDTH, A, ITEMS, VECTORS, TOKENS = 12, 6, 8, 4, 5


def make(name: str, **changed: Any) -> Any:
    torch.manual_seed(0)
    kinds: dict[str, Callable[..., nn.Module]] = {
        "vq": lambda **k: VQ(WIDTH, A, **{"actions": 16, "dims": 4, "reset_until": 50, **k}),
        "fsq": lambda **k: FSQ(WIDTH, A, **{"levels": (8, 6, 5), **k}),
        "residual": lambda **k: ResidualFSQ(WIDTH, A, **k),
        "style": lambda **k: StyleActions(
            WIDTH, A, **{"actions": 10, "top_k": 3, "warmup": 10, "sparse_at": 30,
                         "reset_until": 40, **k}),
    }  # fmt: skip
    return kinds[name](**changed)


ALL = ("vq", "fsq", "residual", "style")


def vectors(name: str, seed: int = 0, items: int = ITEMS) -> Tensor:
    shape = (items, VECTORS, TOKENS, WIDTH) if name == "style" else (items, VECTORS, WIDTH)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def drawn(step: int = 0, items: int = ITEMS, first: int = 0, total: int = ITEMS) -> Draw:
    return Draw(seed=3, step=step, total=total, first=first, items=items)


@pytest.mark.parametrize("name", ALL)
class TestEach:
    def test_a_payload_gives_its_embedding_back(self, name: str) -> None:
        quantizer = make(name).eval()
        found = quantizer(vectors(name))
        assert found.embedding.shape == (ITEMS, VECTORS, A)
        assert found.payload.index.shape == (ITEMS, VECTORS, quantizer.numbers)
        assert found.payload.index.dtype == torch.int64
        assert ((found.payload.index >= 0) & (found.payload.index < quantizer.actions)).all()
        assert torch.allclose(quantizer.embed(found.payload), found.embedding, atol=1e-5)

    def test_in_training_too_where_nothing_is_random(self, name: str) -> None:
        if name == "vq":
            pytest.skip("codes are noise while they are trained")
        plain = {"style": {"one_hot": 0.0}, "residual": {"dropout": 0.0}}.get(name, {})
        quantizer = make(name, **plain)
        found = quantizer(vectors(name), drawn(step=99))
        assert torch.allclose(quantizer.embed(found.payload), found.embedding, atol=1e-5)

    def test_gradient_passes_through(self, name: str) -> None:
        quantizer, x = make(name), vectors(name).requires_grad_()
        found = quantizer(x, drawn(step=20))
        (found.embedding * torch.randn(ITEMS, VECTORS, A)).sum().backward()
        assert x.grad is not None
        assert (x.grad.flatten(2).abs().sum(-1) > 0).all()
        without = [n for n, p in quantizer.named_parameters() if p.grad is None]
        assert without == []

    def test_an_item_is_the_same_in_any_batch(self, name: str) -> None:
        quantizer, x = make(name).eval(), vectors(name)
        alone, among = quantizer(x[2:4]), quantizer(x)
        assert torch.equal(alone.payload.index, among.payload.index[2:4])
        assert torch.allclose(alone.embedding, among.embedding[2:4], atol=1e-6)

    def test_parts_of_a_batch_draw_what_the_whole_draws(self, name: str) -> None:
        quantizer, x = make(name), vectors(name)
        whole = copy.deepcopy(quantizer)(x, drawn(step=33)).embedding
        parts = [quantizer(x[a : a + 4], drawn(33, 4, a)).embedding for a in (0, 4)]
        assert torch.allclose(torch.cat(parts), whole, atol=1e-5)

    def test_same_draws_same_bits(self, name: str) -> None:
        one, two = make(name), make(name)
        for step in range(12):
            first, second = (q(vectors(name, step), drawn(step)) for q in (one, two))
            assert torch.equal(first.embedding, second.embedding)
        for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
            assert torch.equal(a, b)

    def test_all_that_training_changes_is_in_the_state(self, name: str) -> None:
        """Steps 0 to 14 in one go, and with a stop after 7 in which only the state survives."""
        whole = make(name)
        for step in range(15):
            last = whole(vectors(name, step), drawn(step))
        first = make(name)
        for step in range(7):
            first(vectors(name, step), drawn(step))
        second = make(name)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        for step in range(7, 15):
            again = second(vectors(name, step), drawn(step))
        assert torch.equal(last.embedding, again.embedding)
        for a, b in zip(whole.state_dict().values(), second.state_dict().values(), strict=True):
            assert torch.equal(a, b)

    def test_measuring_changes_nothing(self, name: str) -> None:
        quantizer = make(name)
        quantizer(vectors(name), drawn())
        before = copy.deepcopy(quantizer.state_dict())
        quantizer.eval()
        quantizer(vectors(name, 1))
        quantizer(vectors(name, 1), drawn(step=10))
        for key, value in quantizer.state_dict().items():
            assert torch.equal(value, before[key]), key

    def test_bfloat16_autocast_changes_no_code(self, name: str) -> None:
        quantizer, x = make(name).eval(), vectors(name)
        exact = quantizer(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = quantizer(x)
        assert rough.embedding.dtype == torch.float32
        assert torch.equal(rough.payload.index, exact.payload.index)


class TestResets:
    def test_schedule(self) -> None:
        due = [s for s in range(3000) if reset_due(s, 2600)]
        assert due[:11] == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
        assert due[11:20] == [200, 300, 400, 500, 600, 700, 800, 900, 1000]
        assert due[20:] == [1500, 2000, 2500]
        assert not reset_due(10, 10)

    def test_codes_begin_where_the_data_is(self) -> None:
        quantizer, x = make("vq"), vectors("vq")
        quantizer(x, drawn())
        z_XD = quantizer.enter(quantizer.norm(x)).detach().flatten(0, 1)
        z_XD = z_XD / z_XD.square().mean(-1, keepdim=True).sqrt()
        distance = torch.cdist(quantizer.codes.entries.detach(), z_XD).min(1).values
        assert (distance < 1e-3).all()

    def test_dead_codes_are_replaced_and_the_others_kept(self) -> None:
        quantizer, x = make("vq"), vectors("vq")
        quantizer(x, drawn(0))
        with torch.no_grad():
            far_D = quantizer.codes.entries[0].clone()
            quantizer.codes.entries[7:] = far_D  # nine alike: all but the first are never used
        quantizer.codes.used.zero_()
        for step in range(1, 10):
            quantizer(x, drawn(step))
        used = quantizer.codes.used > 0
        before = quantizer.codes.entries.detach().clone()
        assert not used[7:].any()
        quantizer(x, drawn(10))
        after = quantizer.codes.entries.detach()
        assert torch.equal(after[used], before[used])
        assert (after[~used] != before[~used]).any(dim=1).all()
        assert int(quantizer.codes.used.sum()) == ITEMS * VECTORS  # counted anew

    @pytest.mark.parametrize("name", ["vq", "style"])
    def test_nothing_is_replaced_once_it_is_time(self, name: str) -> None:
        quantizer = make(name, reset_until=10)
        quantizer(vectors(name), drawn(0))
        entries = (quantizer.codes if name == "vq" else quantizer.styles).entries
        before = entries.detach().clone()
        for step in range(1, 201, 10):
            quantizer(vectors(name), drawn(step))
        for step in (10, 100, 200):
            quantizer(vectors(name), drawn(step))
        assert torch.equal(entries, before)

    def test_dead_styles_come_back_to_life(self) -> None:
        quantizer = make("style", actions=30)
        with torch.no_grad():  # one wins everywhere: ask for nothing but embedding 0's direction
            quantizer.styles.entries[1:] = -quantizer.styles.entries[0]
        x = vectors("style")
        used = []
        for step in range(31):
            quantizer(x, drawn(step))
            if step in (9, 30):
                used.append(int((quantizer.styles.used > 0).sum()))
        assert used[1] > used[0]

    def test_parts_of_an_accumulated_batch_replace_once(self) -> None:
        quantizer, x = make("vq"), vectors("vq")
        quantizer(x[:4], drawn(0, 4, 0))
        after_first = quantizer.codes.entries.detach().clone()
        quantizer(x[4:], drawn(0, 4, 4))
        assert torch.equal(quantizer.codes.entries, after_first)


class TestVQ:
    def test_it_is_the_nearest_code(self) -> None:
        quantizer, x = make("vq").eval(), vectors("vq")
        z = torch.nn.functional.rms_norm(quantizer.enter(quantizer.norm(x)), (4,), eps=1e-6)
        codes = torch.nn.functional.rms_norm(quantizer.codes.entries, (4,), eps=1e-6)
        nearest = torch.cdist(z.flatten(0, 1), codes).argmin(1)
        assert torch.equal(quantizer(x).payload.index.flatten(), nearest)

    def test_noise_has_the_length_of_the_error(self) -> None:
        quantizer, x = make("vq"), vectors("vq")
        quantizer.leave = nn.Identity()
        noisy = quantizer(x, drawn(1)).embedding  # no reset at step 1
        z = torch.nn.functional.rms_norm(quantizer.enter(quantizer.norm(x)), (4,), eps=1e-6)
        hard = quantizer.eval()(x).embedding
        assert torch.allclose((noisy - z).norm(dim=-1), (hard - z).norm(dim=-1), atol=1e-5)
        assert not torch.allclose(noisy, hard)


class TestFSQ:
    def test_balance_is_the_distance_from_standard_normal(self) -> None:
        quantizer = make("fsq")
        quantizer.norm, quantizer.enter = nn.Identity(), nn.Identity()

        def balance(z_XD: Tensor) -> float:
            return float(quantizer(z_XD[None]).balance)

        z_XD = torch.randn(20000, 3, generator=torch.Generator().manual_seed(0))
        assert balance(z_XD) < 0.01
        assert balance(z_XD + 1.0) == pytest.approx(1.0, abs=0.1)
        assert balance(2.0 * z_XD) == pytest.approx(9.0, abs=0.5)
        together = z_XD[:, :1].expand(-1, 3)
        assert balance(together) == pytest.approx(2.0, abs=0.1)

    @pytest.mark.parametrize("name", ["fsq", "residual"])
    def test_balance_spreads_what_had_fallen_together(self, name: str) -> None:
        quantizer, x = make(name), vectors(name, items=64)
        with torch.no_grad():
            for layer in [quantizer.enter] if name == "fsq" else quantizer.down:
                layer.bias += 3.0
        optimiser = torch.optim.Adam(quantizer.parameters(), lr=3e-2)
        used = []
        for _ in range(150):
            found = quantizer(x)
            used.append(float(found.figures["perplexity"]))
            optimiser.zero_grad()
            found.balance.backward()
            optimiser.step()
        assert used[-1] > 2 * used[0]


class TestResidualFSQ:
    def test_depth_cuts_the_sum(self) -> None:
        quantizer, x = make("residual").eval(), vectors("residual")
        full = quantizer(x)
        for depth in (1, 2, 3):
            found = quantizer(x, depth=depth)
            assert torch.equal(found.payload.index, full.payload.index)
            assert torch.equal(found.payload.weight[0, 0], (torch.arange(3) < depth).float())
            assert torch.allclose(quantizer.embed(found.payload), found.embedding, atol=1e-6)

    def test_dropout_is_drawn_for_each_vector(self) -> None:
        quantizer = make("residual", dropout=0.6)
        depths = torch.cat([
            quantizer(vectors("residual"), drawn(s)).payload.weight.sum(-1).flatten()
            for s in range(60)
        ])  # fmt: skip
        share = depths.long().bincount(minlength=4)[1:] / len(depths)
        assert torch.allclose(share, torch.tensor([0.2, 0.2, 0.6]), atol=0.04)

    def test_trained_with_dropout_more_depth_is_never_worse(self) -> None:
        """Overfit 32 vectors: the error falls with each quantizer."""
        torch.manual_seed(1)
        quantizer, x = ResidualFSQ(WIDTH, WIDTH), vectors("residual")
        target = torch.nn.functional.rms_norm(x, (WIDTH,))
        optimiser = torch.optim.Adam(quantizer.parameters(), lr=1e-2)
        for step in range(300):
            loss = (quantizer(x, drawn(step)).embedding - target).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        quantizer.eval()
        with torch.no_grad():
            errors = [
                float((quantizer(x, depth=d).embedding - target).square().mean()) for d in (1, 2, 3)
            ]
        assert errors[0] > errors[1] > errors[2]
        assert errors[2] < 0.75 * errors[0]


class TestStyleActions:
    def test_dense_share_falls_in_a_line(self) -> None:
        quantizer = make("style")
        shares = [quantizer.dense_share(s) for s in (0, 9, 10, 15, 20, 25, 30, 99)]
        assert shares == [1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]

    def test_only_the_largest_count_once_sparse(self) -> None:
        quantizer, x = make("style", one_hot=0.0), vectors("style")
        for step, sparse in ((0, False), (20, False), (30, True)):
            found = quantizer(x, drawn(step))
            kept = torch.allclose(quantizer.embed(found.payload), found.embedding, atol=1e-5)
            assert kept == sparse
            assert torch.allclose(found.payload.weight.sum(-1), torch.tensor(1.0), atol=1e-5)

    def test_a_share_is_one_hot(self) -> None:
        quantizer, x = make("style", one_hot=0.5, reset_until=0), vectors("style")
        alone = 0
        for step in range(40, 60):
            mixed = make("style", one_hot=0.0)(x, drawn(step))
            hard = mixed.payload.index[..., :1]
            single = quantizer.embed(Payload(hard, torch.ones(hard.shape)))
            same = (quantizer(x, drawn(step)).embedding - single).abs().amax(-1) < 1e-5
            alone += int(same.sum())
        assert alone / (20 * ITEMS * VECTORS) == pytest.approx(0.5, abs=0.08)

    def test_tokens_attend_before_they_are_pooled(self) -> None:
        quantizer, x = make("style").eval(), vectors("style")
        shuffled = x[:, :, torch.tensor([3, 1, 4, 0, 2])]
        assert torch.allclose(quantizer(shuffled).embedding, quantizer(x).embedding, atol=1e-5)
        pooled = x.mean(2, keepdim=True).expand_as(x)
        assert not torch.allclose(quantizer(pooled).embedding, quantizer(x).embedding, atol=1e-3)

    def test_balance_pushes_towards_even_use(self) -> None:
        quantizer, x = make("style", one_hot=0.0, reset_until=0), vectors("style")
        with torch.no_grad():
            quantizer.styles.entries += 3.0 * quantizer.styles.entries[0]
        optimiser = torch.optim.Adam(quantizer.parameters(), lr=3e-2)
        balances = []
        for step in range(60):
            balance = quantizer(x, drawn(step)).balance
            assert 0.0 <= float(balance.detach()) <= 1.0
            balances.append(float(balance.detach()))
            optimiser.zero_grad()
            balance.backward()
            optimiser.step()
        assert balances[9] < balances[0]  # still dense


@settings(deadline=None, max_examples=30)
@given(counts=st.lists(st.integers(0, 50), min_size=2, max_size=12).filter(any))
def test_perplexity_and_utilisation_by_formula(counts: list[int]) -> None:
    found = use_figures(torch.tensor([counts]))
    entropy = -sum(c / sum(counts) * torch.tensor(c / sum(counts)).log() for c in counts if c)
    assert float(found["perplexity"]) == pytest.approx(float(torch.as_tensor(entropy).exp()), 1e-4)
    assert float(found["utilisation"]) == pytest.approx(sum(c > 0 for c in counts) / len(counts))
    assert 1.0 - 1e-4 <= float(found["perplexity"]) <= len(counts) + 1e-3


def test_use_of_codes_and_of_styles() -> None:
    payload = Payload(torch.tensor([[0, 2], [0, 1]]), torch.tensor([[0.75, 0.25], [1.0, 0.0]]))
    assert use_of(payload, 3, by_quantizer=True).tolist() == [[1.75, 0.0, 0.0], [0.0, 0.0, 0.25]]
    assert use_of(payload, 3, by_quantizer=False).tolist() == [[1.75, 0.0, 0.25]]
