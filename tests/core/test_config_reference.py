from pathlib import Path

from config.reference import reference
from tests.core.configured import mistakes

DOCS = Path(__file__).parents[2] / "docs/configuration.md"


def test_the_reference_tells_range_default_and_source():
    assert (
        "| `memory_size` | 128 to 10240 | `128` | MB that a worker may use. With `handler` only. | AWS |" in reference()
    )
    assert "| `function` | the name of a function in this file | **required** |" in reference()


def test_the_smallest_file_of_the_docs_is_right(tmp_path):
    text = DOCS.read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "functions/orders").mkdir(parents=True)
    assert mistakes(tmp_path, text) == []
