"""Backbones of KerasHub families that need many arguments to be small."""

import keras_hub

M = keras_hub.models
SHAPE = (64, 64, 3)


def mobilenetv5():
    per_stage = {
        "block_types": ("er", "uir"),
        "num_filters": (8, 8),
        "strides": (2, 2),
        "act_layers": ("relu", "relu"),
        "exp_ratios": (4.0, 6.0),
        "se_ratios": (0.0, 0.0),
        "dw_kernel_sizes": (0, 5),
        "dw_start_kernel_sizes": (0, 0),
        "dw_end_kernel_sizes": (0, 0),
        "exp_kernel_sizes": (3, 0),
        "pw_kernel_sizes": (1, 0),
        "num_heads": (0, 0),
        "key_dims": (0, 0),
        "value_dims": (0, 0),
        "kv_strides": (0, 0),
        "use_cpe": (False, False),
    }
    return M.MobileNetV5Backbone(
        **{f"stackwise_{name}": [[first], [last]] for name, (first, last) in per_stage.items()},
        stackwise_num_blocks=[1, 1],
        use_msfa=False,
        num_features=16,
        image_shape=SHAPE,
    )


def video_prism():
    return M.VideoPrismBackbone(
        num_frames=2,
        patch_size=32,
        hidden_dim=8,
        intermediate_dim=16,
        num_heads=2,
        num_spatial_layers=1,
        num_temporal_layers=1,
        num_auxiliary_layers=0,
        image_shape=SHAPE,
    )


def depth_anything():
    image = M.DINOV2Backbone(
        patch_size=14,
        num_layers=4,
        hidden_dim=8,
        num_heads=2,
        intermediate_dim=16,
        image_shape=(112, 112, 3),
        position_embedding_shape=(112, 112),
    )
    return M.DepthAnythingBackbone(
        image_encoder=image,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_dims=[4, 8, 8, 8],
        fusion_hidden_dim=8,
        head_hidden_dim=4,
        head_in_index=-1,
        feature_keys=["stage1", "stage2", "stage3", "stage4"],
    )


def basnet():
    image = M.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64, 64, 64],
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
    )
    return M.BASNetBackbone(image, num_classes=1, image_shape=SHAPE)


def d_fine():
    image = M.HGNetV2Backbone(
        stem_channels=[3, 8, 8],
        stackwise_stage_filters=[[8, 8, 8, 1, 3, 3]]
        + [[size, 8, 16, 1, 3, 3] for size in (8, 16, 16)],
        apply_downsample=[False, True, True, True],
        use_lightweight_conv_block=[False] * 4,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 16, 16],
        embedding_size=8,
        use_learnable_affine_block=True,
        hidden_act="relu",
        image_shape=SHAPE,
        out_features=["stage3", "stage4"],
    )
    return M.DFineBackbone(
        backbone=image,
        decoder_in_channels=[16, 16],
        encoder_hidden_dim=16,
        num_denoising=0,
        num_labels=3,
        hidden_dim=16,
        learn_initial_query=False,
        num_queries=10,
        anchor_image_size=(64, 64),
        feat_strides=[16, 32],
        num_feature_levels=2,
        encoder_in_channels=[16, 16],
        encode_proj_layers=[1],
        num_attention_heads=2,
        encoder_ffn_dim=16,
        num_encoder_layers=1,
        hidden_expansion=0.34,
        depth_multiplier=0.5,
        eval_idx=-1,
        num_decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        decoder_n_points=[2, 2],
        lqe_hidden_dim=8,
        num_lqe_layers=2,
        out_features=["stage3", "stage4"],
        image_shape=SHAPE,
        seed=0,
    )


def gemma3n():
    from keras_hub.src.models.gemma3n.gemma3n_backbone import Gemma3nBackbone

    return Gemma3nBackbone(
        text_vocab_size=50,
        text_hidden_size=8,
        num_hidden_layers=1,
        pad_token_id=0,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=[16],
        hidden_activation="gelu_approximate",
        layer_types=["full_attention"],
        sliding_window=4,
        rope_theta=10000.0,
        max_position_embeddings=16,
        vocab_size_per_layer_input=50,
        hidden_size_per_layer_input=2,
        altup_num_inputs=2,
        laurel_rank=1,
    )


def sam3():
    parts, sizes = keras_hub.layers, {"hidden_dim": 8, "intermediate_dim": 16, "num_heads": 2}
    image = {"image_shape": (56, 56, 3), "patch_size": 14}
    return M.SAM3PromptableConceptBackbone(
        vision_encoder=parts.SAM3VisionEncoder(
            **image,
            **sizes,
            num_layers=2,
            fpn_hidden_dim=8,
            fpn_scale_factors=[4.0, 2.0, 1.0, 0.5],
            pretrain_image_shape=(28, 28, 3),
            window_size=2,
            global_attn_indexes=[1],
        ),
        text_encoder=parts.SAM3TextEncoder(
            **sizes, vocabulary_size=20, embedding_dim=8, num_layers=1
        ),
        geometry_encoder=parts.SAM3GeometryEncoder(**sizes, num_layers=1, roi_size=7),
        detr_encoder=parts.SAM3DetrEncoder(**sizes, num_layers=1),
        detr_decoder=parts.SAM3DetrDecoder(**image, **sizes, num_layers=1, num_queries=4),
        mask_decoder=parts.SAM3MaskDecoder(num_upsampling_stages=3, hidden_dim=8, num_heads=2),
    )
