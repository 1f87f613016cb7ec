"""A tiny backbone of each KerasHub family, and inputs for it."""

import keras
import keras_hub
import numpy as np

from support.hub_larger import (
    basnet,
    d_fine,
    depth_anything,
    gemma3n,
    mobilenetv5,
    sam3,
    video_prism,
)

M = keras_hub.models
SHAPE = (32, 32, 3)
TEXT = {"vocabulary_size": 20, "num_layers": 2, "hidden_dim": 8, "intermediate_dim": 16}
HEADS = {**TEXT, "num_heads": 2}
SHORT = {**HEADS, "max_sequence_length": 6}
GROUPED = {**TEXT, "num_query_heads": 2, "num_key_value_heads": 1}
SIZED = {**GROUPED, "head_dim": 4}
VIT = {"image_shape": SHAPE, "patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 8}
SEEN = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
CLIP_TEXT = {**SEEN, "vocabulary_size": 20, "embedding_dim": 8, "max_sequence_length": 6}
CLIP_IMAGE = {**SEEN, "patch_size": 8, "image_shape": SHAPE}
T5GEMMA = {
    f"{part}_{name}": value
    for part in ("encoder", "decoder")
    for name, value in {
        "hidden_dim": 8,
        "intermediate_dim": 16,
        "num_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "layer_types": ["full_attention"],
    }.items()
} | {"vocabulary_size": 20}


def resnet():
    return M.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 4, 4, 4],
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=SHAPE,
    )


def mit():
    return M.MiTBackbone(
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 1],
        layerwise_sr_ratios=[1, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[4, 8],
        image_shape=SHAPE,
    )


def four_mit():
    return M.MiTBackbone(
        layerwise_depths=[1] * 4,
        num_layers=4,
        layerwise_num_heads=[1] * 4,
        layerwise_sr_ratios=[8, 4, 2, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3, 3, 3],
        layerwise_strides=[4, 2, 2, 2],
        hidden_dims=[4, 8, 12, 16],
        image_shape=(64, 64, 3),
    )


def efficientnet():
    return M.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 2,
        stackwise_depth_coefficients=[1.0] * 2,
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 2],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["fused", "unfused"],
        stackwise_force_input_filters=[0, 0],
        stackwise_nores_option=[False, False],
        num_features=16,
        input_shape=SHAPE,
    )


def vit():
    return M.ViTBackbone(**VIT, mlp_dim=16)


def vae():
    from keras_hub.src.models.vae.vae_backbone import VAEBackbone

    return VAEBackbone([32, 32], [1, 1], [32, 32], [1, 1])


def clip_text():
    return M.CLIPTextEncoder(**CLIP_TEXT, intermediate_output_index=0)


def flux():
    from keras_hub.src.models.flux.flux_model import FluxBackbone

    return FluxBackbone(
        input_channels=8,
        hidden_size=16,
        mlp_ratio=2.0,
        num_heads=2,
        depth=1,
        depth_single_blocks=1,
        axes_dim=[4, 2, 2],
        theta=10_000,
        use_bias=True,
        guidance_embed=True,
        image_shape=(6, 8),
        text_shape=(6, 16),
        image_ids_shape=(6, 3),
        text_ids_shape=(6, 3),
        y_shape=(16,),
    )


def blip2():
    from keras_hub.src.models.blip2.blip2_custom_opt import BLIP2CustomOPT
    from keras_hub.src.models.blip2.blip2_qformer import BLIP2QFormer
    from keras_hub.src.models.blip2.blip2_vision_encoder import BLIP2VisionEncoder

    image = BLIP2VisionEncoder(32, 8, 1, 2, 8, 16, True, True, True, True, 0.0, 1e-6, 0.02)
    query = BLIP2QFormer(3, 2, 2, 8, 16, 8, 2, 0.1, 1e-6)
    text = BLIP2CustomOPT(20, 1, 2, 8, 16, 3, 0.1, 16, 8)
    return M.BLIP2Backbone(image, query, text)


def stable_diffusion():
    return M.StableDiffusion3Backbone(
        mmdit_patch_size=2,
        mmdit_num_heads=2,
        mmdit_hidden_dim=16,
        mmdit_num_layers=1,
        mmdit_position_size=192,
        mmdit_qk_norm=None,
        mmdit_dual_attention_indices=None,
        vae=vae(),
        clip_l=clip_text(),
        clip_g=clip_text(),
        image_shape=(64, 64, 3),
    )


def rqvae():
    from keras_hub.src.models.rqvae.rqvae_backbone import RQVAEBackbone

    return RQVAEBackbone(4, [8], 4, [8], 4, 2)


def densenet():
    return M.DenseNetBackbone([1, 1, 1], image_shape=SHAPE, growth_rate=4)


def cspnet():
    return M.CSPNetBackbone(
        8, 3, 1, [1, 1], [1, 2], [8, 16], "dark_block", stage_type="dark", image_shape=SHAPE
    )


def smollm3():
    return M.SmolLM3Backbone(
        20,
        8,
        16,
        2,
        2,
        1,
        False,
        0.0,
        [True, False],
        ["full_attention"] * 2,
        False,
        1e-5,
        16,
        1e4,
        1.0,
    )


