"""The parameters of flux-redux-dev, validated before anything is paid.

Names, defaults and bounds are those of the vendor's product page; the sizes an image comes in are those that
other hosts of the same model make.
"""

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

MODEL: Final = "flux-redux-dev"

AspectRatio = Annotated[
    Literal["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21"],
    Field(description="Width to height of the image."),
]
DisableSafetyChecker = Annotated[
    bool, Field(description="Let images through that the API's safety checker would withhold.")
]
Guidance = Annotated[float, Field(ge=0, le=10, description="How closely the image follows its source, 0 to 10.")]
Megapixels = Annotated[
    Literal["1", "0.25", "match_input"],
    Field(description="Size of the image in megapixels, or the size of its source."),
]
NumInferenceSteps = Annotated[
    int, Field(ge=1, le=50, description="Denoising steps, 1 to 50; 28 to 50 are recommended.")
]
NumOutputs = Annotated[
    int, Field(ge=1, le=4, description="Images made by one request, 1 to 4; each is a row, and paid for.")
]
OutputFormat = Annotated[Literal["webp", "jpg", "png"], Field(description="File format of the image.")]
OutputQuality = Annotated[int, Field(ge=0, le=100, description="Compression quality, 0 to 100; not used for png.")]
# Two hosts of the model read 0 and -1 as "random": neither names a reproducible image, so neither is a seed here.
Seed = Annotated[int, Field(ge=1, le=2**31 - 1, description="Seed of a reproducible image.")]

SIZES_AT_1_MEGAPIXEL: Final[dict[str, tuple[int, int]]] = {
    "1:1": (1024, 1024),
    "16:9": (1344, 768),
    "21:9": (1536, 640),
    "3:2": (1216, 832),
    "2:3": (832, 1216),
    "4:5": (896, 1088),
    "5:4": (1088, 896),
    "3:4": (896, 1152),
    "4:3": (1152, 896),
    "9:16": (768, 1344),
    "9:21": (640, 1536),
}


class Parameters(BaseModel):
    """One full set of parameters of a request, all but the source (`redux_image`).

    Raises:
        pydantic.ValidationError: a value is of the wrong type or out of bounds, or a name is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    aspect_ratio: AspectRatio = "1:1"
    disable_safety_checker: DisableSafetyChecker = False
    guidance: Guidance = 3.0
    megapixels: Megapixels = "1"
    num_inference_steps: NumInferenceSteps = 28
    num_outputs: NumOutputs = 1
    output_format: OutputFormat = "jpg"
    output_quality: OutputQuality = 80
    seed: Seed = 30255

    def as_sent(self) -> dict[str, Any]:
        """Return the JSON fields of a request, `redux_image` aside.

        A png has no quality: it is left out, so that two requests which differ in nothing else are one.
        """
        fields = dict(self)
        if self.output_format == "png":
            del fields["output_quality"]
        return fields

    def expected_size(self) -> tuple[int, int] | None:
        """Return (width, height) in pixels, or None where it follows the source (`match_input`)."""
        if self.megapixels == "match_input":
            return None
        width, height = SIZES_AT_1_MEGAPIXEL[self.aspect_ratio]
        return (width, height) if self.megapixels == "1" else (width // 2, height // 2)


PARAMETER_NAMES: Final = tuple(Parameters.model_fields)
ASPECT_RATIOS: Final[tuple[str, ...]] = get_args(get_args(AspectRatio)[0])
