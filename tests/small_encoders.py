"""Small speech encoders with random weights, as transformers writes them."""

import torch
import transformers

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


def save_encoder(
    folder, kind="wav2vec2", shaken=0.0, normalize=True, **changes
):
    """Makes a folder of a small encoder; shaken, since a fresh model's biases
    and norms are blind."""
    torch.manual_seed(0)
    whisper = kind == "whisper"
    sizes = SMALL_WHISPER if whisper else SMALL
    config = KINDS[kind](**{**sizes, **changes})
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters() if shaken else ():
            parameter.add_(shaken * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if whisper:
        extractor = transformers.WhisperFeatureExtractor(chunk_length=1)
    else:
        extractor = transformers.Wav2Vec2FeatureExtractor(
            do_normalize=normalize
        )
    extractor.save_pretrained(folder)
    return folder
