"""Files and folders of other kinds: each command names the kind, and gives no advice that is refused next."""

from __future__ import annotations

import re
import shlex

import pytest
from foreign_files import KINDS, make_file, model_of_type, package_of

from corepress.coreml.format import kinds
from corepress.neural_network.schema import Model

COMMANDS = (
    "palettize {source} -o {out} --nbits 4",
    "quantize {source} -o {out}",
    "quantize {source} -o {out} --nbits 8",
    "prune {source} -o {out} --target-sparsity 0.5",
    "compress {source} -o {out} --config [{{\"quantize\":{{}}}}]",
    "palettize {source} --nbits 4 --dry-run",
    "decompress {source} -o {out}",
    "fp16 {source} -o {out}",
    "inspect {source}",
    "verify {source} {source}",
    "compare {source} {source}",
)  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), KINDS.values(), ids=KINDS)
def test_every_command_names_the_kind(shell, tmp_path, name, content, message):
    source = make_file(tmp_path, name, content)
    for line in COMMANDS:
        words = line.format(source="SOURCE", out="OUT").split()
        given = {"SOURCE": source, "OUT": tmp_path / f"o{source.suffix}"}
        outcome = shell(*(given.get(word, word) for word in words))
        assert outcome.status == 1, line
        assert message in outcome.err
        assert outcome.err.count("\n") == 1
        assert "'corepress " not in outcome.err  # every command refuses this


def test_the_advice_about_networks_is_followed(shell, network):
    for line in COMMANDS:
        words = line.format(source="SOURCE", out="OUT").split()
        out = network.with_name("o.mlmodel")
        outcome = shell(*({"SOURCE": network, "OUT": out}.get(word, word) for word in words))
        for command in re.findall(r"use 'corepress ([^']*)'", outcome.err):
            followed = shell(*shlex.split(command), "-o", out, "--overwrite")
            assert followed.status == 0, followed.err


def test_parts_of_a_package_and_folders_of_packages(shell, tmp_path):
    package = make_file(tmp_path, "a.mlpackage", package_of(model_of_type(502)))
    for part in ("Data", "Data/model.mlmodel"):
        assert str(package) in shell("inspect", package / part).err
    assert f"give {package}" in shell("inspect", tmp_path).err


def test_types_are_those_of_coremltools():
    proto = pytest.importorskip("coremltools.proto.Model_pb2")
    fields = proto.Model.DESCRIPTOR.oneofs_by_name["Type"].fields
    assert {each.number: each.name for each in fields} == {
        number: name for number, (name, _) in kinds.MODEL_TYPES.items()
    }
    known = {each.number: each.name for each in Model.DESCRIPTOR.oneofs_by_name["Type"].fields}
    assert known.items() <= {number: name for number, (name, _) in kinds.MODEL_TYPES.items()}.items()


@pytest.mark.parametrize("seed", range(40))
def test_hostile_content_gives_a_word_or_none(tmp_path, seed):
    import random

    chance = random.Random(seed)
    contents = [content for _, content, _ in KINDS.values() if isinstance(content, bytes) and content]
    path = tmp_path / "a"
    for _ in range(20):
        data = bytearray(chance.choice(contents) * chance.choice((1, 1, 50)))
        for _ in range(chance.randrange(1, 9)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.randrange(len(data) + 1)])
        assert isinstance(kinds.obstacle_at(path), str | None)
        assert kinds.model_in_words(path)
