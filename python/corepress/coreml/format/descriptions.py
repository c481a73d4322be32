"""Protobuf messages for what a model says of itself: its inputs, outputs, states and functions.

They are parsed apart from the model, whose other fields take more memory, and whose own description is never edited.
"""

from __future__ import annotations

from .messages import message_classes

ARRAY_TYPES = {65568: "float32", 65600: "float64", 131104: "int32", 131080: "int8", 65552: "float16"}
COLOR_SPACES = {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE_FLOAT16"}

_FEATURES = """
    repeated FeatureDescription input = {}
    repeated FeatureDescription output = {}
    repeated FeatureDescription state = {}
    string predictedFeatureName = {}
    string predictedProbabilitiesName = {}"""
_SCHEMA = {
    "Empty": "",
    "ModelDescription": f"""
        {_FEATURES.format(1, 10, 13, 11, 12)}
        repeated FunctionDescription functions = 20
        string defaultFunctionName = 21""",
    "FunctionDescription": f"string name = 1\n{_FEATURES.format(2, 3, 6, 4, 5)}",
    "FeatureDescription": """
        string name = 1
        string shortDescription = 2
        FeatureType type = 3""",
    "FeatureType": """
        Type/ Empty int64Type = 1
        Type/ Empty doubleType = 2
        Type/ Empty stringType = 3
        Type/ ImageFeatureType imageType = 4
        Type/ ArrayFeatureType multiArrayType = 5
        Type/ DictionaryFeatureType dictionaryType = 6
        Type/ SequenceFeatureType sequenceType = 7
        Type/ StateFeatureType stateType = 8
        bool isOptional = 1000""",
    "ImageFeatureType": """
        int64 width = 1
        int64 height = 2
        int32 colorSpace = 3
        SizeFlexibility/ EnumeratedImageSizes enumeratedSizes = 21
        SizeFlexibility/ ImageSizeRange imageSizeRange = 31""",
    "EnumeratedImageSizes": "repeated ImageSize sizes = 1",
    "ImageSize": """
        uint64 width = 1
        uint64 height = 2""",
    "ImageSizeRange": """
        SizeRange widthRange = 1
        SizeRange heightRange = 2""",
    "SizeRange": """
        uint64 lowerBound = 1
        int64 upperBound = 2""",
    "ArrayFeatureType": """
        repeated int64 shape = 1
        int32 dataType = 2
        ShapeFlexibility/ EnumeratedShapes enumeratedShapes = 21
        ShapeFlexibility/ ShapeRange shapeRange = 31
        defaultOptionalValue/ int32 intDefaultValue = 41
        defaultOptionalValue/ float floatDefaultValue = 51
        defaultOptionalValue/ double doubleDefaultValue = 61""",
    "EnumeratedShapes": "repeated Shape shapes = 1",
    "Shape": "repeated int64 shape = 1",
    "ShapeRange": "repeated SizeRange sizeRanges = 1",
    "DictionaryFeatureType": """
        KeyType/ Empty int64KeyType = 1
        KeyType/ Empty stringKeyType = 2""",
    "SequenceFeatureType": """
        Type/ Empty int64Type = 1
        Type/ Empty stringType = 3
        SizeRange sizeRange = 101""",
    "StateFeatureType": "Type/ ArrayFeatureType arrayType = 1",
}
ModelDescription = message_classes(_SCHEMA, "corepress.descriptions")["ModelDescription"]
