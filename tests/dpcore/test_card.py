"""The card of an export is the hub's kind of file, says what is public, and claims no licence that nobody gave."""

import pytest
from huggingface_hub import ModelCard

from dpcore.export import About, PrivacyClaim, write_card
from dpcore.export.about import write_about
from dpcore.export.card import license_of

PRIVACY = PrivacyClaim(2.5, 1e-5, "record", "add_or_remove_one", "Poisson-subsampled Gaussian", "The promise.", 400)


def about(**changes) -> About:
    values = {"base_model": "minilm", "base_model_sha256": "0" * 64, "method": "lora", "task": "classification"}
    return About(**values | {"labels": ("no", "yes: 1"), "max_length": 16} | changes)


@pytest.mark.parametrize("repository", [None, "owner/tiny"])
def test_the_front_matter_is_what_the_hub_reads(tmp_path, repository):
    """A name of the service's own is no name of the hub's, and would be somebody else's model there."""
    write_about(tmp_path, about(repository=repository, commit=repository and "1" * 40))
    (tmp_path / "adapter_config.json").write_text("{}")
    write_card(tmp_path, tmp_path, PRIVACY)
    card = ModelCard.load(tmp_path / "README.md", ignore_metadata_errors=False)
    assert card.data.base_model == repository
    assert (card.data.library_name, card.data.pipeline_tag) == ("peft", "text-classification")
    assert card.data.license == "unknown"
    for public in (
        "epsilon 2.5",
        "delta 1e-05",
        "The promise.",
        '"no", "yes: 1"',
        "declared size, a public number: 400",
    ):
        assert public in card.text
    assert str(tmp_path) not in card.content


@pytest.mark.parametrize(
    ("file", "content", "license"),
    [
        ("README.md", "---\nlanguage: en\nlicense: apache-2.0\n---\n# text", "apache-2.0"),
        ("README.md", "# license: mit", "unknown"),
        ("LICENSE", "MIT License\n\nCopyright", "mit"),
        ("LICENSE.txt", "You may not use it", "other"),
        ("NOTES", "", "unknown"),
    ],
)
def test_a_licence_is_the_bases_own(tmp_path, file, content, license):
    (tmp_path / file).write_text(content)
    name, words = license_of(tmp_path)
    assert name == license
    assert ("ask whoever published it" in words) == (license == "unknown")
