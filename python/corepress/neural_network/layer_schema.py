"""All fields of all layers, for running networks; built when the first network is run.

The fields with weights are those of `schema`; this table adds the others. Enumerations are numbers here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from ..coreml.format.descriptions import ModelDescription
from ..coreml.format.messages import message_classes, parse_message
from ..errors import FormatError
from .byte_sources import Source
from .held_values import HeldValues
from .schema import SCHEMA

# Fields of classifiers are added to all networks, whose other fields have the same numbers in all three kinds. What is
# only for training on a device is left out. A layer without parameters has the type NoParams.
_MORE = {
    "NeuralNetworkLayer": """
        repeated Tensor inputTensor = 4
        repeated Tensor outputTensor = 5
        layer/ PoolingLayerParams pooling = 120
        layer/ MeanVarianceNormalizeLayerParams mvn = 165
        layer/ L2NormalizeLayerParams l2normalize = 170
        layer/ NoParams softmax = 175
        layer/ LRNLayerParams lrn = 180
        layer/ CropLayerParams crop = 190
        layer/ PaddingLayerParams padding = 200
        layer/ UpsampleLayerParams upsample = 210
        layer/ ResizeBilinearLayerParams resizeBilinear = 211
        layer/ CropResizeLayerParams cropResize = 212
        layer/ UnaryFunctionLayerParams unary = 220
        layer/ AddLayerParams add = 230
        layer/ MultiplyLayerParams multiply = 231
        layer/ NoParams average = 240
        layer/ NoParams max = 260
        layer/ NoParams min = 261
        layer/ DotProductLayerParams dot = 270
        layer/ ReduceLayerParams reduce = 280
        layer/ ReshapeLayerParams reshape = 300
        layer/ FlattenLayerParams flatten = 301
        layer/ PermuteLayerParams permute = 310
        layer/ ConcatLayerParams concat = 320
        layer/ SplitLayerParams split = 330
        layer/ SequenceRepeatLayerParams sequenceRepeat = 340
        layer/ ReorganizeDataLayerParams reorganizeData = 345
        layer/ SliceLayerParams slice = 350
        layer/ NoParams copy = 600
        layer/ NoParams loopBreak = 620
        layer/ NoParams loopContinue = 625
        layer/ RangeStaticLayerParams rangeStatic = 635
        layer/ RangeDynamicLayerParams rangeDynamic = 640
        layer/ ClipLayerParams clip = 660
        layer/ NoParams ceil = 665
        layer/ NoParams floor = 670
        layer/ NoParams sign = 680
        layer/ NoParams round = 685
        layer/ NoParams exp2 = 700
        layer/ NoParams sin = 710
        layer/ NoParams cos = 715
        layer/ NoParams tan = 720
        layer/ NoParams asin = 730
        layer/ NoParams acos = 735
        layer/ NoParams atan = 740
        layer/ NoParams sinh = 750
        layer/ NoParams cosh = 755
        layer/ NoParams tanh = 760
        layer/ NoParams asinh = 770
        layer/ NoParams acosh = 775
        layer/ NoParams atanh = 780
        layer/ NoParams erf = 790
        layer/ GeluLayerParams gelu = 795
        layer/ EqualLayerParams equal = 815
        layer/ NotEqualLayerParams notEqual = 820
        layer/ LessThanLayerParams lessThan = 825
        layer/ LessEqualLayerParams lessEqual = 827
        layer/ GreaterThanLayerParams greaterThan = 830
        layer/ GreaterEqualLayerParams greaterEqual = 832
        layer/ NoParams logicalOr = 840
        layer/ NoParams logicalXor = 845
        layer/ NoParams logicalNot = 850
        layer/ NoParams logicalAnd = 855
        layer/ NoParams modBroadcastable = 865
        layer/ NoParams minBroadcastable = 870
        layer/ NoParams maxBroadcastable = 875
        layer/ NoParams addBroadcastable = 880
        layer/ NoParams powBroadcastable = 885
        layer/ NoParams divideBroadcastable = 890
        layer/ NoParams floorDivBroadcastable = 895
        layer/ NoParams multiplyBroadcastable = 900
        layer/ NoParams subtractBroadcastable = 905
        layer/ TileLayerParams tile = 920
        layer/ StackLayerParams stack = 925
        layer/ GatherLayerParams gather = 930
        layer/ ScatterLayerParams scatter = 935
        layer/ NoParams gatherND = 940
        layer/ ScatterNDLayerParams scatterND = 945
        layer/ SoftmaxNDLayerParams softmaxND = 950
        layer/ GatherAlongAxisLayerParams gatherAlongAxis = 952
        layer/ ScatterAlongAxisLayerParams scatterAlongAxis = 954
        layer/ ReverseLayerParams reverse = 960
        layer/ ReverseSeqLayerParams reverseSeq = 965
        layer/ SplitNDLayerParams splitND = 975
        layer/ ConcatNDLayerParams concatND = 980
        layer/ TransposeLayerParams transpose = 985
        layer/ SliceStaticLayerParams sliceStatic = 995
        layer/ SliceDynamicLayerParams sliceDynamic = 1000
        layer/ SlidingWindowsLayerParams slidingWindows = 1005
        layer/ TopKLayerParams topK = 1015
        layer/ ArgMaxOrMinLayerParams argMin = 1020
        layer/ ArgMaxOrMinLayerParams argMax = 1025
        layer/ NoParams getShape = 1065
        layer/ FillLikeLayerParams fillLike = 1080
        layer/ FillStaticLayerParams fillStatic = 1085
        layer/ FillDynamicLayerParams fillDynamic = 1090
        layer/ NoParams broadcastToLike = 1100
        layer/ BroadcastToStaticLayerParams broadcastToStatic = 1105
        layer/ NoParams broadcastToDynamic = 1110
        layer/ SqueezeLayerParams squeeze = 1120
        layer/ ExpandDimsLayerParams expandDims = 1125
        layer/ FlattenTo2DLayerParams flattenTo2D = 1130
        layer/ NoParams reshapeLike = 1135
        layer/ ReshapeStaticLayerParams reshapeStatic = 1140
        layer/ NoParams reshapeDynamic = 1145
        layer/ RankPreservingReshapeLayerParams rankPreservingReshape = 1150
        layer/ ConstantPaddingLayerParams constantPad = 1155
        layer/ RandomNormalLayerParams randomNormalLike = 1170
        layer/ RandomNormalLayerParams randomNormalStatic = 1175
        layer/ RandomNormalLayerParams randomNormalDynamic = 1180
        layer/ RandomUniformLayerParams randomUniformLike = 1190
        layer/ RandomUniformLayerParams randomUniformStatic = 1195
        layer/ RandomUniformLayerParams randomUniformDynamic = 1200
        layer/ RandomBernoulliLayerParams randomBernoulliLike = 1210
        layer/ RandomBernoulliLayerParams randomBernoulliStatic = 1215
        layer/ RandomBernoulliLayerParams randomBernoulliDynamic = 1220
        layer/ CategoricalDistributionLayerParams categoricalDistribution = 1230
        layer/ ReductionLayerParams reduceL1 = 1250
        layer/ ReductionLayerParams reduceL2 = 1255
        layer/ ReductionLayerParams reduceMax = 1260
        layer/ ReductionLayerParams reduceMin = 1265
        layer/ ReductionLayerParams reduceSum = 1270
        layer/ ReductionLayerParams reduceProd = 1275
        layer/ ReductionLayerParams reduceMean = 1280
        layer/ ReductionLayerParams reduceLogSum = 1285
        layer/ ReductionLayerParams reduceSumSquare = 1290
        layer/ ReductionLayerParams reduceLogSumExp = 1295
        layer/ NoParams whereNonZero = 1313
        layer/ MatrixBandPartLayerParams matrixBandPart = 1315
        layer/ LowerTriangularLayerParams lowerTriangular = 1320
        layer/ UpperTriangularLayerParams upperTriangular = 1325
        layer/ NoParams whereBroadcastable = 1330
        layer/ NonMaximumSuppressionLayerParams NonMaximumSuppression = 1400
        layer/ OneHotLayerParams oneHot = 1450
        layer/ CumSumLayerParams cumSum = 1455
        layer/ ClampedReLULayerParams clampedReLU = 1460
        layer/ ArgSortLayerParams argSort = 1461
        layer/ Pooling3DLayerParams pooling3d = 1465
        layer/ GlobalPooling3DLayerParams globalPooling3d = 1466
        layer/ SliceBySizeLayerParams sliceBySize = 1470""",
    "Tensor": """
        uint32 rank = 1
        repeated int64 dimValue = 2""",
    "ConvolutionLayerParams": """
        repeated uint64 stride = 30
        repeated uint64 dilationFactor = 40
        ConvolutionPaddingType/ ValidPadding valid = 50
        ConvolutionPaddingType/ SamePadding same = 51
        repeated uint64 outputShape = 100""",
    "ValidPadding": "BorderAmounts paddingAmounts = 1",
    "BorderAmounts": "repeated EdgeSizes borderAmounts = 10",
    "EdgeSizes": """
        uint64 startEdgeSize = 1
        uint64 endEdgeSize = 2""",
    "SamePadding": "int32 asymmetryMode = 1",
    "PoolingLayerParams": """
        int32 type = 1
        repeated uint64 kernelSize = 10
        repeated uint64 stride = 20
        PoolingPaddingType/ ValidPadding valid = 30
        PoolingPaddingType/ SamePadding same = 31
        PoolingPaddingType/ ValidCompletePadding includeLastPixel = 32
        bool avgPoolExcludePadding = 50
        bool globalPooling = 60""",
    "ValidCompletePadding": "repeated uint64 paddingAmounts = 10",
    "ActivationParams": """
        NonlinearityType/ ActivationLinear linear = 5
        NonlinearityType/ NoParams ReLU = 10
        NonlinearityType/ ActivationLeakyReLU leakyReLU = 15
        NonlinearityType/ ActivationThresholdedReLU thresholdedReLU = 20
        NonlinearityType/ NoParams tanh = 30
        NonlinearityType/ ActivationScaledTanh scaledTanh = 31
        NonlinearityType/ NoParams sigmoid = 40
        NonlinearityType/ ActivationSigmoidHard sigmoidHard = 41
        NonlinearityType/ ActivationELU ELU = 50
        NonlinearityType/ NoParams softsign = 60
        NonlinearityType/ NoParams softplus = 70""",
    "ActivationLinear": """
        float alpha = 1
        float beta = 2""",
    "NoParams": "",
    "ActivationLeakyReLU": "float alpha = 1",
    "ActivationThresholdedReLU": "float alpha = 1",
    "ActivationScaledTanh": """
        float alpha = 1
        float beta = 2""",
    "ActivationSigmoidHard": """
        float alpha = 1
        float beta = 2""",
    "ActivationELU": "float alpha = 1",
    "BatchnormLayerParams": """
        bool computeMeanVar = 5
        bool instanceNormalization = 6
        float epsilon = 10""",
    "MeanVarianceNormalizeLayerParams": """
        bool acrossChannels = 1
        bool normalizeVariance = 2
        float epsilon = 3""",
    "L2NormalizeLayerParams": "float epsilon = 1",
    "LRNLayerParams": """
        float alpha = 1
        float beta = 2
        uint64 localSize = 3
        float k = 4""",
    "CropLayerParams": """
        BorderAmounts cropAmounts = 1
        repeated uint64 offset = 5""",
    "PaddingLayerParams": """
        PaddingType/ PaddingConstant constant = 1
        PaddingType/ NoParams reflection = 2
        PaddingType/ NoParams replication = 3
        BorderAmounts paddingAmounts = 10""",
    "PaddingConstant": "float value = 1",
    "UpsampleLayerParams": """
        repeated uint64 scalingFactor = 1
        repeated float fractionalScalingFactor = 7
        int32 mode = 5
        int32 linearUpsampleMode = 6""",
    "ResizeBilinearLayerParams": """
        repeated uint64 targetSize = 1
        SamplingMode mode = 2""",
    "SamplingMode": "int32 samplingMethod = 1",
    "CropResizeLayerParams": """
        repeated uint64 targetSize = 1
        bool normalizedCoordinates = 2
        SamplingMode mode = 3
        BoxCoordinatesMode boxIndicesMode = 4
        float spatialScale = 5""",
    "BoxCoordinatesMode": "int32 boxMode = 1",
    "UnaryFunctionLayerParams": """
        int32 type = 1
        float alpha = 2
        float epsilon = 3
        float shift = 4
        float scale = 5""",
    "AddLayerParams": "float alpha = 1",
    "MultiplyLayerParams": "float alpha = 1",
    "DotProductLayerParams": "bool cosineSimilarity = 1",
    "ReduceLayerParams": """
        int32 mode = 1
        float epsilon = 2
        int32 axis = 3""",
    "ReshapeLayerParams": """
        repeated int64 targetShape = 1
        int32 mode = 2""",
    "FlattenLayerParams": "int32 mode = 1",
    "PermuteLayerParams": "repeated uint64 axis = 1",
    "ConcatLayerParams": "bool sequenceConcat = 100",
    "SplitLayerParams": "uint64 nOutputs = 1",
    "SequenceRepeatLayerParams": "uint64 nRepetitions = 1",
    "ReorganizeDataLayerParams": """
        int32 mode = 1
        uint64 blockSize = 2""",
    "SliceLayerParams": """
        int64 startIndex = 1
        int64 endIndex = 2
        uint64 stride = 3
        int32 axis = 4""",
    "SimpleRecurrentLayerParams": """
        ActivationParams activation = 10
        bool sequenceOutput = 15
        bool reverseInput = 100""",
    "GRULayerParams": """
        repeated ActivationParams activations = 10
        bool sequenceOutput = 15
        bool reverseInput = 100""",
    "UniDirectionalLSTMLayerParams": """
        repeated ActivationParams activations = 10
        bool reverseInput = 100""",
    "LSTMParams": """
        bool sequenceOutput = 10
        bool forgetBias = 30
        bool coupledInputAndForgetGate = 50
        float cellClipThreshold = 60""",
    "BiDirectionalLSTMLayerParams": """
        repeated ActivationParams activationsForwardLSTM = 10
        repeated ActivationParams activationsBackwardLSTM = 11""",
    "CustomLayerParams": """
        string className = 10
        map CustomLayerParamValue parameters = 30
        string description = 40""",
    "CustomLayerParamValue": """
        value/ double doubleValue = 10
        value/ string stringValue = 20
        value/ int32 intValue = 30
        value/ int64 longValue = 40
        value/ bool boolValue = 50""",
    "NeuralNetwork": """
        repeated NeuralNetworkPreprocessing preprocessing = 2
        int32 arrayInputShapeMapping = 5
        int32 imageInputShapeMapping = 6
        ClassLabels/ StringVector stringClassLabels = 100
        ClassLabels/ Int64Vector int64ClassLabels = 101
        string labelProbabilityLayerName = 200""",
    "NeuralNetworkPreprocessing": """
        string featureName = 1
        preprocessor/ NeuralNetworkImageScaler scaler = 10
        preprocessor/ NeuralNetworkMeanImage meanImage = 11""",
    "NeuralNetworkImageScaler": """
        float channelScale = 10
        float blueBias = 20
        float greenBias = 21
        float redBias = 22
        float grayBias = 30""",
    "NeuralNetworkMeanImage": "repeated float meanImage = 1",
    "LoopLayerParams": """
        uint64 maxLoopIterations = 1
        string conditionVar = 2""",
    "RangeStaticLayerParams": """
        float endValue = 1
        float startValue = 2
        float stepSizeValue = 3""",
    "RangeDynamicLayerParams": """
        float startValue = 2
        float stepSizeValue = 3""",
    "ClipLayerParams": """
        float minVal = 1
        float maxVal = 2""",
    "GeluLayerParams": "int32 mode = 1",
    "EqualLayerParams": "float alpha = 1",
    "NotEqualLayerParams": "float alpha = 1",
    "LessThanLayerParams": "float alpha = 2",
    "LessEqualLayerParams": "float alpha = 2",
    "GreaterThanLayerParams": "float alpha = 2",
    "GreaterEqualLayerParams": "float alpha = 2",
    "TileLayerParams": "repeated uint64 reps = 1",
    "StackLayerParams": "int64 axis = 1",
    "GatherLayerParams": "int64 axis = 1",
    "ScatterLayerParams": """
        int64 axis = 1
        int32 mode = 2""",
    "ScatterNDLayerParams": "int32 mode = 1",
    "SoftmaxNDLayerParams": "int64 axis = 1",
    "GatherAlongAxisLayerParams": "int64 axis = 1",
    "ScatterAlongAxisLayerParams": """
        int64 axis = 1
        int32 mode = 2""",
    "ReverseLayerParams": "repeated bool reverseDim = 1",
    "ReverseSeqLayerParams": """
        int64 batchAxis = 1
        int64 sequenceAxis = 2""",
    "SplitNDLayerParams": """
        int64 axis = 1
        uint64 numSplits = 2
        repeated uint64 splitSizes = 3""",
    "ConcatNDLayerParams": """
        int64 axis = 1
        bool interleave = 2""",
    "TransposeLayerParams": "repeated uint64 axes = 1",
    "SliceStaticLayerParams": """
        repeated int64 beginIds = 1
        repeated bool beginMasks = 2
        repeated int64 endIds = 3
        repeated bool endMasks = 4
        repeated int64 strides = 5
        repeated bool squeezeMasks = 6""",
    "SliceDynamicLayerParams": """
        repeated bool beginMasks = 2
        repeated int64 endIds = 3
        repeated bool endMasks = 4
        repeated int64 strides = 5
        repeated bool squeezeMasks = 6""",
    "SlidingWindowsLayerParams": """
        int64 axis = 1
        uint64 windowSize = 2
        uint64 step = 3""",
    "TopKLayerParams": """
        int64 axis = 1
        uint64 K = 2
        bool useBottomK = 3""",
    "ArgMaxOrMinLayerParams": """
        int64 axis = 1
        bool removeDim = 2""",
    "BatchedMatMulLayerParams": """
        bool transposeA = 1
        bool transposeB = 2""",
    "FillLikeLayerParams": "float value = 1",
    "FillStaticLayerParams": """
        float value = 1
        repeated uint64 targetShape = 2""",
    "FillDynamicLayerParams": "float value = 1",
    "BroadcastToStaticLayerParams": "repeated uint64 targetShape = 1",
    "SqueezeLayerParams": """
        repeated int64 axes = 1
        bool squeezeAll = 2""",
    "ExpandDimsLayerParams": "repeated int64 axes = 1",
    "FlattenTo2DLayerParams": "int64 axis = 1",
    "ReshapeStaticLayerParams": "repeated int64 targetShape = 1",
    "RankPreservingReshapeLayerParams": "repeated int64 targetShape = 1",
    "ConstantPaddingLayerParams": """
        float value = 1
        repeated uint64 padAmounts = 2
        bool padToGivenOutputSizeMode = 3""",
    "RandomNormalLayerParams": """
        int64 seed = 1
        float mean = 2
        float stdDev = 3
        repeated uint64 outputShape = 4""",
    "RandomUniformLayerParams": """
        int64 seed = 1
        float minVal = 2
        float maxVal = 3
        repeated uint64 outputShape = 4""",
    "RandomBernoulliLayerParams": """
        int64 seed = 1
        float prob = 2
        repeated uint64 outputShape = 3""",
    "CategoricalDistributionLayerParams": """
        int64 seed = 1
        int64 numSamples = 2
        bool isLogits = 3
        float eps = 4
        float temperature = 5""",
    "ReductionLayerParams": """
        repeated int64 axes = 1
        bool keepDims = 2
        bool reduceAll = 3""",
    "MatrixBandPartLayerParams": """
        int64 numLower = 1
        int64 numUpper = 2""",
    "LowerTriangularLayerParams": "int64 k = 1",
    "UpperTriangularLayerParams": "int64 k = 1",
    "LayerNormalizationLayerParams": "float eps = 2",
    "NonMaximumSuppressionLayerParams": """
        float iouThreshold = 1
        float scoreThreshold = 2
        uint64 maxBoxes = 3
        bool perClassSuppression = 4""",
    "OneHotLayerParams": """
        uint64 oneHotVectorSize = 1
        int64 axis = 2
        float onValue = 3
        float offValue = 4""",
    "CumSumLayerParams": """
        int64 axis = 1
        bool excludeFinalSum = 2
        bool reverse = 3""",
    "ClampedReLULayerParams": """
        float alpha = 1
        float beta = 2""",
    "ArgSortLayerParams": """
        int64 axis = 1
        bool descending = 2""",
    "Pooling3DLayerParams": """
        int32 type = 1
        int32 kernelDepth = 2
        int32 kernelHeight = 3
        int32 kernelWidth = 4
        int32 strideDepth = 5
        int32 strideHeight = 6
        int32 strideWidth = 7
        int32 paddingType = 15
        int32 customPaddingFront = 8
        int32 customPaddingBack = 9
        int32 customPaddingTop = 10
        int32 customPaddingBottom = 11
        int32 customPaddingLeft = 12
        int32 customPaddingRight = 13
        bool countExcludePadding = 14""",
    "GlobalPooling3DLayerParams": "int32 type = 1",
    "SliceBySizeLayerParams": """
        int64 size = 2
        int64 axis = 3""",
    "Convolution3DLayerParams": """
        int32 strideDepth = 31
        int32 strideHeight = 32
        int32 strideWidth = 33
        int32 dilationDepth = 40
        int32 dilationHeight = 41
        int32 dilationWidth = 42
        int32 paddingType = 70
        int32 customPaddingFront = 80
        int32 customPaddingBack = 81
        int32 customPaddingTop = 82
        int32 customPaddingBottom = 83
        int32 customPaddingLeft = 84
        int32 customPaddingRight = 85
        repeated uint64 outputShape = 87""",
    "StringVector": "repeated string vector = 1",
    "Int64Vector": "repeated int64 vector = 1",
}


@cache
def _classes() -> dict[str, Any]:
    names = dict.fromkeys((*SCHEMA, *_MORE))
    table = {name: f"{SCHEMA.get(name, '')}\n{_MORE.get(name, '')}" for name in names}
    return message_classes(table, "corepress.neural_network.layers")


def message_class(name: str) -> Any:
    """The class of a message, by its name in Core ML's format."""
    return _classes()[name]


