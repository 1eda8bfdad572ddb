"""Operations counted in a jaxpr, against loops counted by hand."""

import jax
import jax.numpy as jnp

from benchmarks.operations import Cost, Rates, counted


def test_counts_every_turn_of_a_loop_and_every_element():
    def body(k, x):
        return jax.lax.cond(k > 2, lambda x: x * 3.0 + 1.0, jnp.sin, x)  # 1 comparison; 14 elements, at most twice

    def run(x, a):
        x = jax.lax.fori_loop(0, 5, body, x)
        return (a @ x).T  # 3 x 2 of 7 products and sums

    jaxpr = jax.make_jaxpr(run)(jnp.ones((7, 2)), jnp.ones((3, 7))).jaxpr
    # the loop's own counter is one operation a turn
    assert counted(jaxpr) == 5 * (1 + 1 + 2 * 14) + 2 * 7 * 3 * 2


def test_the_floor_is_the_longer_of_two_times():
    rates = Rates(flops=100.0, bytes=10.0)
    assert (rates.floor(Cost(1000.0, 10.0)), rates.limit(Cost(1000.0, 10.0))) == (10.0, "arithmetic")
    assert (rates.floor(Cost(10.0, 30.0)), rates.limit(Cost(10.0, 30.0))) == (3.0, "memory")
