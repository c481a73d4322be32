"""Tests of coremltools that corepress does not pass, by pattern, and why that is right."""

from __future__ import annotations

KNOWN: dict[str, dict[str, str]] = {
    "optimize": {
        "test_const_as_output": "A constant that also leaves a block is kept: Core ML takes no compressed one there.",
        "test_palettization_pcs": "Below specification version 10 per-channel scales are multiplied into the tables, "
        "which takes one operation and a table less.",
    },
    "accelerate": {},
    "torch": {
        **dict.fromkeys(
            (
                "test_prepare_palettizer_simple_model_custom_palettization_config",
                "test_inplace_true_prepare_palettizer",
                "test_prepare_palettizer_different_milestone_per_module_type",
            ),
            "Compares the class of a prepared module with one of torch.nn.qat; parametrized modules have their own.",
        ),
        "_mil_check": "Expects a message from a logger that has the name of a module of coremltools.",
        "test_fake_palettize_insertion_weighted_modules": "Looks at an observer of torch.ao.quantization inside of "
        "coremltools' layer; here integer entries have the scale of their palette's range, and nothing observes.",
        **dict.fromkeys(
            (
                "test_fsdp_auto_wrap_policy_compute_sensitivity_call[[]8",
                "test_fsdp_auto_wrap_policy_multi_worker_compute_sensitivity_call",
            ),
            "Looks at the processes, the hooks and the FSDP wrapper of coremltools' workers; one process computes "
            "sensitivities here, whatever their number.",
        ),
        **dict.fromkeys(
            (
                "test_quantizer.py::test_activation_defaults",
                *(f"test_configure.py::test_{name}_fusion" for name in ("conv_relu", "conv_act", "conv_bn_relu")),
                *(f"test_configure.py::test_{name}_fusion" for name in ("conv_bn_act", "linear_relu", "linear_act")),
                "test_configure.py::test_*_weight_only_quantization",
                "test_configure.py::test_*_activation_only_quantization",
                "test_configure.py::test_embedding_layer_quantization",
            ),
            "Compares the classes of prepared modules with those of torch.ao.nn; parametrized modules have their own.",
        ),
        **dict.fromkeys(
            (
                "test_configure.py::test_elementwise_op_act_fusion",
                "test_configure.py::test_skipping_quantization_for_layers",
            ),
            "Looks at the nodes of a traced graph, or at the classes of its modules; the prepared model is no graph.",
        ),
        "test_functional_relu_qscheme_for_symmetric*relu_": "Numbers ranges as tracing does, which has one between a "
        "convolution and relu_, though not before relu; here relu_ is as relu.",
        "test_linear_quantizer_preserved_attributes": "Expects that attributes are lost unless they are named, as "
        "tracing loses them; the prepared model is the model, with all of its attributes.",
        "test_linear_quantizer_compression_metadata": "Takes a part of a module that tracing has fused; here modules "
        "keep their places, and scales the rank of the weight.",
        "test_observer_checkpoint[[]EMAMinMaxObserver": "Compares state dicts by ==, which tensors of several numbers "
        "allow only if they are the same objects; coremltools' observer shares the memory of what it was loaded from.",
    },
}
# Tests that compare predictions, by pattern: what they expect is not what an exact result gives.
PREDICTIONS: dict[str, str] = {
    "precision='fp32'*numpy.float16": "A float32 program of float16 tensors or weights, compared within 1e-5 with a "
    "reference that is not rounded to float16.",
    "TestResample::test_builder_to_backend_smoke": "The coordinate -3.7 is rounded to float16; expected is the value "
    "at the unrounded one. At iOS 15 the test counts casts that only float16 programs have.",
    "TestCropResize::test_builder_to_backend_smoke": "Expected is the literal 7.899; the exact value is 7.9.",
    "TestConstexprLutToSparse*precision='fp32'*lut_dtype=fp16": "The expected sums, though not the program's, are "
    "rounded to float16.",
    "TestJointCompressionOps::test_sparse_lut*precision='fp32'*lut_dtype=fp16": "The expected sums, though not the "
    "program's, are rounded to float16.",
    "TestLinear::test_linear_fp16": "Expected values are rounded to float16, and compared within 1e-5.",
    "TestMILProtoLoad::test_*multi*function*": "Looks at the files that Core ML compiled the model to.",
    "NewLayersSimpleTest::test_topk_*pu": "The expected indices are of a sort that is not stable, of numbers among "
    "which some are equal.",
    "test_nms_corner_case_iou_equal_threshold*minimum_deployment_target=8]": "Two boxes overlap by exactly the "
    "threshold; both are kept, since the operation suppresses what overlaps by more.",
}