def sam():
    from keras_hub.src.models.sam.sam_mask_decoder import SAMMaskDecoder
    from keras_hub.src.models.sam.sam_prompt_encoder import SAMPromptEncoder

    image = M.ViTDetBackbone(8, 1, 16, 2, [0], image_shape=SHAPE, num_output_channels=8)
    prompt = SAMPromptEncoder(
        hidden_size=8, image_embedding_size=(2, 2), input_image_size=(32, 32), mask_in_channels=4
    )
    mask = SAMMaskDecoder(
        hidden_size=8,
        num_layers=1,
        intermediate_dim=16,
        num_heads=2,
        embedding_dim=8,
        iou_head_hidden_dim=8,
    )
    return M.SAMBackbone(image_encoder=image, prompt_encoder=prompt, mask_decoder=mask)


def hgnet():
    return M.HGNetV2Backbone(
        depths=[1, 1],
        embedding_size=8,
        hidden_sizes=[8, 16],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[(8, 8, 8, 1, 1, 3), (8, 8, 16, 1, 1, 3)],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, False],
        image_shape=SHAPE,
    )


def mobilenet():
    return M.MobileNetBackbone(
        stackwise_expansion=[[8], [16]],
        stackwise_num_blocks=[1, 1],
        stackwise_num_filters=[[8], [8]],
        stackwise_kernel_size=[[3], [5]],
        stackwise_num_strides=[[2], [1]],
        stackwise_se_ratio=[[None], [0.25]],
        stackwise_activation=[["relu"], ["hard_swish"]],
        stackwise_padding=[[1], [2]],
        output_num_filters=16,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=16,
        squeeze_and_excite=0.5,
        input_num_filters=8,
        image_shape=SHAPE,
    )


DINO = {"patch_size": 8, **SEEN, "image_shape": SHAPE}

