"""How well a trained model does where information is missing or partial."""

# Of the conditions; here, so that the command line's help need not load torch.
NAMES = (
    "modalities",
    "missing",
    "face",
    "sound-middle",
    "sound-end",
    "noise",
)
