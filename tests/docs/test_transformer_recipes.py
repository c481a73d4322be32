"""The recipes for language models hold for the forms that their heads have."""

import pytest
from code_blocks import ROOT, blocks_of
from small_models import build_encoder

from corepress import Config, coreml

RECIPES = {
    block.title: block.text for block in blocks_of(ROOT / "docs/recipes/transformers.md") if block.language == "yaml"
}


@pytest.mark.parametrize("head", [{}, {"tied": True}, {"heads": 4}], ids=["untied", "tied", "split"])
@pytest.mark.parametrize("recipe", ["gpu.yaml", "ane.yaml"])
def test_recipes_compress_every_matrix(recipe, head, tmp_path):
    build_encoder(tmp_path / "a.mlpackage", **head)
    config = Config.from_yaml(RECIPES[recipe])
    report = coreml.compress(tmp_path / "a.mlpackage", tmp_path / "b.mlpackage", config, strict=True)
    assert not report.unmatched_rules
    assert all(record.status == "compressed" for record in report.weights if len(record.shape) > 1)
