"""Which pool serves which model, while pools come, change and go."""

from hypothesis import given
from hypothesis import strategies as st

from trimtab_gateway.models import Contest, ModelIndex
from trimtab_gateway.pools import PoolConfig


def a_pool(name: str, *models: str, since: str = "") -> PoolConfig:
    return PoolConfig(name, models, since=since)


OLD, YOUNG, YOUNGEST = (a_pool(name, "m", since=since) for name, since in (("z", "1"), ("y", "2"), ("x", "3")))


def test_the_oldest_claim_wins_whatever_came_first() -> None:
    index = ModelIndex()
    assert index.claim(YOUNG) == []
    assert index.claim(OLD) == [Contest("m", "z", ("y",))]
    assert index.owner("m") == "z"


def test_a_contest_is_told_once() -> None:
    index = ModelIndex()
    index.claim(OLD)
    assert index.claim(YOUNG) == [Contest("m", "z", ("y",))]
    assert index.claim(YOUNG) == []
    assert index.claim(a_pool("other", "n")) == []
    assert index.claim(a_pool("z", "m", "more", since="1")) == []  # it owns what it owned
    assert index.contested == 1


def test_a_new_owner_and_a_new_loser_are_news_and_a_loser_less_is_none() -> None:
    index = ModelIndex()
    index.claim(OLD)
    index.claim(YOUNG)
    assert index.claim(YOUNGEST) == [Contest("m", "z", ("y", "x"))]
    assert index.release("x") == []
    index.claim(YOUNGEST)
    assert index.release("z") == [Contest("m", "y", ("x",))]
    assert index.release("x") == []
    assert (index.owner("m"), index.contested) == ("y", 0)


def test_a_pool_that_never_was_is_released_without_harm() -> None:
    index = ModelIndex()
    assert index.release("nobody") == []
    assert (index.owner("m"), index.names()) == (None, [])


POOLS = st.builds(
    lambda name, models, since: PoolConfig(name, tuple(models), since=since),
    st.sampled_from("abcd"),
    st.lists(st.sampled_from("klmn"), min_size=1),
    st.sampled_from("12"),
)


@given(st.lists(POOLS | st.sampled_from("abcd")))
def test_whatever_happens_the_index_says_what_one_made_anew_would_say(steps: list[PoolConfig | str]) -> None:
    index, pools = ModelIndex(), dict[str, PoolConfig]()
    for step in steps:
        if isinstance(step, str):
            index.release(step)
            pools.pop(step, None)
        else:
            index.claim(step)
            pools[step.name] = step
        claims: dict[str, list[tuple[str, str]]] = {}
        for pool in pools.values():
            for model in set(pool.models):
                claims.setdefault(model, []).append((pool.since, pool.name))
        assert {model: index.owner(model) for model in index.names()} == {
            model: min(claimants)[1] for model, claimants in claims.items()
        }
        assert index.contested == sum(len(claimants) > 1 for claimants in claims.values())
        assert all(f'"{model}"'.encode() in index.listing() for model in claims)
