"""Our client against a real server: uploads, metadata, datasets, publication, refusals."""

import io
import json
import zipfile

import pytest

from epitaxy.errors import PublishError
from epitaxy_nomad.service import Service


def zipped(**files: str) -> bytes:
    """Return a zip file; `__` in a name is a dot."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "."), text)
    return stream.getvalue()


SAMPLE = json.dumps({"data": {"m_def": "nomad.datamodel.metainfo.eln.ElnBaseSection", "name": "x"}})


@pytest.fixture
def upload_id(service):
    """A processed, unpublished upload with one entry that has nothing to do with us."""
    id = service.upload([zipped(sample__archive__json=SAMPLE, readme__txt="hello")], name="sample")
    assert service.wait(id, deadline=120).status == "SUCCESS"
    return id


def test_upload_is_processed_and_listed(service, upload_id):
    assert [u.upload_id for u in service.uploads(name="sample")] == [upload_id]
    (entry,) = service.entries(upload_id)
    assert (entry.mainfile, entry.status, entry.errors) == ("sample.archive.json", "SUCCESS", ())
    assert {file.path: file.n_bytes for file in service.files(upload_id)}["readme.txt"] == 5


def test_files_come_back_as_they_were(service, upload_id, tmp_path):
    service.fetch(upload_id, "sample.archive.json", tmp_path / "back", n_bytes=len(SAMPLE))
    assert (tmp_path / "back").read_text() == SAMPLE


def test_without_a_token_nothing_is_uploaded(oasis):
    with Service(f"{oasis.url}/v1") as stranger, pytest.raises(PublishError, match=r"401|token"):
        stranger.create("no")


def test_an_expired_token_is_told(oasis):
    with (
        Service(f"{oasis.url}/v1", oasis.token(expires_in=-60)) as late,
        pytest.raises(PublishError, match=r"[Ee]xpired"),
    ):
        late.whoami()


def test_limit_of_unpublished_uploads_is_named(service):
    for number in range(3):
        service.create(f"upload {number}")
    assert service.count_unpublished() == 3
    with pytest.raises(PublishError, match=r"Limit of unpublished.*services\.upload_limit"):
        service.create("one more")


def test_unknown_upload_is_none(service):
    assert service.find("no-such-upload-here-at-all") is None


def test_metadata_are_edited_and_a_dataset_is_assigned(oasis, service, upload_id):
    import user_stub

    name = "films of tests"
    dataset = service.create_dataset(name)
    changes = {
        "comment": "grown at night",
        "references": ["https://doi.org/10.1000/182"],
        "coauthors": [user_stub.COAUTHOR["user_id"]],
        "datasets": [dataset.dataset_id],
    }
    assert service.edit(upload_id, changes).status == "SUCCESS"
    found = service.dataset(name)
    assert found is not None
    assert found.dataset_id == dataset.dataset_id
    with pytest.raises(PublishError, match="name"):
        service.create_dataset(name)


def test_a_field_that_nomad_does_not_know_is_named(service, upload_id):
    with pytest.raises(PublishError, match="colour"):
        service.edit(upload_id, {"colour": "blue"})


def test_published_uploads_cannot_be_deleted(service, upload_id):
    published = service.publish(upload_id, embargo_months=3)
    assert published.is_published
    assert published.embargo_months == 3
    with pytest.raises(PublishError, match=r"already published|can neither be changed nor deleted"):
        service.delete(upload_id)


def test_an_embargo_beyond_three_years_is_refused(service, upload_id):
    with pytest.raises(PublishError, match=r"36|embargo"):
        service.publish(upload_id, embargo_months=37)


def test_an_empty_upload_cannot_be_published(service):
    with pytest.raises(PublishError):
        service.publish(service.create("empty"))


def test_there_is_no_doi_without_the_service_for_it(service, upload_id):
    dataset = service.create_dataset("without a DOI")
    service.edit(upload_id, {"datasets": [dataset.dataset_id]})
    service.publish(upload_id)
    with pytest.raises(PublishError, match="DOI"):
        service.assign_doi(dataset.dataset_id)
