import pytest

from tests.support.process_node import a_container, a_pod, a_pod_object, container
from trimtab.local.process_node.entrypoint import AllowList, NotAllowed, command_line, image_program, refuse
from trimtab.local.process_node.spec import parse_pod

ALLOWED = AllowList({"trimtab": "/venv/bin/trimtab", "trimtab-operator": "/venv/bin/trimtab-operator"})


@pytest.mark.parametrize("program", ["trimtab", "/usr/local/bin/trimtab", "./trimtab"])
def test_a_program_is_found_by_its_name_alone(program: str) -> None:
    assert ALLOWED.resolve((program, "engine")) == ("/venv/bin/trimtab", "engine")


@pytest.mark.parametrize("command", [("sh", "-c", "trimtab"), ("trimtab-extender",), (), ("",), ("/",)])
def test_other_programs_are_refused_by_name(command: tuple[str, ...]) -> None:
    with pytest.raises(NotAllowed, match="it runs only trimtab, trimtab-operator"):
        ALLOWED.resolve(command)


@pytest.mark.parametrize(
    ("image", "program"),
    [
        ("trimtab-operator", "trimtab-operator"),
        ("registry:5000/team/trimtab-operator:1.2", "trimtab-operator"),
        ("registry/trimtab-operator@sha256:00", "trimtab-operator"),
        ("registry/trimtab-operator:1@sha256:00", "trimtab-operator"),
        ("", ""),
    ],
)
def test_an_image_is_named_after_its_entry_point(image: str, program: str) -> None:
    assert image_program(image) == program


def test_the_image_stands_for_an_absent_command_only() -> None:
    assert command_line(container(image="x/trimtab-operator:1", args=["--help"])) == ("trimtab-operator", "--help")
    assert command_line(container(image="x/trimtab-operator:1", command=["trimtab"])) == ("trimtab",)


def test_a_pod_of_our_own_programs_is_not_refused() -> None:
    assert refuse(a_pod(), ALLOWED) is None


def test_a_pod_without_the_label_is_refused() -> None:
    obj = a_pod_object()
    obj["metadata"]["labels"] = {}

    assert (
        refuse(parse_pod(obj), ALLOWED) == "pods run as local processes only with the label trimtab.dev/run-as=process"
    )


def test_a_foreign_command_of_any_container_is_refused_and_named() -> None:
    pod = a_pod(initContainers=[a_container("first", command=["curl"])])

    why = refuse(pod, ALLOWED)

    assert why is not None
    assert why.startswith("container first: the process node does not run 'curl'")
