"""One thread inside, whatever was set outside, and outside as it was."""

import re

import torch
from threadpoolctl import threadpool_info, threadpool_limits

from hadas.surrogates.threads import single_thread


def linear_algebra_threads():
    """What torch's own linear algebra uses, which keeps a count beside OpenMP's."""
    return {int(n) for n in re.findall(r"get_max_threads\(\) : (\d+)", torch.__config__.parallel_info())}


def test_torch_uses_one_thread_after_a_limit_of_two_was_lifted():
    with threadpool_limits(limits=1):
        with threadpool_limits(limits=2), single_thread():
            pass
        with single_thread():
            assert linear_algebra_threads() == {1}
            assert torch.get_num_threads() == 1


def test_limits_are_left_as_found():
    before = torch.get_num_threads(), [library["num_threads"] for library in threadpool_info()]
    with single_thread():
        assert {library["num_threads"] for library in threadpool_info()} == {1}
    assert (torch.get_num_threads(), [library["num_threads"] for library in threadpool_info()]) == before
