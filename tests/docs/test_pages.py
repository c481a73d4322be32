"""What README and documentation tell people to type works."""

from __future__ import annotations

import gc

import pytest
from code_blocks import NOT_RUN_HERE, PAGES, ROOT, Reader, blocks_of

from helpers.assets import require_coreai

ABOUT_CORE_AI = ("docs/guides/core-ai.md", "docs/coming-from-coreai-opt.md")
NAMES = {page.relative_to(ROOT).as_posix(): page for page in PAGES}


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")  # coremltools' temporary packages
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")  # what coremltools 9 converts best
@pytest.mark.parametrize("name", NAMES)
def test_code_blocks_run_in_their_order(name, workplace):
    if name in ABOUT_CORE_AI:
        require_coreai()
    reader = Reader()
    for block in blocks_of(NAMES[name]):
        if block.is_run:
            reader.run(block)
    del reader
    gc.collect()


def test_few_blocks_are_not_run():
    left_out = [block.place for page in PAGES for block in blocks_of(page) if block.text.startswith(NOT_RUN_HERE)]
    assert len(left_out) <= 8, left_out


def test_the_two_lines_to_try_and_to_test_stand_alone():
    blocks = [block.text for block in blocks_of(ROOT / "README.md")]
    assert "pip install '.[plot,torch]' && corepress demo\n" in blocks
    assert "pip install '.[test]' && pytest\n" in blocks
