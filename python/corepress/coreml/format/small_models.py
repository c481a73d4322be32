"""Protobuf messages of models without layers: linear models, feature engineering, suppression of boxes."""

from __future__ import annotations

from .messages import message_classes

_LABELS = """
    ClassLabels/ StringVector stringClassLabels = 100
    ClassLabels/ Int64Vector int64ClassLabels = 101"""
_LINEAR = """
    repeated DoubleArray weights = 1
    repeated double offset = 2
    int32 postEvaluationTransform = 3"""
_SCHEMA = {
    "Empty": "",
    "Model": """
        Type/ GLMRegressor glmRegressor = 300
        Type/ GLMClassifier glmClassifier = 400
        Type/ OneHotEncoder oneHotEncoder = 600
        Type/ Imputer imputer = 601
        Type/ FeatureVectorizer featureVectorizer = 602
        Type/ DictVectorizer dictVectorizer = 603
        Type/ Scaler scaler = 604
        Type/ CategoricalMapping categoricalMapping = 606
        Type/ Normalizer normalizer = 607
        Type/ ArrayFeatureExtractor arrayFeatureExtractor = 609
        Type/ NonMaximumSuppression nonMaximumSuppression = 610
        Type/ Empty identity = 900""",
    "StringVector": "repeated string vector = 1",
    "Int64Vector": "repeated int64 vector = 1",
    "DoubleArray": "repeated double value = 1",
    "DoubleVector": "repeated double vector = 1",
    "GLMRegressor": _LINEAR,
    "GLMClassifier": f"{_LINEAR}\nint32 classEncoding = 4{_LABELS}",
    "OneHotEncoder": """
        CategoryType/ StringVector stringCategories = 1
        CategoryType/ Int64Vector int64Categories = 2
        bool outputSparse = 10
        int32 handleUnknown = 11""",
    "Imputer": """
        ImputedValue/ double imputedDoubleValue = 1
        ImputedValue/ int64 imputedInt64Value = 2
        ImputedValue/ string imputedStringValue = 3
        ImputedValue/ DoubleVector imputedDoubleArray = 4
        ImputedValue/ Int64Vector imputedInt64Array = 5
        ReplaceValue/ double replaceDoubleValue = 11
        ReplaceValue/ int64 replaceInt64Value = 12
        ReplaceValue/ string replaceStringValue = 13""",
    "FeatureVectorizer": "repeated InputColumn inputList = 1",
    "InputColumn": """
        string inputColumn = 1
        uint64 inputDimensions = 2""",
    "DictVectorizer": """
        Map/ StringVector stringToIndex = 1
        Map/ Int64Vector int64ToIndex = 2""",
    "Scaler": """
        repeated double shiftValue = 1
        repeated double scaleValue = 2""",
    "CategoricalMapping": """
        MappingType/ StringToInt64Map stringToInt64Map = 1
        MappingType/ Int64ToStringMap int64ToStringMap = 2
        ValueOnUnknown/ string strValue = 101
        ValueOnUnknown/ int64 int64Value = 102""",
    "StringToInt64Map": "repeated StringToInt64 map = 1",
    "StringToInt64": """
        string key = 1
        int64 value = 2""",
    "Int64ToStringMap": "repeated Int64ToString map = 1",
    "Int64ToString": """
        int64 key = 1
        string value = 2""",
    "Normalizer": "int32 normType = 1",
    "ArrayFeatureExtractor": "repeated uint64 extractIndex = 1",
    "NonMaximumSuppression": f"""
        SuppressionMethod/ PickTop pickTop = 1{_LABELS}
        double iouThreshold = 110
        double confidenceThreshold = 111
        string confidenceInputFeatureName = 200
        string coordinatesInputFeatureName = 201
        string iouThresholdInputFeatureName = 202
        string confidenceThresholdInputFeatureName = 203
        string confidenceOutputFeatureName = 210
        string coordinatesOutputFeatureName = 211""",
    "PickTop": "bool perClass = 1",
}
SmallModel = message_classes(_SCHEMA, "corepress.small_models")["Model"]
