"""One reading gives the digests that provenance and DVC give."""
import os

import pytest

from croissant.digests import Digests, read_once
from croissant.params import BadInput, root
from croissant.provenance import dvc_md5, sha256


@pytest.mark.parametrize("path", ["LICENSE", "fmti", "reports/paper"])
def test_both_digests_are_the_known_ones(path):
    found = Digests(root())
    assert (found.sha256(path), found.md5(path)) == (sha256(root()/path), dvc_md5(root()/path))
    assert found.read([path]) == 0


@pytest.mark.parametrize("memory", ["[]", "{", '{"a": 1}', '{"a": ["x"]}'])
def test_a_broken_memory_is_no_memory(tmp_path, memory):
    (tmp_path/"pain").write_text("mie"); (tmp_path/"memory.json").write_text(memory)
    assert Digests(tmp_path, tmp_path/"memory.json").read(["pain"]) == 1


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path):
    (tmp_path/"pain").write_text("mie")
    for _ in range(2): assert Digests(tmp_path, tmp_path/"memory.json").read(["pain"]) == 1
    os.utime(tmp_path/"pain", (10**9, 10**9))
    assert [Digests(tmp_path, tmp_path/"memory.json").read(["pain"]) for _ in range(2)] == [1, 0]
    (tmp_path/"pain").write_text("mies")
    assert Digests(tmp_path, tmp_path/"memory.json").sha256("pain") == read_once(tmp_path/"pain")[1] == sha256(tmp_path/"pain")


def test_absent():
    with pytest.raises(BadInput, match="no such file"): Digests(root()).md5("nowhere")