# of the family's hardest layer.
FAMILIES = {
    "basnet": basnet,
    "d_fine": d_fine,
    "depth_anything": depth_anything,
    "gemma3n": gemma3n,
    "mobilenetv5": mobilenetv5,
    "sam3": sam3,
    "video_prism": video_prism,
    "albert": lambda: M.AlbertBackbone(**SHORT, embedding_dim=4),
    "bart": lambda: M.BartBackbone(**SHORT),
    "bert": lambda: M.BertBackbone(**SHORT),
    "blip2": blip2,
    "bloom": lambda: M.BloomBackbone(**HEADS),
    "clip": lambda: M.CLIPBackbone(
        M.CLIPVisionEncoder(**CLIP_IMAGE), M.CLIPTextEncoder(**CLIP_TEXT), 4
    ),
    "cspnet": cspnet,
    "deberta_v3": lambda: M.DebertaV3Backbone(**SHORT, bucket_size=4),
    "deeplab_v3": lambda: M.DeepLabV3Backbone(
        resnet(), "P5", 8, [1, 2], "P2", projection_filters=4, image_shape=SHAPE
    ),
    "deit": lambda: M.DeiTBackbone(**VIT, intermediate_dim=16),
    "densenet": densenet,
    "dinov2": lambda: M.DINOV2Backbone(**DINO, position_embedding_shape=SHAPE),
    "dinov3": lambda: M.DINOV3Backbone(**DINO),
    "distil_bert": lambda: M.DistilBertBackbone(**SHORT),
    "edrec": lambda: M.EdRecBackbone(20, 1, 1, 8, 16, 2),
    "efficientnet": efficientnet,
    "electra": lambda: M.ElectraBackbone(20, 1, 2, 8, 4, 16, max_sequence_length=6),
    "esm": lambda: M.ESMBackbone(**HEADS),
    "f_net": lambda: M.FNetBackbone(**TEXT, max_sequence_length=6),
    "falcon": lambda: M.FalconBackbone(**TEXT, num_attention_heads=2),
    "flux": flux,
    "gemma": lambda: M.GemmaBackbone(**SIZED),
    "gemma3": lambda: M.Gemma3Backbone(**SIZED, image_size=16),
    "gemma4": lambda: M.Gemma4Backbone(**SIZED, image_size=16),
    "gpt2": lambda: M.GPT2Backbone(**SHORT),
    "gpt_neo_x": lambda: M.GPTNeoXBackbone(**SHORT, rotary_percentage=0.5),
    "gpt_oss": lambda: M.GptOssBackbone(**GROUPED, num_experts=2),
    "hgnetv2": hgnet,
    "llama": lambda: M.LlamaBackbone(**GROUPED),
    "llama3": lambda: M.Llama3Backbone(**GROUPED),
    "metaclip_2": lambda: M.MetaCLIP2Backbone(
        M.MetaCLIP2VisionEncoder(**CLIP_IMAGE), M.MetaCLIP2TextEncoder(**CLIP_TEXT), 4
    ),
    "mistral": lambda: M.MistralBackbone(**GROUPED),
    "mit": mit,
    "mixtral": lambda: M.MixtralBackbone(**GROUPED, num_experts=2),
    "mobilenet": mobilenet,
    "moonshine": lambda: M.MoonshineBackbone(20, 8, 1, 1, 8, 16, 2, 2),
    "opt": lambda: M.OPTBackbone(**SHORT),
    "pali_gemma": lambda: M.PaliGemmaBackbone(
        **SIZED,
        image_size=16,
        vit_patch_size=8,
        vit_num_heads=2,
        vit_hidden_dim=8,
        vit_intermediate_dim=16,
        vit_num_layers=1,
    ),
    "parseq": lambda: M.PARSeqBackbone(vit(), 20, 5, 8, 1, 2, 16),
    "phi3": lambda: M.Phi3Backbone(**GROUPED),
    "qwen": lambda: M.QwenBackbone(**GROUPED),
    "qwen3": lambda: M.Qwen3Backbone(**SIZED),
    "qwen3_5": lambda: M.Qwen3_5Backbone(
        **SIZED, layer_types=["full_attention", "linear_attention"], partial_rotary_factor=0.5
    ),
    "qwen3_5_moe": lambda: M.Qwen3_5MoeBackbone(
        20,
        2,
        2,
        1,
        4,
        8,
        moe_intermediate_dim=8,
        shared_expert_intermediate_size=8,
        num_experts=2,
        top_k=1,
        partial_rotary_factor=0.5,
    ),
    "qwen3_moe": lambda: M.Qwen3MoeBackbone(
        **SIZED, moe_intermediate_dim=8, num_experts=2, top_k=1
    ),
    "qwen_moe": lambda: M.QwenMoeBackbone(
        **GROUPED,
        moe_intermediate_dim=8,
        shared_expert_intermediate_dim=8,
        num_experts=2,
        top_k=1,
    ),
    "resnet": resnet,
    "retinanet": lambda: M.RetinaNetBackbone(resnet(), 3, 5, False, image_shape=SHAPE),
    "roberta": lambda: M.RobertaBackbone(**SHORT),
    "roformer_v2": lambda: M.RoformerV2Backbone(**HEADS, head_size=4),
    "rqvae": rqvae,
    "rwkv7": lambda: M.RWKV7Backbone(8, 4, 1, 20, 16, 4, 4, 4, 4),
    "sam": sam,
    "segformer": lambda: M.SegFormerBackbone(four_mit(), projection_filters=4),
    "siglip": lambda: M.SigLIPBackbone(
        M.SigLIPVisionEncoder(**CLIP_IMAGE), M.SigLIPTextEncoder(**CLIP_TEXT, projection_dim=8)
    ),
    "smollm3": smollm3,
    "stable_diffusion_3": stable_diffusion,
    "swin_transformer": lambda: M.SwinTransformerBackbone(
        image_shape=SHAPE, embed_dim=4, depths=(1, 1), num_heads=(1, 2), window_size=4
    ),
    "t5": lambda: M.T5Backbone(**HEADS),
    "t5gemma": lambda: M.T5GemmaBackbone(**T5GEMMA),
    "t5gemma2": lambda: M.T5Gemma2Backbone(**T5GEMMA),
    "vae": vae,
    "vgg": lambda: M.VGGBackbone([1, 1], [4, 8], image_shape=SHAPE),
    "vit": vit,
    "vit_det": lambda: M.ViTDetBackbone(8, 1, 16, 2, [0], image_shape=SHAPE, num_output_channels=8),
    "whisper": lambda: M.WhisperBackbone(
        **HEADS, max_encoder_sequence_length=12, max_decoder_sequence_length=6
    ),
    "xception": lambda: M.XceptionBackbone([[8, 8], [8, 8]], [True, False], image_shape=SHAPE),
    "xlm_roberta": lambda: M.XLMRobertaBackbone(**SHORT),
    "xlnet": lambda: M.XLNetBackbone(**HEADS),
}


# Refused, with the reason: variables that two layers of a model share.
REFUSED = {
    "gemma3n": "'multimodal_embedding_processor' and 'text_model' must not hold the same",
    "sam3": "'sam3_detr_decoder' and 'box_head' must not hold the same",
}
SAMPLES = 1200  # of sound, which the first convolution turns into a few steps


def inputs_of(model):
    """Two samples in the structure of the inputs of a model; axes without a size get six."""
    rng = np.random.default_rng(0)

    def sample(tensor):
        size = SAMPLES if tensor.name in ("encoder_input_values", "encoder_padding_mask") else 6
        has_sound = any("encoder_input_values" in one.name for one in model.inputs)
        size = size if has_sound else 6
        shape = (2, *(size if length is None else length for length in tensor.shape[1:]))
        if "int" in tensor.dtype or "bool" in tensor.dtype:
            is_flag = any(word in tensor.name for word in ("mask", "segment", "label", "indices"))
            low, high = 0 if "segment" in tensor.name else 1, 2 if is_flag else 4
            value = rng.integers(low, high, shape)
        else:
            value = rng.standard_normal(shape)
        return keras.ops.convert_to_tensor(value, tensor.dtype)

    return keras.tree.map_structure(sample, model.input)
