from pathlib import Path

FOLDER = Path(__file__).parents[3] / "operator"


def test_the_operator_folder_never_shadows_the_standard_library() -> None:
    assert not (FOLDER / "__init__.py").exists()
    import operator

    assert operator.add(1, 2) == 3


def test_no_test_lives_beside_the_operators_code() -> None:
    assert not [*FOLDER.rglob("test_*.py"), *FOLDER.rglob("conftest.py")]
