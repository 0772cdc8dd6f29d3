from biomassters.scenes.patience import Patience


def test_each_wait_is_twice_the_one_before_up_to_the_longest() -> None:
    patience = Patience(tries=6, first_wait_s=0.5, longest_wait_s=3)
    assert [patience.wait_s(n_tries) for n_tries in range(1, 6)] == [0.5, 1, 2, 3, 3]
