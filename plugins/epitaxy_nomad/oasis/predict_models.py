"""What the action takes and gives: plain pydantic models, light to import."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PredictInput(BaseModel):
    """What to predict with which model.

    Attributes:
        upload_id: upload with the entries, which also takes the predictions.
        user_id: who asks; NOMAD fills it.
        model: entry id of a trained model, or the folder of an artifact in an upload.
        model_upload_id: upload of the model, where it is another one.
        entry_ids: entries to predict; none means all of the upload that have a structure.
        targets: quantities to predict; none means all that the model knows.
        name: of the entry with the predictions.
    """

    model_config = ConfigDict(title="Predict with a trained model", protected_namespaces=())

    upload_id: str = Field(
        ...,
        title="Upload",
        description="Upload with the structures; the predictions are written into it.",
    )
    user_id: str = Field(..., description="Who asks.")
    model: str = Field(
        ...,
        title="Model",
        description="Entry id of a trained model, or the folder of its files in the upload.",
    )
    model_upload_id: str = Field(
        "",
        title="Upload of the model",
        description="Only where the model is in another upload than the structures.",
    )
    entry_ids: list[str] = Field(
        default_factory=list,
        title="Entries",
        description="Ids of the entries to predict; all of the upload if none is given.",
    )
    targets: list[str] = Field(
        default_factory=list,
        title="Quantities",
        description="Quantities to predict; all that the model knows if none is given.",
    )
    name: str = Field(
        "predictions",
        title="Name",
        description="Name of the entry that is written; one of the same name is replaced.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
    )


class PredictOutput(BaseModel):
    """What was predicted and where it is.

    Attributes:
        mainfile: file in the upload.
        entry_id: its entry.
        n_structures: structures that were predicted.
        n_skipped: entries that were left out.
        reasons: why, with how many.
        targets: quantities that were predicted.
        has_uncertainty: whether there are standard deviations.
    """

    mainfile: str
    entry_id: str
    n_structures: int
    n_skipped: int
    reasons: dict[str, int]
    targets: list[str]
    has_uncertainty: bool


class PredictLimits(BaseModel):
    """Limits that the administrator sets on the entry point.

    Attributes:
        max_structures: structures of one call.
        max_inline: numbers of one quantity that stand in the archive; more go into an HDF5 file.
        max_references: structures that the entry refers to.
    """

    max_structures: int
    max_inline: int
    max_references: int


class PredictJob(BaseModel):
    """What the activity gets.

    Attributes:
        request: what the user asked for.
        limits: of the server.
    """

    request: PredictInput
    limits: PredictLimits