@dataclass(frozen=True)
class StoredNetwork:
    """A network whose large values stay in its file, or in memory, until they are read.

    Attributes
    ----------
    network : protobuf message
        A ``NeuralNetwork`` with all fields of its layers.
    description : protobuf message
        The ``ModelDescription`` of the model.
    held : HeldValues
        The values that digests replace in it.
    """

    network: Any
    description: Any
    held: HeldValues


def read_network(source: Source, begin: int = 0, end: int | None = None) -> StoredNetwork:
    """The network of a model.

    Parameters
    ----------
    source : Source
        Where the model is stored; it must stay open as long as values are read.
    begin, end : int
        Its bytes.

    Raises
    ------
    FormatError
        If the model is damaged or holds no network.
    """
    held, model_class = HeldValues(comparable=False), message_class("Model")
    data = held.take_out(source, begin, source.size if end is None else end, model_class.DESCRIPTOR)
    model = parse_message(data, model_class)
    kind = model.WhichOneof("Type")
    network = getattr(model, kind or "neuralNetwork")
    if network.DESCRIPTOR.name != "NeuralNetwork" or kind is None:
        raise FormatError(f"the model is no neural network but {kind or 'of another kind'}")
    description = parse_message(model.description.SerializeToString(), ModelDescription)
    return StoredNetwork(network, description, held)
