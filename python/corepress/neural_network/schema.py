"""Protobuf messages of neural networks: the fields with weights, and those with their shapes."""

from __future__ import annotations

from ..coreml.format.messages import MESSAGE_LIMIT, message_classes

_LSTM_GATES = ("inputGate", "forgetGate", "blockInput", "outputGate")
_GRU_GATES = ("updateGate", "resetGate", "outputGate")


def _numbered(names: tuple[str, ...], suffix: str, first: int) -> str:
    """One field of weights for each gate, with consecutive numbers."""
    return "\n".join(f"WeightParams {name}{suffix} = {first + index}" for index, name in enumerate(names))


# Float values are declared as bytes, which look the same in a file: 40 million numbers need not become Python's. Files
# may cut them into several pieces, hence "repeated". The three kinds of networks differ in fields that are not edited.
SCHEMA = {
    "Opaque": "",
    "Model": """
        int32 specificationVersion = 1
        Opaque description = 2
        bool isUpdatable = 10
        Type/ WrappedPipeline pipelineClassifier = 200
        Type/ WrappedPipeline pipelineRegressor = 201
        Type/ Pipeline pipeline = 202
        Type/ NeuralNetwork neuralNetworkRegressor = 303
        Type/ NeuralNetwork neuralNetworkClassifier = 403
        Type/ NeuralNetwork neuralNetwork = 500
        Type/ Opaque mlProgram = 502""",
    "WrappedPipeline": "Pipeline pipeline = 1",
    "Pipeline": """
        repeated Model models = 1
        repeated string names = 2""",
    "NeuralNetwork": "repeated NeuralNetworkLayer layers = 1",
    "NeuralNetworkLayer": """
        string name = 1
        repeated string input = 2
        repeated string output = 3
        bool isUpdatable = 10
        layer/ ConvolutionLayerParams convolution = 100
        layer/ ActivationParams activation = 130
        layer/ InnerProductLayerParams innerProduct = 140
        layer/ EmbeddingLayerParams embedding = 150
        layer/ BatchnormLayerParams batchnorm = 160
        layer/ ScaleLayerParams scale = 245
        layer/ BiasLayerParams bias = 250
        layer/ LoadConstantLayerParams loadConstant = 290
        layer/ SimpleRecurrentLayerParams simpleRecurrent = 400
        layer/ GRULayerParams gru = 410
        layer/ UniDirectionalLSTMLayerParams uniDirectionalLSTM = 420
        layer/ BiDirectionalLSTMLayerParams biDirectionalLSTM = 430
        layer/ CustomLayerParams custom = 500
        layer/ BranchLayerParams branch = 605
        layer/ LoopLayerParams loop = 615
        layer/ EmbeddingNDLayerParams embeddingND = 1040
        layer/ BatchedMatMulLayerParams batchedMatmul = 1045
        layer/ LoadConstantNDLayerParams loadConstantND = 1070
        layer/ LayerNormalizationLayerParams layerNormalization = 1350
        layer/ Convolution3DLayerParams convolution3d = 1471""",
    "WeightParams": """
        repeated bytes floatValue = 1
        bytes float16Value = 2
        bytes rawValue = 30
        bytes int8RawValue = 31
        QuantizationParams quantization = 40
        bool isUpdatable = 50""",
    "QuantizationParams": """
        uint64 numberOfBits = 1
        QuantizationType/ LinearQuantizationParams linearQuantization = 101
        QuantizationType/ LookUpTableQuantizationParams lookupTableQuantization = 102""",
    "LinearQuantizationParams": """
        repeated float scale = 1
        repeated float bias = 2""",
    "LookUpTableQuantizationParams": "repeated float floatValue = 1",
    "ConvolutionLayerParams": """
        uint64 outputChannels = 1
        uint64 kernelChannels = 2
        uint64 nGroups = 10
        repeated uint64 kernelSize = 20
        bool isDeconvolution = 60
        bool hasBias = 70
        WeightParams weights = 90
        WeightParams bias = 91""",
    "Convolution3DLayerParams": """
        int32 outputChannels = 1
        int32 inputChannels = 2
        int32 nGroups = 10
        int32 kernelDepth = 20
        int32 kernelHeight = 21
        int32 kernelWidth = 22
        bool hasBias = 50
        WeightParams weights = 60
        WeightParams bias = 61
        bool isDeconvolution = 86""",
    "InnerProductLayerParams": """
        uint64 inputChannels = 1
        uint64 outputChannels = 2
        bool hasBias = 10
        WeightParams weights = 20
        WeightParams bias = 21
        bool int8DynamicQuantize = 22""",
    "EmbeddingLayerParams": """
        uint64 inputDim = 1
        uint64 outputChannels = 2
        bool hasBias = 10
        WeightParams weights = 20
        WeightParams bias = 21""",
    "EmbeddingNDLayerParams": """
        uint64 vocabSize = 1
        uint64 embeddingSize = 2
        bool hasBias = 3
        WeightParams weights = 20
        WeightParams bias = 21""",
    "BatchedMatMulLayerParams": """
        uint64 weightMatrixFirstDimension = 5
        uint64 weightMatrixSecondDimension = 6
        bool hasBias = 7
        WeightParams weights = 8
        WeightParams bias = 9
        bool int8DynamicQuantize = 10""",
    "BatchnormLayerParams": """
        uint64 channels = 1
        WeightParams gamma = 15
        WeightParams beta = 16
        WeightParams mean = 17
        WeightParams variance = 18""",
    "ScaleLayerParams": """
        repeated uint64 shapeScale = 1
        WeightParams scale = 2
        bool hasBias = 3
        repeated uint64 shapeBias = 4
        WeightParams bias = 5""",
    "BiasLayerParams": """
        repeated uint64 shape = 1
        WeightParams bias = 2""",
    "LoadConstantLayerParams": """
        repeated uint64 shape = 1
        WeightParams data = 2""",
    "LoadConstantNDLayerParams": """
        repeated uint64 shape = 1
        WeightParams data = 2""",
    "SimpleRecurrentLayerParams": """
        uint64 inputVectorSize = 1
        uint64 outputVectorSize = 2
        bool hasBiasVector = 20
        WeightParams weightMatrix = 30
        WeightParams recursionMatrix = 31
        WeightParams biasVector = 32""",
    "GRULayerParams": f"""
        uint64 inputVectorSize = 1
        uint64 outputVectorSize = 2
        bool hasBiasVectors = 20
        {_numbered(_GRU_GATES, "WeightMatrix", 30)}
        {_numbered(_GRU_GATES, "RecursionMatrix", 50)}
        {_numbered(_GRU_GATES, "BiasVector", 70)}""",
    "LSTMParams": """
        bool hasBiasVectors = 20
        bool hasPeepholeVectors = 40""",
    "LSTMWeightParams": f"""
        {_numbered(_LSTM_GATES, "WeightMatrix", 1)}
        {_numbered(_LSTM_GATES, "RecursionMatrix", 20)}
        {_numbered(_LSTM_GATES, "BiasVector", 40)}
        WeightParams inputGatePeepholeVector = 60
        WeightParams forgetGatePeepholeVector = 61
        WeightParams outputGatePeepholeVector = 62""",
    "UniDirectionalLSTMLayerParams": """
        uint64 inputVectorSize = 1
        uint64 outputVectorSize = 2
        LSTMParams params = 15
        LSTMWeightParams weightParams = 20""",
    "BiDirectionalLSTMLayerParams": """
        uint64 inputVectorSize = 1
        uint64 outputVectorSize = 2
        LSTMParams params = 15
        repeated LSTMWeightParams weightParams = 20""",
    "LayerNormalizationLayerParams": """
        repeated int64 normalizedShape = 1
        WeightParams gamma = 3
        WeightParams beta = 4""",
    "ActivationParams": """
        NonlinearityType/ ActivationPReLU PReLU = 25
        NonlinearityType/ ActivationParametricSoftplus parametricSoftplus = 71""",
    "ActivationPReLU": "WeightParams alpha = 1",
    "ActivationParametricSoftplus": """
        WeightParams alpha = 1
        WeightParams beta = 2""",
    "CustomLayerParams": "repeated WeightParams weights = 20",
    "BranchLayerParams": """
        NeuralNetwork ifBranch = 1
        NeuralNetwork elseBranch = 2""",
    "LoopLayerParams": """
        NeuralNetwork conditionNetwork = 3
        NeuralNetwork bodyNetwork = 4""",
}
_CLASSES = message_classes(SCHEMA, "corepress.neural_network")
Model = _CLASSES["Model"]
NeuralNetworkLayer = _CLASSES["NeuralNetworkLayer"]
WeightParams = _CLASSES["WeightParams"]


def require_size(function: str, nbytes: int, what: str) -> None:
    """Raise ValueError if a message of this size is not possible."""
    if nbytes >= MESSAGE_LIMIT:
        raise ValueError(
            f"{function}: {what} takes {nbytes} bytes, but a protobuf message, as an .mlmodel is, must stay below "
            f"{MESSAGE_LIMIT}"
        )
