"""Small speech encoders with random weights, as transformers writes them."""

import timm
import torch
import transformers
from small_clips import pictures

KINDS = {
    "wav2vec2": transformers.Wav2Vec2Config,
    "hubert": transformers.HubertConfig,
    "wavlm": transformers.WavLMConfig,
    "whisper": transformers.WhisperConfig,
}
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
# Its window is one second.
SMALL_WHISPER = {
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "vocab_size": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "max_source_positions": 50,
}


class Bomb:
    """A pickle that makes a file when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def make_encoder(kind="wav2vec2", shaken=0.0, **changes):
    """A small encoder; shaken, since a fresh model's biases and norms are
    blind."""
    torch.manual_seed(0)
    sizes = SMALL_WHISPER if kind == "whisper" else SMALL
    config = KINDS[kind](**{**sizes, **changes})
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters() if shaken else ():
            parameter.add_(shaken * torch.randn_like(parameter))
    return model


def save_encoder(
    folder, kind="wav2vec2", shaken=0.0, normalize=True, **changes
):
    """Makes a folder of a small encoder."""
    make_encoder(kind, shaken, **changes).save_pretrained(folder)
    if kind == "whisper":
        extractor = transformers.WhisperFeatureExtractor(chunk_length=1)
    else:
        extractor = transformers.Wav2Vec2FeatureExtractor(
            do_normalize=normalize
        )
    extractor.save_pretrained(folder)
    return folder


def timm_network():
    """timm's EfficientNet-B2 with random weights, and statistics that fit: or
    the signal fades and a fault in what goes in does not show."""
    torch.manual_seed(3)
    net = timm.create_model("tf_efficientnet_b2", num_classes=8).train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net(normalized(pictures(8)))
    return net.eval()


def normalized(crops):
    """ImageNet's normalisation, written out a second time."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (crops.float() / 255 - mean) / std
