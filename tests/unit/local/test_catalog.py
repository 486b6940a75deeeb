"""The catalog and the Go modules under `tools/` say the same."""

import re
from pathlib import Path

import pytest

from trimtab.local import paths
from trimtab.local.catalog import FAMILIES, PROGRAMS, Family, architecture
from trimtab.model.problem import Problem


def _module(family: Family) -> str:
    return (paths.shipped("tools") / family.name / "go.mod").read_text()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_module_pins_the_version_of_the_catalog(family: Family) -> None:
    for program in family.programs:
        module = re.escape(program.package.partition("/cmd/")[0])
        assert re.search(rf"^\s*(require )?{module} {re.escape(family.version)}\b", _module(family), re.MULTILINE)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_module_names_each_program_as_a_tool(family: Family) -> None:
    for program in family.programs:
        assert re.search(rf"^\s*(tool )?{re.escape(program.package)}$", _module(family), re.MULTILINE)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_module_has_its_sums(family: Family) -> None:
    sums = (paths.shipped("tools") / family.name / "go.sum").read_text()
    for program in family.programs:
        assert f"{program.package.partition('/cmd/')[0]} {family.version} h1:" in sums


def test_every_release_is_checked_against_a_published_or_pinned_sum() -> None:
    for family in FAMILIES:
        for program in family.programs:
            assert program.checksums or program.pinned, program.name
            assert all(re.fullmatch(r"[0-9a-f]{64}", sum_) for _, sum_ in program.pinned)
            assert program.release.startswith("https://")
            assert "{arch}" in program.release


def test_the_release_of_a_program_has_the_version_of_its_family() -> None:
    for family in FAMILIES:
        version = family.version.removeprefix("v")
        spoken = {"0.316.0": "3.16.0"}.get(version, version)  # Prometheus 3.x is module v0.3xx
        assert all(spoken in program.release for program in family.programs)


def test_every_program_has_one_family() -> None:
    names = [program.name for family in FAMILIES for program in family.programs]
    assert sorted(names) == sorted(PROGRAMS)


def test_kubernetes_is_stamped_with_its_version() -> None:
    family = PROGRAMS["kube-apiserver"]
    assert "k8s.io/component-base/version.gitVersion=v1.37.2" in family.linker
    assert "k8s.io/component-base/version.gitMinor=37" in family.linker


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_architectures_are_called_as_go_calls_them(machine: str, name: str) -> None:
    assert architecture(machine) == name


def test_another_architecture_is_refused_with_a_way_out() -> None:
    with pytest.raises(Problem, match=r"not on riscv64\nfix: .*kind"):
        architecture("riscv64")


def test_what_is_not_shipped_is_named() -> None:
    with pytest.raises(Problem, match="no-such-file is not part of this installation"):
        paths.shipped("no-such-file")


def test_folders_follow_the_environment(tmp_path: Path) -> None:
    assert paths.home({"TRIMTAB_HOME": str(tmp_path)}) == tmp_path
    assert paths.home({"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "trimtab"
    assert paths.cache({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "trimtab"
    assert paths.cache({"TRIMTAB_CACHE": ""}) == Path.home() / ".cache" / "trimtab"
